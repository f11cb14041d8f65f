"""The engine: hands chunks to a crew, collects what comes back, and looks after both.

It is a generator of (start, results) in the order asked for, advanced only as far as its consumer
wants, so that all four forms of ``map`` are a few lines around it. It decides nothing about
workers or sizes: those come in as a Policy. Where each item is, it asks the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from math import ceil

from ..errors import SerializationError, TaskTimeoutError, WorkerLostError
from ..measure.probe import Stopwatch
from ..signals import held_signals
from ..units import counted
from .chunks import Chunk
from .course import Course
from .crew import Crew, Lost, Starter, Task
from .failure import ITEM_ERRORS, Failure, add_item_note, add_note, unpack
from .feed import Feed, Slice, call_all
from .ledger import Blame, Failed, Ledger
from .losses import explain_idle, explain_stuck, loss_error, worded
from .memory import WorkerMemory
from .monitor import KeepUpMonitor, Trial
from .policy import Policy
from .worker import Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Engine"]

# The engine looks at deaths and time limits at least this often while it waits.
WAKE_SECONDS = 0.02
# Crews that may die idle, one after the other, before the call gives up.
MOST_FUTILE = 3
# The caller's own blocks while workers start: short, so that it is back when they are up.
HELP_SECONDS = 0.01


class Engine:
    """Runs the rest of a feed in a crew.

    Args:
        feed: the items.
        policy: how to run them.
        launcher: starts crews.
        memory: reads what workers needed before they end.
        course: keeps what the chunks take.
        progress: called with the number of items each time some are finished.

    Attributes:
        crew: the workers, None before they were started.
        ledger: the books.
        workers: number of workers now.
        withdrawn: why the calling process has taken over for good, "" while it has not.
        stuck: workers that waited for a lock that nothing can release.
        memory: says what they needed.
        monitor: says whether the workers keep up, and how often they did not.
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
    ) -> None:
        self.feed = feed
        self.policy = policy
        self.workers = policy.workers
        self.course = course
        self.ledger = Ledger(
            feed.position,
            ordered=policy.ordered,
            retries=policy.retries,
            return_exceptions=policy.return_exceptions,
        )
        self._progress = progress
        self._shown = 0  # items whose end the progress was told of
        self.launcher = launcher
        self.crew: Crew | None = None
        self._trial = Trial(policy.rethink)
        self.memory = memory
        self._futile = 0  # crews lost since the last chunk that was finished
        self.monitor = KeepUpMonitor()
        self.withdrawn = ""
        self.stuck = 0
        self._alone = False  # whether it runs without workers from now on
        self._holding = False  # whether running items are waited for before a late one is ended

    # The loop -------------------------------------------------------------------------------

    def run(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield (index of the first item, results) until all items left are done."""
        try:
            self._start(self.workers)
            assert self.crew is not None
            while True:
                self._hand_out()
                helped = False
                if self.ledger.out:
                    if not self._help():
                        self._collect(self.policy.patience(time.monotonic(), WAKE_SECONDS))
                    self._check_withdrawn()
                    self._check_deaths()
                    self._check_time()
                    self._rethink()
                    if self.policy.retreat and self._trial.over:
                        self.monitor.look(
                            time.monotonic(), self.course.tally, ready=self._all_ready()
                        )
                elif self.monitor.retreated:
                    helped = self._help()
                    self._check_time()
                    self.monitor.resume(time.monotonic())
                self._show_progress()
                idle = not self.ledger.out and not helped
                for pair in self.ledger.ripe():
                    idle = False
                    yield pair
                if idle and not self.ledger.has_retries:
                    break
            self.ledger.raise_failure(self.feed.error)
            if not self.ledger.has_end:
                self.memory.look(span.worker for span in self.course.spans)
                self.crew.close()
        finally:
            self.end()

    def end(self) -> None:
        """End workers that are still there, busy with what does not count; nothing after a close.

        It may be called again: a signal's handler may have raised before it could do its work.
        """
        if self.crew is not None:
            self.crew.abandon()
            self.crew.sweep()

    def _start(self, workers: int) -> None:
        """Start a crew, of fewer workers if so many cannot be had."""
        # A start that fails half way may have begun items; they may not always run again.
        first = self._first_tasks if self.policy.retries else None
        while True:
            self.workers = max(1, workers)
            self._trial.begin(self.workers)
            self.feed.mark()
            try:
                self.crew = self.launcher.start(workers, first)
            except OSError:
                if workers <= 1:
                    raise
                self._recall()
                workers = max(1, workers // 2)
            else:
                self.workers = self.crew.workers
                if not self.crew.has_first:
                    self._recall()
                return

    def _first_tasks(self, inherited: bool) -> Iterator[Task]:
        """Yield tasks for workers that are about to be started."""
        window, ahead = self._window(), 0.0
        plenty = self.policy.ahead_seconds * self.workers
        begun = time.monotonic()
        while len(self.ledger.out) < window or (window > self.workers and ahead < plenty):
            chunk = self._next_chunk(inherited=inherited)
            if chunk is None:
                return
            ahead += chunk.piece.size * self.course.item_seconds
            self._trial.hand_out()
            yield self._task(chunk)
            if time.monotonic() - begun > WAKE_SECONDS:
                return

    def _hand_out(self) -> None:
        """Submit chunks until the window is full."""
        assert self.crew is not None
        begun = time.monotonic()
        while len(self.ledger.out) < self._window():
            chunk = self._next_chunk(inherited=self.crew.inherited)
            if chunk is None:
                return
            self._trial.hand_out()
            sent = self.crew.submit(self._task(chunk))
            self.course.sent(sent, chunk.piece.size)
            if time.monotonic() - begun > WAKE_SECONDS:
                return  # the input is slow: there may be results meanwhile, or time may be up

    def _task(self, chunk: Chunk) -> Task:
        track = chunk.losses > 0 or self.policy.task_timeout is not None
        piece = chunk.piece
        return Task(chunk.number, piece.start, piece.size, piece.columns, track)

    def _window(self) -> int:
        """Return how many chunks may be out: one running and one waiting for each worker.

        With a limit on items none may wait: its clock must start when it does. While nothing is
        known of the items none does either; and while the number of workers is still to be thought
        over, each of them gets one chunk, and the next when all are back.
        """
        if self._holding or (self.ledger.has_failed and not self.ledger.has_retries):
            return 0
        if not self._trial.over:
            return len(self.ledger.out) + self._trial.room
        if self.policy.task_timeout is not None or self.course.item_seconds <= 0:
            return self.workers
        return 2 * self.workers

    def _next_chunk(self, *, inherited: bool) -> Chunk | None:
        """Enter the next chunk as out, None when there is none or no room for it."""
        chunk = self.ledger.reissue()
        if chunk is not None or self.ledger.is_cut or self.monitor.retreated:
            return chunk
        return self._fresh_chunk(inherited=inherited)

    def _fresh_chunk(self, *, inherited: bool) -> Chunk | None:
        """Cut the next chunk off the feed, None when there is none or no room for it."""
        size = self._room(self._wanted())
        if size < 1:
            return None
        piece = self.feed.take(size, inherited=inherited)
        return None if piece is None else self.ledger.issue(piece)

    def _wanted(self) -> int:
        """Return the size of the next chunk as the policy has it."""
        size = self.policy.size(
            self.feed.likely_remaining,
            done=self.feed.position,
            workers=self.workers,
            item_seconds=self.course.item_seconds + self.course.pack_seconds,
            # Chunks are kept small for the sake of what is larger, items or results.
            result_bytes=max(self.course.result_bytes, self.course.arg_bytes),
        )
        if self._trial.over or self.course.item_seconds <= 0:
            return size
        # Just enough for a worker to show what an item costs.
        return min(size, ceil(self._trial.seconds / self.course.item_seconds))

    def _room(self, size: int) -> int:
        """Return how much of a wanted chunk fits between the input and the consumer."""
        policy, ledger = self.policy, self.ledger
        if policy.bounded and len(ledger.out) + ledger.unread >= 4 * self.workers:
            return 0
        if policy.buffersize is None:
            return size
        fair = max(1, policy.buffersize // (2 * self.workers))
        return min(size, fair, policy.buffersize - ledger.pending)

    def _help(self) -> bool:
        """Compute a few items here while workers start; return whether there was any to compute.

        A worker that takes half a second to start must not make the call slower than serial.
        """
        starting = self.policy.help and not self._all_ready()
        if not starting and not self.monitor.retreated:
            return False
        size = int(HELP_SECONDS / self.course.item_seconds) if self.course.item_seconds > 0 else 1
        # No more than so far: should they turn out dear, that much was no better shared before.
        size = min(size, max(1, self.course.own.items))
        left = self.feed.likely_remaining
        if left is not None:
            size = min(size, max(1, left // (2 * self.workers)))
        if starting and self.feed.ended:
            return self._help_with_chunk(max(1, size))
        size = self._room(max(1, size))
        if size < 1 or self.ledger.is_cut:
            return False
        start = self.feed.position
        out: list[Any] = []
        failed = None
        begun, watch = time.monotonic(), Stopwatch(size * self.course.item_seconds or None)
        try:
            self.feed.run(size, out)
        except ITEM_ERRORS as error:  # an earlier item may still fail in a worker
            failed = start + len(out), error
        if out:
            self.course.ran(start, begun, watch.block(len(out)))
        self.ledger.ran(start, out, failed)
        self._collect(0.0)
        return bool(out)

    def _help_with_chunk(self, size: int) -> bool:
        """Take back a chunk that no worker has begun, and run some of it here."""
        assert self.crew is not None
        number = self.crew.take_back()
        piece = None if number is None else self.ledger.share(number, size)
        if piece is None:
            return False
        self._run_piece(piece)
        self._collect(0.0)
        return True

    def _run_piece(self, piece: Slice) -> None:
        """Run items here that were handed out before."""
        out: list[Any] = []
        failed = None
        begun, watch = time.monotonic(), Stopwatch(piece.size * self.course.item_seconds or None)
        try:
            out.extend(call_all(self.feed.func, self.feed.items(piece), self.feed.star))
        except ITEM_ERRORS as error:  # the function's own, raised in its turn
            index = piece.start + len(out)
            add_item_note(error, index, self.feed.item(index, piece))
            failed = index, error
        if out:
            self.course.ran(piece.start, begun, watch.block(len(out)))
        self.ledger.settle(piece, out, failed)

    def _all_ready(self) -> bool:
        assert self.crew is not None
        return self.crew.ready >= self.workers

    def _rethink(self) -> None:
        """Go on with the right number of workers once a crew has shown what it gains.

        In a new crew: adding workers to this one would fork beside its handler threads.
        """
        if self._trial.over or self.ledger.out:
            return
        step = self._trial.verdict(self.workers, self.feed.likely_remaining)
        if step is None or step.workers == self.workers or self.ledger.has_failed:
            return
        assert self.crew is not None
        self.crew.close()
        self.crew.sweep()
        self._start(step.workers)

    def _collect(self, timeout: float) -> None:
        assert self.crew is not None
        for number, reply in self.crew.replies(timeout):
            self._take_in(number, reply)

    def _take_in(self, number: int, reply: Reply) -> None:
        """Book what a worker brought back."""
        if number not in self.ledger.out:  # it does not count any more
            return
        if reply.failure is not None and reply.failure.unrun and self.policy.withdraw:
            self.withdrawn = self.withdrawn or worded(unpack(reply.failure))
            return
        piece = self.ledger.returned(number)
        self._futile = 0
        results, failed = self._opened(piece, reply)
        if results:
            self._trial.note(self.course.came(piece.start, reply))
        if failed is None and reply.failure is not None:
            failed = self._failed(piece, reply.failure)
        self.ledger.settle(piece, results, failed)

    def _opened(self, piece: Slice, reply: Reply) -> tuple[list[Any], Failed | None]:
        """Take the results out of a reply; return them, and what failed where that did."""
        try:
            with held_signals():  # what a handler raises is no fault of the results
                return reply.open() if reply.done else [], None
        except Exception as error:  # noqa: BLE001 - a user's __setstate__ may raise anything
            last = piece.start + reply.done - 1
            add_note(
                error, f"raised while the results of items {piece.start} to {last} were loaded"
            )
            return [], (piece.start, error)

    def _failed(self, piece: Slice, failure: Failure) -> Failed:
        """Return the item that a worker's failure belongs to, and the exception."""
        error, index = unpack(failure), failure.item
        if index is not None:
            add_item_note(error, index, self.feed.item(index, piece))
            return index, error
        if isinstance(error, SerializationError):
            error.index = piece.start  # it did not come to that one
        add_note(error, "raised while a worker was set up (initializer, function)")
        return piece.start, error

    def _show_progress(self) -> None:
        """Tell how many more items are finished."""
        finished, self._shown = self.ledger.finished - self._shown, self.ledger.finished
        if self._progress is not None and finished:
            self._progress(finished)

    # Losses and limits ----------------------------------------------------------------------

    def _check_withdrawn(self) -> None:
        """Go on without workers where one of them cannot do what the caller can."""
        if self.withdrawn and not self._alone:
            self._alone = self._trial.over = True
            self._salvage()
            self._recall()
            self._start(0)

    def _check_deaths(self) -> None:
        """Go on in a fresh crew when a worker has died."""
        assert self.crew is not None
        lost = self.crew.lost()
        if lost is None:
            return
        running = self.crew.running().get(lost.pid)
        self._salvage()
        if lost.stuck:
            self._leave_lock()
            return
        self._futile += 1
        if running is not None and running.chunk in self.ledger.out:
            blame = self.ledger.lost(running.chunk, running.item)
            if blame is not None:
                self._give_up_lost(lost, blame)
        elif self._is_hopeless(lost):
            if not self.policy.withdraw or lost.ready:
                raise WorkerLostError(explain_idle(lost), exitcode=lost.exitcode)
            self.withdrawn = explain_idle(lost)
            self._check_withdrawn()
            return
        if lost.memory:
            # Fewer at a time may fit where so many did not.
            self.workers = max(1, self.workers // 2)
        self._restart()

    def _leave_lock(self) -> None:
        """Go on with workers started in another way; these could not but get stuck again."""
        self.stuck += 1
        if self.policy.retries == 0 or self.stuck > MOST_FUTILE:
            raise WorkerLostError(explain_stuck())
        self.launcher.leave_fork()
        self._restart()

    def _is_hopeless(self, lost: Lost) -> bool:
        """Return whether to give up after the death of a worker that held nothing."""
        # It will not start the next time either.
        by_itself = lost.exitcode is not None and lost.exitcode >= 0 and not lost.ready
        futile = self._futile > max(MOST_FUTILE, self.policy.retries)
        return self.policy.retries == 0 or by_itself or futile

    def _give_up_lost(self, lost: Lost, blame: Blame) -> None:
        """Give up on a chunk that cost its last worker, or on the one item of it that did."""
        chunk, item = blame
        self.ledger.give_up(blame, loss_error(lost, chunk.piece, chunk.losses, item, self.feed))

    def _check_time(self) -> None:
        """End the call, or the worker with a late item, when time is up."""
        assert self.crew is not None
        policy, now = self.policy, time.monotonic()
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
        # Ending the crew makes the other running items run again. Where they must not, they are
        # waited for; that cannot take longer than their own limit.
        self._holding = bool(late) and policy.retries == 0
        if late and not (self._holding and len(late) < len(self.ledger.out)):
            self._give_up_on(late)

    def _give_up_on(self, late: dict[int, int]) -> None:
        """End the crew because of late items, {chunk: index}, and go on without those."""
        self._salvage()
        for number, index in late.items():
            chunk = self.ledger.out.get(number)
            if chunk is None:  # it was finished after all
                continue
            error = TaskTimeoutError(
                f"item {index} took longer than task_timeout={self.policy.task_timeout:g} s",
                index=index,
                seconds=self.policy.task_timeout,
            )
            if not self.policy.return_exceptions:
                add_item_note(error, index, self.feed.item(index, chunk.piece))
            self.ledger.leave_out(number, index, error)
        self._holding = False
        self._restart()

    def _salvage(self) -> None:
        """End the crew, keeping every result that was finished."""
        assert self.crew is not None
        for number, reply in self.crew.abandon():
            self._take_in(number, reply)
        self.crew.sweep()

    def _restart(self) -> None:
        """Hand out again what was out, in a new crew."""
        if not self.ledger.out and self.ledger.has_failed:
            return  # the loop ends here
        self.ledger.retry()
        self._start(self.workers)

    def _recall(self) -> None:
        """Have what was out handed out again."""
        self.ledger.recall()
        self._trial.begin(self.workers)
