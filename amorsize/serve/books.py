"""The books of a pool: which order waits, and which worker has which orders.

The books have no clock, no workers and no I/O. The pool reports each event to them, and acts on the
answer. Every order is in exactly one place: not drawn yet, waiting, held by a worker, or settled.
"""

from __future__ import annotations

from collections import deque

from .orders import Apply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any, Protocol

    from ..run.failure import Failure
    from .orders import Order
else:
    Protocol = object  # ``typing`` takes 3 ms to load

__all__ = ["AHEAD_SECONDS", "MOST_AHEAD", "Books", "Source", "Ticket", "ahead"]

# A worker has this much work in its queue, so that it need not wait for more, and at most this many
# orders. What it has not begun can be taken back for a worker that is idle.
AHEAD_SECONDS = 0.01
MOST_AHEAD = 48


def ahead(seconds: float | None) -> int:
    """Return how many orders a worker may hold at a time.

    Args:
        seconds: time of an order lately, s; None if not known.

    >>> ahead(None), ahead(1.0), ahead(0.005), ahead(1e-6)
    (1, 1, 3, 48)
    """
    if seconds is None:
        return 1
    return max(1, min(MOST_AHEAD, 1 + int(AHEAD_SECONDS / max(seconds, 1e-9))))


class Ticket:
    """An order on its way, and what is to become of its outcome.

    Args:
        order: what to run.

    Attributes:
        losses: how many workers have died while they ran it.
        by_value: whether what a forked worker may lack goes by value.
        alone: whether it is sent in a message of its own.
    """

    __slots__ = ("alone", "by_value", "losses", "order")

    def __init__(self, order: Order) -> None:
        self.order = order
        self.losses = 0
        self.by_value = self.alone = False

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
    """Gives tickets, one at a time, as workers have room for them."""

    @property
    def is_empty(self) -> bool:
        """Whether there will be no more tickets."""

    def draw(self) -> Ticket | None:
        """Return the next ticket; None if there is none for now."""

    def drop(self, failure: Failure) -> None:
        """Give no more tickets, for this reason."""


def _joins(ticket: Ticket) -> bool:
    """Return whether an order may travel with others: a call that was never tried."""
    return type(ticket.order) is Apply and not ticket.alone


class Books:
    """The state of all orders of a pool.

    Args:
        retries: how often an order runs again after a worker has died with it.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._again: deque[Ticket] = deque()
        self._waiting: deque[Ticket | Source] = deque()
        self._held: dict[Hashable, dict[int, Ticket]] = {}
        self._open: dict[Hashable, None] = {}  # workers that may be sent more
        self._number = 0

    # Queries --------------------------------------------------------------------------------

    @property
    def workers(self) -> list[Any]:
        """All workers, in the order in which they came."""
        return list(self._held)

    @property
    def is_idle(self) -> bool:
        """Whether there is no order anywhere."""
        return not (self._again or self._waiting or any(self._held.values()))

    @property
    def total(self) -> int:
        """About how many orders there are, as another thread may ask."""
        held = list(self._held.values())
        return len(self._again) + len(self._waiting) + sum(map(len, held))

    @property
    def has_waiting(self) -> bool:
        """Whether any order or source waits."""
        return bool(self._again or self._waiting)

    def count(self, worker: Hashable) -> int:
        """Return how many orders a worker has."""
        return len(self._held[worker])

    def numbers(self, worker: Hashable) -> set[int]:
        """Return the numbers of the orders that a worker has."""
        return set(self._held[worker])

    def freest(self, most: int) -> Any:
        """Return the worker that holds the fewest orders, None if all hold ``most``.

        Workers that are sealed do not count.
        """
        found = min(self._open, key=self.count, default=None)
        return None if found is None or self.count(found) >= most else found

    # Orders ---------------------------------------------------------------------------------

    def add(self, item: Ticket | Source) -> None:
        """Enter an order, or a source of orders, behind all others."""
        self._waiting.append(item)

    def draw_batch(self, most: int) -> list[Ticket]:
        """Return the next orders that may travel together; none if there are none for now.

        Args:
            most: most orders; only single calls travel together.
        """
        first = self.draw()
        if first is None:
            return []
        batch = [first]
        while len(batch) < most and _joins(first) and self._waiting and not self._again:
            item = self._waiting[0]
            if not isinstance(item, Ticket) or not _joins(item):
                break
            self._waiting.popleft()
            if item.begin():
                batch.append(item)
        return batch

    def draw(self) -> Ticket | None:
        """Return the next order that is still wanted; None if there is none for now."""
        if self._again:
            return self._again.popleft()
        for place, item in enumerate(self._waiting):
            if isinstance(item, Ticket):
                del self._waiting[place]
                if item.begin():
                    return item
                return self.draw()
            ticket = item.draw()
            if item.is_empty:
                del self._waiting[place]
                if ticket is None:
                    return self.draw()
            if ticket is not None:
                return ticket
        return None

    @property
    def backlog(self) -> int:
        """Number of orders and sources that wait."""
        return len(self._waiting)

    def hold(self, worker: Hashable, ticket: Ticket) -> int:
        """Enter an order as sent to a worker; return its number."""
        self._number += 1
        self._held[worker][self._number] = ticket
        return self._number

    def held(self, worker: Hashable, number: int) -> Ticket:
        """Return an order that a worker has."""
        return self._held[worker][number]

    def take(self, worker: Hashable, number: int) -> Ticket | None:
        """Remove an order that a worker has answered or given back; None if it has it no more."""
        return self._held[worker].pop(number, None)

    def repeat(self, ticket: Ticket) -> None:
        """Enter an order before all others, to be sent again."""
        self._again.append(ticket)

    def waiting(self) -> list[Ticket | Source]:
        """Return all that waits and was never sent."""
        return list(self._waiting)

    def drop_waiting(self) -> list[Ticket | Source]:
        """Forget all that waits, and return it."""
        dropped = [*self._again, *self._waiting]
        self._again.clear()
        self._waiting.clear()
        return dropped

    # Workers --------------------------------------------------------------------------------

    def enter(self, worker: Hashable) -> None:
        """Enter a worker, which holds no order."""
        self._held[worker] = {}
        self._open[worker] = None

    def seal(self, worker: Hashable) -> None:
        """Send a worker no more orders: it ends after those that it has."""
        self._open.pop(worker, None)

    def leave(self, worker: Hashable, *, unbegun: set[int]) -> Ticket | None:
        """Remove a worker that has ended; the orders that it had run again.

        A worker runs its orders one after the other and answers each, so it had begun at most the
        first that it has not answered.

        Args:
            worker: the worker.
            unbegun: numbers of the orders that it had not taken.

        Returns:
            The order that it was running, if its retries are used up.
        """
        self.seal(worker)
        held = self._held.pop(worker)
        again, blamed = list(held.values()), None
        first = min(held, default=None)
        if first is not None and first not in unbegun:
            ticket = again[0]
            ticket.losses += 1
            ticket.alone = True
            if ticket.losses > self._retries:
                blamed = again.pop(0)
        self._again.extendleft(reversed(again))
        return blamed
