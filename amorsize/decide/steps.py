"""How many workers beyond the CPUs have shown their gain. Books without a clock.

A function that waits can have many more workers than there are CPUs, one that computes cannot, and
one may be taken for the other. Where waiting is only claimed, workers are added in steps. In each
step every worker runs one chunk; what its items took is booked here, and says whether the next step
may follow. What is compared is the time of an item: it stays what it was while items wait, and
grows with the workers as soon as they need something that there is only so much of.

*Rejected: comparing results per second.* It counts the start of the workers, the dispatch, and how
long the consumer took.
"""

from __future__ import annotations

from collections.abc import Callable

from ..tuples import NamedTuple
from .model import WAITING_SHARE, Profile
from .planner import FIRST_STEP, NEXT_STEP, Plan

__all__ = ["Stage", "Step", "Steps"]

# In a crew that waits, an item takes no longer than so many times what it took before: less than
# that, and the step has gained more than two thirds of what it could. Pulled out of the air.
LONGER = 1.4


class Stage(NamedTuple):
    """What one crew has shown.

    Attributes:
        workers: how many it had.
        items: how many it ran.
        seconds: wall time of those, s.
        cpu_share: CPU time over wall time.
        left: items that are left, None where that is not known.
    """

    workers: int
    items: int
    seconds: float
    cpu_share: float
    left: int | None = None

    @property
    def item_seconds(self) -> float:
        """Wall time of an item, s."""
        return max(self.seconds / max(1, self.items), 1e-9)

    @property
    def waits(self) -> bool:
        """Whether its items look as if they waited."""
        return self.cpu_share < WAITING_SHARE


class Step(NamedTuple):
    """What follows.

    Attributes:
        workers: to go on with.
        last: whether that is the number for the rest of the call.
    """

    workers: int
    last: bool


class Steps:
    """Books what each step has shown.

    Args:
        cpus: usable CPUs: so many workers need no proof.
        item_seconds: what an item takes alone, 0 where that is not known.
        memory_bytes: what a worker needs for an item, as far as known.

    Attributes:
        shown: so many workers wait as well as one.
        best: the number of workers that got most done.
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
        """Return the books for a plan whose number of workers must be shown to be right.

        Args:
            cpus: usable CPUs.
            plan: what is to be done.
            profile: what it rests on, None for nothing.

        Returns:
            None where the plan is believed.
        """
        if profile is None:
            return cls(cpus)
        if plan.n_jobs <= max(cpus, FIRST_STEP * profile.waiting_workers):
            return None
        return cls(cpus, profile.item_seconds, profile.memory_bytes)

    def book(self, stage: Stage) -> None:
        """Take in what a crew has shown."""
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
            # If it did more than the crew before it would, it stays; the next call begins there.
            if stage.workers / each > self.best / alone:
                self.best, self.shown = stage.workers, max(1, stage.workers // NEXT_STEP)

    def next(self, stage: Stage, left: int, plan: Callable[[Profile], Plan]) -> Step | Plan:
        """Return the step that ends the steps, or the plan to go on by.

        Args:
            stage: what the last crew has shown.
            left: items that are left, as far as known.
            plan: makes the plan for those.
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
