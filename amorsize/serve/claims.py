"""Claims: which order of a batch a worker has begun, and how far it may go, in shared memory.

A worker that gets several short orders in one message runs them one after the other. If one of them
takes long after all, the others must not wait for it: what it waits for may be one of them. The
worker is busy, so it cannot be asked; it looks at a page that it shares with the caller.

Before each order the worker writes the order's place (its claim), and then reads the limit; it
gives back what is not below the limit. To take orders away, the caller writes the limit, waits for
``SETTLE_SECONDS``, and then reads the claim. If the claim is below the limit, the worker will see
the limit before it begins anything else. This is Dekker's handshake. It requires that each side's
write is visible to the other before its own read; the wait sees to that, as a CPU holds a write
back for less than a microsecond.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SETTLE_SECONDS", "Claims"]

SETTLE_SECONDS = 0.005

# The cells of the page, each of 8 bytes.
_CLAIM_BATCH, _CLAIM, _LIMIT_BATCH, _LIMIT = range(4)
_BYTES = 8 * 4


class Claims:
    """A page that a worker shares with its caller.

    Args:
        path: the file that holds the page.
        create: whether to create it.

    Raises:
        OSError: the file cannot be created or mapped.
    """

    def __init__(self, path: str, *, create: bool = False) -> None:
        self.path = path
        flags = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
        try:
            if create:
                os.write(descriptor, bytes(_BYTES))
            self._map = mmap.mmap(descriptor, _BYTES)
        finally:
            os.close(descriptor)
        self._cells: Any = memoryview(self._map).cast("q")

    def may_begin(self, batch: int, place: int) -> bool:
        """Claim an order, in the worker; return whether it may be begun.

        Args:
            batch: number of the batch.
            place: place of the order in it, from 0.
        """
        cells = self._cells
        cells[_CLAIM] = place
        cells[_CLAIM_BATCH] = batch
        return bool(cells[_LIMIT_BATCH] != batch or place < cells[_LIMIT])

    def begun(self, batch: int) -> int:
        """Return the place of the last order that was claimed, in the caller; 0 if none was."""
        place: int = self._cells[_CLAIM]
        return place if self._cells[_CLAIM_BATCH] == batch else 0

    def limit(self, batch: int, place: int) -> None:
        """Have the worker give back the orders of a batch from a place on."""
        self._cells[_LIMIT] = place
        self._cells[_LIMIT_BATCH] = batch

    def close(self) -> None:
        """Release the page, and remove its file."""
        self._cells.release()
        self._map.close()
        with suppress(OSError):
            os.unlink(self.path)
