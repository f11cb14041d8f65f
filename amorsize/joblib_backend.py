"""The backend for joblib: its tasks run in the workers of a service, as a SmartExecutor's do.

``register_joblib`` makes it known to joblib. It needs joblib, an extra.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from .call.adviser import count_workers
from .executor import Task
from .measure.forking import IDLE_THREAD
from .measure.machine import choose_start_method, usable_cpus
from .nesting import inside_worker
from .options import DEFAULTS, make_options
from .run.kept import Surroundings
from .run.setup import Setup, Threads
from .run.start import recipe_for
from .serve.batches import Batches
from .serve.service import RUN, Service

__all__ = ["AmorsizeBackend"]

_numbers = itertools.count()

# Fresh workers that are idle are kept so long, as those of a call of smart_map are.
IDLE_SECONDS = 60.0
# How long to wait for the timer's thread, which has nothing to do.
JOIN_SECONDS = 1.0


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
        self._batches: Batches | None = None
        self._has_users = False
        self._condition: tuple[Any, ...] = ()

    def effective_n_jobs(self, n_jobs: int | None) -> Any:
        """Return how many workers ``n_jobs`` asks for here; 1 inside of a worker.

        Raises:
            ValueError: it is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        jobs = count_workers(-1 if n_jobs is None else n_jobs)
        return 1 if jobs is None or inside_worker() else jobs

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: Any = None,
        require: Any = None,
        **ignored: Any,
    ) -> Any:
        """Prepare for a ``Parallel``; its workers start with its first task.

        Args:
            n_jobs: number of workers, as joblib counts.
            parallel: the ``Parallel``.
            prefer: not used: joblib has chosen this backend.
            require: not used either.
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
            self._service, self._condition = self._staffed(func)
        batches = self._batches
        if batches is None:
            batches = self._batches = Batches()
        batches.note(func)
        future: Future[Any] = Future()
        if callback is not None:
            future.add_done_callback(callback)
        task = Task((func, (), {}), future)
        task.pack = batches.pack
        self._service.put(task)
        return future

    def start_call(self) -> None:
        """Begin another call of the same ``Parallel``.

        What workers have of the user's modules is of the time when they began. So where they have
        run code of the user's, others take their place.
        """
        if self._has_users:
            self.terminate()

    def stop_call(self) -> None:
        """Let go of what the tasks of a call had in common: another call may have changed it."""
        batches, self._batches = self._batches, None
        if batches is not None:
            self._has_users = self._has_users or batches.has_users
            batches.close()

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch, or raise what a task has raised."""
        return out.result()

    def terminate(self) -> None:
        """Let go of the workers, which are idle."""
        service, users = self._let_go()
        if service is not None and self._condition and not users:
            _SHELF.put(service, self._condition)
        elif service is not None:
            service.close()
            service.join()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the workers at once; new ones start with the next task."""
        del ensure_ready
        service, _ = self._let_go()
        if service is not None:
            service.terminate()

    def _let_go(self) -> tuple[Service | None, bool]:
        """Forget the workers; return them, and whether they have run code of the user's."""
        self.stop_call()
        service, self._service = self._service, None
        users, self._has_users = self._has_users, False
        return service, users

    def _staffed(self, func: Callable[[], Any]) -> tuple[Service, tuple[Any, ...]]:
        """Return workers, and the condition for them to serve later calls; empty if they cannot.

        Args:
            func: the first batch of tasks.
        """
        method = choose_start_method(self._context)[0]
        share = self.inner_max_num_threads or max(1, usable_cpus() // self._jobs)
        setup = Setup(None, None, (), threads=Threads.shared(share))
        context = None if isinstance(self._context, str) else self._context
        recipe = recipe_for(method, setup, context, sample=func)
        condition: tuple[Any, ...] = ()
        if recipe.condition:
            condition = (method, type(context), self._jobs, share, recipe.condition)
            service = _SHELF.take(condition)
            if service is not None:
                return service, condition
        service = Service(
            recipe,
            self._jobs,
            plain=False,
            most=None,
            retries=DEFAULTS.retries,
            name=f"amorsize-joblib-{next(_numbers)}",
        )
        return service, condition


_Shelved: TypeAlias = tuple[Service, tuple[Any, ...], Surroundings, threading.Timer]


class _Shelf:
    """Keeps the workers of one call for the next one that needs the same.

    They are fresh workers, which start in 50 ms, and have run code of installed libraries only.
    They end after a while, and before this process is forked: a fork beside threads is not safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: _Shelved | None = None

    def put(self, service: Service, condition: tuple[Any, ...]) -> None:
        """Keep the workers of a service, which are idle.

        Args:
            service: the service.
            condition: what another call must equal to have them.
        """
        timer = threading.Timer(IDLE_SECONDS, self.end)
        timer.name, timer.daemon = f"{IDLE_THREAD}-joblib", True
        timer.start()
        before = self._swapped((service, condition, Surroundings(), timer))
        if before is not None:
            before[0].terminate()

    def take(self, condition: tuple[Any, ...]) -> Service | None:
        """Return the service that is kept, if it fits; None if none does."""
        kept = self._swapped(None)
        if kept is None:
            return None
        service, its_condition, surroundings, _ = kept
        well = service.state == RUN and service.broken is None
        if well and its_condition == condition and surroundings.still_hold(Surroundings()):
            return service
        service.terminate()
        return None

    def end(self) -> None:
        """End the workers that are kept."""
        kept = self._swapped(None)
        if kept is not None:
            kept[0].terminate()

    def _swapped(self, new: _Shelved | None) -> _Shelved | None:
        """Keep something else, or nothing; return what was kept, whose timer has ended."""
        with self._lock:
            before, self._kept = self._kept, new
        if before is not None:
            before[3].cancel()
            if before[3] is not threading.current_thread():
                before[3].join(JOIN_SECONDS)
        return before

    def forget(self) -> None:
        """Forget the parent's workers in a forked child."""
        self._lock, self._kept = threading.Lock(), None


_SHELF = _Shelf()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_SHELF.end, after_in_child=_SHELF.forget)
