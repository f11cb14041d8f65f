"""The staff of a pool: its workers are started, watched, and taken out when they have ended."""

from __future__ import annotations

import os
import time

from ..run.processes import GRACE_SECONDS, has_local_sockets
from ..run.shared import sweep
from ..tuples import NamedTuple
from .attendant import Attendant
from .turns import Turns
from .watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..run.start import Recipe
    from .board import Board

__all__ = ["Remains", "Staff"]

# A worker needs some us to take an order and to say so; one that was stopped meanwhile is not
# waited for longer than this.
TAKE_SECONDS = 1.0


class Remains(NamedTuple):
    """What a worker leaves that has died.

    Attributes:
        answers: its last answers, as ``Attendant.answers`` gives them.
        orders: numbers of the orders that it had and may not have answered; it took the last one
            last.
        is_taking: whether it was about to take one more, having run all of these.
    """

    answers: list[tuple[Any, ...]]
    orders: list[int]
    is_taking: bool


class Staff:
    """The workers of one pool.

    Args:
        recipe: how to start a worker.
        plain: whether results must be such as plain pickle can serialize.
        most: number of orders after which a worker ends; None for no limit.
        prefix: path prefix of shared segments, "" for none.

    Attributes:
        members: the present workers, in the order in which they came.
        watch: waits for them.
        board: where they take orders.

    Raises:
        OSError: the system has no pipe or socket to give.
    """

    def __init__(self, recipe: Recipe, *, plain: bool, most: int | None, prefix: str) -> None:
        self.members: dict[Attendant, None] = {}
        self.watch = Watch()
        self.board = _board(prefix) or Turns(self.members)
        self._recipe = recipe
        self._plain = plain
        self._most = most
        self._prefix = prefix
        self._leaving: dict[Attendant, float] = {}  # when each is killed

    @property
    def is_silent(self) -> bool:
        """Whether the end of a worker must be looked for."""
        return bool(self._leaving) or any(not one.process.reports for one in self.members)

    @property
    def kept(self) -> int:
        """How many orders have run and were not answered."""
        return sum(attendant.kept for attendant in self.members)

    def fill(self, workers: int) -> None:
        """Start workers until there are so many.

        Raises:
            CannotStart: the system refuses.
            SerializationError: the initializer cannot be sent.
        """
        while len(self.members) < workers:
            attendant = Attendant(
                self._recipe,
                plain=self._plain,
                most=self._most,
                board=self.board.end,
                path=f"{self._prefix}claims-{os.urandom(4).hex()}",
            )
            self.members[attendant] = None
            self.watch.add(attendant)

    def let_go(self, attendant: Attendant) -> None:
        """Take a worker out that ends as it was asked to."""
        del self.members[attendant]
        self._leaving[attendant] = time.monotonic() + GRACE_SECONDS

    def close_leaving(self) -> None:
        """Release the workers that have ended as they were asked to; kill those that are late."""
        now = time.monotonic()
        for attendant, limit in list(self._leaving.items()):
            if not attendant.process.is_alive() or now > limit:
                del self._leaving[attendant]
                self.watch.remove(attendant)
                attendant.abandon()
                attendant.sweep()

    def bury(self, attendant: Attendant) -> Remains:
        """Take a worker out that has died or is stuck; return what it leaves."""
        self.watch.remove(attendant)
        answers = attendant.last_answers()  # kills it, so that it takes nothing more
        remains = Remains(answers, attendant.orders, attendant.is_taking)
        attendant.sweep()
        del self.members[attendant]
        return remains

    def take_back(self) -> list[int]:
        """Take back the orders that no worker has taken; return their numbers."""
        return self.board.take_back(self._settle)

    def taken(self) -> set[int]:
        """Return the orders that workers were given or have taken, and may not have answered."""
        return {number for one in self.members for number in one.orders}

    def _settle(self) -> None:
        """Wait until no worker is taking an order; kill those that do not come to an end."""
        limit = time.monotonic() + TAKE_SECONDS
        while taking := [one for one in self.members if one.is_taking]:
            if time.monotonic() > limit:
                for attendant in taking:
                    attendant.process.kill()
                return
            time.sleep(0.001)

    def end(self, *, gently: bool) -> None:
        """End all workers.

        Args:
            gently: whether they are idle, and may end by themselves.
        """
        if gently:
            for attendant in self.members:
                self.board.put_end()
                attendant.dismiss()
            self.board.flush()
            for attendant in self.members:
                attendant.close()
        for attendant in (*self.members, *self._leaving):
            attendant.abandon()
            attendant.sweep()
        self.board.close()
        self.watch.close()
        sweep(self._prefix)


def _board(prefix: str) -> Board | None:
    """Return a new board; None where processes cannot share a pipe, or no memory."""
    if not prefix or not has_local_sockets():
        return None
    from .board import Board

    return Board()
