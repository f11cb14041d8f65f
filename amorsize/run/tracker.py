"""Shared memory and semaphores that a forked worker makes are tracked by the caller's tracker.

multiprocessing has a process that removes such things when the processes that use them have ended.
A worker that was forked before the caller needed one would start its own, which ends with the
worker, and would remove what the caller is still to use. So it tells the caller, which starts the
tracker only when something is there to be tracked.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from multiprocessing import resource_tracker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["handle", "relay_to"]

_tracker: Any = resource_tracker._resource_tracker


class _Relaying(resource_tracker.ResourceTracker):
    """A tracker that starts a process of its own only for processes that are to be given one."""

    relay: Callable[[bytes], object]

    def _send(self, cmd: str, name: str, rtype: str) -> None:
        self.relay(pickle.dumps((cmd, name, rtype)))


def relay_to(send: Callable[[bytes], object]) -> None:
    """Have what this forked worker makes tracked by the caller; not where that has a tracker.

    Args:
        send: sends a message to the caller.
    """
    if _tracker._fd is None:
        _tracker.__class__ = _Relaying
        _tracker.relay = send


def handle(message: bytes) -> None:
    """Track, in the caller, what a worker has made or removed."""
    _tracker._send(*pickle.loads(message))
