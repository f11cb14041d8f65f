"""``SmartExecutor``: a ``concurrent.futures.Executor`` of processes for many small tasks."""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import os
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from functools import partial
from itertools import islice

from .errors import WorkerLostError
from .measure.machine import choose_start_method, usable_cpus
from .options import DEFAULTS, make_options
from .run.setup import Setup, Threads
from .run.start import recipe_for
from .serve.books import Ticket
from .serve.futures import LightFuture
from .serve.orders import Raised
from .serve.results import raised
from .serve.service import RUN, Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from typing import Any, ParamSpec, TypeVar

    from .serve.orders import Call

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["SmartExecutor", "Task"]

_numbers = itertools.count()


class _TaskLostError(WorkerLostError, BrokenProcessPool):
    """Workers died with a task. What handles a broken ProcessPoolExecutor handles this, too."""


class Task(Ticket):
    """A submitted call, whose outcome is for a future.

    Args:
        order: what to run.
        future: gets the outcome.
    """

    __slots__ = ("_future",)

    def __init__(self, order: Call, future: Future[Any]) -> None:
        super().__init__(order)
        self._future = future

    def begin(self) -> bool:
        """Note that the future runs; return False if it was cancelled, or settled by others."""
        try:
            return self._future.set_running_or_notify_cancel()
        except (RuntimeError, InvalidStateError):
            return False

    def cancel(self) -> None:
        """Cancel the future."""
        self._future.cancel()

    def settle(self, outcome: Any, seconds: float, cpu_seconds: float) -> None:
        """Give the future its result or its exception."""
        del seconds, cpu_seconds
        if type(outcome) is not Raised:
            self._future.set_result(outcome)
            return
        error = raised(outcome, _RemoteTraceback)
        if outcome.broken:
            broken = BrokenProcessPool(
                "A process in the process pool was terminated abruptly while the future was "
                "running or pending."
            )
            broken.__cause__ = error
            error = broken
        elif type(error) is WorkerLostError:
            error = _TaskLostError(*error.args, index=error.index, exitcode=error.exitcode)
        self._future.set_exception(error)


class SmartExecutor(concurrent.futures.Executor):
    """Worker processes that run submitted calls.

    It behaves as ``concurrent.futures.ProcessPoolExecutor``, with these differences: small tasks
    cost a fraction; a worker that dies breaks nothing, but its task runs again, once, and its
    future gets a ``WorkerLostError`` (a ``BrokenProcessPool``, too) if another worker dies with it;
    lambdas, closures and functions of notebooks can be sent; large values move through shared
    memory.

    Args:
        max_workers: most workers; None for the number of usable CPUs. They start when there is work
            for them.
        mp_context: a multiprocessing context, or the name of a start method. None chooses as it
            does everywhere in amorsize.
        initializer: called in each worker with ``initargs`` as it starts. If it raises, the
            executor is broken.
        initargs: arguments of ``initializer``.
        max_tasks_per_child: number of tasks after which a worker is replaced; None for no limit.

    Raises:
        ValueError: a number out of range.
        TypeError: a value of the wrong type.

    >>> with SmartExecutor(max_workers=2) as executor:
    ...     executor.submit(pow, 2, 5).result(), list(executor.map(abs, [-1, 2]))
    (32, [1, 2])
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = usable_cpus()
        if max_workers < 1:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child < 1:
                raise ValueError("max_tasks_per_child must be >= 1")
        make_options({"mp_context": mp_context})
        self._context = mp_context
        self._max_workers = max_workers
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._most = max_tasks_per_child
        self._lock = threading.Lock()
        self._service: Service | None = None
        self._is_shut = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a worker run ``fn(*args, **kwargs)``; return its future.

        Args:
            fn: the function.
            *args: its arguments by position.
            **kwargs: its arguments by keyword.

        Raises:
            RuntimeError: the executor was shut down, or the interpreter ends.
            BrokenProcessPool: the initializer has failed, or no worker can be started.
        """
        future: Future[R] = LightFuture()
        ticket = Task((fn, args, kwargs), future)
        with self._lock:
            if self._is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            service = self._service
            if service is not None and not service.is_own:
                raise RuntimeError(
                    "this executor belongs to the process that this one was forked from"
                )
            if _EXIT.has_begun:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if service is None or service.size < self._max_workers:
                service = self._staffed()
            if service.broken is not None:
                raise BrokenProcessPool(self._broken)
            service.put(ticket)
        return future

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Return an iterator of the results in the order of the items.

        Args:
            fn: the function.
            *iterables: one for each argument of ``fn``; the shortest ends the call.
            timeout: how long to wait for the results in all, s; None for no limit.
            chunksize: items in one task; None for one.
            buffersize: most items in flight; None reads the whole input at once.

        Raises:
            TimeoutError: a result was not there in time; raised by the iterator.
            Exception: what ``fn`` raised, when the result is requested.
        """
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        if chunksize is None or chunksize == 1:
            return self._results(fn, calls, end, buffersize)
        batches = iter(lambda: [*islice(calls, chunksize)], [])
        chunks = self._results(
            partial(_run_batch, fn), ((batch,) for batch in batches), end, buffersize
        )
        return itertools.chain.from_iterable(chunks)

    def _results(
        self,
        fn: Callable[..., Any],
        calls: Iterator[tuple[Any, ...]],
        end: float | None,
        buffersize: int | None,
    ) -> Iterator[Any]:
        # Here and not in the generator: the tasks begin before the first result is requested.
        futures = deque(self.submit(fn, *args) for args in islice(calls, buffersize))
        executor = weakref.ref(self)

        def results() -> Iterator[Any]:
            try:
                while futures:
                    value = _taken(futures, end)
                    running = executor()
                    if buffersize is not None and running is not None:
                        futures.extend(running.submit(fn, *args) for args in islice(calls, 1))
                    del running
                    yield value.pop()
            finally:
                for future in futures:
                    future.cancel()

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; the workers end when all tasks are done.

        Args:
            wait: whether to wait for that.
            cancel_futures: whether to cancel tasks that no worker has.
        """
        service = self._shut()
        if service is None or not service.is_own:
            return
        if cancel_futures:
            service.cancel_waiting()
        service.close()
        if wait:
            service.join()

    def kill_workers(self) -> None:
        """Kill the workers at once and shut down; futures that are not done get an error."""
        service = self._shut()
        if service is not None:
            service.terminate()

    def terminate_workers(self) -> None:
        """Send the workers SIGTERM and shut down; futures that are not done get an error."""
        service = self._shut()
        if service is None:
            return
        for attendant in service.members:
            if attendant.process.is_alive():
                os.kill(attendant.process.pid, signal.SIGTERM)
        service.terminate()

    def __del__(self) -> None:
        """End the workers when all tasks are done; nobody can submit more."""
        service = vars(self).get("_service")
        if service is not None and service.is_own and service.state == RUN:
            service.close()

    def _shut(self) -> Service | None:
        """Take no more tasks; return the service, None if there never was a task."""
        with self._lock:
            self._is_shut = True
            return self._service

    @property
    def _broken(self) -> str:
        """Why no task can run any more, "" while they can."""
        if self._service is None or self._service.broken is None:
            return ""
        return "A worker could not be started, or its initializer has failed: " + str(
            raised(Raised(self._service.broken))
        )

    def _staffed(self) -> Service:
        """Return the service, with one more worker if none is idle; the lock is held."""
        if self._service is None:
            method = choose_start_method(self._context)[0]
            # Those that fork start now: later, this process has threads.
            try:
                self._service = self._start(method, self._max_workers if method == "fork" else 1)
            except OSError as error:
                raise BrokenProcessPool(str(error)) from error
            _EXIT.services.add(self._service)
        elif self._service.is_busy:
            self._service.grow()
        return self._service

    def _start(self, method: str, workers: int) -> Service:
        context = None if isinstance(self._context, str) else self._context
        initializer = self._initializer and partial(_initialize, self._initializer)
        threads = Threads.shared(max(1, usable_cpus() // self._max_workers))
        setup = Setup(None, initializer, self._initargs, threads=threads)
        return Service(
            recipe_for(method, setup, context),
            workers,
            plain=False,
            most=self._most,
            retries=DEFAULTS.retries,
            name=f"amorsize-executor-{next(_numbers)}",
        )


def _taken(futures: deque[Future[Any]], end: float | None) -> list[Any]:
    """Return the result of the first future, in a list, so that nothing else refers to it."""
    future = futures.popleft()
    try:
        return [future.result(None if end is None else end - time.monotonic())]
    finally:
        future.cancel()
        del future  # a frame of an exception's traceback must not refer to it


def _run_batch(fn: Callable[..., Any], batch: list[tuple[Any, ...]]) -> list[Any]:
    """Return the results of several items."""
    return [fn(*args) for args in batch]


def _initialize(initializer: Callable[..., object], *args: Any) -> None:
    """Run the user's initializer; log what it raises, as ProcessPoolExecutor does."""
    try:
        initializer(*args)
    except BaseException:  # sys.exit() in it is logged there, too
        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        raise


class _Exit:
    """The interpreter's exit: what was submitted is still done, as in the standard library."""

    def __init__(self) -> None:
        self.has_begun = False
        self.services: weakref.WeakSet[Service] = weakref.WeakSet()

    def finish(self) -> None:
        """Let all executors end their work."""
        self.has_begun = True
        services = [one for one in self.services if one.is_own]
        for service in services:
            service.close()
        for service in services:
            service.join()


_EXIT = _Exit()
threading._register_atexit(_EXIT.finish)  # type: ignore[attr-defined] # as the standard library
