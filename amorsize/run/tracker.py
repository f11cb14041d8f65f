"""Track shared memory and semaphores of forked workers in the caller's resource tracker.

The resource tracker of multiprocessing is a process that removes such resources when the processes
that use them have ended. A worker that was forked before the caller had a tracker would start its
own. That tracker would end with the worker, and remove resources that the caller still needs. So
the worker sends its messages to the caller, which starts a tracker only when there is something to
track.
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
    """A tracker that relays to the caller; it starts a process only to hand to spawned children."""

    relay: Callable[[bytes], object]

    def _send(self, cmd: str, name: str, rtype: str) -> None:
        self.relay(pickle.dumps((cmd, name, rtype)))


def relay_to(send: Callable[[bytes], object]) -> None:
    """Have the caller track this forked worker's resources, unless it already had a tracker.

    Args:
        send: function that sends a message to the caller.
    """
    if _tracker._fd is None:
        _tracker.__class__ = _Relaying
        _tracker.relay = send


def handle(message: bytes) -> None:
    """Pass a worker's message on to the caller's tracker."""
    _tracker._send(*pickle.loads(message))
