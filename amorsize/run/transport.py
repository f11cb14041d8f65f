"""Values on their way between processes.

Pickled by pickle where it can, else by cloudpickle; what is large goes through shared memory, and
the rest through the pipe.
"""

from __future__ import annotations

import pickle
from collections import ChainMap
from functools import partial
from io import BytesIO
from types import MethodDescriptorType, MethodType, WrapperDescriptorType
from typing import NamedTuple

from ..decide.model import SHARED_FROM_BYTES
from ..errors import SerializationError
from . import shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Parcel",
    "dumps",
    "dumps_by_value",
    "dumps_inherited",
    "is_smaller",
    "loads",
    "pack_common",
    "pack_forked",
    "pack_results",
    "pack_shipped",
    "unpack",
]

PROTOCOL = 5  # the first with buffers outside the pickle

# What goes with every task rather than once through a segment: 16 kB more take a task 10 us, 64 kB
# 160, and a segment each worker 30 (two cores, November 2026).
INLINE_BYTES = 1 << 14

loads = pickle.loads


class Parcel(NamedTuple):
    """A pickled value on its way.

    Attributes:
        head: the pickle; empty when it is the last part of the segment.
        segment: name of the shared segment, "" when there is none.
        sizes: bytes of each part of the segment.
    """

    head: bytes
    segment: str = ""
    sizes: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of bytes in all."""
        return len(self.head) + sum(self.sizes)


def dumps(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle a value, with cloudpickle where pickle itself cannot.

    Args:
        value: what to pickle.
        buffers: takes the large buffers, which are then not in the pickle; None leaves all in.

    Raises:
        SerializationError: neither can.
    """
    try:
        return pickle.dumps(value, PROTOCOL, buffer_callback=_collector(buffers))
    except Exception:  # noqa: BLE001 - whatever a reduction raises, cloudpickle may know better
        return dumps_by_value(value, buffers)


def dumps_by_value(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle what a worker must be able to load in a fresh interpreter.

    Functions and classes of ``__main__`` and of notebooks go by value: the worker's main module
    is not the caller's.

    Args:
        value: what to pickle.
        buffers: takes the large buffers, as in ``dumps``.

    Raises:
        SerializationError: it cannot be pickled.
    """
    import cloudpickle  # 15 ms, and only what pickle refuses or a fresh interpreter needs it

    try:
        blob: bytes = cloudpickle.dumps(value, PROTOCOL, buffer_callback=_collector(buffers))
    except Exception as error:
        raise _refusal(value, error) from error
    return blob


def dumps_inherited(value: Any) -> bytes:
    """Pickle a value for a process that is being started, by value as ``dumps_by_value`` does.

    Locks, queues and pipes of multiprocessing may travel this way, and only this way: it must be
    called from inside ``Process.start``.

    Raises:
        SerializationError: it cannot be pickled.
    """
    from multiprocessing.reduction import ForkingPickler  # only workers that start need it

    import cloudpickle

    # Of methods and partials cloudpickle knows more: it need not find them by name.
    known: dict[type, Any] = dict(ForkingPickler._extra_reducers)  # type: ignore[attr-defined]
    for kind in (MethodType, MethodDescriptorType, WrapperDescriptorType, partial):
        known.pop(kind, None)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table = ChainMap(known, dict(cloudpickle.Pickler.dispatch_table))  # noqa: RUF012 - so named by pickle

    buffer = BytesIO()
    try:
        Pickler(buffer).dump(value)
    except Exception as error:
        raise _refusal(value, error) from error
    return buffer.getvalue()


def pack_shipped(value: Any, prefix: str) -> Parcel:
    """Make a parcel of what a worker must be able to load in a fresh interpreter.

    Args:
        value: what to send.
        prefix: of the crew's segments, "" for none.

    Raises:
        SerializationError: it cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] | None = [] if prefix else None
    return _parcel(dumps_by_value(value, buffers), buffers, prefix) or Parcel(dumps_by_value(value))


def is_smaller(value: Any, limit: int) -> bool:
    """Return whether what would be sent of a value takes fewer bytes; looks at no more than that.

    Args:
        value: what would be sent to a fresh interpreter.
        limit: bytes.
    """
    import cloudpickle  # 15 ms, and only large processes ask

    budget = _Budget(limit)
    try:
        cloudpickle.Pickler(budget, PROTOCOL, buffer_callback=budget.take).dump(value)
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
        return pack_forked(results, prefix), None
    except BaseException:  # noqa: BLE001 - looked into below, result by result
        pass
    for offset, result in enumerate(results):
        try:
            dumps(result)
        except BaseException as error:  # noqa: BLE001 - a reduction may also call sys.exit()
            refusal = error if isinstance(error, SerializationError) else _refusal(result, error)
            refusal.index = start + offset
            return pack_forked(results[:offset], prefix), refusal
    # Each alone can be pickled, only the list cannot (too deep, too large).
    refusal = SerializationError("the results of a chunk cannot be pickled together", index=start)
    return pack_forked([], prefix), refusal


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
        Exception: whatever unpickling it raises.
    """
    if not parcel.segment:
        return pickle.loads(parcel.head)
    parts = shared.receive(parcel.segment, parcel.sizes, others=common)
    head = parcel.head or parts.pop()
    return pickle.loads(head, buffers=parts)


def pack_forked(value: Any, prefix: str) -> Parcel:
    """Make a parcel for a process that was forked from this one, or that this one was forked from.

    What is pickled by name is found under its name there.

    Args:
        value: what to send.
        prefix: of the crew's segments, "" for none.

    Raises:
        SerializationError: it cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] | None = [] if prefix else None
    return _parcel(dumps(value, buffers), buffers, prefix) or Parcel(dumps(value))


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


def _refusal(value: Any, error: BaseException) -> SerializationError:
    return SerializationError(
        f"a value of type {type(value).__name__} cannot be sent to another process: "
        f"{type(error).__name__}: {error}"
    )
