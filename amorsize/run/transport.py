"""Pack values into parcels to send them between processes, and unpack them.

Large contents go through shared segments, the rest through the task queue or the pipe.
"""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
from collections.abc import Callable
from functools import partial

from ..decide.figures import SHARED_FROM_BYTES
from ..errors import SerializationError
from ..tuples import NamedTuple
from . import shared
from .pickles import (
    dumps,
    dumps_by_value,
    dumps_items,
    dumps_plain,
    dumps_result,
    opened,
    refusal_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "INLINE_BYTES",
    "Parcel",
    "pack_anew",
    "pack_common",
    "pack_forked",
    "pack_leniently",
    "pack_plain",
    "pack_results",
    "pack_shipped",
    "unpack",
]

# A part of a call up to this size goes with every task, a larger one once through a shared segment.
# 16 kB add 10 us to a task, 64 kB add 160 us; a segment takes 30 us in each worker (two cores,
# November 2026).
INLINE_BYTES = 1 << 14


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

    @property
    def smallest(self) -> bytes | Parcel:
        """The pickle alone, where that is all."""
        return self if self.segment else self.head


def pack_shipped(
    value: Any,
    prefix: str,
    *,
    start: int | None = None,
    replace: Callable[[Any], Any] | None = None,
) -> Parcel:
    """Make a parcel for a worker in a fresh interpreter.

    Args:
        value: the value to send.
        prefix: path prefix of the crew's segments, "" for none.
        start: index of the first item, if the value is the columns of a chunk.
        replace: returns how to pickle an object, as a reduction, or None for the usual way.

    Raises:
        SerializationError: the value cannot be pickled. The error names the item, if the value is
            columns.
    """
    pickled = dumps_items if replace is None else partial(dumps_items, replace=replace)
    return _packed_columns(value, prefix, start, pickled)


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
            return place, refusal_of(value, error)
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
        return opened(head, parts)
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


def pack_anew(value: Any, prefix: str, replace: Callable[[Any], Any]) -> Parcel:
    """Make a parcel by value, for a worker that may have older versions of what is in it.

    Args:
        value: the value to send.
        prefix: path prefix of the crew's segments, "" for none.
        replace: returns how to pickle an object, as a reduction, or None for the usual way.

    Raises:
        SerializationError: the value cannot be pickled.
    """
    return _packed(value, prefix, partial(dumps_by_value, replace=replace))


def pack_leniently(value: Any, prefix: str) -> Parcel:
    """Make a parcel as ``pack_shipped`` does, without attributes of classes that refuse.

    A class of the main module may have got them after its definition. Where workers import the
    main module, their class lacks them, too.

    Args:
        value: the value to send.
        prefix: path prefix of the crew's segments, "" for none.

    Raises:
        SerializationError: the value cannot be pickled.
    """
    return _packed(value, prefix, partial(dumps_items, lenient=True))


def pack_plain(value: Any, prefix: str) -> Parcel:
    """Make a parcel of a value that plain pickle can serialize.

    Args:
        value: the value to send.
        prefix: path prefix of the crew's segments, "" for none.

    Raises:
        Exception: whatever pickling it raises.
    """
    return _packed(value, prefix, dumps_plain)


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
