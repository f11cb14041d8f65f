"""The report of a run: what it decided and what happened, as a value and as text."""

from __future__ import annotations

from dataclasses import dataclass

from ..decide.figures import Profile
from ..decide.planner import Plan
from ..measure.machine import Machine
from ..tuples import NamedTuple
from ..units import counted, duration, times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.figure import Figure

    from ..run.chunks import Span

__all__ = ["Node", "RunReport", "describe", "describe_candidates"]


class Node(NamedTuple):
    """What one worker of another engine did.

    Attributes:
        name: host and process, as "host:pid".
        chunks: number of its chunks.
        items: number of their items.
        seconds: time of these items, s.
    """

    name: str
    chunks: int
    items: int
    seconds: float


@dataclass(frozen=True, slots=True, repr=False)
class RunReport:
    """What one call decided and what happened; printing it prints the text of ``explain``.

    Attributes:
        function: name of the function.
        items: results given to the caller.
        backend: where the items after the first ones ran: "serial", "thread", "process", or
            "remote" for another engine.
        n_jobs: workers used; 1 when everything ran in the calling process.
        chunksize: items in the first chunk of a worker, 0 when there was none.
        chunks: number of chunks that came back.
        start_method: how workers were started, "" when there were none.
        start_reason: why that start method.
        reason: why this backend and number of workers.
        cache_hit: whether a record was used.
        plan: the plan that was carried out, or the plan that said serial; None when the call ended
            before it needed a plan, or there was nothing to decide.
        profile: the measurements of the items, None without any.
        forecast_seconds: forecast duration of the whole call, None without a forecast.
        actual_seconds: actual duration of the call.
        decided_seconds: time from the start of the call to its decision.
        serial_seconds: sum of the items' own times, wherever they ran; None when none was timed, or
            the call ended early.
        caller_items: items that ran in the calling process.
        worker_items: items that ran in workers.
        workers: pids of the workers that ran items.
        retried: items handed out again after a worker was lost.
        warnings: what the caller should know.
        timeline: where and when each chunk ran, for the first chunks if there are very many.
        machine: what the process may use, as it was when the call ended.
        hints: how to make the call faster, and which side effects of the function workers lose.
        busy: note on the load by other programs when the call ended, "" where they left a CPU idle.
        ended_early: whether the call ended before it gave a result for each item: an item raised, a
            time limit passed, or the consumer stopped.
        nodes: what each worker of another engine did; empty for this machine.
        begun: when the call began, on the clock of the timeline, s.
        crew_begun: when its workers were started, None without workers.
        crew_ready: when the first of them was ready, None if that is not known.
        kept: results that ``resume`` had kept of earlier calls; ``items`` leaves them out.
    """

    function: str
    items: int
    backend: str
    n_jobs: int
    chunksize: int
    chunks: int
    start_method: str
    start_reason: str
    reason: str
    cache_hit: bool
    plan: Plan | None
    profile: Profile | None
    forecast_seconds: float | None
    actual_seconds: float
    decided_seconds: float
    serial_seconds: float | None
    caller_items: int
    worker_items: int
    workers: tuple[int, ...]
    retried: int
    warnings: tuple[str, ...]
    timeline: tuple[Span, ...]
    machine: Machine | None = None
    hints: tuple[str, ...] = ()
    busy: str = ""
    ended_early: bool = False
    nodes: tuple[Node, ...] = ()
    begun: float = 0.0
    crew_begun: float | None = None
    crew_ready: float | None = None
    kept: int = 0

    def __repr__(self) -> str:
        return f"<RunReport {self._headline()}, {self._where()}>"

    def __str__(self) -> str:
        return self.explain()

    def explain(self) -> str:
        """Return what happened and why, as a few lines of text."""
        lines = [
            self._headline(),
            f"  ran       {self._where()}",
            f"  because   {self.reason}",
        ]
        if self.kept:
            results = counted(self.kept, "result was", "results were")
            lines.append(f"  kept      {results} there, of earlier calls (resume)")
        if self.start_method:
            lines.append(f"  started   {_started(self.start_method, self.start_reason)}")
        if self.decided_seconds > 0:
            lines.append(f"  decided   after {duration(self.decided_seconds)}{self._source()}")
        lines += self._figures()
        lines += [
            f"  node      {node.name}: {counted(node.items, 'item')} in {duration(node.seconds)}"
            for node in self.nodes[:MOST_NODES]
        ]
        if self.machine is not None:
            lines.append(f"  machine   {self.machine}")
        if self.busy:
            lines.append(f"  busy      {self.busy}: these times are theirs as well")
        # Without a forecast, the plan rests on assumptions about the items.
        if self.plan is not None and self.forecast_seconds is not None:
            lines += describe_candidates(self.plan, self._mark())
        lines += [f"  warning   {text}" for text in self.warnings]
        lines += [f"  hint      {text}" for text in self.hints]
        return "\n".join(lines)

    def plot(self) -> Figure:
        """Return a picture: who did what when, the forecast and what it became.

        It needs matplotlib, the extra ``plot``. A notebook shows it; ``savefig`` writes it to a
        file.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from .plot import plotted

        return plotted(self)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write a page of the report: the timeline to look into, the decision, the slowest chunks.

        The page needs no network.

        Args:
            path: the file to write.

        Raises:
            OSError: it cannot be written.
        """
        from .page import page_of

        with open(path, "w", encoding="utf-8") as file:
            file.write(page_of(self))

    def to_trace(self, path: str | PathLike[str]) -> None:
        """Write the timeline as Chrome trace events, which Perfetto and speedscope open.

        Args:
            path: the file to write, JSON.

        Raises:
            OSError: it cannot be written.
        """
        import json

        from .trace import trace_of

        with open(path, "w", encoding="utf-8") as file:
            json.dump(trace_of(self), file)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the text, and the lanes."""
        from .page import summary_of

        return summary_of(self)

    def _source(self) -> str:
        """Return what the decision was based on, "" if it was made before any measurement."""
        if self.cache_hit:
            return ", from what was remembered"
        return "" if self.forecast_seconds is None else ", from what was measured"

    def _headline(self) -> str:
        took = duration(self.actual_seconds)
        if self.ended_early:
            return (
                f"{self.function}: ended early, after {took}, with {counted(self.items, 'result')}"
            )
        return f"{self.function}: {counted(self.items, 'item')} in {took}"

    def _mark(self) -> str:
        """Return the mark of the planned candidate; the run may have deviated from the plan."""
        done = self.plan is not None and self.backend == self.plan.executor
        as_planned = done and self.start_method in ("", self.plan.method if self.plan else "")
        return "<- chosen" if as_planned else "<- planned"

    def _figures(self) -> list[str]:
        """Return lines for the cost of an item, the forecast and the actual times."""
        lines = []
        if self.profile is not None:
            cpus = None if self.machine is None else self.machine.cpus
            lines.append(f"  an item   {describe(self.profile, cpus)}")
        if self.forecast_seconds is not None:
            actual = "" if self.ended_early else f", actual {duration(self.actual_seconds)}"
            lines.append(f"  forecast  {duration(self.forecast_seconds)}{self._range()}{actual}")
        if self.serial_seconds is not None and self.backend != "serial":
            gain = self.serial_seconds / max(self.actual_seconds, 1e-9)
            serially = f"{duration(self.serial_seconds)}, {times(gain)} times as long"
            lines.append(f"  serially  {serially}, if each item took as long alone")
        if self.retried:
            items = counted(self.retried, "item was", "items were")
            lines.append(f"  retried   {items} handed out again, in all, as workers were lost")
        return lines

    def _range(self) -> str:
        plan = self.plan
        if plan is None or self.forecast_seconds is None:
            return ""
        low, high = (self.decided_seconds + part for part in (plan.low, plan.high))
        return f" ({duration(low)} to {duration(high)})"

    def _where(self) -> str:
        if self.backend == "serial":
            return "in the calling process"
        if self.backend == "remote":
            workers = f"{counted(self.n_jobs, 'worker')} of {self.start_method.partition(':')[0]}"
        elif self.backend == "thread":
            workers = counted(self.n_jobs, "thread")
        else:
            number = self.n_jobs - (self.plan is not None and self.plan.shared)
            workers = f"{counted(number, 'process', 'processes')} ({self.start_method})"
        where = (
            f"{counted(self.worker_items, 'item')} in {workers}, {counted(self.chunks, 'chunk')}"
        )
        if self.caller_items:
            where += f", and {self.caller_items:,} in the calling process"
        return where


def _started(method: str, reason: str) -> str:
    """Return how workers were started and why, which includes why fork was not used."""
    if ":" in method:
        return f"by {method.partition(':')[0]}, as {reason}"
    how = "as threads" if method == "thread" else f"by {method}"
    return f"{how}: {reason}" if reason else how


# The most workers of another engine to show.
MOST_NODES = 8
# The most candidates to show, so that a report fits one screen.
MOST_SHOWN = 6


def describe_candidates(plan: Plan, mark: str = "<- chosen") -> list[str]:
    """Return a line for each of the best candidates of a plan, and mark the chosen one.

    Args:
        plan: the plan.
        mark: the text of the mark.
    """
    serial = [candidate for candidate in plan.candidates if candidate.method == "serial"]
    others = [candidate for candidate in plan.candidates if candidate.method != "serial"]
    best = sorted(others, key=lambda candidate: candidate.seconds)[: MOST_SHOWN - 1]
    named = (plan.method or "serial", plan.n_jobs)
    lines = []
    for candidate in sorted([*serial, *best], key=lambda candidate: candidate.seconds):
        end = mark if (candidate.method, candidate.workers) == named else ""
        lines.append(f"  forecast  {duration(candidate.seconds):>8}  {candidate}  {end}".rstrip())
    return lines


def describe(profile: Profile, cpus: int | None = None) -> str:
    """Return the cost of an item in a few words; figures that were not measured are left out.

    Args:
        profile: the measurements.
        cpus: usable CPUs, None when unknown.

    >>> describe(Profile(0.01, spread=0.002, cpu_share=0.5))
    '10 ms +- 2 ms, 50% CPU'
    >>> describe(Profile(0.01))
    '10 ms'
    """
    parts = [duration(profile.item_seconds)]
    # A single block of items has no spread except for rounding errors.
    if profile.spread > LEAST_SPREAD * profile.item_seconds:
        parts[0] += f" +- {duration(profile.spread)}"
    if _is_share(profile, cpus):
        parts.append(f"{profile.cpu_share:.0%} CPU")
    if profile.result_bytes:
        parts.append(f"results of {counted(profile.result_bytes, 'byte')}")
    return ", ".join(parts)


# A spread below this share of an item's time is a rounding error.
LEAST_SPREAD = 1e-4
# A CPU share needs at least this much time: reading the CPU clocks takes 2 us, and some of them
# tick a hundred times a second.
LEAST_CPU_SECONDS = 0.001
MOST_SHARE = 1.5


def _is_share(profile: Profile, cpus: int | None) -> bool:
    """Return whether the CPU share was really measured.

    A share of exactly 1 is what a plan assumes when the share is unknown.
    """
    measured = profile.cpu_share != 1.0
    long = profile.items * profile.item_seconds >= LEAST_CPU_SECONDS
    return measured and long and (cpus is None or profile.cpu_share <= MOST_SHARE * cpus)
