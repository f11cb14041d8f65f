"""Batches of joblib's tasks as orders, and the arguments that several of them have in common.

It knows joblib by one attribute only: ``items`` of a batch, a list of (function, arguments,
keyword arguments). Workers load this module, and need nothing of the caller's side.
"""

from __future__ import annotations

import copy
import weakref

from ..identity.owners import is_users
from ..run.shared import make_prefix, sweep
from ..run.transport import Parcel, pack_common, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .orders import Call

__all__ = ["Batches"]

# An argument that several tasks have in common, and that holds arrays of so many bytes, is written
# to memory once. joblib maps arrays from the same size on.
COMMON_BYTES = 1 << 20


class Batches:
    """Makes the orders of one ``Parallel``.

    Attributes:
        has_users: whether any function of a task is the user's own, not an installed library's.
    """

    def __init__(self) -> None:
        self.has_users = False
        self._prefix = make_prefix()
        # By id: what was met, weakly, as most arguments belong to one task only.
        self._met: dict[int, weakref.ref[Any]] = {}
        # By id: what was met again, and how to send it; None for as any other value.
        self._again: dict[int, tuple[Any, _Common | None]] = {}

    def order(self, batch: Any) -> Call:
        """Return the order for a batch."""
        if not (self._prefix and hasattr(batch, "items")):
            return batch, (), {}
        calls = [
            (func, tuple(map(self._found, args)), {k: self._found(v) for k, v in kwargs.items()})
            for func, args, kwargs in batch.items
        ]
        self.has_users = self.has_users or any(map(_is_users, next(zip(*calls, strict=True), ())))
        bare = copy.copy(batch)
        bare.items = []
        return _run, (bare, calls), {}

    def close(self) -> None:
        """Remove what the tasks had in common."""
        sweep(self._prefix)

    def _found(self, value: Any) -> Any:
        """Return what to send for an argument."""
        key = id(value)
        if key in self._again:
            return self._again[key][1] or value
        try:
            if key not in self._met or self._met[key]() is not value:
                forget = self._met.pop
                self._met[key] = weakref.ref(value, lambda _: forget(key, None))
                return value
        except TypeError:  # a number or a list: nothing that holds arrays alone
            return value
        common = _common(value, self._prefix)
        self._again[key] = value, common
        return common or value


class _Common:
    """An argument that is in a shared segment; it is pickled as its parcel.

    Each task opens the segment anew, as a private mapping: it has a copy of its own, which takes
    memory only where the task writes to it.

    Args:
        parcel: the argument.
    """

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self._parcel,)


def _is_users(func: Any) -> bool:
    """Return whether a function is the user's own, as far as its name tells."""
    inner = getattr(func, "function", func)  # of scikit-learn's wrapper
    return is_users(getattr(inner, "__module__", None) or "")


def _common(value: Any, prefix: str) -> _Common | None:
    """Return an argument in a shared segment, if that pays."""
    parcel = pack_common(value, prefix)
    if parcel is None or not parcel.segment or sum(parcel.sizes[:-1]) < COMMON_BYTES:
        return None
    return _Common(parcel)


def _opened(parcel: Parcel) -> Any:
    return unpack(parcel, common=True)


def _run(batch: Any, calls: list[tuple[Any, ...]]) -> Any:
    """Run a batch, in a worker."""
    batch.items = calls
    return batch()
