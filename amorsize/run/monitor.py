"""Whether workers do what was expected: a new crew on trial, and all of them against the caller."""

from __future__ import annotations

from collections.abc import Callable

from ..decide.steps import Stage, Step
from ..measure.probe import Block, Tally

__all__ = ["KeepUpMonitor", "Trial"]

# What the first worker must have run before its timing decides about more of them: about what
# starting one more costs.
TRIAL_SECONDS = 0.002
# And each worker of a crew that must show its gain: beside four busy programs, one item of 5 ms
# each looked like no gain (November 2026, two-core machine).
STEP_SECONDS = 0.02

# Whether workers keep up with what the caller could do alone is judged over so many seconds: some
# dozens of chunks, and little to lose.
JUDGE_SECONDS = 0.05
# Below this share of what it could do alone, so many times in a row, the caller takes over. Once
# may be a few items that take much longer than most and are not over yet.
RETREAT_SHARE = 0.7
RETREAT_TIMES = 2
# It works alone so many times as long as they had been too slow, and then tries them again: other
# programs may have had the CPUs meanwhile. Trials that fail cost a tenth, then.
RETREAT_PAUSE = 10


class KeepUpMonitor:
    """Has the caller take over when workers do less than it would do alone.

    A forecast can be wrong by any factor: results that took microseconds to compute may take
    milliseconds to pickle. What a worker reports is the time of the items alone, which is what they
    would take in the caller.

    Attributes:
        retreated: whether the caller is to work instead of the workers.
        retreats: how often it was.
    """

    def __init__(self) -> None:
        self.retreated = False
        self.retreats = 0
        self._last = (0.0, 0, 0.0)  # (time, items and their seconds) at the last judgement
        self._good_at = 0.0  # when the workers were not known to be slow
        self._slow_times = 0  # judgements against them, one after the other
        self._resume_at = 0.0

    def look(self, now: float, tally: Tally, *, ready: bool) -> None:
        """KeepUpMonitor the workers, if it is time to.

        Args:
            now: on the monotonic clock, s.
            tally: of all items that ran in workers.
            ready: whether all workers have started.
        """
        if self.retreated:
            return
        since, items, seconds = self._last
        if not ready or since == 0.0:
            self._last, self._good_at = (now, tally.items, tally.seconds), now
        # At least a chunk must have come back: one long item says nothing.
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
    """Has each worker of a crew run one chunk at a time, until it is clear how many go on.

    Args:
        rethink: what decides, see ``Policy``; None where there is nothing to decide.

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
        """Try a new crew."""
        self._workers, self._given, self._tally = workers, 0, Tally()

    @property
    def seconds(self) -> float:
        """What each worker must have run, s."""
        return TRIAL_SECONDS if self._workers == 1 else STEP_SECONDS

    @property
    def room(self) -> int:
        """Number of chunks that may still be handed out in this round."""
        return max(0, self._workers - self._given)

    def hand_out(self) -> None:
        """Note that a chunk was handed out."""
        self._given += 1

    def note(self, block: Block) -> None:
        """Note what a worker ran."""
        self._tally.add(block)

    def verdict(self, workers: int, left: int | None) -> Step | None:
        """Return how to go on at the end of a round, None where another round must show it.

        Args:
            workers: how many there really are.
            left: items that are left, None where that is not known.
        """
        tally, self._given = self._tally, 0
        if self._rethink is None or tally.seconds < self.seconds * workers:
            return None
        step = self._rethink(Stage(workers, tally.items, tally.seconds, tally.cpu_share, left))
        self.over = step.last
        return step
