"""Progress: a tqdm bar if tqdm is installed, else a plain line; or the user's callable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ..units import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Progress", "make_progress", "progress_line"]

# A terminal line is redrawn at most this often; people read no faster.
REDRAW_SECONDS = 0.1


class Progress:
    """Counts finished items and shows them.

    Args:
        show: called with (done, total or None) after each change.
        total: number of items, None when unknown.
        end: called once, when the call is over.
    """

    def __init__(
        self,
        show: Callable[[int, int | None], object],
        total: int | None,
        end: Callable[[], object] = lambda: None,
    ) -> None:
        self._show = show
        self._total = total
        self._end = end
        self.done = 0

    def add(self, items: int) -> None:
        """Count finished items."""
        self.done += items
        self._show(self.done, self._total)

    def close(self) -> None:
        """End the display."""
        self._end()


def make_progress(
    wanted: bool | str | Callable[[int, int | None], object], total: int | None, name: str
) -> Progress | None:
    """Return the progress display, None when none was asked for or nobody would see it.

    Args:
        wanted: the ``progress`` option.
        total: number of items, None when unknown.
        name: name of the function, which is the description unless one was given.
    """
    if wanted is False:
        return None
    if callable(wanted):
        return Progress(wanted, total)
    description = wanted if isinstance(wanted, str) else name
    if sys.stderr is None:  # it is closed
        return None
    try:
        from tqdm.auto import tqdm  # an extra
    except ImportError:
        if not sys.stderr.isatty():
            return None  # a file would get a line for each redrawing
        line = _Line(description)
        return Progress(line.show, total, line.end)

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no monitor thread, with which a fork would not be safe

    bar: Any = Bar(total=total, desc=description, miniters=1)

    def show(done: int, _: int | None) -> None:
        bar.update(done - bar.n)

    return Progress(show, total, bar.close)


class _Line:
    """One line on standard error, for those without tqdm: count, rate and time left.

    Args:
        description: how the line begins.
    """

    def __init__(self, description: str) -> None:
        self._description = description
        self._begun = time.monotonic()
        self._drawn = 0.0
        self._counted: tuple[int, int | None] = (0, None)
        self._width = 0

    def show(self, done: int, total: int | None) -> None:
        """Note what is finished, and redraw the line if that was long ago."""
        self._counted = done, total
        if time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self._draw()

    def end(self) -> None:
        """Draw the line for the last time."""
        self._draw()
        sys.stderr.write("\n")

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        text = progress_line(self._description, *self._counted, self._drawn - self._begun)
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)


def progress_line(description: str, done: int, total: int | None, seconds: float) -> str:
    """Return how far a call is, in words.

    Args:
        description: how the line begins.
        done: number of finished items.
        total: number of items, None when unknown.
        seconds: since the call began, s.

    >>> progress_line("parse", 50, 200, 10.0)
    'parse: 50/200 (25%) in 10 s, 5/s, 30 s left'
    >>> progress_line("parse", 3_000, None, 0.5)
    'parse: 3,000 in 500 ms, 6,000/s'
    """
    rate = done / max(seconds, 1e-9)
    of = "" if total is None else f"/{total:,} ({done / max(total, 1):.0%})"
    pace = f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"
    left = ""
    if total is not None and 0 < done < total:
        left = f", {duration((total - done) / rate)} left"
    return f"{description}: {done:,}{of} in {duration(seconds)}, {pace}{left}"
