"""The items of one call, handed out in order: to the calling process, or as chunks to workers."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import islice, starmap, tee

from .failure import MISSING, add_item_note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Feed", "Slice", "call_all", "guarded"]

# Types whose slices hold exactly what iteration gives. Anything else is iterated, once, in order:
# a sequence of the user's own may read from a disk or a network.
_SLICEABLE: frozenset[type] = frozenset({list, tuple, range, str, bytes, bytearray})


@dataclass(slots=True)
class Slice:
    """Consecutive items of the input.

    Attributes:
        start: index of the first.
        size: number of them.
        columns: the items themselves, one sequence for each argument; None where a worker has
            inherited the whole input and needs only the indices.
    """

    start: int
    size: int
    columns: tuple[Any, ...] | None = None


def call_all(func: Callable[..., Any], columns: tuple[Any, ...], star: bool) -> Iterator[Any]:
    """Return an iterator of the results of ``func`` over the columns."""
    return starmap(func, columns[0]) if star else map(func, *columns)


def guarded(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``func`` with its exceptions as results, as ``asyncio.gather`` has it."""

    def call(*args: Any) -> Any:
        try:
            return func(*args)
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises is a result here
            return error

    return call


class Feed:
    """The items of one call.

    Args:
        func: what to call with each item.
        iterables: one for each argument, as in ``map``.
        star: whether each item is a tuple of arguments, as in ``starmap``.

    Attributes:
        length: number of items, None when unknown.
        position: index of the next item to hand out.
        sliceable: whether the input can be sliced, so that workers may inherit it.
        error: what the input itself raised while it was read ahead, to be raised in its place.
    """

    def __init__(self, func: Callable[..., Any], iterables: tuple[Any, ...], *, star: bool) -> None:
        self.func = func
        self.position = 0
        self.columns: tuple[Any, ...]
        self.error: BaseException | None = None
        self.sliceable = all(_sliceable(data) for data in iterables)
        self.length = _length(iterables)
        if self.sliceable:
            self.star = star
            self.columns = iterables
            self._results = call_all(func, iterables, star)
            self._cursor = 0  # where _results stands: chunks handed out pass it by
        else:
            self.columns = ()
            self._cursor = 0
            # Several iterables become one of argument tuples: what was taken together stays
            # together when items go to different processes.
            self.star = star or len(iterables) > 1
            sources = list(iterables)
            source = zip(*sources, strict=False) if len(sources) > 1 else iter(sources[0])
            self._stream = tee(source, 1)[0]
            self._results = call_all(func, (self._stream,), self.star)

    @property
    def remaining(self) -> int | None:
        """Number of items not handed out yet, None when unknown."""
        return None if self.length is None else self.length - self.position

    def run(self, count: int, out: list[Any]) -> int:
        """Call ``func`` with the next ``count`` items here, appending the results to ``out``.

        Returns:
            How many items there were; fewer than ``count`` when the input ended.

        Raises:
            Whatever ``func`` or the input raises; ``func``'s with a note that names the item.
        """
        before = len(out)
        mark = None if self.sliceable else copy.copy(self._stream)
        try:
            out.extend(self._next_results(count))
        except BaseException as error:
            self.position += len(out) - before
            self._blame(error, mark, len(out) - before)
            raise
        done = len(out) - before
        self.position += done
        self._cursor += done
        if done < count:  # the input ended, or ``func`` raised StopIteration, which ends a map
            self.length = self.position
        return done

    def _next_results(self, count: int) -> Iterator[Any]:
        """Return an iterator that computes the next ``count`` results."""
        if self.sliceable and self._cursor != self.position:
            pieces = tuple(c[self.position : self.position + count] for c in self.columns)
            return call_all(self.func, pieces, self.star)
        return islice(self._results, count)

    def run_all(self, out: list[Any]) -> None:
        """Call ``func`` with all items left, here."""
        if self.sliceable:
            self.run(sys.maxsize, out)
            return
        # In blocks: the mark that finds a failing item keeps the items since it was set.
        while self.run(_STREAM_BLOCK, out) == _STREAM_BLOCK:
            pass

    def pass_through(self, count: int) -> Iterator[Any]:
        """Yield the results of the next ``count`` items, each computed when it is asked for."""
        start = self.position
        mark = None if self.sliceable else copy.copy(self._stream)
        try:
            for result in self._next_results(count):
                self.position += 1
                yield result
        except GeneratorExit:
            raise
        except BaseException as error:
            self._blame(error, mark, self.position - start)
            raise
        self._cursor += self.position - start
        if self.position < start + count:
            self.length = self.position

    def take(self, count: int, *, inherited: bool) -> Slice | None:
        """Hand out the next items for a worker, None when there are none left.

        An exception of the input is kept in ``error``; the items before it are still handed out.

        Args:
            count: how many at most.
            inherited: whether workers hold the input already.
        """
        start = self.position
        if self.sliceable:
            assert self.length is not None
            size = min(count, self.length - start)
            columns = None if inherited else tuple(c[start : start + size] for c in self.columns)
        else:
            items: list[Any] = []
            if self.error is None:
                try:
                    items.extend(islice(self._stream, count))
                except BaseException as error:  # noqa: BLE001 - raised later, in its place
                    self.error = error
            size, columns = len(items), (items,)
            if size < count:
                self.length = start + size
        if size == 0:
            return None
        self.position = start + size
        return Slice(start, size, columns)

    def item(self, index: int, piece: Slice | None = None) -> Any:
        """Return the item at ``index`` for a message, MISSING when it is gone."""
        columns, offset = self.columns, index
        if not self.sliceable:
            if piece is None or piece.columns is None:
                return MISSING
            columns, offset = piece.columns, index - piece.start
        values = tuple(column[offset] for column in columns)
        return values[0] if len(values) == 1 else values

    def peek(self) -> Any:
        """Return the next item without handing it out, MISSING when there is none."""
        if self.sliceable:
            return self.item(self.position) if self.remaining else MISSING
        return next(copy.copy(self._stream), MISSING)

    def _blame(self, error: BaseException, mark: Iterator[Any] | None, offset: int) -> None:
        """Note index and item on an exception of ``func``; leave one of the input as it is."""
        if mark is None:
            add_item_note(error, self.position, self.item(self.position))
            return
        # The mark holds the items since the block began. If it has none at this place, the input
        # raised before there was an item to call ``func`` with.
        item = next(islice(mark, offset, None), MISSING)
        if item is not MISSING:
            add_item_note(error, self.position, item)


# Items between two marks of a stream: they are kept in memory meanwhile.
_STREAM_BLOCK = 4_096


def _sliceable(data: Iterable[Any]) -> bool:
    kind = type(data)
    if kind in _SLICEABLE:
        return True
    return kind.__module__ == "numpy" and kind.__name__ == "ndarray" and bool(data.shape)  # type: ignore[attr-defined]


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """Return how many items there are, None unless all iterables can tell."""
    if all(isinstance(data, Sized) for data in iterables):
        return min(len(data) for data in iterables)  # type: ignore[arg-type]
    return None
