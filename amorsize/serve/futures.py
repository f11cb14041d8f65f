"""Futures that make their condition only when somebody waits for them.

A future of ``concurrent.futures`` makes a condition at once: 2.5 us, and eight objects for the
garbage collector to look at. Of many thousands of small tasks, most are done before anybody asks.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from concurrent.futures._base import FINISHED, PENDING, RUNNING
from typing import Any, TypeVar

__all__ = ["LightFuture"]

R = TypeVar("R")

# Held while a future gets its condition, and while one that has none changes its state. So whoever
# has a condition sees a state that does not change without the condition any more. Nothing is
# made meanwhile, which could start the garbage collector and with it code that uses futures. A
# signal handler may interrupt a thread that holds it, as with the conditions of other futures.
_making = threading.RLock()


def _renew() -> None:
    global _making  # noqa: PLW0603 - in a forked child, a thread that is not there may hold it
    _making = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


class LightFuture(Future[R]):
    """A future as ``concurrent.futures`` has it, with the same methods."""

    def __init__(self) -> None:
        self._made: threading.Condition | None = None
        self._state = PENDING
        self._result = self._exception = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        """The condition, which the methods of the base class and ``wait`` acquire."""
        made = self._made
        if made is None:
            new = threading.Condition()
            with _making:
                made = self._made
                if made is None:
                    self._made = made = new
        return made

    def set_running_or_notify_cancel(self) -> bool:
        """Note that the call begins; return False if it was cancelled."""
        with _making:
            if self._made is None and self._state == PENDING:
                self._state = RUNNING
                return True
        return super().set_running_or_notify_cancel()

    def set_result(self, result: R) -> None:
        """Set the result."""
        with _making:
            is_alone = self._made is None and self._state == RUNNING
            if is_alone:
                self._result = result
                self._state = FINISHED
        if not is_alone:  # only with a condition can there be callbacks, or anybody who waits
            super().set_result(result)

    def result(self, timeout: float | None = None) -> R:
        """Return the result, as soon as there is one."""
        if self._state == FINISHED and self._exception is None:
            result: R = self._result  # type: ignore[assignment]
            return result
        return super().result(timeout)

    def done(self) -> bool:
        """Return whether the call has ended, or was cancelled."""
        return self._state == FINISHED or super().done()
