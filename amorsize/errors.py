"""The errors of amorsize, and no others.

::

    Exception
     +-- AmorsizeError               anything the library itself has to report
          +-- WorkerLostError        a worker process died while it held an item
          +-- TaskTimeoutError       an item, or the whole call, took too long (a TimeoutError)
          +-- SerializationError     a value could not travel (a pickle.PicklingError)

An exception raised by the user's own function is never wrapped in one of these: it arrives as
itself. Bad arguments raise plain ``TypeError`` and ``ValueError``, as Python's own functions do.
"""

from __future__ import annotations

from pickle import PicklingError

__all__ = ["AmorsizeError", "SerializationError", "TaskTimeoutError", "WorkerLostError"]


class AmorsizeError(Exception):
    """Base of every error that amorsize itself raises.

    Catch it to tell "the machinery failed" from "my function failed".
    """


class WorkerLostError(AmorsizeError):
    """A worker process ended while it held items of the call.

    You get it when a worker was killed (by the kernel for memory, by a signal), crashed, or left
    through ``os._exit``, as often as ``retries`` allows items to be tried again. You do not get it
    for an exception in your function, not even ``SystemExit``: that one arrives as itself.

    Attributes:
        index: position (0-based) of the first item that was not finished, None when no item had
            been started.
        exitcode: what ``multiprocessing.Process.exitcode`` said, negative for a signal, None when
            unknown.
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

    You do not get it for a ``TimeoutError`` of your own function: that one arrives as itself.

    Attributes:
        index: position (0-based) of the late item, None when the whole call ran out of time.
        seconds: the limit that was passed, in seconds.
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

    You get it when neither pickle nor cloudpickle can carry the value and the call had to use
    worker processes (``n_jobs=2`` or ``backend="process"``). When amorsize was free to choose, it
    runs the call serially instead and says so in the report.

    Attributes:
        index: position (0-based) of the item concerned, None for the function itself.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), {"index": self.index})


def _rebuild(cls: type[AmorsizeError], message: str, attributes: dict[str, object]) -> object:
    """Unpickle one of the errors above; keyword-only arguments need their names."""
    return cls(message, **attributes)
