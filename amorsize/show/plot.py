"""A report as a picture, with matplotlib (the extra ``plot``)."""

from __future__ import annotations

import io

from ..lookup import load
from ..units import duration
from .colours import COLOURS
from .lanes import KINDS, lanes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from matplotlib.figure import Figure

    from .report import RunReport

__all__ = ["plotted"]

_MOST_LANES = 32


def plotted(report: RunReport) -> Figure:
    """Return a report as a figure.

    Args:
        report: the report.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        load("matplotlib")
    except ImportError as error:
        raise ImportError(
            "RunReport.plot() needs matplotlib: pip install 'amorsize[plot]'", name="matplotlib"
        ) from error
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that notebooks show, whatever their settings."""

        def _repr_png_(self) -> bytes:
            out = io.BytesIO()
            self.savefig(out, format="png")
            return out.getvalue()

    lanes = lanes_of(report)[:_MOST_LANES]
    figure = Picture(figsize=(9, 3.2 + 0.28 * len(lanes)), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1 + 0.3 * len(lanes), 2))
    _draw_lanes(figure.add_subplot(grid[0, :]), report, lanes)
    _draw_forecast(figure.add_subplot(grid[1, 0]), report)
    _draw_candidates(figure.add_subplot(grid[1, 1]), report)
    figure.suptitle(report._headline(), parse_math=False)
    return figure


def _draw_lanes(axes: Any, report: RunReport, lanes: list[Any]) -> None:
    """Draw a lane for each worker over time."""
    shown = {}
    for place, lane in enumerate(lanes):
        for kind in KINDS:
            bars = [(bar.begin, bar.seconds) for bar in lane.bars if bar.kind == kind]
            if bars:
                shown[kind] = axes.broken_barh(
                    bars, (place - 0.4, 0.8), facecolors=COLOURS[kind], edgecolor="white", lw=0.3
                )
    axes.set_yticks(range(len(lanes)), [lane.name for lane in lanes], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, max(report.actual_seconds, 1e-9))
    axes.set_xlabel("seconds since the call began; gaps are waiting")
    if shown:
        axes.legend(
            shown.values(), [KINDS[kind] for kind in shown], fontsize="small", ncols=2,
            loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False,
        )  # fmt: skip


def _draw_forecast(axes: Any, report: RunReport) -> None:
    """Draw what the call was forecast to take, with its range, and what it took."""
    names, values = ["actual"], [report.actual_seconds]
    if report.serial_seconds is not None and report.backend != "serial":
        names.append("serially")
        values.append(report.serial_seconds)
    if report.forecast_seconds is not None:
        names.append("forecast")
        values.append(report.forecast_seconds)
    axes.barh(names, values, color=["#0072B2", "#999999", "#E69F00"][: len(names)])
    ends = dict(zip(names, values, strict=True))
    if report.forecast_seconds is not None and report.plan is not None:
        low, high = (report.decided_seconds + part for part in (report.plan.low, report.plan.high))
        axes.plot([low, high], ["forecast", "forecast"], color="black", marker="|")
        ends["forecast"] = max(high, report.forecast_seconds)
    for name, value in zip(names, values, strict=True):
        axes.annotate(f"  {duration(value)}", (ends[name], name), va="center", fontsize="small")
    axes.margins(x=0.25)
    axes.set_xlabel("seconds")


def _draw_candidates(axes: Any, report: RunReport) -> None:
    """Draw the forecast over the number of workers, and mark the choice."""
    axes.set_xlabel("processes or threads")
    axes.set_ylabel("forecast, s")
    plan = report.plan
    if plan is None or report.forecast_seconds is None or not plan.candidates:
        axes.text(0.5, 0.5, "nothing was forecast", ha="center", transform=axes.transAxes)
        return
    for method in dict.fromkeys(candidate.method for candidate in plan.candidates):
        points = sorted(
            (candidate.workers, candidate.seconds)
            for candidate in plan.candidates
            if candidate.method == method
        )
        axes.plot(*zip(*points, strict=True), marker="o", ms=4, label=method)
    axes.plot([plan.n_jobs], [plan.seconds], "k*", ms=13, label="planned")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(bottom=0)
    axes.margins(0.1)
    axes.legend(fontsize="small")
