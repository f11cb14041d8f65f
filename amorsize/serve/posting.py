"""Putting orders up on the board of a pool, as many as its workers need."""

from __future__ import annotations

from ..run.failure import keep
from ..run.transport import Parcel
from .books import HANDS, Ticket, ahead
from .orders import Raised
from .results import report_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .books import Books
    from .packing import Packing
    from .staff import Staff

__all__ = ["Posting", "settle"]

# Orders are made visible to the workers at least so many at a time.
FLUSHED = 16


class Posting:
    """Takes orders from the books to the board.

    Args:
        books: the books.
        staff: has the board and the workers.
        packing: packs orders.
    """

    def __init__(self, books: Books, staff: Staff, packing: Packing) -> None:
        self._books = books
        self._staff = staff
        self._packing = packing
        self._large: set[int] = set()  # orders in shared segments that are out

    def put_up(self, workers: int, order_seconds: float | None) -> None:
        """Put up as many orders as the workers need.

        Args:
            workers: number of workers.
            order_seconds: time of an order lately, s; None if not known.
        """
        books, board = self._books, self._staff.board
        # What has run and waits to be answered keeps no worker busy.
        most = ahead(order_seconds) * workers + self._staff.kept
        self._large = {number for number in self._large if books.is_out(number)}
        # At first no more than can begin at once. One alone would wake all workers for nothing.
        together = min(workers, FLUSHED)
        ticket: Ticket | None = None
        while books.has_waiting and not board.is_full:
            for _ in range(together):
                is_crowded = len(self._large) >= HANDS * workers  # they take memory
                ticket = None if is_crowded else books.draw(single=books.out < most)
                if ticket is None:
                    break
                self._put_one_up(ticket)
            board.flush()
            together = FLUSHED
            if ticket is None:
                break
        board.flush()
        self._packing.forget()

    def _put_one_up(self, ticket: Ticket) -> None:
        number = self._books.put_out(ticket)
        try:
            packed = self._packing.pack(ticket)
            self._staff.board.put(number, packed)
        except BaseException as error:  # noqa: BLE001 - a reduction may call sys.exit()
            self._books.take(number)
            settle(ticket, Raised(keep(error, None)._replace(unrun=True)))
        else:
            if isinstance(packed, Parcel):
                self._large.add(number)


def settle(ticket: Ticket, outcome: Any, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
    """Settle an order; report what a callback of the user's raises.

    Args:
        ticket: the order.
        outcome: what came of it.
        seconds: wall time of the user's code, s.
        cpu_seconds: CPU time meanwhile, s; 0 where not measured.
    """
    try:
        ticket.settle(outcome, seconds, cpu_seconds)
    except BaseException:  # noqa: BLE001 - also sys.exit() must not end the service
        report_error()
