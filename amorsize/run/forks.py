"""Fork worker processes without multiprocessing, which takes some 15 ms to load.

A worker is then what a worker of a Pool is: its standard input is closed, ``current_process`` says
that it is a daemonic child as soon as multiprocessing is loaded, log records have its name, and at
its end the same finalizers run. If other code has replaced how multiprocessing starts processes
(coverage.py does), ``launch`` starts the workers instead.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import atexit
import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from ..lookup import loaded
from ..nesting import enter_worker_process
from ..versions import CLEARS_ATEXIT
from .afterload import after_load
from .descriptors import ensure_descriptors, readable, watch_end
from .ending import flush_streams, run_finalizers
from .interpreters import ensure_main_interpreter
from .unwarned import fork_unwarned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ForkStarts", "ForkedWorker"]

_numbers = itertools.count(1)


class ForkedWorker:
    """A worker process that was forked here; it has the attributes of ``launch.Worker``.

    Args:
        pid: its process id.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exitcode: int | None = None
        self._has_ended = False
        self._ended = watch_end(pid)

    @property
    def reports(self) -> bool:
        """Whether the system reports the worker's death, even if other code takes the exit code."""
        return self._ended >= 0

    @property
    def sentinel(self) -> int:
        """The file descriptor that becomes readable when the worker ends, -1 if there is none."""
        return self._ended

    def is_alive(self) -> bool:
        """Return whether the worker is running."""
        if self._ended >= 0:
            return not readable(self._ended)
        return not self._reap()

    def exitcode(self) -> int | None:
        """Return the exit code of a worker that has ended; None if other code has taken it."""
        self._reap()
        return self._exitcode

    def join(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the worker to end; return whether it has ended."""
        if self._ended >= 0:
            return readable(self._ended, seconds)
        waiting = threading.Event()
        while not self._reap() and seconds > 0:
            waiting.wait(POLL_SECONDS)
            seconds -= POLL_SECONDS
        return self._has_ended

    def kill(self) -> None:
        """Kill the worker."""
        if not self._reap():
            os.kill(self.pid, _signal.SIGKILL)

    def close(self) -> None:
        """Release the resources of a worker that has ended."""
        self._reap()
        self.disown()

    def disown(self) -> None:
        """Release the resources of a worker of another process, in a forked child."""
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1

    def _reap(self) -> bool:
        """Take the exit code if there is one; return whether the worker has ended."""
        if not self._has_ended:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # other code has taken it
                self._has_ended = True
            else:
                if pid:
                    self._has_ended = True
                    self._exitcode = os.waitstatus_to_exitcode(status)
        return self._has_ended


# Where the system reports no deaths, a worker that ends is asked this often, s.
POLL_SECONDS = 0.005


# A worker needs some file descriptors of its own besides those it inherits.
START_DESCRIPTORS = 6


class ForkStarts:
    """Starts workers by ``os.fork``."""

    method = "fork"

    def ensure(self) -> None:
        """Fail where a process cannot be forked from.

        Raises:
            OSError: this is a sub-interpreter.
        """
        ensure_main_interpreter()

    def wait(self) -> None:
        """Do nothing: a fork needs no helper."""

    def start(
        self, name: str, target: Callable[..., object], args: tuple[Any, ...]
    ) -> ForkedWorker:
        """Fork a worker.

        Args:
            name: name of the process.
            target: the function to run in it.
            args: its arguments.

        Raises:
            OSError: the process cannot be started.
        """
        ensure_descriptors(START_DESCRIPTORS)
        flush_streams()  # a child would write what they hold a second time
        _no_input()
        number = next(_numbers)
        try:
            with fork_unwarned(), _kept_tracker():
                pid = os.fork()
        except RuntimeError as error:  # a sub-interpreter, or one that is shutting down
            raise OSError(str(error)) from error
        if pid:
            return ForkedWorker(pid)
        _be_worker(name, number, partial(target, *args))
        raise AssertionError("a worker has no code to return to")

    @staticmethod
    def at_exit(end: Callable[[], object]) -> Callable[[], object]:
        """Have a function called when the interpreter exits; return one that cancels that."""
        atexit.register(end)
        return partial(atexit.unregister, end)


@contextmanager
def _kept_tracker() -> Iterator[None]:
    """Have a forked child keep the way to the caller's resource tracker, if there is one.

    In newer releases of Python 3.14, a child loses it unless multiprocessing does the fork.
    """
    intent = getattr(loaded("multiprocessing.resource_tracker"), "_fork_intent", None)
    if intent is None:
        yield
        return
    intent.preserve_fd = True
    try:
        yield
    finally:
        intent.preserve_fd = False


def _be_worker(name: str, number: int, run: Callable[[], object]) -> None:
    """Run a function in the process that was just forked, and end the process."""
    code = 1
    try:
        util = loaded("multiprocessing.util")
        if CLEARS_ATEXIT:
            atexit._clear()
            if util is not None:  # else it registers itself when it is loaded
                atexit.register(util._exit_function)
        _enter(name, number)
        try:
            run()
            code = 0
        finally:
            if not CLEARS_ATEXIT:
                run_finalizers()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:  # noqa: BLE001 - no caller is left to receive it
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        with suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]  # waits for the user's threads
            if CLEARS_ATEXIT:
                atexit._run_exitfuncs()
            flush_streams()
        os._exit(code)


def _enter(name: str, number: int) -> None:
    """Make this process a worker of its parent."""
    enter_worker_process()
    _close_input()
    main: Any = threading.main_thread()
    if hasattr(main, "_set_native_id"):
        main._set_native_id()
    parent = os.getppid()
    after_load("multiprocessing.process", lambda module: _become(module, name, number, parent))
    after_load("multiprocessing.context", lambda module: module._force_start_method("fork"))
    util = loaded("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
    after_load("logging", lambda module: _name_records(module, name))


@functools.cache
def _no_input() -> Any:
    """Return a stream to read nothing from; made before the fork, for all workers.

    It is never closed, so it must not own its file descriptor: Python warns of such streams.
    """
    return open(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), encoding="utf-8", closefd=False)


def _close_input() -> None:
    """Read nothing from the caller's standard input, nor have processes of items read it."""
    with suppress(AttributeError, OSError, ValueError):  # none, closed, or no file
        if sys.stdin.fileno() == 0:
            os.dup2(_no_input().fileno(), 0)
    if sys.stdin is not None:
        sys.stdin = _no_input()


def _become(process: Any, name: str, number: int, parent: int) -> None:
    """Tell ``multiprocessing.process`` which process this is."""

    class Worker(process.BaseProcess):  # type: ignore[misc]
        """The process that ``current_process`` returns in a forked worker."""

        @property
        def daemon(self) -> bool:
            """Whether the process ends with its parent; always true."""
            return True

    before = process._current_process
    this = Worker.__new__(Worker)
    this._identity = (*before._identity, number)
    this._config = before._config.copy()
    this._parent_pid = parent
    this._parent_name = before.name
    this._name = name
    this._popen = None
    this._closed = False
    this._target, this._args, this._kwargs = None, (), {}
    process._current_process = this
    process._parent_process = process._ParentProcess(before.name, parent, watch_end(parent))
    process._process_counter = itertools.count(1)
    process._children = set()


def _name_records(logging: Any, name: str) -> None:
    """Have log records show this process's name, as multiprocessing does where it is loaded."""
    make = logging.getLogRecordFactory()

    def named(*args: Any, **options: Any) -> Any:
        record = make(*args, **options)
        if record.processName == "MainProcess":
            record.processName = name
        return record

    logging.setLogRecordFactory(named)
