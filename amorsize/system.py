"""Reading what the system tells of itself and of its processes."""

from __future__ import annotations

from io import FileIO

__all__ = ["read_file"]


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
