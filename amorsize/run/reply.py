"""What a worker sends to its caller: notes, and the outcomes of chunks."""

from __future__ import annotations

import os
import time
from struct import Struct

from ..tuples import NamedTuple
from .failure import Failure, pack
from .transport import Parcel, pack_results, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .crew import Lost

__all__ = [
    "CHUNK",
    "ITEM",
    "LEAVE",
    "LEAVING",
    "NOTE",
    "READY",
    "RECORD",
    "REPLY",
    "TRACKED",
    "Ran",
    "Reply",
]


class Reply(NamedTuple):
    """The outcome of a chunk.

    Attributes:
        results: the results, or the parcel that holds them if they come from another process.
        done: number of results.
        failure: why there are fewer results than items; None if all items ran or ``func`` raised
            StopIteration (which ends a ``map``).
        pid: worker (a thread's identifier in a crew of threads).
        begun: when the chunk began, on the system-wide monotonic clock, s.
        seconds: wall time of the items, without pickling.
        cpu_seconds: CPU time of the items, plus their time in run queues.
        size: bytes sent for the results, 0 if none were sent.
        pack_seconds: wall time of pickling the results.
        gives_back: whether the items without results are given back, as the chunk took too long.
        lost: the worker that was lost with the chunk, where the others go on; None if it ran.
    """

    results: list[Any] | Parcel
    done: int
    failure: Failure | None
    pid: int
    begun: float
    seconds: float
    cpu_seconds: float
    size: int = 0
    pack_seconds: float = 0.0
    gives_back: bool = False
    lost: Lost | None = None

    def open(self) -> list[Any]:
        """Return the results.

        Raises:
            Exception: whatever unpickling them raises.
        """
        if isinstance(self.results, Parcel):
            results: list[Any] = unpack(self.results)
            return results
        return self.results


# Kinds of frames that a worker sends. READY: the worker is set up. CHUNK: it has taken a chunk.
# ITEM: it has begun an item. REPLY: the outcome of a chunk. RECORD: a log record. TRACKED: a
# resource to track. LEAVING: it was asked to end, and has nothing more to send; its peak memory.
# READY, CHUNK and ITEM carry a note: the number of the chunk or the index of the item (0 for
# READY), and the monotonic time.
NOTE = Struct("<qd")
LEAVE = Struct("<q")
READY, CHUNK, ITEM, REPLY, LEAVING = b"r", b"c", b"i", b"a", b"e"
RECORD, TRACKED = b"l", b"t"


class Ran(NamedTuple):
    """A chunk that has run, and whose results are still here.

    Attributes:
        chunk: its number.
        begin: index of its first item.
        results: the results.
        failure: see ``Reply``.
        begun: when it began, on the system-wide monotonic clock, s.
        seconds: wall time of its items.
        cpu_seconds: their CPU time, plus their time in run queues.
        gives_back: see ``Reply``.
    """

    chunk: int
    begin: int
    results: list[Any]
    failure: Failure | None
    begun: float
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gives_back: bool = False

    def packed(self, prefix: str) -> tuple[Any, ...]:
        """Return the chunk's number and the fields of its Reply, with the results in a parcel.

        Args:
            prefix: path prefix of the crew's shared segments.
        """
        results, failure = self.results, self.failure
        packed = time.perf_counter()
        parcel, left_out = pack_results(results, self.begin, prefix) if results else ([], None)
        packed = time.perf_counter() - packed
        if left_out is not None:
            assert left_out.index is not None
            failure = pack(left_out, left_out.index)
            results = results[: left_out.index - self.begin]
        size = parcel.size if isinstance(parcel, Parcel) else 0
        return (
            self.chunk,
            parcel,
            len(results),
            failure,
            os.getpid(),
            self.begun,
            self.seconds,
            self.cpu_seconds,
            size,
            packed,
            self.gives_back and left_out is None,
        )
