"""What the engine needs of workers, be they processes or threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from ..tuples import NamedTuple
from .worker import Reply

__all__ = ["Crew", "Lost", "Running", "Starter", "Task", "take_all"]


class Task(NamedTuple):
    """One chunk, as it is handed to a crew.

    Attributes:
        chunk: its number.
        start: index of its first item.
        size: number of items.
        columns: the items, None where workers have inherited them.
        track: whether the worker tells each item as it starts.
    """

    chunk: int
    start: int
    size: int
    columns: tuple[Any, ...] | None
    track: bool = False


class Running(NamedTuple):
    """What a worker said last.

    Attributes:
        chunk: number of the chunk it took.
        item: index of the item it began, None when it does not tell items.
        since: when, on the monotonic clock, s.
    """

    chunk: int
    item: int | None
    since: float


class Lost(NamedTuple):
    """A worker that died.

    Attributes:
        pid: which.
        exitcode: as ``multiprocessing.Process.exitcode``, negative for a signal; None when unknown.
        ready: whether any worker of its crew ever became ready.
        memory: whether the kernel has killed processes for want of memory since the crew began.
        stuck: whether it lives, but waits for a lock that nothing can release.
    """

    pid: int
    exitcode: int | None
    ready: bool
    memory: bool = False
    stuck: bool = False


class Crew(Protocol):
    """Workers that run chunks of one call.

    Attributes:
        workers: how many there are.
        started_at: when their start began, on the monotonic clock, s.
        start_seconds: from then until the last of them was started.
        end_seconds: how long ``close`` took; 0 when the workers were kept.
        reused: whether the workers served another call before.
        shipped_bytes: size of the function and all it captures, as it was sent; 0 where workers
            inherited it.
        has_first: whether it has taken the first tasks, as it was made.
    """

    workers: int
    started_at: float
    start_seconds: float
    end_seconds: float
    reused: bool
    has_first: bool
    shipped_bytes: int

    @property
    def ready_at(self) -> float | None:
        """When the first was set up, on the monotonic clock, s; None before."""
        ...

    @property
    def ready(self) -> int:
        """Number of workers that have been set up."""
        ...

    @property
    def inherited(self) -> bool:
        """Whether workers hold the whole input, so that tasks need no columns."""
        ...

    def submit(self, task: Task) -> int:
        """Hand out a task; it is run by whichever worker is free first.

        Returns:
            The bytes its items took on the way, 0 when they took none.
        """
        ...

    def take_back(self) -> int | None:
        """Return the number of a chunk that no worker has taken, and none will; None for none."""
        ...

    def replies(self, timeout: float) -> list[tuple[int, Reply]]:
        """Wait up to ``timeout`` seconds for replies; return (chunk, reply) of all there are."""
        ...

    def running(self) -> dict[int, Running]:
        """Return what each worker said last, by its pid."""
        ...

    def lost(self) -> Lost | None:
        """Return a worker that died, None while all are well."""
        ...

    def close(self) -> None:
        """End the workers, all of which are idle, and wait for them."""
        ...

    def abandon(self) -> list[tuple[int, Reply]]:
        """End the workers at once, whatever they do; return replies that still came through."""
        ...

    def sweep(self) -> None:
        """Free what replies that nobody opened left behind; after the crew has ended."""
        ...


class Starter(Protocol):
    """What the engine has its crews from."""

    def start(self, workers: int, first: Callable[[bool], Iterator[Task]] | None) -> Crew:
        """Return a crew of so many workers, 0 for the calling process alone.

        Args:
            workers: how many.
            first: gives the tasks to begin with, if it is asked before workers start; it is given
                whether they inherit the whole input.

        Raises:
            OSError: so many cannot be started, but fewer might.
        """
        ...

    def leave_fork(self) -> None:
        """Start workers in another way from now on: forked ones got stuck."""
        ...


def take_all(queue: SimpleQueue[Any], timeout: float) -> list[Any]:
    """Wait up to ``timeout`` seconds for something in a queue; return all there is."""
    found = []
    with suppress(Empty):
        if timeout > 0:
            # No less than a millisecond: a first get() that wakes up when its time is just over
            # takes the negative rest for "for ever" (seen with 3.11's SimpleQueue).
            found.append(queue.get(timeout=max(timeout, 0.001)))
        while True:
            found.append(queue.get_nowait())
    return found
