"""Dealing: which worker of a pool gets which orders, how many ahead, how many in one message."""

from __future__ import annotations

from ..run.failure import keep
from .books import Books, Ticket
from .orders import Raised
from .packing import Packing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .attendant import Attendant

__all__ = ["Dealer"]

# Orders that take about so long together go in one message, and at most so many.
TOGETHER_SECONDS = 0.0005
MOST_TOGETHER = 1
# How much the time of the last order counts in the mean.
FRESHNESS = 0.2


class Dealer:
    """Sends orders to workers.

    Args:
        books: where the orders are.
        members: the workers, and how many messages each was sent.
        packing: packs orders.
        most: number of messages after which a worker ends; None for no limit.
        refuse: called with an order that cannot be sent, and the reason as its outcome.
    """

    def __init__(
        self,
        books: Books,
        members: dict[Attendant, int],
        packing: Packing,
        *,
        most: int | None,
        refuse: Callable[[Ticket, Raised], None],
    ) -> None:
        self._books = books
        self._members = members
        self._packing = packing
        self._most = most
        self._refuse = refuse
        self._mean: float | None = None  # time of an order lately, s

    def note(self, seconds: float) -> None:
        """Note how long an order took; 0 if it did not run."""
        if seconds:
            before = seconds if self._mean is None else self._mean
            self._mean = before + FRESHNESS * (seconds - before)

    def hand_out(self, workers: int) -> None:
        """Send orders to workers that have room.

        Args:
            workers: number of workers that are wanted.
        """
        books = self._books
        most = 1  # an order must not begin before one that was given earlier
        while books.has_waiting:
            attendant = books.freest(most)
            if attendant is None or (books.count(attendant) and not attendant.recalls):
                break
            tickets = books.draw_batch(self._batch_size(attendant, workers))
            if not tickets:
                break
            self._send(tickets, attendant)
        self._packing.forget()

    def _batch_size(self, attendant: Attendant, workers: int) -> int:
        """Return how many orders may go to a worker in one message.

        Only short ones do, and only while there is work for all workers.
        """
        mean = self._mean
        if mean is None or attendant.page is None or self._most is not None:
            return 1
        share = self._books.backlog // (2 * workers)
        return max(1, min(MOST_TOGETHER, share, int(TOGETHER_SECONDS / max(mean, 1e-9))))

    def share(self) -> None:
        """Give what a busy worker has not begun to one that is idle."""
        books = self._books
        idle = [one for one in self._members if one.is_ready and not books.count(one)]
        for attendant in idle if self._most is None else ():
            rich = max(self._members, key=self._spare)
            numbers = rich.withdraw() if self._spare(rich) > 0 else []
            if not numbers:
                return
            self._send(self.taken(rich, numbers), attendant)

    def taken(self, attendant: Attendant, numbers: list[int]) -> list[Ticket]:
        """Return the orders of these numbers that a worker still has, and take them away."""
        found = (self._books.take(attendant, number) for number in numbers)
        return [ticket for ticket in found if ticket is not None]

    def _spare(self, attendant: Attendant) -> int:
        """Return how many orders a worker can spare: all, until it is ready to run one."""
        return self._books.count(attendant) - attendant.is_ready

    def _send(self, tickets: list[Ticket], attendant: Attendant) -> None:
        """Send orders in one message; of one that cannot be sent, the reason is the outcome."""
        books = self._books
        idle = not books.count(attendant)
        numbers = [books.hold(attendant, ticket) for ticket in tickets]
        try:
            attendant.send(numbers, self._packing.pack(numbers, tickets), idle=idle)
        except BaseException as error:  # noqa: BLE001 - a reduction may also call sys.exit()
            self.taken(attendant, numbers)
            if len(tickets) == 1:
                self._refuse(tickets[0], Raised(keep(error, None)._replace(unrun=True)))
                return
            for ticket in tickets:
                self._send([ticket], attendant)
            return
        self._members[attendant] += 1
        if self._members[attendant] == self._most:
            books.seal(attendant)
