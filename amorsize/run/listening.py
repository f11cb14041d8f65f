"""What the caller hears of its workers: replies, notes, and that one has ended, in one place."""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import select
import time
from collections.abc import Callable

from . import logs, tracker
from .channel import End, Frames, Tasks
from .crew import Process, Running
from .reply import CHUNK, ITEM, LEAVE, LEAVING, NOTE, READY, RECORD, REPLY, TRACKED
from .stuck import deadlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Listener"]

# If no worker has sent anything for this time, forked workers may be stuck: they are checked, and
# checked again after the same time. A check takes 30 us for each worker.
QUIET_SECONDS = 0.5

# Frames that another module handles in the caller.
_RELAYED: dict[bytes, Callable[[bytes], None]] = {RECORD: logs.handle, TRACKED: tracker.handle}


class Listener:
    """Waits for the workers of a crew, and takes in what they send.

    Attributes:
        workers: all workers that were added.
        dead: those that the system has reported to have ended.
        found: (chunk, fields of the reply) of replies that were not fetched yet.
        running: what each worker reported last, by its pid.
        peaks: peak memory of the workers that have said that they leave, by pid.
        ready: number of workers that have been set up.
        ready_at: when the first worker was set up, on the monotonic clock, s; None before.
    """

    def __init__(self) -> None:
        self.workers: list[Process] = []
        self.dead: list[Process] = []
        self.found: list[tuple[int, Any]] = []
        self.running: dict[int, Running] = {}
        self.peaks: dict[int, int] = {}
        self.ready = 0
        self.ready_at: float | None = None
        self._frames: dict[int, tuple[Process, Frames]] = {}  # by the pipe's file descriptor
        self._sentinels: dict[int, Process] = {}
        self._poll = select.poll()
        self._awaits_room = False  # whether to wait for room for tasks
        self._heard_at = self._suspected_at = time.monotonic()
        self._suspects: dict[int, tuple[str, ...]] = {}

    def add(self, worker: Process, reading: End) -> None:
        """Listen to a worker that was started.

        Args:
            worker: the worker.
            reading: the read end of its pipe.
        """
        self.workers.append(worker)
        self._frames[reading.fileno()] = (worker, Frames(reading))
        self._poll.register(reading.fileno(), select.POLLIN)
        if worker.sentinel >= 0:
            self._sentinels[worker.sentinel] = worker
            self._poll.register(worker.sentinel, select.POLLIN)

    def has_news(self) -> bool:
        """Return whether there is anything to read, or a worker has ended."""
        return bool(self._poll.poll(0))

    def wait(self, tasks: Tasks, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for any event, and take in all that has arrived.

        Args:
            tasks: the task queue; room for its messages is an event, too.
            timeout: longest time to wait, s.
        """
        tasks.flush()
        self._await_room(tasks)
        for descriptor, event in self._poll.poll(timeout * 1000):
            if descriptor in self._frames:
                self._hear(*self._frames[descriptor])
                if event & ~select.POLLIN:  # the worker's end is closed: nothing more will come
                    self._poll.unregister(descriptor)
            elif descriptor in self._sentinels:
                self.dead.append(self._sentinels[descriptor])
                self._poll.unregister(descriptor)

    def hear_all(self) -> None:
        """Take in what all workers have sent, without waiting."""
        for worker, frames in self._frames.values():
            self._hear(worker, frames)

    def has_left(self, dead: Process) -> bool:
        """Return whether a worker that has ended was asked to, and had sent everything."""
        for one, frames in self._frames.values():
            if one is dead:  # its last frames may still be in the pipe
                self._hear(one, frames)
        return dead.pid in self.peaks

    def stuck(self) -> int | None:
        """Return the pid of a worker that is deadlocked, None if there is none."""
        now = time.monotonic()
        if now - max(self._heard_at, self._suspected_at) < QUIET_SECONDS:
            return None
        self._suspected_at = now
        before = self._suspects
        self._suspects = {one.pid: deadlock(one.pid) for one in self.workers}
        for pid, waits in self._suspects.items():
            if waits and waits == before.get(pid):
                return pid
        return None

    def forget(self) -> None:
        """Forget replies and notes: their chunk numbers belong to an earlier call."""
        self.running.clear()
        self.found.clear()

    def close(self) -> None:
        """Close the read ends of all pipes."""
        for _, frames in self._frames.values():
            frames.reader.close()

    def _await_room(self, tasks: Tasks) -> None:
        wanted = bool(tasks.waiting)
        if wanted == self._awaits_room:
            return
        self._awaits_room = wanted
        if wanted:
            self._poll.register(tasks.fileno(), select.POLLOUT)
        else:
            self._poll.unregister(tasks.fileno())

    def _hear(self, speaker: Process, frames: Frames) -> None:
        """Take in the frames that a worker has sent."""
        for kind, body in frames.read():
            self._heard_at = time.monotonic()
            if kind == REPLY:
                fields = pickle.loads(body)
                self.found.append((fields[0], fields[1:]))
                continue
            if kind in _RELAYED:
                _RELAYED[kind](body)
                continue
            if kind == LEAVING:
                self.peaks[speaker.pid] = LEAVE.unpack(body)[0]
                continue
            subject, when = NOTE.unpack(body)
            if kind == READY:
                self.ready += 1
                self.ready_at = self.ready_at or when
            elif kind == CHUNK:
                self.running[speaker.pid] = Running(subject, None, when)
            elif kind == ITEM:
                chunk = self.running[speaker.pid].chunk
                self.running[speaker.pid] = Running(chunk, subject, when)
