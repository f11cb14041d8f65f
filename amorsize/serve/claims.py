"""Claims: which order a worker has taken from the board, in memory that it shares with its caller.

If the worker dies, the caller reads here what it was running. Before the worker takes an order from
the board it says so, and then writes the number of the order. So the caller also knows whether it
died between the two, and may have taken an order whose number it had no time to write.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Claims"]

# The cells of the page, each of 8 bytes: whether an order is being taken; the number of the last.
_TAKES, _NUMBER = 0, 1
_BYTES = 16


class Claims:
    """A page that one worker writes and its caller reads.

    Args:
        path: the file that holds the page.
        create: whether to create it.

    Raises:
        OSError: the file cannot be created or mapped.
    """

    def __init__(self, path: str, *, create: bool = False) -> None:
        self.path = path
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
        try:
            if create:
                os.write(descriptor, bytes(_BYTES))
            self._map = mmap.mmap(descriptor, _BYTES)
        finally:
            os.close(descriptor)
        self._cells: Any = memoryview(self._map).cast("q")

    # In the worker --------------------------------------------------------------------------

    def begin(self) -> None:
        """Say that an order is being taken."""
        self._cells[_TAKES] = 1

    def end(self, number: int = 0) -> None:
        """Say which order was taken; 0 for none."""
        if number:
            self._cells[_NUMBER] = number
        self._cells[_TAKES] = 0

    # In the caller --------------------------------------------------------------------------

    @property
    def is_taking(self) -> bool:
        """Whether the worker is about to take an order, or has taken one and not written which."""
        return bool(self._cells[_TAKES])

    @property
    def number(self) -> int:
        """The number of the order that the worker took last, 0 if it took none."""
        return int(self._cells[_NUMBER])

    def close(self) -> None:
        """Release the page, and remove its file."""
        self._cells.release()
        self._map.close()
        with suppress(OSError):
            os.unlink(self.path)
