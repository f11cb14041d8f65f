"""Timing the first items of a call while they do real work. This module runs no items itself."""

from __future__ import annotations

import sys
import time
from math import ceil

from ..decide.figures import MOST_WAITING_WORKERS, Profile
from ..identity.looking import module_of, mro, qualname
from .timing import COMPUTING_SHARE, IDLE_SHARE, Block, Stopwatch, Tally
from .usage import HELPING_SHARE, Helpers, own_peak_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["LONGEST_BLOCK_SECONDS", "Probe", "peak_memory_bytes", "pickling", "profile_of"]

# A block has at most this many times the items of the block before. So a sudden change of cost
# among thousands of tiny items is seen after a few of them.
GROWTH = 4
# The same while all items so far took less than SHORTEST_BLOCK_SECONDS: timing a block takes 3 us.
FIRST_GROWTH = 16
# A block is expected to take at most as long as all blocks before, but may always take this long.
SHORTEST_BLOCK_SECONDS = 40e-6
# What it takes to begin and end a block: the smallest blocks consist of nothing else. It is not
# counted for the size of the next block (2 to 5 us, November 2026, two-core machine).
BLOCK_SECONDS = 3e-6
# For an input of unknown length, at most this share of the time of all blocks before.
UNKNOWN_GROWTH = 0.3
# And at most this, so that a long serial loop reconsiders its plan often enough.
LONGEST_BLOCK_SECONDS = 0.05


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
        "_last_seconds",
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
        self._last_seconds = 0.0
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
        self._last_seconds = block.seconds
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
        each = self.mean
        if self._last_seconds < SHORTEST_BLOCK_SECONDS:
            each = min(each, (self._last_seconds - BLOCK_SECONDS) / self.last_size)
        fitting = ceil(span / max(each, 1e-9))
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
