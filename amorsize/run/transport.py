"""Values on their way between processes.

Pickled by pickle where it can, else by cloudpickle; what is large goes through shared memory, and
the rest through the pipe.
"""

from __future__ import annotations

import pickle
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from io import BytesIO
from types import MethodDescriptorType, MethodType, WrapperDescriptorType

from ..decide.model import SHARED_FROM_BYTES
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

# What goes with every task rather than once through a segment: 16 kB more take a task 10 us, 64 kB
# 160, and a segment each worker 30 (two cores, November 2026).
INLINE_BYTES = 1 << 14

# Larger results are not opened to see whether that works: it would take their memory once more.
PROVEN_BYTES = 1 << 20

loads = pickle.loads


class Parcel(NamedTuple):
    """A pickled value on its way.

    Attributes:
        head: the pickle; empty when it is the last part of the segment.
        segment: name of the shared segment, "" when there is none.
        sizes: bytes of each part of the segment.
        start: index of the first item, None for what are no items.
        results: number of results, 0 for what are none.
    """

    head: bytes
    segment: str = ""
    sizes: tuple[int, ...] = ()
    start: int | None = None
    results: int = 0

    @property
    def size(self) -> int:
        """Number of bytes in all."""
        return len(self.head) + sum(self.sizes)


def dumps(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle a value for a forked worker, or what any worker sends its caller.

    By pickle where that can, else by our own pickler (see ``pickler``).

    Args:
        value: what to pickle.
        buffers: takes the large buffers, which are then not in the pickle; None leaves all in.

    Raises:
        SerializationError: neither can.
    """
    return _dumped(value, buffers)[0]


def dumps_result(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle a result, or several, as ``dumps`` does, and see to it that the caller can open it.

    What pickles need not open: classes want arguments that their instances do not keep. So where a
    kind of object is met for the first time, in whatever depth, the pickle is opened here.

    Args:
        value: what to pickle.
        buffers: as in ``dumps``.

    Raises:
        SerializationError: it cannot be pickled, or not be opened.
    """
    apart: list[pickle.PickleBuffer] = [] if buffers is None else buffers
    head, kinds = _dumped(value, buffers)
    _prove(value, head, apart, kinds)
    return head


def _dumped(value: Any, buffers: list[pickle.PickleBuffer] | None) -> tuple[bytes, set[type]]:
    """Return a value pickled, and the kinds of all that is in it."""
    try:
        return reductions.dump(value, _collector(buffers))
    except Exception:  # noqa: BLE001 - whatever a reduction raises, our own pickler may know better
        return _pickled_with_kinds(value, "KIN", buffers)


# Kinds of which a value was opened where it was pickled.
_proven: weakref.WeakSet[type] = weakref.WeakSet()


def _prove(value: Any, head: bytes, buffers: list[pickle.PickleBuffer], kinds: set[type]) -> None:
    """Open a pickle unless all kinds in it are known to open; a large one is let pass.

    So is what has a finalizer: of a copy, it would end what the original still holds.
    """
    new = [kind for kind in kinds if kind not in _proven]
    if not new or any("__del__" in vars(base) for kind in new for base in kind.__mro__):
        return
    if len(head) + sum(buffer.raw().nbytes for buffer in buffers) > PROVEN_BYTES:
        return
    try:
        _opened(head, [memoryview(bytearray(buffer.raw())) for buffer in buffers])
    except Exception as error:  # a reduction is anybody's code, and may raise anything
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
        value: what to pickle.
        buffers: takes the large buffers, as in ``dumps``.

    Raises:
        SerializationError: it cannot be pickled.
    """
    return _pickled(value, "CALL", buffers)


def dumps_state(value: Any) -> bytes:
    """Pickle a value that a module of the caller's holds, for the same module in a worker.

    Locks in it go as new ones, such as the worker's own import has made.

    Raises:
        SerializationError: it cannot be pickled.
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
    load("amorsize.run.pickler")  # and cloudpickle: only what pickle refuses needs it
    from .pickler import Way, pickled

    with refusing(value, way):
        return pickled(value, Way[way], _collector(buffers))


def dumps_inherited(value: Any) -> bytes:
    """Pickle a value for a process that is being started, by value as ``dumps_by_value`` does.

    Locks, queues and pipes of multiprocessing may travel this way, and only this way: it must be
    called from inside ``Process.start``.

    Raises:
        SerializationError: it cannot be pickled.
    """
    from multiprocessing.reduction import ForkingPickler  # only workers that start need it

    load("amorsize.run.pickler")
    from . import pickler

    # Of methods and partials our pickler knows more: it need not find them by name.
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
    """Make a parcel of what a worker must be able to load in a fresh interpreter.

    Args:
        value: what to send.
        prefix: of the crew's segments, "" for none.
        start: index of the first item, where the value is the columns of a chunk.

    Raises:
        SerializationError: it cannot be pickled; it names the item, if the value is items.
    """
    return _packed_columns(value, prefix, start, partial(_pickled, way="ITEMS"))


def is_smaller(value: Any, limit: int) -> bool:
    """Return whether what would be sent of a value takes fewer bytes; looks at no more than that.

    Args:
        value: what would be sent to a fresh interpreter.
        limit: bytes.
    """
    load("amorsize.run.pickler")  # and cloudpickle: only large processes ask
    from .pickler import Pickler, Way

    budget = _Budget(limit)
    try:
        Pickler(budget, Way.CALL, budget.take).dump(value)
    except Exception:  # noqa: BLE001 - too large, or it cannot be sent at all
        return False
    return True


class _Budget:
    """A file that takes so many bytes and no more."""

    def __init__(self, left: int) -> None:
        self._left = left

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise OverflowError("larger than the limit")
        return len(data)

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        self._left -= buffer.raw().nbytes
        return self._left < 0  # then it goes in, and is too much there


def pack_results(
    results: list[Any], start: int, prefix: str
) -> tuple[Parcel, SerializationError | None]:
    """Make a parcel of the results of a chunk, up to the first that cannot be pickled.

    Args:
        results: results of consecutive items.
        start: index of the first item.
        prefix: of the crew's segments, "" for none.

    Returns:
        The parcel of the list, and the error that names the first result left out, None if there
        is none.
    """
    try:
        return _packed_results(results, prefix, start), None
    except BaseException:  # noqa: BLE001 - looked into below, result by result
        pass
    found = _first_refused(results, dumps_result)
    if found is None:
        # Each alone can be pickled, only the list cannot (too deep, too large).
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
    """Return the place of the first value that cannot be pickled, and why; None for none."""
    for place, value in enumerate(values):
        try:
            pickled(value)
        except SerializationError as error:
            return place, error
        except BaseException as error:  # noqa: BLE001 - a reduction may also call sys.exit()
            return place, _refusal(value, error)
    return None


def pack_common(value: Any, prefix: str) -> Parcel | None:
    """Make a parcel that several workers open; None when there is no room for it to lie.

    What is small goes with every task instead, which is quicker than a segment.

    Args:
        value: what to send.
        prefix: of the crew's segments, "" for none.

    Raises:
        SerializationError: it cannot be pickled.
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
    """Return the value of a parcel; large contents stay where they are, for as long as needed.

    Args:
        parcel: what was packed.
        common: whether it is one of ``pack_common``.

    Raises:
        SerializationError: it names what cannot be found in this process: a module that cannot be
            imported here, or has no such name here. Its index is that of the first item of the
            parcel, None for what are no items. Or results cannot be opened, whatever the reason.
        Exception: whatever else unpickling it raises.
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
    except Exception as error:  # a reduction is anybody's code, and may raise anything
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
    """Return what ``dumps_inherited`` has pickled, in the worker.

    Raises:
        Exception: whatever unpickling it raises.
    """
    return _opened(blob, None)


def _opened(head: bytes | memoryview, buffers: list[memoryview] | None) -> Any:
    return _Opener(BytesIO(head), buffers=buffers).load()


class _Opener(pickle.Unpickler):
    """Tells what is not to be found in this process from what goes wrong in the user's code."""

    def persistent_load(self, place: tuple[str, str]) -> Any:
        """Return what a module holds under a name (``known.named``)."""
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

    What is pickled by name is found under its name there.

    Args:
        value: what to send.
        prefix: of the crew's segments, "" for none.
        start: index of the first item, where the value is the columns of a chunk.

    Raises:
        SerializationError: it cannot be pickled; it names the item, if the value is columns.
    """
    return _packed_columns(value, prefix, start, dumps)


def _packed_columns(
    value: Any, prefix: str, start: int | None, pickled: Callable[..., bytes]
) -> Parcel:
    """Return a parcel; a chunk's columns that cannot be sent are looked into, item by item."""
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
    """Return a parcel of a pickle and its buffers, None when there is no room for the buffers."""
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
    """Return the callback that takes large buffers out of a pickle, from an empty list on."""
    if buffers is None:
        return None
    buffers.clear()  # a pickler that failed may have left some

    def keep(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < SHARED_FROM_BYTES:
            return True  # in the pickle
        buffers.append(buffer)
        return False

    return keep


@contextmanager
def refusing(value: Any, way: str) -> Iterator[None]:
    """Turn whatever pickling the value raises into a ``SerializationError`` that explains it.

    Args:
        value: what is pickled.
        way: name of the ``pickler.Way`` it goes.
    """
    try:
        yield
    except Exception as error:  # a reduction is anybody's code, and may raise anything
        raise _refusal(value, error, way) from error


def _refusal(value: Any, error: BaseException, way: str = "KIN") -> SerializationError:
    load("amorsize.run.blame")
    from .blame import explained  # few values are refused

    return SerializationError(explained(value, error, way))
