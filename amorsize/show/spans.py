"""A call as spans of OpenTelemetry (the extra ``otel``): one for the run, one for each chunk."""

from __future__ import annotations

import time
from collections.abc import Callable

from .lanes import Bar, lanes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .report import RunReport

__all__ = ["emit_spans"]

_NANOSECONDS = 1_000_000_000
# More chunks than this would tell nobody more.
_MOST_CHUNKS = 2_000


def emit_spans(trace: Any, report: Callable[[], RunReport], error: BaseException | None) -> None:
    """Emit the spans of a finished call, if anybody takes them.

    Args:
        trace: the module ``opentelemetry.trace``.
        report: gives the report.
        error: what ended the call; None for nothing.
    """
    tracer = trace.get_tracer("amorsize")
    if type(tracer).__name__ in ("NoOpTracer", "ProxyTracer"):  # nobody takes spans
        return
    told = report()
    # The timeline has the monotonic clock, spans have the system's.
    origin = time.time() - time.monotonic() + told.begun
    run = tracer.start_span(
        f"amorsize {told.function}", start_time=_time(origin), attributes=_attributes(told)
    )
    if run.is_recording():
        inside = trace.set_span_in_context(run)
        bars = [(bar, lane.name) for lane in lanes_of(told) for bar in lane.bars if bar.items]
        for bar, name in bars[:_MOST_CHUNKS]:
            _emit(tracer, inside, bar, name, origin)
        if error is not None:
            run.record_exception(error)
            run.set_status(trace.StatusCode.ERROR, str(error))
    run.end(end_time=_time(origin + told.actual_seconds))


def _emit(tracer: Any, inside: Any, bar: Bar, name: str, origin: float) -> None:
    begin = origin + bar.begin
    span = tracer.start_span(
        "amorsize chunk",
        context=inside,
        start_time=_time(begin),
        attributes={
            "amorsize.worker": name,
            "amorsize.first_item": bar.start,
            "amorsize.items": bar.items,
            "amorsize.cpu_seconds": bar.cpu_seconds,
            "amorsize.result_bytes": bar.bytes,
        },
    )
    span.end(end_time=_time(begin + bar.seconds))


def _attributes(report: RunReport) -> dict[str, Any]:
    return {
        "amorsize.items": report.items,
        "amorsize.backend": report.backend,
        "amorsize.n_jobs": report.n_jobs,
        "amorsize.chunks": report.chunks,
        "amorsize.start_method": report.start_method,
        "amorsize.reason": report.reason,
        "amorsize.cache_hit": report.cache_hit,
        "amorsize.retried": report.retried,
    }


def _time(seconds: float) -> int:
    return int(seconds * _NANOSECONDS)
