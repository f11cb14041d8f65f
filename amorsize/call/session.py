"""One call, from its first item to the record it leaves.

The session has the first items run in the calling process (``Lead``). As soon as that pays, the
decision gives a plan, and the session hands the rest to the engine. At the end it has the
measurements recorded and reported. docs/design.md follows one call through.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext, suppress

from ..measure.machine import usable_cpus
from ..options import Options
from ..run.failure import add_note
from ..run.feed import Feed
from ..show.logs import announce, log_decision
from ..signals import held_signals
from ..units import counted, duration
from .decision import Decision
from .latest import LATEST, Finished, Latest
from .lead import Lead
from .policies import policy_of
from .ran import ran_of
from .recording import LOOK_UP_SECONDS, learn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..decide.planner import Plan
    from ..run.arrivals import Together
    from ..run.engine import Engine
    from .launcher import Launcher

__all__ = ["Session"]

# A call that fails after so long says how many results are lost, s.
WORTH_TELLING_SECONDS = 1.0


class Session:
    """One call of one of the four forms.

    Args:
        func: the function to call.
        shipped: the function to send to workers that cannot inherit ``func``.
        feed: the items.
        options: checked options.

    Attributes:
        finished: the call, once it is over; None before.
        latest: where to keep it besides ``LATEST``; None for nowhere.
        settled: see ``Engine``; None for nothing.
        kept: results that ``resume`` has kept of earlier calls, for the report.

    Raises:
        ValueError: the environment variable ``AMORSIZE_N_JOBS`` is not a number of workers.
    """

    def __init__(
        self, func: Callable[..., Any], shipped: Callable[..., Any], feed: Feed, options: Options
    ) -> None:
        self.finished: Finished | None = None
        self.latest: Latest | None = None
        self.settled: Callable[[int, list[Any]], object] | None = None
        self.kept = 0
        self._func = func
        self._name: str = getattr(func, "__name__", type(func).__name__)
        self._shipped = shipped
        self._feed = feed
        self._options = options
        self._decision = Decision(func, shipped, feed, options, time.perf_counter())
        if feed.hint is None:  # now: the decision counts on no hint of the user's
            feed.hint = options.total
        self._progress = None
        if options.progress is not False:
            from ..show.progress import make_progress  # imported late: few calls show progress

            self._progress = make_progress(options.progress, feed.hint, self._name)
        self._lead = Lead(feed, self._decision, options.timeout, self._progress)
        self._engine: Engine | None = None
        self._launcher: Launcher | None = None
        self._check: Callable[[], object] | None = None
        self._lazy = False  # whether results are consumed one by one
        self._tells_losses = options.resume is None
        self._produced = 0  # results given to the caller

    # The forms ------------------------------------------------------------------------------

    def map(self) -> list[Any]:
        """Return all results in order."""
        out: list[Any] = []
        done = False
        try:
            plan = self._enter()
            if plan is None:
                plan = self._lead.run(out)
            if plan is not None:
                with closing(self._run_crew(plan, ordered=True)) as chunks:
                    for _, results in chunks:
                        out += results
            self._produced = len(out)
            done = True
        except BaseException as error:  # Ctrl-C loses results, too
            self._tell_of_losses(error, len(out))
            raise
        finally:
            self._leave(done=done)
        return out

    def stream(self, *, ordered: bool, whole: bool = False) -> Generator[Any]:
        """Yield results as the consumer requests them.

        Args:
            ordered: whether in the order of the items.
            whole: whether to yield (index of the first, list) instead: the results of a chunk, or a
                single one.
        """
        self._decision.begun = time.perf_counter()
        self._lazy = True
        self._lead.begin()
        done = False
        try:
            plan = self._enter()
            if plan is None:
                leading = self._lead.run_lazily()
                plan = yield from (_listed(leading) if whole else leading)
            if plan is not None:
                with closing(self._run_crew(plan, ordered=ordered)) as chunks:
                    for start, results in chunks:
                        if whole:
                            self._produced += len(results)
                            yield start, results
                            continue
                        for result in results:
                            self._produced += 1
                            yield result
            done = True
        finally:
            self._produced += self._lead.yielded
            self._leave(done=done)

    def run_apart(self, check: Callable[[], object], arrivals: Together | None) -> None:
        """Have even the first items run in workers, wherever that is possible.

        Args:
            check: called while the call waits; may raise, which ends the call.
            arrivals: the inputs whose items are asked for, and then waited for; None for none.
        """
        self._feed.arrivals = arrivals
        self._decision.apart = not (self._decision.alone or self._options.backend == "thread")
        self._lead.check = self._check = check

    def _enter(self) -> Plan | None:
        """Return a plan if all items must run in workers, else None."""
        return None if self._feed.remaining == 0 else self._decision.at_once()

    # Workers --------------------------------------------------------------------------------

    def _run_crew(self, plan: Plan, *, ordered: bool) -> Generator[tuple[int, list[Any]]]:
        """Yield (start, results) of the items left, run by a crew, or here if none can start."""
        with held_signals():  # a handler that maps would find a half-imported module
            from ..decide.steps import Steps
            from ..run.course import Course
            from ..run.engine import Engine
            from ..run.memory import WorkerMemory
            from .launcher import Launcher

        options, decision = self._options, self._decision
        log_decision(self._name, lambda: _decided(plan))
        adviser, evidence = decision.advised(), decision.evidence
        adviser.look_again(options.mp_context)
        must_run = options.workers_only(decision.jobs)
        profile = adviser.recall.profile
        if profile is None and evidence.probe.first:
            profile = evidence.profile(None)
        if decision.jobs is None and adviser.cluster is None:
            decision.steps = Steps.of_plan(usable_cpus(), plan, profile)
        memory, course = WorkerMemory(adviser.method), Course.expecting(profile)
        self._launcher = Launcher(
            self._func,
            self._shipped,
            self._feed,
            options,
            adviser,
            must_run=must_run,
            shares=plan.shared,
            cpu_share=course.cpu_share,
            memory=memory,
        )
        self._engine = Engine(
            self._feed,
            policy_of(
                plan,
                options,
                adviser.method,
                ordered=ordered,
                lazy=self._lazy,
                must_run=must_run,
                apart=decision.apart,
                streamed=self._feed.remaining is None,
                deadline=self._lead.deadline,
                round_trip=None if adviser.cluster is None else self._launcher.round_trip,
                rethink=decision.rethink if decision.steps is not None else None,
                check=self._check,
            ),
            self._launcher,
            memory,
            course,
            progress=None if self._progress is None else self._progress.add,
            settled=self.settled,
        )
        yield from self._engine.run()

    # The end --------------------------------------------------------------------------------

    def _tell_of_losses(self, error: BaseException, finished: int) -> None:
        """Add to an exception how many results are lost with it, if they took long.

        Args:
            error: the exception.
            finished: results that were there, at least.
        """
        if self._engine is not None:
            course = self._engine.course
            here = self._decision.evidence.probe.items + course.own.items
            finished = max(finished, here + course.tally.items)
        if finished and self._decision.elapsed >= WORTH_TELLING_SECONDS and self._tells_losses:
            lost = counted(finished, "finished result is lost", "finished results are lost")
            add_note(
                error,
                f'{lost}; with resume="FILE" they are kept, and the same call computes the rest',
            )

    def _leave(self, *, done: bool) -> None:
        """Record and report the call, however it ended."""
        decision = self._decision
        elapsed = decision.elapsed
        if self._engine is not None and self._launcher is not None:
            # Ended again, because a signal handler may have interrupted the first end.
            self._engine.end()
            decision.warnings += self._launcher.warnings
            if self._launcher.gave_up:
                decision.give_up(self._launcher.gave_up)
            if why := self._engine.withdrawn:
                decision.warnings.append(f"the items left ran in the calling process: {why}")
        if self._progress is not None:
            self._progress.close()
        finished = self.finished = Finished(
            self._func,
            decision,
            self._options,
            self._produced,
            elapsed,
            None if self._engine is None else ran_of(self._engine),
            self._feed.input_seconds,
            self.kept,
        )
        try:
            self._record(finished, elapsed, done=done)
        finally:
            finished.let_go()

    def _record(self, finished: Finished, elapsed: float, *, done: bool) -> None:
        """Record and report the call."""
        decision = self._decision
        # A call that needed no adviser is recorded only if it took longer than recording does.
        worth = decision.adviser is not None or elapsed >= LOOK_UP_SECONDS
        if done and self._produced and worth and self._options.use_cache:
            learn(
                finished.outcome,
                self._func,
                worth_walking=decision.is_worth_walking(elapsed),
                make_adviser=decision.make_adviser,
            )
        decided = self._engine is not None
        announce(self._name, lambda: finished.report, sys.exc_info()[1], decided=decided)
        LATEST.call = finished
        if self.latest is not None:
            self.latest.call = finished
        if self._options.report is not None:
            # An error in the report must not replace the call's own exception.
            with nullcontext() if done else suppress(Exception):
                self._options.report(finished.report)


def _decided(plan: Plan) -> str:
    """Return a plan as a line."""
    text = f"{plan.reason}; forecast {duration(plan.seconds)}"
    return f"{text}, serially {duration(plan.serial_seconds)}" if plan.serial_seconds else text


def _listed(
    results: Generator[Any, None, Plan | None],
) -> Generator[tuple[int, list[Any]], None, Plan | None]:
    """Yield each result as (index, list of it); return what ``results`` returns."""
    index = 0
    while True:
        try:
            result = next(results)
        except StopIteration as end:
            plan: Plan | None = end.value
            return plan
        yield index, [result]
        index += 1
