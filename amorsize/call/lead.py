"""The calling process leads: it runs the first items itself, in blocks, and times each block."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from ..errors import TaskTimeoutError
from ..measure.probe import LONGEST_BLOCK_SECONDS
from ..run.feed import Feed
from ..units import counted
from .decision import Decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..decide.planner import Plan
    from ..show.progress import Progress

__all__ = ["Lead"]

# Once the record says that the call is best serial, a block may have this many times the items run
# so far.
SETTLED_GROWTH = 128
# Then, if items are shorter than TINY_SECONDS, the block may take TINY_WORK_SECONDS, and it is not
# run in parts: to end a block or a part before the last item costs 4 to 8 ns for each item.
TINY_SECONDS = 0.4e-6
TINY_WORK_SECONDS = 0.25
# A block that is expected to take PATIENT_SECONDS is run in BLOCK_PARTS parts, and ends early if it
# takes OVERRUN times what was expected.
PATIENT_SECONDS = 0.000_2
BLOCK_PARTS = 8
OVERRUN = 3.0
# In a lazy run of tiny items, one item is timed in this much work.
TIMED_EVERY_SECONDS = 20e-6
# Progress of a lazy run is shown after this much work: to show it may take some us.
SHOWN_EVERY_SECONDS = 0.001


class Lead:
    """Runs items in the calling process until none are left or workers pay.

    Args:
        feed: the items.
        decision: decides about workers.
        timeout: most seconds for the whole call, None for no limit.
        progress: shows how many items are finished; None to show nothing.

    Attributes:
        deadline: when the call must end, on the monotonic clock, None for no limit.
        yielded: number of results that ``run_lazily`` has yielded.
        check: called after each block; may raise, which ends the call. None for nothing.
    """

    def __init__(
        self, feed: Feed, decision: Decision, timeout: float | None, progress: Progress | None
    ) -> None:
        self._feed = feed
        self._decision = decision
        self._probe = decision.evidence.probe
        self._timeout = timeout
        self._progress = progress
        self.yielded = 0
        self._unshown = 0
        self.check: Callable[[], object] | None = None
        self.begin()

    def begin(self) -> None:
        """Let the time limit begin now."""
        timeout = self._timeout
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self._feed.deadline = self.deadline

    def run(self, out: list[Any]) -> Plan | None:
        """Append results to ``out`` until no items are left; return a plan once workers pay."""
        feed, probe, decision = self._feed, self._probe, self._decision
        if decision.alone and not (self.deadline or self.check or self._progress):
            watch = probe.watch(1)
            feed.run_all(out)
            if out:
                probe.add(watch.block(len(out)))
            return None
        while self._run_block(out):
            if decision.is_due(probe.seconds) or decision.recalls():
                plan = decision.consider(out, lazy=False)
                if plan is not None:
                    return plan
        return None

    def _run_block(self, out: list[Any]) -> bool:
        """Run and time the next block here; return whether there may be more items."""
        feed, probe = self._feed, self._probe
        size = probe.next_size(feed.likely_remaining)
        if self._decision.settled and feed.remaining is not None:
            size = max(size, self._settled_size(feed.remaining))
        watch = probe.watch(size)
        done = self._run_items(size, out)
        if done:
            probe.add(watch.block(done))
            if self._progress is not None:
                self._progress.add(done)
        if feed.is_exhausted:
            return False
        self._check_deadline()
        return True

    def _settled_size(self, left: int) -> int:
        """Return the block size of a call that is best serial, given the number of items left."""
        mean, longest = max(self._probe.mean, 1e-9), LONGEST_BLOCK_SECONDS
        if mean < TINY_SECONDS and self._progress is None:
            longest = TINY_WORK_SECONDS
        return min(left, int(longest / mean), SETTLED_GROWTH * self._probe.items)

    def _run_items(self, size: int, out: list[Any]) -> int:
        """Run up to ``size`` items here; stop if they turn out much dearer than those before.

        Returns:
            How many ran.
        """
        feed = self._feed
        if size < 2 * BLOCK_PARTS:
            return feed.run(size, out)
        mean = self._probe.mean
        expected = size * mean
        if expected < PATIENT_SECONDS or (mean < TINY_SECONDS and size == feed.remaining):
            return feed.run(size, out)
        until, done = time.monotonic() + OVERRUN * expected, 0
        while done < size:
            wanted = min(size - done, size // BLOCK_PARTS)
            ran = feed.run(wanted, out)
            done += ran
            if ran < wanted or time.monotonic() > until:
                break
        return done

    def run_lazily(self) -> Generator[Any, None, Plan | None]:
        """Yield results of items run here, one at a time; return a plan once workers pay."""
        feed, probe, decision = self._feed, self._probe, self._decision
        result: list[Any] = []
        while True:
            watch = probe.watch(1)
            if not feed.run(1, result):
                self.show_all()
                return None
            probe.add(watch.block(1))
            plan = None
            if decision.is_due(probe.mean * feed.position):
                plan = decision.consider(result, lazy=True)
            self.yielded += 1
            self._show(1)
            yield result.pop()
            self._check_deadline()
            if plan is not None:
                self.show_all()
                return plan
            # Timing a tiny item costs more than running it, so most tiny items run untimed.
            untimed = 4 * probe.items
            if not decision.alone or self._progress is not None:  # where the times decide, or show
                untimed = min(int(TIMED_EVERY_SECONDS / max(probe.mean, 1e-9)), untimed)
            before = feed.position
            if untimed:
                for value in feed.pass_through(untimed):
                    self.yielded += 1
                    yield value
                    if self.deadline is not None or self.check is not None:
                        self._check_deadline()
                self._show(feed.position - before)

    def _show(self, items: int) -> None:
        """Show items that were finished in a lazy run, some at a time."""
        if self._progress is None:
            return
        self._unshown += items
        left = self._feed.remaining
        if self._unshown * self._probe.mean >= SHOWN_EVERY_SECONDS or left == 0:
            self.show_all()

    def show_all(self) -> None:
        """Show the items that were finished in a lazy run and not shown."""
        if self._progress is not None and self._unshown:
            self._progress.add(self._unshown)
            self._unshown = 0

    def _check_deadline(self) -> None:
        if self.check is not None:
            self.check()
        if self.deadline is not None and time.monotonic() >= self.deadline:
            assert self._timeout is not None
            raise TaskTimeoutError(
                f"the call took longer than timeout={self._timeout:g} s; "
                f"{counted(self._feed.position, 'item was', 'items were')} finished",
                seconds=self._timeout,
            )
