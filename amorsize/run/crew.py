"""The interface between the engine and its workers, which are processes or threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..signals import held_signals
from ..tuples import NamedTuple
from .reply import Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Protocol = object  # ``typing`` takes 3 ms to load

__all__ = [
    "CannotStart",
    "Crew",
    "Lost",
    "Process",
    "Running",
    "Starter",
    "Starts",
    "Task",
    "starting",
]


class CannotStart(Exception):  # noqa: N818 - says what is so; the engine acts on it
    """Workers cannot be started; the text has the reason.

    It is no OSError, because the usual time limit, a signal handler that raises TimeoutError, is
    one, and must end the call.
    """


@contextmanager
def starting() -> Iterator[None]:
    """Hold signals back while workers start, and raise CannotStart where the system refuses."""
    with held_signals():
        try:
            yield
        except (OSError, ImportError) as error:
            raise CannotStart(f"{type(error).__name__}: {error}") from error


class Task(NamedTuple):
    """One chunk, as it is handed to a crew.

    Attributes:
        chunk: number of the chunk.
        start: index of its first item.
        size: number of items.
        columns: the items, None where workers have inherited them.
        track: whether the worker reports each item as it starts.
        prompt: whether the worker sends the results at once.
        seconds: how long a worker that has inherited the items may take before it gives back the
            rest; 0 for any time.
    """

    chunk: int
    start: int
    size: int
    columns: tuple[Any, ...] | None
    track: bool = False
    prompt: bool = True
    seconds: float = 0.0


class Running(NamedTuple):
    """The last report of a worker.

    Attributes:
        chunk: number of the chunk it took.
        item: index of the item it began, None when it does not report items.
        since: time of the report, on the monotonic clock, s.
    """

    chunk: int
    item: int | None
    since: float


class Lost(NamedTuple):
    """A worker that died or is stuck.

    Attributes:
        pid: its process id.
        exitcode: as ``multiprocessing.Process.exitcode``, negative for a signal; None when unknown.
        ready: whether any worker of its crew ever became ready.
        memory: whether SIGKILL ended it, and the kernel has killed processes for lack of memory
            since the crew began.
        stuck: whether it lives, but waits for a lock that nothing can release.
        cause: what happened, where there is no exit code; "" where there is.
    """

    pid: int
    exitcode: int | None
    ready: bool
    memory: bool = False
    stuck: bool = False
    cause: str = ""


class Crew(Protocol):
    """Workers that run chunks of one call.

    Attributes:
        workers: number of workers.
        started_at: when their start began, on the monotonic clock, s.
        start_seconds: time from then until the last worker was started.
        end_seconds: how long ``close`` took; 0 when the workers were kept.
        reused: whether the workers served another call before.
        shipped_bytes: size of the function and all it captures, as sent to kept workers; 0 for
            other crews.
        has_first: whether the crew took the first tasks as it was created.
        claims: whether workers take tasks from a queue; if not, ``submit`` runs them.
        peaks: the peak memory of workers that have left (``private_peak``), by pid.
        nodes: names of the numbers that stand for workers of another engine; empty for processes
            of this machine.
    """

    workers: int
    started_at: float
    start_seconds: float
    end_seconds: float
    reused: bool
    has_first: bool
    claims: bool
    peaks: dict[int, int]
    nodes: dict[int, str]
    shipped_bytes: int

    @property
    def ready_at(self) -> float | None:
        """When the first worker was set up, on the monotonic clock, s; None before."""
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
        """Hand out a task; the first free worker runs it.

        Returns:
            The size of its items as sent, in bytes; 0 when nothing was sent.
        """
        ...

    def take_back(self) -> int | None:
        """Withdraw a chunk that no worker has taken; return its number, None if there is none."""
        ...

    def has_tasks(self) -> bool:
        """Return whether any task waits that no worker has taken."""
        ...

    def has_news(self) -> bool:
        """Return whether anything has arrived from workers, or one has ended."""
        ...

    def dismiss(self) -> bool:
        """Have the workers end after the last task, which was handed out; ``close`` waits.

        Returns:
            Whether they will end.
        """
        ...

    def replies(self, timeout: float) -> list[tuple[int, Reply]]:
        """Wait up to ``timeout`` seconds for replies; return (chunk, reply) of all that came."""
        ...

    def running(self) -> dict[int, Running]:
        """Return the last report of each worker, by its pid, as of the last ``replies``."""
        ...

    def lost(self) -> Lost | None:
        """Return a worker that died or is stuck, None while all are well."""
        ...

    def close(self) -> None:
        """End the workers, all of which are idle, and wait for them."""
        ...

    def abandon(self) -> list[tuple[int, Reply]]:
        """End the workers at once, whatever they do; return the replies that still arrived."""
        ...

    def sweep(self) -> None:
        """Free the shared segments of replies that were never opened; only after the crew's end."""
        ...


class Process(Protocol):
    """A worker process, as a crew sees it."""

    pid: int

    @property
    def reports(self) -> bool:
        """Whether the system reports the worker's death, even if other code takes the exit code."""
        ...

    @property
    def sentinel(self) -> int:
        """The file descriptor that becomes readable when the worker ends, -1 if there is none."""
        ...

    def is_alive(self) -> bool:
        """Return whether the worker is running."""
        ...

    def exitcode(self) -> int | None:
        """Return the exit code of a worker that has ended; None if other code has taken it."""
        ...

    def join(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the worker to end; return whether it has ended."""
        ...

    def kill(self) -> None:
        """Kill the worker."""
        ...

    def close(self) -> None:
        """Release the resources of a worker that has ended."""
        ...

    def disown(self) -> None:
        """Let go of the worker in a forked child: it is its parent's."""
        ...


class Starts(Protocol):
    """A way to start worker processes.

    Attributes:
        method: start method.
    """

    method: str

    def ensure(self) -> None:
        """Start the helper processes that this way needs; call it while signals are held.

        Raises:
            OSError: this interpreter cannot start workers in this way.
        """
        ...

    def wait(self) -> None:
        """Wait until the helper processes are ready; call it while signals are not held."""
        ...

    def start(self, name: str, target: Callable[..., object], args: tuple[Any, ...]) -> Process:
        """Start a worker that calls ``target(*args)``.

        Raises:
            OSError: it cannot be started.
        """
        ...

    def at_exit(self, end: Callable[[], object]) -> Callable[[], object]:
        """Have ``end`` called when the interpreter exits; return a function that cancels that."""
        ...


class Starter(Protocol):
    """Starts crews for the engine."""

    def start(self, workers: int, first: Callable[[bool], Iterator[Task]] | None) -> Crew:
        """Return a new crew.

        Args:
            workers: how many; 0 for the calling process alone.
            first: returns the tasks to begin with, for crews that take them before workers start.
                Its argument is whether workers inherit the whole input.

        Raises:
            CannotStart: so many cannot be started, but fewer might.
        """
        ...

    def leave_fork(self) -> None:
        """Use another start method from now on, because forked workers got stuck."""
        ...
