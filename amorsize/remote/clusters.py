"""The engines that calls can run on, each with the same few methods."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from functools import partial

from ..errors import WorkerLostError
from ..lookup import load
from ..run.losses import worded
from .runner import MISSING, SharedShip, Ship, Work, work, work_here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, TypeAlias

    Done: TypeAlias = Callable[[Any, BaseException | None], object]
else:
    Protocol = object  # ``typing`` takes 3 ms to load

__all__ = [
    "Cluster",
    "ExecutorCluster",
    "Sending",
    "SharedCluster",
    "give",
    "installed",
    "listen",
    "told",
]


class Cluster(Protocol):
    """An engine, as a crew sees it.

    Attributes:
        kind: its name in reports and records.
        shares_memory: whether its workers are threads of this process.
    """

    kind: str
    shares_memory: bool

    def capacity(self) -> int | None:
        """Return how many chunks it runs at the same time now; None if it does not tell."""
        ...

    def ship(self, ship: Any) -> Any:
        """Have a call ready for all workers; return what tasks refer to it by."""
        ...

    def hold(self, array: Any) -> Any:
        """Have the engine hold an array for several chunks; return a handle, None if it cannot."""
        ...

    def submit(self, ship: Any, chunk: Work, done: Done, held: tuple[Any, ...] = ()) -> Any:
        """Have a chunk run; return a handle for ``cancel``.

        Args:
            ship: what ``ship`` returned.
            chunk: the chunk.
            done: called in any thread with the answer and None, or with None and an exception.
            held: what ``hold`` returned for each of the chunk's keys.
        """
        ...

    def cancel(self, handles: list[Any]) -> None:
        """Cancel chunks as far as possible."""
        ...

    def release(self, ship: Any) -> None:
        """Forget a call."""
        ...

    def loss(self, error: BaseException) -> str:
        """Return what happened if an exception means that a chunk was lost, else ""."""
        ...

    def trouble(self) -> str:
        """Return why the engine can run nothing any more, "" while it can."""
        ...


class Sending:
    """Sends a call with chunks, where an engine has no way to send it to all workers.

    It goes with the first chunks, one for each worker, and once more with a chunk whose worker says
    that it lacks it.

    Args:
        start: starts a task: (function, call, chunk) -> future with ``add_done_callback``.
    """

    def __init__(self, start: Callable[..., Any]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._sent: dict[str, int] = {}  # how many chunks have taken a call with them, by its name

    def submit(
        self, ship: Ship, chunk: Work, done: Done, held: tuple[Any, ...] = (), *, workers: int
    ) -> Any:
        """Start a chunk; return its future.

        Args:
            ship: the call.
            chunk: the chunk.
            done: see ``Cluster.submit``.
            held: see ``Cluster.submit``.
            workers: how many workers there are.
        """
        with self._lock:
            sent = self._sent[ship.name] = self._sent.get(ship.name, 0) + 1
        return self._submit(ship, chunk, done, held, whole=sent <= workers)

    def forget(self, ship: Ship) -> None:
        """Forget a call."""
        with self._lock:
            self._sent.pop(ship.name, None)

    def _submit(
        self, ship: Ship, chunk: Work, done: Done, held: tuple[Any, ...], *, whole: bool
    ) -> Any:
        future = self._start(work, ship if whole else ship._replace(content=None), chunk, *held)

        def came(value: Any, error: BaseException | None) -> None:
            if error is not None or value != MISSING:
                done(value, error)
                return
            try:
                self._submit(ship, chunk, done, held, whole=True)
            except Exception as refusal:  # noqa: BLE001 - it was shut down; given to the crew
                done(None, refusal)

        listen(future, came)
        return future


class ExecutorCluster:
    """Any ``concurrent.futures.Executor``.

    Args:
        executor: the executor.
    """

    shares_memory = False

    def __init__(self, executor: Executor) -> None:
        self.kind = type(executor).__name__
        self._executor = executor
        self._sending = Sending(executor.submit)

    def capacity(self) -> int | None:
        """Return the number of its workers, if it has it under one of the usual names."""
        for name in ("_max_workers", "max_workers", "num_workers"):
            found = getattr(self._executor, name, None)
            if type(found) is int and found > 0:
                return found
        return None

    def ship(self, ship: Ship) -> Ship:
        """Return the call itself."""
        return ship

    def hold(self, array: Any) -> None:
        """Return None: an executor holds nothing."""

    def submit(
        self, ship: Ship, chunk: Work, done: Done, held: tuple[Any, ...] = ()
    ) -> Future[Any]:
        """Have a chunk run; see ``Cluster``."""
        del held
        future: Future[Any]
        future = self._sending.submit(ship, chunk, done, workers=self.capacity() or 1)
        return future

    def cancel(self, handles: list[Future[Any]]) -> None:
        """Cancel what does not run yet."""
        if type(self._executor).__module__.startswith("executorlib"):
            return  # its end waits for ever for a task that was cancelled (1.x, November 2026)
        for future in handles:
            future.cancel()

    def release(self, ship: Ship) -> None:
        """Forget a call; workers do so by themselves."""
        self._sending.forget(ship)

    def loss(self, error: BaseException) -> str:
        """Return what happened if a worker was lost, and the executor goes on."""
        if isinstance(error, WorkerLostError):  # of a SmartExecutor
            return told(error)
        return "gave up its task, which was cancelled," if isinstance(error, CancelledError) else ""

    def trouble(self) -> str:
        """Return "": an executor that runs nothing any more says so to each task."""
        return ""


class SharedCluster(ExecutorCluster):
    """An executor whose workers are threads of this process: nothing is copied."""

    shares_memory = True

    def ship(self, ship: Any) -> Any:
        """Return the call itself."""
        return ship

    def submit(self, ship: Any, chunk: Work, done: Done, held: tuple[Any, ...] = ()) -> Future[Any]:
        """Have a chunk run; see ``Cluster``."""
        del held
        assert isinstance(ship, SharedShip)
        future: Future[Any] = self._executor.submit(work_here, ship, chunk)
        listen(future, done)
        return future

    def release(self, ship: Any) -> None:
        """Do nothing: nothing was sent."""


def installed(name: str, extra: str) -> Any:
    """Return a module, loaded.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        return load(name)
    except ImportError as error:
        raise ImportError(
            f"backend={extra!r} needs {name}: pip install 'amorsize[{extra}]'", name=name
        ) from error


def listen(future: Any, done: Done) -> None:
    """Have the outcome of a future given as soon as it is done.

    Args:
        future: the future.
        done: see ``Cluster.submit``.

    Raises:
        TypeError: it is no future.
    """
    try:
        add = future.add_done_callback
    except AttributeError:
        raise TypeError(
            f"backend: its submit() returned {future!r:.80}, where a future with "
            f"add_done_callback() is expected, as of concurrent.futures"
        ) from None
    add(partial(give, done))


def give(done: Done, future: Any) -> None:
    """Give the outcome of a future that is done.

    Args:
        done: see ``Cluster.submit``.
        future: the future.
    """
    try:
        value = future.result()
    except BaseException as error:  # noqa: BLE001 - given to the crew
        done(None, error)
    else:
        done(value, None)


def told(error: BaseException) -> str:
    """Return what happened to a worker, from the exception of its engine."""
    return f"was lost ({worded(error)})"
