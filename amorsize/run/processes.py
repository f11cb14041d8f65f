"""A crew of worker processes for one call, or for several calls one after the other.

It has no threads: the caller writes tasks and reads replies itself, and waits for replies, room
for tasks and deaths in one place. The engine looks after deaths (``lost``): after any of them the
whole crew is abandoned, and its unfinished chunks run in a new one. docs/design.md tells why.
"""

from __future__ import annotations

import os
import pickle
import select
import time
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import util
from typing import TYPE_CHECKING, Any

from ..errors import SerializationError
from ..measure.machine import oom_kills
from ..signals import held_signals
from . import logs, tracker, worker
from .channel import END, Frames, Tasks, reply_pipe
from .crew import Lost, Running, Task
from .failure import keep
from .launch import Worker, ensure_descriptors, ensure_server, kill, start_worker
from .shared import make_prefix, sweep
from .stuck import deadlock
from .transport import Parcel, pack_forked, pack_shipped
from .worker import CHUNK, ITEM, NOTE, READY, RECORD, REPLY, TRACKED, Reply, Setup, Shipment

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["ProcessCrew"]

# How often deaths are looked for where the system does not report them.
LOOK_SECONDS = 0.02
# When no worker has said anything for so long, forked ones may be stuck: they are looked at, and
# once more after the same time. A look takes 30 us for each worker.
QUIET_SECONDS = 0.5

# An idle worker ends within a few ms of being asked to; saving what it measured for coverage takes
# it 50 ms. One that has not ended by then (an atexit hook of the user's, a thread that runs on) is
# killed.
GRACE_SECONDS = 2.0


class ProcessCrew:
    """Worker processes.

    Args:
        context: the multiprocessing context to start them with.
        workers: how many; where not all can be started, the crew goes on with those there are.
        setup: what each starts with.
        inherits: whether that includes the whole input.
        first: gives the tasks to begin with; they are there when the first worker comes up. None
            for none.

    Raises:
        OSError: no process, or no pipe, can be started.
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
        self._owner = os.getpid()
        self._ended = True  # there is nothing to end yet
        self._workers: list[Worker] = []
        self._frames: dict[int, tuple[Worker, Frames]] = {}  # by the descriptor of the pipe
        self._sentinels: dict[int, Worker] = {}
        self._poll = select.poll()
        self._writable = False  # whether room for tasks is waited for
        self._dead: list[Worker] = []
        self._found: list[tuple[int, Any]] = []  # (chunk, reply or error), not asked for yet
        self._running: dict[int, Running] = {}
        self._ready = 0
        self._looked = 0.0
        self._heard_at = self._suspected_at = time.monotonic()
        self._suspects: dict[int, tuple[str, ...]] = {}
        self._shipment: Shipment | None = None
        method = context.get_start_method()
        self._forked = method == "fork"
        self._pack = pack_forked if self._forked else pack_shipped
        self.inherited = inherits
        self.idle = False  # whether it waits for a call
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.start_seconds = self.end_seconds = 0.0
        self._oom_kills = oom_kills()
        self.prefix = make_prefix()
        ensure_server(method)
        # The input is read here: it may block, and raise.
        tasks = [*first] if first is not None else []
        try:
            with held_signals():
                self._tasks = Tasks()
                self._ended = False
                _crews.add(self)
                # Ends workers with the interpreter, kept ones and those of an unfinished call.
                self._finalizer = util.Finalize(None, _ender(self), exitpriority=15)
                for task in tasks:
                    self.submit(task)
                self._start(context, workers, setup.for_crew(self.prefix))
        except BaseException:  # no worker at all, or a signal that was held back until now
            self.abandon()
            self.sweep()
            raise
        self.has_first = first is not None
        self.start_seconds = time.monotonic() - self.started_at

    def _start(self, context: BaseContext, workers: int, setup: Setup) -> None:
        for number in range(workers):
            try:
                self._start_one(context, setup, number)
            except OSError:
                if not self._workers:
                    raise
                break
            self._tasks.flush()  # the first to come up may have made room
        self.workers = len(self._workers)

    def _start_one(self, context: BaseContext, setup: Setup, number: int) -> None:
        ensure_descriptors()
        reading, writing = reply_pipe()
        try:
            args = (setup, self._tasks.reader, self._tasks.lifeline, writing)
            started = start_worker(context, f"amorsize-{number + 1}", worker.serve, args)
        except BaseException:  # also Ctrl-C: nobody else knows of this end
            reading.close()
            raise
        finally:
            writing.close()
        self._workers.append(started)
        self._frames[reading.fileno()] = (started, Frames(reading))
        self._sentinels[started.sentinel] = started
        self._poll.register(reading.fileno(), select.POLLIN)
        self._poll.register(started.sentinel, select.POLLIN)

    def __del__(self) -> None:
        """End the workers of a crew that was lost on its way to whoever asked for it."""
        if not self._ended:
            self.abandon()
            self.sweep()

    # What the engine sees ------------------------------------------------------------------

    @property
    def ready(self) -> int:
        """Number of workers that have been set up."""
        self._read(0.0)
        return self._ready

    @property
    def ended(self) -> bool:
        """Whether its workers are gone."""
        return self._ended

    def begin(self, shipment: Shipment) -> None:
        """Serve another call from now on; the crew is idle."""
        self._read(0.0)
        self._running.clear()  # its numbers of chunks are another call's
        self._found.clear()
        self._shipment = shipment

    def is_well(self) -> bool:
        """Return whether its workers are there, all of them."""
        return not self._ended and all(one.is_alive() for one in self._workers)

    def submit(self, task: Task) -> int:
        """Hand out a task; return the bytes its items took on the way.

        Items that cannot be sent come back at once, as a reply that says so.
        """
        columns: Parcel | None = None
        try:
            if task.columns is not None:
                with held_signals():  # what a handler raises must not be taken for a refusal
                    columns = self._pack(task.columns, self.prefix, start=task.start)
            fields = (task.chunk, task.start, task.size, columns, task.track, self._shipment)
            self._tasks.put(pickle.dumps(fields, pickle.HIGHEST_PROTOCOL))
        except SerializationError as error:
            self._found.append((task.chunk, error))
        except OSError as error:  # no folder for what is large
            refusal = SerializationError(f"an item cannot be sent: {error}", index=task.start)
            self._found.append((task.chunk, refusal))
        return 0 if columns is None else columns.size

    def take_back(self) -> int | None:
        """Return the number of a chunk that no worker has taken, and none will; None for none."""
        message = self._tasks.take_back()
        return None if message is None else int(pickle.loads(message)[0])

    def replies(self, timeout: float) -> list[tuple[int, Reply]]:
        """Wait up to ``timeout`` seconds for replies; return (chunk, reply) of all there are."""
        self._read(0.0 if self._found else timeout)
        found, self._found = self._found, []
        return [(chunk, _reply(fields)) for chunk, fields in found]

    def running(self) -> dict[int, Running]:
        """Return what each worker said last, by its pid."""
        self._read(0.0)
        return self._running

    def lost(self) -> Lost | None:
        """Return a worker that died or is stuck, None while all are well."""
        if self._ended:
            return None
        self._look()
        if not self._dead:
            return self._stuck() if self._forked else None
        dead = self._dead[0]
        for one, frames in self._frames.values():
            if one is dead:  # its last words may still be in the pipe
                self._hear(one, frames)
        code = dead.exitcode()
        starved = code == _KILLED and oom_kills() > self._oom_kills
        return Lost(dead.pid, code, self._ready > 0, starved)

    def close(self) -> None:
        """End the workers, all of which are idle, and wait for them."""
        if self._ended or self.is_inherited():
            return
        begun = time.monotonic()
        with held_signals():
            for _ in self._workers:
                self._tasks.put(END)
            deadline = begun + GRACE_SECONDS
            for one in self._workers:
                while not one.join(0.0 if self._tasks.waiting else deadline - time.monotonic()):
                    self._tasks.flush()
                    if time.monotonic() >= deadline:
                        break
            self._dispose()
        self.end_seconds = time.monotonic() - begun

    def abandon(self) -> list[tuple[int, Reply]]:
        """End the workers at once, whatever they do; return replies that still came through."""
        if self._ended or self.is_inherited():
            return []
        with held_signals():
            kill(self._workers)
            for one, frames in self._frames.values():
                self._hear(one, frames)
            self._dispose()
        # An error here is only a task whose items could not be sent: it runs again.
        found = [pair for pair in self._found if isinstance(pair[1], tuple)]
        self._found = []
        return [(chunk, _reply(fields)) for chunk, fields in found]

    def end(self) -> None:
        """End the workers: kindly if all are well and known to wait, else at once."""
        if self._ended or self.is_inherited():
            return
        if self.idle and self.is_well() and self.ready == self.workers:
            self.close()
        else:
            self.abandon()
        self.sweep()

    def sweep(self) -> None:
        """Free what replies that were never opened left behind; after the crew has ended."""
        if not self.is_inherited():
            sweep(self.prefix)

    def is_inherited(self) -> bool:
        """Return whether this is a copy in a forked child, whose parent goes on with the crew."""
        return os.getpid() != self._owner

    # Inside --------------------------------------------------------------------------------

    def _read(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for anything, and take in all there is."""
        if self._ended:  # the numbers of its descriptors may be somebody else's by now
            time.sleep(timeout)  # at the exit of the interpreter, under a thread that ends with it
            return
        self._tasks.flush()
        self._await_room(bool(self._tasks.waiting))
        for descriptor, event in self._poll.poll(timeout * 1000):
            if descriptor in self._frames:
                self._hear(*self._frames[descriptor])
                if event & ~select.POLLIN:  # its end is closed: nothing more will come
                    self._poll.unregister(descriptor)
            elif descriptor in self._sentinels:
                self._dead.append(self._sentinels[descriptor])
                self._poll.unregister(descriptor)

    def _await_room(self, wanted: bool) -> None:
        if wanted == self._writable:
            return
        self._writable = wanted
        if wanted:
            self._poll.register(self._tasks.fileno(), select.POLLOUT)
        else:
            self._poll.unregister(self._tasks.fileno())

    def _hear(self, speaker: Worker, frames: Frames) -> None:
        """Take in what a worker has said."""
        for kind, body in frames.read():
            self._heard_at = time.monotonic()
            if kind == REPLY:
                fields = pickle.loads(body)
                self._found.append((fields[0], fields[1:]))
                continue
            if kind in _RELAYED:
                _RELAYED[kind](body)
                continue
            subject, when = NOTE.unpack(body)
            if kind == READY:
                self._ready += 1
                self.ready_at = self.ready_at or when
            elif kind == CHUNK:
                self._running[speaker.pid] = Running(subject, None, when)
            elif kind == ITEM:
                chunk = self._running[speaker.pid].chunk
                self._running[speaker.pid] = Running(chunk, subject, when)

    def _look(self) -> None:
        """Look for deaths that the system does not report."""
        self._read(0.0)
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._dead += [one for one in self._workers if not one.reports and not one.is_alive()]

    def _stuck(self) -> Lost | None:
        """Return a worker that waits for ever, None while there is none."""
        now = time.monotonic()
        if now - max(self._heard_at, self._suspected_at) < QUIET_SECONDS:
            return None
        self._suspected_at = now
        before = self._suspects
        self._suspects = {one.pid: deadlock(one.pid) for one in self._workers}
        for pid, waits in self._suspects.items():
            if waits and waits == before.get(pid):
                return Lost(pid, None, self._ready > 0, stuck=True)
        return None

    def _dispose(self) -> None:
        """Kill what is left, and close every descriptor, so that nothing waits for the garbage."""
        self._ended = True
        self._finalizer.cancel()
        kill([one for one in self._workers if one.is_alive()])
        for one in self._workers:
            one.close()
        for _, frames in self._frames.values():
            frames.reader.close()
        self._tasks.close()

    def disown(self) -> None:
        """Give up all of it in a forked child: these are its parent's workers."""
        for one in self._workers:
            one.disown()
        if not self._ended:
            for _, frames in self._frames.values():
                frames.reader.close()
            self._tasks.close_callers()


# What workers have the caller do.
_RELAYED: dict[bytes, Callable[[bytes], None]] = {RECORD: logs.handle, TRACKED: tracker.handle}

_KILLED = -9  # the exit code after SIGKILL, which Windows has no name for

_crews: weakref.WeakSet[ProcessCrew] = weakref.WeakSet()


def _ender(crew: ProcessCrew) -> Callable[[], None]:
    """Return what ends a crew if it is still there."""
    reference = weakref.ref(crew)

    def end() -> None:
        found = reference()
        if found is not None:
            found.end()

    return end


def _disown_all() -> None:
    """Let a forked child not hold the parent's crews: neither their ends nor their workers."""
    for crew in list(_crews):
        crew.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)


def _reply(fields: Any) -> Reply:
    if isinstance(fields, SerializationError):
        return Reply([], 0, keep(fields, fields.index)._replace(unrun=True), 0, 0.0, 0.0, 0.0)
    return Reply(*fields)
