"""The jobs of a pool: inputs that are cut into orders as workers have room for them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from math import ceil

from ..decide.course import Course, even_course
from ..decide.cutting import (
    DEFAULT_CHUNKING,
    LONGEST_CHUNK_SECONDS,
    STREAM_CHUNK_ITEMS,
    STREAM_CHUNK_SECONDS,
    next_chunksize,
)
from ..errors import AmorsizeError
from ..measure.timing import CLAIMED, UNKNOWN, Block, Tally
from ..run.failure import NO_ITEM, add_item_note, add_note
from ..run.feed import SLICEABLE
from .books import HANDS, Ticket, ahead
from .claims import MOST_TAKEN
from .orders import Chunk, Outcomes, Raised
from .results import AsyncResult, Results, raised

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..run.failure import Failure
    from .orders import Call, Order, Sendable

__all__ = ["Inputs", "MapJob", "Single", "StreamJob"]

# While the time of an item is not known, a worker gets this part of its share of the items, and at
# most so many items: enough to show it, few enough to lose little if they are dear.
FIRST_PART = 16
MOST_FIRST = 64
# The least number of chunks for each worker, unless a chunk would be shorter than this: each takes
# 0.03 ms (November 2026, two-core machine).
PARTS = 4
SHORT_CHUNK_SECONDS = 0.001
# An input is read this many chunks ahead of what the workers have, and at least so many items.
READ_AHEAD = 4
LEAST_READ = 16
# So much work of a map is put up for each worker: more than it does before it answers, so that none
# need wait. Later chunks can still be cut by what the first have taken.
AHEAD_SECONDS = 0.1


class Single(Ticket):
    """A single call, whose outcome is for a result.

    Args:
        order: what to run.
        result: gets the outcome.
    """

    __slots__ = ("_result",)

    def __init__(self, order: Call, result: AsyncResult) -> None:
        super().__init__(order)
        self._result = result

    def settle(self, outcome: Any, seconds: float, cpu_seconds: float) -> None:
        """Give the result its value or its exception."""
        del seconds, cpu_seconds
        if isinstance(outcome, Raised):
            self._result.settle(None, raised(outcome))
        else:
            self._result.settle(outcome)


class _Part(Ticket):
    """A chunk of a job.

    Args:
        order: what to run.
        settled: called with the outcome, and the wall and CPU time, s.
    """

    __slots__ = ("_settled",)

    def __init__(self, order: Order, settled: Callable[[Any, float, float], None]) -> None:
        super().__init__(order)
        self._settled = settled

    def settle(self, outcome: Any, seconds: float, cpu_seconds: float) -> None:
        """Give the job the outcome."""
        self._settled(outcome, seconds, cpu_seconds)


class MapJob:
    """The items of one ``map``, whose results are needed all at once.

    Args:
        func: the function to call.
        items: the items, which can be sliced.
        star: whether each item is a tuple of arguments.
        chunksize: items in one chunk; None to plan it.
        workers: number of workers.
        result: gets the list of all results.

    Attributes:
        size: number of items.
        tally: what the items have taken so far.
        pieces: (index of the first item, number of items, time, s) of each planned chunk that ran.
        is_empty: whether all chunks were drawn.
    """

    def __init__(
        self,
        func: Sendable,
        items: Any,
        *,
        star: bool,
        chunksize: int | None,
        workers: int,
        result: AsyncResult,
    ) -> None:
        self.tally = Tally()
        self.pieces: list[tuple[int, int, float]] = []
        self.is_empty = False
        self._func = func
        self._items: Any = items
        self._star = star
        self._chunksize = chunksize
        self._workers = workers
        self._item_seconds: float | None = None  # None while not known
        self._expected = 0.0  # time of an item in earlier jobs
        self._course: Course | None = None  # of an earlier job of the same size
        self._result = result
        self.size = len(items)
        self._position = 0
        self._out = 0  # chunks that were drawn and not settled
        self._done: dict[int, list[Any]] = {}  # results by the index of the first
        self._failed: tuple[int, BaseException] | None = None  # the earliest failure

    def expect(self, item_seconds: float | None, course: Course | None = None) -> None:
        """Take what is known of earlier jobs.

        Args:
            item_seconds: time of an item, s; None if there was none.
            course: course of the last one; None if there was none.
        """
        self._expected = item_seconds or 0.0
        if self._item_seconds is None:
            self._item_seconds = item_seconds
        if course is not None and course.items == self.size:
            self._course = course

    def draw(self) -> Ticket | None:
        """Return the next chunk; None while the workers have enough."""
        if self.size == 0:
            self.is_empty = True
            self._finish()
        if self.is_empty:
            return None
        start = self._position
        size = self._chunksize or self._planned(start)
        hands = self._hands(size)
        if self._out >= hands * self._workers:
            return None
        self._position = end = min(start + size, self.size)
        self._out += 1
        # What waits in one worker must leave enough chunks for the others.
        patience = min(hands // 4, MOST_TAKEN - 1)
        order = Chunk(self._func, self._items[start:end], self._star, patience=patience)
        if end >= self.size:
            self.is_empty = True
            self._items = None  # results may be needed long after the items
        return _Part(order, partial(self._settle, start, end - start))

    def drop(self, failure: Failure) -> None:
        """Give no more chunks, for this reason."""
        self.is_empty = True
        self._items = None
        self._fail(self._position, raised(Raised(failure)))
        if not self._out:
            self._finish()

    def _hands(self, size: int) -> int:
        """Return how many chunks each worker may have, given the size of the next one."""
        if self._item_seconds is None:
            return HANDS if self._chunksize else 1
        return max(HANDS, ahead(self._item_seconds * size, AHEAD_SECONDS))

    def _planned(self, start: int) -> int:
        """Return how many items the chunk has that begins at an index."""
        if self._item_seconds is None:
            return max(1, min((self.size - start) // (FIRST_PART * self._workers), MOST_FIRST))
        course = self._course
        if course is None:
            # Where the first items are cheaper than those of earlier jobs, the others may not be.
            course = even_course(self.size, max(self._item_seconds, self._expected))
        share = course.seconds / self._workers
        # As many chunks as a Pool makes, unless they are too short: while one is run, the next ones
        # are packed and their results unpacked. None has more items, as this time other items may
        # be the dear ones, and there is one for each worker at least: items may wait for others.
        parts = max(1, min(PARTS, int(share / SHORT_CHUNK_SECONDS)))
        longest = min(share / parts, LONGEST_CHUNK_SECONDS)
        most = ceil(self.size / (parts * self._workers))
        # Chunks shrink towards the end, by factoring, so that the workers end together.
        done = course.before(start)
        share_left = DEFAULT_CHUNKING.share * (course.seconds - done) / self._workers
        seconds = min(longest, max(SHORT_CHUNK_SECONDS, share_left))
        return max(1, min(most, course.reached(done + seconds) - start))

    def _settle(self, start: int, size: int, outcome: Any, seconds: float, cpu: float) -> None:
        self._out -= 1
        if isinstance(outcome, Raised):
            self._fail(start + outcome.offset, noted(outcome, start, size))
        else:
            self._done[start] = outcome
            if outcome and seconds:
                self.tally.add(_block(len(outcome), seconds, cpu))
                if self._chunksize is None:
                    self.pieces.append((start, size, seconds))
                self._item_seconds = self.tally.seconds / self.tally.items
        if self.is_empty and not self._out:
            self._finish()

    def _fail(self, index: int, error: BaseException) -> None:
        if self._failed is None or index < self._failed[0]:
            self._failed = index, error

    def _finish(self) -> None:
        done, self._done = self._done, {}
        failed, self._failed = self._failed, None
        if failed is not None:
            self._result.settle(None, failed[1])
        else:
            self._result.settle(list(chain.from_iterable(done[start] for start in sorted(done))))


def _block(items: int, seconds: float, cpu_seconds: float) -> Block:
    """Return a block of items, whose CPU time may not have been measured."""
    return Block(items, seconds, cpu_seconds, CLAIMED if cpu_seconds else UNKNOWN)


class StreamJob:
    """The items of one ``imap``, whose results are given as they come.

    Args:
        func: the function to call.
        inputs: gives the items.
        chunksize: items in one chunk, whose first exception stands for all of its results; None to
            plan it, with an outcome for each item.
        workers: number of workers.
        results: gets the results.

    Attributes:
        is_empty: whether all chunks were drawn.
    """

    def __init__(
        self,
        func: Sendable,
        inputs: Inputs,
        *,
        chunksize: int | None,
        workers: int,
        results: Results,
    ) -> None:
        self.is_empty = False
        self._func = func
        self._inputs = inputs
        self._chunksize = chunksize
        self._workers = workers
        self._results = results
        self._out = 0
        self._places = 0  # chunks drawn so far
        self._position = 0
        self._tally = Tally()

    def draw(self) -> Ticket | None:
        """Return the next chunk; None while none is read, or the workers have enough."""
        if self.is_empty or self._out >= self._hands() * self._workers:
            return None
        items = self._inputs.take(self._chunksize or self._planned(), whole=bool(self._chunksize))
        if not items:
            if self._inputs.is_over:
                self._end(self._inputs.error)
            return None
        start, place = self._position, self._places
        self._position += len(items)
        self._places += 1
        self._out += 1
        order = Chunk(self._func, items, apart=not self._chunksize)
        return _Part(order, partial(self._settle, place, start, len(items)))

    def drop(self, failure: Failure) -> None:
        """Give no more chunks, for this reason."""
        self._inputs.close()
        self._end(raised(Raised(failure)))

    def _end(self, error: BaseException | None) -> None:
        self.is_empty = True
        if error is not None:
            self._results.settle(self._places, [(None, error)])
            self._places += 1
        self._results.finish(self._places)

    def _hands(self) -> int:
        """Return how many chunks each worker may have."""
        if not self._tally.items:
            return HANDS
        seconds = (
            self._tally.seconds / self._tally.items * self._chunksize if self._chunksize else None
        )
        return max(HANDS, ahead(seconds))

    def _planned(self) -> int:
        if not self._tally.items:
            return 1
        return next_chunksize(
            None,
            self._workers,
            self._tally.seconds / self._tally.items,
            done=self._position,
            longest_seconds=STREAM_CHUNK_SECONDS,
            most_items=STREAM_CHUNK_ITEMS,
        )

    def _settle(
        self, place: int, start: int, size: int, outcome: Any, seconds: float, cpu: float
    ) -> None:
        self._out -= 1
        if isinstance(outcome, Raised):
            error = noted(outcome, start, size)
            count = 1 if self._chunksize else size
            self._results.settle(place, [(None, error)] * count)
            return
        if seconds:
            self._tally.add(_block(size, seconds, cpu))
        values = outcome.each if isinstance(outcome, Outcomes) else outcome
        self._results.settle(
            place,
            [
                (None, noted(one, start + offset, 1)) if isinstance(one, Raised) else (one, None)
                for offset, one in enumerate(values)
            ],
        )


class Inputs:
    """Reads an input: one that is in memory as it is needed, any other one in a thread.

    Reading any other input may take long, or wait for results of this pool.

    Args:
        iterable: the input.
        rouse: called when items have come that were asked for.

    Attributes:
        error: what the input has raised; None for nothing.
    """

    def __init__(self, iterable: Iterable[Any], rouse: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._rouse = rouse
        self._read: deque[Any] = deque()
        self._is_wanted = False
        self._limit = LEAST_READ
        self._room = threading.Event()  # set when items were taken
        self._ended = False
        self._source: Iterator[Any] | None = None
        if type(iterable) in SLICEABLE:
            self._source = iter(iterable)
        else:
            source = iter(iterable)
            thread = threading.Thread(
                target=self._fill, args=(source,), name="amorsize-input", daemon=True
            )
            thread.start()

    @property
    def is_over(self) -> bool:
        """Whether there will be no more items."""
        return self._ended and not self._read

    def take(self, wanted: int, *, whole: bool) -> list[Any]:
        """Return up to ``wanted`` items that have been read.

        Args:
            wanted: most items.
            whole: whether to return fewer only at the end of the input, and none of those before an
                exception.
        """
        if self._source is not None:
            items = list(islice(self._source, wanted))
            self._ended = len(items) < wanted
            return items
        self._limit = max(self._limit, READ_AHEAD * wanted)
        self._room.set()
        self._is_wanted = True  # first: the thread looks at it after each item
        ended, found = self._ended, len(self._read)
        if whole and found < wanted:
            if not ended:
                return []
            if self.error is not None:
                self._read.clear()
                return []
        items = [self._read.popleft() for _ in range(min(found, wanted))]
        self._room.set()
        return items

    def close(self) -> None:
        """Read no further."""
        self._ended = True
        self._read.clear()
        self._room.set()

    def _fill(self, source: Iterator[Any]) -> None:
        try:
            for item in source:
                if self._ended:
                    return
                self._read.append(item)
                if self._is_wanted:
                    self._is_wanted = False
                    self._rouse()
                while len(self._read) >= self._limit and not self._ended:
                    self._room.clear()
                    if len(self._read) >= self._limit and not self._ended:
                        self._room.wait()
        except BaseException as error:  # noqa: BLE001 - raised where the results are taken
            self.error = error
        self._ended = True
        self._rouse()


def noted(outcome: Raised, start: int, size: int) -> BaseException:
    """Return the exception of an outcome, with a note that names its item.

    Args:
        outcome: the outcome.
        start: index of the first item of the order.
        size: number of its items.
    """
    error = raised(outcome)
    if size == 1 or not isinstance(error, AmorsizeError):
        add_item_note(error, start + outcome.offset, NO_ITEM)
    else:
        add_note(error, f"raised for one of the items {start} to {start + size - 1}")
    return error
