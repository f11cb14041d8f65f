"""The results of a run: in which order they are yielded, what failed first, where they end."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Results"]


class Results:
    """The results of one run that are not yielded yet.

    Args:
        start: index of the first item.
        ordered: whether results are yielded in the order of the items.

    Attributes:
        failure: (index, exception) of the earliest item that failed, None while none has.
        end: index of the first item without a result, None while unknown.
    """

    def __init__(self, start: int, *, ordered: bool) -> None:
        self.failure: tuple[int, BaseException] | None = None
        self.end: int | None = None
        self._ordered = ordered
        self._finished: list[tuple[int, list[Any]]] = []  # not yielded yet: a heap, by start
        self._next = start

    def __len__(self) -> int:
        """Return how many blocks of results are not yielded yet."""
        return len(self._finished)

    @property
    def is_cut(self) -> bool:
        """Whether items from some index on no longer count."""
        return self.failure is not None or self.end is not None

    def settle(self, start: int, results: list[Any]) -> None:
        """Add the results of consecutive items."""
        heappush(self._finished, (start, results))

    def fail(self, index: int, error: BaseException) -> bool:
        """Record a failure; return whether it is the earliest so far, so that fewer items count."""
        if self.failure is not None and index >= self.failure[0]:
            return False
        self.failure = (index, error)
        return True

    def cut(self, index: int) -> bool:
        """End the results at an index; return whether no earlier end was known."""
        if self.end is not None and index >= self.end:
            return False
        self.end = index
        return True

    def counts(self, start: int) -> bool:
        """Return whether the item at ``start`` still counts."""
        bound = self._bound()
        return bound is None or start < bound

    def ripe(self) -> Iterator[tuple[int, list[Any], int]]:
        """Yield what is due now: (start, results that count, number of results that came)."""
        while self._finished:
            start, results = self._finished[0]
            counting = self.counts(start)
            if self._ordered and counting and start != self._next:
                return
            heappop(self._finished)
            if counting:  # otherwise earlier results may still come
                self._next = start + len(results)
            bound = self._bound()
            yield (
                start,
                results if bound is None else results[: max(0, bound - start)],
                len(results),
            )

    def raise_failure(self, later: Exception | None) -> None:
        """Raise the first failure, if there is any.

        Args:
            later: what the input raised after its last item; None for nothing.
        """
        if self.failure is not None and (self.end is None or self.failure[0] < self.end):
            raise self.failure[1]
        if later is not None and self.end is None:
            raise later

    def _bound(self) -> int | None:
        """Return the index of the first item that does not count, None when all count."""
        bounds = [self.failure[0]] if self.failure is not None else []
        bounds += [self.end] if self.end is not None else []
        return min(bounds, default=None)
