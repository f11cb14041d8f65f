"""The timeline of a run as Chrome trace events.

The format is that of the Trace Event Format document (Google, 2016); Perfetto and speedscope read
it.
"""

from __future__ import annotations

import os

from .lanes import KINDS, Bar, lanes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .report import RunReport

__all__ = ["trace_of"]

_MICROSECONDS = 1e6


def trace_of(report: RunReport) -> dict[str, Any]:
    """Return the timeline of a run as Chrome trace events, ready for JSON.

    Args:
        report: the report.
    """
    pid = os.getpid()
    events: list[dict[str, Any]] = [
        _named("process_name", pid, 0, f"amorsize: {report.function}"),
    ]
    for lane in lanes_of(report):
        events.append(_named("thread_name", pid, lane.worker, lane.name))
        events += [_event(bar, pid, lane.worker) for bar in lane.bars]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"reason": report.reason, "items": report.items},
    }


def _named(what: str, pid: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": pid, "tid": thread, "args": {"name": name}}


def _event(bar: Bar, pid: int, thread: int) -> dict[str, Any]:
    name = KINDS[bar.kind]
    if bar.items:
        name = f"items {bar.start} to {bar.start + bar.items - 1}"
    return {
        "name": name,
        "cat": bar.kind,
        "ph": "X",
        "pid": pid,
        "tid": thread,
        "ts": bar.begin * _MICROSECONDS,
        "dur": bar.seconds * _MICROSECONDS,
        "args": {
            "items": bar.items,
            "cpu_seconds": bar.cpu_seconds,
            "result_bytes": bar.bytes,
        },
    }
