"""What a run decided and what really happened, as one value and as one screen of text."""

from __future__ import annotations

from dataclasses import dataclass

from ..decide.machine import Machine
from ..decide.model import Profile
from ..decide.planner import Plan
from ..units import counted, duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..run.chunks import Span

__all__ = ["RunReport", "describe", "describe_candidates"]


@dataclass(frozen=True, slots=True, repr=False)
class RunReport:
    """What one call decided and what happened. Printed, it is what ``explain`` returns.

    Attributes:
        function: name of the function.
        items: results produced.
        backend: "serial", "thread" or "process": where the items after the first ones ran.
        n_jobs: workers used; 1 when everything ran in the calling process.
        chunksize: items in the first chunk, 0 when there was none.
        chunks: number of chunks that came back.
        start_method: how workers were started, "" when there were none.
        start_reason: why that way.
        reason: why this backend and number of workers.
        cache_hit: whether a remembered profile was used.
        plan: the plan that was carried out (the last one made, where it said serial), None when the
            call was over before one was needed, or nothing was left to decide.
        profile: what was measured of the items, None when nothing was.
        forecast_seconds: what the whole call was forecast to take, None without a forecast.
        actual_seconds: what it took.
        decided_seconds: how long after its start the call knew what to do.
        serial_seconds: what the items took by themselves, one after the other, wherever they ran;
            None when none was timed.
        caller_items: items that ran in the calling process.
        worker_items: items that ran in workers.
        workers: pids of the workers that ran any.
        retried: items handed out again after a worker was lost.
        warnings: what the caller should know.
        timeline: every chunk, where and when it ran.
        machine: what the process may use, as it was when the call ended.
        hints: what would make it faster, and what the function does that has no effect in workers.
        busy: what other programs did with the CPUs when the call ended, "" where they left some.
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
        if self.start_method:
            lines.append(f"  started   {_started(self.start_method, self.start_reason)}")
        if self.decided_seconds > 0:
            lines.append(f"  decided   after {duration(self.decided_seconds)}{self._source()}")
        lines += self._figures()
        if self.machine is not None:
            lines.append(f"  machine   {self.machine}")
        if self.busy:
            lines.append(f"  busy      {self.busy}: these times are theirs as well")
        # Without a forecast the plan rests on what was assumed of the items.
        if self.plan is not None and self.forecast_seconds is not None:
            lines += describe_candidates(self.plan)
        lines += [f"  warning   {text}" for text in self.warnings]
        lines += [f"  hint      {text}" for text in self.hints]
        return "\n".join(lines)

    def _source(self) -> str:
        """Return what it was decided from; "" where it had to be before anything was known."""
        if self.cache_hit:
            return ", from what was remembered"
        return "" if self.forecast_seconds is None else ", from what was measured"

    def _headline(self) -> str:
        return f"{self.function}: {counted(self.items, 'item')} in {duration(self.actual_seconds)}"

    def _figures(self) -> list[str]:
        """Return lines for what items cost, what was forecast, and what it came to."""
        lines = []
        if self.profile is not None:
            lines.append(f"  an item   {describe(self.profile)}")
        if self.forecast_seconds is not None:
            lines.append(
                f"  forecast  {duration(self.forecast_seconds)}{self._range()}, "
                f"actual {duration(self.actual_seconds)}"
            )
        if self.serial_seconds is not None and self.backend != "serial":
            gain = self.serial_seconds / max(self.actual_seconds, 1e-9)
            lines.append(
                f"  serially  {duration(self.serial_seconds)} by the items' own times: "
                f"{gain:.2f} times as long"
            )
        if self.retried:
            lines.append(f"  retried   {counted(self.retried, 'item')} of lost workers")
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
        if self.backend == "thread":
            workers = counted(self.n_jobs, "thread")
        else:
            workers = f"{counted(self.n_jobs, 'process', 'processes')} ({self.start_method})"
        where = (
            f"{counted(self.worker_items, 'item')} in {workers}, {counted(self.chunks, 'chunk')}"
        )
        if self.caller_items:
            where += f", and {self.caller_items:,} in the calling process"
        return where


def _started(method: str, reason: str) -> str:
    """Return how workers were started, and why so: also why not by fork, where it was not."""
    how = "as threads" if method == "thread" else f"by {method}"
    return f"{how}: {reason}" if reason else how


# One screen: the best of what was considered.
MOST_SHOWN = 6


def describe_candidates(plan: Plan) -> list[str]:
    """Return a line for each of the best candidates of a plan, what was chosen marked.

    Args:
        plan: the plan.
    """
    serial = [candidate for candidate in plan.candidates if candidate.method == "serial"]
    others = [candidate for candidate in plan.candidates if candidate.method != "serial"]
    best = sorted(others, key=lambda candidate: candidate.seconds)[: MOST_SHOWN - 1]
    chosen = (plan.method or "serial", plan.n_jobs)
    lines = []
    for candidate in sorted([*serial, *best], key=lambda candidate: candidate.seconds):
        mark = "<- chosen" if (candidate.method, candidate.workers) == chosen else ""
        lines.append(f"  forecast  {duration(candidate.seconds):>8}  {candidate}  {mark}".rstrip())
    return lines


def describe(profile: Profile) -> str:
    """Return what an item costs in a few words."""
    parts = [f"{duration(profile.item_seconds)} +- {duration(profile.spread)}"]
    parts.append(f"{min(profile.cpu_share, 99.0):.0%} CPU")
    if profile.result_bytes:
        parts.append(f"results of {counted(profile.result_bytes, 'byte')}")
    return ", ".join(parts)
