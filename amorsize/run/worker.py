"""The worker's side: set up once, then run chunks until the caller sends no more.

Whatever the user's code does (it raises, or returns a value that cannot be pickled) is caught here
and sent as data. Only bytes and numbers cross the pipes.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # ``signal`` takes 1 ms to load
import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from struct import Struct

from ..lookup import loaded
from ..measure.probe import cpu_seconds, queued_seconds, with_queue
from ..signals import restore_signals
from ..tuples import NamedTuple
from . import known, logs, tracker
from .channel import END, TaskReader, end_with_caller, opened_task, send_frame
from .failure import Failure, pack, survivor
from .feed import call_all, guarded
from .surroundings import State, put, put_last, put_users
from .transport import (
    Parcel,
    dumps_by_value,
    dumps_inherited,
    loads,
    open_call,
    pack_results,
    unpack,
)
from .unwarned import rewarn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .channel import End
    from .current import Current, Undo

__all__ = [
    "BUSY_SHARE",
    "CHUNK",
    "ITEM",
    "LEAVING",
    "NOTE",
    "READY",
    "RECORD",
    "REPLY",
    "TRACKED",
    "Call",
    "Reply",
    "Setup",
    "Shipment",
    "Threads",
    "run_chunk",
    "run_columns",
    "serve",
]


class Call(NamedTuple):
    """What all workers of one call share.

    Attributes:
        func: the function to call.
        star: whether each item is a tuple of arguments.
        columns: the whole input if workers inherit it, else empty.
        return_exceptions: whether an exception is a result.
    """

    func: Callable[..., Any]
    star: bool
    columns: tuple[Any, ...]
    return_exceptions: bool


class Shipment(NamedTuple):
    """A call that is sent to workers that are running already.

    Attributes:
        name: a unique name for the call.
        state: the state that the caller runs in.
        current: the caller's values of the globals that the call uses. They are set before ``call``
            is unpickled, because unpickling looks names up.
        call: the call.
    """

    name: str
    state: Parcel
    current: Parcel
    call: Parcel


# Numerical libraries read these when they are loaded, to choose their number of threads.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class Threads(NamedTuple):
    """How many threads a numerical library may start in a worker.

    Attributes:
        limit: the number of threads, 0 if the user has set it.
        variables: environment variables that set the number for libraries not loaded yet.
        busy: whether items are known to use more than one CPU each.
    """

    limit: int
    variables: dict[str, str]
    busy: bool = False

    @classmethod
    def shared(cls, share: int, *, busy: bool = False) -> Threads:
        """Return the user's own settings if there are any, else the same share for all."""
        told = {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}
        if told:
            return cls(0, told)
        return cls(share, dict.fromkeys(_THREAD_VARIABLES, str(share)), busy)

    def apply(self) -> None:
        """Apply the limits in this worker."""
        os.environ.update(self.variables)
        if self.busy:
            self.limit_loaded()

    def limit_loaded(self) -> None:
        """Limit libraries that are loaded already, as in a forked worker.

        Only threadpoolctl, an optional extra, can do that. Call this only when needed: when
        OpenBLAS gets a number in a forked worker, it starts its threads, and they spin for 50 ms.
        """
        if self.limit and "numpy" in sys.modules:
            try:
                from threadpoolctl import threadpool_limits  # optional, and takes 5 ms
            except ImportError:
                return
            threadpool_limits(limits=self.limit)


# Chunks that have run are sent together, unless they have taken this long, or their results are
# this large together.
MOST_UNSENT_SECONDS = 0.1
MOST_UNSENT_BYTES = 1 << 16

# An item whose CPU time exceeds this share of its wall time uses threads.
BUSY_SHARE = 1.1


class Setup:
    """What a worker is started with.

    If a setup is pickled, it is pickled while the worker process is started. Locks and queues can
    be arguments of the initializer only then. The function and the initializer go into one pickle,
    so that functions of the main module share one set of globals in the worker too.

    Args:
        call: the call; None when it comes with the tasks.
        initializer: the user's, run once in each worker with ``initargs``; None for none.
        initargs: arguments of the initializer.
        prefix: path prefix of the crew's shared segments, "" for none.
        current: the caller's globals, for workers that import its modules.
        environ: the caller's environment variables, for workers that do not inherit them.
        threads: limits for numerical libraries in the worker; None sets no limits.
        state: the part of the caller's state that the worker does not inherit.
    """

    def __init__(
        self,
        call: Call | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        prefix: str = "",
        current: Current | None = None,
        environ: dict[str, str] | None = None,
        threads: Threads | None = None,
        state: State | None = None,
    ) -> None:
        self.state = state or State()
        self.prefix = prefix
        self.threads = threads
        self.environ = environ
        self._content = (call, initializer, initargs)
        self._current = current

    @property
    def call(self) -> Call:
        """The call."""
        assert self._content[0] is not None
        return self._content[0]

    @property
    def code(self) -> tuple[object, ...]:
        """The function, the initializer and the initializer's arguments."""
        return self.call.func, *self._content[1:]

    @property
    def is_plain(self) -> bool:
        """Whether there is no initializer."""
        return self._content[1] is None

    def opened(self) -> Setup:
        """Return this setup, ready for use in a process that has the caller's state."""
        put_users(self.state)
        return self

    def prepare(self) -> Call | None:
        """Run the initializer and return the call."""
        call, initializer, initargs = self._content
        if initializer is not None:
            initializer(*initargs)
        return call

    def of_caller(self, current: Current, environ: dict[str, str] | None, state: State) -> Setup:
        """Return the same setup for workers that do not inherit the caller's state."""
        return Setup(*self._content, self.prefix, current, environ, self.threads, state)

    def for_crew(self, prefix: str) -> Setup:
        """Return the same setup with a prefix for shared segments."""
        return Setup(*self._content, prefix, self._current, self.environ, self.threads, self.state)

    def __reduce__(self) -> tuple[object, ...]:
        blob = dumps_inherited(self._content)
        current = None if self._current is None else dumps_by_value(self._current)
        return _Pickled, (blob, self.prefix, current, self.environ, self.threads, self.state)


class _Pickled(Setup):
    """A setup that was sent; ``opened`` unpickles it, so that an error can be reported."""

    def __init__(
        self,
        blob: bytes,
        prefix: str,
        current: bytes | None,
        environ: dict[str, str] | None,
        threads: Threads | None,
        state: State,
    ) -> None:
        self.state = state
        self.prefix = prefix
        self.threads = threads
        self.environ = environ
        self._blobs = (current, blob)

    def opened(self) -> Setup:
        """Return the setup that was sent, and put the caller's state in place.

        The caller's values are set before the call is unpickled, because unpickling looks names up.
        """
        current, blob = self._blobs
        from .current import Current, adopted

        with _state_of_caller(self.state):
            known = Current() if current is None else loads(current)
            with adopted(known, []):
                call, initializer, initargs = open_call(blob)
        return Setup(call, initializer, initargs, state=self.state)


class Reply(NamedTuple):
    """The outcome of a chunk.

    Attributes:
        results: the results, or the parcel that holds them if they come from another process.
        done: number of results.
        failure: why there are fewer results than items; None if all items ran or ``func`` raised
            StopIteration (which ends a ``map``).
        pid: worker (a thread's identifier in a crew of threads).
        begun: when the chunk began, on the system-wide monotonic clock, s.
        seconds: wall time of the items, without pickling.
        cpu_seconds: CPU time of the items, plus their time in run queues.
        size: bytes sent for the results, 0 if none were sent.
        pack_seconds: wall time of pickling the results.
    """

    results: list[Any] | Parcel
    done: int
    failure: Failure | None
    pid: int
    begun: float
    seconds: float
    cpu_seconds: float
    size: int = 0
    pack_seconds: float = 0.0

    def open(self) -> list[Any]:
        """Return the results.

        Raises:
            Exception: whatever unpickling them raises.
        """
        if isinstance(self.results, Parcel):
            results: list[Any] = unpack(self.results)
            return results
        return self.results


# Kinds of frames that a worker sends. READY: the worker is set up. CHUNK: it has taken a chunk.
# ITEM: it has begun an item. REPLY: the outcome of a chunk. RECORD: a log record. TRACKED: a
# resource to track. LEAVING: it was asked to end, and has nothing more to send. READY, CHUNK and
# ITEM carry a note: the number of the chunk or the index of the item (0 for READY), and the
# monotonic time.
NOTE = Struct("<qd")
READY, CHUNK, ITEM, REPLY, LEAVING = b"r", b"c", b"i", b"a", b"e"
RECORD, TRACKED = b"l", b"t"


class _Worker:
    """The state of this worker process."""

    call: Call
    func: Callable[..., Any]
    replies: End
    prefix: str
    broken: Failure | None = None
    threads: Threads | None = None  # None once the limits are applied, or if there are none
    shipment: str = ""  # name of the last shipment
    undo: Undo  # what this call replaced in modules
    unsent: list[Ran]  # chunks whose results were not sent yet

    def __init__(self) -> None:
        self.undo = []
        self.unsent = []
        self._result_bytes = float("inf")  # of the last results sent, each
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
                    send_frame(self.replies.fileno(), *self._outbox.popleft())
            except OSError:
                _leave()
            finally:
                self._sender = 0

    def keep(self, ran: Ran) -> None:
        """Keep a chunk that has run, to be sent."""
        self.unsent.append(ran)

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
            or time.monotonic() - self.unsent[0].begun > MOST_UNSENT_SECONDS
        )

    def send_all(self) -> None:
        """Send the results of all chunks that have run."""
        for ran in self.unsent:
            reply = ran.packed(self.prefix)
            if ran.results:
                self._result_bytes = reply[-2] / len(ran.results)
            self.tell(REPLY, pickle.dumps(reply, pickle.HIGHEST_PROTOCOL))
        self.unsent.clear()

    def take(self, call: Call) -> None:
        """Run the chunks of this call from now on."""
        self.call = call
        self.func = guarded(call.func, survivor) if call.return_exceptions else call.func

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
        from .current import adopted, restore

        self.shipment, self.broken = shipment.name, None
        try:
            restore(self.undo)
            state = unpack(shipment.state, common=True)
            with _state_of_caller(state):
                current = unpack(shipment.current, common=True)
                with adopted(current, self.undo):
                    self.take(unpack(shipment.call, common=True))
        except BaseException as error:  # noqa: BLE001 - any error is reported with the chunk
            self.broken = _unopened(error, None)


# An instance, because functions and other descriptors that are class attributes would be bound.
_worker = _Worker()


def serve(setup: Setup, tasks: End, lifeline: End, replies: End) -> None:
    """Be a worker: prepare, and run chunks until there are no more or the caller is gone.

    Args:
        setup: the worker's setup.
        tasks: read end of the task queue, shared by all workers of the crew.
        lifeline: read end of a pipe whose write end only the caller holds.
        replies: write end of this worker's own pipe for frames.
    """
    end_with_caller(lifeline)
    _worker.replies = replies
    logs.relay_to(partial(_worker.tell, RECORD))
    if type(setup) is Setup:  # not pickled, so this worker was forked
        logs.leave_to_caller()
        rewarn()
        known.inherit()
        tracker.relay_to(partial(_worker.tell, TRACKED))
    _worker.prefix = setup.prefix
    _start(setup)
    queue = TaskReader(tasks)
    caller = os.getppid()
    while True:
        message = queue.take(wait=not _worker.unsent)
        if message is None:
            _worker.send_all()
            # The queue does not end while any other process holds the caller's end open.
            if os.getppid() != caller:
                return
            continue
        if not message or message == END:
            _worker.send_all()
            _worker.tell(LEAVING, b"")
            return
        chunk, begin, size, columns, track, shipment, prompt = opened_task(message)
        if track or prompt:
            _worker.send_all()
        ran = run_chunk(chunk, begin, size, columns, track, shipment)
        _worker.keep(ran)
        if track or prompt or _worker.must_send:
            _worker.send_all()


def _leave() -> None:
    """End this worker, whose caller is gone, and the processes it has started."""
    util = loaded("multiprocessing.util")
    if util is not None:
        util._exit_function()
    os._exit(1)


def _start(setup: Setup) -> None:
    """Prepare this process; an error is reported with each chunk."""
    _take_signals()
    try:
        _reseed()
        _whole_lines()
        _worker.threads = setup.threads
        if setup.environ is not None:
            _set_environ(setup.environ)
        if setup.threads is not None:
            setup.threads.apply()
        _worker.open_setup(setup)
    except BaseException as error:  # noqa: BLE001 - the user's initializer; reported with the chunk
        _worker.broken = pack(error, None)
    _note(READY, 0)


@contextmanager
def _state_of_caller(state: State) -> Iterator[None]:
    """Set the caller's state before a call is loaded, and again after, as loading may change it."""
    put(state)
    environ = dict(os.environ)
    yield
    _set_environ(environ)
    put_last(state)


def _set_environ(environ: dict[str, str]) -> None:
    """Set the environment variables to these; modules may have changed some while loading."""
    if os.environ != environ:
        os.environ.clear()
        os.environ.update(environ)
        if hasattr(time, "tzset"):
            time.tzset()


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


class Ran(NamedTuple):
    """A chunk that has run, and whose results are still here.

    Attributes:
        chunk: its number.
        begin: index of its first item.
        results: the results.
        failure: see ``Reply``.
        begun: when it began, on the system-wide monotonic clock, s.
        seconds: wall time of its items.
        cpu_seconds: their CPU time, plus their time in run queues.
    """

    chunk: int
    begin: int
    results: list[Any]
    failure: Failure | None
    begun: float
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def packed(self, prefix: str) -> tuple[Any, ...]:
        """Return the number and the fields of a Reply, with the results in a parcel.

        Args:
            prefix: path prefix of the crew's shared segments.
        """
        results, failure = self.results, self.failure
        packed = time.perf_counter()
        parcel, left_out = pack_results(results, self.begin, prefix) if results else ([], None)
        packed = time.perf_counter() - packed
        if left_out is not None:
            assert left_out.index is not None
            failure = pack(left_out, left_out.index)
            results = results[: left_out.index - self.begin]
        size = parcel.size if isinstance(parcel, Parcel) else 0
        times = self.begun, self.seconds, self.cpu_seconds
        return self.chunk, parcel, len(results), failure, os.getpid(), *times, size, packed


def run_chunk(
    chunk: int,
    begin: int,
    size: int,
    columns: Parcel | None,
    track: bool,
    shipment: Shipment | None,
) -> Ran:
    """Run one chunk.

    Args:
        chunk: its number, for notes.
        begin: index of its first item.
        size: number of items.
        columns: its items; None if the input is inherited.
        track: whether to send a note for each item as it starts.
        shipment: the call it belongs to; None if the worker was started with the call.
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
    func = _tracked(_worker.func, begin) if track else _worker.func
    failure, seconds, cpu_seconds = run_columns(func, pieces, call.star, begin, out)
    if track:
        _note(CHUNK, chunk)  # the last item is not to blame for a death from here on
    _flush()
    if _worker.threads is not None and cpu_seconds > BUSY_SHARE * max(seconds, 0.001):
        _worker.threads.limit_loaded()
        _worker.threads = None
    return Ran(chunk, begin, out, failure, begun, seconds, cpu_seconds)


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
) -> tuple[Failure | None, float, float]:
    """Append the results of ``func`` over the columns to ``out``.

    Args:
        func: the function to call.
        columns: the items, one sequence for each argument.
        star: whether each item is a tuple of arguments.
        begin: index of the first item.
        out: list to append to.
        clock: CPU clock, that of the process or of the thread.
        queue: clock of the time spent in run queues, s.
        wrap: makes a Failure of an exception.

    Returns:
        The failure that ended the run early, None if none did; wall time, s; CPU time plus time in
        run queues, s.
    """
    failure = None
    queued, cpu, wall = queue(), clock(), time.perf_counter()
    try:
        out.extend(call_all(func, columns, star))
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


def _flush() -> None:
    """Flush the output: this worker may wait long for its next chunk, or be killed."""
    for stream in (sys.stdout, sys.stderr):
        # The stream may be None, closed, replaced, or no longer read. No item is to blame for that.
        with suppress(AttributeError, ValueError, OSError):
            stream.flush()


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
