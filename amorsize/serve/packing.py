"""Packing orders: what forked workers have goes by its name, everything else by value."""

from __future__ import annotations

from types import FunctionType

from ..run.known import main_names
from ..run.transport import pack_forked, pack_shipped
from .orders import Sendable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..run.transport import Parcel
    from .books import Ticket
    from .orders import Order

__all__ = ["Packing"]


class Packing:
    """Packs orders for the workers of one pool.

    Args:
        prefix: path prefix of shared segments, "" for none.
        forks: whether the workers are forked.

    Attributes:
        forks: the same.
    """

    def __init__(self, prefix: str, *, forks: bool) -> None:
        self.forks = forks
        self._prefix = prefix
        self._met: tuple[Any, bool] = (None, False)  # the last function, and whether it is new
        # The functions and classes of the main module that the workers have under their names.
        self._inherited = {
            name: value
            for name, value in (main_names() if forks else {}).items()
            if isinstance(value, (FunctionType, type))
        }

    def pack(self, numbers: list[int], tickets: list[Ticket]) -> Parcel:
        """Return a parcel of a list of (number, order).

        Args:
            numbers: the numbers of the orders.
            tickets: the orders.

        Raises:
            SerializationError: an order cannot be sent.
        """
        by_value = not self.forks or any(one.by_value or self._is_new(one) for one in tickets)
        pack = pack_shipped if by_value else pack_forked
        orders: list[tuple[int, Order]] = []
        for number, ticket in zip(numbers, tickets, strict=True):
            order = ticket.order
            if isinstance(order.func, Sendable):
                order = order._replace(func=order.func.packed(pack))
            orders.append((number, order))
        return pack(orders, self._prefix)

    def forget(self) -> None:
        """Keep no function alive."""
        self._met = None, False

    def _is_new(self, ticket: Ticket) -> bool:
        """Return whether the function is one of the main module's that the workers lack."""
        func: Any = ticket.order.func
        if isinstance(func, Sendable):
            func = func.func
        if func is not self._met[0]:
            self._met = func, self._was_made_later(func)
        return self._met[1]

    def _was_made_later(self, func: Any) -> bool:
        if getattr(func, "__module__", None) != "__main__":
            return False
        name = getattr(func, "__qualname__", "").partition(".")[0]
        return self._inherited.get(name) is not main_names().get(name)
