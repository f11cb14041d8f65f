"""Progress: a tqdm bar if tqdm is installed, else a plain line; or the user's callable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Progress", "make_progress"]

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
    """Return the progress display, None when none was asked for.

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
    try:
        from tqdm.auto import tqdm  # an extra
    except ImportError:
        line = _Line(description)
        return Progress(line.show, total, line.end)

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no monitor thread, with which a fork would not be safe

    bar: Any = Bar(total=total, desc=description, miniters=1)

    def show(done: int, _: int | None) -> None:
        bar.update(done - bar.n)

    return Progress(show, total, bar.close)


class _Line:
    """One line on standard error, for those without tqdm."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._begun = time.monotonic()
        self._drawn = 0.0
        self._text = ""

    def show(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        of = "" if total is None else f"/{total} ({done / max(total, 1):.0%})"
        self._text = f"{self._description}: {done}{of} in {now - self._begun:.1f} s"
        if now - self._drawn >= REDRAW_SECONDS or done == total:
            self._drawn = now
            sys.stderr.write("\r" + self._text)
            sys.stderr.flush()

    def end(self) -> None:
        sys.stderr.write("\r" + self._text + "\n")
        sys.stderr.flush()
