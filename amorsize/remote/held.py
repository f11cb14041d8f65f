"""Large arrays that several chunks have in common: the engine holds each of them once."""

from __future__ import annotations

import hashlib
import threading
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Held", "opening"]

# Smaller arrays go with their chunks.
HELD_BYTES = 1 << 20


class Held:
    """The arrays that the chunks of a call have met, in the client.

    Args:
        hold: has the engine hold an array; returns what tasks refer to it by, or None.
    """

    def __init__(self, hold: Callable[[Any], Any]) -> None:
        self._hold = hold
        self._chunk = 0
        # By id: the array, weakly, a digest of what was in it, the chunk that it was met in first,
        # and the engine's handle.
        self._met: dict[int, tuple[weakref.ref[Any], bytes, int, Any]] = {}
        self._used: dict[int, Any] = {}

    def begin(self) -> None:
        """Begin with another chunk."""
        self._chunk += 1
        self._used = {}

    @property
    def used(self) -> dict[int, Any]:
        """The handles of the arrays of the present chunk, by key."""
        return self._used

    def replaced(self, value: Any) -> tuple[Any, ...] | None:
        """Return how to pickle an array that an earlier chunk had; None for any other value."""
        kind = type(value)
        if kind.__name__ != "ndarray" or kind.__module__ != "numpy":
            return None
        if value.dtype.hasobject or value.nbytes < HELD_BYTES:
            return None
        key, digest = id(value), _digest(value)
        found = self._met.get(key)
        if found is None or found[0]() is not value or found[1] != digest:
            self._met[key] = weakref.ref(value), digest, self._chunk, None
            return None
        reference, _, chunk, handle = found
        if handle is None:
            if chunk == self._chunk:
                return None
            handle = self._hold(value)
            if handle is None:
                return None
            self._met[key] = reference, digest, chunk, handle
        self._used[key] = handle
        return _opened, (key,)


def _digest(array: Any) -> bytes:
    """Return a digest of an array's contents; 1 ms for 1 MB, less than to send them."""
    return hashlib.blake2b(array.tobytes("K"), digest_size=16).digest()


_here = threading.local()  # its ``arrays`` are those of the chunk that is opened, by key


class opening:  # noqa: N801 - a context manager, used like a function
    """While a chunk is opened in a worker, its arrays are these.

    Args:
        arrays: the arrays, by key.
    """

    def __init__(self, arrays: dict[int, Any]) -> None:
        self._arrays = arrays

    def __enter__(self) -> None:
        _here.arrays = self._arrays

    def __exit__(self, *_: object) -> None:
        _here.arrays = {}


def _opened(key: int) -> Any:
    """Return an array: a copy, as the engine's own is for all tasks and cannot be written to."""
    return _here.arrays[key].copy("K")
