"""The decision of one call: whether the items left go to workers, and how.

It brings together what the first items have shown (``Evidence``), what is known of the function and
the machine (``Adviser``), and what the input and the options allow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from ..errors import SerializationError
from ..identity.fingerprint import walk_seconds
from ..nesting import in_worker_thread, inside_worker
from ..options import Options
from ..run.failure import NO_ITEM
from ..run.feed import Feed
from ..run.pickles import is_smaller
from ..signals import held_signals
from .adviser import Adviser, assumed_items, count_workers, inherits
from .elsewhere import adviser_of, better_elsewhere
from .evidence import Evidence
from .policies import may_share
from .recording import LOOK_UP_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..decide.figures import Profile
    from ..decide.planner import Plan
    from ..decide.steps import Stage, Step, Steps

__all__ = ["Decision"]

# Records in memory are looked up (20 us) after RECALL_SECONDS of work, if WORTH_RECALLING_SECONDS
# of work is left. By then even the timing of an item of 30 ns is right.
RECALL_SECONDS = 0.00005
WORTH_RECALLING_SECONDS = 0.001
# A fingerprint may cost up to this share of the work, done and to come. A function that uses
# mutable values is walked again each time, which takes between 15 us and 6 ms.
WALK_SHARE = 0.02
# Less work than this is over in the serial loop before workers could start.
WORTH_SECONDS = 0.0025
# If function and item are larger than this together, workers must inherit them, whatever a fork
# costs.
LIGHT_BYTES = 100_000
# Workers are considered again after this many times the work done at the last decision.
LOOK_AGAIN = 1.3


class Decision:
    """What one call decides, first on no more than its options, and again as its items run.

    Args:
        func: the function to call.
        shipped: the function to send to workers that cannot inherit ``func``.
        feed: the items.
        options: checked options.
        begun: when the call began, by ``time.perf_counter``.

    Attributes:
        jobs: workers asked for, None to decide.
        total: number of items of the call, None when unknown.
        evidence: what the items that ran in the calling process have shown.
        adviser: the adviser, None while none was needed.
        plan: the plan for the items that go to workers, None while there is none.
        serial_plan: the last plan that said to go on in the calling process, None without one.
        reason: why the call runs as it does, in words.
        decided: when the last decision was made, s after the start.
        forecast: forecast duration of the whole call, s; None without a forecast.
        settled: whether, by the record, the call is best serial.
        alone: whether the items run in the calling process in any case.
        apart: whether even the first items are to run in workers, wherever that is possible.
        gave_up: whether workers were wanted, but the items run in the calling process.
        steps: what workers beyond the CPUs have shown, None where they are not added in steps.
        warnings: what the caller should know.

    Raises:
        ValueError: the environment variable ``AMORSIZE_N_JOBS`` is not a number of workers.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        shipped: Callable[..., Any],
        feed: Feed,
        options: Options,
        begun: float,
    ) -> None:
        self.jobs = count_workers(options.n_jobs)
        self.total = feed.hint
        self.evidence = Evidence()
        self.adviser: Adviser | None = None
        self.plan: Plan | None = None
        self.serial_plan: Plan | None = None
        self.reason = "it was over before anything else could have been quicker"
        self.decided = 0.0
        self.forecast: float | None = None
        self.settled = False
        self.alone = options.backend == "serial" or (self.jobs == 1 and not options.is_remote)
        self.apart = False
        self.gave_up = False
        self.steps: Steps | None = None
        self.warnings: list[str] = []
        self.begun = begun
        self._func = func
        self._shipped = shipped
        self._feed = feed
        self._options = options
        self._looked_up = False  # whether the look-up is done
        self._confined = ""  # why results or items cannot leave this process
        self._next_look = LOOK_UP_SECONDS  # when to consider workers next, in seconds of work here

    @property
    def elapsed(self) -> float:
        """Time since the call began, s."""
        return time.perf_counter() - self.begun

    def give_up(self, reason: str) -> None:
        """Note why the items run here although workers were wanted."""
        self.alone = self.gave_up = True
        self.reason = reason
        self.warnings.append(f"the items run in the calling process: {reason}")

    def let_go(self) -> None:
        """Let go of the function and the items, since the call is over."""
        del self._func, self._shipped, self._feed, self._options
        if self.adviser is not None:
            self.adviser.let_go()

    # Before the first item ------------------------------------------------------------------

    def at_once(self) -> Plan | None:
        """Return a plan if all items must run in workers, else None."""
        options, feed = self._options, self._feed
        wanted = self.apart or options.workers_only(self.jobs)
        find = in_worker_thread if options.is_remote else inside_worker
        if hindrance := find() if wanted else "":  # an engine may wait for who waits for it
            self.give_up(hindrance)
        if hindrance or not wanted:
            if options.initializer is not None:
                options.initializer(*options.initargs)
            if self.alone and not self.warnings:
                self.reason = "one job was asked for"
            return None
        adviser = self.advised(at_once=True)
        if adviser.cluster is not None:
            return self._plan_remote(adviser)
        if self.apart:
            adviser.spare(partial(_is_light, self._shipped, feed))
        profile = adviser.recall.profile
        left = feed.likely_remaining or max(2, self.jobs or 2)
        # Without a record, one worker starts; its timings decide on more workers.
        jobs = 1 if profile is None and self.jobs is None else None
        plan = adviser.plan(profile, left, sliceable=feed.sliceable, must_run=True, jobs=jobs)
        self._commit(plan, known=profile is not None)
        return plan

    def _plan_remote(self, adviser: Adviser) -> Plan:
        """Return the plan to run all items on the engine that was named."""
        left, known = _items_left(self._feed, adviser, self.total)
        plan = adviser.plan_remote(left, "it was asked for")
        self._commit(plan, known=known and adviser.recall.hit)
        return plan

    # Beside the first items -----------------------------------------------------------------

    def is_due(self, worked: float) -> bool:
        """Return whether to consider workers now.

        Args:
            worked: time of the items that ran here, s.
        """
        if self.alone or worked < self._next_look:
            return False
        self._next_look = LOOK_AGAIN * worked
        return True

    def recalls(self) -> bool:
        """Return whether a record is in memory; look once, and only if it could matter."""
        left, probe = self._feed.remaining, self.evidence.probe
        if self.alone or self.adviser is not None or left is None:
            return False
        if probe.seconds < RECALL_SECONDS or probe.items < 2:
            return False
        if left * probe.mean < WORTH_RECALLING_SECONDS or not self.pays_to_walk(probe.seconds):
            return False
        adviser = self.make_adviser()
        adviser.recall.look_up(only_memory=True)
        self._looked_up = adviser.recall.hit
        if adviser.recall.hit:
            self._next_look = LOOK_AGAIN * probe.seconds
        return adviser.recall.hit

    def consider(self, out: list[Any], *, lazy: bool) -> Plan | None:
        """Return a plan for workers if they pay, as far as known by now, else None.

        Args:
            out: results so far.
            lazy: whether results are consumed one by one.
        """
        adviser, evidence = self.advised(), self.evidence
        probe = evidence.probe
        evidence.measure_growth()  # measured now: later it would include results
        reason = self._confined or evidence.confines or inside_worker()
        remembered = adviser.recall.confirm(probe.mean, first=not probe.rest.items)
        if remembered is None and not evidence.suffices:
            return None
        if evidence.in_doubt(remembered):
            self._next_look = 0.0  # after one more block
            return None
        profile = evidence.profile(remembered)
        left, known = _items_left(self._feed, adviser, self.total)
        if not reason and left * profile.item_seconds < WORTH_SECONDS:
            reason = "what was left would have been over before workers could start"
        # If items need not be sent, a recorded profile has all that a serial plan needs.
        recorded = remembered is not None and self._inherits
        if not (reason or recorded or evidence.travel):
            reason = self._measure_travel(out, remembered)
            profile = evidence.profile(remembered)
        if not reason:
            plan = self._planned(profile, left, lazy=lazy)
            if self._options.backend == "auto":
                adviser, plan = better_elsewhere(adviser, plan, profile, left)
                self.adviser = adviser
            if plan.executor not in ("serial", "remote") and evidence.travel is None:
                reason = self._measure_travel(out, remembered)
                today = evidence.profile(remembered)
                if not reason and today != profile:
                    plan = self._planned(today, left, lazy=lazy)
            if not reason and plan.executor != "serial":
                adviser.adopt(plan)
                self._commit(plan, known=known)
                return plan
            reason = reason or plan.reason
            if self.forecast is None and plan.executor == "serial":
                self.serial_plan = plan
        whole = probe.seconds + left * profile.item_seconds
        self._stay(reason, left * profile.item_seconds, known=known)
        if remembered is not None and self._feed.likely_remaining is not None:
            # Another decision would be the same, unless the call takes longer than recorded.
            self._next_look = max(self._next_look, LOOK_AGAIN * whole)
            self.settled = True
        return None

    def _planned(self, profile: Profile, left: int, *, lazy: bool) -> Plan:
        """Return the plan for the number of items left, each of this profile."""
        feed, adviser, options = self._feed, self.advised(), self._options
        plans = partial(
            adviser.plan,
            profile,
            left,
            sliceable=feed.sliceable,
            shares=may_share(profile, options, lazy=lazy),
            input_seconds=feed.input_seconds,
        )
        plan = plans(is_light=partial(_is_light, self._shipped, feed))
        if plan.executor != "serial" and adviser.look_again(options.mp_context):
            plan = plans()  # another start method has other costs
        return plan

    def _stay(self, reason: str, seconds: float, *, known: bool) -> None:
        """Decide to go on in the calling process.

        Args:
            reason: why.
            seconds: forecast time of the items left, s.
            known: whether their number is known.
        """
        # The reason given with the forecast stands: at later decisions less work is left.
        if self.forecast is None or self._confined:
            self.reason = reason
        if self.forecast is None and known:
            self.decided = self.elapsed
            self.forecast = self.decided + seconds

    def advised(self, *, at_once: bool = False) -> Adviser:
        """Return the adviser; have it look up the record when that pays, or ``at_once``."""
        adviser = self.adviser or self.make_adviser()
        if not self._looked_up and (at_once or self.pays_to_walk(self._work())):
            with held_signals():  # the walk would swallow a time limit's exception
                adviser.recall.look_up()
            self._looked_up = True
        return adviser

    def make_adviser(self) -> Adviser:
        """Make the adviser of this call, and return it."""
        self.adviser = adviser_of(self._func, self.total, self.jobs, self._options)
        return self.adviser

    def is_worth_walking(self, elapsed: float) -> bool:
        """Return whether the function's fingerprint is known, or worth its time after a call."""
        return self._looked_up or self.pays_to_walk(elapsed)

    def pays_to_walk(self, seconds: float) -> bool:
        """Return whether this much work, s, is worth a fingerprint of the function."""
        return walk_seconds(self._func) <= WALK_SHARE * seconds

    def _work(self) -> float:
        """Return the time of the items that ran here and of the items known to be left, s.

        In a lazy run most items are not timed, so the mean stands for them. A single item may
        include imports. So the work estimated from it is limited: a fingerprint must not take
        longer than that item did.
        """
        probe, left = self.evidence.probe, self._feed.remaining or 0
        done = max(probe.seconds, probe.mean * self._feed.position)
        ahead = left * probe.mean
        return done + (ahead if probe.items > 1 else min(ahead, done / WALK_SHARE))

    def _commit(self, plan: Plan, *, known: bool) -> None:
        """Decide on a plan for workers."""
        self.plan = plan
        self.reason = plan.reason
        if self.apart and not self._options.workers_only(self.jobs):
            self.reason = "the calling process is to go on with other work meanwhile"
        self.decided = self.elapsed
        if known:
            self.forecast = self.decided + plan.seconds

    def _measure_travel(self, out: list[Any], remembered: Profile | None) -> str:
        """Measure the cost of sending items and results; return why they cannot be sent, or ""."""
        item = NO_ITEM if self._inherits else self._feed.sample
        try:
            with held_signals():  # a handler's exception must not count as a refusal
                self.evidence.measure_travel(out, item, remembered)
        except SerializationError as error:
            self._confined = f"items or results cannot be pickled ({error})"
        return self._confined

    @property
    def _inherits(self) -> bool:
        """Whether workers inherit the input, so that no items are sent."""
        return self._feed.sliceable and inherits(self.advised().method)

    # Beside the workers ---------------------------------------------------------------------

    def rethink(self, stage: Stage) -> Step:
        """Return how many workers to go on with, after a crew has shown the time of an item."""
        from ..decide.steps import Step

        assert self.steps is not None
        # With unknown length, a fixed amount of work is assumed to be left.
        left = assumed_items(stage.item_seconds) if stage.left is None else stage.left
        plan = partial(self.advised().plan, left=left, sliceable=self._feed.sliceable)
        found = self.steps.next(stage, left, partial(plan, must_run=True))
        if isinstance(found, Step):
            return found
        self._commit(found, known=stage.left is not None)
        return Step(found.n_jobs, last=not stage.waits)


def _is_light(shipped: Callable[..., Any], feed: Feed) -> bool:
    """Return whether function and items are small enough to be sent rather than inherited."""
    item = feed.sample
    return is_smaller(shipped if item is NO_ITEM else (shipped, item), LIGHT_BYTES)


def _items_left(feed: Feed, adviser: Adviser, total: int | None) -> tuple[int, bool]:
    """Return how many items are left, and whether that is known.

    With unknown length, as many items are assumed as the last such call had. If that is not known
    either, as many are assumed left as are done (ski rental doubling).

    Args:
        feed: the items.
        adviser: knows of the last such call.
        total: number of items of the call, None when unknown.
    """
    if feed.hint is None:
        feed.hint = adviser.recall.expected_items
    left = feed.likely_remaining
    return max(2, feed.position) if left is None else left, None not in (left, total)
