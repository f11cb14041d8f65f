"""Packing orders: what forked workers have goes by its name, everything else by value."""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import os
from types import FunctionType

from ..errors import SerializationError
from ..run import shared
from ..run.known import main_names
from ..run.reductions import PROTOCOL
from ..run.transport import INLINE_BYTES, Parcel, pack_forked, pack_leniently, pack_shipped
from .orders import Chunk
from .wire import MOST_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .books import Ticket
    from .orders import Call

__all__ = ["Packing"]

# Arguments of these types are pickled as they are.
_ATOMS = frozenset({int, float, bool, str, type(None)})
# So many items are looked at in less time than it saves.
MOST_LOOKED_AT = 500


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

    def pack(self, ticket: Ticket) -> bytes | Parcel:
        """Return the pickle of an order, or a parcel that holds it in a shared segment.

        Raises:
            SerializationError: the order cannot be sent.
        """
        packed = self._packed(ticket)
        if isinstance(packed, Parcel):
            packed = packed.smallest
        if isinstance(packed, Parcel) or len(packed) <= MOST_BYTES or not self._prefix:
            return packed
        # Shared memory had no room for it.
        import tempfile  # takes 5 ms to load

        folder = os.path.join(tempfile.gettempdir(), os.path.basename(self._prefix))
        segment = shared.write(folder, [packed])
        return Parcel(b"", segment, (len(packed),)) if segment else packed

    def _packed(self, ticket: Ticket) -> bytes | Parcel:
        order = ticket.order
        if ticket.pack is not None:
            return ticket.pack(order, self._prefix)
        if not isinstance(order, Chunk):
            return self._packed_call(order, by_value=ticket.by_value)
        if ticket.is_repeated:  # once is enough
            order = order._replace(patience=0)
        by_name = self.forks and not ticket.by_value and not self._is_new(order.func.func)
        return order.packed(_packed_by_name if by_name else _shipped, self._prefix)

    def _packed_call(self, call: Call, *, by_value: bool) -> bytes | Parcel:
        func, args, kwargs = call
        if not self.forks or by_value or self._is_new(func):
            return _shipped(call, self._prefix)
        if not kwargs and _ATOMS.issuperset(map(type, args)):
            try:
                return pickle.dumps(call, PROTOCOL)
            except Exception:  # noqa: BLE001 - amorsize's own pickler may succeed
                pass
        return pack_forked(call, self._prefix)

    def forget(self) -> None:
        """Keep no function alive."""
        self._met = None, False

    def _is_new(self, func: Any) -> bool:
        """Return whether the function is one of the main module's that the workers lack."""
        if func is not self._met[0]:
            self._met = func, self._was_made_later(func)
        return self._met[1]

    def _was_made_later(self, func: Any) -> bool:
        if getattr(func, "__module__", None) != "__main__":
            return False
        name = getattr(func, "__qualname__", "").partition(".")[0]
        return self._inherited.get(name) is not main_names().get(name)


def _packed_by_name(value: Any, prefix: str) -> Parcel:
    """Pack the function of chunks, or a chunk, as ``pack_forked`` does.

    Where pickle does so alone, and needs no look at what is in it, it takes a third of the time.
    """
    if type(value) is FunctionType or (type(value) is tuple and _is_plain(value[1])):
        try:
            head = pickle.dumps(value, PROTOCOL)
        except Exception:  # noqa: BLE001 - amorsize's own pickler may succeed
            return pack_forked(value, prefix)
        if len(head) <= INLINE_BYTES:
            return Parcel(head)
    return pack_forked(value, prefix)


def _is_plain(items: Any) -> bool:
    """Return whether items are few, and atoms."""
    return type(items) is range or (
        len(items) <= MOST_LOOKED_AT and _ATOMS.issuperset(map(type, items))
    )


def _shipped(value: Any, prefix: str) -> Parcel:
    """Return a parcel of a value that goes by value; of its classes, what can be sent."""
    try:
        return pack_shipped(value, prefix)
    except SerializationError:
        return pack_leniently(value, prefix)
