"""A channel of a pipe each way for each worker, for systems without local sockets or poll.

The pipes are those of multiprocessing, which every system has. The caller gives each task to one
worker, and gives a worker the next one while it runs the last, so that it need not wait. If another
worker becomes idle before that, the task is called back and given to the idle one.

A write to a pipe whose reader is busy waits once the pipe is full. The caller must never wait so.
In a worker a thread reads the tasks, which some code of items can keep from running (it holds the
GIL). So a worker that may be running an item is sent small messages only.

The thread also sees when the caller is gone, for whatever reason, and ends the worker, even in the
middle of an item.
"""

from __future__ import annotations

import os
import threading
import time
from _queue import Empty, SimpleQueue
from collections import deque
from multiprocessing.connection import Pipe, wait

from ..measure.machine import MOST_WAITED_FOR
from .channel import END, LOOK_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from typing import Any

    from .channel import Frames, Link
    from .crew import Process

__all__ = ["PipeChannel"]

# Largest message to a worker that may be busy. A pipe of Windows holds 8,192 bytes
# (``multiprocessing.connection.BUFSIZE``), and two short messages may be in it.
SMALL_BYTES = 4096

# How often to ask whether a worker that has not sent anything is alive, s.
SILENT_SECONDS = 0.2

# Asks a worker to return the task that it has been sent and has not taken.
_RECALL = b"r"

# Frames that a channel handles itself: a worker waits for a task, has taken one, has returned one.
_IDLE, _TOOK, _RETURNED = b"\x01", b"\x02", b"\x03"


class PipeChannel:
    """The caller's ends of all pipes.

    Attributes:
        waiting: messages that no worker has been sent.
    """

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self._lines: list[_Line] = []
        self._watched: dict[_Line, Process] = {}  # the workers whose end was not reported yet

    def connect(self) -> tuple[Link, Frames]:
        """Return the two ends of the ways to and from a new worker.

        Raises:
            OSError: no pipe can be opened, or the system cannot wait for another worker.
        """
        if len(self._lines) >= MOST_WAITED_FOR:
            raise OSError(f"this system can wait for {MOST_WAITED_FOR} workers at most")
        tasks, tasks_in = Pipe(duplex=False)
        try:
            replies, replies_in = Pipe(duplex=False)
        except BaseException:  # now: the error's traceback may keep these ends for a while
            tasks.close()
            tasks_in.close()
            raise
        return PipeLink(tasks, replies_in), _Line(tasks_in, replies, self.waiting)

    def listen(self, worker: Process, frames: Frames) -> None:
        """Count what a started worker sends, and its end, among the events."""
        assert isinstance(frames, _Line)
        self._lines.append(frames)
        self._watched[frames] = worker

    def put(self, message: bytes) -> None:
        """Send a message, or keep it until a worker can take it."""
        self.waiting.append(message)
        self.flush()

    def flush(self) -> None:
        """Send kept messages to workers that can take them."""
        while self.waiting:
            line = self._receiver(self.waiting[0])
            if line is None:
                return
            line.send(self.waiting.popleft())
        self._recall()

    def take_back(self) -> bytes | None:
        """Take back the first message that no worker has been sent; None if there is none."""
        return self.waiting.popleft() if self.waiting else None

    def has_messages(self) -> bool:
        """Return whether there is a message that can be taken back."""
        return bool(self.waiting)

    def has_news(self) -> bool:
        """Return whether anything has arrived, or a worker has closed its pipe."""
        return bool(self._spoken(0.0))

    def wait(self, timeout: float) -> tuple[list[Frames], list[Process]]:
        """Wait up to ``timeout`` seconds for an event, and no longer while a worker is silent.

        Returns:
            Where something has arrived; workers that have ended. The end of a pipe shows that, once
            the worker has opened it; before, the process is asked.
        """
        self.flush()
        if any(line.is_ended for line in self._watched):
            timeout = 0.0
        elif not all(line.has_spoken for line in self._watched):
            timeout = min(timeout, SILENT_SECONDS)
        spoken = self._spoken(timeout)
        gone = [line for line, worker in self._watched.items() if line.is_over(worker)]
        return [*spoken], [self._watched.pop(line) for line in gone]

    def sources(self) -> list[Any]:
        """Return the connections from all workers."""
        return [line.replies for line in self._lines if not line.is_ended]

    def close(self) -> None:
        """Close all ends; workers that wait then see the end of the queue."""
        self.close_callers()

    def close_callers(self) -> None:
        """Close the caller's ends."""
        for line in self._lines:
            line.close()

    def _spoken(self, timeout: float) -> list[_Line]:
        """Return the lines that can be read; wait up to ``timeout`` seconds for one."""
        lines: dict[Any, _Line] = {line.replies: line for line in self._lines if not line.is_ended}
        if not lines:
            time.sleep(timeout)
        return [lines[found] for found in wait([*lines], timeout)]

    def _receiver(self, message: bytes) -> _Line | None:
        """Return the worker to send a message to: an idle one, or one that can take it next."""
        free = [line for line in self._lines if line.is_free]
        idle = next((line for line in free if line.is_idle), None)
        if idle is None and free and len(message) <= SMALL_BYTES:
            return free[0]
        return idle

    def _recall(self) -> None:
        """Call back a task for each idle worker from one that is busy with another."""
        idle = [line for line in self._lines if line.is_free and line.is_idle]
        held = [line for line in self._lines if line.holds_task and not line.is_idle]
        for _, line in zip(idle, held, strict=False):
            line.recall()


class _Line:
    """The caller's ends of the pipes to and from one worker.

    Args:
        tasks: write end of the pipe to the worker.
        replies: read end of the pipe from it.
        waiting: where to put a task that the worker returns.

    Attributes:
        is_idle: whether the worker waits for a task.
        has_spoken: whether it has sent anything.
        is_ended: whether nothing more can come from it.
    """

    def __init__(self, tasks: Connection, replies: Connection, waiting: deque[bytes]) -> None:
        self.replies = replies
        self.is_idle = False  # a worker that is being started reads nothing yet
        self.has_spoken = self.is_ended = False
        self._tasks = tasks
        self._waiting = waiting
        self._sent: bytes | None = None  # the message that the worker has not taken
        self._leaves = False  # whether it will take no more messages
        self._is_recalled = False

    @property
    def is_free(self) -> bool:
        """Whether the worker can be sent a message."""
        return self._sent is None and not self._leaves and not self.is_ended

    @property
    def holds_task(self) -> bool:
        """Whether the worker has been sent a task that it has not taken, nor been asked for."""
        return self._sent not in (None, END) and not self._is_recalled and not self.is_ended

    def send(self, message: bytes) -> None:
        """Send a message."""
        self._sent, self._is_recalled = message, False
        self._leaves = message == END
        self._write(message)

    def recall(self) -> None:
        """Ask for the task that was sent last, unless the worker has taken it meanwhile."""
        self._is_recalled = True
        self._write(_RECALL)

    def read(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (kind, body) of all frames that have arrived, without waiting."""
        while (frame := self._next()) is not None:
            self.has_spoken = True
            kind, body = frame[:1], frame[1:]
            if kind == _IDLE:
                self.is_idle = True
            elif kind == _TOOK:
                self._sent, self.is_idle = None, False
            elif kind == _RETURNED:
                assert self._sent is not None
                self._waiting.appendleft(self._sent)
                self._sent = None
            else:
                yield kind, body

    def is_over(self, worker: Process) -> bool:
        """Return whether the worker at the other end has ended."""
        return self.is_ended or (not self.has_spoken and not worker.is_alive())

    def close(self) -> None:
        """Close both ends."""
        self.is_ended = True
        self._tasks.close()
        self.replies.close()

    def _next(self) -> bytes | None:
        """Return the next frame, None if none has arrived."""
        if self.is_ended:
            return None
        try:
            return self.replies.recv_bytes() if self.replies.poll() else None
        except (EOFError, OSError):  # the worker has ended
            self.is_ended = True
            return None

    def _write(self, message: bytes) -> None:
        try:
            self._tasks.send_bytes(message)
        except OSError:  # the worker has ended; what it has sent before is still to be read
            self._leaves = True


class PipeLink:
    """A worker's end.

    Args:
        tasks: read end of the pipe for tasks.
        replies: write end of the pipe for frames.
    """

    def __init__(self, tasks: Connection, replies: Connection) -> None:
        self._tasks = tasks
        self._replies = replies

    def open(self, tell: Callable[[bytes, bytes], None]) -> None:
        """Begin to read tasks, in a thread.

        Args:
            tell: sends a frame, by ``send``; may be called in any thread.
        """
        self._tell = tell
        self._has_said_idle = False
        self._inbox: SimpleQueue[bytes] = SimpleQueue()
        threading.Thread(target=self._receive, name="amorsize-tasks", daemon=True).start()

    def take(self, *, wait: bool) -> bytes | None:
        """Take the next task.

        Args:
            wait: whether to wait for one, for ``LOOK_SECONDS``.

        Returns:
            The message; None if there is none.
        """
        if wait and self._inbox.empty() and not self._has_said_idle:
            self._tell(_IDLE, b"")
            self._has_said_idle = True
        try:
            message = self._inbox.get(wait, LOOK_SECONDS)
        except Empty:
            return None
        self._has_said_idle = False
        self._tell(_TOOK, b"")
        return message

    def send(self, kind: bytes, body: bytes) -> None:
        """Send a frame; wait for the caller to read if the pipe is full.

        Raises:
            OSError: the caller is gone.
        """
        self._replies.send_bytes(kind + body)

    def close(self) -> None:
        """Let go of the tasks: the thread that reads them may wait for one until the end."""

    def release(self) -> None:
        """Close, in the caller, what only the worker uses."""
        self._tasks.close()
        self._replies.close()

    def _receive(self) -> None:
        """Read messages until the last; end this process if the caller is gone before."""
        message = b""
        while message != END:
            try:
                message = self._tasks.recv_bytes()
            except (EOFError, OSError):
                os._exit(1)
            if message == _RECALL:
                self._return()
            else:
                self._inbox.put(message)

    def _return(self) -> None:
        """Return the task that was not taken, if there is one."""
        try:
            self._inbox.get_nowait()
        except Empty:
            return
        self._tell(_RETURNED, b"")

    def __reduce__(self) -> tuple[object, ...]:
        return PipeLink, (self._tasks, self._replies)
