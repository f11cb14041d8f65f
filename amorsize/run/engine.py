"""The engine: has chunks dealt to a crew, collects the replies, and handles deaths and limits.

It is a generator of (start, results) in the requested order. It advances only as far as its
consumer asks, so each of the four forms of ``map`` needs only a few lines around it. A Policy
decides the number of workers and the chunk sizes. The ledger records where each item is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

from ..errors import TaskTimeoutError, WorkerLostError
from ..measure.timing import Tally
from ..units import counted
from .caller import Caller
from .course import Course
from .crew import Crew, Lost, Starter
from .crews import Crews
from .dealer import Dealer
from .feed import Feed
from .intake import Intake
from .ledger import Blame, Ledger
from .losses import explain_idle, explain_stuck, late_error, loss_error
from .memory import WorkerMemory
from .monitor import KeepUpMonitor, Trial
from .policy import Policy
from .reply import Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Engine"]

# While it waits, the engine checks for deaths and time limits at least this often.
WAKE_SECONDS = 0.02
# An item that arrives while workers run waits for them at most this long.
ARRIVAL_SECONDS = 0.005
# The call gives up after more than this many lost crews in a row that finished no chunk, or after
# more than this many stuck crews.
MOST_FUTILE = 3


class Engine:
    """Runs the remaining items of a feed in a crew.

    Args:
        feed: the items.
        policy: how to run them.
        launcher: starts crews.
        memory: reads the peak memory of workers before they end.
        course: records what the chunks take.
        progress: called with the number of newly finished items.
        settled: called with (index of the first item, results) as they come, in any order.

    Attributes:
        ledger: where each item is.
        stuck: number of workers that waited for a lock that nothing can release.
        memory: the peak memory of the workers.
        monitor: whether the workers keep up, and how often they did not.
    """

    def __init__(
        self,
        feed: Feed,
        policy: Policy,
        launcher: Starter,
        memory: WorkerMemory,
        course: Course,
        *,
        progress: Callable[[int], None] | None = None,
        settled: Callable[[int, list[Any]], object] | None = None,
    ) -> None:
        self.feed = feed
        self.policy = policy
        self.course = course
        self.ledger = Ledger(
            feed.position,
            ordered=policy.ordered,
            retries=policy.retries,
            return_exceptions=policy.return_exceptions,
            watched=settled is not None,
        )
        self._settled, self._progress = settled or (lambda *_: None), progress
        self._shown = 0  # finished items already reported to progress
        self.launcher = launcher
        self._trial = Trial(policy.rethink)
        self.memory = memory
        self.monitor = KeepUpMonitor()
        self.stuck = 0
        self._caller = Caller(feed, policy, self.ledger, course)
        # Whether somebody waits for results. Without retries, what a lost worker did not send has
        # failed.
        prompt = policy.bounded or progress is not None or not policy.retries
        books = feed, policy, self.ledger, course
        self._dealer = Dealer(
            *books, self._trial, self.monitor, keep=self._caller.keep, prompt=prompt
        )
        self._crews = Crews(
            feed, policy, launcher, self.ledger, self._caller, self._dealer, self._trial
        )
        self._intake = Intake(*books, self._trial)
        self._alone = False  # whether the rest runs without workers

    @property
    def crew(self) -> Crew | None:
        """The workers; None before they are started."""
        return self._crews.crew

    @property
    def workers(self) -> int:
        """Current number of workers, without the caller."""
        return self._crews.workers

    @property
    def jobs(self) -> int:
        """Number of processes or threads that run items, the caller included if it shares."""
        return self._crews.jobs

    @property
    def withdrawn(self) -> str:
        """Why the calling process has taken over for good, "" while it has not."""
        return self._intake.withdrawn

    # The loop -------------------------------------------------------------------------------

    def run(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield (index of the first item, results) until all remaining items are done."""
        try:
            self._crews.start(self.workers)
            assert self.crew is not None
            while True:
                self._hand_out()
                helped = False
                awaits = self._dealer.awaits_input
                if self.ledger.out:
                    if not self._work_here():
                        longest = ARRIVAL_SECONDS if awaits else WAKE_SECONDS
                        self._collect(self.policy.patience(time.monotonic(), longest))
                    self._check_withdrawn()
                    self._check_deaths()
                    self._check_time()
                    self._rethink()
                    self._judge()
                elif self.monitor.retreated:
                    helped = self._work_here()
                    self._check_time()
                    self._judge()
                elif awaits:
                    self._dealer.await_input(self.policy.patience(time.monotonic(), WAKE_SECONDS))
                    self._check_time()
                self._show_progress()
                idle = not (self.ledger.out or helped or awaits)
                for pair in self.ledger.ripe():
                    idle = False
                    yield pair
                if idle and not self.ledger.has_retries:
                    break
            self.ledger.raise_failure(self.feed.error)
            if not self.ledger.has_end:
                self.crew.close()
                self.memory.look((span.worker for span in self.course.spans), self.crew.peaks)
        finally:
            self.end()

    def end(self) -> None:
        """End the remaining workers at once; do nothing after a close."""
        self._crews.end()

    def _hand_out(self) -> None:
        """Hand out chunks; take back those in the queue first if they must be cut anew."""
        assert self.crew is not None
        self._crews.note_size()
        if self._dealer.note_change(self.crew):
            self._crews.take_back()
        self._dealer.hand_out(self.crew)

    def _work_here(self) -> bool:
        """Run a few items in the caller if that is its part; return whether anything changed."""
        assert self.crew is not None
        if self.monitor.retreated:
            ran = self._caller.take_over()
        elif self.policy.shares:
            # Replies come first: workers may wait for the caller to read them.
            ran = self.crew.has_news() or self._caller.share(
                self.crew, self.workers, last=self._dealer.has_dealt_all
            )
        elif self.policy.help and not self._crews.all_ready():
            ran = self._caller.help(self.crew, self.workers, self._dealer.room(sys.maxsize))
        else:
            return self._caller.put_back()
        if ran:
            self._show_progress()
            self._collect(0.0)
        return ran

    def _judge(self) -> None:
        """Have the caller take over if the workers do not keep up."""
        if not self.policy.retreat or not self._trial.over:
            return
        if self.monitor.retreated:
            self.monitor.resume(time.monotonic())
            return
        done = self.course.tally
        if self.policy.shares:  # the caller would work in any case
            done = Tally()
            done.merge(self.course.tally)
            done.merge(self.course.own)
        self.monitor.look(time.monotonic(), done, ready=self._crews.all_ready())
        if self.monitor.retreated:
            self._crews.take_back()

    def _rethink(self) -> None:
        """Adopt the number of workers that a trial round has shown to be right.

        A crew cannot change its size, so another number of workers needs a new crew.
        """
        if self._trial.over or self.ledger.out:
            return
        step = self._trial.verdict(self.workers, self.feed.likely_remaining)
        if step is None or step.workers == self.workers or self.ledger.has_failed:
            return
        self._crews.replace(step.workers)

    def _collect(self, timeout: float) -> None:
        assert self.crew is not None
        for number, reply in self.crew.replies(timeout):
            self._take_in(number, reply)

    def _take_in(self, number: int, reply: Reply) -> None:
        """Record the reply of a worker, and show what it finished."""
        self._intake.take_in(number, reply)
        self._show_progress()

    def _show_progress(self) -> None:
        """Report newly finished items to the progress callback, and their results."""
        for start, results in self.ledger.take_fresh():
            self._settled(start, results)
        finished, self._shown = self.ledger.finished - self._shown, self.ledger.finished
        if self._progress is not None and finished:
            self._progress(finished)

    # Losses and limits ----------------------------------------------------------------------

    def _check_withdrawn(self) -> None:
        """Go on in the caller alone if a worker could not run what the caller can."""
        if not self._intake.withdrawn or self._alone:
            return
        if not self.policy.retries and self._crews.begun(self._intake.unbegun):
            self._dealer.holding = True  # until they are back: what was begun must not run again
            return
        self._dealer.holding = False
        self._alone = self._trial.over = True
        self._crews.salvage(self._take_in)
        self._crews.recall()
        self._crews.start(0)

    def _check_deaths(self) -> None:
        """Go on in a new crew when a worker has died or is stuck."""
        assert self.crew is not None
        lost = self.crew.lost()
        if lost is None:
            return
        running = self.crew.running().get(lost.pid)
        self._crews.salvage(self._take_in)
        if lost.stuck:
            self._leave_lock()
            return
        self._intake.futile += 1
        if running is not None and running.chunk in self.ledger.out:
            blame = self.ledger.lost(running.chunk, running.item)
            if blame is not None:
                self._give_up_lost(lost, blame)
        elif self._is_hopeless(lost):
            # What a worker has run may have ended it later, and would end the caller as well.
            if not self.policy.withdraw or running is not None:
                raise WorkerLostError(explain_idle(lost), exitcode=lost.exitcode)
            self._intake.withdrawn = explain_idle(lost)
            self._check_withdrawn()
            return
        if lost.memory:
            # Fewer workers may fit into the memory.
            self._crews.workers = max(1, self.workers // 2)
        self._crews.restart()

    def _leave_lock(self) -> None:
        """Go on with another start method; forked workers would get stuck again."""
        self.stuck += 1
        if self.policy.retries == 0 or self.stuck > MOST_FUTILE:
            raise WorkerLostError(explain_stuck())
        self.launcher.leave_fork()
        self._crews.restart()

    def _is_hopeless(self, lost: Lost) -> bool:
        """Return whether to give up after the death of a worker that had no chunk."""
        # A worker that ends itself before it is ready will do so the next time, too.
        by_itself = lost.exitcode is not None and lost.exitcode >= 0 and not lost.ready
        futile = self._intake.futile > max(MOST_FUTILE, self.policy.retries)
        return self.policy.retries == 0 or by_itself or futile

    def _give_up_lost(self, lost: Lost, blame: Blame) -> None:
        """Give up a chunk whose retries are used up, or only its guilty item."""
        chunk, item = blame
        self.ledger.give_up(blame, loss_error(lost, chunk.piece, chunk.losses, item, self.feed))

    def _check_time(self) -> None:
        """End the call at its deadline or if it is not wanted, or the crew when an item is late."""
        assert self.crew is not None
        policy, now = self.policy, time.monotonic()
        if policy.check is not None:
            policy.check()
        if policy.deadline is not None and now >= policy.deadline:
            raise TaskTimeoutError(
                f"the call took longer than timeout={policy.timeout:g} s; "
                f"{counted(self.course.tally.items, 'item was', 'items were')} finished in workers",
                seconds=policy.timeout,
            )
        if policy.task_timeout is None:
            return
        late = {
            running.chunk: running.item
            for running in self.crew.running().values()
            if running.chunk in self.ledger.out
            and running.item is not None
            and now - running.since > policy.task_timeout
        }
        # Ending the crew makes the other running items run again. Without retries they must not,
        # so they are waited for, which takes no longer than their own limit.
        self._dealer.holding = bool(late) and policy.retries == 0
        if late and not (self._dealer.holding and len(late) < len(self.ledger.out)):
            self._give_up_on(late, policy.task_timeout)

    def _give_up_on(self, late: dict[int, int], limit: float) -> None:
        """Give up late items, {chunk: index}: end the crew, and run the others in a new one."""
        self._crews.salvage(self._take_in)
        for number, index in late.items():
            chunk = self.ledger.out.get(number)
            if chunk is None:  # the chunk was finished after all
                continue
            error = late_error(limit, index, chunk.piece, self.feed)
            self.ledger.leave_out(number, index, error)
        self._dealer.holding = False
        self._crews.restart()
