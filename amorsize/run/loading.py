"""Imported by a fork server when it has loaded the libraries: ends it if it must not be forked.

Else the server tells its caller, who waits, that all is loaded. In other processes the import does
nothing.
"""

from __future__ import annotations

import os
import threading

from ..measure.forking import fork_danger
from .descriptors import LOADING

__all__ = ["report"]


def report(descriptor: int) -> None:
    """Report that all is loaded, or end this process.

    Args:
        descriptor: write end of the pipe to the caller; closed.
    """
    # A thread of Python's may be one that the library hands work to, which workers would lack.
    if threading.active_count() > 1 or fork_danger():
        os._exit(1)
    os.write(descriptor, b"1")
    os.close(descriptor)


if LOADING in os.environ:
    report(int(os.environ.pop(LOADING)))
