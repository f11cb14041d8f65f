"""A crew without workers: chunks run in the calling process when no worker can run them."""

from __future__ import annotations

import os
import time

from .counted import begin_at
from .failure import keep
from .reply import Reply
from .setup import Setup
from .worker import run_columns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .crew import Lost, Running, Task

__all__ = ["InlineCrew"]


class InlineCrew:
    """Runs each chunk as it is handed out.

    Args:
        setup: what to run, and the initializer to run first.

    Raises:
        Exception: whatever the user's initializer raises.
    """

    reused = False
    claims = False
    has_first = False
    shipped_bytes = 0
    nodes: dict[int, str] = {}  # noqa: RUF012 - never written to

    def __init__(self, setup: Setup) -> None:
        self.workers = self.ready = 1
        self.peaks: dict[int, int] = {}
        self.started_at = time.monotonic()
        setup.prepare()
        call = setup.call
        self.start_seconds = self.end_seconds = 0.0
        self.ready_at: float | None = self.started_at
        self.inherited = bool(call.columns)
        self._call = call
        self._func = call.runner()
        self._done: list[tuple[int, Reply]] = []

    def submit(self, task: Task) -> int:
        """Run a task; nothing is sent.

        Raises:
            KeyboardInterrupt: the caller was interrupted.
        """
        begun, end = time.monotonic(), task.start + task.size
        pieces = task.columns or tuple(c[task.start : end] for c in self._call.columns)
        out: list[Any] = []
        begin_at(self._func, task.start)
        failure, seconds, cpu = run_columns(
            self._func, pieces, self._call.star, task.start, out, wrap=keep
        )
        if failure is not None and isinstance(failure.carried, KeyboardInterrupt):
            raise failure.carried
        reply = Reply(out, len(out), failure, os.getpid(), begun, seconds, cpu)
        self._done.append((task.chunk, reply))
        return 0

    def take_back(self) -> int | None:
        """Return None: a task is over when ``submit`` returns."""
        return None

    def has_tasks(self) -> bool:
        """Return False: a task is over when ``submit`` returns."""
        return False

    def has_news(self) -> bool:
        """Return whether any reply was not fetched."""
        return bool(self._done)

    def dismiss(self) -> bool:
        """Do nothing, and return False: only processes take time to end."""
        return False

    def replies(self, timeout: float) -> list[tuple[int, Reply]]:
        """Return (chunk, reply) of all chunks that ran; do not wait."""
        done, self._done = self._done, []
        return done

    def running(self) -> dict[int, Running]:
        """Return nothing: a task is over when ``submit`` returns."""
        return {}

    def lost(self) -> Lost | None:
        """Return None: the caller is alive."""
        return None

    def close(self) -> None:
        """Do nothing: nothing was started."""

    def abandon(self) -> list[tuple[int, Reply]]:
        """Return the replies that were not fetched."""
        return self.replies(0)

    def sweep(self) -> None:
        """Do nothing: there are no shared segments."""
