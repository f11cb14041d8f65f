"""Reading what the system tells of itself and of its processes."""

from __future__ import annotations

import os
from io import FileIO

__all__ = ["PROCESSOR", "count_threads", "read_file"]

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
