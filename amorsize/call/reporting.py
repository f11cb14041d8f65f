"""The report of a finished call, in figures and words; loaded by calls that want one."""

from __future__ import annotations

import os

from ..identity.effects import effects_of
from ..measure.machine import this_machine, usable_cpus, waiting_programs
from ..options import environment_cap
from ..show.hints import hints_for_effects, hints_for_run
from ..show.report import Node, RunReport
from ..units import counted, duration
from .adviser import cut_by
from .costs import machine_costs
from .outcome import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..decide.figures import Profile

__all__ = ["contradictions", "others", "report_of"]

# A run is reported if it took this many times as long or as short as forecast, and either time is
# at least NOTEWORTHY_SECONDS.
NOTEWORTHY = 2.0
NOTEWORTHY_SECONDS = 0.02


def report_of(outcome: Outcome, func: Callable[..., Any] | None) -> RunReport:
    """Return the report of a finished call: what was decided and what happened.

    Args:
        outcome: the call.
        func: its function, for hints on side effects; None if it is gone.
    """
    ran, adviser, plan = outcome.ran, outcome.adviser, outcome.plan
    early = outcome.ended_early
    profile = outcome.profile()
    crew = ran.crew if ran is not None and not outcome.gave_up else None
    spans = tuple(ran.course.spans) if ran is not None else ()
    used = plan is not None and ran is not None and not outcome.gave_up
    worker_items = ran.course.tally.items if used and ran is not None else 0
    long = outcome.elapsed >= NOTEWORTHY_SECONDS
    busy = others(waiting_programs(), os.cpu_count() or 1) if long else ""
    told = [*outcome.warnings, *_about_limits(outcome)]
    if not early:
        told += contradictions(outcome.forecast, outcome.elapsed, busy)
    return RunReport(
        function=outcome.function,
        items=outcome.produced,
        backend=plan.executor if plan is not None and used else "serial",
        n_jobs=ran.jobs if ran is not None else 1,
        chunksize=next((span.items for span in spans if span.worker), 0),
        chunks=ran.course.chunks if ran is not None else 0,
        start_method=adviser.method if used and adviser is not None else "",
        start_reason=adviser.method_reason if used and adviser is not None else "",
        reason=_why(outcome),
        cache_hit=adviser is not None and adviser.recall.hit,
        plan=plan or outcome.serial_plan,
        profile=profile,
        forecast_seconds=outcome.forecast,
        actual_seconds=outcome.elapsed,
        decided_seconds=outcome.decided,
        serial_seconds=(
            None if profile is None or early else profile.item_seconds * outcome.produced
        ),
        caller_items=_caller_items(outcome, worker_items),
        worker_items=worker_items,
        workers=tuple(sorted({span.worker for span in spans if span.worker})),
        nodes=_nodes(outcome),
        retried=ran.retried if ran is not None else 0,
        warnings=tuple(told),
        timeline=spans,
        machine=this_machine(),
        hints=()
        if profile is None
        else tuple(_hints(outcome, func, profile, used=used, busy=busy)),
        busy=busy,
        ended_early=early,
        begun=outcome.begun,
        crew_begun=crew.started_at if crew is not None else None,
        crew_ready=crew.ready_at if crew is not None else None,
        kept=outcome.kept,
    )


def _nodes(outcome: Outcome) -> tuple[Node, ...]:
    """Return what each node of another engine did, as far as the timeline has it."""
    crew = None if outcome.ran is None else outcome.ran.crew
    if outcome.ran is None or crew is None or not crew.nodes:
        return ()
    found: dict[int, Node] = {}
    for span in outcome.ran.course.spans:
        if span.worker in crew.nodes:
            before = found.get(span.worker, Node(crew.nodes[span.worker], 0, 0, 0.0))
            found[span.worker] = before._replace(
                chunks=before.chunks + 1,
                items=before.items + span.items,
                seconds=before.seconds + span.seconds,
            )
    return tuple(sorted(found.values()))


def _why(outcome: Outcome) -> str:
    """Return why the call ran as it did, also where nothing was planned."""
    if outcome.kept and not outcome.produced and not outcome.ended_early:
        return "all results were kept by earlier calls"
    if outcome.plan is None and outcome.options.backend == "serial":
        return 'backend="serial" was asked for'
    limit = cut_by(outcome.options.n_jobs)
    if outcome.plan is None and outcome.jobs == 1 and limit:
        return f"{limit} allows one job"
    undecided = outcome.plan is None and outcome.forecast is None and outcome.jobs != 1
    if undecided and (outcome.ended_early or not outcome.produced):
        return "it ended before anything was decided"
    adviser = outcome.adviser
    if outcome.gave_up and adviser is not None and adviser.method == "forkserver":
        # Forked workers would have inherited what cannot be sent.
        return f"{outcome.reason}; by forkserver: {adviser.method_reason}"
    return outcome.reason


def _about_limits(outcome: Outcome) -> list[str]:
    """Return a warning if the environment allows fewer workers than were asked for."""
    n_jobs, limit = outcome.options.n_jobs, cut_by(outcome.options.n_jobs)
    return [f"n_jobs={n_jobs} was cut to {outcome.jobs} by {limit}"] if limit else []


def _caller_items(outcome: Outcome, worker_items: int) -> int:
    """Return how many items ran in the calling process.

    Args:
        outcome: the finished call.
        worker_items: how many ran in workers.
    """
    if not outcome.ended_early:
        return max(0, outcome.produced - worker_items)
    own = outcome.ran.course.own.items if outcome.ran is not None else 0
    return outcome.evidence.probe.items + own


def _hints(
    outcome: Outcome,
    func: Callable[..., Any] | None,
    profile: Profile,
    *,
    used: bool,
    busy: str,
) -> list[str]:
    """Return hints to make the call faster, and on side effects that workers lose."""
    found = [] if outcome.ended_early else _hints_for_speed(outcome, profile, used=used, busy=busy)
    in_processes = used and outcome.plan is not None and outcome.plan.executor != "thread"
    ran = outcome.ran
    if func is not None and in_processes and ran is not None and ran.course.tally.items:
        found += hints_for_effects(effects_of(func))
    return found


def _hints_for_speed(outcome: Outcome, profile: Profile, *, used: bool, busy: str) -> list[str]:
    """Return hints to make the call faster."""
    crew = outcome.ran.crew if outcome.ran is not None else None
    started = crew is not None and not crew.reused
    found = hints_for_run(
        profile,
        outcome.produced,
        machine_costs(use_cache=outcome.options.use_cache),
        outcome.plan if used else None,
        jobs=None if _about_limits(outcome) else outcome.jobs,
        chunksize=outcome.options.chunksize,
        cpus=usable_cpus(),
        seconds=outcome.elapsed,
        start_seconds=crew.start_seconds + crew.end_seconds if crew and started else 0.0,
        shipped_bytes=crew.shipped_bytes if crew is not None else 0,
        busy=busy,
        allowed=environment_cap(usable_cpus()),
    )
    adviser = outcome.adviser
    if adviser is not None and outcome.options.backend is None and outcome.options.seed is None:
        hint = adviser.threads_hint(profile, outcome.produced, outcome.elapsed)
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
