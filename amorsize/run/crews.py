"""The crew of a run, and the crews that follow it when workers are lost or their number changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .caller import Caller
from .crew import CannotStart, Crew, Starter
from .dealer import Dealer
from .feed import Feed
from .ledger import Ledger
from .monitor import Trial
from .policy import Policy
from .reply import Reply

__all__ = ["Crews"]


class Crews:
    """Starts crews one after the other, and ends them; what was out goes to the next one.

    Args:
        feed: the items.
        policy: how to run them.
        launcher: starts crews.
        ledger: where each item is.
        caller: the calling process as a worker.
        dealer: hands out chunks.
        trial: whether the number of workers is settled.

    Attributes:
        crew: the present crew, None before the first.
        workers: current number of workers, without the caller.
    """

    def __init__(
        self,
        feed: Feed,
        policy: Policy,
        launcher: Starter,
        ledger: Ledger,
        caller: Caller,
        dealer: Dealer,
        trial: Trial,
    ) -> None:
        self.crew: Crew | None = None
        self.workers = policy.workers
        self._feed = feed
        self._policy = policy
        self._launcher = launcher
        self._ledger = ledger
        self._caller = caller
        self._dealer = dealer
        self._trial = trial
        self._ready = False  # whether all workers of the present crew have started

    @property
    def jobs(self) -> int:
        """Number of processes or threads that run items, the caller included if it shares."""
        return self.workers + (self._policy.shares and (self.crew is None or self.crew.claims))

    def start(self, workers: int) -> None:
        """Start a crew; if so many workers cannot be started, try half as many.

        Args:
            workers: number of workers; 0 for the caller alone.
        """
        # A start that fails halfway may already have begun items. Without retries these must not
        # run again.
        first = self._dealer.first_tasks if self._policy.retries else None
        while True:
            self.workers = max(1, workers)
            self._ready = False
            self._trial.begin(self.workers)
            self._feed.mark()
            self._dealer.deal_to(self.workers, self.jobs)
            try:
                self.crew = self._launcher.start(workers, first)
            except CannotStart:
                if workers <= 1:
                    raise
                self.recall()
                workers = max(1, workers // 2)
            else:
                self.workers = self.crew.workers
                self._dealer.deal_to(self.workers, self.jobs)
                if not self.crew.has_first:
                    self.recall()
                return

    def note_size(self) -> None:
        """Note how many workers the crew has now; those of another engine come and go."""
        assert self.crew is not None
        if self.crew.workers != self.workers:
            self.workers = self.crew.workers
            self._dealer.deal_to(self.workers, self.jobs)

    def replace(self, workers: int) -> None:
        """Close the crew, which is idle, and start one with another number of workers."""
        assert self.crew is not None
        self.crew.close()
        self.crew.sweep()
        self.start(workers)

    def all_ready(self) -> bool:
        """Return whether all workers of the crew have started."""
        assert self.crew is not None
        self._ready = self._ready or self.crew.ready >= self.workers
        return self._ready

    def take_back(self) -> None:
        """Take back the chunks that no worker has taken; those that still count wait."""
        for number in self._untaken():
            self._ledger.put_back(number)

    def _untaken(self) -> Iterator[int]:
        """Yield the chunks that no worker has taken, taken back from the caller and the queue."""
        assert self.crew is not None
        self._caller.put_back()
        while (number := self.crew.take_back()) is not None:
            yield number

    def begun(self, unbegun: set[int]) -> set[int]:
        """Return the chunks that workers have begun; take back those that none has taken.

        Args:
            unbegun: chunks that are out, and that no worker will begin; those taken back are added.
                They are still out in the ledger, and recalled with the others.
        """
        unbegun.update(self._untaken())
        return self._ledger.out.keys() - unbegun

    def salvage(self, take_in: Callable[[int, Reply], object]) -> None:
        """End the crew at once, and keep every finished result.

        Args:
            take_in: records a reply that had arrived.
        """
        assert self.crew is not None
        self.take_back()
        for number, reply in self.crew.abandon():
            take_in(number, reply)
        self.crew.sweep()

    def restart(self) -> None:
        """Retry the chunks that were out, in a new crew."""
        ledger = self._ledger
        if ledger.has_failed and not ledger.out and not ledger.has_retries:
            return  # nothing is left to run: the loop ends
        ledger.retry()
        self.start(self.workers)

    def recall(self) -> None:
        """Have the chunks that are out handed out again; this does not count as a retry."""
        self._caller.put_back()
        self._ledger.recall()
        self._trial.begin(self.workers)

    def end(self) -> None:
        """End the remaining workers at once; do nothing after a close.

        It may be called again, since a signal handler may have interrupted the first call.
        """
        if self.crew is not None:
            self.crew.abandon()
            self.crew.sweep()
