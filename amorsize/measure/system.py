"""Reading what the system tells of itself and of its processes."""

from __future__ import annotations

import os
from io import FileIO

from ..tuples import NamedTuple

__all__ = ["PROCESSOR", "Region", "count_threads", "memory_regions", "read_file"]

# As ``platform.machine()`` says, which takes 2 ms to import; "" where that is asked otherwise.
PROCESSOR: str = os.uname().machine if hasattr(os, "uname") else ""


def read_file(path: str) -> bytes:
    """Return the content of a file of the system's.

    It is read past ``open()``, which a test of the user's may have replaced.

    Args:
        path: of the file.

    Raises:
        OSError: there is none, or it may not be read.

    >>> read_file("/dev/null")
    b''
    """
    with FileIO(path) as file:
        return file.readall() or b""


def count_threads() -> int:
    """Return how many threads this process has, 0 where the system does not tell; takes 2 us."""
    try:
        return os.stat("/proc/self/task").st_nlink - 2
    except OSError:
        return 0


class Region(NamedTuple):
    """A part of the memory of this process.

    Attributes:
        start, end: its addresses.
        access: what may be done with it, as "r-xp".
        inode: number of the file that is mapped there, 0 for none.
        path: name the file had when it was mapped, or what the system calls the part; "" for none.
    """

    start: int
    end: int
    access: str
    inode: int
    path: str


def memory_regions() -> list[Region]:
    """Return what the memory of this process consists of, in order.

    Raises:
        OSError: the system does not tell.
    """
    found = []
    for line in os.fsdecode(read_file("/proc/self/maps")).splitlines():
        place, access, _, _, inode, *path = line.split(maxsplit=5)
        start, _, end = place.partition("-")
        found.append(
            Region(int(start, 16), int(end, 16), access, int(inode), "".join(path).strip())
        )
    return found
