"""The items of one call, handed out in order: to the calling process, or as chunks to workers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, compress, count, islice, starmap, tee

from .counted import begin_at
from .failure import ITEM_ERRORS, NO_ITEM, add_item_note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .arrivals import Together

__all__ = ["SLICEABLE", "Blocks", "Feed", "Slice", "call_all"]

# Types whose slices hold exactly what iteration gives. Anything else is iterated, once, in order:
# a user's own sequence may read from a disk or a network, and its length may be a guess.
SLICEABLE: frozenset[type] = frozenset({list, tuple, range, str, bytes, bytearray})

# A slow input may take this long to fill a chunk; then the chunk goes out as it is.
FILL_SECONDS = 0.02

# Reading this many items of a stream is timed. It takes 0.4 us for each.
_TIMED_ITEMS = 64

# A chunk is run in about this many blocks.
_MOST_BLOCKS = 16

# Most items of a stream, and most bytes of them, that are kept for the message about a failure.
# They also take at most _KEPT_SECONDS to run: items that are freed soon leave their memory to the
# next ones, while it is in the CPU's cache. With 200 rows of a DataFrame kept, a run took up to
# 1.25 times as long; with 25, at most 1.03 times.
_KEPT_ITEMS = 4_096
_KEPT_SECONDS = 0.001
_KEPT_BYTES = 1 << 20


class Slice:
    """Consecutive items of the input.

    Attributes:
        start: index of the first item.
        size: number of items.
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


class Blocks:
    """The items of a chunk in blocks, until the chunk has taken too long.

    Args:
        columns: the items, one sequence for each argument.
        seconds: how long the chunk may take; no block begins after that.

    Attributes:
        left: number of items that are in no block so far.
    """

    def __init__(self, columns: tuple[Any, ...], seconds: float) -> None:
        self.left = len(columns[0])
        self._columns = columns
        self._seconds = seconds

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        begin, until = 0, time.monotonic() + self._seconds
        size = max(1, self.left // _MOST_BLOCKS)
        while self.left and (not begin or time.monotonic() < until):
            part = tuple(column[begin : begin + size] for column in self._columns)
            begin += size
            self.left = max(0, self.left - size)
            yield part


class Feed:
    """The items of one call.

    Args:
        func: what to call with each item.
        iterables: one iterable for each argument, as in ``map``.
        star: whether each item is a tuple of arguments, as in ``starmap``.

    Attributes:
        hint: number of items that the input reports, None when it reports none. Only for planning,
            since it may be wrong.
        position: index of the next item to hand out.
        sliceable: whether the input can be sliced, so that workers may inherit it.
        ended: whether there are no more items: the input ended, or ``func`` raised StopIteration,
            which ends a ``map``.
        deadline: when to stop running items in the calling process, on the monotonic clock; None
            for never.
        error: exception that the input raised while it was read ahead, to be raised after the items
            before it.
        arrivals: the inputs whose items are asked for, and then waited for; None for none.
        numbered: whether the arguments are the index of the user's item, and that item.
    """

    def __init__(self, func: Callable[..., Any], iterables: tuple[Any, ...], *, star: bool) -> None:
        self.func = func
        self.position = 0
        self.ended = False
        self.deadline: float | None = None
        self.arrivals: Together | None = None
        self.numbered = False
        self._late = False
        self._marked = 0
        self._latest: Any = NO_ITEM  # an item of a stream that ran here recently
        self._kept_items = _KEPT_ITEMS  # how many take _KEPT_SECONDS
        self.error: Exception | None = None
        self.columns: tuple[Any, ...] = ()
        self.hint = _hint(iterables)
        self._read_seconds = 0.0  # time that reading the first items of a stream took
        self._read_items = 0
        self.sliceable = self.hint is not None and all(_sliceable(data) for data in iterables)
        self._cursor = 0  # position of _results; chunks do not move it
        if self.sliceable:
            self.star = star
            self.columns = iterables
            self._results = call_all(func, iterables, star)
        else:
            # Several iterables become one iterable of argument tuples, so that arguments taken
            # together stay together when items go to different processes.
            self.star = star or len(iterables) > 1
            sources = list(iterables)
            read = zip(*sources, strict=False) if len(sources) > 1 else iter(sources[0])
            source = chain(self._timed(read), read)
            # This counts the items of the source at no cost: compress takes an item, then a number.
            self._given = count(1)
            self._stream: Any = tee(compress(source, self._given), 1)[0]
            self._results = call_all(func, (self._stream,), self.star)

    @property
    def remaining(self) -> int | None:
        """Number of items not handed out yet, None when unknown.

        The length is read each time: like ``map``, a call sees items that are appended meanwhile.
        """
        if self.ended:
            return 0
        if not self.sliceable:
            return None
        return max(0, min(map(len, self.columns)) - self.position)

    @property
    def is_exhausted(self) -> bool:
        """Whether no item is left, as far as known: a list may still grow."""
        return self.ended or (self.sliceable and not self.remaining)

    @property
    def likely_remaining(self) -> int | None:
        """Number of items left, for planning: exact or from the hint; None when unknown."""
        if self.ended or self.sliceable:
            return self.remaining
        if self.hint is None or self.hint <= self.position:
            return None
        return self.hint - self.position

    @property
    def input_seconds(self) -> float:
        """Time to read one item of a stream, s; 0 if the input is sliceable."""
        return self._read_seconds / max(1, self._read_items)

    def _timed(self, read: Iterator[Any]) -> Iterator[Any]:
        """Yield the first items of a stream, and time how long reading them takes."""
        for _ in range(_TIMED_ITEMS):
            begun = time.perf_counter()
            try:
                item = next(read)
            except StopIteration:
                return
            self._read_seconds += time.perf_counter() - begun
            self._read_items += 1
            yield item

    @property
    def sample(self) -> Any:
        """A recently used item, or the first; NO_ITEM when none is known yet."""
        return self.item(max(0, self.position - 1)) if self.sliceable else self._latest

    def run(self, wanted: int, out: list[Any]) -> int:
        """Call ``func`` with the next items in the calling process; append the results to ``out``.

        Args:
            wanted: most items to run.
            out: list to append to.

        Returns:
            How many items ran; fewer than ``wanted`` when there are no more or time is up.

        Raises:
            Whatever ``func`` or the input raises; exceptions of ``func`` have a note that names the
            item.
        """
        done = 0
        while done < wanted and not self.ended and not self._late:
            if self.sliceable:  # no item is kept
                done += self._run_some(wanted - done, out)
                continue
            begun = time.perf_counter()
            ran = self._run_some(min(wanted - done, self._keepable()), out)
            done += ran
            each = (time.perf_counter() - begun) / max(1, ran)
            self._kept_items = max(1, int(_KEPT_SECONDS / max(each, _KEPT_SECONDS / _KEPT_ITEMS)))
        return done

    def run_all(self, out: list[Any]) -> None:
        """Call ``func`` with all remaining items in the calling process."""
        while not self.ended:
            self.run(sys.maxsize, out)

    def pass_through(self, wanted: int) -> Iterator[Any]:
        """Yield the results of at most ``wanted`` items, each computed when it is requested."""
        wanted = min(wanted, self._keepable())
        start = self.position
        mark = None if self.sliceable else self._stream.__copy__()
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
        """Record how many items workers inherit if they start now; a list may grow later."""
        if self.sliceable:
            self._marked = min(map(len, self.columns))

    def take(self, wanted: int, *, inherited: bool) -> Slice | None:
        """Hand out the next items for a worker, None when there are none left, or none for now.

        An exception of the input is kept in ``error``; the items before it are still handed out.
        A slow input is read for ``FILL_SECONDS``, and until it has given at least one item.

        Args:
            wanted: most items to hand out.
            inherited: whether workers hold the input already.
        """
        start = self.position
        columns: tuple[Any, ...] | None
        if self.ended:
            return None
        if self.arrivals is not None:
            wanted = self.arrivals.ready(wanted)
            if not wanted:
                self.ended, self.error = self.arrivals.is_over, self.arrivals.error
                return None
        if self.sliceable:
            size = min(wanted, self.remaining or 0)
            known = inherited and start + size <= self._marked
            columns = None if known else tuple(c[start : start + size] for c in self.columns)
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
        """Append up to ``wanted`` items within ``FILL_SECONDS``; return whether the input ended."""
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
        """Return the item at ``index`` for a message, NO_ITEM when it is no longer available."""
        columns, offset = self.columns, index
        if not self.sliceable:
            if piece is None or piece.columns is None:
                return NO_ITEM
            columns, offset = piece.columns, index - piece.start
        if not all(0 <= offset < len(column) for column in columns):
            return NO_ITEM
        values = tuple(column[offset] for column in columns)
        return values[0] if len(values) == 1 else values

    def name(self, index: int, piece: Slice | None = None) -> tuple[int, Any]:
        """Return what a message calls an item: its index for the user, and the item.

        Args:
            index: its index here.
            piece: the slice that it is in.
        """
        item = self.item(index, piece)
        if not self.numbered or item is NO_ITEM:
            return index, item
        number: int = item[0]
        return number, item[1]

    def _run_some(self, wanted: int, out: list[Any]) -> int:
        """Run the next items as one block."""
        before = len(out)
        mark = None if self.sliceable else self._stream.__copy__()
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
        begin_at(self.func, self.position)
        if self.sliceable and self._cursor != self.position:
            pieces = tuple(c[self.position : self.position + wanted] for c in self.columns)
            return call_all(self.func, pieces, self.star)
        if self.sliceable and wanted >= (self.remaining or 0):
            return self._results  # islice would take 8 ns for each item
        return islice(self._results, wanted)

    def _keepable(self) -> int:
        """Return how many items may run before a new mark is set: the mark keeps them in memory."""
        if self.sliceable:
            return sys.maxsize
        if self._latest is NO_ITEM:
            return 1
        return max(1, min(self._kept_items, _KEPT_BYTES // max(1, sys.getsizeof(self._latest, 64))))

    def _blame(self, error: BaseException, mark: Iterator[Any] | None, offset: int) -> None:
        """Add a note with index and item to an exception of ``func``; leave others as they are.

        An exception is the input's if it came before the input gave the item. KeyboardInterrupt
        and similar exceptions belong to no item.
        """
        if not isinstance(error, ITEM_ERRORS):
            return
        if mark is None:
            add_item_note(error, self.position, self.item(self.position))
        elif self._taken() > self.position:
            add_item_note(error, self.position, next(islice(mark, offset, None)))

    def _taken(self) -> int:
        """Return how many items were taken from the source of a stream."""
        # Only the counter's repr, "count(n)", shows its next number n without changing it.
        return int(repr(self._given)[6:-1]) - 1


def _sliceable(data: Iterable[Any]) -> bool:
    kind = type(data)
    if kind in SLICEABLE:
        return True
    return kind.__module__.partition(".")[0] == "numpy" and kind.__name__ in ("ndarray", "memmap")


def _hint(iterables: tuple[Any, ...]) -> int | None:
    """Return the number of items that the inputs report, None unless all report one."""
    try:
        return min(map(len, iterables))
    except Exception:  # noqa: BLE001 - no length, one that does not fit, or a user's that raises
        return None
