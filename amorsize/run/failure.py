"""Send exceptions from a worker to the caller: pack, check, unpack and annotate them."""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import reprlib

from ..lookup import load
from ..tuples import NamedTuple
from . import reductions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "ITEM_ERRORS",
    "NO_ITEM",
    "Failure",
    "RemoteTraceback",
    "add_item_note",
    "add_note",
    "has_item_note",
    "keep",
    "pack",
    "short_repr",
    "survivor",
    "unpack",
]

NO_ITEM: Any = object()  # stands for an item that is no longer available

# In the calling process, these belong to the item that raised them. KeyboardInterrupt and the like
# are the caller's own there, and end the call at once.
ITEM_ERRORS = (Exception, SystemExit)


class RemoteTraceback(Exception):  # noqa: N818 - a cause to read, not an error to catch
    """The traceback of a worker, as text; set as the cause of the exception it belongs to."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Likeness(NamedTuple):
    """What is needed to rebuild an exception of which some part cannot be sent.

    Attributes:
        classes: its class and the bases of its class, nearest first, each pickled.
        args: its arguments, each pickled; one that cannot be pickled is replaced by its short repr.
        fields: its C fields and slots that can be pickled, each pickled.
        attributes: its attributes that can be pickled, each pickled.
        text: its message, as ``str`` gives it.
        message: the message of a group of exceptions, None for any other exception.
        members: the exceptions of a group.
    """

    classes: tuple[bytes, ...]
    args: tuple[bytes, ...]
    fields: dict[str, bytes]
    attributes: dict[str, bytes]
    text: str
    message: str | None = None
    members: tuple[Likeness, ...] = ()


class Failure(NamedTuple):
    """An exception that can be sent.

    Attributes:
        item: index of the item it belongs to, None if it belongs to none.
        carried: the pickled exception, checked by unpickling it where it was raised; b"" if that
            failed; or the exception itself, if it does not leave the process.
        traceback: the traceback in the worker, as text.
        likeness: how to rebuild the exception where ``carried`` cannot be loaded.
        unrun: whether no item of the chunk ran, because something could not be sent, or could not
            be unpickled on arrival. The user's function did not fail.
    """

    item: int | None
    carried: bytes | BaseException
    traceback: str = ""
    likeness: Likeness | None = None
    unrun: bool = False


def keep(error: BaseException, index: int | None) -> Failure:
    """Return a failure for an exception that stays in its process."""
    return Failure(index, error)


def pack(error: BaseException, index: int | None) -> Failure:
    """Pack an exception to be sent: pickled whole, and as a likeness.

    The caller falls back on the likeness if it cannot unpickle the exception: some part may not
    unpickle anywhere, or the class may exist only in the worker.
    """
    return Failure(index, _proven(error) or b"", _traceback(error), _likeness(error))


def _traceback(error: BaseException) -> str:
    import traceback  # 2 ms, and only a failure needs it

    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - a user's __getattr__ may raise anything
        frames = traceback.format_tb(error.__traceback__)
        return "".join([*frames, f"{type(error).__name__}: {_text(error)}\n"])


def unpack(failure: Failure) -> BaseException:
    """Return the exception of a failure, with the worker's traceback as its cause.

    It has its own class if that class can be found here, else the nearest base that can be found.
    """
    if isinstance(failure.carried, BaseException):
        return failure.carried
    error = _loaded(failure.carried)
    if error is None:
        assert failure.likeness is not None
        error = _made_again(failure.likeness)
    # Bypass the class's own __setattr__, which may raise (a frozen dataclass does).
    BaseException.__dict__["__cause__"].__set__(error, RemoteTraceback(failure.traceback))
    return error


class _Result:
    """An exception that is a result; unpickling gives the exception."""

    def __init__(self, failure: Failure) -> None:
        self._failure = failure

    def __reduce__(self) -> tuple[object, ...]:
        return unpack, (self._failure,)


def survivor(error: Exception) -> object:
    """Return an object that unpickles to the exception, or to its nearest likeness."""
    return _Result(pack(error, None))


def _likeness(error: BaseException) -> Likeness:
    parts = reductions.parts_of(error)
    classes = [kind for kind in type(error).__mro__ if issubclass(kind, BaseException)]
    is_group = isinstance(error, BaseExceptionGroup)
    # The arguments of a group are its message and its members.
    args = () if is_group else parts.fields.pop("args")
    message, members = parts.given if is_group else (None, ())
    return Likeness(
        tuple(filter(None, map(_pickled, classes))),
        tuple(_pickled(arg) or pickle.dumps(short_repr(arg)) for arg in args),
        _each_pickled(parts.fields),
        _each_pickled(parts.attributes),
        _text(error),
        message,
        tuple(map(_likeness, members)),
    )


def _each_pickled(values: dict[str, Any]) -> dict[str, bytes]:
    pickled = {name: _pickled(value) for name, value in values.items()}
    return {name: blob for name, blob in pickled.items() if blob is not None}


def _pickled(value: object) -> bytes | None:
    """Return a pickled value, None if it cannot be pickled, or not be unpickled again."""
    for dumps in (_dumps, _own_dumps):
        try:
            blob = dumps(value)
            pickle.loads(blob)
        except Exception:  # noqa: BLE001 - a user's reduction may raise anything
            continue
        return blob
    return None


def _loaded(blob: bytes) -> BaseException | None:
    """Return the exception of a pickle, None if the pickle is empty or cannot be loaded here."""
    if not blob:
        return None
    try:
        error: BaseException = pickle.loads(blob)
    except Exception:  # noqa: BLE001 - its class may exist only in the worker, or raise anything
        return None
    return error


def _made_again(likeness: Likeness) -> BaseException:
    """Rebuild the exception of a likeness."""
    for place, blob in enumerate(likeness.classes):
        try:
            error = _instance(pickle.loads(blob), likeness, own=place == 0)
        except Exception:  # noqa: BLE001 - class not found or not usable; try the next
            continue
        if place == 0 or _same(_text(error), likeness.text):
            return error
    return Exception(likeness.text)


def _instance(kind: type[BaseException], likeness: Likeness, *, own: bool) -> BaseException:
    fields: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    if own:
        fields = {name: pickle.loads(blob) for name, blob in likeness.fields.items()}
        attributes = {name: pickle.loads(blob) for name, blob in likeness.attributes.items()}
    if likeness.message is not None:
        given: tuple[Any, ...] = likeness.message, list(map(_made_again, likeness.members))
    else:
        given = ()
        fields["args"] = tuple(map(pickle.loads, likeness.args)) if own else (likeness.text,)
    error = reductions.make(kind, given)
    reductions.fill(error, (fields, attributes))
    return error


def add_item_note(error: BaseException, index: int, item: Any) -> None:
    """Add a note that names the item an exception belongs to, unless it has one.

    A function may raise the same exception again and again.
    """
    if has_item_note(error):
        return
    shown = "" if item is NO_ITEM else f": {short_repr(item)}"
    add_note(error, f"raised for item {index}{shown}")


def has_item_note(error: BaseException) -> bool:
    """Return whether an exception has a note that names its item."""
    notes = reductions.attributes_of(error).get("__notes__")
    return type(notes) is list and any(str(note).startswith(_ITEM_NOTE) for note in notes)


_ITEM_NOTE = "amorsize: raised for item "


def add_note(error: BaseException, text: str) -> None:
    """Add a note to an exception, unless it has that note, or its notes are not a list.

    Bypass the class's own attribute access, which may raise anything.
    """
    note = f"amorsize: {text}"
    notes = reductions.attributes_of(error).setdefault("__notes__", [])
    if type(notes) is list and note not in notes:
        notes.append(note)


def short_repr(value: Any) -> str:
    """Return a short representation of any value, even if its ``__repr__`` raises."""
    try:
        return _SHORT.repr(value)
    except Exception as error:  # noqa: BLE001 - a user's __repr__ may raise anything
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


def _proven(error: BaseException) -> bytes | None:
    """Return the pickled exception if it unpickles to the same class and text, else None."""
    for dumps in (_dumps, _own_dumps):
        try:
            blob = dumps(error)
            copy = pickle.loads(blob)
        except Exception:  # noqa: BLE001 - a user's reduction may raise anything
            continue
        if type(copy) is type(error) and _same(_text(copy), _text(error)):
            return blob
    return None


def _same(one: str, other: str) -> bool:
    """Return whether two texts are equal apart from addresses of objects."""
    if one == other:
        return True
    import re  # takes 3 ms, and few texts differ

    address = re.compile(r"0x[0-9a-fA-F]+")
    return address.sub("", one) == address.sub("", other)


def _dumps(value: object) -> bytes:
    return reductions.dump(value)[0]


def _own_dumps(value: object) -> bytes:
    load("amorsize.run.pickler")  # loads cloudpickle, 15 ms: only if pickle fails
    from .pickler import Way, pickled

    return pickled(value, Way.KIN)[0]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<{type(error).__name__} whose str raised>"
