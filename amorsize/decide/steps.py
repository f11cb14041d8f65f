"""Adding workers beyond the CPUs in steps, as long as they gain. Nothing here reads a clock.

A waiting function can use many more workers than there are CPUs; a computing one cannot. One may
be mistaken for the other. So where waiting is only claimed, workers are added in steps. In each
step every worker runs one chunk. The item times of a step decide whether the next step follows.
While items wait, the item time stays the same. It grows with the number of workers as soon as they
compete for a limited resource.

*Rejected: comparing results per second.* That rate includes the start of the workers, the dispatch
and the time of the consumer.
"""

from __future__ import annotations

from collections.abc import Callable

from ..tuples import NamedTuple
from .figures import WAITING_SHARE, Profile
from .planner import FIRST_STEP, NEXT_STEP, Plan

__all__ = ["Stage", "Step", "Steps"]

# A crew still waits if an item takes at most this many times what it took before. The step has then
# gained more than two thirds of what it could. A guess.
LONGER = 1.4


class Stage(NamedTuple):
    """What one crew has shown.

    Attributes:
        workers: number of workers.
        items: number of items run.
        seconds: wall time of these items, s.
        cpu_share: CPU time over wall time.
        left: items left, None if unknown.
    """

    workers: int
    items: int
    seconds: float
    cpu_share: float
    left: int | None = None

    @property
    def item_seconds(self) -> float:
        """Mean wall time of an item, s."""
        return max(self.seconds / max(1, self.items), 1e-9)

    @property
    def waits(self) -> bool:
        """Whether the items look like waiting."""
        return self.cpu_share < WAITING_SHARE


class Step(NamedTuple):
    """The next step.

    Attributes:
        workers: number of workers to go on with.
        last: whether this number stays for the rest of the call.
    """

    workers: int
    last: bool


class Steps:
    """What the steps of one call have shown so far.

    Args:
        cpus: usable CPUs; this many workers need no proof.
        item_seconds: time of an item that runs alone, s; 0 if unknown.
        memory_bytes: memory a worker needs for an item, as far as known.

    Attributes:
        shown: number of workers shown to wait as well as one.
        best: the number of workers with the highest throughput.
        over: whether another step would gain nothing.
    """

    def __init__(self, cpus: int, item_seconds: float = 0.0, memory_bytes: int = 0) -> None:
        self.shown = 0
        self.best = cpus
        self.over = False
        self._cpus = cpus
        self._alone = item_seconds
        self._memory = memory_bytes

    @classmethod
    def of_plan(cls, cpus: int, plan: Plan, profile: Profile | None) -> Steps | None:
        """Return the steps for a plan whose number of workers needs proof.

        Args:
            cpus: usable CPUs.
            plan: the plan.
            profile: the profile the plan is based on, None if there is none.

        Returns:
            None if the plan needs no proof.
        """
        if profile is None:
            return cls(cpus)
        if plan.n_jobs <= max(cpus, FIRST_STEP * profile.waiting_workers):
            return None
        return cls(cpus, profile.item_seconds, profile.memory_bytes)

    def book(self, stage: Stage) -> None:
        """Add what a crew has shown."""
        each = stage.item_seconds
        alone = self._alone or each
        if not stage.waits:
            self.shown, self.best, self.over = 0, min(self._cpus, stage.workers), True
        elif stage.workers <= self._cpus:
            self._alone = alone
        elif each <= LONGER * alone:
            self.shown = self.best = stage.workers
        else:
            self.over = True
            # A crew with a higher throughput than the one before stays. ``shown`` is set so that
            # the next call starts with this number of workers.
            if stage.workers / each > self.best / alone:
                self.best, self.shown = stage.workers, max(1, stage.workers // NEXT_STEP)

    def next(self, stage: Stage, left: int, plan: Callable[[Profile], Plan]) -> Step | Plan:
        """Return the last step, or the plan to go on with.

        Args:
            stage: what the last crew has shown.
            left: items left; an assumption if the number is unknown.
            plan: makes the plan for the items left.
        """
        self.book(stage)
        if not left:
            return Step(stage.workers, last=True)
        if self.over and stage.waits:
            return Step(self.best, last=True)
        known = Profile(
            stage.item_seconds,
            cpu_share=stage.cpu_share,
            memory_bytes=self._memory,
            waiting_workers=self.shown,
        )
        found = plan(known)
        stays = left * stage.item_seconds / stage.workers
        if stage.waits and (found.n_jobs <= stage.workers or found.high >= stays):
            return Step(stage.workers, last=True)
        if self.shown:
            reason = (
                f"items took no longer among {stage.workers} workers than before: the next step"
            )
            return found._replace(reason=reason)
        if stage.workers > self._cpus:
            return found._replace(reason=f"items computed in {stage.workers} workers")
        return found
