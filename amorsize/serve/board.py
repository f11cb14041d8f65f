"""The board: one queue of orders for all workers of a pool, on which the first order goes first.

Workers take orders one at a time, whichever of them is free. So an order begins only after all that
were given before it, as in a Pool: a task may wait for an earlier one that runs at the same time.

The board is a pipe with records of a fixed size. A write of several records up to the system's
``PIPE_BUF`` is atomic, and the system gives each read a whole record, as all are of one size. An
order that does not fit into a record is a message of a socket that preserves messages. It is sent
before its record; whoever takes the record takes the next message.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import weakref
from collections import deque
from itertools import islice

from ..run.channel import LOOK_SECONDS
from ..run.sockets import KIND, End, task_buffer
from ..run.transport import Parcel
from .wire import (
    BIG,
    END,
    MOST_BYTES,
    RECORD_BYTES,
    WHOLE,
    opened_message,
    opened_record,
    packed_message,
    packed_record,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .claims import Claims

__all__ = ["Board", "BoardEnd"]

# Records that are written at once: ``PIPE_BUF`` is 4,096 bytes on Linux, and 512 on macOS.
TOGETHER = min(select.PIPE_BUF, 4096) // RECORD_BYTES


class Board:
    """The caller's end.

    Attributes:
        end: the workers' end.

    Raises:
        OSError: the system has no pipe or socket to give.
    """

    def __init__(self) -> None:
        self._records: deque[bytes] = deque()  # not written yet
        self._messages: deque[bytes] = deque()  # of big orders, not sent yet
        reading, writing = os.pipe()
        self._reader, self._writer = End(reading), End(writing)
        self._sender, self._receiver = _socket.socketpair(_socket.AF_UNIX, KIND)
        for descriptor in (reading, writing, self._sender.fileno()):
            os.set_blocking(descriptor, False)
        self._receiver.setblocking(True)
        self._buffer = task_buffer()
        self.end = BoardEnd(self._reader, End(os.dup(self._receiver.fileno())))
        _boards.add(self)

    @property
    def is_full(self) -> bool:
        """Whether something waits for room."""
        return bool(self._records)

    def put(self, number: int, order: bytes | Parcel) -> None:
        """Put an order up; ``flush`` makes it visible.

        Args:
            number: its number.
            order: its pickle, or a parcel that holds it in a shared segment.

        Raises:
            OSError: the order is too large.
        """
        record = None if isinstance(order, Parcel) else packed_record(WHOLE, number, order)
        if record is None:
            message = packed_message(number, order)
            if len(message) > MOST_BYTES:
                raise OSError(errno.EMSGSIZE, "too large without shared memory")
            self._messages.append(message)
            record = packed_record(BIG, number, b"")
        assert record is not None
        self._records.append(record)

    def put_end(self) -> None:
        """Ask one worker to end, after all orders."""
        record = packed_record(END, 0, b"")
        assert record is not None
        self._records.append(record)

    def flush(self) -> None:
        """Write what was put up, as far as there is room."""
        records = self._records
        while records:
            self._send()
            # A record follows its message, and never waits for the message of a later one.
            size = min(TOGETHER, len(records) - self._behind())
            if size < 1:
                return
            try:
                os.write(self._writer.fileno(), b"".join(islice(records, size)))
            except BlockingIOError:
                return
            for _ in range(size):
                records.popleft()

    def _behind(self) -> int:
        """Return how many records are at or behind the first one whose message is not sent."""
        if not self._messages:
            return 0
        left, behind = len(self._messages), 0
        for record in reversed(self._records):
            behind += 1
            left -= opened_record(record)[0] == BIG
            if not left:
                break
        return behind

    def take_back(self, settle: Callable[[], object]) -> list[int]:
        """Take back the orders that no worker has taken; return their numbers.

        Args:
            settle: waits until no worker is between a record and its message.
        """
        records = [*self._read_records(), *self._records]
        settle()
        messages = [*self._read_messages(), *self._messages]
        self._records.clear()
        self._messages.clear()
        # A worker that died between a record and its message has left the message.
        found = [number for kind, number, _ in map(opened_record, records) if kind == WHOLE]
        return found + [opened_message(message)[0] for message in messages]

    def _read_records(self) -> Iterator[bytes]:
        while True:
            try:
                yield os.read(self._reader.fileno(), RECORD_BYTES)
            except BlockingIOError:
                return

    def _read_messages(self) -> Iterator[bytes]:
        while True:
            try:
                size = self._receiver.recv_into(self._buffer, 0, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            yield bytes(memoryview(self._buffer)[:size])

    def close(self) -> None:
        """Close all ends."""
        self.close_callers()
        self.end.close()

    def close_callers(self) -> None:
        """Close only the caller's ends; a forked child does so too, and it may be a worker."""
        self._writer.close()
        self._sender.close()
        self._receiver.close()

    def _send(self) -> None:
        """Send the messages of big orders, as far as there is room."""
        while self._messages:
            try:
                self._sender.send(self._messages[0])
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    raise
                return
            self._messages.popleft()


class BoardEnd:
    """The workers' end; it is sent to each of them, before it is opened.

    Args:
        reader: read end of the pipe.
        receiver: read end of the socket.
    """

    def __init__(self, reader: End, receiver: End) -> None:
        self._reader = reader
        self._receiver = receiver
        self._socket: _socket.socket | None = None

    def open(self, claims: Claims) -> None:
        """Begin to use this end, in a worker.

        Args:
            claims: where to say what was taken.
        """
        self._claims = claims
        self._poll = select.poll()
        self._poll.register(self._reader.fileno(), select.POLLIN)
        self._buffer = task_buffer()
        self._socket = _socket.socket(fileno=os.dup(self._receiver.fileno()))
        self._socket.setblocking(True)  # whatever the user's socket.setdefaulttimeout() says

    def take(self, *, wait: bool) -> tuple[bytes, int, Parcel | None] | None:
        """Take the next order.

        Args:
            wait: whether to wait for one, for ``LOOK_SECONDS``.

        Returns:
            (kind of the record, number, parcel of the order); None if there is none.
        """
        found = self._try()
        if found is None and wait:
            self._poll.poll(LOOK_SECONDS * 1000)
            found = self._try()
        return found

    def clear(self, running: int = 0) -> None:
        """Say that the outcomes of all orders were sent, except of one that has none yet."""
        self._claims.clear(running)

    def _try(self) -> tuple[bytes, int, Parcel | None] | None:
        number = 0
        self._claims.begin()
        try:
            record = os.read(self._reader.fileno(), RECORD_BYTES)
            if not record:  # the caller is gone
                return END, 0, None
            kind, number, content = opened_record(record)
            if kind == WHOLE:
                return kind, number, Parcel(content)
            if kind == END:
                return kind, 0, None
            assert self._socket is not None
            size = self._socket.recv_into(self._buffer)
            number, parcel = opened_message(memoryview(self._buffer)[:size])
            return kind, number, parcel
        except BlockingIOError:
            return None
        finally:
            self._claims.end(number)

    def close(self) -> None:
        """Close this end, in the caller."""
        if self._socket is not None:
            self._socket.close()
        self._reader.close()
        self._receiver.close()


_boards: weakref.WeakSet[Board] = weakref.WeakSet()


def _disown_all() -> None:
    """Close the ends of the parent in a forked child, so that workers see the parent's death."""
    for board in list(_boards):
        board.close_callers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
