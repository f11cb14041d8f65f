"""Turns: orders go to idle workers, one at a time, where several processes cannot share a pipe.

It stands in the place of the board (Windows). Each worker has a pipe of its own.
"""

from __future__ import annotations

from collections import deque

from ..run.transport import Parcel
from .wire import opened_message, packed_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .attendant import Attendant

__all__ = ["Turns"]


class Turns:
    """Gives orders to workers, the first order first.

    Args:
        members: the workers.
    """

    end = None

    def __init__(self, members: dict[Attendant, None]) -> None:
        self._members = members
        self._messages: deque[bytes] = deque()
        self._ends = 0

    @property
    def is_full(self) -> bool:
        """Whether something waits for a worker."""
        return bool(self._messages)

    def put(self, number: int, order: bytes | Parcel) -> None:
        """Put an order, or its pickle, behind the others."""
        self._messages.append(packed_message(number, order))

    def put_end(self) -> None:
        """Ask one worker to end, after all orders."""
        self._ends += 1

    def flush(self) -> None:
        """Give orders to idle workers."""
        for attendant in self._members:
            if not self._messages:
                break
            if attendant.is_idle:
                message = self._messages.popleft()
                attendant.give(opened_message(message)[0], message)
        while self._ends and not self._messages:
            self._ends -= 1
            for attendant in self._members:
                attendant.dismiss()

    def take_back(self, settle: Callable[[], object]) -> list[int]:
        """Take back the orders that no worker was given; return their numbers."""
        del settle  # no worker takes anything by itself
        found = [opened_message(message)[0] for message in self._messages]
        self._messages.clear()
        return found

    def close(self) -> None:
        """Do nothing: the workers' pipes are their own."""
