"""Measuring the first items while they do real work. Bookkeeping only: it runs nothing itself."""

from __future__ import annotations

import os
import sys
import time
from math import ceil, sqrt
from typing import NamedTuple

from .looking import module_of, mro, qualname
from .model import Profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "Block",
    "Probe",
    "Stopwatch",
    "Tally",
    "cpu_seconds",
    "peak_memory_bytes",
    "pickling",
    "profile_of",
    "queued_seconds",
    "with_queue",
]

# A block is at most this many times the one before, so that a sudden change of cost among
# thousands of tiny items is met after a few of them ...
GROWTH = 4
# ... or this many while it is expected to be over at once, since timing a block takes 3 us ...
FIRST_GROWTH = 16
# ... and no longer than what was run so far, but at least this ...
SHORTEST_BLOCK_SECONDS = 40e-6
UNKNOWN_GROWTH = 0.3
# ... and at most this, so that a long serial run looks up often enough.
LONGEST_BLOCK_SECONDS = 0.05
# Blocks expected to be shorter than this are timed by the wall clock alone, those that are longer
# than that also by what they stood in line for. Of the first one nobody knows.
SHORT_BLOCK_SECONDS = 50e-6
LONG_BLOCK_SECONDS = 0.001
UNKNOWN_BLOCK_SECONDS = SHORT_BLOCK_SECONDS


class Block(NamedTuple):
    """Consecutive items that were timed together.

    Attributes:
        items: number of items, 1 or more.
        seconds: wall time.
        cpu_seconds: CPU time of the process and of the processes it waited for, and what it stood
            in line for.
    """

    items: int
    seconds: float
    cpu_seconds: float


class Tally:
    """Running sums over blocks of items, wherever they ran; a long run must not keep them all.

    Attributes:
        items, seconds, cpu_seconds: sums over all blocks.
        least, most: item time of the fastest and the slowest block, s.
    """

    __slots__ = ("_squares", "cpu_seconds", "items", "least", "most", "seconds")

    def __init__(self) -> None:
        self.items = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.least = float("inf")
        self.most = 0.0
        self._squares = 0.0

    def add(self, block: Block) -> None:
        """Book one block."""
        each = max(block.seconds / block.items, 1e-9)
        self.items += block.items
        self.seconds += block.seconds
        self.cpu_seconds += block.cpu_seconds
        self.least = min(self.least, each)
        self.most = max(self.most, each)
        self._squares += block.items * each * each

    def merge(self, other: Tally) -> None:
        """Add the sums of another tally."""
        self.items += other.items
        self.seconds += other.seconds
        self.cpu_seconds += other.cpu_seconds
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)
        self._squares += other._squares

    @property
    def spread(self) -> float:
        """Standard deviation of item times, s, as far as blocks show it.

        The deviation inside a block cannot be seen, so this is exact for blocks of one item and a
        lower bound for longer ones.
        """
        if not self.items:
            return 0.0
        mean = self.seconds / self.items
        return sqrt(max(0.0, self._squares / self.items - mean * mean))


class Probe:
    """What was measured of the items that ran in the calling process.

    Attributes:
        tally: of all blocks.
        rest: of all but the first, which may have paid for imports.
        first: the first block, None before it.
        last_size: number of items in the last block.
    """

    __slots__ = ("first", "last_size", "rest", "tally")

    def __init__(self) -> None:
        self.tally = Tally()
        self.rest = Tally()
        self.first: Block | None = None
        self.last_size = 0

    @property
    def items(self) -> int:
        """Number of items measured."""
        return self.tally.items

    @property
    def seconds(self) -> float:
        """Wall time of all of them, s."""
        return self.tally.seconds

    def add(self, block: Block) -> None:
        """Book one block."""
        if self.first is None:
            self.first = block
        else:
            self.rest.add(block)
        self.last_size = block.items
        self.tally.add(block)

    def next_size(self, remaining: int | None) -> int:
        """Return the number of items to time next, 1 or more."""
        if self.first is None:
            return 1
        # Of unknown length, every item more that runs here may be one too many.
        spent = self.seconds if remaining is not None else self.seconds * UNKNOWN_GROWTH
        span = min(max(spent, SHORTEST_BLOCK_SECONDS), LONGEST_BLOCK_SECONDS)
        fitting = ceil(span / max(self.mean, 1e-9))
        growth = FIRST_GROWTH if self.seconds < SHORTEST_BLOCK_SECONDS else GROWTH
        size = max(1, min(fitting, growth * self.last_size))
        return size if remaining is None else max(1, min(size, remaining))

    @property
    def mean(self) -> float:
        """Mean time of an item, s.

        The first block, which may pay for imports, is left out once it is a small part.
        """
        first, tally = self.first, self.tally
        if first is not None and 0 < first.items < tally.items / 2:
            return (tally.seconds - first.seconds) / (tally.items - first.items)
        return tally.seconds / max(1, tally.items)


def profile_of(
    tally: Tally, mean: float, *, memory_bytes: int = 0, travel: Profile | None = None
) -> Profile:
    """Return what was measured as a profile.

    Args:
        tally: what was measured, at least one item.
        mean: the item time to report, s.
        memory_bytes: growth of the peak memory meanwhile.
        travel: a profile whose sizes and pickling time to take over.
    """
    return Profile(
        item_seconds=max(mean, 1e-9),
        spread=tally.spread,
        least_seconds=tally.least,
        most_seconds=tally.most,
        cpu_share=tally.cpu_seconds / max(tally.seconds, 1e-9),
        arg_bytes=travel.arg_bytes if travel else 0.0,
        result_bytes=travel.result_bytes if travel else 0.0,
        pickle_seconds=travel.pickle_seconds if travel else 0.0,
        send_seconds=travel.send_seconds if travel else 0.0,
        crowding=travel.crowding if travel else 0.0,
        import_seconds=travel.import_seconds if travel else 0.0,
        memory_bytes=memory_bytes,
        items=tally.items,
    )


_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in kB


class Stopwatch:
    """Times one block: wall and CPU.

    CPU time is that of the whole process, so that a function with threads inside shows a share
    above 1, and of finished child processes, so that one that waits for a compiler is not taken
    for one that waits for a network. What this thread stood in line for counts as well: where other
    programs have the CPUs, what computes must not look as if it waited.

    Args:
        expected: how long the block is expected to take, s; None where nobody knows. The CPU clocks
            take 2 us, for which a short block is taken for computing instead; and asking what was
            stood in line for takes 8 us, which only longer blocks are worth.
    """

    __slots__ = ("_cpu", "_expected", "_queued", "_wall")

    def __init__(self, expected: float | None = None) -> None:
        self._expected = UNKNOWN_BLOCK_SECONDS if expected is None else expected
        if self._expected >= SHORT_BLOCK_SECONDS:
            if self._expected >= LONG_BLOCK_SECONDS:
                self._queued = queued_seconds()
            self._cpu = cpu_seconds()
        self._wall = time.perf_counter()

    def block(self, items: int) -> Block:
        """Return the block that ended now."""
        wall = time.perf_counter() - self._wall
        if self._expected < SHORT_BLOCK_SECONDS:
            return Block(items, wall, wall)
        cpu = cpu_seconds() - self._cpu
        if self._expected >= LONG_BLOCK_SECONDS:
            cpu = with_queue(cpu, queued_seconds() - self._queued, wall)
        return Block(items, wall, cpu)


def with_queue(cpu: float, queued: float, wall: float) -> float:
    """Return the CPU time taken or stood in line for, within the time that passed; all in s.

    >>> with_queue(1.0, 0.5, 2.0), with_queue(1.0, 3.0, 2.0), with_queue(4.0, 1.0, 2.0)
    (1.5, 2.0, 4.0)
    """
    return cpu + min(max(wall - cpu, 0.0), queued)


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its ended children, s."""
    return time.process_time() + children_seconds()


def queued_seconds() -> float:
    """Return how long this thread stood in line for a CPU, s; 0 where nobody tells.

    The second figure of the kernel's schedstat, in ns (Documentation/scheduler/sched-stats.rst).
    Left open, the file might be closed by the user's code, and its number be another file's.
    """
    try:
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:
        return 0.0
    try:
        return int(os.read(file, 100).split()[1]) / 1e9
    finally:
        os.close(file)


try:
    from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
except ImportError:  # Windows has no such module

    def children_seconds() -> float:
        """Return the CPU time of child processes that have ended, s; 0 where it is not known."""
        return 0.0

    def peak_memory_bytes() -> int:
        """Return the largest resident memory so far, 0 where it is not known."""
        return 0

else:

    def children_seconds() -> float:
        """Return the CPU time of child processes that have ended, s; 0 where it is not known."""
        usage = getrusage(RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def peak_memory_bytes() -> int:
        """Return the largest resident memory so far, 0 where it is not known."""
        return getrusage(RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT


def pickling(values: list[Any], dumps: Callable[[Any], bytes]) -> tuple[float, float]:
    """Return (bytes, seconds) that pickling one of ``values`` takes, pickled together.

    Large buffers are not copied just to measure that: an array's content is never pickled, only
    moved, and bytes are copied into the pickle at memory speed.

    Args:
        values: one value or a few of a kind.
        dumps: what pickles.

    Raises:
        Exception: whatever pickling them raises.
    """
    size = _buffer_size(values[-1])
    if size is not None:
        copied = issubclass(type(values[-1]), (bytes, bytearray))
        return size, size * COPY_SECONDS if copied else 0.0
    begun = time.perf_counter()
    data = dumps(values)
    return len(data) / len(values), (time.perf_counter() - begun) / len(values)


COPY_SECONDS = 0.4e-9  # of one byte: pickling 8 MB took 3 ms (November 2026, two-core machine)
_LARGE_BUFFER = 1 << 16


def _buffer_size(value: Any) -> float | None:
    """Return the size of a large bytes-like object or array, None for anything else.

    Only types that are known are asked: an attribute of any other object may run its code, and
    raise anything.
    """
    kind = type(value)
    if issubclass(kind, (bytes, bytearray)):
        size = (bytes if issubclass(kind, bytes) else bytearray).__len__(value)
    elif any((module_of(base), qualname(base)) in _ARRAYS for base in mro(kind)):
        try:
            # Extension types have data types of their own, which need not say what they hold.
            size = 0 if getattr(value.dtype, "hasobject", True) else int(value.nbytes)
        except Exception:  # noqa: BLE001 - a subclass of the user's may raise anything
            return None
    else:
        return None
    return float(size) if size >= _LARGE_BUFFER else None


# Types whose content moves without being pickled; pandas 3 says that its classes live at the top.
_ARRAYS = {("numpy", "ndarray"), ("pandas", "Series"), ("pandas.core.series", "Series")}
