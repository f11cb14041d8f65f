"""File descriptors: whether enough are left, whether one can be read, one for a process's end."""

from __future__ import annotations

import os
import select
from contextlib import suppress

__all__ = ["LOADING", "ensure_descriptors", "readable", "watch_end"]

# Environment variable of a fork server: the descriptor through which it tells that all is loaded.
LOADING = "AMORSIZE_LOADING"


def ensure_descriptors(number: int) -> None:
    """Fail now if fewer file descriptors than this are left.

    Raises:
        OSError: too few are left.
    """
    got = [os.open(os.devnull, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))]
    try:
        while len(got) < number:
            got.append(os.dup(got[0]))
    finally:
        for descriptor in got:
            os.close(descriptor)


def readable(descriptor: int, seconds: float = 0.0) -> bool:
    """Return whether a file descriptor can be read; wait up to ``seconds`` for it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))  # a negative timeout waits for ever


def watch_end(pid: int) -> int:
    """Return a file descriptor that becomes readable when a process ends, -1 if there is none."""
    if hasattr(os, "pidfd_open"):
        with suppress(OSError):  # an old kernel, or the process has ended already
            return os.pidfd_open(pid)
    return -1
