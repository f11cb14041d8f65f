"""A channel of one task queue for all workers, and a reply pipe from each worker.

The task queue is a pair of sockets that preserve message boundaries. The system delivers each
message whole to exactly one of the workers that wait. The caller keeps messages that do not fit
into the sockets, and sends them later. It may also take back messages that no worker has taken.

The reply pipe carries frames: a kind, a length, and that many bytes.

A third way, the lifeline, carries nothing: it is a pipe whose write end only the caller holds.
As soon as the caller is gone, for whatever reason, the system kills the workers, even in the middle
of an item.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # ``signal`` takes 1 ms to load
import _socket  # ``socket`` takes 5 ms to load
import errno
import mmap
import os
import select
import struct
import sys
from collections import deque
from collections.abc import Iterator

from .channel import LOOK_SECONDS
from .descriptors import readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .channel import Frames, Link
    from .crew import Process

__all__ = ["KIND", "End", "SocketChannel", "task_buffer"]

# Sequenced-packet sockets preserve message boundaries on Linux. Elsewhere datagrams do; local
# sockets neither lose nor reorder them.
KIND = _socket.SOCK_SEQPACKET if sys.platform == "linux" else _socket.SOCK_DGRAM

# Requested size of the socket buffer. Without administrator rights the system grants less (Linux:
# 213 kB), enough for some hundred small tasks: each message takes about 0.8 kB besides its bytes.
_ROOM = 1 << 20
# Size of a pipe's buffer: a worker does not wait for the caller to read a reply of this size.
_REPLY_ROOM = 1 << 18

# Largest message. Larger contents go through a shared segment (``shared``).
MOST_BYTES = 1 << 20

_HEADER = struct.Struct("<cI")
_TIME = struct.Struct("@ll")  # a C timeval


class End:
    """One end of a pipe or a socket. It can be sent to a process that is being started.

    Args:
        descriptor: its file descriptor, which belongs to this object from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def close(self) -> None:
        """Close this end."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        """Close an end that was dropped, because something after it could not be opened."""
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        from multiprocessing.reduction import DupFd

        return _opened_end, (DupFd(self._descriptor),)


def _opened_end(sent: Any) -> End:
    return End(sent.detach())


class SocketChannel:
    """The caller's end of the task queue and of all reply pipes.

    Attributes:
        waiting: messages that did not fit yet.
    """

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self._buffer: mmap.mmap | bytearray | None = None
        self._poll = select.poll()
        self._awaits_room = False  # whether room for messages is an event
        self._frames: dict[int, Frames] = {}  # by the pipe's file descriptor
        self._sentinels: dict[int, Process] = {}
        self._reader = self._lifeline = End(-1)
        self._life = -1
        self._writer, self._end = _socket.socketpair(_socket.AF_UNIX, KIND)
        try:
            self._open()
        except BaseException:  # now: the error's traceback may keep this object for a while
            self.close()
            raise

    def _open(self) -> None:
        self._reader = End(os.dup(self._end.fileno()))
        self._writer.setblocking(False)
        self._end.setblocking(True)  # whatever the user's socket.setdefaulttimeout() says
        self._writer.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _ROOM)
        if KIND == _socket.SOCK_DGRAM:
            self._end.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, _ROOM)
        # Not settimeout(), which would make the shared end non-blocking for all workers.
        wait = _TIME.pack(int(LOOK_SECONDS), 0)
        self._end.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, wait)
        reading, self._life = os.pipe()
        self._lifeline = End(reading)

    def connect(self) -> tuple[Link, Frames]:
        """Return the two ends of the ways to and from a new worker.

        Raises:
            OSError: no pipe can be opened.
        """
        reading, writing = reply_pipe()
        return SocketLink(self._reader, self._lifeline, writing), PipedFrames(reading)

    def listen(self, worker: Process, frames: Frames) -> None:
        """Count what a started worker sends, and its end, among the events."""
        assert isinstance(frames, PipedFrames)
        self._frames[frames.fileno()] = frames
        self._poll.register(frames.fileno(), select.POLLIN)
        if worker.sentinel >= 0:
            self._sentinels[worker.sentinel] = worker
            self._poll.register(worker.sentinel, select.POLLIN)

    def put(self, message: bytes) -> None:
        """Send a message, or keep it until there is room.

        Raises:
            OSError: the message is too large.
        """
        self.waiting.append(message)
        self.flush()

    def flush(self) -> None:
        """Send kept messages, as far as there is room now."""
        while self.waiting:
            try:
                self._writer.send(self.waiting[0])
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    self.waiting.popleft()
                    raise
                return
            self.waiting.popleft()

    def take_back(self) -> bytes | None:
        """Take back the first message that no worker has taken; None if there is none."""
        buffer = self._buffer = self._buffer or task_buffer()
        try:
            size = self._end.recv_into(buffer, 0, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return self.waiting.popleft() if self.waiting else None
        return bytes(memoryview(buffer)[:size])

    def has_messages(self) -> bool:
        """Return whether there is a message that no worker has taken."""
        return bool(self.waiting) or readable(self._end.fileno())

    def has_news(self) -> bool:
        """Return whether anything has arrived, or a worker has ended."""
        return bool(self._poll.poll(0))

    def wait(self, timeout: float) -> tuple[list[Frames], list[Process]]:
        """Wait up to ``timeout`` seconds for an event, among them room for kept messages.

        Returns:
            Where something has arrived; the workers that the system reports to have ended.
        """
        self.flush()
        self._await_room()
        heard, ended = [], []
        for descriptor, event in self._poll.poll(timeout * 1000):
            if descriptor in self._frames:
                heard.append(self._frames[descriptor])
                if event & ~select.POLLIN:  # the worker's end is closed: nothing more will come
                    self._poll.unregister(descriptor)
            elif descriptor in self._sentinels:
                ended.append(self._sentinels[descriptor])
                self._poll.unregister(descriptor)
        return heard, ended

    def sources(self) -> list[int]:
        """Return the file descriptors of all reply pipes, and those that show a worker's end."""
        return [*self._frames, *self._sentinels]

    def close(self) -> None:
        """Close all ends; workers that wait then see the end of the queue."""
        self.close_callers()
        self._reader.close()
        self._lifeline.close()

    def close_callers(self) -> None:
        """Close only the caller's ends; a forked child does so too, and it may be a worker."""
        self._writer.close()
        self._end.close()
        if self._life >= 0:
            os.close(self._life)
            self._life = -1

    def _await_room(self) -> None:
        wanted = bool(self.waiting)
        if wanted == self._awaits_room:
            return
        self._awaits_room = wanted
        if wanted:
            self._poll.register(self._writer.fileno(), select.POLLOUT)
        else:
            self._poll.unregister(self._writer.fileno())


class SocketLink:
    """A worker's end.

    Args:
        tasks: read end of the task queue, shared by all workers of the crew.
        lifeline: read end of a pipe whose write end only the caller holds.
        replies: write end of this worker's own pipe for frames.
    """

    def __init__(self, tasks: End, lifeline: End, replies: End) -> None:
        self._tasks = tasks
        self._lifeline = lifeline
        self._replies = replies

    def open(self, tell: Callable[[bytes, bytes], None]) -> None:
        """Begin to use this end, in the worker."""
        end_with_caller(self._lifeline)
        default = _socket.getdefaulttimeout()
        # A new socket object with a time limit would make the shared end non-blocking for all.
        _socket.setdefaulttimeout(None)
        try:
            self._socket = _socket.socket(fileno=self._tasks.fileno())
        finally:
            _socket.setdefaulttimeout(default)
        self._buffer = task_buffer()

    def take(self, *, wait: bool) -> memoryview | None:
        """Take the next task.

        Args:
            wait: whether to wait for one, for ``LOOK_SECONDS``.

        Returns:
            The message; an empty one at the end of the queue; None if there is none.
        """
        try:
            size = self._socket.recv_into(self._buffer, 0, 0 if wait else _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionResetError:  # datagram sockets report a closed peer in this way
            size = 0
        return memoryview(self._buffer)[:size]

    def send(self, kind: bytes, body: bytes) -> None:
        """Send a frame; wait for the caller to read if the pipe is full.

        Raises:
            BrokenPipeError: the caller is gone.
        """
        view = memoryview(_HEADER.pack(kind, len(body)) + body)
        while view:
            view = view[os.write(self._replies.fileno(), view) :]

    def close(self) -> None:
        """Let go of the queue, whose end belongs to others."""
        self._socket.detach()

    def release(self) -> None:
        """Close, in the caller, what only the worker uses."""
        self._replies.close()


def end_with_caller(lifeline: End) -> None:
    """Have the system kill this worker as soon as its caller is gone (Linux only).

    On other systems, or without ``/proc``, a worker notices between two chunks.

    Args:
        lifeline: read end of a pipe whose write end only the caller holds.
    """
    try:
        import fcntl

        # Opened anew: a file description that processes share has one owner, which gets the signal.
        end = os.open(f"/proc/self/fd/{lifeline.fileno()}", os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(end, fcntl.F_SETSIG, _signal.SIGKILL)
        fcntl.fcntl(end, fcntl.F_SETFL, os.O_RDONLY | os.O_NONBLOCK | os.O_ASYNC)
    except (ImportError, AttributeError, OSError):
        return
    if readable(end):  # the caller was gone before
        os._exit(1)


def task_buffer() -> mmap.mmap | bytearray:
    """Return a buffer large enough for any message.

    A mapping takes memory only for the pages that messages are written to. Each page that a new
    worker touches costs some us; all pages of a ``bytearray`` cost half as much as the fork.
    """
    try:
        return mmap.mmap(-1, MOST_BYTES)
    except OSError:  # the process has reached its limit of mappings
        return bytearray(MOST_BYTES)


def reply_pipe() -> tuple[End, End]:
    """Return (read end, write end) of a pipe from a worker to the caller; reads do not block."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        import fcntl

        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _REPLY_ROOM)
    except (ImportError, AttributeError, OSError):  # not Linux, or over the user's limit
        pass
    return End(reading), End(writing)


class PipedFrames:
    """Assembles the frames of one pipe, reading without waiting.

    Args:
        reader: the pipe's read end.
    """

    def __init__(self, reader: End) -> None:
        self._reader = reader
        self._buffer = bytearray()

    def fileno(self) -> int:
        """Return the file descriptor of the pipe's read end."""
        return self._reader.fileno()

    def close(self) -> None:
        """Close the read end."""
        self._reader.close()

    def read(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (kind, body) of all frames that have arrived whole, without waiting."""
        descriptor = self._reader.fileno()
        while True:
            try:
                data = os.read(descriptor, 1 << 16)
            except BlockingIOError:
                data = b""
            self._buffer += data
            if len(data) < 1 << 16:
                break
        yield from self._take()

    def _take(self) -> Iterator[tuple[bytes, bytes]]:
        buffer, start = self._buffer, 0
        while len(buffer) - start >= _HEADER.size:
            kind, size = _HEADER.unpack_from(buffer, start)
            end = start + _HEADER.size + size
            if len(buffer) < end:
                break
            yield kind, bytes(buffer[start + _HEADER.size : end])
            start = end
        del buffer[:start]
