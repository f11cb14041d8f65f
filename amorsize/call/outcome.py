"""What a finished call has shown: the profile of its items, and the machine's costs.

Both are computed from the figures of the probe and the ran. ``recording`` records them, and
``reporting`` reports them.
"""

from __future__ import annotations

from ..decide.figures import FRESH_METHODS, SHARED_FROM_BYTES, WAITING_SHARE, Profile
from ..decide.learning import MOST_CONTENTION, Seen
from ..decide.model import slowdown
from ..decide.planner import Plan
from ..measure.machine import resident_bytes, usable_cpus
from ..measure.probe import profile_of
from ..measure.timing import Tally
from ..options import Options
from ..tuples import NamedTuple
from .adviser import Adviser
from .costs import machine_costs
from .evidence import Evidence
from .ran import Ran

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..decide.steps import Steps
    from ..run.chunks import Span

__all__ = ["Outcome", "chunk_gaps"]

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
    """A finished call, in values that hold neither its function nor its items.

    Attributes:
        function: name of the function that was called.
        options: checked options.
        items: number of items of the input, None when unknown.
        jobs: workers asked for, None where amorsize decided.
        produced: results given to the caller.
        elapsed: duration of the call, s.
        evidence: measurements of the items that ran in the calling process first.
        ran: what the engine did that ran the rest, None without one.
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
        begun: when the call began, on the monotonic clock, s.
        kept: results that ``resume`` had kept of earlier calls.
    """

    function: str
    options: Options
    items: int | None
    jobs: int | None
    produced: int
    elapsed: float
    evidence: Evidence
    ran: Ran | None
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
    begun: float = 0.0
    kept: int = 0

    def profile(self) -> Profile | None:
        """Return the profile of the items as this run showed it, wherever they ran."""
        tally, adviser, ran = Tally(), self.adviser, self.ran
        probe = self.evidence.probe
        # If the process needed more memory before, its peak did not grow, which shows nothing.
        remembered = adviser.recall.profile if adviser is not None else None
        travel = self.evidence.travel or remembered
        grown = self.evidence.needed(travel)
        if remembered is not None:
            grown = max(grown, remembered.memory_bytes)
        if ran is None or adviser is None or not ran.course.tally.items:
            tally.merge(probe.usual)
            if ran is not None:
                tally.merge(ran.course.own)
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
        for part in (probe.rest, ran.course.own, ran.course.tally):
            tally.merge(part)
        if adviser.cluster is not None:  # its workers are other machines than this one
            return profile_of(
                tally, tally.seconds / tally.items, memory_bytes=grown, travel=travel
            )._replace(result_bytes=ran.course.result_bytes, arg_bytes=ran.course.arg_bytes)
        # Items took longer in workers than they take alone; that is corrected below.
        known = profile_of(tally, tally.seconds / tally.items, memory_bytes=grown, travel=travel)
        contention = self._contention(ran) or (travel.contention if travel is not None else 0.0)
        known = known._replace(
            contention=contention,
            cpu_share=self._cpu_share(known, remembered),
            waiting_workers=self._waiting(ran, known),
        )
        costs = machine_costs(use_cache=self.options.use_cache)
        slow = slowdown(known, costs, ran.jobs, adviser.machine.cpus)
        beside = ran.course.tally.seconds
        if ran.shares:
            beside += ran.course.own.seconds
        alone = tally.seconds - beside * (1 - 1 / slow)
        # The caller's items include the time to read them.
        alone += ran.course.tally.items * self.input_seconds
        profile = known._replace(item_seconds=max(1e-9, alone / tally.items))
        if ran.memory_bytes is not None and not (ran.crew and ran.crew.reused):
            profile = profile._replace(memory_bytes=ran.memory_bytes)
        importing = self._importing(ran, adviser)
        if importing is not None:
            profile = profile._replace(import_seconds=importing)
        if ran.course.packed and profile.result_bytes < SHARED_FROM_BYTES:
            profile = profile._replace(pickle_seconds=ran.course.packed / ran.course.tally.items)
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

    def _waiting(self, ran: Ran, known: Profile) -> int:
        """Return the number of workers that this call showed to wait as well as one."""
        assert self.adviser is not None
        cpus, tally, alone = (
            self.adviser.machine.cpus,
            ran.course.tally,
            self.evidence.probe.mean,
        )
        if ran.jobs <= cpus and self.steps is None:
            return known.waiting_workers
        from ..decide.steps import Stage, Steps  # few runs have more workers than CPUs

        steps = self.steps
        if steps is None:
            steps = Steps(cpus, alone)
            steps.book(Stage(ran.workers, tally.items, tally.seconds, tally.cpu_share))
        return steps.shown

    def _importing(self, ran: Ran, adviser: Adviser) -> float | None:
        """Return how long fresh workers took to import what the function uses, None if unknown."""
        crew = ran.crew
        begun = [span.begun for span in ran.course.spans if span.worker]
        if adviser.method not in FRESH_METHODS or crew is None or crew.reused or ran.retried:
            return None
        if crew.ready_at is None or not begun:
            return None
        return max(LEAST_MEASURED, min(begun) - crew.ready_at)

    def _contention(self, ran: Ran) -> float | None:
        """Return how much longer items took in workers than in the caller, None if unknown.

        Only items of equal cost can be compared. Otherwise the items that ran in the caller may
        have been the cheap ones.
        """
        probe, tally, adviser = self.evidence.probe, ran.course.tally, self.adviser
        assert adviser is not None
        if probe.items < 2 or probe.seconds < COMPARABLE_SECONDS or not tally.items:
            return None
        if probe.tally.spread > COMPARABLE_SPREAD * probe.mean:
            return None
        mean = tally.seconds / tally.items
        share = min(1.0, tally.cpu_seconds / tally.seconds)
        busy = min(ran.jobs * share, adviser.machine.cpus)
        whole = Tally()  # of a caller that shares, too: the workers may have had the dear items
        for part in (tally, ran.course.own):
            whole.merge(part)
        if whole.spread > COMPARABLE_SPREAD * mean or busy < 2:
            return None
        found = (mean / probe.mean - 1) * (adviser.machine.cpus - 1) / (busy - 1)
        return min(max(found, LEAST_MEASURED), MOST_CONTENTION)

    def seen(self) -> Seen:
        """Return the machine's costs as this run with workers showed them."""
        ran, adviser = self.ran, self.adviser
        assert ran is not None
        assert adviser is not None
        crew, spans = ran.crew, ran.course.spans
        assert crew is not None
        seen = Seen(adviser.method, crew.workers, adviser.machine.cpus, resident_bytes())
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
        undisturbed = not ran.bounded and not ran.retreats
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
        if moved >= SHARED_FROM_BYTES * max(1, ran.course.tally.items):
            seen = seen._replace(shared_seconds=ran.course.packed / moved)
        return seen._replace(contention=self._contention(ran))

    @property
    def ended_early(self) -> bool:
        """Whether the call ended before it gave a result for each item, as far as known.

        An item raised, a time limit passed, or the consumer stopped.
        """
        return self.items is not None and self.produced < self.items


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
