"""The worker's side: set up once, then run chunks until the caller sends no more.

Whatever the user's code does (it raises, or returns a value that cannot be pickled) is caught here
and sent as data. Only bytes and numbers cross the pipes.
"""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import _signal  # type: ignore[import-not-found]  # ``signal`` takes 1 ms to load
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count

from ..lookup import loaded
from ..measure.usage import cpu_seconds, queued_seconds, with_queue
from ..signals import restore_signals
from . import known, logs, tracker
from .channel import END, opened_task
from .counted import begin_at
from .ending import flush_streams, run_finalizers
from .failure import Failure, pack, survivor
from .feed import Blocks, call_all
from .memory import private_peak
from .reductions import PROTOCOL
from .reply import CHUNK, ITEM, LEAVE, LEAVING, NOTE, READY, RECORD, REPLY, TRACKED, Ran
from .setup import BUSY_SHARE, Call, Setup, Shipment, Threads, set_environ, state_of_caller
from .transport import Parcel, unpack
from .unwarned import rewarn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .adopting import Undo
    from .channel import Link

__all__ = ["Worker", "is_worker", "run_chunk", "run_columns", "serve"]


# Chunks that have run are sent together, unless they have taken this long, or packing their results
# will, or their results are this large together.
MOST_UNSENT_SECONDS = 0.02
MOST_UNSENT_BYTES = 1 << 16


class Worker:
    """The state of this worker process.

    Attributes:
        link: the way from and to the caller.
        prefix: path prefix of the crew's shared segments.
        broken: why the worker can run nothing; None if it can.
        threads: limits for numerical libraries; None once they are applied, or if there are none.
    """

    call: Call
    func: Callable[..., Any]
    link: Link
    prefix: str
    broken: Failure | None = None
    threads: Threads | None = None
    shipment: str = ""  # name of the last shipment
    undo: Undo  # what this call replaced in modules
    unsent: list[Ran]  # chunks whose results were not sent yet

    def __init__(self) -> None:
        self.undo = []
        self.unsent = []
        # Size of a result and time to pack it, as of the last chunk sent; unknown before.
        self._result_bytes = self._pack_seconds = float("inf")
        self._outbox: deque[tuple[bytes, bytes]] = deque()
        self._sending = threading.Lock()  # not shared with other processes
        self._sender = 0  # the thread that sends

    def tell(self, kind: bytes, body: bytes) -> None:
        """Send a whole frame to the caller; end this worker if the caller is gone.

        Threads of the user's code also send log records. A signal handler may do so while a frame
        is being sent; its frame then follows that one.
        """
        self._outbox.append((kind, body))
        if self._sender == threading.get_ident():
            return
        with self._sending:
            self._sender = threading.get_ident()
            try:
                while self._outbox:
                    self.link.send(*self._outbox.popleft())
            except OSError:
                _leave()
            finally:
                self._sender = 0

    def say_goodbye(self) -> None:
        """Tell the caller that this worker ends as it was asked to, and needed this much memory."""
        self.tell(LEAVING, LEAVE.pack(private_peak()))

    def mind_threads(self, wall: float, cpu_seconds: float) -> None:
        """Limit the threads of libraries that are loaded, once items have used several CPUs.

        Args:
            wall: wall time of some items, s.
            cpu_seconds: their CPU time, s.
        """
        if self.threads is not None and cpu_seconds > BUSY_SHARE * max(wall, 0.001):
            self.threads.limit_loaded()
            self.threads = None

    @property
    def must_send(self) -> bool:
        """Whether chunks that have run must be sent before another is taken.

        Packing and sending takes less time for several chunks in a row: their code and data are
        in the CPU's cache then. But a worker that dies loses what it has not sent.
        """
        last = self.unsent[-1]
        results = sum(len(ran.results) for ran in self.unsent)
        return (
            last.failure is not None
            or results * self._result_bytes > MOST_UNSENT_BYTES
            or results * self._pack_seconds > MOST_UNSENT_SECONDS
            or time.monotonic() - self.unsent[0].begun > MOST_UNSENT_SECONDS
        )

    def send_all(self) -> None:
        """Send the results of all chunks that have run."""
        for ran in self.unsent:
            reply = ran.packed(self.prefix)
            if ran.results:
                self._result_bytes, self._pack_seconds = (
                    figure / len(ran.results) for figure in reply[-3:-1]
                )
            self.tell(REPLY, pickle.dumps(reply, PROTOCOL))
        self.unsent.clear()

    def take(self, call: Call) -> None:
        """Run the chunks of this call from now on."""
        self.call = call
        self.func = call.runner(change=survivor)

    def open_setup(self, setup: Setup) -> None:
        """Open the setup that this worker was started with, and run the initializer."""
        try:
            setup = setup.opened()
        except BaseException as error:  # noqa: BLE001 - any error is reported with the chunk
            self.broken = _unopened(error, None)
            return
        call = setup.prepare()
        if call is not None:
            self.take(call)

    def open(self, shipment: Shipment) -> None:
        """Open the call of a shipment; an error is reported with each of its chunks."""
        from .adopting import adopted, restore

        self.shipment, self.broken = shipment.name, None
        try:
            restore(self.undo)
            state = unpack(shipment.state, common=True)
            with state_of_caller(state):
                current = unpack(shipment.current, common=True)
                with adopted(current, self.undo):
                    self.take(unpack(shipment.call, common=True))
        except BaseException as error:  # noqa: BLE001 - any error is reported with the chunk
            self.broken = _unopened(error, None)


# An instance, because functions and other descriptors that are class attributes would be bound.
_worker = Worker()


def is_worker() -> bool:
    """Return whether this process is a worker of amorsize."""
    return "link" in vars(_worker)


def serve(setup: Setup, link: Link, work: Callable[[Worker], None] | None = None) -> None:
    """Be a worker: prepare, and run chunks until there are no more or the caller is gone.

    Args:
        setup: the worker's setup.
        link: the way from and to the caller.
        work: does what the caller asks for, until there is no more; None runs chunks of a call.
    """
    _worker.link = link
    link.open(_worker.tell)
    logs.relay_to(partial(_worker.tell, RECORD))
    if type(setup) is Setup:  # not pickled, so this worker was forked
        logs.leave_to_caller()
        rewarn()
        known.inherit()
        tracker.relay_to(partial(_worker.tell, TRACKED))
    _worker.prefix = setup.prefix
    _start(setup)
    try:
        (work or _run_tasks)(_worker)
    finally:
        link.close()


def _run_tasks(worker: Worker) -> None:
    """Run the chunks of the queue until there are no more or the caller is gone."""
    caller = os.getppid()
    while True:
        message = worker.link.take(wait=not worker.unsent)
        if message is None:
            worker.send_all()
            # The queue does not end while any other process holds the caller's end open.
            if os.getppid() != caller:
                return
            continue
        if not message or message == END:
            worker.send_all()
            worker.say_goodbye()
            return
        *fields, prompt = opened_task(message)
        track = fields[4]
        if track or prompt:
            worker.send_all()
        worker.unsent.append(run_chunk(*fields))
        if track or prompt or worker.must_send:
            worker.send_all()


def _leave() -> None:
    """End this worker, whose caller is gone, and the processes it has started."""
    run_finalizers()
    os._exit(1)


def _start(setup: Setup) -> None:
    """Prepare this process; an error is reported with each chunk."""
    _take_signals()
    try:
        _reseed()
        _whole_lines()
        _worker.threads = setup.threads
        if setup.environ is not None:
            set_environ(setup.environ)
        if setup.threads is not None:
            setup.threads.apply()
        _worker.open_setup(setup)
    except BaseException as error:  # noqa: BLE001 - the user's initializer; reported with the chunk
        _worker.broken = pack(error, None)
    _note(READY, 0)


def _take_signals() -> None:
    """Make signals do in this worker what they do in a worker of a Pool.

    A forked worker inherits the caller's handlers, and the file descriptor through which signals
    wake the caller's event loop.
    """
    _signal.set_wakeup_fd(-1)
    # A Python handler that does nothing, not SIG_IGN: exec keeps SIG_IGN, and programs that the
    # user's code starts must still end on Ctrl-C. The caller decides what Ctrl-C does to workers.
    own: dict[int, Any] = {_signal.SIGINT: _ignore}
    if callable(_signal.getsignal(_signal.SIGTERM)):
        own[_signal.SIGTERM] = _signal.SIG_DFL
    restore_signals(own)


def _whole_lines() -> None:
    """Write output line by line, so that the lines of several workers do not mix."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            with suppress(ValueError, OSError):  # closed
                stream.reconfigure(line_buffering=True, write_through=False)
        elif stream is not None:  # a stream of a notebook or of a test runner
            setattr(sys, name, _Lines(stream))


class _Lines:
    """A stream that passes on whole lines only, each in one write.

    Args:
        stream: where the lines go.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._begun = ""

    def write(self, text: str) -> int:
        """Write the complete lines, and keep the rest."""
        whole, newline, self._begun = (self._begun + text).rpartition("\n")
        if newline:
            self._stream.write(whole + newline)
        return len(text)

    def flush(self) -> None:
        """Write the incomplete line too."""
        if self._begun:
            self._stream.write(self._begun)
            self._begun = ""
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run_chunk(
    chunk: int,
    begin: int,
    size: int,
    columns: Parcel | None,
    track: bool,
    shipment: Shipment | None,
    seconds: float,
) -> Ran:
    """Run one chunk.

    Args:
        chunk: its number, for notes.
        begin: index of its first item.
        size: number of items.
        columns: its items; None if the input is inherited.
        track: whether to send a note for each item as it starts.
        shipment: the call it belongs to; None if the worker was started with the call.
        seconds: how long it may take before the rest of it is given back; 0 for any time.
    """
    if shipment is not None and shipment.name != _worker.shipment:
        _worker.open(shipment)
    _note(CHUNK, chunk)  # not earlier: no item is to blame if opening the call kills the worker
    begun = time.monotonic()
    if _worker.broken is not None:
        return Ran(chunk, begin, [], _worker.broken, begun)
    call = _worker.call
    out: list[Any] = []
    try:
        if columns is not None:
            pieces = unpack(columns)
        else:
            pieces = tuple(column[begin : begin + size] for column in call.columns)
    except BaseException as error:  # noqa: BLE001 - unpickling an item may raise anything
        return Ran(chunk, begin, [], _unopened(error, begin), begun)
    begin_at(_worker.func, begin)
    func = _tracked(_worker.func, begin) if track else _worker.func
    blocks = Blocks(pieces, seconds) if seconds else None
    failure, wall, cpu_seconds = run_columns(func, pieces, call.star, begin, out, blocks=blocks)
    left = blocks.left if blocks is not None else 0
    if track:
        _note(CHUNK, chunk)  # the last item is not to blame for a death from here on
    flush_streams()  # this worker may wait long for its next chunk, or be killed
    _worker.mind_threads(wall, cpu_seconds)
    # Fewer results than items without a failure mean that the function has ended the results.
    gives_back = failure is None and 0 < left == size - len(out)
    return Ran(chunk, begin, out, failure, begun, wall, cpu_seconds, gives_back)


def _unopened(error: BaseException, index: int | None) -> Failure:
    """Pack an error that occurred before any item of a chunk ran."""
    return pack(error, index)._replace(unrun=True)


def run_columns(
    func: Callable[..., Any],
    columns: tuple[Any, ...],
    star: bool,
    begin: int,
    out: list[Any],
    clock: Callable[[], float] = cpu_seconds,
    queue: Callable[[], float] = queued_seconds,
    wrap: Callable[[BaseException, int | None], Failure] = pack,
    blocks: Blocks | None = None,
) -> tuple[Failure | None, float, float]:
    """Append the results of ``func`` over consecutive items to ``out``.

    Args:
        func: the function to call.
        columns: the items, one sequence for each argument.
        star: whether each item is a tuple of arguments.
        begin: index of the first item.
        out: list to append to.
        clock: CPU clock, that of the process or of the thread.
        queue: clock of the time spent in run queues, s.
        wrap: makes a Failure of an exception.
        blocks: the items in blocks, if they may be given back; None to run all of them at once.

    Returns:
        The failure that ended the run early, None if none did; wall time, s; CPU time plus time in
        run queues, s.
    """
    failure = None
    queued, cpu, wall = queue(), clock(), time.perf_counter()
    try:
        for part in blocks or (columns,):
            before = len(out)
            out.extend(call_all(func, part, star))
            if len(out) - before < len(part[0]):
                break  # StopIteration ends a map
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt as well
        failure = wrap(error, begin + len(out))
    wall = time.perf_counter() - wall
    return failure, wall, with_queue(clock() - cpu, queue() - queued, wall)


def _tracked(func: Callable[..., Any], begin: int) -> Callable[..., Any]:
    """Return ``func``, sending a note with the index of each item as it starts."""
    indices = count(begin)

    def call(*args: Any) -> Any:
        _note(ITEM, next(indices))
        return func(*args)

    return call


def _note(kind: bytes, subject: int) -> None:
    _worker.tell(kind, NOTE.pack(subject, time.monotonic()))


def _ignore(*_: object) -> None:
    """Handle Ctrl-C in a worker: the caller ends the call."""


def _reseed() -> None:
    """Seed random generators anew: a forked worker inherits the caller's state of them.

    Python reseeds its own global generator itself.
    """
    torch = loaded("torch")
    if torch is not None:
        torch.default_generator.seed()
    random = loaded("numpy.random")
    if random is not None:
        random.seed()
