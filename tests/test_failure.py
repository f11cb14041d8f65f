"""Exceptions and values on their way between processes."""

import pickle

import pytest

from amorsize import AmorsizeError, SerializationError, TaskTimeoutError, WorkerLostError
from amorsize.run.failure import RemoteTraceback, pack, short_repr, unpack
from amorsize.run.transport import dumps, loads, pack_results
from amorsize.run.transport import unpack as unpack_parcel
from tests.functions import NeedsTwoError


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
