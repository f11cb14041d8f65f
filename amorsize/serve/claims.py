"""Claims: which orders a worker has taken from the board, in memory that it shares with its caller.

If the worker dies, the caller reads here what it was running, and what it had run without having
sent the outcomes. Before the worker takes an order from the board it says so, and then writes the
number of the order. So the caller also knows whether it died between the two, and may have taken an
order whose number it had no time to write.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MOST_TAKEN", "Claims"]

# Most orders that a worker may have taken at a time: it runs one, and has the outcomes of others.
MOST_TAKEN = 32
# The cells of the page, each of 8 bytes: whether an order is being taken; how many were taken; the
# numbers of those.
_TAKES, _COUNT, _FIRST = 0, 1, 2
_BYTES = 8 * (_FIRST + MOST_TAKEN)


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
            count = self._cells[_COUNT]
            self._cells[_FIRST + count] = number
            self._cells[_COUNT] = count + 1
        self._cells[_TAKES] = 0

    def clear(self, running: int = 0) -> None:
        """Say that the outcomes of all orders were sent.

        Args:
            running: number of the order that was taken last, if it has no outcome yet; else 0.
        """
        self._cells[_FIRST] = running  # before the count, so that it is claimed at any moment
        self._cells[_COUNT] = bool(running)

    # In the caller --------------------------------------------------------------------------

    @property
    def is_taking(self) -> bool:
        """Whether the worker is about to take an order, or has taken one and not written which."""
        return bool(self._cells[_TAKES])

    @property
    def numbers(self) -> list[int]:
        """The numbers of the orders that the worker took, and whose outcomes it may not have sent.

        It took the last one last.
        """
        found: list[int] = self._cells[_FIRST : _FIRST + self._cells[_COUNT]].tolist()
        return found

    @property
    def count(self) -> int:
        """How many these are."""
        return int(self._cells[_COUNT])

    def close(self) -> None:
        """Release the page, and remove its file."""
        self._cells.release()
        self._map.close()
        with suppress(OSError):
            os.unlink(self.path)
