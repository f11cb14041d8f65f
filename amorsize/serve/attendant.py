"""A worker of a pool, as the caller sees it: a crew of one process, with a queue of its own."""

from __future__ import annotations

import itertools
import time
from collections import deque
from functools import partial

from ..run.channel import END
from ..run.known import named
from ..run.processes import ProcessCrew
from .attending import attend, opened_orders, packed_orders
from .claims import SETTLE_SECONDS, Claims

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..run.crew import Lost, Process, Starts
    from ..run.start import Recipe
    from ..run.transport import Parcel

__all__ = ["LATE_SECONDS", "Attendant", "Member"]

# A batch is expected to take a fraction of a millisecond. If nothing was heard of it for so long,
# what its worker has not begun is taken away.
LATE_SECONDS = 0.02

_numbers = itertools.count(1)


class Attendant(ProcessCrew):
    """One worker process that answers orders.

    Args:
        recipe: how to start it.
        plain: whether its results must be such as plain pickle can serialize.
        most: number of batches after which it ends; None for no limit.
        prefix: path prefix of shared segments, "" for none.

    Attributes:
        number: counts the workers of this process.
        process: the worker process.
        page: shows what it has begun of a batch; None where there is none.

    Raises:
        CannotStart: the process cannot be started.
        SerializationError: the initializer cannot be sent.
    """

    minds_memory = False  # an order runs in one worker at a time in any case

    def __init__(self, recipe: Recipe, *, plain: bool, most: int | None, prefix: str) -> None:
        self.number = next(_numbers)
        self.page = _new_page(prefix, self.number)
        self._heard_at = 0.0  # when it sent something, or was sent something while it was idle
        self._batches: deque[list[int]] = deque()  # those of several orders, by their numbers
        self._limited: tuple[int, int, float] | None = None  # (batch, limit, since when)
        path = "" if self.page is None else self.page.path
        self.serve = partial(attend, plain=plain, most=most, page=path)
        try:
            with named(recipe.places):
                super().__init__(recipe.starts, 1, recipe.setup, inherits=False)
        except BaseException:
            self.sweep()
            raise
        self.process: Process = self._workers[0]

    @property
    def recalls(self) -> bool:
        """Whether what it has not begun can be taken back."""
        return self._tasks.recalls

    @property
    def has_batches(self) -> bool:
        """Whether it may have several orders of one message."""
        return bool(self._batches)

    @property
    def is_ready(self) -> bool:
        """Whether it has said that it is set up."""
        return self._listener.ready > 0

    @property
    def has_left(self) -> bool:
        """Whether it has said that it ends as it was asked to."""
        return bool(self.peaks)

    def sources(self) -> list[Any]:
        """Return what shows that it has sent something, or has ended."""
        return self._tasks.sources()

    def send(self, numbers: list[int], parcel: Parcel, *, idle: bool) -> None:
        """Send a batch.

        Args:
            numbers: the numbers of its orders.
            parcel: a list of (number, order).
            idle: whether it has nothing else.

        Raises:
            OSError: the batch is too large.
        """
        self._tasks.put(packed_orders(numbers[0], parcel))
        if idle:
            self._heard_at = time.monotonic()
        if len(numbers) > 1:
            self._batches.append(numbers)

    def withdraw(self) -> list[int]:
        """Take back the first batch that it has not begun; return its numbers, none if none."""
        message = None if self._ended else self._tasks.take_back()
        if message is None:
            return []
        if message == END:
            self._tasks.put(END)
            return []
        batch = opened_orders(message)[0]
        found = self.batch_of(batch)
        if found in self._batches:
            self._batches.remove(found)
        return found

    def heard(self, number: int) -> None:
        """Note that it has answered all orders up to a number."""
        self._heard_at = time.monotonic()
        while self._batches and self._batches[0][-1] <= number:
            self._batches.popleft()

    def given_back(self, batch: int, place: int) -> list[int]:
        """Return the numbers of the orders of a batch that it gives back, from a place on."""
        numbers = self.batch_of(batch)
        if numbers in self._batches:
            self._batches.remove(numbers)
        return numbers[place:]

    def batch_of(self, number: int) -> list[int]:
        """Return the numbers of the orders that came in one message with an order."""
        return next((numbers for numbers in self._batches if number in numbers), [number])

    def take_away(self) -> list[int]:
        """Take away what it has not begun of a batch that is late; return the numbers.

        The first call sets a limit, a later one takes away what is above it.
        """
        now = time.monotonic()
        if self.page is None or not self._batches or now - self._heard_at < LATE_SECONDS:
            return []
        numbers = self._batches[0]
        limited, self._limited = self._limited, None
        if limited is None or limited[0] != numbers[0]:
            place = self.page.begun(numbers[0]) + 1
            if place < len(numbers):
                self.page.limit(numbers[0], place)
                self._limited = numbers[0], place, now
            return []
        _, place, since = limited
        if now - since < SETTLE_SECONDS:
            self._limited = limited
            return []
        if self.page.begun(numbers[0]) >= place:  # it will stop at the next one, and say so
            return []
        taken, self._batches[0] = numbers[place:], numbers[:place]
        return taken

    def answers(self) -> list[tuple[int, tuple[Any, ...]]]:
        """Return what it has sent.

        Returns:
            (number of an order, (packed outcome, wall time, CPU time)), or for a batch that was not
            run to its end (its number, (place of the first order that it gives back,)).
        """
        self._read(0.0)
        return self._fetched()

    @staticmethod
    def opened(fields: Any) -> Any:
        """Return an answer as it was sent."""
        return fields

    def lost(self) -> Lost | None:
        """Return how it was lost; None if it is well, or has left as it was asked to."""
        return None if self.has_left else super().lost()

    def sweep(self) -> None:
        """Remove its segments and, once it has ended, the page of its claims."""
        super().sweep()
        if self._ended and self.page is not None and not self.is_inherited():
            self.page.close()
            self.page = None

    def exitcode(self) -> int | None:
        """Return its exit code, None while it runs or where it is unknown."""
        return None if self._ended or self.process.is_alive() else self.process.exitcode()

    def _at_exit(self, starts: Starts) -> Callable[[], object]:
        """Do nothing: the service ends its workers, in its own thread."""
        return int


def _new_page(prefix: str, number: int) -> Claims | None:
    """Return a new page, None if there is no room for it."""
    if not prefix:
        return None
    try:
        return Claims(f"{prefix}claims-{number}", create=True)
    except OSError:
        return None


class Member:
    """A worker of a pool: what is of use of a ``multiprocessing.Process``."""

    def __init__(self, attendant: Attendant) -> None:
        self._attendant = attendant
        self.pid: int = attendant.process.pid
        self.name = f"amorsize-{attendant.number}"
        self.daemon = True

    @property
    def exitcode(self) -> int | None:
        """The exit code, None while the worker runs or where it is unknown."""
        return self._attendant.exitcode()

    def is_alive(self) -> bool:
        """Return whether the worker is running."""
        return not self._attendant.ended and self._attendant.process.is_alive()

    def __repr__(self) -> str:
        return f"<worker {self.name} pid={self.pid}>"
