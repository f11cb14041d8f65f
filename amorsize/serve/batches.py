"""Batches of joblib's tasks as orders, and the arrays that several of them have in common.

It knows joblib by one attribute only: ``items`` of a batch, a list of (function, arguments,
keyword arguments). Workers load this module, and need nothing of the caller's side.
"""

from __future__ import annotations

import weakref

from ..identity.owners import is_users
from ..run.shared import make_prefix, sweep
from ..run.transport import Parcel, pack_anew, pack_common, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .orders import Order

__all__ = ["Batches"]

# An array of so many bytes that several batches have in common is written to memory once. joblib
# maps arrays from the same size on.
COMMON_BYTES = 1 << 20


class Batches:
    """Packs the batches of one ``Parallel``.

    Everything else goes by value, with the present values of the globals of its functions.

    Attributes:
        has_users: whether any function of a task is the user's own, not an installed library's.
    """

    def __init__(self) -> None:
        self.has_users = False
        self._prefix = make_prefix()
        self._batch = 0  # number of the present one
        # By id: the array, weakly, the batch that it was met in first, and its parcel once it was
        # met in another one.
        self._arrays: dict[int, tuple[weakref.ref[Any], int, Parcel | None]] = {}

    def note(self, batch: Any) -> None:
        """Look at the functions of a batch."""
        items = getattr(batch, "items", ())
        self.has_users = self.has_users or any(_is_users(func) for func, _, _ in items)

    def pack(self, order: Order, prefix: str) -> Parcel:
        """Return the parcel of an order.

        Args:
            order: the order.
            prefix: path prefix of its own segment.

        Raises:
            SerializationError: it cannot be sent.
        """
        self._batch += 1
        return pack_anew(order, prefix, self._replaced)

    def close(self) -> None:
        """Remove what the tasks had in common."""
        sweep(self._prefix)

    def _replaced(self, value: Any) -> tuple[Any, ...] | None:
        """Return how to pickle an array that another batch had, too; None for any other value."""
        if not (_is_array(value) and value.nbytes >= COMMON_BYTES and self._prefix):
            return None
        key = id(value)
        found = self._arrays.get(key)
        if found is None or found[0]() is not value:
            self._arrays[key] = weakref.ref(value), self._batch, None
            return None
        reference, batch, parcel = found
        if batch == self._batch and parcel is None:
            return None
        if parcel is None:
            parcel = pack_common(value, self._prefix)
            if parcel is None or not parcel.segment:  # there is no room
                return None
            self._arrays[key] = reference, batch, parcel
        return _opened, (parcel,)


def _is_array(value: Any) -> bool:
    kind = type(value)
    return kind.__name__ == "ndarray" and kind.__module__ == "numpy" and not value.dtype.hasobject


def _is_users(func: Any) -> bool:
    """Return whether a function is the user's own, as far as its name tells."""
    inner = getattr(func, "function", func)  # of scikit-learn's wrapper
    return is_users(getattr(inner, "__module__", None) or "")


def _opened(parcel: Parcel) -> Any:
    """Return an array, which is this task's own: a private mapping of the segment."""
    return unpack(parcel, common=True)
