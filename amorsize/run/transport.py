"""Pack values to send them between processes, and unpack them.

pickle pickles a value if it can, else cloudpickle does. Large contents go through shared segments,
the rest through the task queue or the pipe.
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
from ..tuples import NamedTuple
from . import reductions, shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "PROVEN_BYTES",
    "Parcel",
    "dumps",
    "dumps_by_value",
    "dumps_inherited",
    "dumps_result",
    "dumps_state",
    "is_smaller",
    "loads",
    "open_call",
    "pack_common",
    "pack_forked",
    "pack_results",
    "pack_shipped",
    "refusing",
    "unpack",
]

# A part of a call up to this size goes with every task, a larger one once through a shared segment.
# 16 kB add 10 us to a task, 64 kB add 160 us; a segment takes 30 us in each worker (two cores,
# November 2026).
INLINE_BYTES = 1 << 14

# Larger results are not unpickled as a check: that would take their memory a second time.
PROVEN_BYTES = 1 << 20

loads = pickle.loads


class Parcel(NamedTuple):
    """A pickled value, ready to be sent.

    Attributes:
        head: the pickle; empty if it is the last part of the segment.
        segment: path of the shared segment, "" if there is none.
        sizes: bytes of each part of the segment.
        start: index of the first item, None if the value is neither items nor results.
        results: number of results, 0 if the value is not a list of results.
    """

    head: bytes
    segment: str = ""
    sizes: tuple[int, ...] = ()
    start: int | None = None
    results: int = 0

    @property
    def size(self) -> int:
        """Total number of bytes."""
        return len(self.head) + sum(self.sizes)


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
        _opened(head, [memoryview(bytearray(buffer.raw())) for buffer in buffers])
    except Exception as error:  # a reduction may be any code, and raise anything
        raise SerializationError(
            f"a value of type {type(value).__name__} cannot be sent to another process: it can be "
            f"pickled, but not be opened again: {type(error).__name__}: {error}"
        ) from error
    _proven.update(new)


def dumps_by_value(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle what a fresh interpreter is to run.

    Functions and classes of ``__main__`` and of notebooks go by value: the worker's main module
    is not the caller's.

    Args:
        value: the value.
        buffers: as in ``dumps``.

    Raises:
        SerializationError: the value cannot be pickled.
    """
    return _pickled(value, "CALL", buffers)


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


def _pickled(value: Any, way: str, buffers: list[pickle.PickleBuffer] | None) -> bytes:
    return _pickled_with_kinds(value, way, buffers)[0]


def _pickled_with_kinds(
    value: Any, way: str, buffers: list[pickle.PickleBuffer] | None
) -> tuple[bytes, set[type]]:
    load("amorsize.run.pickler")  # loads cloudpickle, so only when needed
    from .pickler import Way, pickled

    with refusing(value, way):
        return pickled(value, Way[way], _collector(buffers))


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


def pack_shipped(value: Any, prefix: str, *, start: int | None = None) -> Parcel:
    """Make a parcel for a worker in a fresh interpreter.

    Args:
        value: the value to send.
        prefix: path prefix of the crew's segments, "" for none.
        start: index of the first item, if the value is the columns of a chunk.

    Raises:
        SerializationError: the value cannot be pickled. The error names the item, if the value is
            columns.
    """
    return _packed_columns(value, prefix, start, partial(_pickled, way="ITEMS"))


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


def pack_results(
    results: list[Any], start: int, prefix: str
) -> tuple[Parcel, SerializationError | None]:
    """Make a parcel of the results of a chunk, up to the first that cannot be pickled.

    Args:
        results: results of consecutive items.
        start: index of the first item.
        prefix: path prefix of the crew's segments, "" for none.

    Returns:
        The parcel of the list, and the error that names the first result left out, None if none is.
    """
    try:
        return _packed_results(results, prefix, start), None
    except BaseException:  # noqa: BLE001 - examined below, result by result
        pass
    found = _first_refused(results, dumps_result)
    if found is None:
        # Each result can be pickled alone, but not the list (too deep, too large).
        found = 0, SerializationError("the results of a chunk cannot be pickled together")
    offset, refusal = found
    refusal.index = start + offset
    return _packed_results(results[:offset], prefix, start), refusal


def _packed_results(results: list[Any], prefix: str, start: int) -> Parcel:
    parcel = _packed(results, prefix, dumps_result)
    return parcel._replace(start=start, results=len(results))


def _first_refused(
    values: list[Any], pickled: Callable[[Any], bytes]
) -> tuple[int, SerializationError] | None:
    """Return the position of the first value that cannot be pickled, and why; None for none."""
    for place, value in enumerate(values):
        try:
            pickled(value)
        except SerializationError as error:
            return place, error
        except BaseException as error:  # noqa: BLE001 - a reduction may also call sys.exit()
            return place, _refusal(value, error)
    return None


def pack_common(value: Any, prefix: str) -> Parcel | None:
    """Make a parcel that several workers open; None if a segment is needed but cannot be written.

    A small value goes with every task instead, which is quicker than a segment.

    Args:
        value: the value to send.
        prefix: path prefix of the crew's segments, "" for none.

    Raises:
        SerializationError: the value cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] | None = [] if prefix else None
    head = dumps_by_value(value, buffers)
    if not buffers and len(head) <= INLINE_BYTES:
        return Parcel(head)
    if buffers is None:
        return None
    parts = [*(buffer.raw() for buffer in buffers), head]
    segment = shared.write(prefix, parts)
    return Parcel(b"", segment, tuple(len(part) for part in parts)) if segment else None


def unpack(parcel: Parcel, *, common: bool = False) -> Any:
    """Return the value of a parcel; large contents stay in the shared segment, and are not copied.

    Args:
        parcel: the parcel.
        common: whether ``pack_common`` made the parcel.

    Raises:
        SerializationError: a module cannot be imported in this process, or lacks a name; the error
            names the missing object. Or results cannot be unpickled, for any reason. The index is
            that of the first item of the parcel, None if the value is neither items nor results.
        Exception: whatever else unpickling the value raises.
    """
    head: bytes | memoryview = parcel.head
    parts = None
    if parcel.segment:
        parts = shared.receive(parcel.segment, parcel.sizes, others=common)
        head = head or parts.pop()
    try:
        return _opened(head, parts)
    except SerializationError as error:
        if error.index is None:
            error.index = parcel.start
        raise
    except Exception as error:  # a reduction may be any code, and raise anything
        if not parcel.results:
            raise
        raise _unopened_results(parcel, error) from error


def _unopened_results(parcel: Parcel, error: Exception) -> SerializationError:
    assert parcel.start is not None
    last = parcel.start + parcel.results - 1
    among = (
        f"of item {last}" if parcel.results == 1 else f"of one of items {parcel.start} to {last}"
    )
    return SerializationError(
        f"the result {among} was pickled in a worker, and cannot be opened in the calling "
        f"process: {type(error).__name__}: {error}",
        index=parcel.start,
    )


def open_call(blob: bytes) -> Any:
    """Return the value that ``dumps_inherited`` has pickled, in the worker.

    Raises:
        Exception: whatever unpickling the value raises.
    """
    return _opened(blob, None)


def _opened(head: bytes | memoryview, buffers: list[memoryview] | None) -> Any:
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


def pack_forked(value: Any, prefix: str, *, start: int | None = None) -> Parcel:
    """Make a parcel for a process that was forked from this one, or that this one was forked from.

    A name that is pickled here is found there.

    Args:
        value: the value to send.
        prefix: path prefix of the crew's segments, "" for none.
        start: index of the first item, if the value is the columns of a chunk.

    Raises:
        SerializationError: the value cannot be pickled. The error names the item, if the value is
            columns.
    """
    return _packed_columns(value, prefix, start, dumps)


def _packed_columns(
    value: Any, prefix: str, start: int | None, pickled: Callable[..., bytes]
) -> Parcel:
    """Return a parcel; if a chunk's columns cannot be sent, find the item that is to blame."""
    try:
        parcel = _packed(value, prefix, pickled)
    except SerializationError as error:
        if start is None:
            raise
        found = _first_refused(list(zip(*value, strict=False)), partial(pickled, buffers=None))
        place, refusal = found or (0, error)
        refusal.index = start + place
        raise refusal from refusal.__cause__
    return parcel._replace(start=start)


def _packed(value: Any, prefix: str, pickled: Callable[..., bytes]) -> Parcel:
    buffers: list[pickle.PickleBuffer] | None = [] if prefix else None
    head = pickled(value, buffers=buffers)
    return _parcel(head, buffers, prefix) or Parcel(pickled(value, buffers=None))


def _parcel(head: bytes, buffers: list[pickle.PickleBuffer] | None, prefix: str) -> Parcel | None:
    """Return a parcel of a pickle and its buffers, None if there is no room for the buffers."""
    parts: list[Any] = [buffer.raw() for buffer in buffers or ()]
    inside = len(head) < SHARED_FROM_BYTES
    if prefix and not inside:
        parts.append(head)
    if not parts:
        return Parcel(head)
    segment = shared.write(prefix, parts)
    if segment:
        return Parcel(head if inside else b"", segment, tuple(len(part) for part in parts))
    return None if buffers else Parcel(head)


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
        raise _refusal(value, error, way) from error


def _refusal(value: Any, error: BaseException, way: str = "KIN") -> SerializationError:
    load("amorsize.run.blame")
    from .blame import explained  # rarely needed

    return SerializationError(explained(value, error, way))
