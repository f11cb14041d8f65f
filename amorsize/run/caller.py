"""The calling process as a worker: which items it runs itself, and when.

It runs a few items at a time, so that between them the engine sees deaths, limits and results:

- As one of the workers (``Policy.shares``), it takes chunks from their queue.
- While fresh interpreters start, it runs the next items of the input.
- If the workers turn out slower than the caller (``KeepUpMonitor``), it takes over their work.
"""

from __future__ import annotations

import time
from collections import deque

from ..measure.timing import Stopwatch
from ..signals import is_from_handler
from .counted import begin_at
from .course import Course
from .failure import ITEM_ERRORS, add_item_note
from .feed import Feed, call_all
from .ledger import Ledger
from .policy import LIMIT_SHARE, LONGEST_LAZY_SECONDS, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .crew import Crew

__all__ = ["Caller"]

# Length of the blocks of items that the caller runs. Short, because the engine waits meanwhile.
BLOCK_SECONDS = 0.02
# The same while workers start, so that the engine soon sees that they are ready.
HELP_SECONDS = 0.01
# A block has at most this many times the items that the caller has run so far, so that a sudden
# rise in cost loses a bounded amount. A block that is expected to be this short is always allowed.
GROWTH = 4
SHORT_SECONDS = 0.001
# The engine is asked at least this often, even if there is no news: a worker may be stuck.
LONGEST_SECONDS = 0.2
# The rest of the caller's chunk goes back to the queue only if it takes longer than this: about
# what a worker needs to take a chunk and to send its results.
WORTH_SECONDS = 0.0002


class Caller:
    """Runs items in the calling process.

    Args:
        feed: the items.
        policy: how to run them.
        ledger: where each item is.
        course: records what the items take.
    """

    def __init__(self, feed: Feed, policy: Policy, ledger: Ledger, course: Course) -> None:
        self._feed = feed
        self._policy = policy
        self._ledger = ledger
        self._course = course
        self._before = feed.position  # items that ran before the engine began
        self._chunk: int | None = None  # the chunk that the caller has taken from the queue
        self._kept: deque[int] = deque()  # the last chunks, which never were in the queue
        self._dismissed = False  # whether the workers were asked to end

    @property
    def holds(self) -> bool:
        """Whether the caller has taken a chunk from the queue, and not finished it."""
        return self._chunk is not None and self._chunk in self._ledger.out

    def keep(self, number: int) -> None:
        """Keep a chunk for the caller, to be run when it finds no other in the queue."""
        self._kept.append(number)

    def put_back(self) -> bool:
        """Have the caller's chunks handed out again; return whether there were any."""
        numbers, self._chunk = [self._chunk, *self._kept], None
        self._kept.clear()
        self._dismissed = False
        out = [number for number in numbers if number in self._ledger.out]
        for number in out:
            self._ledger.put_back(number)
        return bool(out)

    def share(self, crew: Crew, workers: int, *, last: bool) -> bool:
        """Run items of the workers' queue; return whether any ran or went back to it.

        Args:
            crew: the workers.
            workers: how many they are.
            last: whether no further chunk will be handed out. As the caller begins its last block,
                it then has the workers end, so that their end passes beside that block.
        """
        seconds = self._share_seconds(workers)
        if seconds <= 0 or self._ledger.has_suspects:
            # What it has must not wait: items may have become dearer since it took them.
            return self.put_back()
        self._take(crew)
        size = self._size(seconds)
        # Where the caller runs only short items, a chunk that a worker gives back needs a worker.
        awaited = self._policy.is_awaited
        ends = last and self.holds and not awaited and self._own_items() <= size
        if ends and not crew.has_tasks():
            self._dismissed = crew.dismiss()
        alone = awaited or not self._feed.is_exhausted
        return self._run_own(size, workers, None if alone else crew, last=last)

    def take_over(self) -> bool:
        """Run items in place of the workers; return whether any ran."""
        if self._ledger.has_suspects:
            return False
        size = self._size(BLOCK_SECONDS)
        if not self.holds:
            chunk = self._ledger.reissue()
            self._chunk = None if chunk is None else chunk.number
        return self._run_own(size, 0) or (not self._ledger.is_cut and self._run_next(size))

    def help(self, crew: Crew, workers: int, room: int) -> bool:
        """Run items while workers start; return whether any ran.

        A worker that takes half a second to start must not make the call slower than serial.

        Args:
            crew: the workers.
            workers: how many they are.
            room: most items that may run now.
        """
        size = self._size(HELP_SECONDS)
        left = self._feed.likely_remaining
        if left is not None:
            size = min(size, max(1, left // (2 * workers)))
        if self._feed.is_exhausted:
            self._take(crew)
            return self._run_own(size, workers)
        size = min(size, room)
        return size > 0 and not self._ledger.is_cut and self._run_next(size)

    # Inside ---------------------------------------------------------------------------------

    def _take(self, crew: Crew) -> None:
        """Take the first chunk that still counts from the queue, unless the caller has one."""
        while not self.holds:
            self._chunk = crew.take_back()
            if self._chunk is None:
                if not self._kept:
                    return
                self._chunk = self._kept.popleft()

    def _own_items(self) -> int:
        """Return the number of items in the caller's chunks."""
        out = self._ledger.out
        return sum(out[number].piece.size for number in (self._chunk, *self._kept) if number in out)

    def _share_seconds(self, workers: int) -> float:
        """Return how long the next block may take, s; 0 if the caller must not run any now."""
        policy, ledger, each = self._policy, self._ledger, self._course.item_seconds
        seconds = BLOCK_SECONDS
        if policy.bounded and each > LONGEST_LAZY_SECONDS:
            return 0.0
        if not (self._feed.is_exhausted or ledger.is_cut or self._kept):
            # The workers must find enough in the queue until the caller fills it again.
            others = len(ledger.out) - self.holds
            items = sum(chunk.piece.size for chunk in ledger.out.values())
            ahead = items * max(0, others - workers) / max(1, len(ledger.out)) * each
            seconds = min(seconds, ahead / (2 * workers))
            if seconds < each:
                return 0.0
        if policy.deadline is not None:
            left = LIMIT_SHARE * (policy.deadline - time.monotonic())
            return min(seconds, left) if each < left else 0.0
        return seconds

    def _size(self, seconds: float) -> int:
        """Return how many items the caller may run in this time."""
        each = self._course.item_seconds
        if each <= 0:
            return 1
        allowed = GROWTH * (self._before + self._course.own.items)
        return max(1, min(int(seconds / each), max(allowed, int(SHORT_SECONDS / each))))

    def _run_own(
        self, size: int, workers: int, crew: Crew | None = None, *, last: bool = False
    ) -> bool:
        """Run the next items of the caller's chunk; return whether there were any.

        If workers find nothing in the queue, the rest of the chunk goes back to it.

        Args:
            size: number of items to run before the crew is asked whether there is news.
            workers: number of workers that may want the rest of the chunk; 0 for none.
            crew: the workers; None to run no more than ``size`` items.
            last: whether to return before the last block.
        """
        if self._chunk is None or not self.holds:
            self._chunk = None
            return False
        self._run_chunk(size, crew, last=last)
        if not self.holds:
            self._chunk = None
        elif not self._dismissed and len(self._ledger.out) - len(self._kept) <= workers:
            rest = self._ledger.out[self._chunk].piece.size
            if rest * self._course.item_seconds > WORTH_SECONDS:
                self.put_back()
        return True

    def _run_chunk(self, size: int, crew: Crew | None, *, last: bool) -> None:
        """Run the first items of the caller's chunk, see ``_run_own``."""
        assert self._chunk is not None
        feed, each = self._feed, self._course.item_seconds
        piece = self._ledger.out[self._chunk].piece
        columns = feed.items(piece)
        out: list[Any] = []
        failed = None
        expected = (piece.size if crew is not None else size) * each
        begun, watch = time.monotonic(), Stopwatch(expected or None)
        done, until = 0, begun + LONGEST_SECONDS
        while len(out) == done < piece.size:
            part = tuple(column[done : done + size] for column in columns)
            done = min(done + size, piece.size)
            begin_at(feed.func, piece.start + len(out))
            try:
                out.extend(call_all(feed.func, part, feed.star))
            except ITEM_ERRORS as error:  # the function's error, raised in the order of items
                if is_from_handler(error):  # a time limit; it ends the call at once
                    raise
                index = piece.start + len(out)
                add_item_note(error, *feed.name(index, piece))
                failed = index, error
            if crew is None or (last and piece.size - done <= size):
                break
            if crew.has_news() or time.monotonic() > until:
                break
        if out:
            self._course.ran(piece.start, begun, watch.block(len(out)))
        ended_here = failed is not None or len(out) < done
        ran = self._ledger.share(self._chunk, len(out) + ended_here)
        assert ran is not None
        self._ledger.settle(ran, out, failed)

    def _run_next(self, size: int) -> bool:
        """Run the next items of the feed; return whether there were any."""
        feed = self._feed
        start = feed.position
        out: list[Any] = []
        failed = None
        begun, watch = time.monotonic(), Stopwatch(size * self._course.item_seconds or None)
        try:
            feed.run(size, out)
        except ITEM_ERRORS as error:  # raised later: an earlier item may still fail
            if is_from_handler(error):
                raise
            failed = start + len(out), error
        if out:
            self._course.ran(start, begun, watch.block(len(out)))
        self._ledger.ran(start, out, failed)
        return bool(out)
