"""What a run decided and what really happened, as one value and as one screen of text."""

from __future__ import annotations

from dataclasses import dataclass

from ..decide.model import Profile
from ..decide.planner import Plan
from ..units import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..run.engine import Span

__all__ = ["RunReport"]


@dataclass(frozen=True, slots=True)
class RunReport:
    """What one call decided and what happened.

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
        plan: the plan that was carried out, None when the call was over before one was needed, or
            nothing was left to decide.
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

    def explain(self) -> str:
        """Return what happened and why, as a few lines of text."""
        lines = [
            f"{self.function}: {self.items:,} items in {duration(self.actual_seconds)}",
            f"  ran       {self._where()}",
            f"  because   {self.reason}",
            f"  decided   after {duration(self.decided_seconds)}, "
            + ("from what was remembered" if self.cache_hit else "from what was measured"),
        ]
        if self.profile is not None:
            lines.append(f"  an item   {_describe(self.profile)}")
        if self.forecast_seconds is not None:
            lines.append(
                f"  forecast  {duration(self.forecast_seconds)}, "
                f"actual {duration(self.actual_seconds)}"
            )
        if self.serial_seconds is not None and self.backend != "serial":
            gain = self.serial_seconds / max(self.actual_seconds, 1e-9)
            lines.append(
                f"  serially  {duration(self.serial_seconds)} by the items' own times: "
                f"{gain:.2f} times as long"
            )
        if self.retried:
            lines.append(f"  retried   {self.retried:,} items of lost workers")
        lines += [f"  warning   {text}" for text in self.warnings]
        return "\n".join(lines)

    def _where(self) -> str:
        if self.backend == "serial":
            return "in the calling process"
        kind = "threads" if self.backend == "thread" else f"processes ({self.start_method})"
        return (
            f"{self.worker_items:,} items in {self.n_jobs} {kind}, {self.chunks} chunks, "
            f"and {self.caller_items:,} in the calling process"
        )


def _describe(profile: Profile) -> str:
    parts = [f"{duration(profile.item_seconds)} +- {duration(profile.spread)}"]
    parts.append(f"{min(profile.cpu_share, 99.0):.0%} CPU")
    if profile.result_bytes:
        parts.append(f"results of {profile.result_bytes:,.0f} bytes")
    return ", ".join(parts)
