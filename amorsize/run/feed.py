"""The items of one call, handed out in order: to the calling process, or as chunks to workers."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import compress, count, islice, starmap, tee

from .failure import ITEM_ERRORS, MISSING, add_item_note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Feed", "Slice", "call_all", "guarded"]

# Types whose slices hold exactly what iteration gives. Anything else is iterated, once, in order:
# a sequence of the user's own may read from a disk or a network, and its length may be a guess.
_SLICEABLE: frozenset[type] = frozenset({list, tuple, range, str, bytes, bytearray})

# Nobody waits longer for a slow input to fill a chunk.
FILL_SECONDS = 0.02

# Items of a stream that are kept for the message about a failing one: so many, or so many bytes.
_KEPT_ITEMS = 4_096
_KEPT_BYTES = 1 << 20


class Slice:
    """Consecutive items of the input.

    Attributes:
        start: index of the first.
        size: number of them.
        columns: the items themselves, one sequence for each argument; None where a worker has
            inherited the whole input and needs only the indices.
    """

    __slots__ = ("columns", "size", "start")

    def __init__(self, start: int, size: int, columns: tuple[Any, ...] | None = None) -> None:
        self.start = start
        self.size = size
        self.columns = columns


def call_all(func: Callable[..., Any], columns: tuple[Any, ...], star: bool) -> Iterator[Any]:
    """Return an iterator of the results of ``func`` over the columns."""
    return starmap(func, columns[0]) if star else map(func, *columns)


def guarded(
    func: Callable[..., Any], change: Callable[[Exception], object] | None = None
) -> Callable[..., Any]:
    """Return ``func`` with its exceptions as results, as ``asyncio.gather`` has it.

    Args:
        func: what to call.
        change: what to make of an exception; None leaves it as it is.
    """

    def call(*args: Any) -> Any:
        try:
            return func(*args)
        except Exception as error:  # noqa: BLE001 - whatever func raises is a result here
            return error if change is None else change(error)

    return call


class Feed:
    """The items of one call.

    Args:
        func: what to call with each item.
        iterables: one for each argument, as in ``map``.
        star: whether each item is a tuple of arguments, as in ``starmap``.

    Attributes:
        hint: number of items as the input has it, None when it does not say. Good for planning
            only: what says it may be wrong.
        position: index of the next item to hand out.
        sliceable: whether the input can be sliced, so that workers may inherit it.
        ended: whether there are no more items: the input ended, or ``func`` raised StopIteration,
            which ends a ``map``.
        deadline: when to stop running items here, on the monotonic clock; None for never.
        error: what the input itself raised while it was read ahead, to be raised in its place.
    """

    def __init__(self, func: Callable[..., Any], iterables: tuple[Any, ...], *, star: bool) -> None:
        self.func = func
        self.position = 0
        self.ended = False
        self.deadline: float | None = None
        self._late = False
        self._marked = 0
        self._latest: Any = MISSING  # of a stream: an item that was run here lately
        self.error: Exception | None = None
        self.columns: tuple[Any, ...] = ()
        self.hint = _hint(iterables)
        self.sliceable = self.hint is not None and all(_sliceable(data) for data in iterables)
        self._cursor = 0  # where _results stands: chunks handed out pass it by
        if self.sliceable:
            self.star = star
            self.columns = iterables
            self._results = call_all(func, iterables, star)
        else:
            # Several iterables become one of argument tuples: what was taken together stays
            # together when items go to different processes.
            self.star = star or len(iterables) > 1
            sources = list(iterables)
            source = zip(*sources, strict=False) if len(sources) > 1 else iter(sources[0])
            # Counting what the source gave, at no cost: compress takes an item, then a number.
            self._given = count(1)
            self._stream = tee(compress(source, self._given), 1)[0]
            self._results = call_all(func, (self._stream,), self.star)

    @property
    def remaining(self) -> int | None:
        """Number of items not handed out yet, None when unknown.

        A list is asked each time: like ``map``, a call sees what is appended meanwhile.
        """
        if self.ended:
            return 0
        if not self.sliceable:
            return None
        return max(0, min(map(len, self.columns)) - self.position)

    @property
    def likely_remaining(self) -> int | None:
        """Number of items left to plan for: known, or hinted at; None when there is no telling."""
        if self.ended or self.sliceable:
            return self.remaining
        if self.hint is None or self.hint <= self.position:
            return None
        return self.hint - self.position

    @property
    def sample(self) -> Any:
        """An item that was run here lately, or the first; MISSING where that is not known yet."""
        return self.item(max(0, self.position - 1)) if self.sliceable else self._latest

    def run(self, wanted: int, out: list[Any]) -> int:
        """Call ``func`` with the next items here, appending the results to ``out``.

        Args:
            wanted: how many items, at most.
            out: list to append to.

        Returns:
            How many items were run; fewer than ``wanted`` when there are no more or time is up.

        Raises:
            Whatever ``func`` or the input raises; ``func``'s with a note that names the item.
        """
        done = 0
        while done < wanted and not self.ended and not self._late:
            done += self._run_some(min(wanted - done, self._keepable()), out)
        return done

    def run_all(self, out: list[Any]) -> None:
        """Call ``func`` with all items left, here."""
        while not self.ended:
            self.run(sys.maxsize, out)

    def pass_through(self, wanted: int) -> Iterator[Any]:
        """Yield the results of the next ``wanted`` items, each computed when it is asked for."""
        wanted = min(wanted, self._keepable())
        start = self.position
        mark = None if self.sliceable else copy.copy(self._stream)
        try:
            for result in self._next_results(wanted):
                self.position += 1
                self._cursor += 1
                yield result
        except GeneratorExit:
            raise
        except BaseException as error:  # passed on, with the item's index
            self._blame(error, mark, self.position - start)
            raise
        self.ended = self.ended or self.position < start + wanted

    def mark(self) -> None:
        """Note how much workers inherit that are started now, of a list that may grow."""
        if self.sliceable:
            self._marked = min(map(len, self.columns))

    def take(self, wanted: int, *, inherited: bool) -> Slice | None:
        """Hand out the next items for a worker, None when there are none left.

        An exception of the input is kept in ``error``; the items before it are still handed out.
        Of a slow input it is what came within ``FILL_SECONDS``, and one item at least.

        Args:
            wanted: how many at most.
            inherited: whether workers hold the input already.
        """
        start = self.position
        columns: tuple[Any, ...] | None
        if self.ended:
            return None
        if self.sliceable:
            size = min(wanted, self.remaining or 0)
            known = inherited and start + size <= self._marked
            columns = None if known else tuple(c[start : start + size] for c in self.columns)
            self.ended = size < wanted
        else:
            items: list[Any] = []
            try:
                self.ended = self._fill(items, wanted)
            except Exception as error:  # noqa: BLE001 - the input's own, raised later in its place
                self.error, self.ended = error, True
            size, columns = len(items), (items,)
        if size == 0:
            return None
        self.position = start + size
        return Slice(start, size, columns)

    def _fill(self, items: list[Any], wanted: int) -> bool:
        """Append the input's next items, so many or for so long; return whether it has ended."""
        begun, size = time.monotonic(), 1
        while len(items) < wanted and time.monotonic() - begun < FILL_SECONDS:
            goal = min(len(items) + size, wanted)
            items.extend(islice(self._stream, goal - len(items)))
            if len(items) < goal:
                return True
            size *= 2
        return False

    def items(self, piece: Slice) -> tuple[Any, ...]:
        """Return the items of a slice, one sequence for each argument."""
        if piece.columns is not None:
            return piece.columns
        end = piece.start + piece.size
        return tuple(column[piece.start : end] for column in self.columns)

    def item(self, index: int, piece: Slice | None = None) -> Any:
        """Return the item at ``index`` for a message, MISSING when it is gone."""
        columns, offset = self.columns, index
        if not self.sliceable:
            if piece is None or piece.columns is None:
                return MISSING
            columns, offset = piece.columns, index - piece.start
        if not all(0 <= offset < len(column) for column in columns):
            return MISSING
        values = tuple(column[offset] for column in columns)
        return values[0] if len(values) == 1 else values

    def _run_some(self, wanted: int, out: list[Any]) -> int:
        """Run the next items as one block."""
        before = len(out)
        mark = None if self.sliceable else copy.copy(self._stream)
        try:
            self._extend(out, self._next_results(wanted))
        except BaseException as error:  # passed on, with the item's index
            self.position += len(out) - before
            self._blame(error, mark, len(out) - before)
            raise
        done = len(out) - before
        if done and mark is not None:
            self._latest = next(mark)  # the first item of the block, which the mark still holds
        self.position += done
        self._cursor += done
        self.ended = done < wanted and not self._late
        return done

    def _extend(self, out: list[Any], results: Iterator[Any]) -> None:
        """Append the results to ``out``, until time is up."""
        if self.deadline is None:
            out.extend(results)
            return
        for result in results:
            out.append(result)
            if time.monotonic() >= self.deadline:
                self._late = True
                return

    def _next_results(self, wanted: int) -> Iterator[Any]:
        """Return an iterator that computes the next ``wanted`` results."""
        if self.sliceable and self._cursor != self.position:
            pieces = tuple(c[self.position : self.position + wanted] for c in self.columns)
            return call_all(self.func, pieces, self.star)
        if self.sliceable and wanted >= (self.remaining or 0):
            return self._results  # islice would take 8 ns an item
        return islice(self._results, wanted)

    def _keepable(self) -> int:
        """Return how many items may be run before a new mark is set, which keeps them meanwhile."""
        if self.sliceable:
            return sys.maxsize
        if self._latest is MISSING:
            return 1
        return max(1, min(_KEPT_ITEMS, _KEPT_BYTES // max(1, sys.getsizeof(self._latest, 64))))

    def _blame(self, error: BaseException, mark: Iterator[Any] | None, offset: int) -> None:
        """Note index and item on an exception of ``func``; leave others as they are.

        An exception of the input's is one that came before the input gave an item;
        KeyboardInterrupt and its like belong to no item.
        """
        if not isinstance(error, ITEM_ERRORS):
            return
        if mark is None:
            add_item_note(error, self.position, self.item(self.position))
        elif self._taken() > self.position:
            add_item_note(error, self.position, next(islice(mark, offset, None)))

    def _taken(self) -> int:
        """Return how many items were taken from the source of a stream."""
        # The counter has no other window: its text is "count(n)", n being the next number.
        return int(repr(self._given)[6:-1]) - 1


def _sliceable(data: Iterable[Any]) -> bool:
    kind = type(data)
    if kind in _SLICEABLE:
        return True
    return kind.__module__.partition(".")[0] == "numpy" and kind.__name__ in ("ndarray", "memmap")


def _hint(iterables: tuple[Any, ...]) -> int | None:
    """Return how many items the inputs say there are, None unless all say so."""
    try:
        return min(map(len, iterables))
    except Exception:  # noqa: BLE001 - no length, one that does not fit, or a user's that raises
        return None
