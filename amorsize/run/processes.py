"""A crew of worker processes for one call, or for several calls one after the other.

The crew has no threads. The caller writes tasks and reads replies itself. It waits in one place:
for replies, for room for tasks and for deaths. The engine checks for deaths (``lost``). After any
death it abandons the whole crew, and runs the unfinished chunks in a new one. docs/design.md
gives the reasons.
"""

from __future__ import annotations

import _socket  # ``socket`` takes 5 ms to load
import os
import select
import time
import weakref
from collections.abc import Callable, Iterator

from ..errors import SerializationError
from ..measure.machine import oom_kills
from ..signals import held_signals
from . import worker
from .channel import END, opened_task, packed_task
from .children import kill
from .crew import Lost, Running, Starts, Task, starting
from .failure import keep
from .listening import Listener
from .reply import Reply
from .setup import Setup, Shipment
from .shared import make_prefix, sweep
from .transport import pack_forked, pack_shipped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .channel import Channel, Link

__all__ = ["GRACE_SECONDS", "ProcessCrew", "has_local_sockets"]

# Interval between checks for deaths, where the system does not report deaths.
LOOK_SECONDS = 0.02
# An idle worker ends within a few ms of the request, or within 50 ms if it saves coverage data.
# A worker that has not ended after this time (an atexit hook of the user's, a thread that runs on)
# is killed.
GRACE_SECONDS = 2.0
# How long to wait at a time for room for the last messages.
ROOM_SECONDS = 0.005


def has_local_sockets() -> bool:
    """Return whether this system has what ``sockets`` needs; Windows has not."""
    return hasattr(_socket, "AF_UNIX") and hasattr(select, "poll")


def open_channel() -> Channel:
    """Return the ways to the workers of a crew and back, of the kind that this system has.

    Raises:
        OSError: the system has no socket or pipe to give.
    """
    if has_local_sockets():
        from .sockets import SocketChannel

        return SocketChannel()
    from .pipes import PipeChannel  # Windows

    return PipeChannel()


class ProcessCrew:
    """Worker processes.

    Args:
        starts: the way to start them.
        workers: how many; if not all can be started, the crew runs with fewer.
        setup: what each worker is started with.
        inherits: whether workers inherit the whole input.
        first: yields the first tasks, which are queued before any worker starts; None for none.

    Raises:
        CannotStart: no process can be started, or no pipe opened.
        SerializationError: the function cannot be sent to a fresh interpreter.
    """

    reused, claims, shipped_bytes = False, True, 0
    nodes: dict[int, str] = {}  # noqa: RUF012 - never written to
    _ended = True  # nothing to end yet
    minds_memory = True  # whether fewer workers could be a remedy for a lack of memory
    serve: Callable[[Setup, Link], None] = staticmethod(worker.serve)  # what a worker runs

    def __init__(
        self,
        starts: Starts,
        workers: int,
        setup: Setup,
        *,
        inherits: bool,
        first: Iterator[Task] | None = None,
    ) -> None:
        self._owner = os.getpid()
        self._swept = False  # whether there can be no more segments
        self._dismissed = False  # whether each worker was asked to end
        self._looked = time.monotonic()
        # Read once the crew has run for a while; at once where fewer workers could be a remedy.
        self._oom_kills = oom_kills() if workers > 1 else None
        self._shipment: Shipment | None = None
        self._forked = starts.method == "fork"
        self._pack = pack_forked if self._forked else pack_shipped
        self.inherited = inherits
        self.idle = False  # whether the crew waits for a call
        self.started_at = time.monotonic()
        self.start_seconds = self.end_seconds = 0.0
        self.prefix = make_prefix()
        with starting():
            starts.ensure()
        starts.wait()
        # Reading the input may block or raise, so it is read here, before signals are held.
        tasks = [*first] if first is not None else []
        try:
            with starting():
                self._tasks = open_channel()
                self._listener = Listener(self._tasks)
                self._workers = self._listener.workers
                self.peaks = self._listener.peaks
                self._ended = False
                _crews[self] = self._tasks, self._listener
                # Ends kept workers, and those of an unfinished call, when the interpreter exits.
                self._cancel_exit = self._at_exit(starts)
                for task in tasks:
                    self.submit(task)
                self._start(starts, workers, setup.for_crew(self.prefix))
        except BaseException:  # no worker could be started, or the handler of a held signal raised
            self.abandon()
            self.sweep()
            raise
        self.has_first = first is not None
        self.start_seconds = time.monotonic() - self.started_at

    def _at_exit(self, starts: Starts) -> Callable[[], object]:
        """Have the crew end when the interpreter exits; return a function that cancels that."""
        return starts.at_exit(_ender(self))

    def _start(self, starts: Starts, workers: int, setup: Setup) -> None:
        for number in range(workers):
            try:
                self._start_one(starts, setup, number)
            except OSError:
                if not self._workers:
                    raise
                break
            self._tasks.flush()  # workers that are up may have made room
        self.workers = len(self._workers)

    def _start_one(self, starts: Starts, setup: Setup, number: int) -> None:
        link, frames = self._tasks.connect()
        try:
            started = starts.start(f"amorsize-{number + 1}", self.serve, (setup, link))
        except BaseException:  # also Ctrl-C: nothing else would close this end
            frames.close()
            raise
        finally:
            link.release()
        self._listener.add(started, frames)

    def __del__(self) -> None:
        """End the workers of a crew that was dropped before its caller received it."""
        if not self._ended:
            self.abandon()
            self.sweep()

    # What the engine sees ------------------------------------------------------------------

    @property
    def ready(self) -> int:
        """Number of workers that have been set up."""
        self._read(0.0)
        return self._listener.ready

    @property
    def ready_at(self) -> float | None:
        """When the first worker was set up, on the monotonic clock, s; None before."""
        return self._listener.ready_at

    @property
    def ended(self) -> bool:
        """Whether the workers are gone."""
        return self._ended

    def begin(self, shipment: Shipment) -> None:
        """Serve another call from now on; the crew must be idle."""
        self._read(0.0)
        self._listener.forget()
        self._shipment = shipment

    def is_well(self) -> bool:
        """Return whether all workers are alive."""
        return not self._ended and all(one.is_alive() for one in self._workers)

    def submit(self, task: Task) -> int:
        """Hand out a task; return the number of bytes sent for its items.

        If the items cannot be sent, a reply with the error is queued at once.
        """
        if task.columns is None:
            self._tasks.put(packed_task(task, None, None))
            return 0
        with held_signals():  # around the try: a handler's exception is no refusal
            try:
                columns = self._pack(task.columns, self.prefix, start=task.start)
                self._tasks.put(packed_task(task, columns, self._shipment))
            except SerializationError as error:
                self._listener.found.append((task.chunk, error))
            except OSError as error:  # no room for a shared segment, and too large for a message
                refusal = SerializationError(f"an item cannot be sent: {error}", index=task.start)
                self._listener.found.append((task.chunk, refusal))
            else:
                return columns.size
        return 0

    def take_back(self) -> int | None:
        """Take back a chunk that no worker has taken; return its number, None if there is none."""
        if self._ended:  # with every task that was in the queue
            return None
        message = self._tasks.take_back()
        if message == END:  # behind the last task
            self._tasks.put(END)
            return None
        return None if message is None else int(opened_task(message)[0])

    def has_tasks(self) -> bool:
        """Return whether any task waits that no worker has taken."""
        return not self._ended and self._tasks.has_messages()

    def has_news(self) -> bool:
        """Return whether there is anything to read, or a worker has ended."""
        return not self._ended and self._tasks.has_news()

    def dismiss(self) -> bool:
        """Ask the workers to end after the last task that was handed out; return True."""
        if not self._dismissed:
            self._dismissed = True
            for _ in self._workers:
                self._tasks.put(END)
        return True

    def replies(self, timeout: float) -> list[tuple[int, Reply]]:
        """Wait up to ``timeout`` seconds for replies; return (chunk, reply) for each."""
        self._read(0.0 if self._listener.found else timeout)
        return [(chunk, self.opened(fields)) for chunk, fields in self._fetched()]

    def running(self) -> dict[int, Running]:
        """Return what each worker reported last, by its pid, as far as read."""
        return self._listener.running

    def lost(self) -> Lost | None:
        """Return a worker that died or is stuck, None while all are well."""
        if self._ended:
            return None
        self._look()
        listener = self._listener
        dead = next((one for one in listener.dead if not listener.has_left(one)), None)
        if dead is None:
            pid = listener.stuck() if self._forked else None
            return None if pid is None else Lost(pid, None, listener.ready > 0, stuck=True)
        code = dead.exitcode()
        before = self._oom_kills
        starved = code == _KILLED and before is not None and oom_kills() > before
        return Lost(dead.pid, code, listener.ready > 0, starved)

    def close(self) -> None:
        """End the workers, which must all be idle, and wait for them."""
        if self._ended or self.is_inherited():
            return
        begun = time.monotonic()
        with held_signals():
            self.dismiss()
            deadline = begun + GRACE_SECONDS
            for one in self._workers:
                while not one.join(0.0 if self._tasks.waiting else deadline - time.monotonic()):
                    self._read(ROOM_SECONDS)
                    if time.monotonic() >= deadline:
                        break
            self._listener.hear_all()
            self._dispose()
        self.end_seconds = time.monotonic() - begun

    def abandon(self) -> list[tuple[int, Reply]]:
        """Kill the workers, whatever they do; return the replies that had arrived."""
        if self._ended or self.is_inherited():
            return []
        with held_signals():
            kill(self._workers)
            self._listener.hear_all()
            self._dispose()
        # Drop errors: they are tasks whose items could not be sent, and those run again.
        found = (pair for pair in self._fetched() if isinstance(pair[1], tuple))
        return [(chunk, self.opened(fields)) for chunk, fields in found]

    def end(self) -> None:
        """Close the crew if all workers are alive, set up and idle, else abandon it."""
        if self._ended or self.is_inherited():
            return
        if self.idle and self.is_well() and self.ready == self.workers:
            self.close()
        else:
            self.abandon()
        self.sweep()

    def sweep(self) -> None:
        """Remove segments of replies that were never opened; only after the crew has ended."""
        if not self.is_inherited() and not self._swept:
            self._swept = self._ended
            sweep(self.prefix)

    def is_inherited(self) -> bool:
        """Return whether this is a forked child's copy of its parent's crew."""
        return os.getpid() != self._owner

    @staticmethod
    def opened(fields: Any) -> Any:
        """Return a reply, from what a worker has sent or from the error that kept its task here."""
        if isinstance(fields, SerializationError):
            return Reply([], 0, keep(fields, fields.index)._replace(unrun=True), 0, 0.0, 0.0, 0.0)
        return Reply(*fields)

    # Inside --------------------------------------------------------------------------------

    def _read(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for any event, and take in all that has arrived."""
        if self._ended:  # the numbers of its file descriptors may be in use again
            time.sleep(timeout)  # at interpreter exit, in a daemon thread that still uses the crew
            return
        self._listener.wait(timeout)

    def _fetched(self) -> list[tuple[int, Any]]:
        """Return the replies that have arrived, and forget them."""
        found, self._listener.found = self._listener.found, []
        return found

    def _look(self) -> None:
        """Check for deaths, including those that the system does not report."""
        self._read(0.0)
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if self._oom_kills is None and self.minds_memory:
            self._oom_kills = oom_kills()
        self._listener.dead += [
            one for one in self._workers if not one.reports and not one.is_alive()
        ]

    def _dispose(self) -> None:
        """Kill the remaining workers, and close every file descriptor now, not when collected."""
        self._ended = True
        self._cancel_exit()
        kill([one for one in self._workers if one.is_alive()])
        for one in self._workers:
            one.close()
        self._listener.close()
        self._tasks.close()

    def disown(self) -> None:
        """Let go of the crew in a forked child: the workers are its parent's."""
        for one in self._workers:
            one.disown()
        if not self._ended:
            self._listener.close()
            self._tasks.close_callers()


_KILLED = -9  # the exit code after SIGKILL; Windows has no such name in ``signal``

# Each crew with what it needs to end its workers. That is held here, so that the garbage collector,
# which finalizes the objects of a cycle in any order, does not close it before the crew has ended.
_crews: weakref.WeakKeyDictionary[ProcessCrew, tuple[Channel, Listener]] = (
    weakref.WeakKeyDictionary()
)


def _ender(crew: ProcessCrew) -> Callable[[], None]:
    """Return a function that ends a crew if the crew still exists."""
    reference = weakref.ref(crew)

    def end() -> None:
        found = reference()
        if found is not None:
            found.end()

    return end


def _disown_all() -> None:
    """Let go of the parent's crews in a forked child: their pipes and their workers."""
    for crew in list(_crews):
        crew.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
