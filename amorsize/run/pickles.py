"""Pickle values for another process, and unpickle them there.

pickle pickles a value if it can, else amorsize's own pickler does (``pickler``). Large buffers may
be left out of the pickle.
"""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from io import BytesIO
from types import MethodDescriptorType, MethodType, WrapperDescriptorType

from ..decide.figures import SHARED_FROM_BYTES
from ..errors import SerializationError
from ..lookup import load
from . import reductions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "PROVEN_BYTES",
    "dumps",
    "dumps_by_value",
    "dumps_inherited",
    "dumps_items",
    "dumps_plain",
    "dumps_result",
    "dumps_state",
    "is_smaller",
    "loads",
    "open_call",
    "opened",
    "refusal_of",
    "refusing",
]

# Larger results are not unpickled as a check: that would take their memory a second time.
PROVEN_BYTES = 1 << 20

loads = pickle.loads


def dumps(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle a value for a forked worker, or a value that any worker sends to its caller.

    pickle does so if it can, else amorsize's own pickler (see ``pickler``).

    Args:
        value: the value.
        buffers: list that receives the large buffers, which the pickle then lacks; None leaves all
            in the pickle.

    Raises:
        SerializationError: neither can pickle the value.
    """
    return _dumped(value, buffers)[0]


def dumps_result(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle a result, or several, as ``dumps`` does, and check that the pickle can be unpickled.

    A value that pickles need not unpickle: a class may require arguments that its instances do not
    keep. So if the value contains an object of a new kind, at any depth, it is unpickled here.

    Args:
        value: the value.
        buffers: as in ``dumps``.

    Raises:
        SerializationError: the value cannot be pickled, or not be unpickled.
    """
    apart: list[pickle.PickleBuffer] = [] if buffers is None else buffers
    head, kinds = _dumped(value, buffers)
    _prove(value, head, apart, kinds)
    return head


def dumps_plain(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle a value that pickle can serialize without amorsize's own pickler.

    Args:
        value: the value.
        buffers: as in ``dumps``.

    Raises:
        Exception: whatever pickling it raises.
    """
    return reductions.dump(value, _collector(buffers))[0]


def _dumped(value: Any, buffers: list[pickle.PickleBuffer] | None) -> tuple[bytes, set[type]]:
    """Return a pickled value, and the types of the objects in it."""
    try:
        return reductions.dump(value, _collector(buffers))
    except Exception:  # noqa: BLE001 - whatever a reduction raises, our own pickler may succeed
        return _pickled_with_kinds(value, "KIN", buffers)


# Types of which a pickled object has been unpickled in this process.
_proven: weakref.WeakSet[type] = weakref.WeakSet()


def _prove(value: Any, head: bytes, buffers: list[pickle.PickleBuffer], kinds: set[type]) -> None:
    """Unpickle a pickle as a check, unless all types in it have been checked.

    A large pickle is not checked. Nor is one with an object that has a finalizer: the copy's
    finalizer would release what the original still uses.
    """
    new = [kind for kind in kinds if kind not in _proven]
    if not new or any("__del__" in vars(base) for kind in new for base in kind.__mro__):
        return
    if len(head) + sum(buffer.raw().nbytes for buffer in buffers) > PROVEN_BYTES:
        return
    try:
        opened(head, [memoryview(bytearray(buffer.raw())) for buffer in buffers])
    except Exception as error:  # a reduction may be any code, and raise anything
        raise SerializationError(
            f"a value of type {type(value).__name__} cannot be sent to another process: it can be "
            f"pickled, but not be opened again: {type(error).__name__}: {error}"
        ) from error
    _proven.update(new)


def dumps_by_value(
    value: Any,
    buffers: list[pickle.PickleBuffer] | None = None,
    *,
    replace: Callable[[Any], Any] | None = None,
) -> bytes:
    """Pickle what a fresh interpreter is to run.

    Functions and classes of ``__main__`` and of notebooks go by value: the worker's main module
    is not the caller's.

    Args:
        value: the value.
        buffers: as in ``dumps``.
        replace: returns how to pickle an object, as a reduction, or None for the usual way.

    Raises:
        SerializationError: the value cannot be pickled.
    """
    return _pickled_with_kinds(value, "CALL", buffers, replace=replace)[0]


def dumps_items(
    value: Any,
    buffers: list[pickle.PickleBuffer] | None = None,
    *,
    lenient: bool = False,
    replace: Callable[[Any], Any] | None = None,
) -> bytes:
    """Pickle items for a worker in a fresh interpreter that has got the call already.

    Args:
        value: the value.
        buffers: as in ``dumps``.
        lenient: whether attributes of classes that cannot be pickled are left out.
        replace: returns how to pickle an object, as a reduction, or None for the usual way.

    Raises:
        SerializationError: the value cannot be pickled.
    """
    return _pickled_with_kinds(value, "ITEMS", buffers, lenient=lenient, replace=replace)[0]


def dumps_state(value: Any) -> bytes:
    """Pickle a value that a module of the caller holds, for the same module in a worker.

    Locks in the value are replaced by new ones, such as the worker's own import makes.

    Raises:
        SerializationError: the value cannot be pickled.
    """
    load("amorsize.run.pickler")
    from .pickler import Pickler, Way

    out = BytesIO()
    with refusing(value, "CALL"):
        Pickler(out, Way.CALL, fresh_locks=True).dump(value)
    return out.getvalue()


def _pickled_with_kinds(
    value: Any,
    way: str,
    buffers: list[pickle.PickleBuffer] | None,
    *,
    lenient: bool = False,
    replace: Callable[[Any], Any] | None = None,
) -> tuple[bytes, set[type]]:
    load("amorsize.run.pickler")  # loads cloudpickle, so only when needed
    from .pickler import Way, pickled

    with refusing(value, way):
        return pickled(value, Way[way], _collector(buffers), lenient=lenient, replace=replace)


def dumps_inherited(value: Any) -> bytes:
    """Pickle a value for a process that is being started, by value as ``dumps_by_value`` does.

    Only this function can send locks, queues and pipes of multiprocessing. It must be called from
    inside ``Process.start``.

    Raises:
        SerializationError: the value cannot be pickled.
    """
    from multiprocessing.reduction import ForkingPickler  # only needed to start workers

    load("amorsize.run.pickler")
    from . import pickler

    # Our pickler handles methods and partials better: it need not find them by name.
    known: dict[type, Any] = dict(ForkingPickler._extra_reducers)  # type: ignore[attr-defined]
    for kind in (MethodType, MethodDescriptorType, WrapperDescriptorType, partial):
        known.pop(kind, None)

    class Pickler(pickler.NamingPickler):
        dispatch_table = ChainMap(known, dict(pickler.Pickler.dispatch_table))  # noqa: RUF012 - so named by pickle

    buffer = BytesIO()
    with refusing(value, "CALL"):
        Pickler(buffer, pickler.Way.CALL).dump(value)
    return buffer.getvalue()


def is_smaller(value: Any, limit: int) -> bool:
    """Return whether a value takes at most ``limit`` bytes to send; stop pickling at the limit.

    Args:
        value: the value that would be sent to a fresh interpreter.
        limit: bytes.
    """
    load("amorsize.run.pickler")  # loads cloudpickle: only large processes call this
    from .pickler import Pickler, Way

    budget = _Budget(limit)
    try:
        Pickler(budget, Way.CALL, budget.take).dump(value)
    except Exception:  # noqa: BLE001 - too large, or cannot be sent at all
        return False
    return True


class _Budget:
    """A file that takes ``left`` bytes, and then raises."""

    def __init__(self, left: int) -> None:
        self._left = left

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise OverflowError("larger than the limit")
        return len(data)

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        self._left -= buffer.raw().nbytes
        return self._left < 0  # true puts the buffer into the pickle, where write() raises


def open_call(blob: bytes) -> Any:
    """Return the value that ``dumps_inherited`` has pickled, in the worker.

    Raises:
        Exception: whatever unpickling the value raises.
    """
    return opened(blob, None)


def opened(head: bytes | memoryview, buffers: list[memoryview] | None) -> Any:
    """Return the value of a pickle.

    Args:
        head: the pickle.
        buffers: the buffers that were left out of it, None for none.

    Raises:
        SerializationError: a module cannot be imported in this process, or lacks a name.
        Exception: whatever else unpickling the value raises.
    """
    return _Opener(BytesIO(head), buffers=buffers).load()


class _Opener(pickle.Unpickler):
    """An unpickler that raises ``SerializationError`` for names that this process lacks."""

    def persistent_load(self, place: tuple[str, str]) -> Any:
        """Return the value that a module holds under a name (``known.named``)."""
        return vars(import_module(place[0]))[place[1]]

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError) as error:
            raise SerializationError(
                f"{module}.{name} cannot be opened in the other process: "
                f"{type(error).__name__}: {error}. Move it into a module that can be imported "
                f"there, or run the call with n_jobs=1"
            ) from error


def _collector(buffers: list[pickle.PickleBuffer] | None) -> Any:
    """Return the callback that moves large buffers out of a pickle into the emptied list."""
    if buffers is None:
        return None
    buffers.clear()  # a pickler that failed may have left some

    def keep(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < SHARED_FROM_BYTES:
            return True  # keeps the buffer in the pickle
        buffers.append(buffer)
        return False

    return keep


@contextmanager
def refusing(value: Any, way: str) -> Iterator[None]:
    """Turn whatever pickling the value raises into a ``SerializationError`` that explains it.

    Args:
        value: the value that is pickled.
        way: name of the ``pickler.Way``.
    """
    try:
        yield
    except Exception as error:  # a reduction may be any code, and raise anything
        raise refusal_of(value, error, way) from error


def refusal_of(value: Any, error: BaseException, way: str = "KIN") -> SerializationError:
    """Return an error that explains why a value cannot be pickled.

    Args:
        value: the value.
        error: what pickling it has raised.
        way: name of the ``pickler.Way``.
    """
    load("amorsize.run.blame")
    from .blame import explained  # rarely needed

    return SerializationError(explained(value, error, way))
