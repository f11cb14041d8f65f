"""Dealing: which items go to workers next, in chunks of which size, and how many at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from math import ceil

from .chunks import Chunk
from .course import Course
from .crew import Crew, Task
from .feed import Feed
from .ledger import Ledger
from .monitor import KeepUpMonitor, Trial
from .policy import Policy

__all__ = ["Dealer"]

# Most chunks in the queue that workers take inherited items from. The system holds some 250.
MOST_QUEUED = 200
# Most of them that are there before the workers start.
FIRST_QUEUED = 20
# The chunks in the queue are cut anew if items take this many times what they were cut for.
DEARER = 2.0
# A worker gives back the rest of a chunk that takes this many times what it was cut for, and
# OVERRUN_SECONDS more.
MOST_OVERRUN = 2.0
OVERRUN_SECONDS = 0.02
# Most items that are handed out before any has shown what it takes; a cluster may have thousands of
# workers.
MOST_PROBED = 64
# Dealing stops after this time, s, even if there is room for more chunks: the input may be slow.
DEAL_SECONDS = 0.02
# The caller keeps the last chunks of this time for itself, s: from its last result, a forked worker
# takes as long until the system has released its memory (1.5 to 2.5 ms, November 2026, two-core
# machine).
KEPT_SECONDS = 0.0025


class Dealer:
    """Cuts chunks off the feed, and hands them out together with those that wait.

    Args:
        feed: the items.
        policy: how to run them.
        ledger: where each item is.
        course: what items take.
        trial: whether the number of workers is settled.
        monitor: whether the caller has taken over from the workers.
        keep: keeps a chunk, by its number, for the caller.
        prompt: whether workers send results at once.

    Attributes:
        holding: whether to hand out nothing for now.
    """

    def __init__(
        self,
        feed: Feed,
        policy: Policy,
        ledger: Ledger,
        course: Course,
        trial: Trial,
        monitor: KeepUpMonitor,
        *,
        keep: Callable[[int], object],
        prompt: bool,
    ) -> None:
        self.holding = False
        self._feed = feed
        self._policy = policy
        self._ledger = ledger
        self._course = course
        self._trial = trial
        self._monitor = monitor
        self._keep = keep
        self._prompt = prompt
        self._workers = self._jobs = 1
        self._cut_for = 0.0  # the time of an item that the chunks in the queue were cut for, s
        self._forgotten = 0  # number of forgotten chunks that were taken back from the queue

    @property
    def has_dealt_all(self) -> bool:
        """Whether no further chunk will be handed out, unless a worker is lost."""
        return self._feed.is_exhausted and not self._ledger.has_retries and not self._ledger.is_cut

    @property
    def awaits_input(self) -> bool:
        """Whether chunks could be handed out, but no item has arrived."""
        arrivals, ledger = self._feed.arrivals, self._ledger
        return arrivals is not None and arrivals.awaits and not (ledger.has_failed or ledger.is_cut)

    def await_input(self, seconds: float) -> None:
        """Wait up to ``seconds`` until items may have arrived."""
        if self._feed.arrivals is not None:
            self._feed.arrivals.wait(seconds)

    def deal_to(self, workers: int, jobs: int) -> None:
        """Deal to a crew from now on.

        Args:
            workers: number of workers.
            jobs: the same, and one more if the caller shares.
        """
        self._workers, self._jobs = workers, jobs

    def first_tasks(self, inherited: bool) -> Iterator[Task]:
        """Yield the tasks that a new crew begins with; the others follow while it starts."""
        # Many if tasks only name items: after a fork, each page that is written to is copied.
        window, ahead = self._window(claimed=inherited), 0.0
        window = min(window, max(FIRST_QUEUED, 2 * self._jobs))
        plenty = self._policy.ahead_seconds * self._workers
        begun = time.monotonic()
        while len(self._ledger.out) < window or (window > self._workers and ahead < plenty):
            chunk = self._next_chunk(inherited=inherited)
            if chunk is None:
                return
            ahead += chunk.piece.size * self._course.item_seconds
            self._trial.hand_out()
            if inherited and self._is_for_caller(chunk):
                self._keep(chunk.number)
            else:
                yield self._task(chunk, inherited=inherited)
            if time.monotonic() - begun > DEAL_SECONDS:
                return

    def hand_out(self, crew: Crew) -> None:
        """Submit chunks until the window is full."""
        begun, inherited = time.monotonic(), crew.inherited
        claimed = inherited and crew.claims
        while len(self._ledger.out) < self._window(claimed=claimed):
            chunk = self._next_chunk(inherited=inherited)
            if chunk is None:
                return
            self._trial.hand_out()
            if claimed and self._is_for_caller(chunk):
                self._keep(chunk.number)
            else:
                sent = crew.submit(self._task(chunk, inherited=inherited))
                self._course.sent(sent, chunk.piece.size)
            if time.monotonic() - begun > DEAL_SECONDS:
                return  # the input is slow: collect results and check time limits meanwhile

    def note_change(self, crew: Crew) -> bool:
        """Note what has changed since chunks were cut; return whether to take back those queued.

        That is so if they are too long for what items take by now, or some no longer count.
        """
        each, forgotten = self._course.item_seconds, self._ledger.forgotten
        dearer = crew.inherited and crew.claims and each > DEARER * self._cut_for
        must = (dearer and self._cut_for > 0) or forgotten != self._forgotten
        self._forgotten = forgotten
        if dearer:
            self._cut_for = each
        return must

    def _is_for_caller(self, chunk: Chunk) -> bool:
        """Return whether the caller keeps a chunk: it is one of the last, and short.

        Then the workers end beside the caller's last items, and not after them. The caller must be
        sure to run it: it runs no item while a chunk that has ended a worker is out, nor close to
        a time limit, nor one that a consumer would wait for.
        """
        policy, ledger = self._policy, self._ledger
        if self._jobs == self._workers or not self._feed.sliceable or ledger.has_suspects:
            return False
        if policy.is_awaited or not policy.flexible:
            return False
        left = chunk.piece.size + ledger.waiting + (self._feed.remaining or 0)
        return 0 < left * self._course.item_seconds <= KEPT_SECONDS

    def _task(self, chunk: Chunk, *, inherited: bool) -> Task:
        """Return the task for a chunk; one from a crew that inherited the input lacks its items."""
        track = chunk.losses > 0 or self._policy.task_timeout is not None
        piece = chunk.piece
        columns = piece.columns if inherited else self._feed.items(piece)
        seconds = 0.0
        if piece.size > 1 and not track and self._policy.flexible:
            seconds = MOST_OVERRUN * piece.size * self._course.item_seconds + OVERRUN_SECONDS
        return Task(chunk.number, piece.start, piece.size, columns, track, self._prompt, seconds)

    def _window(self, *, claimed: bool = False) -> int:
        """Return how many chunks may be out.

        Two for each worker, of which one runs and one waits; many, if workers hold the items
        already. With ``task_timeout`` no chunk may wait: an item's clock must start when the item
        does. No chunk waits either while the item time is unknown. During a trial each worker gets
        one chunk, and the next one when all chunks are back.

        Args:
            claimed: whether tasks only name items that the workers of a queue hold.
        """
        if self.holding or (self._ledger.has_failed and not self._ledger.has_retries):
            return 0
        if not self._trial.over:
            return len(self._ledger.out) + self._trial.room
        if self._policy.task_timeout is not None:
            return self._workers
        if self._course.item_seconds <= 0:
            return min(self._workers, MOST_PROBED)
        if claimed and not self._policy.bounded and self._policy.buffersize is None:
            return max(MOST_QUEUED, 2 * self._jobs)
        return 2 * self._jobs

    def _next_chunk(self, *, inherited: bool) -> Chunk | None:
        """Return the next chunk, entered as out; None when there is none or no room for it."""
        if self._monitor.retreated and not self._ledger.has_suspects:
            return None
        if self._ledger.has_retries:
            return self._ledger.reissue(self._wanted() if inherited else None)
        if self._ledger.is_cut or self._monitor.retreated:
            return None
        return self._fresh_chunk(inherited=inherited)

    def _fresh_chunk(self, *, inherited: bool) -> Chunk | None:
        """Take a new chunk from the feed; None when there is none or no room for it."""
        size = self.room(self._wanted())
        if size < 1:
            return None
        piece = self._feed.take(size, inherited=inherited)
        return None if piece is None else self._ledger.issue(piece)

    def _wanted(self) -> int:
        """Return the chunk size that the policy asks for."""
        left = self._feed.likely_remaining
        size = self._policy.size(
            None if left is None else max(1, left + self._ledger.waiting),
            done=self._feed.position,
            workers=self._jobs,
            item_seconds=self._course.item_seconds + self._course.pack_seconds,
            # The larger of the two, items or results, limits the chunk.
            result_bytes=max(self._course.result_bytes, self._course.arg_bytes),
        )
        if self._trial.over or self._course.item_seconds <= 0:
            return size
        # In a trial a chunk is just long enough to measure an item.
        return min(size, ceil(self._trial.seconds / self._course.item_seconds))

    def room(self, size: int) -> int:
        """Return ``size``, reduced to what the limits on unconsumed items and results allow."""
        policy, ledger = self._policy, self._ledger
        if policy.bounded and len(ledger.out) + ledger.unread >= 4 * self._jobs:
            return 0
        if policy.buffersize is None:
            return size
        fair = max(1, policy.buffersize // (2 * self._jobs))
        return min(size, fair, policy.buffersize - ledger.pending)
