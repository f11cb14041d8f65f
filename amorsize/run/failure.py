"""Exceptions on their way from a worker to the caller: packed, proven, unpacked, annotated."""

from __future__ import annotations

import contextlib
import pickle
import re
import reprlib
from collections.abc import Iterator
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "MISSING",
    "Failure",
    "RemoteTraceback",
    "add_item_note",
    "add_note",
    "keep",
    "pack",
    "short_repr",
    "survivor",
    "unpack",
]

MISSING: Any = object()  # stands for an item that is not at hand any more


class RemoteTraceback(Exception):  # noqa: N818 - it is a cause to read, not an error to catch
    """The traceback of a worker, as text; the cause of the exception it belongs to."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Failure(NamedTuple):
    """An exception that can travel.

    Attributes:
        item: index of the item it belongs to, None when it belongs to none.
        carried: the pickled exception, which was unpickled once already, where it was raised; or
            the exception itself, when it does not leave the process.
        traceback: the traceback there, as text.
        unrun: whether no item of the chunk was run: what it needs could not be sent, or not be
            opened where it arrived. It is not the user's function that failed.
    """

    item: int | None
    carried: bytes | BaseException
    traceback: str = ""
    unrun: bool = False


def keep(error: BaseException, index: int | None) -> Failure:
    """Make a failure of an exception that stays in its process."""
    return Failure(index, error)


def pack(error: BaseException, index: int | None) -> Failure:
    """Make an exception ready to travel.

    One that does not survive pickling goes as its nearest base that does, with the same text:
    what cannot be unpickled must not be found out where nobody waits for it.
    """
    import traceback  # 2 ms, and only a failure needs it

    text = "".join(traceback.format_exception(error))
    for candidate in _candidates(error):
        blob = _proven(candidate)
        if blob is not None:
            return Failure(index, blob, text)
    return Failure(index, pickle.dumps(Exception(_text(error))), text)


def unpack(failure: Failure) -> BaseException:
    """Return the exception of a failure, with the worker's traceback as its cause."""
    if isinstance(failure.carried, BaseException):
        return failure.carried
    error: BaseException = pickle.loads(failure.carried)
    # Past the class's own __setattr__, which may refuse (a frozen dataclass does).
    BaseException.__dict__["__cause__"].__set__(error, RemoteTraceback(failure.traceback))
    return error


def add_item_note(error: BaseException, index: int, item: Any) -> None:
    """Add a note that names the item an exception belongs to."""
    shown = "" if item is MISSING else f": {short_repr(item)}"
    add_note(error, f"raised for item {index}{shown}")


def add_note(error: BaseException, text: str) -> None:
    """Add a note to an exception, once; one that refuses to be changed goes without."""
    note = f"amorsize: {text}"
    if note in getattr(error, "__notes__", ()):
        return
    with contextlib.suppress(Exception):
        error.add_note(note)


def survivor(error: Exception) -> BaseException:
    """Return the exception, or its nearest likeness that survives the way to another process."""
    for candidate in _candidates(error):
        if _proven(candidate) is not None:
            return candidate
    return Exception(_text(error))


def short_repr(value: Any) -> str:
    """Return a short representation of any value, whatever its ``__repr__`` does."""
    try:
        return _SHORT.repr(value)
    except Exception as error:  # noqa: BLE001 - a user's __repr__ may raise anything
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


def _candidates(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception, then instances of its class and its bases that say the same."""
    yield error
    text = _text(error)
    for base in type(error).__mro__:
        if not issubclass(base, BaseException):
            continue
        for args in (error.args, (text,)):
            try:
                candidate = base(*args)
            except Exception:  # noqa: BLE001 - this base wants other arguments; try the next
                continue
            if _text(candidate) == text:
                yield candidate


def _proven(error: BaseException) -> bytes | None:
    """Return the pickled exception if it survives the way there and back."""
    for dumps in (pickle.dumps, _cloudpickle_dumps):
        try:
            blob = dumps(error)
            copy = pickle.loads(blob)
        except Exception:  # noqa: BLE001 - a user's reduction may raise anything
            continue
        if type(copy).__name__ == type(error).__name__ and _same(_text(copy), _text(error)):
            return blob
    return None


def _same(one: str, other: str) -> bool:
    """Return whether two texts are the same but for addresses of objects."""
    return one == other or _ADDRESS.sub("", one) == _ADDRESS.sub("", other)


_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


def _cloudpickle_dumps(error: BaseException) -> bytes:
    import cloudpickle  # 15 ms, and only what pickle refuses needs it

    blob: bytes = cloudpickle.dumps(error)
    return blob


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<{type(error).__name__} whose str raised>"
