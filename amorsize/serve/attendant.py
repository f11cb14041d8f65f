"""A worker of a pool, as the caller sees it: a crew of one process."""

from __future__ import annotations

import itertools
from functools import partial

from ..run.crew import starting
from ..run.known import named
from ..run.processes import ProcessCrew
from .attending import attend
from .claims import Claims

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..run.crew import Lost, Process, Starts
    from ..run.start import Recipe
    from .board import BoardEnd

__all__ = ["Attendant", "Member"]

_numbers = itertools.count(1)


class Attendant(ProcessCrew):
    """One worker process that answers orders.

    Args:
        recipe: how to start it.
        plain: whether its results must be such as plain pickle can serialize.
        most: number of orders after which it ends; None for no limit.
        board: where it takes orders; None if they are given to it.
        path: path of the page for its claims, which it has if there is a board.

    Attributes:
        number: counts the workers of this process.
        process: the worker process.

    Raises:
        CannotStart: the process cannot be started.
        SerializationError: the initializer cannot be sent.
    """

    minds_memory = False  # an order runs in one worker at a time in any case

    def __init__(
        self, recipe: Recipe, *, plain: bool, most: int | None, board: BoardEnd | None, path: str
    ) -> None:
        self.number = next(_numbers)
        with starting():
            self._claims = None if board is None else Claims(path, create=True)
        self._given = 0  # number of the order that it was given
        self._room = most  # how many more it may be given; None for no limit
        page = path if board is not None else ""
        self.serve = partial(attend, plain=plain, most=most, board=board, page=page)
        try:
            with named(recipe.places):
                super().__init__(recipe.starts, 1, recipe.setup, inherits=False)
        except BaseException:  # also Ctrl-C: nothing else would close it
            self._close_page()
            raise
        self.process: Process = self._workers[0]

    @property
    def is_idle(self) -> bool:
        """Whether it waits for an order: it has answered, and is not about to end."""
        return not self._given and self._room != 0 and not self.has_left

    @property
    def is_taking(self) -> bool:
        """Whether it may have taken an order that ``orders`` does not show."""
        return self._claims is not None and self._claims.is_taking

    @property
    def orders(self) -> list[int]:
        """The numbers of the orders that it was given or has taken, and may not have answered.

        It took the last one last.
        """
        if self._claims is not None:
            return self._claims.numbers
        return [self._given] if self._given else []

    @property
    def kept(self) -> int:
        """How many orders it has run and not answered."""
        return 0 if self._claims is None else max(0, self._claims.count - 1)

    @property
    def has_left(self) -> bool:
        """Whether it has said that it ends as it was asked to."""
        return bool(self.peaks)

    def sources(self) -> list[Any]:
        """Return what shows that it has sent something, or has ended."""
        return self._tasks.sources()

    def give(self, number: int, message: bytes) -> None:
        """Give it an order, where there is no board."""
        self._given = number
        if self._room is not None:
            self._room -= 1
        self._tasks.put(message)

    def answers(self) -> list[tuple[Any, ...]]:
        """Return (number of the order, packed outcome, wall time, CPU time) of its answers."""
        self._listener.hear_all()
        found = _each(self._fetched())
        if found:
            self._given = 0
        return found

    def last_answers(self) -> list[tuple[Any, ...]]:
        """Kill the worker, whatever it does; return its answers that had arrived."""
        return _each(self.abandon())

    @staticmethod
    def opened(fields: Any) -> Any:
        """Return the answers of a reply as they were sent."""
        return fields

    def dismiss(self) -> bool:
        """Ask it to end, where there is no board; return True."""
        return True if self._claims is not None else super().dismiss()

    def lost(self) -> Lost | None:
        """Return how it was lost; None if it is well, or has left as it was asked to."""
        return None if self.has_left else super().lost()

    def exitcode(self) -> int | None:
        """Return its exit code, None while it runs or where it is unknown."""
        return None if self._ended or self.process.is_alive() else self.process.exitcode()

    def sweep(self) -> None:
        """Remove its segments and, once it has ended, the page of its claims."""
        super().sweep()
        if self._ended and not self.is_inherited():
            self._close_page()

    def _close_page(self) -> None:
        if self._claims is not None:
            self._claims.close()
            self._claims = None

    def _at_exit(self, starts: Starts) -> Callable[[], object]:
        """Do nothing: the service ends its workers, in its own thread."""
        return int


def _each(replies: list[tuple[int, Any]]) -> list[tuple[Any, ...]]:
    """Return the answers of several replies."""
    return [answer for _, (answers,) in replies for answer in answers]


class Member:
    """A worker of a pool: what is of use of a ``multiprocessing.Process``.

    Args:
        attendant: the worker.
    """

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
