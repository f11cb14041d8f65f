"""The errors that amorsize itself raises.

::

    Exception
     +-- AmorsizeError               base of the errors below
          +-- WorkerLostError        a worker process died or got stuck
          +-- TaskTimeoutError       an item, or the whole call, took too long (a TimeoutError)
          +-- SerializationError     a value could not be sent (a pickle.PicklingError)

An exception raised by the user's own function is never wrapped in one of these; the caller gets the
exception itself. Bad arguments raise plain ``TypeError`` and ``ValueError``, as in Python's own
functions.
"""

from __future__ import annotations

from _pickle import PicklingError  # ``pickle`` takes 5 ms to load

__all__ = ["AmorsizeError", "SerializationError", "TaskTimeoutError", "WorkerLostError"]


class AmorsizeError(Exception):
    """Base of every error that amorsize itself raises.

    Catch it to tell a failure of amorsize from a failure of your function.
    """


class WorkerLostError(AmorsizeError):
    """A worker process was lost, and the call cannot run its items again.

    You get it when a worker was killed (by the kernel for lack of memory, by a signal), crashed, or
    called ``os._exit``, and ``retries`` allows no other try. You also get it when forked workers
    are stuck, and their items must not run in other workers. You do not get it for an exception in
    your function, not even ``SystemExit``: that exception itself is raised.

    Attributes:
        index: position (0-based) of the item that the worker ran, or of the first item of its
            chunk if the item is not known; None for a worker that was idle or stuck.
        exitcode: as ``multiprocessing.Process.exitcode``, negative for a signal; None if unknown.
    """

    def __init__(
        self, message: str, *, index: int | None = None, exitcode: int | None = None
    ) -> None:
        super().__init__(message)
        self.index = index
        self.exitcode = exitcode

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), {"index": self.index, "exitcode": self.exitcode})


class TaskTimeoutError(AmorsizeError, TimeoutError):
    """An item took longer than ``task_timeout``, or the call longer than ``timeout``.

    You do not get it for a ``TimeoutError`` in your own function: that exception itself is raised.

    Attributes:
        index: position (0-based) of the late item, None if the whole call ran out of time.
        seconds: the limit that was exceeded, in seconds.
    """

    def __init__(
        self, message: str, *, index: int | None = None, seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.index = index
        self.seconds = seconds

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), {"index": self.index, "seconds": self.seconds})


class SerializationError(AmorsizeError, PicklingError):
    """A function, an item or a result cannot be sent between processes.

    You get it when neither pickle nor cloudpickle can send the value, and the call must use worker
    processes (``n_jobs=2`` or ``backend="process"``). If amorsize may choose, it runs the call
    serially instead, and says so in the report. A result that a worker cannot send back raises the
    error in any case, because its item has run already.

    Attributes:
        index: position (0-based) of the item concerned, None for the function itself.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), {"index": self.index})


def _rebuild(cls: type[AmorsizeError], message: str, attributes: dict[str, object]) -> object:
    """Rebuild a pickled error; ``__reduce__`` cannot pass keyword-only arguments by itself."""
    return cls(message, **attributes)
