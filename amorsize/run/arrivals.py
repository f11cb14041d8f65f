"""An input whose items come from elsewhere, such as an event loop, and are asked for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Arrivals", "Together"]

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
                error = self.end_of()
                raise StopIteration if error is None else error
            self._news.wait(CHECK_SECONDS)
            self._check()

    @property
    def is_over(self) -> bool:
        """Whether all items were taken, and there will be no more."""
        return self._ended and not self._items

    def end_of(self) -> BaseException | None:
        """Return what the input has raised at its end; None for nothing."""
        error, self._error = self._error, None
        return error

    def ready(self, wanted: int) -> int:
        """Return how many of ``wanted`` items can be taken without waiting; ask for the others."""
        self._want(wanted)
        until, before = time.monotonic() + MOST_SECONDS, 0
        while True:
            ended = self._ended
            found = min(len(self._items), wanted)
            if ended or found == wanted:
                return found
            if found == before and found:
                return found
            before = found
            self._news.clear()
            if len(self._items) == found and not self._ended:
                self._news.wait(GAP_SECONDS)
            if len(self._items) == found == 0 or time.monotonic() > until:
                return min(len(self._items), wanted)

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


class Together:
    """The arriving inputs of a call, which are read together: the first that ends, ends them all.

    Args:
        inputs: they.
        most: how many items the other inputs of the call have, None if not known.

    Attributes:
        awaits: whether no item was there when the last ones were wanted.
        is_over: whether there will be no more items.
        error: what the input that ended has raised; None for nothing.
    """

    def __init__(self, inputs: tuple[Arrivals, ...], most: int | None) -> None:
        self.awaits = self.is_over = False
        self.error: Exception | None = None
        self._inputs = inputs
        self._left = most

    def ready(self, wanted: int) -> int:
        """Return how many of ``wanted`` items can be read from each input without waiting.

        Raises:
            BaseException: an input has raised it, and it is no Exception.
        """
        if self._left is not None:
            wanted = min(wanted, self._left)
        found = min(one.ready(wanted) for one in self._inputs) if wanted else 0
        over = next((one for one in self._inputs if one.is_over), None)
        self.awaits = not found and wanted > 0 and over is None
        if not found and not self.awaits:
            self.is_over = True
            error = None if over is None else over.end_of()
            if error is not None and not isinstance(error, Exception):
                raise error
            self.error = error
        if self._left is not None:
            self._left -= found
        return found

    def wait(self, seconds: float) -> None:
        """Wait up to ``seconds`` until items may have arrived."""
        for one in self._inputs:
            if not one.ready(1) and not one.is_over:
                one.wait(seconds)
