"""A worker of a pool, as the caller sees it: a crew of one process, with a queue of its own."""

from __future__ import annotations

import itertools
from functools import partial

from ..run.channel import END
from ..run.known import named
from ..run.processes import ProcessCrew
from .attending import Answer, attend, opened_order, packed_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..run.crew import Lost, Process, Starts
    from ..run.start import Recipe
    from ..run.transport import Parcel

__all__ = ["Attendant"]

_numbers = itertools.count(1)


class Attendant(ProcessCrew):
    """One worker process that answers orders.

    Args:
        recipe: how to start it.
        plain: whether its results must be such as plain pickle can serialize.
        most: number of orders after which it ends; None for no limit.

    Attributes:
        number: counts the workers of this process.
        process: the worker process.

    Raises:
        CannotStart: the process cannot be started.
        SerializationError: the initializer cannot be sent.
    """

    def __init__(self, recipe: Recipe, *, plain: bool, most: int | None) -> None:
        self.number = next(_numbers)
        self.serve = partial(attend, plain=plain, most=most)
        with named(recipe.places):
            super().__init__(recipe.starts, 1, recipe.setup, inherits=False)
        self.process: Process = self._workers[0]

    @property
    def recalls(self) -> bool:
        """Whether an order that it has not begun can be taken back."""
        return self._tasks.recalls

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

    def send(self, number: int, parcel: Parcel) -> None:
        """Send an order.

        Raises:
            OSError: the order is too large.
        """
        self._tasks.put(packed_order(number, parcel))

    def withdraw(self) -> int | None:
        """Take back the first order that it has not begun; return its number, None for none."""
        message = None if self._ended else self._tasks.take_back()
        if message == END:
            self._tasks.put(END)
            return None
        return None if message is None else opened_order(message)[0]

    @staticmethod
    def opened(fields: Any) -> Answer:
        """Return an answer, from what the worker has sent."""
        return Answer(*fields)

    def lost(self) -> Lost | None:
        """Return how it was lost; None if it is well, or has left as it was asked to."""
        return None if self.has_left else super().lost()

    def _at_exit(self, starts: Starts) -> Callable[[], object]:
        """Do nothing: the service ends its workers, in its own thread."""
        return int

    def exitcode(self) -> int | None:
        """Return its exit code, None while it runs or where it is unknown."""
        return None if self._ended or self.process.is_alive() else self.process.exitcode()
