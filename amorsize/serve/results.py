"""What a Pool gives for work that goes on: results to wait for, and iterators."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from ..run.failure import unpack
from .orders import Raised

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["AsyncResult", "Results", "raised", "report_error"]

# How often a waiting thread looks whether it has missed the end, s.
LOOK_SECONDS = 1.0


def raised(outcome: Raised, kind: type[Exception] | None = None) -> BaseException:
    """Return the exception of an outcome, with the worker's traceback as its cause, as text.

    An exception of this process has none.

    Args:
        outcome: the outcome.
        kind: class of the cause; None for that of a Pool.
    """
    error = unpack(outcome.failure)
    if outcome.failure.traceback:
        if kind is None:
            from multiprocessing.pool import RemoteTraceback  # type: ignore[attr-defined]

            kind = RemoteTraceback
        assert kind is not None
        cause = kind(f'\n"""\n{outcome.failure.traceback}"""')
        BaseException.__dict__["__cause__"].__set__(error, cause)
    elif outcome.failure.unrun and error.__cause__ is not None:
        return error.__cause__  # what the user's own code raised as it was pickled
    return error


def report_error() -> None:
    """Report the present exception as its thread's: nobody waits for what a callback raises."""
    threading.excepthook(threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()]))


class AsyncResult:
    """The result of work that goes on, as ``multiprocessing.pool.AsyncResult``.

    Args:
        callback: called with the value.
        error_callback: called with the exception, instead.
    """

    def __init__(
        self,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._callback = callback
        self._error_callback = error_callback
        # Locked until the work is done. A signal handler may raise while a thread waits, and an
        # Event does not survive that.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._ready = False
        self._value: Any = None
        self._error: BaseException | None = None

    def ready(self) -> bool:
        """Return whether the work is done."""
        return self._ready

    def successful(self) -> bool:
        """Return whether it was done without an exception.

        Raises:
            ValueError: it is not done yet.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the work is done, or for ``timeout`` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._ready:
            left = LOOK_SECONDS if end is None else min(end - time.monotonic(), LOOK_SECONDS)
            if left <= 0:
                return
            if self._gate.acquire(timeout=left):
                self._gate.release()

    def get(self, timeout: float | None = None) -> Any:
        """Return the value when the work is done.

        Raises:
            multiprocessing.TimeoutError: it is not done within ``timeout`` seconds.
            Exception: whatever the work has raised.
        """
        self.wait(timeout)
        if not self.ready():
            from multiprocessing import TimeoutError as NotReady

            raise NotReady
        if self._error is not None:
            raise self._error
        return self._value

    def settle(self, value: Any, error: BaseException | None = None) -> None:
        """Enter what has come of the work, and call the callback for it."""
        self._value, self._error = value, error
        try:
            if error is None and self._callback is not None:
                self._callback(value)
            elif error is not None and self._error_callback is not None:
                self._error_callback(error)
        except BaseException:  # noqa: BLE001 - also sys.exit() is only the callback's
            report_error()
        finally:
            self._callback = self._error_callback = None
            self._ready = True
            self._gate.release()


class Results:
    """An iterator of results as they come, as ``imap`` and ``imap_unordered`` of a Pool give.

    Args:
        ordered: whether results come in the order of the items.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._changed = threading.Condition()
        self._ripe: deque[tuple[Any, BaseException | None]] = deque()
        self._early: dict[int, list[tuple[Any, BaseException | None]]] = {}
        self._next_start = 0
        self._end: int | None = None
        self._come = 0

    def __iter__(self) -> Iterator[Any]:
        """Return this iterator."""
        return self

    def __next__(self) -> Any:
        """Return the next result; wait for it."""
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result.

        Raises:
            StopIteration: there are no more.
            multiprocessing.TimeoutError: it has not come within ``timeout`` seconds.
            Exception: what the function raised for the item; the iterator goes on after it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ripe or self._is_over, timeout)
            if not self._ripe:
                if self._is_over:
                    raise StopIteration
                from multiprocessing import TimeoutError as NotReady

                raise NotReady
            value, error = self._ripe.popleft()
        if error is not None:
            raise error
        return value

    @property
    def _is_over(self) -> bool:
        return self._end is not None and self._come >= self._end

    def settle(self, place: int, results: list[tuple[Any, BaseException | None]]) -> None:
        """Enter the (value, exception) pairs of a chunk.

        Args:
            place: number of the chunk, from 0.
            results: the pairs.
        """
        with self._changed:
            self._come += 1
            if not self._ordered:
                self._ripe += results
            else:
                self._early[place] = results
                while self._next_start in self._early:
                    self._ripe += self._early.pop(self._next_start)
                    self._next_start += 1
            self._changed.notify_all()

    def finish(self, chunks: int) -> None:
        """Enter that there are this many chunks in all."""
        with self._changed:
            self._end = chunks
            self._changed.notify_all()
