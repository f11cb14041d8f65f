"""Reading the system's own files about itself and its processes."""

from __future__ import annotations

import os
from io import FileIO

from ..tuples import NamedTuple

__all__ = ["PROCESSOR", "Region", "count_threads", "memory_regions", "read_file"]

# The value of ``platform.machine()``, whose module takes 2 ms to import; "" without ``os.uname``.
PROCESSOR: str = os.uname().machine if hasattr(os, "uname") else ""


def read_file(path: str) -> bytes:
    """Return the content of one of the system's files.

    ``open()`` is not used because a user's test may have replaced it, and ``os.open`` because its
    file descriptor would leak if a signal handler raised before the descriptor is stored.

    Args:
        path: path of the file.

    Raises:
        OSError: the file is missing or cannot be read.

    >>> read_file("/dev/null")
    b''
    """
    with FileIO(path) as file:
        return file.readall() or b""


def count_threads() -> int:
    """Return how many threads this process has, 0 where this is not known; takes 2 us."""
    try:
        return os.stat("/proc/self/task").st_nlink - 2
    except OSError:
        return 0


class Region(NamedTuple):
    """A region of this process's memory.

    Attributes:
        start, end: its addresses.
        access: its permissions, such as "r-xp".
        inode: number of the file mapped there, 0 for none.
        path: the file's name when it was mapped, or the system's name for the region; "" for none.
    """

    start: int
    end: int
    access: str
    inode: int
    path: str


def memory_regions() -> list[Region]:
    """Return the regions of this process's memory, in order of address.

    Raises:
        OSError: the system does not list them.
    """
    found = []
    for line in os.fsdecode(read_file("/proc/self/maps")).splitlines():
        place, access, _, _, inode, *path = line.split(maxsplit=5)
        start, _, end = place.partition("-")
        found.append(
            Region(int(start, 16), int(end, 16), access, int(inode), "".join(path).strip())
        )
    return found
