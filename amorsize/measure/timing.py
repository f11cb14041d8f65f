"""The time of a block of items, and sums over blocks, in the caller and in workers.

A block that looks like waiting is believed only if the CPU time around it was measured, too.
"""

from __future__ import annotations

import sys
import time
from math import sqrt

from ..tuples import NamedTuple
from .machine import usable_cpus
from .usage import (
    Helpers,
    Surroundings,
    own_cpu_seconds,
    own_queued_seconds,
    surroundings,
    with_queue,
)

__all__ = [
    "CLAIMED",
    "COMPUTING_SHARE",
    "IDLE_SHARE",
    "PROVED",
    "UNKNOWN",
    "Block",
    "Stopwatch",
    "Tally",
    "examined",
]

# A block expected to be shorter than SHORT_BLOCK_SECONDS is timed by the wall clock alone. From
# there on the CPU time is read too, and from LONG_BLOCK_SECONDS on this thread's run queue time.
# The length of the first block is unknown.
SHORT_BLOCK_SECONDS = 50e-6
LONG_BLOCK_SECONDS = 0.001
UNKNOWN_BLOCK_SECONDS = SHORT_BLOCK_SECONDS
# Once a block has looked like waiting, blocks from this length on are measured in full, which takes
# 20 us (November 2026, two-core machine).
DOUBTED_BLOCK_SECONDS = 0.0002
# The CPU clocks of Windows tick this rarely. Other clocks show some CPU time for any block, so a
# clock that shows none is taken for one of these.
COARSE_TICK_SECONDS = 1 / 64
_TICK_SECONDS = COARSE_TICK_SECONDS if sys.platform == "win32" else 0.0
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
        tick = _TICK_SECONDS if cpu else COARSE_TICK_SECONDS
        if used >= COMPUTING_SHARE * wall > tick:
            return Block(items, wall, used)
        unsure = used + tick >= COMPUTING_SHARE * wall  # by one tick the block may have computed
        if unsure or self._before is None or self._helpers is None:
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
