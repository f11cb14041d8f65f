"""Exceptions and values on their way between processes."""

import inspect
import io
import pickle
import threading
import urllib.error

import pytest

from amorsize import AmorsizeError, SerializationError, TaskTimeoutError, WorkerLostError
from amorsize.run.failure import RemoteTraceback, add_note, pack, short_repr, unpack
from amorsize.run.pickles import dumps, loads
from amorsize.run.transport import pack_results
from amorsize.run.transport import unpack as unpack_parcel
from tests.functions import Answering, NeedsTwoError


class NeedsTwoValueError(ValueError):
    def __init__(self, first, second):
        super().__init__(f"{first}, {second}")


class Unfriendly(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    def __reduce__(self):
        raise RuntimeError("no pickle")


class BadRepr:
    def __repr__(self):
        raise RuntimeError("no repr")


def travelled(error):
    """Return an exception as it arrives after a trip."""
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001
        return unpack(pickle.loads(pickle.dumps(pack(raised, 3))))


@pytest.mark.parametrize(
    "error", [ValueError("x", 3), KeyError("k"), OSError(2, "gone"), SystemExit(4), StopIteration()]
)
def test_a_picklable_exception_arrives_as_itself(error):
    """Type and arguments stay, the traceback becomes the cause."""
    arrived = travelled(error)
    assert (type(arrived), arrived.args) == (type(error), error.args)
    assert isinstance(arrived.__cause__, RemoteTraceback)
    assert "travelled" in str(arrived.__cause__)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (NeedsTwoError("a", "b"), NeedsTwoError, "a and b"),
        (NeedsTwoValueError("a", "b"), NeedsTwoValueError, "a, b"),
        (ValueError(lambda: 3), ValueError, None),
        (Unfriendly(), Unfriendly, None),
    ],
)
def test_one_that_does_not_survive_pickling_is_made_again(error, kind, text):
    """Of its own class, without its __init__; the text stays the same."""
    arrived = travelled(error)
    assert type(arrived) is kind
    assert text is None or str(arrived) == text


@pytest.mark.parametrize(
    "error",
    [
        WorkerLostError("lost", index=3, exitcode=-9),
        TaskTimeoutError("late", index=4, seconds=0.5),
        SerializationError("stuck", index=5),
    ],
)
def test_our_own_errors_travel(error):
    """They survive pickling with their attributes: calls may be nested."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    assert isinstance(copy, AmorsizeError)


def test_the_errors_are_also_the_standard_ones():
    """TaskTimeoutError is a TimeoutError, SerializationError a PicklingError."""
    assert issubclass(TaskTimeoutError, TimeoutError)
    assert issubclass(SerializationError, pickle.PicklingError)


def test_short_repr_never_raises_and_is_short():
    """Whatever the value, the text is short."""
    assert "BadRepr" in short_repr(BadRepr())
    assert len(short_repr("x" * 10_000)) < 200
    assert short_repr(3) == "3"


def test_values_pickle_cannot_carry_go_by_cloudpickle():
    """A lambda travels; a generator is refused with its type."""
    assert loads(dumps(lambda x: x + 1))(2) == 3
    with pytest.raises(SerializationError, match="generator"):
        dumps(x for x in [])


def test_results_travel_up_to_the_first_that_cannot():
    """The ones before it are kept, and its index is named."""
    parcel, error = pack_results([1, 2, (x for x in []), 4], 10, "")
    assert unpack_parcel(parcel) == [1, 2]
    assert error.index == 12
    parcel, error = pack_results([1, 2], 0, "")
    assert (unpack_parcel(parcel), error) == ([1, 2], None)


# What args do not say ------------------------------------------------------------------------


class Quit(SystemExit):
    pass


class Missing(FileNotFoundError):
    pass


class Denied(OSError):
    def __init__(self, number, text, file, *, extra):
        super().__init__(number, text, file)
        self.extra = extra


class Slotted(Exception):
    __slots__ = ("limit", "unset")

    def __init__(self, *, limit):
        self.limit = limit


class Frozen(Exception):
    def __init__(self, code, why):
        super().__init__(code)
        object.__setattr__(self, "why", why)

    def __setattr__(self, name, value):
        raise AttributeError(f"frozen: {name}")


class Newly(Exception):
    def __new__(cls, first, second):
        made = super().__new__(cls, first)
        made.second = second
        return made

    def __init__(self, first, second):
        super().__init__(first)


class Outer:
    class Inner(Exception):
        def __init__(self, first, *, second):
            super().__init__(first)
            self.second = second


class Group(ExceptionGroup):
    def __new__(cls, message, members, code):
        made = super().__new__(cls, message, members)
        made.code = code
        return made


def of_http():
    return urllib.error.HTTPError("http://host", 404, "gone", {}, io.BytesIO(b"body"))


KINDS = [
    lambda: Quit(3),
    lambda: SystemExit({"code": 4}),
    lambda: Missing(2, "gone", "a.txt"),
    lambda: OSError(2, "gone", "a", 2, "b"),
    lambda: Denied(13, "denied", "a.txt", extra=1),
    lambda: ImportError("m", name="n", path="p"),
    lambda: SyntaxError("m", ("f", 1, 2, "t", 1, 3)),
    lambda: UnicodeDecodeError("utf8", b"a", 0, 1, "r"),
    lambda: StopIteration(5),
    lambda: NameError("m", name="n"),
    lambda: Slotted(limit=None),
    lambda: Frozen(1, "why"),
    lambda: Newly(1, 2),
    lambda: Outer.Inner(1, second=2),
    lambda: Group("g", [ValueError(1), NeedsTwoError(1, 2)], 3),
    lambda: BaseExceptionGroup("g", [KeyboardInterrupt(1), Group("h", [Newly(1, 2)], 3)]),
    of_http,
]


def content(error):
    """Return all that an exception holds and says."""
    fields = {
        name: getattr(error, name)
        for owner in type(error).__mro__
        for name, value in vars(owner).items()
        if inspect.ismemberdescriptor(value) and not name.startswith("__") and hasattr(error, name)
    }
    if isinstance(error, BaseExceptionGroup):
        fields["exceptions"] = [content(member) for member in error.exceptions]
    own = {
        name: value
        for name, value in vars(error).items()
        if isinstance(value, int | str | None) or name == "__notes__"
    }
    return type(error), repr(error), str(error), fields, own


def with_a_lock(error):
    """Return an exception as it arrives if a part of it cannot be sent, which is then left out."""
    vars(error)["lock"] = threading.Lock()
    arrived = travelled(error)
    assert "lock" in vars(error)
    assert "lock" not in vars(arrived)
    return arrived


@pytest.mark.parametrize("make", KINDS, ids=lambda make: type(make()).__name__)
@pytest.mark.parametrize("travel", [travelled, with_a_lock, lambda error: loads(dumps([error]))[0]])
def test_exceptions_keep_what_their_args_do_not_say(travel, make):
    """Fields of builtin classes, slots, members of groups: raised, in part, and as a result."""
    assert content(travel(make())) == content(make())


def test_a_group_arrives_as_one_though_a_member_cannot_be_sent():
    """The member loses what cannot be sent, and no more."""
    member = NeedsTwoError("a", "b")
    member.lock = threading.Lock()
    arrived = travelled(ExceptionGroup("g", [ValueError(1), member]))
    assert content(arrived) == content(
        ExceptionGroup("g", [ValueError(1), NeedsTwoError("a", "b")])
    )


def test_an_exception_may_hold_itself():
    """As an attribute and among its arguments."""
    error = ValueError("x")
    error.own = error
    error.args = ("x", error)
    for arrived in (travelled(error), loads(dumps(error))):
        assert arrived.own is arrived
        assert arrived.args == ("x", arrived)


def test_an_exception_that_answers_for_its_attributes_is_noted_and_travels():
    """Whatever its ``__getattr__`` raises."""
    arrived = travelled(Answering({"code": 5}))
    assert (type(arrived), arrived.code) == (Answering, 5)
    assert "answer" in str(arrived.__cause__)
    add_note(arrived, "noted")
    assert vars(arrived)["__notes__"] == ["amorsize: noted"]


@pytest.mark.parametrize("notes", [5, ("a",), None])
def test_notes_that_are_no_list_are_left_alone(notes):
    """They are the user's, and the exception stays what it is."""
    error = ValueError("x")
    error.__notes__ = notes
    arrived = travelled(error)
    add_note(arrived, "noted")
    assert (type(arrived), arrived.__notes__) == (ValueError, notes)


def test_a_frozen_exception_takes_a_note():
    """Past its own ``__setattr__``, and once."""
    error = Frozen(1, "why")
    add_note(error, "noted")
    add_note(error, "noted")
    assert error.__notes__ == ["amorsize: noted"]


# Results that pickle and do not open ----------------------------------------------------------


class Unopened:
    def __init__(self, needed):
        self.needed = needed

    def __reduce__(self):
        return Unopened, ()


def test_a_result_that_would_not_open_is_named_by_the_worker():
    """In whatever depth; the ones before it are kept, and kinds that open are not opened again."""
    parcel, error = pack_results([1, [2], [{"a": (Unopened(3),)}], 4], 10, "")
    assert unpack_parcel(parcel) == [1, [2]]
    assert isinstance(error, SerializationError)
    assert error.index == 12
    assert "not be opened again: TypeError: Unopened.__init__() missing" in str(error)


class Opened:
    count = 0

    def __init__(self, data=b""):
        self.data = data

    def __setstate__(self, state):
        type(self).count += 1
        vars(self).update(state)


class Finalized(Opened):
    def __del__(self):
        pass


def test_a_kind_of_result_is_opened_once_and_within_bounds():
    """Not one that is large, and none that has a finalizer."""
    pack_results([Opened(bytes(2_000_000)), Opened()], 0, "")
    pack_results([Finalized()], 0, "")
    assert (Opened.count, Finalized.count) == (0, 0)
    for _ in range(3):
        pack_results([Opened(), Opened()], 0, "")
    assert Opened.count == 2


def test_results_that_do_not_open_in_the_caller_name_their_items(monkeypatch):
    """As a SerializationError, whatever opening them raised."""
    parcel, _ = pack_results([Opened(), Opened()], 10, "")
    monkeypatch.setattr(Opened, "__setstate__", lambda *_: 1 / 0)
    with pytest.raises(SerializationError, match="items 10 to 11 .*ZeroDivisionError") as caught:
        unpack_parcel(parcel)
    assert caught.value.index == 10
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
