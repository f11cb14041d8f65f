"""The ways between the caller and its workers: what a channel is, and the messages of tasks.

A channel carries tasks to the workers of a crew, and frames (a kind of one byte and a body) back
from each of them. There are two: one task queue for all workers (``sockets``), and, on systems
without the sockets that this needs, a pipe each way for each worker (``pipes``).

Neither takes a lock that processes share, so a worker may be killed at any instruction and leaves
no lock held.
"""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import struct
from collections import deque
from collections.abc import Iterator

from .reductions import PROTOCOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from .crew import Process, Task
    from .setup import Shipment
    from .transport import Parcel
else:
    Protocol = object  # ``typing`` takes 3 ms to load

__all__ = ["END", "LOOK_SECONDS", "Channel", "Frames", "Link", "opened_task", "packed_task"]

# Interval at which a worker that waits for a task checks that its caller is alive.
LOOK_SECONDS = 2.0

END = b"e"
# A task for workers that hold the items: a mark, the number of the chunk, the index of its first
# item, the number of items, whether to report each item, how long it may take (s, 0 for any time),
# and whether to send its results at once. The others are pickles.
_CLAIM = struct.Struct("=cqqq?d?")
_CLAIM_MARK = b"c"


class Frames(Protocol):
    """The caller's end of the way back from one worker."""

    def read(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (kind, body) of all frames that have arrived whole, without waiting."""
        ...

    def close(self) -> None:
        """Close this end."""
        ...


class Link(Protocol):
    """A worker's end of both ways. It is made by the caller and sent to the worker's process."""

    def open(self, tell: Callable[[bytes, bytes], None]) -> None:
        """Begin to use this end, in the worker.

        Args:
            tell: sends a frame, by ``send``; may be called in any thread.
        """
        ...

    def take(self, *, wait: bool) -> bytes | memoryview | None:
        """Take the next task.

        Args:
            wait: whether to wait for one, for ``LOOK_SECONDS``.

        Returns:
            The message; an empty one at the end of the queue; None if there is none.
        """
        ...

    def send(self, kind: bytes, body: bytes) -> None:
        """Send a frame; wait for the caller to read if there is no room.

        Raises:
            OSError: the caller is gone.
        """
        ...

    def close(self) -> None:
        """Let go of the tasks, in the worker."""
        ...

    def release(self) -> None:
        """Close, in the caller, what only the worker uses."""
        ...


class Channel(Protocol):
    """The caller's end of all ways. It never waits in a write.

    Attributes:
        waiting: messages that no worker has been sent.
    """

    waiting: deque[bytes]

    def connect(self) -> tuple[Link, Frames]:
        """Return the two ends of the ways to and from a new worker.

        Raises:
            OSError: there is no room for another worker.
        """
        ...

    def listen(self, worker: Process, frames: Frames) -> None:
        """Count what a started worker sends, and its end, among the events."""
        ...

    def put(self, message: bytes) -> None:
        """Send a message, or keep it until there is room.

        Raises:
            OSError: the message is too large.
        """
        ...

    def flush(self) -> None:
        """Send kept messages, as far as there is room now."""
        ...

    def take_back(self) -> bytes | None:
        """Take back the first message that no worker has taken; None if there is none."""
        ...

    def has_messages(self) -> bool:
        """Return whether there is a message that can be taken back."""
        ...

    def has_news(self) -> bool:
        """Return whether anything has arrived, or a worker has ended."""
        ...

    def wait(self, timeout: float) -> tuple[list[Frames], list[Process]]:
        """Wait up to ``timeout`` seconds for an event, among them room for kept messages.

        Returns:
            Where something has arrived; the workers that the system reports to have ended.
        """
        ...

    def sources(self) -> list[Any]:
        """Return what to wait for together with other channels: descriptors or connections."""
        ...

    def close(self) -> None:
        """Close all ends; workers that wait then see the end of the queue."""
        ...

    def close_callers(self) -> None:
        """Close only the caller's ends; a forked child does so too, and it may be a worker."""
        ...


def packed_task(task: Task, columns: Parcel | None, shipment: Shipment | None) -> bytes:
    """Return the message for a task; ``opened_task`` opens it.

    Args:
        task: the task.
        columns: its items as they are sent; None where workers have inherited them.
        shipment: the call it belongs to; None if the workers were started with the call.
    """
    place = task.chunk, task.start, task.size
    if columns is None:
        return _CLAIM.pack(_CLAIM_MARK, *place, task.track, task.seconds, task.prompt)
    # Items that were sent are not given back.
    return pickle.dumps((*place, columns, task.track, shipment, 0.0, task.prompt), PROTOCOL)


def opened_task(message: bytes | memoryview) -> tuple[Any, ...]:
    """Return (chunk, first index, size, columns, track, shipment, seconds, prompt) of a task."""
    if message[:1] == _CLAIM_MARK:
        _, chunk, start, size, track, seconds, prompt = _CLAIM.unpack(message)
        return chunk, start, size, None, track, None, seconds, prompt
    fields: tuple[Any, ...] = pickle.loads(message)
    return fields
