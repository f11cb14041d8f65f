"""The books of a pool: which orders wait, and which have been put up for the workers.

The books have no clock, no workers and no I/O. The pool reports each event to them, and acts on the
answer. Every order is in exactly one place: not drawn yet, waiting, out (put up on the board, or
taken by a worker that has not answered), or settled.
"""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ..run.failure import Failure
    from ..run.transport import Parcel
    from .orders import Order
else:
    Protocol = object  # ``typing`` takes 3 ms to load

__all__ = ["HANDS", "Books", "Source", "Ticket", "ahead"]

# So much work is put up for each worker, so that none need wait, and at most so many orders.
AHEAD_SECONDS = 0.01
MOST_AHEAD = 120
# Behind an order that is shorter than this another one is put up in any case.
SHORT_SECONDS = 0.1
# So many orders each worker may have where one is large: one runs, one waits.
HANDS = 2


def ahead(seconds: float | None, most_seconds: float = AHEAD_SECONDS) -> int:
    """Return how many orders to put up for each worker.

    Args:
        seconds: time of an order lately, s; None if not known.
        most_seconds: how much work to put up, s.

    >>> ahead(None), ahead(1.0), ahead(0.05), ahead(1e-6)
    (1, 1, 2, 120)
    """
    if seconds is None or seconds > SHORT_SECONDS:
        return 1
    return max(HANDS, min(MOST_AHEAD, 1 + int(most_seconds / max(seconds, 1e-9))))


class Ticket:
    """An order on its way, and what is to become of its outcome.

    Args:
        order: what to run.

    Attributes:
        losses: how many workers have died while they ran it.
        by_value: whether what a forked worker may lack goes by value.
        is_repeated: whether it had run in a worker that died before it could answer.
        pack: makes the parcel of the order, given a path prefix for segments; None for the usual
            way.
    """

    __slots__ = ("by_value", "is_repeated", "losses", "order", "pack")

    def __init__(self, order: Order) -> None:
        self.order = order
        self.losses = 0
        self.by_value = self.is_repeated = False
        self.pack: Callable[[Order, str], Parcel] | None = None

    def begin(self) -> bool:
        """Return whether the order is still wanted; called before it is sent the first time."""
        return True

    def cancel(self) -> None:
        """Note that the order is not wanted any more, if that is possible."""

    def settle(self, outcome: Any, seconds: float, cpu_seconds: float) -> None:
        """Take the outcome; called once.

        Args:
            outcome: what came of the order.
            seconds: wall time of the user's code, s.
            cpu_seconds: CPU time meanwhile, s; 0 where not measured.
        """
        raise NotImplementedError


class Source(Protocol):
    """Gives tickets, one at a time, as workers have room for them.

    Attributes:
        is_empty: whether there will be no more tickets.
    """

    is_empty: bool

    def draw(self) -> Ticket | None:
        """Return the next ticket; None if there is none for now."""

    def drop(self, failure: Failure) -> None:
        """Give no more tickets, for this reason."""


class Books:
    """The state of all orders of a pool.

    Args:
        retries: how often an order runs again after a worker has died with it.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._again: deque[Ticket] = deque()
        self._waiting: deque[Ticket | Source] = deque()
        self._out: dict[int, Ticket] = {}
        self._number = 0

    # Queries --------------------------------------------------------------------------------

    @property
    def out(self) -> int:
        """Number of orders that are out."""
        return len(self._out)

    @property
    def total(self) -> int:
        """Number of orders and sources of orders."""
        return len(self._out) + len(self._again) + len(self._waiting)

    @property
    def has_waiting(self) -> bool:
        """Whether any order or source waits."""
        return bool(self._again or self._waiting)

    def is_out(self, number: int) -> bool:
        """Return whether an order is out."""
        return number in self._out

    def numbers(self) -> set[int]:
        """Return the numbers of the orders that are out."""
        return set(self._out)

    def waiting(self) -> list[Ticket | Source]:
        """Return all that waits and was never put up."""
        return list(self._waiting)

    # Orders ---------------------------------------------------------------------------------

    def add(self, item: Ticket | Source) -> None:
        """Enter an order, or a source of orders, behind all others."""
        self._waiting.append(item)

    def draw(self, *, single: bool = True) -> Ticket | None:
        """Return the next order that is still wanted; None if there is none for now.

        Args:
            single: whether an order may be returned that stands alone. A source knows by itself how
                many orders to give.
        """
        if self._again:
            return self._again.popleft()
        place = 0
        while place < len(self._waiting):
            item = self._waiting[place]
            if isinstance(item, Ticket):
                if not single:
                    return None
                del self._waiting[place]
                if item.begin():
                    return item
                continue
            ticket = item.draw()
            if item.is_empty:
                del self._waiting[place]
            else:
                place += 1
            if ticket is not None:
                return ticket
        return None

    def put_out(self, ticket: Ticket) -> int:
        """Enter an order as out; return its number."""
        self._number += 1
        self._out[self._number] = ticket
        return self._number

    def take(self, number: int) -> Ticket:
        """Remove an order that is out: it was answered, or cannot be sent."""
        return self._out.pop(number)

    def repeat(self, ticket: Ticket) -> None:
        """Enter an order before all others, to be put up again."""
        self._again.append(ticket)

    def run_again(self, numbers: list[int]) -> None:
        """Enter orders before all others that had run in a worker that died."""
        for number in numbers:
            self._out[number].is_repeated = True
        self.take_back(numbers)

    def take_back(self, numbers: list[int]) -> None:
        """Enter orders that are out before all others, in their order."""
        self._again.extendleft(self._out.pop(number) for number in sorted(numbers, reverse=True))

    def lost(self, number: int) -> Ticket | None:
        """Record that a worker has died with an order, which runs again.

        Returns:
            The order if its retries are used up; None if it runs again.
        """
        ticket = self._out.pop(number)
        ticket.losses += 1
        if ticket.losses > self._retries:
            return ticket
        self._again.appendleft(ticket)
        return None

    def drop_waiting(self) -> list[Ticket | Source]:
        """Forget all that waits, and return what is still wanted of it."""
        wanted = (item for item in self._waiting if not isinstance(item, Ticket) or item.begin())
        dropped = [*self._again, *wanted]
        self._again.clear()
        self._waiting.clear()
        return dropped
