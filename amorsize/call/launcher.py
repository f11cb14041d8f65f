"""Starts the workers of one call, or runs its items in the caller where none can be started."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import SerializationError, WorkerLostError
from ..measure.machine import ASKED, usable_cpus
from ..options import Options
from ..run.feed import Feed
from ..signals import held_signals
from .adviser import Adviser, inherits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..remote.clusters import Cluster
    from ..remote.crew import RemoteCrew
    from ..run.crew import Crew, Task
    from ..run.inline import InlineCrew
    from ..run.memory import WorkerMemory
    from ..run.setup import Call

__all__ = ["Launcher"]


class Launcher:
    """Starts the crews of one call.

    Args:
        func: the function to call.
        shipped: the function to send to workers that cannot inherit ``func``.
        feed: the items.
        options: checked options.
        adviser: gives the start method.
        must_run: whether the items must run in workers.
        shares: whether the caller runs items like a worker.
        cpu_share: CPU time of an item over its wall time, 0 when unknown.
        memory: notes the memory that workers start with.

    Attributes:
        gave_up: why no worker could be started although some were wanted, else "".
        warnings: what the caller should know.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        shipped: Callable[..., Any],
        feed: Feed,
        options: Options,
        adviser: Adviser,
        *,
        must_run: bool,
        shares: bool,
        cpu_share: float,
        memory: WorkerMemory,
    ) -> None:
        with held_signals():  # now: later, file descriptors to open them may be used up
            from ..run.inline import InlineCrew
            from ..run.start import start_crew
        self._inline_crew, self._start_crew = InlineCrew, start_crew
        self._func = func
        self._shipped = shipped
        self._feed = feed
        self._options = options
        self._adviser = adviser
        self._must_run = must_run
        self._shares = shares
        self._cpu_share = cpu_share
        self._memory = memory
        self._crew: RemoteCrew | None = None
        self.gave_up = ""
        self.warnings: list[str] = []

    def start(self, workers: int, first: Callable[[bool], Iterator[Task]] | None) -> Crew:
        """Return a crew of workers, or of the caller alone where no worker can be started.

        Args:
            workers: number of workers; 0 for the caller alone.
            first: gives the first chunks, see ``start_crew``.

        Raises:
            CannotStart: this many workers cannot be started, but fewer might.
            SerializationError: the function cannot be sent, but must run in workers.
        """
        from ..run.crew import CannotStart
        from ..run.setup import BUSY_SHARE, Setup, Threads

        method, options, call = self._adviser.method, self._options, self._call()
        if not workers:
            return self._inline(call)
        if self._adviser.cluster is not None:
            return self._remote(self._adviser.cluster, call, workers)
        share = max(1, usable_cpus() // (workers + self._shares))
        busy = self._cpu_share > BUSY_SHARE
        threads = None if method == "thread" else Threads.shared(share, busy=busy)
        self._memory.begin()
        setup = Setup(call, options.initializer, options.initargs, threads=threads)
        try:
            return self._start_crew(
                method,
                workers,
                setup,
                context=options.mp_context,
                inherits=bool(call.columns),
                sample=self._feed.sample,
                first=first,
                lenient=self._warn if self._must_run else None,
            )
        except CannotStart as error:
            if workers > 1:
                raise  # the engine tries again with fewer
            self.gave_up = f"no worker could be started ({error})"
        except SerializationError as error:
            if self._must_run:
                raise
            self.gave_up = f"the function cannot be sent to workers ({error})"
        return self._inline(call)

    def round_trip(self) -> float:
        """Return what a chunk takes beside its items on another engine, s; 0 while not known."""
        return 0.0 if self._crew is None else self._crew.round_trip

    def _remote(self, cluster: Cluster, call: Call, workers: int) -> RemoteCrew:
        """Return a crew on another engine."""
        from ..remote.crew import RemoteCrew
        from ..run.setup import Setup

        options = self._options
        setup = Setup(call, options.initializer, options.initargs)
        lenient = self._warn if self._must_run else None
        limit = workers if (options.n_jobs or 0) > 0 else None
        self._crew = RemoteCrew(
            cluster, setup, sample=self._feed.sample, lenient=lenient, limit=limit
        )
        return self._crew

    def leave_fork(self) -> None:
        """Stop forking workers, because forked workers got stuck.

        Raises:
            WorkerLostError: fork was asked for.
        """
        from ..run.losses import explain_stuck

        adviser = self._adviser
        if adviser.method != "fork":
            return
        if adviser.method_reason == ASKED:
            raise WorkerLostError(explain_stuck())
        adviser.leave_fork()
        self._warn(f"{adviser.method_reason}: they were ended")

    def _call(self) -> Call:
        """Return what workers of the adviser's present start method are to run."""
        from ..run.setup import Call

        feed, inherited = self._feed, inherits(self._adviser.method)
        return Call(
            func=self._func if inherited else self._shipped,
            star=feed.star,
            columns=feed.columns if inherited and feed.sliceable else (),
            return_exceptions=self._options.return_exceptions,
            seed=self._options.seed,
        )

    def _inline(self, call: Call) -> InlineCrew:
        """Return a crew of the caller alone, which has the function itself and the input."""
        from ..run.setup import Setup

        options = self._options
        call = call._replace(func=self._func, columns=self._feed.columns)
        return self._inline_crew(Setup(call, options.initializer, options.initargs))

    def _warn(self, text: str) -> None:
        """Put a warning into the report, once, however many crews are started."""
        if text not in self.warnings:
            self.warnings.append(text)
