"""Track shared memory and semaphores of forked workers in the caller's resource tracker.

The resource tracker of multiprocessing is a process that removes such resources when the processes
that use them have ended. A worker that was forked before the caller had a tracker would start its
own. That tracker would end with the worker, and remove resources that the caller still needs. So
the worker sends its messages to the caller, which starts a tracker only when there is something to
track.
"""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
from collections.abc import Callable

from .afterload import after_load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["handle", "relay_to"]


def relay_to(send: Callable[[bytes], object]) -> None:
    """Have the caller track this forked worker's resources, unless it already had a tracker.

    Args:
        send: function that sends a message to the caller.
    """
    after_load("multiprocessing.resource_tracker", lambda module: _relay(module, send))


def _relay(module: Any, send: Callable[[bytes], object]) -> None:
    tracker = module._resource_tracker
    if tracker._fd is None:
        tracker.__class__ = _relaying(module.ResourceTracker)
        tracker.relay = send


def _relaying(base: Any) -> Any:
    class Relaying(base):  # type: ignore[misc]
        """Relays to the caller; it starts a process only to hand to spawned children."""

        relay: Callable[[bytes], object]

        def _send(self, cmd: str, name: str, rtype: str) -> None:
            self.relay(pickle.dumps((cmd, name, rtype)))

    return Relaying


def handle(message: bytes) -> None:
    """Pass a worker's message on to the caller's tracker."""
    from multiprocessing import resource_tracker  # only when there is something to track

    tracker: Any = resource_tracker._resource_tracker
    tracker._send(*pickle.loads(message))
