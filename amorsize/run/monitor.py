"""Checks of the workers: the trial of a new crew, and a comparison with the caller."""

from __future__ import annotations

from collections.abc import Callable

from ..decide.steps import Stage, Step
from ..measure.timing import Block, Tally

__all__ = ["KeepUpMonitor", "Trial"]

# A single worker must run items for this long before its timing decides about more workers.
# Starting one more worker takes about as long.
TRIAL_SECONDS = 0.002
# In a larger crew, each worker must run items for this long. Beside four busy programs, one item of
# 5 ms for each worker looked like no gain (November 2026, two-core machine).
STEP_SECONDS = 0.02

# Each comparison of the workers with the caller alone covers at least this time: long enough for
# some dozens of chunks, short enough to lose little.
JUDGE_SECONDS = 0.05
# The caller takes over after RETREAT_TIMES judgements in a row below this share of what it could do
# alone. A single one may be due to a few items that take much longer than most and still run.
RETREAT_SHARE = 0.7
RETREAT_TIMES = 2
# The caller works alone for this many times the period in which the workers were too slow. Then it
# tries the workers again, because other programs may have used the CPUs in that period. A failed
# attempt thus costs a tenth of the time.
RETREAT_PAUSE = 10


class KeepUpMonitor:
    """Makes the caller take over when the workers do less than the caller would do alone.

    A forecast can be wrong by any factor: results that took microseconds to compute may take
    milliseconds to pickle. A worker reports the time of the items without pickling, which is the
    time that they would take in the caller.

    Attributes:
        retreated: whether the caller is to work instead of the workers.
        retreats: how often the caller took over.
    """

    def __init__(self) -> None:
        self.retreated = False
        self.retreats = 0
        self._last = (0.0, 0, 0.0)  # (time, items and their seconds) at the last judgement
        self._good_at = 0.0  # when the workers were last not found slow
        self._slow_times = 0  # judgements in a row that found them slow
        self._resume_at = 0.0

    def look(self, now: float, tally: Tally, *, ready: bool) -> None:
        """Judge the workers, if it is time to.

        Args:
            now: present time, on the monotonic clock, s.
            tally: times of all items that ran in workers.
            ready: whether all workers have started.
        """
        if self.retreated:
            return
        since, items, seconds = self._last
        if not ready or since == 0.0:
            self._last, self._good_at = (now, tally.items, tally.seconds), now
        # A chunk must have come back meanwhile: one long item proves nothing.
        elif now - since >= JUDGE_SECONDS and tally.items > items:
            slow = tally.seconds - seconds < RETREAT_SHARE * (now - since)
            self._last = (now, tally.items, tally.seconds)
            if not slow:
                self._slow_times, self._good_at = 0, now
                return
            self._slow_times += 1
            if self._slow_times >= RETREAT_TIMES:
                self.retreated = True
                self.retreats += 1
                self._resume_at = now + RETREAT_PAUSE * (now - self._good_at)

    def resume(self, now: float) -> None:
        """Give the workers another chance once a retreat has lasted long enough."""
        if now >= self._resume_at:
            self.retreated, self._slow_times, self._last = False, 0, (0.0, 0, 0.0)


class Trial:
    """Rounds of one chunk for each worker, until the number of workers is settled.

    Args:
        rethink: decides about the number, see ``Policy``; None to keep the first number.

    Attributes:
        over: whether the number of workers is settled.
    """

    def __init__(self, rethink: Callable[[Stage], Step] | None) -> None:
        self.over = rethink is None
        self._rethink = rethink
        self._workers = 0
        self._given = 0  # chunks handed out in this round
        self._tally = Tally()

    def begin(self, workers: int) -> None:
        """Begin a round with a new crew."""
        self._workers, self._given, self._tally = workers, 0, Tally()

    @property
    def seconds(self) -> float:
        """How long each worker must have run items, s."""
        return TRIAL_SECONDS if self._workers == 1 else STEP_SECONDS

    @property
    def room(self) -> int:
        """Number of chunks that may still be handed out in this round."""
        return max(0, self._workers - self._given)

    def hand_out(self) -> None:
        """Count a chunk that was handed out."""
        self._given += 1

    def note(self, block: Block) -> None:
        """Add what a worker ran."""
        self._tally.add(block)

    def verdict(self, workers: int, left: int | None) -> Step | None:
        """Return how to go on at the end of a round, None if another round is needed.

        Args:
            workers: actual number of workers.
            left: number of items left, None if unknown.
        """
        tally, self._given = self._tally, 0
        if self._rethink is None or tally.seconds < self.seconds * workers:
            return None
        step = self._rethink(Stage(workers, tally.items, tally.seconds, tally.cpu_share, left))
        self.over = step.last
        return step
