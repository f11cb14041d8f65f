"""``Pool``: in the place of ``multiprocessing.Pool``; it plans chunks and outlives its workers."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterable

from .call.recall import AS_EXPECTED, Recall
from .decide.course import course_of
from .identity.fingerprint import walk_seconds
from .measure.machine import choose_start_method, this_machine, usable_cpus
from .measure.probe import profile_of
from .options import DEFAULTS, make_options
from .run.feed import SLICEABLE
from .run.setup import Setup, Threads
from .run.start import recipe_for
from .serve.attendant import Member
from .serve.jobs import Inputs, MapJob, Single, StreamJob
from .serve.orders import Sendable
from .serve.paces import Paces
from .serve.results import AsyncResult, Results
from .serve.service import CLOSE, RUN, TERMINATE, Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from types import TracebackType
    from typing import Any, Self


__all__ = ["Pool"]

_numbers = itertools.count()

# The record of a function is looked up before its items run if its fingerprint is known to take no
# longer than this, s, and after PATIENT_SECONDS if no longer than MOST_WALK_SECONDS.
LITTLE_WALK_SECONDS = 0.0001
MOST_WALK_SECONDS = 0.001
PATIENT_SECONDS = 0.02
# Work of at least this long, s, is recorded, if an item took another time than recorded.
WORTH_RECORDING_SECONDS = 0.05


class Pool:
    """Worker processes that run what they are given until the pool is closed.

    It has the methods of ``multiprocessing.Pool``, with the same results and exceptions. Where no
    ``chunksize`` is given, it plans chunks with what is remembered of the function. What a worker
    ran that has died runs again, once, and raises ``WorkerLostError`` if that worker dies, too.
    Functions, arguments and initializers need not be such as pickle can serialize. docs/moving.md
    has all differences.

    Args:
        processes: number of workers; None for the number of usable CPUs.
        initializer: called in each worker with ``initargs`` as it starts.
        initargs: arguments of ``initializer``.
        maxtasksperchild: number of tasks (chunks) after which a worker is replaced; None for no
            limit.
        context: a multiprocessing context, or the name of a start method. None chooses as
            ``mp_context=None`` does everywhere.

    Raises:
        ValueError: a number out of range.
        TypeError: ``initializer`` cannot be called.
        OSError: no worker can be started.

    >>> with Pool(2) as pool:
    ...     pool.map(abs, [-1, 2, -3]), pool.apply(pow, (2, 5))
    ([1, 2, 3], 32)
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: BaseContext | str | None = None,
    ) -> None:
        self._state = TERMINATE  # until it runs
        processes = usable_cpus() if processes is None else processes
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild < 1
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        make_options({"mp_context": context})
        self._ctx = None if isinstance(context, str) else context
        self._processes = processes
        self._method = choose_start_method(context)[0]
        self._paces = Paces()
        threads = Threads.shared(max(1, usable_cpus() // processes))
        setup = Setup(None, initializer, tuple(initargs), threads=threads)
        self._service = Service(
            recipe_for(self._method, setup, self._ctx),
            processes,
            plain=True,
            most=maxtasksperchild,
            retries=DEFAULTS.retries,
            name=f"amorsize-pool-{next(_numbers)}",
        )
        self._state = RUN

    # One call -------------------------------------------------------------------------------

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None
    ) -> Any:
        """Return ``func(*args, **kwds)``, run in a worker.

        Raises:
            Exception: whatever ``func`` raises.
            WorkerLostError: two workers died while they ran it.
        """
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Have a worker run ``func(*args, **kwds)``; return a result to wait for.

        Args:
            func: the function.
            args: its arguments by position.
            kwds: its arguments by keyword.
            callback: called with the value, in a thread of the pool.
            error_callback: called with the exception, instead.
        """
        self._check_running()
        result = AsyncResult(callback, error_callback)
        self._service.put(Single((func, tuple(args), dict(kwds or {})), result))
        return result

    # Many calls -----------------------------------------------------------------------------

    def map(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """Return ``list(map(func, iterable))``, run in workers.

        Args:
            func: the function.
            iterable: the items.
            chunksize: items in one chunk; None to plan it.

        Raises:
            Exception: what ``func`` raised for the earliest failing item, once all other chunks are
                done.
            WorkerLostError: two workers died with the same chunk.
        """
        return self._map(func, iterable, chunksize, star=False)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """Return ``list(itertools.starmap(func, iterable))``, run in workers; see ``map``."""
        return self._map(func, iterable, chunksize, star=True)

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Begin a ``map``; return its result to wait for. See ``apply_async`` for the callbacks."""
        result = AsyncResult(callback, error_callback)
        self._service.put(self._job(func, iterable, chunksize, result, star=False))
        return result

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Begin a ``starmap``; see ``map_async``."""
        result = AsyncResult(callback, error_callback)
        self._service.put(self._job(func, iterable, chunksize, result, star=True))
        return result

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> Results:
        """Return an iterator of the results in order; its ``next(timeout)`` waits no longer.

        Args:
            func: the function.
            iterable: the items, which are read whether results are taken or not.
            chunksize: items in one chunk, whose first exception stands for all its results; None to
                plan it, with a result or an exception for each item.
        """
        return self._imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> Results:
        """Return an iterator of the results as they come; see ``imap``."""
        return self._imap(func, iterable, chunksize, ordered=False)

    # The end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more work; the workers end when all is done."""
        if self._state == RUN:
            self._state = CLOSE
            self._service.close()

    def terminate(self) -> None:
        """End the workers at once; what is not done fails."""
        self._state = TERMINATE
        self._service.terminate()

    def join(self) -> None:
        """Wait for the workers to end.

        Raises:
            ValueError: neither ``close`` nor ``terminate`` was called.
        """
        if self._state == RUN:
            raise ValueError("Pool is still running")
        self._service.join()

    def __enter__(self) -> Self:
        """Return the pool.

        Raises:
            ValueError: it does not run any more.
        """
        self._check_running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Terminate the pool, as ``multiprocessing.Pool`` does."""
        self.terminate()

    def __del__(self) -> None:
        """Warn of a pool that was neither closed nor terminated, and terminate it."""
        if self._state == RUN and self._service.is_own:
            text = f"unclosed running multiprocessing pool {self!r}"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
            self._service.terminate()

    def __reduce__(self) -> str:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} state={self._state} pool_size={self._processes}>"

    # Inside ---------------------------------------------------------------------------------

    @property
    def _pool(self) -> list[Member]:
        """The present workers; programs read their ``pid``."""
        return [Member(attendant) for attendant in self._service.members]

    def _repopulate_pool(self) -> None:
        """Do nothing: workers that have ended are replaced at once."""

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")
        if not self._service.is_own:
            raise ValueError("this pool belongs to the process that this one was forked from")

    def _map(
        self,
        func: Callable[..., Any],
        items: Iterable[Any],
        chunksize: int | None,
        *,
        star: bool,
    ) -> list[Any]:
        result = AsyncResult()
        job = self._job(func, items, chunksize, result, star=star)
        if chunksize is None and job.size > self._processes:
            return _planned(job, func, result, self._service, self._paces, self._method)
        self._service.put(job)
        values: list[Any] = result.get()
        return values

    def _job(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        result: AsyncResult,
        *,
        star: bool,
    ) -> MapJob:
        self._check_running()
        _check_chunksize(chunksize)
        items = iterable if type(iterable) in SLICEABLE else list(iterable)
        return MapJob(
            _sendable(func, self._service),
            items,
            star=star,
            chunksize=chunksize,
            workers=self._processes,
            result=result,
        )

    def _imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        *,
        ordered: bool,
    ) -> Results:
        self._check_running()
        _check_chunksize(chunksize)
        results = Results(ordered=ordered)
        job = StreamJob(
            _sendable(func, self._service),
            Inputs(iterable, self._service.rouse),
            chunksize=chunksize,
            workers=self._processes,
            results=results,
        )
        self._service.put(job)
        return results


def _planned(
    job: MapJob,
    func: Callable[..., Any],
    result: AsyncResult,
    service: Service,
    paces: Paces,
    method: str,
) -> list[Any]:
    """Run a job whose chunks are planned; return the results.

    What an item takes is known from an earlier job of the pool. If it is not, the record of the
    function is looked up: before the items run, if that takes less than a message to a worker, and
    meanwhile if they take long.

    Args:
        job: the job.
        func: its function.
        result: its result.
        service: runs it.
        paces: what items took in this pool.
        method: start method of the workers.
    """
    begun = time.perf_counter()
    course, recall = paces.of(func), None
    known = None if course is None else course.seconds / course.items
    if known is None:
        recall = _recall(func, job.size, method)
        if 0 < walk_seconds(func) <= LITTLE_WALK_SECONDS:
            recall.look_up(only_memory=True)
            known = _item_seconds(recall)
    job.expect(known, course)
    service.put(job)
    if known is None and recall is not None:
        result.wait(PATIENT_SECONDS)
        if not result.ready() and walk_seconds(func) <= MOST_WALK_SECONDS:
            recall.look_up()
            job.expect(_item_seconds(recall))
    values: list[Any] = result.get()
    seconds = time.perf_counter() - begun
    if job.tally.items:
        paces.note(func, course_of(job.pieces))
        # Where no CPU time is known, a record would tell waiting from computing wrongly.
        if seconds > WORTH_RECORDING_SECONDS and job.tally.known_seconds:
            recall = recall or _recall(func, job.size, method)
            _record(job, recall, known, seconds, service.size)
    return values


def _recall(func: Callable[..., Any], items: int, method: str) -> Recall:
    return Recall(func, items, this_machine(), method, use_cache=True)


def _item_seconds(recall: Recall) -> float | None:
    """Return the recorded time of an item, s; None if there is no record."""
    return None if recall.profile is None else recall.profile.item_seconds


def _record(job: MapJob, recall: Recall, known: float | None, seconds: float, workers: int) -> None:
    """Record what the items of a job have taken, unless that is known."""
    each = job.tally.seconds / job.tally.items
    if known is not None and abs(each - known) < AS_EXPECTED * known:
        return
    recall.remember(
        profile_of(job.tally, each),
        executor="process",
        n_jobs=workers,
        chunksize=0,
        run_seconds=seconds,
        by_pickle=True,
        items=job.size,
    )


def _sendable(func: Callable[..., Any], service: Service) -> Sendable:
    if not callable(func):
        raise TypeError(f"func must be callable, but {func!r:.80} was given")
    return Sendable(func, service.prefix)


def _check_chunksize(chunksize: int | None) -> None:
    if chunksize is not None and chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize}")
