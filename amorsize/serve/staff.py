"""The staff of a pool: its workers are started, watched, and taken out when they have ended."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..run.processes import GRACE_SECONDS
from ..run.shared import sweep
from .attendant import Attendant
from .watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..run.start import Recipe

__all__ = ["Staff"]


class Staff:
    """The workers of one pool.

    Args:
        recipe: how to start a worker.
        plain: whether results must be such as plain pickle can serialize.
        most: number of messages after which a worker ends; None for no limit.
        prefix: path prefix of shared segments, "" for none.

    Attributes:
        members: the present workers, and how many messages each was sent.
        watch: waits for them.
    """

    def __init__(self, recipe: Recipe, *, plain: bool, most: int | None, prefix: str) -> None:
        self.members: dict[Attendant, int] = {}
        self.watch = Watch()
        self._recipe = recipe
        self._plain = plain
        self._most = most
        self._prefix = prefix
        self._leaving: dict[Attendant, float] = {}  # when each is killed

    @property
    def is_silent(self) -> bool:
        """Whether the end of a worker must be looked for."""
        return bool(self._leaving) or any(not one.process.reports for one in self.members)

    def fill(self, workers: int) -> Iterator[Attendant]:
        """Start workers until there are so many; yield each.

        Raises:
            CannotStart: the system refuses.
            SerializationError: the initializer cannot be sent.
        """
        while len(self.members) < workers:
            attendant = Attendant(
                self._recipe, plain=self._plain, most=self._most, prefix=self._prefix
            )
            self.members[attendant] = 0
            self.watch.add(attendant)
            yield attendant

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

    def bury(self, attendant: Attendant) -> tuple[set[int], list[Any]]:
        """Take a worker out that has died or is stuck.

        Returns:
            The numbers of the orders that it had not taken; its last answers.
        """
        unbegun: set[int] = set()
        while numbers := attendant.withdraw():
            unbegun.update(numbers)
        self.watch.remove(attendant)
        answers = attendant.abandon()
        attendant.sweep()
        del self.members[attendant]
        return unbegun, answers

    def end(self, *, gently: bool) -> None:
        """End all workers.

        Args:
            gently: whether they are idle, and may end by themselves.
        """
        if gently:
            for attendant in self.members:
                attendant.dismiss()
            for attendant in self.members:
                attendant.close()
        for attendant in (*self.members, *self._leaving):
            attendant.abandon()
            attendant.sweep()
        self.watch.close()
        sweep(self._prefix)
