"""What has come of the items: in what order it is given out, what failed first, where it ends."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Results"]


class Results:
    """The results of one run, as they come in and go out.

    Args:
        start: index of the first.
        ordered: whether they are given out in the order of the items.

    Attributes:
        failure: (index, exception) of the earliest item that failed, None while none has.
        end: index from which on there are no results, None while it is not known.
    """

    def __init__(self, start: int, *, ordered: bool) -> None:
        self.failure: tuple[int, BaseException] | None = None
        self.end: int | None = None
        self._ordered = ordered
        self._finished: list[tuple[int, list[Any]]] = []  # not given out yet, lowest first
        self._next = start

    def __len__(self) -> int:
        """Return how many chunks of results wait to be given out."""
        return len(self._finished)

    @property
    def is_cut(self) -> bool:
        """Whether items from some index on do not count any more."""
        return self.failure is not None or self.end is not None

    def settle(self, start: int, results: list[Any]) -> None:
        """Take the results of consecutive items."""
        heappush(self._finished, (start, results))

    def fail(self, index: int, error: BaseException) -> bool:
        """Note a failure; return whether it is the earliest so far, so that fewer items count."""
        if self.failure is not None and index >= self.failure[0]:
            return False
        self.failure = (index, error)
        return True

    def cut(self, index: int) -> bool:
        """Note that there are no results from an index on; return whether that is news."""
        if self.end is not None and index >= self.end:
            return False
        self.end = index
        return True

    def counts(self, start: int) -> bool:
        """Return whether an item still counts."""
        bound = self._bound()
        return bound is None or start < bound

    def ripe(self) -> Iterator[tuple[int, list[Any], int]]:
        """Yield what may be given out now: (start, results that count, results that came)."""
        while self._finished:
            start, results = self._finished[0]
            counting = self.counts(start)
            if self._ordered and counting and start != self._next:
                return
            heappop(self._finished)
            if counting:  # else earlier ones may still come
                self._next = start + len(results)
            bound = self._bound()
            yield (
                start,
                results if bound is None else results[: max(0, bound - start)],
                len(results),
            )

    def raise_failure(self, later: Exception | None) -> None:
        """Raise what failed first.

        Args:
            later: what the input raised, after all items; None for nothing.
        """
        if self.failure is not None and (self.end is None or self.failure[0] < self.end):
            raise self.failure[1]
        if later is not None and self.end is None:
            raise later

    def _bound(self) -> int | None:
        """Return the index from which on results do not count, None when all do."""
        bounds = [self.failure[0]] if self.failure is not None else []
        bounds += [self.end] if self.end is not None else []
        return min(bounds, default=None)
