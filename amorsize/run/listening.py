"""What the caller hears of its workers: replies, notes, and that one has ended, in one place."""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import time
from collections.abc import Callable

from . import logs, tracker
from .channel import Channel, Frames
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

    Args:
        channel: the ways to the workers and back.

    Attributes:
        workers: all workers that were added.
        dead: those that the system has reported to have ended.
        found: (chunk, fields of the reply) of replies that were not fetched yet.
        running: what each worker reported last, by its pid.
        peaks: peak memory of the workers that have said that they leave, by pid.
        ready: number of workers that have been set up.
        ready_at: when the first worker was set up, on the monotonic clock, s; None before.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.workers: list[Process] = []
        self.dead: list[Process] = []
        self.found: list[tuple[int, Any]] = []
        self.running: dict[int, Running] = {}
        self.peaks: dict[int, int] = {}
        self.ready = 0
        self.ready_at: float | None = None
        self._speakers: dict[Frames, Process] = {}
        self._heard_at = self._suspected_at = time.monotonic()
        self._suspects: dict[int, tuple[str, ...]] = {}

    def add(self, worker: Process, frames: Frames) -> None:
        """Listen to a worker that was started.

        Args:
            worker: the worker.
            frames: what it sends.
        """
        self.workers.append(worker)
        self._speakers[frames] = worker
        self._channel.listen(worker, frames)

    def wait(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for any event, and take in all that has arrived.

        Args:
            timeout: longest time to wait, s.
        """
        heard, ended = self._channel.wait(timeout)
        for frames in heard:
            self._hear(self._speakers[frames], frames)
        self.dead += ended

    def hear_all(self) -> None:
        """Take in what all workers have sent, without waiting."""
        for frames, worker in self._speakers.items():
            self._hear(worker, frames)

    def has_left(self, dead: Process) -> bool:
        """Return whether a worker that has ended was asked to, and had sent everything."""
        for frames, one in self._speakers.items():
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
        """Close the ways back from all workers."""
        for frames in self._speakers:
            frames.close()

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
