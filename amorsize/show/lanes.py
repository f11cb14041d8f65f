"""The timeline of a run as lanes, one for each worker: what it did when."""

from __future__ import annotations

from ..tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .report import RunReport

__all__ = ["KINDS", "Bar", "Lane", "lanes_of"]

# What a lane shows; a gap between bars is a time in which a worker waited.
KINDS = {
    "first": "first items, in the calling process",
    "start": "starting workers",
    "import": "opening the function, imports",
    "work": "items",
    "caller": "items in the calling process",
}


class Bar(NamedTuple):
    """What a worker did for some time.

    Attributes:
        kind: one of ``KINDS``.
        begin: when it began, s after the begin of the call.
        seconds: how long it took.
        start: index of the first item.
        items: number of items.
        cpu_seconds: CPU time of the items, 0 where not known.
        bytes: size of the results, as sent.
    """

    kind: str
    begin: float
    seconds: float
    start: int = 0
    items: int = 0
    cpu_seconds: float = 0.0
    bytes: int = 0


class Lane(NamedTuple):
    """What one worker, or the calling process, did.

    Attributes:
        name: who.
        worker: pid of the worker, or its number on another engine; 0 for the calling process.
        bars: what it did, in order.
    """

    name: str
    worker: int
    bars: tuple[Bar, ...]


def lanes_of(report: RunReport) -> list[Lane]:
    """Return the lanes of a run, that of the calling process first.

    Args:
        report: the report.
    """
    lanes = [Lane("caller", 0, tuple(_callers(report)))]
    nodes = [node.name for node in report.nodes]
    for number, worker in enumerate(report.workers, 1):
        name = (
            f"worker {number}" if not nodes else nodes[number - 1] if number <= len(nodes) else "?"
        )
        lanes.append(Lane(name, worker, tuple(_workers(report, worker))))
    return lanes


def _callers(report: RunReport) -> list[Bar]:
    own = [span for span in report.timeline if not span.worker]
    first = report.caller_items - sum(span.items for span in own)
    bars = []
    if first > 0:
        end = report.actual_seconds if report.backend == "serial" else report.decided_seconds
        if report.crew_begun is not None:
            end = min(end, report.crew_begun - report.begun)
        if report.profile is not None:  # a consumer, or the decision, may have taken the rest
            end = min(end, first * report.profile.item_seconds)
        bars.append(Bar("first", 0.0, max(0.0, end), 0, first))
    if report.crew_begun is not None and report.crew_ready is not None:
        begin = report.crew_begun - report.begun
        # The caller may run items while workers of a fresh interpreter start.
        ready = min([report.crew_ready, *(span.begun for span in own)]) - report.begun
        bars.append(Bar("start", begin, max(0.0, ready - begin)))
    bars += [
        Bar("caller", span.begun - report.begun, span.seconds, span.start, span.items,
            span.cpu_seconds, span.bytes)
        for span in own
    ]  # fmt: skip
    return sorted(bars, key=lambda bar: bar.begin)


def _workers(report: RunReport, worker: int) -> list[Bar]:
    bars = sorted(
        Bar("work", span.begun - report.begun, span.seconds, span.start, span.items,
            span.cpu_seconds, span.bytes)
        for span in report.timeline
        if span.worker == worker
    )  # fmt: skip
    if bars and report.crew_begun is not None and not report.nodes:
        begin = report.crew_begun - report.begun
        ready = begin if report.crew_ready is None else report.crew_ready - report.begun
        first = bars[0].begin
        ready = min(ready, first)
        opening = [Bar("start", begin, ready - begin), Bar("import", ready, first - ready)]
        bars = [bar for bar in opening if bar.seconds > 0] + bars
    return bars
