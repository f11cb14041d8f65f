"""One call, from its first item to the record it leaves.

The session runs the first items in the calling process and times them. As soon as that pays, it
asks the adviser for the record and a plan. Then it hands the rest to the engine, or goes on in the
calling process. At the end it gives the measurements to the adviser. docs/design.md follows one
call through.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext, suppress
from functools import partial

from ..errors import SerializationError, TaskTimeoutError
from ..identity.fingerprint import walk_seconds
from ..measure.machine import usable_cpus
from ..measure.probe import LONGEST_BLOCK_SECONDS
from ..nesting import inside_worker
from ..options import Options
from ..run.failure import NO_ITEM
from ..run.feed import Feed
from ..run.pickles import is_smaller
from ..signals import held_signals
from ..units import counted
from .adviser import Adviser, assumed_items, count_workers, inherits
from .evidence import Evidence
from .outcome import Outcome
from .policies import may_share, policy_of
from .recording import LOOK_UP_SECONDS, learn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..decide.model import Profile
    from ..decide.planner import Plan
    from ..decide.steps import Stage, Step, Steps
    from ..run.engine import Engine
    from .launcher import Launcher

__all__ = ["Session"]

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
# Once the record says that the call is best serial, a block may have this many times the items run
# so far.
SETTLED_GROWTH = 16
# A block that is expected to take PATIENT_SECONDS is run in BLOCK_PARTS parts, and ends early if it
# takes OVERRUN times what was expected.
PATIENT_SECONDS = 0.000_2
BLOCK_PARTS = 8
OVERRUN = 3.0
# In a lazy run of tiny items, one item is timed in this much work.
TIMED_EVERY_SECONDS = 20e-6


class Session:
    """One call of one of the four forms.

    Args:
        func: the function to call.
        shipped: the function to send to workers that cannot inherit ``func``.
        feed: the items.
        options: checked options.

    Raises:
        ValueError: the environment variable ``AMORSIZE_N_JOBS`` is not a number of workers.
    """

    def __init__(
        self, func: Callable[..., Any], shipped: Callable[..., Any], feed: Feed, options: Options
    ) -> None:
        self.begun = time.perf_counter()
        self.func = func
        self.shipped = shipped
        self.feed = feed
        self.options = options
        self.total = feed.hint
        self.jobs = count_workers(options.n_jobs)
        self.evidence = Evidence()
        self.probe = self.evidence.probe
        self.plan: Plan | None = None  # for the items that go to workers
        self._serial_plan: Plan | None = None  # the last plan that said to go on here
        self.engine: Engine | None = None
        self.launcher: Launcher | None = None
        self.warnings: list[str] = []
        self.produced = 0
        self._reason = "it was over before anything else could have been quicker"
        self._adviser: Adviser | None = None
        self._looked_up = False  # whether the look-up is done
        self._alone = self.jobs == 1 or options.backend == "serial"
        self._confined = ""  # why results or items cannot leave this process
        self._steps: Steps | None = None  # what workers beyond the CPUs have shown
        self._decided = 0.0
        self._forecast: float | None = None
        self._progress = None
        if options.progress is not False:
            from ..show.progress import make_progress  # imported late: few calls show progress

            name = getattr(func, "__name__", type(func).__name__)
            self._progress = make_progress(options.progress, feed.hint, name)
        self._gave_up = False  # whether workers were wanted but the items run here
        self._lazy = False  # whether results are consumed one by one
        self._settled = False  # whether, by the record, the call is best serial
        self._next_look = LOOK_UP_SECONDS  # when to consider workers next, in seconds of work here
        self._set_deadline()

    def _set_deadline(self) -> None:
        timeout = self.options.timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self.feed.deadline = self._deadline

    # The forms ------------------------------------------------------------------------------

    def map(self) -> list[Any]:
        """Return all results in order."""
        out: list[Any] = []
        done = False
        try:
            plan = self._enter()
            if plan is None:
                plan = self._lead(out)
            if plan is not None:
                with closing(self._run_crew(plan, ordered=True)) as chunks:
                    for _, results in chunks:
                        out += results
            self.produced = len(out)
            done = True
        finally:
            self._leave(done=done)
        return out

    def stream(self, *, ordered: bool) -> Iterator[Any]:
        """Yield results as the consumer requests them."""
        self.begun = time.perf_counter()
        self._lazy = True
        self._set_deadline()
        done = False
        try:
            plan = self._enter()
            if plan is None:
                plan = yield from self._lead_lazily()
            if plan is not None:
                with closing(self._run_crew(plan, ordered=ordered)) as chunks:
                    for _, results in chunks:
                        for result in results:
                            self.produced += 1
                            yield result
            done = True
        finally:
            self._leave(done=done)

    # Where the first items run --------------------------------------------------------------

    def _enter(self) -> Plan | None:
        """Return a plan if all items must run in workers, else None."""
        options = self.options
        if self.feed.remaining == 0:
            return None
        if not options.workers_only(self.jobs) or self._give_up_if_hindered():
            if options.initializer is not None:
                options.initializer(*options.initargs)
            if self._alone and not self.warnings:
                self._reason = "one job was asked for"
            return None
        adviser = self._advised(at_once=True)
        profile = adviser.remembered()
        left = self.feed.likely_remaining or max(2, self.jobs or 2)
        # Without a record, one worker starts; its timings decide on more workers.
        jobs = 1 if profile is None and self.jobs is None else None
        plan = adviser.plan(profile, left, sliceable=self.feed.sliceable, must_run=True, jobs=jobs)
        self._commit(plan, known=profile is not None)
        return plan

    def _give_up_if_hindered(self) -> bool:
        """Give up on workers if none can be started from here; return whether that is so."""
        reason = inside_worker()
        if reason:
            self._give_up_workers(reason)
        return bool(reason)

    def _give_up_workers(self, reason: str) -> None:
        """Note why the items run here although workers were wanted."""
        self._alone = self._gave_up = True
        self._reason = reason
        self.warnings.append(f"the items run in the calling process: {reason}")

    def _advised(self, *, at_once: bool = False) -> Adviser:
        """Return the adviser; have it look up the record when that pays, or ``at_once``."""
        adviser = self._adviser or self._call_adviser()
        if not self._looked_up and (at_once or self._pays_to_walk(self._work())):
            with held_signals():  # the walk would swallow a time limit's exception
                adviser.look_up()
            self._looked_up = True
        return adviser

    def _work(self) -> float:
        """Return the time of the items that ran here and of the items known to be left, s.

        In a lazy run most items are not timed, so the mean stands for them. A single item may
        include imports. So the work estimated from it is limited: a fingerprint must not take
        longer than that item did.
        """
        probe, left = self.probe, self.feed.remaining or 0
        done = max(probe.seconds, probe.mean * self.feed.position)
        ahead = left * probe.mean
        return done + (ahead if probe.items > 1 else min(ahead, done / WALK_SHARE))

    def _pays_to_walk(self, seconds: float) -> bool:
        """Return whether this much work, s, is worth a fingerprint of the function."""
        return walk_seconds(self.func) <= WALK_SHARE * seconds

    def _recalls(self) -> bool:
        """Return whether a record is in memory; look once, and only if it could matter."""
        left, probe = self.feed.remaining, self.probe
        if self._adviser is not None or left is None or probe.seconds < RECALL_SECONDS:
            return False
        if probe.items < 2 or left * probe.mean < WORTH_RECALLING_SECONDS:
            return False
        if not self._pays_to_walk(probe.seconds):
            return False
        adviser = self._call_adviser()
        adviser.look_up(only_memory=True)
        self._looked_up = adviser.hit
        return adviser.hit

    def _call_adviser(self) -> Adviser:
        options = self.options
        self._adviser = Adviser.of_call(
            self.func,
            self.total,
            jobs=self.jobs,
            backend=options.backend,
            mp_context=options.mp_context,
            use_cache=options.use_cache,
        )
        return self._adviser

    def _lead(self, out: list[Any]) -> Plan | None:
        """Run items here until none are left or a plan says that workers pay."""
        feed, probe = self.feed, self.probe
        if self._alone and self._deadline is None and self._progress is None:
            watch = probe.watch(1)
            feed.run_all(out)
            if out:
                probe.add(watch.block(len(out)))
            return None
        while self._run_block(out):
            if not self._alone and (probe.seconds >= self._next_look or self._recalls()):
                self._next_look = LOOK_AGAIN * probe.seconds
                plan = self._consider(out)
                if plan is not None:
                    return plan
        return None

    def _run_block(self, out: list[Any]) -> bool:
        """Run and time the next block here; return whether there may be more items."""
        feed, probe = self.feed, self.probe
        size = probe.next_size(feed.remaining)
        if self._settled and feed.remaining is not None:
            fitting = int(LONGEST_BLOCK_SECONDS / max(probe.mean, 1e-9))
            size = max(size, min(feed.remaining, fitting, SETTLED_GROWTH * probe.items))
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

    def _run_items(self, size: int, out: list[Any]) -> int:
        """Run up to ``size`` items here; stop if they turn out much dearer than those before.

        Returns:
            How many ran.
        """
        feed = self.feed
        expected = size * self.probe.mean
        if size < 2 * BLOCK_PARTS or expected < PATIENT_SECONDS:
            return feed.run(size, out)
        until, done = time.monotonic() + OVERRUN * expected, 0
        while done < size:
            wanted = min(size - done, size // BLOCK_PARTS)
            ran = feed.run(wanted, out)
            done += ran
            if ran < wanted or time.monotonic() > until:
                break
        return done

    def _lead_lazily(self) -> Generator[Any, None, Plan | None]:
        """Yield results of items run here, one at a time; return a plan once workers pay."""
        feed, probe = self.feed, self.probe
        result: list[Any] = []
        while True:
            watch = probe.watch(1)
            if not feed.run(1, result):
                return None
            probe.add(watch.block(1))
            plan, worked = None, probe.mean * feed.position
            if not self._alone and worked >= self._next_look:
                self._next_look = LOOK_AGAIN * worked
                plan = self._consider(result)
            self._pass(1)
            yield result.pop()
            self._check_deadline()
            if plan is not None:
                return plan
            # Timing a tiny item costs more than running it, so most tiny items run untimed.
            untimed = min(int(TIMED_EVERY_SECONDS / max(probe.mean, 1e-9)), 4 * probe.items)
            before = feed.position
            if untimed:
                for value in feed.pass_through(untimed):
                    self.produced += 1
                    yield value
                    if self._deadline is not None:
                        self._check_deadline()
                self._pass(feed.position - before, counted=True)

    def _pass(self, items: int, *, counted: bool = False) -> None:
        if not counted:
            self.produced += items
        if self._progress is not None:
            self._progress.add(items)

    # The decision ---------------------------------------------------------------------------

    def _consider(self, out: list[Any]) -> Plan | None:
        """Return a plan for workers if they pay, as far as known by now, else None."""
        feed, probe, adviser, evidence = self.feed, self.probe, self._advised(), self.evidence
        evidence.measure_growth()  # measured now: later it would include results
        reason = self._confined or evidence.confines or inside_worker()
        remembered = adviser.confirm(probe.mean, first=not probe.rest.items)
        if remembered is None and not evidence.suffices:
            return None
        if evidence.in_doubt(remembered):
            self._next_look = 0.0  # after one more block
            return None
        profile = evidence.profile(remembered)
        left, known = self._items_left(adviser)
        if not reason and left * profile.item_seconds < WORTH_SECONDS:
            reason = "what was left would have been over before workers could start"
        if not reason and evidence.travel is None:
            reason = self._measure_travel(out, remembered)
            profile = evidence.profile(remembered)
        if not reason:
            plans = partial(
                adviser.plan,
                profile,
                left,
                sliceable=feed.sliceable,
                shares=may_share(profile, self.options, lazy=self._lazy),
                input_seconds=feed.input_seconds,
            )
            plan = plans(is_light=self._is_light)
            if plan.executor != "serial" and adviser.look_again(self.options.mp_context):
                plan = plans()  # another start method has other costs
            if plan.executor != "serial":
                adviser.adopt(plan)
                self._commit(plan, known=known)
                return plan
            reason = plan.reason
            if self._forecast is None:
                self._serial_plan = plan
        # The reason given with the forecast stands: at later decisions less work is left.
        if self._forecast is None or self._confined:
            self._reason = reason
        if remembered is not None and known:
            # Another decision would be the same, unless the call takes longer than recorded.
            whole = probe.seconds + left * profile.item_seconds
            self._next_look = max(self._next_look, LOOK_AGAIN * whole)
            self._settled = True
        if self._forecast is None and known:
            self._decided = self._elapsed()
            self._forecast = self._decided + left * profile.item_seconds
        return None

    def _items_left(self, adviser: Adviser) -> tuple[int, bool]:
        """Return how many items are left, and whether that is known.

        With unknown length, as many items are assumed as the last such call had. If that is not
        known either, as many are assumed left as are done (ski rental doubling).
        """
        feed = self.feed
        if feed.hint is None:
            feed.hint = adviser.expected_items
        left = feed.likely_remaining
        return max(2, feed.position) if left is None else left, None not in (left, self.total)

    def _commit(self, plan: Plan, *, known: bool) -> None:
        """Decide on a plan for workers."""
        self.plan = plan
        self._reason = plan.reason
        self._decided = self._elapsed()
        if known:
            self._forecast = self._decided + plan.seconds

    def _measure_travel(self, out: list[Any], remembered: Profile | None) -> str:
        """Measure the cost of sending items and results; return why they cannot be sent, or ""."""
        item = NO_ITEM if self._inherits() else self.feed.sample
        try:
            with held_signals():  # a handler's exception must not count as a refusal
                self.evidence.measure_travel(out, item, remembered)
        except SerializationError as error:
            self._confined = f"items or results cannot be pickled ({error})"
        return self._confined

    def _inherits(self) -> bool:
        """Return whether workers inherit the input, so that no items are sent."""
        return self.feed.sliceable and inherits(self._advised().method)

    def _is_light(self) -> bool:
        """Return whether function and items are small enough to be sent rather than inherited."""
        item = self.feed.sample
        sent = self.shipped if item is NO_ITEM else (self.shipped, item)
        return is_smaller(sent, LIGHT_BYTES)

    # Workers --------------------------------------------------------------------------------

    def _run_crew(self, plan: Plan, *, ordered: bool) -> Generator[tuple[int, list[Any]]]:
        """Yield (start, results) of the items left, run by a crew, or here if none can start."""
        with held_signals():  # a handler that maps would find a half-imported module
            from ..decide.steps import Steps
            from ..run.course import Course
            from ..run.engine import Engine
            from ..run.memory import WorkerMemory
            from .launcher import Launcher

        options, adviser = self.options, self._advised()
        adviser.look_again(options.mp_context)
        must_run = options.workers_only(self.jobs)
        profile = adviser.remembered() or (
            self.evidence.profile(None) if self.probe.first else None
        )
        if self.jobs is None:
            self._steps = Steps.of_plan(usable_cpus(), plan, profile)
        memory, course = WorkerMemory(adviser.method), Course.expecting(profile)
        self.launcher = Launcher(
            self.func,
            self.shipped,
            self.feed,
            options,
            adviser,
            must_run=must_run,
            shares=plan.shared,
            cpu_share=course.cpu_share,
            memory=memory,
        )
        self.engine = Engine(
            self.feed,
            policy_of(
                plan,
                options,
                adviser.method,
                ordered=ordered,
                lazy=self._lazy,
                must_run=must_run,
                streamed=self.feed.remaining is None,
                deadline=self._deadline,
                rethink=self._rethink if self._steps is not None else None,
            ),
            self.launcher,
            memory,
            course,
            progress=None if self._progress is None else self._progress.add,
        )
        yield from self.engine.run()

    def _rethink(self, stage: Stage) -> Step:
        """Return how many workers to go on with, after a crew has shown the time of an item."""
        from ..decide.steps import Step

        assert self._steps is not None
        # With unknown length, a fixed amount of work is assumed to be left.
        left = assumed_items(stage.item_seconds) if stage.left is None else stage.left
        plan = partial(self._advised().plan, left=left, sliceable=self.feed.sliceable)
        found = self._steps.next(stage, left, partial(plan, must_run=True))
        if isinstance(found, Step):
            return found
        self._commit(found, known=stage.left is not None)
        return Step(found.n_jobs, last=not stage.waits)

    # The end --------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        return time.perf_counter() - self.begun

    def _check_deadline(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            assert self.options.timeout is not None
            raise TaskTimeoutError(
                f"the call took longer than timeout={self.options.timeout:g} s; "
                f"{counted(self.feed.position, 'item was', 'items were')} finished",
                seconds=self.options.timeout,
            )

    def _leave(self, *, done: bool) -> None:
        """Record and report the call, however it ended."""
        elapsed = self._elapsed()
        if self.engine is not None and self.launcher is not None:
            # Ended again, because a signal handler may have interrupted the first end.
            self.engine.end()
            self.warnings += self.launcher.warnings
            if self.launcher.gave_up:
                self._give_up_workers(self.launcher.gave_up)
            if why := self.engine.withdrawn:
                self.warnings.append(f"the items left ran in the calling process: {why}")
        if self._progress is not None:
            self._progress.close()
        # A call that needed no adviser is recorded only if it took longer than recording does.
        worth = self._adviser is not None or elapsed >= LOOK_UP_SECONDS
        if done and self.produced and worth and self.options.use_cache:
            learn(
                self._outcome(elapsed),
                worth_walking=self._looked_up or self._pays_to_walk(elapsed),
                make_adviser=self._call_adviser,
            )
        if self.options.report is not None:
            # An error in the report must not replace the call's own exception.
            with nullcontext() if done else suppress(Exception):
                self.options.report(self._outcome(elapsed).report())

    def _outcome(self, elapsed: float) -> Outcome:
        return Outcome(
            func=self.func,
            options=self.options,
            items=self.total,
            jobs=self.jobs,
            produced=self.produced,
            elapsed=elapsed,
            evidence=self.evidence,
            engine=self.engine,
            adviser=self._adviser,
            plan=self.plan,
            serial_plan=self._serial_plan,
            forecast=self._forecast,
            decided=self._decided,
            reason=self._reason,
            warnings=self.warnings,
            gave_up=self._gave_up,
            steps=self._steps,
            input_seconds=self.feed.input_seconds,
        )
