"""The ways between the caller and its workers: one queue of tasks, and a pipe back from each.

Nothing here takes a lock, so a worker that is killed at any instruction takes none with it, and
the caller never writes to anything that might not be read.

The queue of tasks is a pair of sockets that keep messages apart. The system hands each message to
exactly one of the workers that wait for it, whole. What does not fit into the sockets is kept by
the caller and sent later. The caller may also take messages back that no worker has taken yet.

The pipe back carries frames: a kind, a length, and that many bytes.

A third way carries nothing: a pipe whose write end the caller alone holds. As soon as the caller is
gone, whatever ended it, the system kills the workers, in the middle of an item if need be.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection

__all__ = [
    "Frames",
    "Tasks",
    "end_with_caller",
    "reply_pipe",
    "send_frame",
    "take_task",
    "task_buffer",
]

# Messages are kept apart by sequenced sockets on Linux, and by datagrams (which local sockets
# neither lose nor reorder) where there are none.
_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM

# Room for the tasks on the way: what the system gives without being an administrator is less, and
# takes some hundred small tasks (Linux: 213 kB, and about 0.8 kB for each message besides).
_ROOM = 1 << 20
# A reply of this size does not make its worker wait for the caller to read.
_REPLY_ROOM = 1 << 18

# A worker looks after its caller this often while it waits for a task.
LOOK_SECONDS = 2.0

# No message is larger: what is large goes through a shared segment (``shared``).
MOST_BYTES = 1 << 20

END = b"e"

_HEADER = struct.Struct("<cI")
_TIME = struct.Struct("@ll")  # a C timeval


class Tasks:
    """The queue of tasks, as the caller holds it.

    Attributes:
        reader: the end that all workers share.
        lifeline: ends when the caller does; shared, too.
        waiting: messages that did not fit yet.
    """

    def __init__(self) -> None:
        self._writer, self._end = socket.socketpair(socket.AF_UNIX, _KIND)
        self.reader = Connection(os.dup(self._end.fileno()), writable=False)
        self._writer.setblocking(False)
        self._writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        if _KIND == socket.SOCK_DGRAM:
            self._end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        # Not settimeout(), which would make the shared end non-blocking for all.
        wait = _TIME.pack(int(LOOK_SECONDS), 0)
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        reading, self._life = os.pipe()
        self.lifeline = Connection(reading, writable=False)
        self.waiting: deque[bytes] = deque()

    def put(self, message: bytes) -> None:
        """Send a message, or keep it until there is room.

        Raises:
            OSError: it is larger than a message can be.
        """
        self.waiting.append(message)
        self.flush()

    def flush(self) -> None:
        """Send what was kept, as far as there is room now."""
        while self.waiting:
            try:
                self._writer.send(self.waiting[0])
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    self.waiting.popleft()
                    raise
                return
            self.waiting.popleft()

    def fileno(self) -> int:
        """Return the descriptor that becomes writable when there is room again."""
        return self._writer.fileno()

    def take_back(self) -> bytes | None:
        """Return a message that no worker will get, the last one first kept; None for none."""
        if self.waiting:
            return self.waiting.pop()
        try:
            return self._end.recv(MOST_BYTES, socket.MSG_DONTWAIT) or None
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close both ends: workers that wait find that there is nothing more to come."""
        self.close_callers()
        self.reader.close()
        self.lifeline.close()

    def close_callers(self) -> None:
        """Close what only the caller uses, in a forked child, which may be one of the workers."""
        self._writer.close()
        self._end.close()
        if self._life >= 0:
            os.close(self._life)
            self._life = -1


def end_with_caller(lifeline: Connection) -> None:
    """Have this worker killed as soon as its caller is gone; only Linux does that.

    Elsewhere, and without ``/proc``, a worker notices between two chunks.

    Args:
        lifeline: the caller's (``Tasks.lifeline``).
    """
    try:
        import fcntl

        # Opened anew: a signal goes to one owner of what several processes have opened together.
        end = os.open(f"/proc/self/fd/{lifeline.fileno()}", os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(end, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(end, fcntl.F_SETFL, os.O_RDONLY | os.O_NONBLOCK | os.O_ASYNC)
    except (ImportError, AttributeError, OSError):
        return
    poll = select.poll()
    poll.register(end, select.POLLIN)
    if poll.poll(0):  # it was gone before
        os._exit(1)


def task_buffer() -> mmap.mmap | bytearray:
    """Return room for any message.

    Of a mapping only those pages are taken into which a message is written. Each page that a new
    worker touches costs some us: all those of a ``bytearray`` half as much as its fork.
    """
    try:
        return mmap.mmap(-1, MOST_BYTES)
    except OSError:  # the process has as many mappings as it may
        return bytearray(MOST_BYTES)


def take_task(reader: Connection, buffer: mmap.mmap | bytearray) -> memoryview | None:
    """Wait for a task, in a worker.

    Args:
        reader: the end that all workers share.
        buffer: where the message goes (``task_buffer``).

    Returns:
        The message; an empty one when the caller is gone; None after ``LOOK_SECONDS`` without any.
    """
    try:
        size = os.readv(reader.fileno(), [buffer])
    except BlockingIOError:
        return None
    except ConnectionResetError:  # how datagrams say that there is nobody on the other side
        size = 0
    return memoryview(buffer)[:size]


def reply_pipe() -> tuple[Connection, Connection]:
    """Return (read end, write end) of a pipe from a worker to the caller, who never waits in it."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        import fcntl

        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _REPLY_ROOM)
    except (ImportError, AttributeError, OSError):  # not Linux, or more than a user may have
        pass
    return Connection(reading, writable=False), Connection(writing, readable=False)


def send_frame(descriptor: int, kind: bytes, body: bytes) -> None:
    """Write a frame, in a worker; waits until the caller reads.

    Args:
        descriptor: the write end of the pipe.
        kind: one byte.
        body: what it says.

    Raises:
        BrokenPipeError: the caller is gone.
    """
    view = memoryview(_HEADER.pack(kind, len(body)) + body)
    while view:
        view = view[os.write(descriptor, view) :]


class Frames:
    """Puts the frames of one pipe together from what can be read without waiting.

    Args:
        reader: the pipe's read end.
    """

    def __init__(self, reader: Connection) -> None:
        self.reader = reader
        self._buffer = bytearray()

    def read(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (kind, body) of all whole frames that are there."""
        descriptor = self.reader.fileno()
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
