"""A crew of threads, for ``backend="thread"``: nothing is sent, nothing is copied."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from ..nesting import enter_worker_thread
from .counted import begin_at
from .crew import CannotStart, Lost, Running, Task
from .failure import Failure, keep
from .reply import Reply
from .setup import Setup
from .surroundings import put_in_thread, take_of_thread, take_own
from .worker import run_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ThreadCrew", "take_all"]

# A thread cannot be ended. Most threads finish their item soon; the caller waits for the others no
# longer than this.
PARTING_SECONDS = 0.1


class ThreadCrew:
    """Worker threads for one call.

    They are daemon threads: neither Ctrl-C nor the interpreter's exit must wait for a running item.

    Args:
        workers: how many.
        setup: what they run, and the initializer that each runs first.
    """

    reused = False
    claims = True
    has_first = False
    shipped_bytes = 0
    nodes: dict[int, str] = {}  # noqa: RUF012 - never written to

    def __init__(self, workers: int, setup: Setup) -> None:
        self.workers = workers
        self.inherited = bool(setup.call.columns)
        self.peaks: dict[int, int] = {}
        self.started_at = time.monotonic()
        self.end_seconds = 0.0
        self.ready_at: float | None = None
        self._call = setup.call
        self._setup = setup
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._replies: SimpleQueue[tuple[int, Reply]] = SimpleQueue()
        self._stopped = False
        own, users = take_of_thread(), take_own()
        self._threads = [
            # Each runs in a copy of the caller's context, as in asyncio.to_thread.
            threading.Thread(
                target=contextvars.copy_context().run,
                args=(self._work, partial(put_in_thread, own, users)),
                name=f"amorsize-{number}",
                daemon=True,
            )
            for number in range(workers)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:  # can't start new thread
            self._threads = [thread for thread in self._threads if thread.ident is not None]
            self.close()
            raise CannotStart(str(error)) from error
        self.start_seconds = time.monotonic() - self.started_at
        self.ready_at = time.monotonic()

    @property
    def ready(self) -> int:
        """Number of workers that have been set up."""
        return self.workers

    def submit(self, task: Task) -> int:
        """Hand out a task; nothing is sent."""
        self._tasks.put(task)
        return 0

    def take_back(self) -> int | None:
        """Withdraw a chunk that no thread has taken; return its number, None if there is none."""
        with suppress(Empty):
            task = self._tasks.get_nowait()
            return None if task is None else task.chunk
        return None

    def has_tasks(self) -> bool:
        """Return whether any task waits that no thread has taken."""
        return not self._tasks.empty()

    def has_news(self) -> bool:
        """Return whether there is a reply."""
        return not self._replies.empty()

    def dismiss(self) -> bool:
        """Do nothing, and return False: only processes take time to end."""
        return False

    def replies(self, timeout: float) -> list[tuple[int, Reply]]:
        """Wait up to ``timeout`` seconds for replies; return (chunk, reply) of all that came."""
        return take_all(self._replies, timeout)

    def running(self) -> dict[int, Running]:
        """Return nothing: a thread cannot be ended because of a late item."""
        return {}

    def lost(self) -> Lost | None:
        """Return None: a thread does not die without its process."""
        return None

    def close(self) -> None:
        """End the workers, all of which are idle, and wait for them."""
        begun = time.monotonic()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self.end_seconds = time.monotonic() - begun

    def abandon(self) -> list[tuple[int, Reply]]:
        """Let each worker end after its present item; wait for short items only."""
        self._stopped = True
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + PARTING_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return []

    def sweep(self) -> None:
        """Do nothing: the garbage collector frees replies that were not fetched."""

    def _work(self, surround: Callable[[], None]) -> None:
        enter_worker_thread()
        call = self._call
        broken: Failure | None = None
        func = self._stoppable(call.func)
        func = call.runner(func)
        try:
            surround()
            self._setup.prepare()
        except BaseException as error:  # noqa: BLE001 - told with the first chunk
            broken = keep(error, None)
        while (task := self._tasks.get()) is not None and not self._stopped:
            self._replies.put((task.chunk, self._run(func, task, broken)))

    def _run(self, func: Callable[..., Any], task: Task, broken: Failure | None) -> Reply:
        begun, me = time.monotonic(), threading.get_ident()
        if broken is not None:
            return Reply([], 0, broken, me, begun, 0.0, 0.0)
        end = task.start + task.size
        pieces: Sequence[Any] = task.columns or [c[task.start : end] for c in self._call.columns]
        out: list[Any] = []
        begin_at(func, task.start)
        failure, seconds, cpu = run_columns(
            func,
            tuple(pieces),
            self._call.star,
            task.start,
            out,
            clock=time.thread_time,
            queue=lambda: 0.0,
            wrap=keep,
        )
        return Reply(out, len(out), failure, me, begun, seconds, cpu)

    def _stoppable(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``func``, wrapped to end its chunk early once the crew is abandoned."""

        def call(*args: Any) -> Any:
            if self._stopped:
                raise SystemExit
            return func(*args)

        return call


def take_all(queue: SimpleQueue[Any], timeout: float) -> list[Any]:
    """Wait up to ``timeout`` seconds for something in a queue; return all that is in it."""
    found = []
    with suppress(Empty):
        if timeout > 0:
            # At least a millisecond: a first get() that wakes up just after its timeout takes the
            # negative remaining time as "wait forever" (seen with the SimpleQueue of 3.11).
            found.append(queue.get(timeout=max(timeout, 0.001)))
        while True:
            found.append(queue.get_nowait())
    return found
