"""An input whose items come from elsewhere, such as an event loop, and are asked for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Arrivals"]

# A reader who wants several items waits for more as long as one comes within GAP_SECONDS, and at
# most MOST_SECONDS.
GAP_SECONDS = 0.001
MOST_SECONDS = 0.02
# While it waits for an item, a reader asks this often whether to go on.
CHECK_SECONDS = 0.02


class Arrivals:
    """An iterator over items that a giver adds in one thread and a reader takes in another.

    The giver adds no more items than the reader has asked for.

    Args:
        ask: called by the reader when it wants more items than before and the giver may sleep.
        check: called while the reader waits; may raise, which ends the wait.
    """

    def __init__(self, ask: Callable[[], object], check: Callable[[], object]) -> None:
        self._ask = ask
        self._check = check
        self._items: deque[Any] = deque()
        self._given = self._taken = self._wanted = 0
        self._ended = False
        self._error: BaseException | None = None
        self._news = threading.Event()

    # The giver ------------------------------------------------------------------------------

    @property
    def lacks(self) -> bool:
        """Whether the reader wants more items than it was given."""
        return self._wanted > self._given

    def give(self, item: Any) -> None:
        """Add an item."""
        self._items.append(item)
        self._given += 1
        self._news.set()

    def end(self, error: BaseException | None = None) -> None:
        """Say that there are no more items, and what the input has raised, if anything."""
        self._error = error
        self._ended = True
        self._news.set()

    # The reader -----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._want(1)
        while True:
            self._news.clear()
            ended = self._ended  # before the items, which come before the end
            if self._items:
                self._taken += 1
                return self._items.popleft()
            if ended:
                error, self._error = self._error, None
                raise StopIteration if error is None else error
            self._news.wait(CHECK_SECONDS)
            self._check()

    def ready(self, wanted: int) -> int:
        """Return how many of ``wanted`` items can be taken without waiting; ask for the others.

        At the end of the input it is the full number.
        """
        self._want(wanted)
        until, before = time.monotonic() + MOST_SECONDS, 0
        while True:
            ended = self._ended
            found = len(self._items)
            if ended or found >= wanted:
                return wanted
            if found == before and found:
                return found
            before = found
            self._news.clear()
            if len(self._items) == found and not self._ended:
                self._news.wait(GAP_SECONDS)
            if len(self._items) == found == 0 or time.monotonic() > until:
                return len(self._items)

    def wait(self, seconds: float) -> None:
        """Wait up to ``seconds`` for an item or the end."""
        self._news.clear()
        if not self._items and not self._ended:
            self._news.wait(seconds)

    def _want(self, items: int) -> None:
        """Want so many items at least, of those that were not taken."""
        before, wanted = self._wanted, self._taken + items
        if wanted > before:
            self._wanted = wanted
            if self._given >= before and not self._ended:
                self._ask()
