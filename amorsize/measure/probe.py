"""Timing the first items of a call while they do real work. This module runs no items itself."""

from __future__ import annotations

import sys
import time
from math import ceil, sqrt

from ..decide.figures import MOST_WAITING_WORKERS, Profile
from ..identity.looking import module_of, mro, qualname
from ..tuples import NamedTuple
from .machine import usable_cpus
from .usage import (
    HELPING_SHARE,
    Helpers,
    Surroundings,
    cpu_seconds,
    own_cpu_seconds,
    own_peak_bytes,
    own_queued_seconds,
    queued_seconds,
    surroundings,
    with_queue,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "CLAIMED",
    "PROVED",
    "UNKNOWN",
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

# A block has at most this many times the items of the block before. So a sudden change of cost
# among thousands of tiny items is seen after a few of them.
GROWTH = 4
# The same while all items so far took less than SHORTEST_BLOCK_SECONDS: timing a block takes 3 us.
FIRST_GROWTH = 16
# A block is expected to take at most as long as all blocks before, but may always take this long.
SHORTEST_BLOCK_SECONDS = 40e-6
# For an input of unknown length, at most this share of the time of all blocks before.
UNKNOWN_GROWTH = 0.3
# And at most this, so that a long serial loop reconsiders its plan often enough.
LONGEST_BLOCK_SECONDS = 0.05
# A block expected to be shorter than SHORT_BLOCK_SECONDS is timed by the wall clock alone. From
# there on the CPU time is read too, and from LONG_BLOCK_SECONDS on this thread's run queue time.
# The length of the first block is unknown.
SHORT_BLOCK_SECONDS = 50e-6
LONG_BLOCK_SECONDS = 0.001
UNKNOWN_BLOCK_SECONDS = SHORT_BLOCK_SECONDS
# Once a block has looked like waiting, blocks from this length on are measured in full, which takes
# 20 us (November 2026, two-core machine).
DOUBTED_BLOCK_SECONDS = 0.0002
# A block that used at least this share of its wall time was computing.
COMPUTING_SHARE = 0.9
# Beside other programs a computing block gets about its fair share of the CPUs. A block that got
# less than this part of its fair share was not waiting for a CPU. A guess.
STARVED = 0.25
# Waiting is proved by PROOF_SECONDS of blocks that used at most IDLE_SHARE of a CPU. An item that
# waits for a network takes longer and uses less. Both are guesses.
PROOF_SECONDS = 0.002
IDLE_SHARE = 0.2

# What is known of a block's CPU time. UNKNOWN: not all of it was measured. CLAIMED: it was measured
# as well as possible, for example beside other programs. PROVED: it was measured completely.
UNKNOWN, CLAIMED, PROVED = range(3)


class Block(NamedTuple):
    """Consecutive items that were timed together.

    Attributes:
        items: number of items, 1 or more.
        seconds: wall time.
        cpu_seconds: CPU time and run queue time of the process and of its children.
        proof: what is known of ``cpu_seconds``: ``UNKNOWN``, ``CLAIMED`` or ``PROVED``.
        children: the part of ``cpu_seconds`` that living children used.
    """

    items: int
    seconds: float
    cpu_seconds: float
    proof: int = PROVED
    children: float = 0.0


class Tally:
    """Running sums over blocks of items, wherever they ran; a long run must not keep all blocks.

    Attributes:
        items, seconds: sums over all blocks.
        cpu_seconds, known_seconds: CPU and wall time of the blocks whose CPU time is known.
        claimed_seconds: wall time of the blocks whose CPU time is only claimed.
        least, most: item time of the fastest and the slowest block, s.
    """

    __slots__ = (
        "_squares",
        "claimed_seconds",
        "cpu_seconds",
        "items",
        "known_seconds",
        "least",
        "most",
        "seconds",
    )

    def __init__(self) -> None:
        self.items = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.known_seconds = 0.0
        self.claimed_seconds = 0.0
        self.least = float("inf")
        self.most = 0.0
        self._squares = 0.0

    def add(self, block: Block) -> None:
        """Add one block."""
        each = max(block.seconds / block.items, 1e-9)
        self.items += block.items
        self.seconds += block.seconds
        if block.proof != UNKNOWN:
            self.cpu_seconds += block.cpu_seconds
            self.known_seconds += block.seconds
        if block.proof == CLAIMED:
            self.claimed_seconds += block.seconds
        self.least = min(self.least, each)
        self.most = max(self.most, each)
        self._squares += block.items * each * each

    def merge(self, other: Tally) -> None:
        """Add the sums of another tally."""
        self.items += other.items
        self.seconds += other.seconds
        self.cpu_seconds += other.cpu_seconds
        self.known_seconds += other.known_seconds
        self.claimed_seconds += other.claimed_seconds
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)
        self._squares += other._squares

    @property
    def cpu_share(self) -> float:
        """CPU time over wall time; unknown time counts as computing."""
        return self.cpu_seconds / self.known_seconds if self.known_seconds else 1.0

    @property
    def waits(self) -> bool:
        """Whether it is proved that items wait for something other than a CPU."""
        proved = self.known_seconds - self.claimed_seconds
        long_enough = proved >= max(PROOF_SECONDS, self.known_seconds / 2)
        return long_enough and self.cpu_share <= IDLE_SHARE

    @property
    def spread(self) -> float:
        """Standard deviation of item times, s, as far as blocks show it.

        The deviation inside a block is not measured. So this value is exact for blocks of one item
        and a lower bound for larger blocks.
        """
        if not self.items:
            return 0.0
        mean = self.seconds / self.items
        return sqrt(max(0.0, self._squares / self.items - mean * mean))


class Probe:
    """What was measured of the items that ran in the calling process.

    Attributes:
        tally: sums over all blocks.
        rest: sums over all blocks but the first, whose time may include imports.
        first: the first block, None before there is one.
        last_size: number of items in the last block.
        idle: whether the last block looked like waiting only.
        doubted: whether a block has looked like waiting; later blocks are then measured in full.
        helped: whether living children work for the function.
    """

    __slots__ = (
        "_helpers",
        "doubted",
        "first",
        "helped",
        "idle",
        "last_size",
        "rest",
        "tally",
    )

    def __init__(self) -> None:
        self.tally = Tally()
        self.rest = Tally()
        self.first: Block | None = None
        self.last_size = 0
        self.doubted = self.idle = False
        self.helped = False
        self._helpers = Helpers()

    @property
    def items(self) -> int:
        """Number of items measured."""
        return self.tally.items

    @property
    def seconds(self) -> float:
        """Wall time of all items measured, s."""
        return self.tally.seconds

    def add(self, block: Block) -> None:
        """Add one block."""
        if self.first is None:
            self.first = block
        else:
            self.rest.add(block)
        self.last_size = block.items
        self.idle = block.cpu_seconds < IDLE_SHARE * block.seconds
        self.doubted = self.doubted or block.cpu_seconds < COMPUTING_SHARE * block.seconds
        self.helped = self.helped or block.children >= HELPING_SHARE * block.seconds
        self.tally.add(block)

    def watch(self, items: int) -> Stopwatch:
        """Return a running stopwatch for the next block, which has this many items."""
        expected = items * self.mean if self.first is not None else None
        return Stopwatch(expected, self._helpers if self.doubted else None)

    def next_size(self, remaining: int | None) -> int:
        """Return the number of items to time next, 1 or more."""
        if self.first is None:
            return 1
        # With an unknown length, each further item that runs here may be one too many.
        spent = self.seconds if remaining is not None else self.seconds * UNKNOWN_GROWTH
        span = min(max(spent, SHORTEST_BLOCK_SECONDS), LONGEST_BLOCK_SECONDS)
        fitting = ceil(span / max(self.mean, 1e-9))
        growth = FIRST_GROWTH if self.seconds < SHORTEST_BLOCK_SECONDS else GROWTH
        size = max(1, min(fitting, growth * self.last_size))
        return size if remaining is None else max(1, min(size, remaining))

    @property
    def usual(self) -> Tally:
        """Sums over the blocks that represent the blocks to come.

        The time of the first block may include imports. It is left out once it has less than half
        of the items.
        """
        first = self.first
        if first is not None and first.items < self.tally.items / 2:
            return self.rest
        return self.tally

    @property
    def mean(self) -> float:
        """Mean item time of the usual blocks, s."""
        usual = self.usual
        return usual.seconds / max(1, usual.items)


def profile_of(
    tally: Tally, mean: float, *, memory_bytes: int = 0, travel: Profile | None = None
) -> Profile:
    """Return the measurements as a profile.

    Args:
        tally: what was measured, at least one item.
        mean: the item time to report, s.
        memory_bytes: growth of the peak memory while the items ran.
        travel: a profile that has the sizes, the times to pickle and import, the contention, and
            the number of waiting workers shown.
    """
    shown = travel.waiting_workers if travel else 0
    return Profile(
        item_seconds=max(mean, 1e-9),
        spread=tally.spread,
        least_seconds=tally.least,
        most_seconds=tally.most,
        cpu_share=tally.cpu_share,
        arg_bytes=travel.arg_bytes if travel else 0.0,
        result_bytes=travel.result_bytes if travel else 0.0,
        pickle_seconds=travel.pickle_seconds if travel else 0.0,
        send_seconds=travel.send_seconds if travel else 0.0,
        contention=travel.contention if travel else 0.0,
        import_seconds=travel.import_seconds if travel else 0.0,
        memory_bytes=memory_bytes,
        items=tally.items,
        waiting_workers=MOST_WAITING_WORKERS if tally.waits else shown,
    )


_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in kB


class Stopwatch:
    """Measures the wall and CPU time of one block.

    CPU time covers the whole process, so a function with threads inside shows a share above 1. It
    also covers child processes, so waiting for a compiler is not taken for waiting for a network.
    Run queue time counts as well: a computing function must not look like a waiting one while other
    programs have the CPUs. A block that looks like waiting is ``UNKNOWN`` unless it was measured in
    full.

    Args:
        expected: expected length of the block, s; None if unknown. Reading the CPU clocks takes
            2 us, so a short block counts as computing without a look. Reading the run queue time
            takes up to 8 us, so it is read for long blocks only.
        helpers: tells which children work for the function. If given, other threads, children and
            programs are measured as well, for blocks that are long enough.
    """

    __slots__ = ("_before", "_cpu", "_expected", "_helpers", "_queued", "_wall")

    def __init__(self, expected: float | None = None, helpers: Helpers | None = None) -> None:
        self._helpers = helpers
        self._expected = UNKNOWN_BLOCK_SECONDS if expected is None else expected
        self._before: Surroundings | None = None
        if self._expected >= SHORT_BLOCK_SECONDS:
            if helpers is not None and self._expected >= DOUBTED_BLOCK_SECONDS:
                self._before = surroundings()
            if self._expected >= LONG_BLOCK_SECONDS:
                self._queued = own_queued_seconds()
            self._cpu = own_cpu_seconds()
        self._wall = time.perf_counter()

    def block(self, items: int) -> Block:
        """Return the block, which ends now."""
        wall = time.perf_counter() - self._wall
        if self._expected < SHORT_BLOCK_SECONDS:
            return Block(items, wall, wall)
        cpu = used = own_cpu_seconds() - self._cpu
        if self._expected >= LONG_BLOCK_SECONDS:
            used = with_queue(cpu, own_queued_seconds() - self._queued, wall)
        if used >= COMPUTING_SHARE * wall:
            return Block(items, wall, used)
        if self._before is None or self._helpers is None:
            return Block(items, wall, used, UNKNOWN)
        before, after = self._before, surroundings()
        children = self._helpers.seconds(before, after, wall)
        return examined(
            Block(items, wall, cpu + children, children=children), before, after, usable_cpus()
        )


def examined(block: Block, before: Surroundings, after: Surroundings, cpus: int) -> Block:
    """Return a block with its CPU time corrected by its surroundings.

    The run queue time of children and threads that have ended is not recorded anywhere. So beside
    other programs a block counts as computing if it got at least the part ``STARVED`` of its fair
    share of the CPUs.

    Args:
        block: the block, its CPU time without run queue time.
        before: the surroundings at its start.
        after: the surroundings at its end.
        cpus: usable CPUs.

    >>> quiet, busy = Surroundings(0.0, {}, 1, True), Surroundings(0.0, {}, 99, True)
    >>> examined(Block(1, 1.0, 0.0), quiet, quiet, 2).proof == PROVED
    True
    >>> examined(Block(1, 1.0, 0.0), quiet, busy, 2).proof == CLAIMED
    True
    """
    wall, cpu = block.seconds, block.cpu_seconds
    used = with_queue(cpu, after.queued - before.queued, wall)
    runnable = max(before.runnable, after.runnable)  # including this thread
    if before.complete and after.complete and runnable <= max(1, cpus // 2):
        return block._replace(cpu_seconds=used)
    if cpu >= STARVED * wall * min(1.0, cpus / max(1, runnable)):
        used = max(used, wall)
    return block._replace(cpu_seconds=used, proof=CLAIMED)


try:
    from resource import RUSAGE_SELF, getrusage
except ImportError:  # Windows has no such module

    def peak_memory_bytes() -> int:
        """Return the largest resident memory so far, 0 where it is not known."""
        return 0

else:

    def peak_memory_bytes() -> int:
        """Return the largest resident memory so far, 0 where it is not known."""
        peak = getrusage(RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
        # A process starts with the peak of its parent. Reading its own peak takes 5 us.
        return peak if peak > _inherited_peak else own_peak_bytes() or peak

    def _read_inherited_peak() -> int:
        peak, own = getrusage(RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT, own_peak_bytes()
        return peak if 0 < own < peak else 0

    _inherited_peak = _read_inherited_peak()


def pickling(values: list[Any], dumps: Callable[[Any], bytes]) -> tuple[float, float]:
    """Return (bytes, seconds) for pickling one of ``values``; they are pickled together.

    Large buffers are not pickled for this. An array's content is moved without being pickled, and
    bytes are copied into the pickle at memory speed.

    Args:
        values: one value or a few of the same kind.
        dumps: the function that pickles.

    Raises:
        Exception: whatever pickling raises.
    """
    size = _buffer_size(values[-1])
    if size is not None:
        copied = issubclass(type(values[-1]), (bytes, bytearray))
        return size, size * COPY_SECONDS if copied else 0.0
    loaded = len(sys.modules)
    begun = time.perf_counter()
    data = dumps(values)
    seconds = time.perf_counter() - begun
    # If the call imported a module (cloudpickle takes 15 ms), measure again without the import.
    if len(sys.modules) != loaded:
        begun = time.perf_counter()
        data = dumps(values)
        seconds = time.perf_counter() - begun
    return len(data) / len(values), seconds / len(values)


COPY_SECONDS = 0.4e-9  # of one byte: pickling 8 MB took 3 ms (November 2026, two-core machine)
_LARGE_BUFFER = 1 << 16


def _buffer_size(value: Any) -> float | None:
    """Return the size of a large bytes object or array, None for anything else.

    Attributes are read from objects of known types only: on any other object they may run user
    code, which may raise anything.
    """
    kind = type(value)
    if issubclass(kind, (bytes, bytearray)):
        size = (bytes if issubclass(kind, bytes) else bytearray).__len__(value)
    elif any((module_of(base), qualname(base)) in _ARRAYS for base in mro(kind)):
        try:
            # The data types of pandas extension arrays may not say whether they hold objects.
            size = 0 if getattr(value.dtype, "hasobject", True) else int(value.nbytes)
        except Exception:  # noqa: BLE001 - a subclass of the user's may raise anything
            return None
    else:
        return None
    return float(size) if size >= _LARGE_BUFFER else None


# Types whose content is moved without being pickled. In pandas 3 the module of Series is "pandas".
_ARRAYS = {("numpy", "ndarray"), ("pandas", "Series"), ("pandas.core.series", "Series")}
