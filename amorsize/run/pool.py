"""A supervised ``multiprocessing.Pool``: its pipes and threads, but workers of our own keeping.

A plain Pool forks replacements for dead workers from a thread, forgets the tasks they held, and
waits for ever on a lock that died with its owner. Here the workers are kept outside the Pool's own
list: it never replaces or joins one. The engine looks after them (``lost``), and on any death the
whole pool is abandoned and its unfinished chunks run in a new one. docs/design.md tells why.
"""

from __future__ import annotations

import contextlib
import multiprocessing.pool
import multiprocessing.process
import os
import pickle
import select
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from importlib.machinery import ModuleSpec
from multiprocessing import resource_tracker, util
from multiprocessing.connection import wait
from queue import SimpleQueue
from struct import unpack_from
from typing import TYPE_CHECKING, Any

from ..decide.machine import oom_kills
from ..errors import SerializationError
from . import worker
from .crew import Lost, Running, Task, take_all
from .shared import make_prefix, sweep
from .transport import Parcel, pack_forked, pack_shipped
from .worker import CHUNK, ITEM, NOTE, READY, Reply, Setup, Shipment

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess
    from types import FrameType

__all__ = ["ProcessCrew"]

# How often dead workers are looked for: one look is a poll() of 10 us, and 20 ms is soon enough
# to notice a death within the 100 ms promised.
LOOK_SECONDS = 0.02

# An idle worker ends within a few ms of being told. One that does not (an atexit hook of the
# user's, a lock that died with another worker) is killed after this.
GRACE_SECONDS = 0.5

_WINDOWS = sys.platform == "win32"
_KILLED = -9  # the exit code after SIGKILL, which Windows has no name for

# Starting a worker takes four to six descriptors for a moment, depending on the start method; and
# some must be left to work with.
START_DESCRIPTORS = 12

# What is put into the pipe of tasks before anybody reads it, which takes 64 kB, or a megabyte where
# the system can be asked for it; a task without its items takes 80 bytes.
FIRST_BYTES = 50_000
MORE_BYTES = 1 << 20
TASK_BYTES = 100
MANY_WORKERS = 100


class _OwnedPool(multiprocessing.pool.Pool):
    """A Pool that starts workers but leaves their deaths to its owner.

    Where not all workers can be had, it goes on with those it has got.

    Args:
        workers: how many.
        initializer, initargs: as in Pool.
        context: the multiprocessing context.
        before_workers: called with the pool when all is there but the workers.

    ``_setup_queues``, ``_repopulate_pool`` and ``_get_sentinels`` are the seams used; all are
    instance methods without arguments in 3.8 to 3.14.
    """

    def __init__(
        self,
        workers: int,
        initializer: Any,
        initargs: tuple[Any, ...],
        context: BaseContext,
        before_workers: Callable[[_OwnedPool], None],
    ) -> None:
        self.owned: list[BaseProcess] = []
        self._processes = workers
        self._before_workers = before_workers
        try:
            super().__init__(workers, initializer, initargs, context=context)
        except BaseException as error:
            self._undo()
            if isinstance(error, RuntimeError):  # can't start new thread
                raise OSError(str(error)) from error
            raise

    def __del__(self) -> None:
        """Its owner ends it; a copy in a forked child is nothing to warn of or to wake."""

    def _undo(self) -> None:
        """Take back as much of a pool as there is: without all of its parts there is none."""
        kill(self.owned)
        parts = vars(self)
        threads = [parts[n] for n in ("_worker_handler", "_task_handler") if n in parts]
        for thread in threads:
            thread._state = multiprocessing.pool.TERMINATE
        if "_change_notifier" in parts:
            self._change_notifier.put(None)  # type: ignore[attr-defined]
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        for name in ("_inqueue", "_outqueue", "_change_notifier"):
            if name in parts:
                drop(parts[name])
        if "_frames" in parts:
            self._frames.close()

    def _setup_queues(self) -> None:
        super()._setup_queues()  # type: ignore[misc]
        self._frames = Frames(self._outqueue._reader)  # type: ignore[attr-defined]
        self._quick_get = self._frames.get

    def _repopulate_pool(self) -> None:
        """Start missing workers in a list of our own; the Pool's handlers see an empty one."""
        if not self.owned:
            self._before_workers(self)
        hide = _without_main if self._ctx.get_start_method() != "fork" else contextlib.nullcontext  # type: ignore[attr-defined]
        while len(self.owned) < self._processes:
            process = self._ctx.Process(  # type: ignore[attr-defined]
                target=multiprocessing.pool.worker,  # type: ignore[attr-defined]
                args=(self._inqueue, self._outqueue, self._initializer, self._initargs),  # type: ignore[attr-defined]
                daemon=True,
            )
            process.name = process.name.replace("Process", "PoolWorker")
            try:
                ensure_descriptors()
                with hide():
                    process.start()
            except OSError:
                if not self.owned:
                    raise
                self._processes = len(self.owned)
            else:
                self.owned.append(process)
        self.populated_at = time.monotonic()

    def _get_sentinels(self) -> list[Any]:
        # The Pool would also wake its worker handler for every single result.
        return [self._change_notifier._reader]  # type: ignore[attr-defined]


class Frames:
    """Reads the result pipe, and can be told to stop where it stands.

    A plain read of a message whose writer was killed half way waits for the end of the pipe. That
    never comes while any other process holds the pipe's write end, as each child does that was
    forked after the pool. So nothing is read here before it is there, and frames are put together
    from what was read (``Connection`` writes a length of 4 bytes, or -1 and 8 bytes, and the data).

    Args:
        reader: the pipe's read end.
    """

    def __init__(self, reader: Connection) -> None:
        self._reader = reader
        self._stop_reader, self._stop_writer = multiprocessing.Pipe(duplex=False)
        self._buffer = bytearray()
        self._wait = _waiter(reader, self._stop_reader)

    def get(self) -> Any:
        """Return the next message.

        Raises:
            EOFError: told to stop, after all that was there to be read.
        """
        while (frame := self._take()) is None:
            if not self._wait():
                raise EOFError
            if _WINDOWS:  # pipes of messages: what is there is there whole
                return self._reader.recv()
            data = os.read(self._reader.fileno(), 1 << 20)
            if not data:
                raise EOFError
            self._buffer += data
        return pickle.loads(frame)

    def stop(self) -> None:
        """Let ``get`` raise EOFError once there is nothing more to read."""
        self._stop_writer.send_bytes(b"")

    def close(self) -> None:
        """Close the descriptors."""
        self._stop_reader.close()
        self._stop_writer.close()

    def _take(self) -> bytes | None:
        """Return the first whole frame of what was read, None when there is none."""
        buffer, start = self._buffer, 4
        if len(buffer) < start:
            return None
        (size,) = unpack_from("!i", buffer)
        if size == -1:
            start = 12
            if len(buffer) < start:
                return None
            (size,) = unpack_from("!Q", buffer, 4)
        if len(buffer) < start + size:
            return None
        frame = bytes(memoryview(buffer)[start : start + size])
        del buffer[: start + size]
        return frame


def _waiter(reader: Connection, stop: Connection) -> Callable[[], bool]:
    """Return what waits for something to read, and returns False when there is only a stop.

    ``multiprocessing.connection.wait`` makes a selector each time, which takes 30 us.
    """
    if _WINDOWS:
        return lambda: reader in wait([reader, stop])
    poll = select.poll()
    poll.register(reader.fileno(), select.POLLIN)
    poll.register(stop.fileno(), select.POLLIN)
    first = reader.fileno()
    return lambda: any(found == first for found, _ in poll.poll())


_main_lock = threading.Lock()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keep workers from importing the main module again, as spawn and forkserver have them do.

    What is defined there goes by value, with the values its globals have now; importing it again
    would take time, run its side effects, make second copies of its classes, and without a guard
    start workers that start workers. A worker leaves the main module alone when it was run from a
    package's ``__main__``, and knows that by the name in its ``__spec__``.
    """
    main = sys.modules["__main__"]
    with _main_lock:
        spec = getattr(main, "__spec__", None)
        main.__spec__ = ModuleSpec("__main__", None)
        try:
            yield
        finally:
            main.__spec__ = spec


def ensure_descriptors() -> None:
    """Fail now if too few descriptors are left to start a worker.

    ``Process.start`` never closes those it got before it ran out.

    Raises:
        OSError: too few are left.
    """
    got: list[int] = []
    try:
        for _ in range(START_DESCRIPTORS):
            got.append(os.open(os.devnull, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)))
    finally:
        for descriptor in got:
            os.close(descriptor)


def drop(queue: Any) -> None:
    """Close a queue and give back its semaphores.

    Their finalizers must run here and now: in a later garbage collection they may come in the
    middle of a call to the resource tracker, which cannot take that.
    """
    queue.close()
    queue._rlock = queue._wlock = None


def kill(processes: list[BaseProcess]) -> None:
    """Kill processes and wait for them."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


class ProcessCrew:
    """Worker processes for one call.

    Args:
        context: the multiprocessing context to start them with.
        workers: how many.
        setup: what each starts with.
        inherits: whether that includes the whole input.
        first: gives the tasks to begin with; they are there when the first worker comes up. None
            for none.

    Raises:
        OSError: a process, pipe or semaphore cannot be had.
        SerializationError: the function cannot be sent to a fresh interpreter.
    """

    reused = False
    shipped_bytes = 0

    def __init__(
        self,
        context: BaseContext,
        workers: int,
        setup: Setup,
        *,
        inherits: bool,
        first: Iterator[Task] | None = None,
    ) -> None:
        self.workers = workers
        self._first = first
        self._pack = pack_shipped if context.get_start_method() != "fork" else pack_forked
        self.inherited = inherits
        self.idle = False  # whether it waits for a call
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.end_seconds = 0.0
        self._ready = 0
        self._running: dict[int, Running] = {}
        self._replies: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._looked = 0.0
        self._oom_kills = oom_kills()
        self._ended = False
        self._owner = os.getpid()
        self.prefix = make_prefix()
        self._shipment: Shipment | None = None
        self._pool: Any = None
        self._finalizer: Any = None
        if context.get_start_method() != "fork":
            resource_tracker.ensure_running()  # its start lets Ctrl-C through, held or not
        self._listening, self._speaking = context.Pipe(duplex=False)
        if not _WINDOWS:
            os.set_blocking(self._listening.fileno(), False)
        setup = setup.for_crew(self._speaking, self.prefix)
        try:
            with _interrupts_held():
                self._pool = _OwnedPool(
                    workers, worker.start, (setup,), context, self._submit_first
                )
        except BaseException:  # Ctrl-C that was held back comes here, with a whole pool
            if self._pool is not None:
                self._pool._terminate.cancel()
                self.abandon()
                self.sweep()
            else:
                self._listening.close()
                self._speaking.close()
            raise
        # The Pool's own finalizer would wait for a lock that an idle worker holds.
        self._pool._terminate.cancel()
        self.workers = len(self._pool.owned)
        self.has_first = first is not None
        _crews.add(self)
        self._finalizer = util.Finalize(None, self._end_at_exit, exitpriority=15)
        # Not until here: what remains of the Pool's own start competes with its workers for CPUs.
        self.start_seconds = self._pool.populated_at - self.started_at

    @property
    def ready(self) -> int:
        """Number of workers that have been set up."""
        self._listen()
        return self._ready

    @property
    def ended(self) -> bool:
        """Whether its workers are gone."""
        return self._ended

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """The threads that serve it in this process."""
        pool = self._pool
        return pool._worker_handler, pool._task_handler, pool._result_handler

    def begin(self, shipment: Shipment) -> None:
        """Serve another call from now on; the crew is idle."""
        self._listen()
        self._running.clear()  # its numbers of chunks are another call's
        self._shipment = shipment

    def is_well(self) -> bool:
        """Return whether no worker has died."""
        return not wait([process.sentinel for process in self._pool.owned], 0)

    def submit(self, task: Task) -> int:
        """Hand out a task; return the bytes its items took on the way."""
        columns = self._packed(task)
        bring = partial(self._bring, task.chunk)
        self._pool.apply_async(worker.run_chunk, self._arguments(task, columns), {}, bring, bring)
        return 0 if columns is None else columns.size

    def _packed(self, task: Task) -> Parcel | None:
        if task.columns is None:
            return None
        return self._pack(task.columns, self.prefix, start=task.start)

    def _arguments(self, task: Task, columns: Parcel | None) -> tuple[object, ...]:
        """Return the arguments of ``worker.run_chunk``."""
        return task.chunk, task.start, task.size, columns, task.track, self._shipment

    def _bring(self, chunk: int, fields: Any) -> None:
        """Take what became of a task; called by the Pool's result handler."""
        self._replies.put((chunk, fields))

    def _submit_first(self, pool: _OwnedPool) -> None:
        """Put the first tasks into the pipe, as the Pool's task handler would when it is there."""
        room = FIRST_BYTES
        if self.workers > MANY_WORKERS:
            room = max(room, _widened(pool._inqueue._writer) - FIRST_BYTES)  # type: ignore[attr-defined]
        for task in self._first or ():
            bring = partial(self._bring, task.chunk)
            try:
                columns = self._packed(task)
            except SerializationError as error:
                bring(error)
                break
            result = multiprocessing.pool.ApplyResult(pool, bring, bring)
            args = self._arguments(task, columns)
            message: tuple[object, ...] = (result._job, 0, worker.run_chunk, args, {})  # type: ignore[attr-defined]
            room -= TASK_BYTES + (0 if columns is None else len(columns.head))
            if room < 0:
                pool._taskqueue.put(([message], None))  # type: ignore[attr-defined]
                break
            pool._quick_put(message)  # type: ignore[attr-defined]

    def replies(self, timeout: float) -> list[tuple[int, Reply]]:
        """Wait up to ``timeout`` seconds for replies; return (chunk, reply) of all there are."""
        found = take_all(self._replies, timeout)
        self._listen()  # workers that tell much must not fill the pipe, and wait
        return [(chunk, _reply(fields)) for chunk, fields in found]

    def running(self) -> dict[int, Running]:
        """Return what each worker said last, by its pid."""
        self._listen()
        return self._running

    def lost(self) -> Lost | None:
        """Return a worker that died, None while all are well."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        dead = wait([process.sentinel for process in self._pool.owned], 0)
        for process in self._pool.owned if dead else ():
            if process.sentinel in dead:
                process.join()
                self._listen()
                assert process.pid is not None
                assert process.exitcode is not None
                starved = process.exitcode == _KILLED and oom_kills() > self._oom_kills
                return Lost(process.pid, process.exitcode, self._ready > 0, starved)
        return None

    def close(self) -> None:
        """End the workers, all of which are idle, and wait for them."""
        if self.is_inherited():
            return
        begun = time.monotonic()
        self._ended = True
        pool = self._pool
        with _interrupts_held():
            pool._taskqueue.put(([None] * len(pool.owned), None))
            pool.close()
            pool.join()
            deadline = time.monotonic() + GRACE_SECONDS
            for process in pool.owned:
                process.join(max(0.0, deadline - time.monotonic()))
            self._dispose()
        self.end_seconds = time.monotonic() - begun

    def abandon(self) -> list[tuple[int, Reply]]:
        """End the workers at once, whatever they do; return replies that still came through.

        The order matters. Once all workers are dead, nobody holds the result queue's write lock for
        a reason: it is freed, and the caller's own end of that pipe closed. Only then are the
        handlers told to end: the task handler's last act is to take that lock and to write to that
        pipe. It may also be stuck in a full task pipe that nobody reads any more, which is read
        empty here. The result handler reads what is there, and stops.
        """
        if self._ended or self.is_inherited():
            return []
        self._ended = True
        pool = self._pool
        with _interrupts_held():
            kill(pool.owned)
            lock = pool._outqueue._wlock
            if lock is not None:
                lock.acquire(block=False)
                lock.release()
            pool._outqueue._writer.close()
            pool._state = pool._task_handler._state = multiprocessing.pool.TERMINATE
            pool._worker_handler._state = multiprocessing.pool.TERMINATE
            pool._change_notifier.put(None)
            pool._worker_handler.join()
            tasks = pool._inqueue._reader
            while pool._task_handler.is_alive():
                if tasks.poll(0):
                    _discard(tasks)
                pool._task_handler.join(0.001)
            pool._frames.stop()
            pool._result_handler.join()
            self._dispose()
        # An error here is only a task that nobody read.
        found = take_all(self._replies, 0)
        return [(chunk, _reply(fields)) for chunk, fields in found if isinstance(fields, tuple)]

    def end(self) -> None:
        """End the workers: kindly if all are well and known to wait, else at once."""
        if self.is_inherited():
            return
        if self.idle and self.is_well() and self.ready == self.workers:
            self.close()
        else:
            self.abandon()
        self.sweep()

    def sweep(self) -> None:
        """Free what replies that nobody opened left behind; after the crew has ended."""
        if not self.is_inherited():
            sweep(self.prefix)

    def is_inherited(self) -> bool:
        """Return whether this is a copy in a forked child, whose parent goes on with the crew."""
        return os.getpid() != self._owner

    def _end_at_exit(self) -> None:
        """End kept workers, and those of a call that was never finished, with the interpreter."""
        self.end()

    def _dispose(self) -> None:
        """Kill what is left, and close every descriptor, so that nothing waits for the garbage."""
        pool = self._pool
        if self._finalizer is not None:
            self._finalizer.cancel()
        kill(pool.owned)
        for process in pool.owned:
            process.close()
        for queue in (pool._inqueue, pool._outqueue, pool._change_notifier):
            drop(queue)
        pool._frames.close()
        self._speaking.close()
        self._listening.close()

    def _listen(self) -> None:
        """Read the notes of the workers."""
        for kind, pid, subject, when in NOTE.iter_unpack(_read_notes(self._listening)):
            if kind == READY:
                self._ready += 1
                self.ready_at = self.ready_at or when
            elif kind == CHUNK:
                self._running[pid] = Running(subject, None, when)
            elif kind == ITEM:
                self._running[pid] = Running(self._running[pid].chunk, subject, when)


def _widened(pipe: Connection) -> int:
    """Make a pipe hold more before anybody reads it; return how many bytes it may hold."""
    try:
        import fcntl

        return fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, MORE_BYTES)
    except (ImportError, AttributeError, OSError):  # not Linux, or not allowed
        return 0


_crews: weakref.WeakSet[ProcessCrew] = weakref.WeakSet()


def _disown() -> None:
    """Let a forked child not take the parent's workers for its own: it would end them at its exit.

    multiprocessing's own children forget that list; those of ``os.fork`` do not.
    """
    for crew in list(_crews):
        multiprocessing.process._children.difference_update(crew._pool.owned)  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)


def _discard(tasks: Connection) -> None:
    """Read away some of what is in a pipe; there is some."""
    if _WINDOWS:
        tasks.recv_bytes()
    else:
        os.read(tasks.fileno(), 1 << 16)


def _read_notes(listening: Connection) -> bytes:
    """Return the notes that are there, in their order."""
    found = []
    if _WINDOWS:
        while listening.poll():
            found.append(listening.recv_bytes())
        return b"".join(found)
    # Straight from the pipe, 2 us instead of 30: notes are of one size, and written in one piece.
    with contextlib.suppress(BlockingIOError):
        while data := os.read(listening.fileno(), NOTE.size * 1_000):
            found.append(data)
    return b"".join(found)


def _reply(fields: Any) -> Reply:
    if isinstance(fields, BaseException):  # the machinery's own failure, not the user's
        raise fields
    return Reply(*fields)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back Ctrl-C: half a pool cannot be ended, and children must not die half started.

    A mask holds it back from this thread and from what is started meanwhile; workers lift it once
    they are set up. But the system may hand the signal to any other thread that does not mask it,
    and Python would then run the handler in the main thread all the same. So that handler only
    takes note meanwhile.
    """
    held: list[tuple[int, FrameType | None]] = []
    handler = signal.getsignal(signal.SIGINT)
    deferred = callable(handler) and threading.current_thread() is threading.main_thread()
    if deferred:
        signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    masks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masks else ()
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if deferred:
            signal.signal(signal.SIGINT, handler)
        if held and callable(handler):
            handler(*held[0])
