"""The results of a finished call: the profile of its items, the machine's costs, and the report.

They are computed from the figures of the probe and the engine. The session records them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ..decide.figures import FRESH_METHODS, SHARED_FROM_BYTES, WAITING_SHARE, Profile
from ..decide.learning import MOST_CONTENTION, Seen
from ..decide.model import slowdown
from ..decide.planner import Plan
from ..measure.machine import resident_bytes, this_machine, usable_cpus, waiting_programs
from ..measure.probe import profile_of
from ..measure.timing import Tally
from ..options import Options, environment_cap
from ..tuples import NamedTuple
from ..units import counted, duration
from .adviser import Adviser, cut_by
from .costs import machine_costs
from .evidence import Evidence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..decide.steps import Steps
    from ..run.chunks import Span
    from ..run.engine import Engine
    from ..show.report import RunReport

__all__ = ["Outcome", "chunk_gaps", "contradictions", "others"]

# A run is reported if it took this many times as long or as short as forecast, and either time is
# at least NOTEWORTHY_SECONDS.
NOTEWORTHY = 2.0
NOTEWORTHY_SECONDS = 0.02
# Item times alone and in workers are compared if their spread is at most this share of the mean,
# and the items that ran alone took at least COMPARABLE_SECONDS.
COMPARABLE_SPREAD = 0.2
COMPARABLE_SECONDS = 0.005
# 0 means not measured, so a measured zero is stored as this.
LEAST_MEASURED = 1e-4
# The share of a figure that is kept by each run that could not measure it.
KEPT_UNUSED = 0.7
# The gap between two chunks with results of fewer bytes is the time of dispatching one.
LIGHT_CHUNK_BYTES = 4_096
# Enough gaps for a median, and at most as many chunks as a run of some ms can afford to look at.
LEAST_GAPS = 4
MOST_GAPS = 200


class Outcome(NamedTuple):
    """A finished call.

    Attributes:
        func: the function that was called.
        options: checked options.
        items: number of items of the input, None when unknown.
        jobs: workers asked for, None where amorsize decided.
        produced: results given to the caller.
        elapsed: duration of the call, s.
        evidence: measurements of the items that ran in the calling process first.
        engine: the engine that ran the rest, None without one.
        adviser: the adviser of the call, None without one.
        plan: the plan for the items that went to workers, None without one.
        serial_plan: the plan that said to go on in the calling process, None without one.
        forecast: forecast duration of the whole call, s; None without a forecast.
        decided: when the decision was made, s after the start.
        reason: why the call ran as it did, in words.
        warnings: what the caller should know.
        gave_up: whether workers were wanted but the caller ran the items.
        steps: what workers beyond the CPUs have shown, None where they were not added in steps.
        input_seconds: time that the caller needed to read an item of the input, s.
    """

    func: Callable[..., Any]
    options: Options
    items: int | None
    jobs: int | None
    produced: int
    elapsed: float
    evidence: Evidence
    engine: Engine | None
    adviser: Adviser | None
    plan: Plan | None
    serial_plan: Plan | None
    forecast: float | None
    decided: float
    reason: str
    warnings: list[str]
    gave_up: bool
    steps: Steps | None = None
    input_seconds: float = 0.0

    def profile(self) -> Profile | None:
        """Return the profile of the items as this run showed it, wherever they ran."""
        tally, adviser, engine = Tally(), self.adviser, self.engine
        probe = self.evidence.probe
        # If the process needed more memory before, its peak did not grow, which shows nothing.
        remembered = adviser.recall.profile if adviser is not None else None
        travel = self.evidence.travel or remembered
        grown = self.evidence.needed(travel)
        if remembered is not None:
            grown = max(grown, remembered.memory_bytes)
        if engine is None or adviser is None or not engine.course.tally.items:
            tally.merge(probe.usual)
            if engine is not None:
                tally.merge(engine.course.own)
            if not tally.items:
                return None
            mean = tally.seconds / tally.items
            known = profile_of(tally, mean, memory_bytes=grown, travel=travel)
            if probe.helped:  # its helper processes already use the CPUs
                known = known._replace(cpu_share=max(known.cpu_share, float(usable_cpus())))
            # Only workers show these figures. They fade, since one run may have shown too much.
            return known._replace(
                contention=KEPT_UNUSED * known.contention,
                import_seconds=KEPT_UNUSED * known.import_seconds,
            )
        for part in (probe.rest, engine.course.own, engine.course.tally):
            tally.merge(part)
        # Items took longer in workers than they take alone; that is corrected below.
        known = profile_of(tally, tally.seconds / tally.items, memory_bytes=grown, travel=travel)
        contention = self._contention(engine) or (travel.contention if travel is not None else 0.0)
        known = known._replace(
            contention=contention,
            cpu_share=self._cpu_share(known, remembered),
            waiting_workers=self._waiting(engine, known),
        )
        costs = machine_costs(use_cache=self.options.use_cache)
        slow = slowdown(known, costs, engine.jobs, adviser.machine.cpus)
        beside = engine.course.tally.seconds
        if engine.policy.shares:
            beside += engine.course.own.seconds
        alone = tally.seconds - beside * (1 - 1 / slow)
        # The caller's items include the time to read them.
        alone += engine.course.tally.items * self.input_seconds
        profile = known._replace(item_seconds=max(1e-9, alone / tally.items))
        if engine.memory.grown is not None and not (engine.crew and engine.crew.reused):
            profile = profile._replace(memory_bytes=engine.memory.grown)
        importing = self._importing(engine, adviser)
        if importing is not None:
            profile = profile._replace(import_seconds=importing)
        if engine.course.packed and profile.result_bytes < SHARED_FROM_BYTES:
            profile = profile._replace(
                pickle_seconds=engine.course.packed / engine.course.tally.items
            )
        return profile

    def _cpu_share(self, known: Profile, remembered: Profile | None) -> float:
        """Return the CPU share to record for items that ran in workers.

        A worker does not see how long ended children and threads spent in run queues. So workers
        can show that items compute, but only the caller can show that items wait.
        """
        probe = self.evidence.probe
        if probe.rest.known_seconds:
            return max(known.cpu_share, probe.rest.cpu_share)
        basis = 0.0 if remembered is None else remembered.cpu_share
        if remembered is None and probe.items:  # without a record, items count as computing
            basis = 1.0
        return max(known.cpu_share, basis) if basis >= WAITING_SHARE else known.cpu_share

    def _waiting(self, engine: Engine, known: Profile) -> int:
        """Return the number of workers that this call showed to wait as well as one."""
        assert self.adviser is not None
        cpus, tally, alone = (
            self.adviser.machine.cpus,
            engine.course.tally,
            self.evidence.probe.mean,
        )
        if engine.jobs <= cpus and self.steps is None:
            return known.waiting_workers
        from ..decide.steps import Stage, Steps  # few runs have more workers than CPUs

        steps = self.steps
        if steps is None:
            steps = Steps(cpus, alone)
            steps.book(Stage(engine.workers, tally.items, tally.seconds, tally.cpu_share))
        return steps.shown

    def _importing(self, engine: Engine, adviser: Adviser) -> float | None:
        """Return how long fresh workers took to import what the function uses, None if unknown."""
        crew = engine.crew
        begun = [span.begun for span in engine.course.spans if span.worker]
        if (
            adviser.method not in FRESH_METHODS
            or crew is None
            or crew.reused
            or engine.ledger.retried
        ):
            return None
        if crew.ready_at is None or not begun:
            return None
        return max(LEAST_MEASURED, min(begun) - crew.ready_at)

    def _contention(self, engine: Engine) -> float | None:
        """Return how much longer items took in workers than in the caller, None if unknown.

        Only items of equal cost can be compared. Otherwise the items that ran in the caller may
        have been the cheap ones.
        """
        probe, tally, adviser = self.evidence.probe, engine.course.tally, self.adviser
        assert adviser is not None
        if probe.items < 2 or probe.seconds < COMPARABLE_SECONDS or not tally.items:
            return None
        if probe.tally.spread > COMPARABLE_SPREAD * probe.mean:
            return None
        mean = tally.seconds / tally.items
        share = min(1.0, tally.cpu_seconds / tally.seconds)
        busy = min(engine.jobs * share, adviser.machine.cpus)
        whole = Tally()  # of a caller that shares, too: the workers may have had the dear items
        for part in (tally, engine.course.own):
            whole.merge(part)
        if whole.spread > COMPARABLE_SPREAD * mean or busy < 2:
            return None
        found = (mean / probe.mean - 1) * (adviser.machine.cpus - 1) / (busy - 1)
        return min(max(found, LEAST_MEASURED), MOST_CONTENTION)

    def seen(self) -> Seen:
        """Return the machine's costs as this run with workers showed them."""
        engine, adviser = self.engine, self.adviser
        assert engine is not None
        assert adviser is not None
        crew, spans = engine.crew, engine.course.spans
        assert crew is not None
        seen = Seen(adviser.method, crew.workers, resident_bytes())
        if not crew.reused and crew.start_seconds:
            ready = crew.ready_at
            seen = seen._replace(
                started=crew.start_seconds,
                ready=None if ready is None else ready - crew.started_at,
                ended=crew.end_seconds or None,
            )
        # The forecast error and the gaps say nothing of the machine if a consumer set the pace, or
        # if the caller took over from slow workers. With more workers than CPUs, the gaps include
        # time in the run queue.
        undisturbed = not engine.policy.bounded and not engine.monitor.retreats
        if self.forecast is not None and undisturbed:
            error = abs(self.elapsed - self.forecast) / max(self.forecast, 1e-9)
            seen = seen._replace(error=error)
        size, gap = chunk_gaps(spans)
        oversubscribed = crew.workers > adviser.machine.cpus
        if gap is not None and undisturbed and not oversubscribed and adviser.method != "thread":
            moving = gap - adviser.costs.chunk_seconds
            if size < LIGHT_CHUNK_BYTES:
                seen = seen._replace(chunk_seconds=gap)
            elif size < SHARED_FROM_BYTES and moving > 0:
                seen = seen._replace(byte_seconds=moving / size)
        moved = sum(span.bytes for span in spans)
        if moved >= SHARED_FROM_BYTES * max(1, engine.course.tally.items):
            seen = seen._replace(shared_seconds=engine.course.packed / moved)
        return seen._replace(contention=self._contention(engine))

    @property
    def ended_early(self) -> bool:
        """Whether the call ended before it gave a result for each item, as far as known.

        An item raised, a time limit passed, or the consumer stopped.
        """
        return self.items is not None and self.produced < self.items

    def report(self) -> RunReport:
        """Return the report: what was decided and what happened."""
        from ..show.report import RunReport  # imported late: few calls make a report

        engine, adviser, plan, early = self.engine, self.adviser, self.plan, self.ended_early
        profile = self.profile()
        spans = tuple(engine.course.spans) if engine is not None else ()
        used = plan is not None and engine is not None and not self.gave_up
        worker_items = engine.course.tally.items if used and engine is not None else 0
        long = self.elapsed >= NOTEWORTHY_SECONDS
        busy = others(waiting_programs(), os.cpu_count() or 1) if long else ""
        told = [*self.warnings, *self._about_limits()]
        if not early:
            told += contradictions(self.forecast, self.elapsed, busy)
        return RunReport(
            function=getattr(self.func, "__qualname__", type(self.func).__qualname__),
            items=self.produced,
            backend=plan.executor if plan is not None and used else "serial",
            n_jobs=engine.jobs if engine is not None else 1,
            chunksize=next((span.items for span in spans if span.worker), 0),
            chunks=engine.course.chunks if engine is not None else 0,
            start_method=adviser.method if used and adviser is not None else "",
            start_reason=adviser.method_reason if used and adviser is not None else "",
            reason=self._why(),
            cache_hit=adviser is not None and adviser.recall.hit,
            plan=plan or self.serial_plan,
            profile=profile,
            forecast_seconds=self.forecast,
            actual_seconds=self.elapsed,
            decided_seconds=self.decided,
            serial_seconds=(
                None if profile is None or early else profile.item_seconds * self.produced
            ),
            caller_items=self._caller_items(worker_items),
            worker_items=worker_items,
            workers=tuple(sorted({span.worker for span in spans if span.worker})),
            retried=engine.ledger.retried if engine is not None else 0,
            warnings=tuple(told),
            timeline=spans,
            machine=this_machine(),
            hints=() if profile is None else tuple(self._hints(profile, used=used, busy=busy)),
            busy=busy,
            ended_early=early,
        )

    def _why(self) -> str:
        """Return why the call ran as it did, also where nothing was planned."""
        if self.plan is None and self.options.backend == "serial":
            return 'backend="serial" was asked for'
        limit = cut_by(self.options.n_jobs)
        if self.plan is None and self.jobs == 1 and limit:
            return f"{limit} allows one job"
        undecided = self.plan is None and self.forecast is None and self.jobs != 1
        if undecided and (self.ended_early or not self.produced):
            return "it ended before anything was decided"
        adviser = self.adviser
        if self.gave_up and adviser is not None and adviser.method == "forkserver":
            # Forked workers would have inherited what cannot be sent.
            return f"{self.reason}; by forkserver: {adviser.method_reason}"
        return self.reason

    def _about_limits(self) -> list[str]:
        """Return a warning if the environment allows fewer workers than were asked for."""
        n_jobs, limit = self.options.n_jobs, cut_by(self.options.n_jobs)
        return [f"n_jobs={n_jobs} was cut to {self.jobs} by {limit}"] if limit else []

    def _caller_items(self, worker_items: int) -> int:
        """Return how many items ran in the calling process.

        Args:
            worker_items: how many ran in workers.
        """
        if not self.ended_early:
            return max(0, self.produced - worker_items)
        own = self.engine.course.own.items if self.engine is not None else 0
        return self.evidence.probe.items + own

    def _hints(self, profile: Profile, *, used: bool, busy: str) -> list[str]:
        """Return hints to make the call faster, and on side effects that workers lose."""
        from ..identity.effects import effects_of
        from ..show.hints import hints_for_effects

        found = [] if self.ended_early else self._hints_for_speed(profile, used=used, busy=busy)
        in_processes = used and self.plan is not None and self.plan.executor == "process"
        if in_processes and self.engine is not None and self.engine.course.tally.items:
            found += hints_for_effects(effects_of(self.func))
        return found

    def _hints_for_speed(self, profile: Profile, *, used: bool, busy: str) -> list[str]:
        """Return hints to make the call faster."""
        from ..show.hints import hints_for_run

        crew = self.engine.crew if self.engine is not None else None
        started = crew is not None and not crew.reused
        found = hints_for_run(
            profile,
            self.produced,
            machine_costs(use_cache=self.options.use_cache),
            self.plan if used else None,
            jobs=None if self._about_limits() else self.jobs,
            chunksize=self.options.chunksize,
            cpus=usable_cpus(),
            seconds=self.elapsed,
            start_seconds=crew.start_seconds + crew.end_seconds if crew and started else 0.0,
            shipped_bytes=crew.shipped_bytes if crew is not None else 0,
            busy=busy,
            allowed=environment_cap(usable_cpus()),
        )
        adviser = self.adviser
        if adviser is not None and self.options.backend is None:
            hint = adviser.threads_hint(profile, self.produced, self.elapsed)
            found += [hint] if hint else []
        return found


def others(waiting: int, cpus: int) -> str:
    """Return a note on the load by other programs, "" where they leave a CPU idle.

    Args:
        waiting: threads of other programs that run or wait for a CPU.
        cpus: CPUs of the machine.

    >>> others(1, 2), others(4, 2)
    ('', '4 threads of other programs want to run on 2 CPUs')
    """
    if waiting < cpus:
        return ""
    threads = counted(waiting, "thread of other programs wants", "threads of other programs want")
    return f"{threads} to run on {counted(cpus, 'CPU')}"


def chunk_gaps(spans: list[Span]) -> tuple[float, float | None]:
    """Return (bytes of results, s) of the median gap between two chunks of one worker.

    Args:
        spans: chunks in any order; chunks of the calling process are ignored.
    """
    last: dict[int, Span] = {}
    found: list[tuple[float, float]] = []
    for span in sorted(spans[:MOST_GAPS], key=lambda span: span.begun):
        before = last.get(span.worker)
        if before is not None and span.worker:
            found.append((span.begun - before.begun - before.seconds, before.bytes))
        last[span.worker] = span
    if len(found) < LEAST_GAPS:
        return 0.0, None
    gap, size = sorted(found)[len(found) // 2]
    return size, max(gap, 0.0)


def contradictions(forecast: float | None, actual: float, busy: str = "") -> list[str]:
    """Return a warning if a run took far more or less time than forecast.

    Args:
        forecast: forecast duration, s; None without a forecast.
        actual: actual duration, s.
        busy: note on the load by other programs, "" for none.

    >>> contradictions(1.0, 1.2), contradictions(1.0, 2.5)
    ([], ['it took 2.5 s; the forecast was 1 s'])
    """
    if forecast is None or max(forecast, actual) < NOTEWORTHY_SECONDS:
        return []
    if 1 / NOTEWORTHY <= actual / max(forecast, 1e-9) <= NOTEWORTHY:
        return []
    slowed = busy and actual > forecast
    cause = f", and the CPUs are busy with other programs: {busy}" if slowed else ""
    return [f"it took {duration(actual)}; the forecast was {duration(forecast)}{cause}"]
