"""The engine: hands chunks to a crew, collects what comes back, and looks after both.

It is a generator of (start, results) in the order asked for, advanced only as far as its consumer
wants, so that all four forms of ``map`` are a few lines around it. It decides nothing about
workers or sizes: those come in as a Policy. It only keeps the books: which chunks are out, which
must run again, up to which index the results still count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from math import ceil

from ..decide.probe import Stopwatch
from ..errors import AmorsizeError, SerializationError, TaskTimeoutError, WorkerLostError
from ..signals import held_signals
from ..units import counted
from .chunks import Chunk, around, halves
from .course import Course
from .crew import Crew, Lost, Starter, Task
from .failure import ITEM_ERRORS, add_item_note, add_note, unpack
from .feed import Feed, Slice, call_all
from .judge import Judge, Trial
from .losses import explain_idle, explain_stuck, loss_error, worded
from .memory import WorkerMemory
from .policy import Policy
from .results import Results
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
        retried: items that were handed out again after a worker was lost.
        workers: number of workers now.
        withdrawn: why the calling process has taken over for good, "" while it has not.
        stuck: workers that waited for a lock that nothing can release.
        memory: says what they needed.
        judge: says whether the workers keep up, and how often they did not.
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
        self.retried = 0
        self._progress = progress
        self.launcher = launcher
        self.crew: Crew | None = None
        self._number = 0
        self._out: dict[int, Chunk] = {}  # handed to the crew
        self._again: list[tuple[int, int, Chunk]] = []  # to be handed out again, lowest first
        self._results = Results(feed.position, ordered=policy.ordered)
        self._waiting = 0  # items handed out or finished, but not yielded
        self._trial = Trial(policy.rethink)
        self.memory = memory
        self._futile = 0  # crews lost since the last chunk that was finished
        self.judge = Judge()
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
                if self._out:
                    if not self._help():
                        self._collect(self.policy.patience(time.monotonic(), WAKE_SECONDS))
                    self._check_withdrawn()
                    self._check_deaths()
                    self._check_time()
                    self._rethink()
                    if self.policy.retreat and self._trial.over:
                        self.judge.look(
                            time.monotonic(), self.course.tally, ready=self._all_ready()
                        )
                elif self.judge.retreated:
                    helped = self._help()
                    self._check_time()
                    self.judge.resume(time.monotonic())
                idle = not self._out and not helped
                for pair in self._ripe():
                    idle = False
                    yield pair
                if idle and not self._again:
                    break
            self._results.raise_failure(self.feed.error)
            if self._results.end is None:
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
                self._take_back()
                workers = max(1, workers // 2)
            else:
                self.workers = self.crew.workers
                if not self.crew.has_first:
                    self._take_back()
                return

    def _first_tasks(self, inherited: bool) -> Iterator[Task]:
        """Yield tasks for workers that are about to be started."""
        window, ahead = self._window(), 0.0
        plenty = self.policy.ahead_seconds * self.workers
        begun = time.monotonic()
        while len(self._out) < window or (window > self.workers and ahead < plenty):
            chunk = self._next_chunk(inherited=inherited)
            if chunk is None:
                return
            ahead += chunk.piece.size * self.course.item_seconds
            self._out[chunk.number] = chunk
            self._trial.hand_out()
            yield self._task(chunk)
            if time.monotonic() - begun > WAKE_SECONDS:
                return

    def _hand_out(self) -> None:
        """Submit chunks until the window is full."""
        assert self.crew is not None
        begun = time.monotonic()
        while len(self._out) < self._window():
            chunk = self._next_chunk(inherited=self.crew.inherited)
            if chunk is None:
                return
            self._out[chunk.number] = chunk
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
        if self._holding or (self._results.failure is not None and not self._again):
            return 0
        if not self._trial.over:
            return len(self._out) + self._trial.room
        if self.policy.task_timeout is not None or self.course.item_seconds <= 0:
            return self.workers
        return 2 * self.workers

    def _next_chunk(self, *, inherited: bool) -> Chunk | None:
        while self._again:
            chunk = heappop(self._again)[2]
            if self._results.counts(chunk.piece.start):
                return chunk
            self._waiting -= chunk.piece.size
        if self._results.is_cut or self.judge.retreated:
            return None
        return self._fresh_chunk(inherited=inherited)

    def _fresh_chunk(self, *, inherited: bool) -> Chunk | None:
        """Cut the next chunk off the feed, None when there is none or no room for it."""
        size = self._room(self._wanted())
        if size < 1:
            return None
        piece = self.feed.take(size, inherited=inherited)
        if piece is None:
            return None
        self._waiting += piece.size
        self._number += 1
        return Chunk(self._number, piece)

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
        policy = self.policy
        if policy.bounded and len(self._out) + len(self._results) >= 4 * self.workers:
            return 0
        if policy.buffersize is None:
            return size
        fair = max(1, policy.buffersize // (2 * self.workers))
        return min(size, fair, policy.buffersize - self._waiting)

    def _help(self) -> bool:
        """Compute a few items here while workers start; return whether there was any to compute.

        A worker that takes half a second to start must not make the call slower than serial.
        """
        starting = self.policy.help and not self._all_ready()
        if not starting and not self.judge.retreated:
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
        if size < 1 or self._results.is_cut:
            return False
        start = self.feed.position
        out: list[Any] = []
        begun, watch = time.monotonic(), Stopwatch(size * self.course.item_seconds or None)
        try:
            done = self.feed.run(size, out)
        except ITEM_ERRORS as error:  # an earlier item may still fail in a worker
            self._fail(start + len(out), error)
            done = len(out)
        if done:
            self._waiting += done
            self._settle(start, out)
            self.course.ran(start, begun, watch.block(done))
        self._collect(0.0)
        return done > 0

    def _help_with_chunk(self, size: int) -> bool:
        """Take back a chunk that no worker has begun, and run some of it here."""
        assert self.crew is not None
        number = self.crew.take_back()
        chunk = None if number is None else self._out.pop(number, None)
        if chunk is None:
            return False
        piece, rest = halves(chunk.piece, chunk.piece.start + min(size, chunk.piece.size))
        if rest.size:
            self._number += 1
            left = Chunk(self._number, rest, chunk.losses)
            heappush(self._again, (rest.start, left.number, left))
        self._run_piece(piece)
        self._collect(0.0)
        return True

    def _run_piece(self, piece: Slice) -> None:
        """Run items here that were handed out before."""
        out: list[Any] = []
        begun, watch = time.monotonic(), Stopwatch(piece.size * self.course.item_seconds or None)
        try:
            out.extend(call_all(self.feed.func, self.feed.items(piece), self.feed.star))
        except ITEM_ERRORS as error:  # the function's own, raised in its turn
            index = piece.start + len(out)
            add_item_note(error, index, self.feed.item(index, piece))
            self._fail(index, error)
        else:
            if len(out) < piece.size:
                self._cut(piece.start + len(out))
        self._waiting -= piece.size - len(out)
        if out:
            self._settle(piece.start, out)
            self.course.ran(piece.start, begun, watch.block(len(out)))

    def _all_ready(self) -> bool:
        assert self.crew is not None
        return self.crew.ready >= self.workers

    def _rethink(self) -> None:
        """Go on with the right number of workers once a crew has shown what it gains.

        In a new crew: adding workers to this one would fork beside its handler threads.
        """
        if self._trial.over or self._out:
            return
        step = self._trial.verdict(self.workers, self.feed.likely_remaining)
        if step is None or step.workers == self.workers or self._results.failure is not None:
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
        chunk = self._out.pop(number, None)
        if chunk is None:  # it does not count any more
            return
        piece = chunk.piece
        if reply.failure is not None and reply.failure.unrun and self.policy.withdraw:
            self._out[number] = chunk
            self.withdrawn = self.withdrawn or worded(unpack(reply.failure))
            return
        self._futile = 0
        self._waiting -= piece.size - reply.done
        if reply.done and self._open(piece, reply):
            self._trial.note(self.course.came(piece.start, reply))
        if reply.failure is not None:
            error = unpack(reply.failure)
            index = reply.failure.item
            if index is None:
                if isinstance(error, SerializationError):
                    error.index = piece.start  # it did not come to that one
                add_note(error, "raised while a worker was set up (initializer, function)")
                self._fail(piece.start, error)
            else:
                add_item_note(error, index, self.feed.item(index, piece))
                self._fail(index, error)
        elif reply.done < piece.size:  # func raised StopIteration: list(map()) ends there, too
            self._cut(piece.start + reply.done)

    def _open(self, piece: Slice, reply: Reply) -> bool:
        """Take the results out of a reply; return whether that worked."""
        try:
            with held_signals():  # what a handler raises is no fault of the results
                results = reply.open()
        except Exception as error:  # noqa: BLE001 - a user's __setstate__ may raise anything
            last = piece.start + reply.done - 1
            add_note(
                error, f"raised while the results of items {piece.start} to {last} were loaded"
            )
            self._fail(piece.start, error)
            return False
        self._settle(piece.start, results)
        return True

    def _settle(self, start: int, results: list[Any]) -> None:
        self._results.settle(start, results)
        if self._progress is not None:
            self._progress(len(results))

    def _ripe(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield the finished chunks whose turn it is."""
        for start, results, came in self._results.ripe():
            self._waiting -= came
            if results:
                yield start, results

    # Losses and limits ----------------------------------------------------------------------

    def _check_withdrawn(self) -> None:
        """Go on without workers where one of them cannot do what the caller can."""
        if self.withdrawn and not self._alone:
            self._alone = self._trial.over = True
            self._salvage()
            self._take_back()
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
        held = None if running is None else self._out.get(running.chunk)
        self._futile += 1
        if held is not None:
            held.losses += 1
            if held.losses > self.policy.retries:
                item = running.item if running is not None else None
                self._give_up_lost(lost, held, item)
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

    def _give_up_lost(self, lost: Lost, held: Chunk, item: int | None) -> None:
        """Give up on a chunk that cost its last worker, or on the one item of it that did."""
        if item is None and held.piece.size > 1 and self.policy.retries:
            self._split(held)
            return
        error = loss_error(lost, held.piece, held.losses, item, self.feed)
        known = item is not None or held.piece.size == 1
        if self.policy.return_exceptions and known and self.policy.retries:
            self._leave_out(held, error.index if error.index is not None else 0, error)
            return
        start = held.piece.start
        if self.policy.retries == 0:
            # The others were started, too, and may not run twice: nothing of them counts.
            start = min(chunk.piece.start for chunk in self._out.values())
        # Items of the chunk before the guilty one are lost with it: nothing of it counts.
        self._fail(start, error)

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
            if running.chunk in self._out
            and running.item is not None
            and now - running.since > policy.task_timeout
        }
        # Ending the crew makes the other running items run again. Where they must not, they are
        # waited for; that cannot take longer than their own limit.
        self._holding = bool(late) and policy.retries == 0
        if late and not (self._holding and len(late) < len(self._out)):
            self._give_up_on(late)

    def _give_up_on(self, late: dict[int, int]) -> None:
        """End the crew because of late items, {chunk: index}, and go on without those."""
        self._salvage()
        for number, index in late.items():
            chunk = self._out.get(number)
            if chunk is None:  # it was finished after all
                continue
            error = TaskTimeoutError(
                f"item {index} took longer than task_timeout={self.policy.task_timeout:g} s",
                index=index,
                seconds=self.policy.task_timeout,
            )
            self._leave_out(chunk, index, error)
        self._holding = False
        self._restart()

    def _leave_out(self, chunk: Chunk, index: int, error: AmorsizeError) -> None:
        """Replace a chunk by what is before and after one of its items, which is given up."""
        del self._out[chunk.number]
        before, after = around(chunk.piece, index)
        for piece in (before, after):
            if piece.size:
                self._number += 1
                self._out[self._number] = Chunk(self._number, piece, chunk.losses)
        if self.policy.return_exceptions:
            self._settle(index, [error])
        else:
            add_item_note(error, index, self.feed.item(index, chunk.piece))
            self._waiting -= 1
            self._fail(index, error)

    def _split(self, chunk: Chunk) -> None:
        """Have the halves of a chunk run apart, to find the item whose data kills workers."""
        del self._out[chunk.number]
        middle = chunk.piece.start + chunk.piece.size // 2
        for piece in halves(chunk.piece, middle):
            self._number += 1
            self._out[self._number] = Chunk(self._number, piece, chunk.losses - 1)

    def _salvage(self) -> None:
        """End the crew, keeping every result that was finished."""
        assert self.crew is not None
        for number, reply in self.crew.abandon():
            self._take_in(number, reply)
        self.crew.sweep()

    def _restart(self) -> None:
        """Hand out again what was out, in a new crew."""
        if not self._out and self._results.failure is not None:
            return  # the loop ends here
        self.retried += sum(chunk.piece.size for chunk in self._out.values())
        self._take_back()
        self._start(self.workers)

    def _take_back(self) -> None:
        """Have what was out handed out again."""
        for chunk in self._out.values():
            heappush(self._again, (chunk.piece.start, chunk.number, chunk))
        self._out = {}
        self._trial.begin(self.workers)

    # Ends -----------------------------------------------------------------------------------

    def _fail(self, index: int, error: BaseException) -> None:
        """Remember a failure; the earliest index wins, so later chunks no longer count."""
        if self._results.fail(index, error):
            self._forget_later()

    def _cut(self, index: int) -> None:
        """Remember that the results end before ``index``."""
        if self._results.cut(index):
            self._forget_later()

    def _forget_later(self) -> None:
        """Stop waiting for chunks that no longer count; their workers end with the crew."""
        self._out = {n: c for n, c in self._out.items() if self._results.counts(c.piece.start)}
