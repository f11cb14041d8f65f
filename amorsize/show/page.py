"""A report as a page of HTML, and as what a notebook shows."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from string import Template

from ..units import counted, duration
from .colours import COLOURS
from .lanes import KINDS, Lane, lanes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .report import RunReport

__all__ = ["page_of", "summary_of"]

_MOST_SLOW = 10
# A notebook keeps every output, so what it shows is small.
_MOST_LANES, _MOST_BARS = 12, 500


def page_of(report: RunReport) -> str:
    """Return the page of a report, which needs no network.

    Args:
        report: the report.
    """
    lanes = lanes_of(report)
    data = {
        "total": max(report.actual_seconds, 1e-9),
        "kinds": KINDS,
        "colours": COLOURS,
        "lanes": [{"name": lane.name, "bars": [[*bar] for bar in lane.bars]} for lane in lanes],
    }
    template = Template(files("amorsize.show").joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        title=escape(report._headline()),
        where=escape(report._where()),
        reason=escape(report.reason),
        kinds=_key(lanes),
        tables="\n".join(_tables(report, lanes)),
        text=escape(report.explain()),
        data=json.dumps(data).replace("<", "\\u003c"),  # no text may end the script
    )


def _key(lanes: list[Lane]) -> str:
    """Return what the colours stand for."""
    met = {bar.kind for lane in lanes for bar in lane.bars}
    return "".join(
        f'<span><i class="kind" style="background:{COLOURS[kind]}"></i>{escape(text)}</span>'
        for kind, text in KINDS.items()
        if kind in met
    )


def _tables(report: RunReport, lanes: list[Lane]) -> Iterable[str]:
    plan = report.plan
    if plan is not None and report.forecast_seconds is not None and plan.candidates:
        yield "<h2>The decision: what was forecast for the items left</h2>"
        named = (plan.method or "serial", plan.n_jobs)
        best = sorted(plan.candidates, key=lambda candidate: candidate.seconds)[:_MOST_SLOW]
        yield _table(
            ("forecast", "way"),
            [(duration(one.seconds), str(one)) for one in best],
            [(one.method, one.workers) == named for one in best],
        )
    bars = [(bar, lane.name) for lane in lanes for bar in lane.bars if bar.items]
    slow = sorted(bars, key=lambda pair: -pair[0].seconds / pair[0].items)[:_MOST_SLOW]
    if slow:
        yield "<h2>The slowest items, by the mean of their chunk</h2>"
        yield _table(
            ("each", "items", "where"),
            [
                (
                    duration(bar.seconds / bar.items),
                    f"{bar.start:,} to {bar.start + bar.items - 1:,}",
                    name,
                )
                for bar, name in slow
            ],
        )
    told = list(report.warnings)
    if report.retried:
        items = counted(report.retried, "item was", "items were")
        told.append(f"{items} handed out again, as workers were lost")
    for title, texts in (("Retries and warnings", told), ("Hints", report.hints)):
        if texts:
            yield f"<h2>{title}</h2><ul>"
            yield from (f"<li>{escape(text)}</li>" for text in texts)
            yield "</ul>"


def _table(
    head: tuple[str, ...], rows: list[tuple[str, ...]], chosen: list[bool] | None = None
) -> str:
    """Return a table, whose first column has numbers."""

    def row(cells: tuple[str, ...], tag: str, mark: str = "") -> str:
        number = ' class="number"'
        inner = "".join(
            f"<{tag}{number if not place else ''}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(cells)
        )
        return f"<tr{mark}>{inner}</tr>"

    marks = [' class="chosen"' if one else "" for one in chosen or [False] * len(rows)]
    body = "".join(row(cells, "td", mark) for cells, mark in zip(rows, marks, strict=True))
    return f'<div class="scroll"><table>{row(head, "th")}{body}</table></div>'


def summary_of(report: RunReport) -> str:
    """Return what a notebook shows of a report: the lanes, and the text to unfold.

    Args:
        report: the report.
    """
    lanes = lanes_of(report)[:_MOST_LANES]
    return (
        f"<div><b>{escape(report._headline())}</b><br>{escape(report._where())}"
        f"{_drawn(lanes, max(report.actual_seconds, 1e-9))}"
        f"<details><summary>more</summary><pre>{escape(report.explain())}</pre></details></div>"
    )


def _drawn(lanes: list[Lane], total: float) -> str:
    """Return the lanes as SVG."""
    width, row, left = 640, 16, 80
    parts: list[Any] = []
    for place, lane in enumerate(lanes):
        y = place * row
        parts.append(f'<text x="0" y="{y + 12}">{escape(lane.name[-12:])}</text>')
        parts += [
            f'<rect x="{left + bar.begin / total * (width - left):.1f}" y="{y + 2}" '
            f'width="{max(bar.seconds / total * (width - left), 0.5):.1f}" height="{row - 4}" '
            f'fill="{COLOURS[bar.kind]}"/>'
            for bar in lane.bars[:_MOST_BARS]
        ]
    return (
        f'<svg viewBox="0 0 {width} {row * len(lanes)}" style="max-width:100%;width:{width}px" '
        f'font-size="11" fill="currentColor" font-family="sans-serif">{"".join(parts)}</svg>'
    )
