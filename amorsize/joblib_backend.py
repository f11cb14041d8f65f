"""The backend for joblib: its tasks run in the workers of a service, as a SmartExecutor's do.

``register_joblib`` makes it known to joblib. It needs joblib, an extra.
"""

from __future__ import annotations

import copy
import itertools
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from .call.adviser import count_workers
from .executor import Task
from .measure.machine import choose_start_method, usable_cpus
from .nesting import inside_worker
from .options import DEFAULTS, make_options
from .run.setup import Setup, Threads
from .run.start import recipe_for
from .run.transport import Parcel, pack_common, unpack
from .serve.service import Service

__all__ = ["AmorsizeBackend"]

_numbers = itertools.count()

# An argument that several tasks have in common, and that holds arrays of so many bytes, is written
# to memory once. joblib maps arrays from the same size on.
COMMON_BYTES = 1 << 20


class AmorsizeBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's tasks in worker processes that live for one ``Parallel`` call.

    Where ``n_jobs`` is not given, all usable CPUs are used. Forked workers have the caller's
    present state. An argument that several tasks share is sent once; each task has a copy of its
    own, which takes memory only where the task writes to it.

    Args:
        mp_context: a multiprocessing context, or the name of a start method, as everywhere.
        nesting_level: given by joblib.
        inner_max_num_threads: threads of numerical libraries in each worker.

    Raises:
        TypeError, ValueError: a bad ``mp_context``.
    """

    default_n_jobs = -1
    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    # An order takes 20 us, joblib's own books 100 us: batches this long are as quick as any.
    MIN_IDEAL_BATCH_DURATION = 0.02
    MAX_IDEAL_BATCH_DURATION = 0.2

    def __init__(
        self,
        mp_context: Any = None,
        *,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
    ) -> None:
        make_options({"mp_context": mp_context})
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._context = mp_context
        self._jobs = 1
        self._service: Service | None = None
        self._commons: _Commons | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many workers ``n_jobs`` asks for here; 1 inside of a worker.

        Raises:
            ValueError: it is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        jobs = count_workers(-1 if n_jobs is None else n_jobs)
        return 1 if jobs is None or inside_worker() else jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **ignored: Any) -> int:
        """Prepare for a ``Parallel``; its workers start with its first task.

        Args:
            n_jobs: number of workers, as joblib counts.
            parallel: the ``Parallel``.
            **ignored: settings of how joblib's own backends send arrays.
        """
        jobs = self.effective_n_jobs(n_jobs)
        if jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._jobs = jobs
        return jobs

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Future[Any]], object] | None = None
    ) -> Future[Any]:
        """Have a worker run a batch of tasks; return its future."""
        if self._service is None:
            self._service = self._started(func)
            self._commons = _Commons(self._service.prefix)
        assert self._commons is not None
        future: Future[Any] = Future()
        if callback is not None:
            future.add_done_callback(callback)
        self._service.put(Task(self._commons.order(func), future))
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch, or raise what a task has raised."""
        return out.result()

    def terminate(self) -> None:
        """End the workers, which are idle."""
        service, self._service, self._commons = self._service, None, None
        if service is not None:
            service.close()
            service.join()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the workers at once; new ones start with the next task."""
        del ensure_ready
        service, self._service, self._commons = self._service, None, None
        if service is not None:
            service.terminate()

    def _started(self, func: Callable[[], Any]) -> Service:
        method = choose_start_method(self._context)[0]
        share = self.inner_max_num_threads or max(1, usable_cpus() // self._jobs)
        setup = Setup(None, None, (), threads=Threads.shared(share))
        context = None if isinstance(self._context, str) else self._context
        return Service(
            recipe_for(method, setup, context, sample=func),
            self._jobs,
            plain=False,
            most=None,
            retries=DEFAULTS.retries,
            name=f"amorsize-joblib-{next(_numbers)}",
        )


class _Commons:
    """The arguments that several tasks of a ``Parallel`` have in common.

    Args:
        prefix: path prefix of shared segments, "" for none.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        # By id: what was met, weakly, as most arguments belong to one task only.
        self._met: dict[int, weakref.ref[Any]] = {}
        # By id: what was met again, and how to send it; None for as any other value.
        self._again: dict[int, tuple[Any, _Common | None]] = {}

    def order(self, batch: Any) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """Return the order for a batch of joblib's."""
        if not (self._prefix and hasattr(batch, "items")):
            return batch, (), {}
        calls = [
            (func, tuple(map(self._found, args)), {k: self._found(v) for k, v in kwargs.items()})
            for func, args, kwargs in batch.items
        ]
        bare = copy.copy(batch)
        bare.items = []
        return _run, (bare, calls), {}

    def _found(self, value: Any) -> Any:
        """Return what to send for an argument."""
        key = id(value)
        if key in self._again:
            return self._again[key][1] or value
        try:
            if key not in self._met or self._met[key]() is not value:
                forget = self._met.pop
                self._met[key] = weakref.ref(value, lambda _: forget(key, None))
                return value
        except TypeError:  # a number or a list: nothing that holds arrays alone
            return value
        common = _common(value, self._prefix)
        self._again[key] = value, common
        return common or value


class _Common:
    """An argument that is in a shared segment; it is pickled as its parcel.

    Args:
        parcel: the argument.
    """

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self._parcel,)


def _common(value: Any, prefix: str) -> _Common | None:
    """Return an argument in a shared segment, if that pays."""
    parcel = pack_common(value, prefix)
    if parcel is None or not parcel.segment or sum(parcel.sizes[:-1]) < COMMON_BYTES:
        return None
    return _Common(parcel)


def _opened(parcel: Parcel) -> Any:
    return unpack(parcel, common=True)


def _run(batch: Any, calls: list[tuple[Any, ...]]) -> Any:
    """Run a batch, in a worker."""
    batch.items = calls
    return batch()
