"""Start worker processes by multiprocessing, and look after them.

Workers are processes of multiprocessing, with four differences:

- They never import the caller's main module. Nothing in the caller is changed to achieve that.
- Workers of a fork server have amorsize's own fork server.
- They report that they are daemonic, as a Pool's workers do, and yet may have children.
- The caller sees a death at once, even if other code takes the exit code first, or the worker's
  children still hold file descriptors open.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.process
import os
import sys
import types
from multiprocessing import spawn, util
from multiprocessing.connection import wait
from typing import Any

from .crew import starting
from .descriptors import ensure_descriptors, readable, watch_end
from .interpreters import ensure_main_interpreter
from .rebinding import rebound
from .unwarned import fork_unwarned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess

    from .servers import Server
    from .setup import Threads

__all__ = [
    "Starts",
    "Worker",
]


class _WithoutMain:
    """Replaces the module ``multiprocessing.spawn`` while a worker is started.

    A worker must not import the caller's main module: its functions and classes are sent by value,
    with its globals as they are now. Importing the main module again would take time, run its side
    effects, make second copies of its classes, and without a guard start workers in workers.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(spawn, name)

    def get_preparation_data(self, name: str) -> dict[str, Any]:
        """Return the data that a new interpreter needs, without the main module."""
        data: dict[str, Any] = _preparation_data(name)
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
        return data


def _preparation_data(name: str) -> dict[str, Any]:
    try:
        return dict(spawn.get_preparation_data(name))
    except (FileNotFoundError, KeyError):  # the working directory or the main module was removed
        return {
            "authkey": multiprocessing.process.current_process().authkey,
            "name": name,
            "sys_path": sys.path.copy(),
            "sys_argv": getattr(sys, "argv", []),
            "orig_dir": multiprocessing.process.ORIGINAL_DIR,  # type: ignore[attr-defined]
        }


def _launch_of(module: types.ModuleType) -> Any:
    """Return the function that starts a process, from a ``popen_*`` module of multiprocessing."""
    return module.Popen._launch


# Processes ----------------------------------------------------------------------------------


class _MayHaveChildren:
    """A process that reports that it is daemonic, as a Pool's workers do, yet may have children.

    Libraries read ``daemon``, and start no processes of their own if it is true. Code that does
    start some may do so: multiprocessing forbids it by an entry in the configuration of the
    process, and no such entry is made here. The crew leaves no worker and no child of one behind.
    """

    @property
    def daemon(self) -> bool:
        """Whether the process ends with its parent; always true."""
        return True

    @daemon.setter
    def daemon(self, value: bool) -> None:
        """Ignore the value."""


_METHODS = multiprocessing.get_all_start_methods()

if "fork" in _METHODS:

    class _ForkWorker(_MayHaveChildren, multiprocessing.context.ForkProcess):  # pyright: ignore[reportIncompatibleVariableOverride]
        @staticmethod
        def _Popen(process_obj: Any) -> Any:  # noqa: N802 - so named by multiprocessing
            from multiprocessing.popen_fork import Popen

            with fork_unwarned():
                return Popen(process_obj)


class _SpawnWorker(_MayHaveChildren, multiprocessing.context.SpawnProcess):  # pyright: ignore[reportIncompatibleVariableOverride]
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - so named by multiprocessing
        if sys.platform == "win32":
            from multiprocessing import popen_spawn_win32 as module

            changed = {"__init__": rebound(module.Popen.__init__, spawn=_WithoutMain())}
        else:
            from multiprocessing import popen_spawn_posix as module

            changed = {"_launch": rebound(_launch_of(module), spawn=_WithoutMain())}
        kind: Any = type("Popen", (module.Popen,), changed)
        popen = kind.__new__(kind)
        try:
            popen.__init__(process_obj)
        except BaseException:
            # On Windows the process exists already when what it is to run is pickled.
            if sys.platform == "win32" and "sentinel" in vars(popen):
                popen.terminate()
                popen.wait()
            raise
        return popen


if "forkserver" in _METHODS:

    class _ForkServerWorker(_MayHaveChildren, multiprocessing.context.ForkServerProcess):  # pyright: ignore[reportIncompatibleVariableOverride]
        server: Server

        @staticmethod
        def _Popen(process_obj: Any) -> Any:  # noqa: N802 - so named by multiprocessing
            from multiprocessing import popen_forkserver as module

            from .servers import SERVERS

            server = SERVERS.claim()
            launch = rebound(_launch_of(module), spawn=_WithoutMain(), forkserver=server)
            try:
                popen = type("Popen", (module.Popen,), {"_launch": launch})(process_obj)
            except BaseException:  # also Ctrl-C: no process object will release it
                SERVERS.release(server)
                raise
            process_obj.server = server
            return popen

        def close(self) -> None:
            """Release the process's resources, and its server."""
            from .servers import SERVERS

            super().close()
            SERVERS.release(self.server)


def ensure_server(method: str, libraries: Iterable[str], variables: dict[str, str]) -> None:
    """Start the helper processes that a start method needs; call it while signals are held.

    The fork server inherits the signal mask, so that Ctrl-C does not interrupt its preloading. Its
    workers lift the mask.

    Args:
        method: start method.
        libraries: installed modules that workers will need.
        variables: environment variables that limit the threads of libraries.

    Raises:
        OSError: this interpreter cannot start workers by this method.
    """
    _check_interpreter(method)
    if method != "fork" and os.name == "posix":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()
    if method == "forkserver":
        from .servers import SERVERS

        SERVERS.ensure_running(libraries, variables)


def _check_interpreter(method: str) -> None:
    """Fail if this interpreter cannot start worker processes.

    Raises:
        OSError: the interpreter cannot start any.
    """
    ensure_main_interpreter()
    if method != "fork" and not spawn.get_executable():
        raise OSError("where Python's program lies is not known (sys.executable)")


class _ServerGone(OSError):  # noqa: N818 - says what is so
    """The fork server has ended."""


class Starts:
    """Starts worker processes by multiprocessing.

    Args:
        context: the multiprocessing context; a user's own context keeps its own process class.
        libraries: installed modules that the workers will need; a fork server loads them.
        threads: limits for the threads of libraries; None for none.

    Attributes:
        method: start method.
    """

    def __init__(
        self, context: BaseContext, libraries: Iterable[str] = (), threads: Threads | None = None
    ) -> None:
        self.method = context.get_start_method()
        self._context = context
        self._libraries = libraries
        self._variables = {} if threads is None else threads.variables

    def ensure(self) -> None:
        """Start the helper processes that the start method needs.

        Raises:
            OSError: this interpreter cannot start workers by this method.
        """
        ensure_server(self.method, self._libraries, self._variables)

    def wait(self) -> None:
        """Wait until the fork server has loaded what its workers need, which may take seconds."""
        if self.method == "forkserver":
            from .servers import SERVERS

            server = SERVERS.current
            if not server.wait():
                with starting():
                    SERVERS.give_up_libraries(server)

    def start(self, name: str, target: Any, args: tuple[Any, ...]) -> Worker:
        """Start a worker process.

        Args:
            name: name of the process.
            target: the function to run in the process.
            args: its arguments.

        Raises:
            OSError: the process cannot be started.
        """
        ensure_descriptors(START_DESCRIPTORS)
        if self.method == "forkserver":
            from .servers import SERVERS

            server = SERVERS.current
            try:
                return self._start(name, target, args)
            except _ServerGone:
                if not SERVERS.give_up_libraries(server):
                    raise
        return self._start(name, target, args)

    def _start(self, name: str, target: Any, args: tuple[Any, ...]) -> Worker:
        kind = self._context.Process  # type: ignore[attr-defined,unused-ignore]
        own = globals().get(_OWN.get(f"{kind.__module__}.{kind.__name__}", ""), kind)
        process = own(target=target, args=args, name=name)
        if own is kind:
            process.daemon = True
        try:
            process.start()
        except (EOFError, ConnectionError) as error:
            gone = _ServerGone if self.method == "forkserver" else OSError
            raise gone(f"{type(error).__name__}: {error}") from error
        except RuntimeError as error:  # a sub-interpreter, or one that is shutting down
            raise OSError(str(error)) from error
        return Worker(process)

    @staticmethod
    def at_exit(end: Callable[[], object]) -> Callable[[], object]:
        """Have a function called when the interpreter exits; return one that cancels that.

        It is called before multiprocessing ends daemonic processes.
        """
        return util.Finalize(None, end, exitpriority=15).cancel


_OWN = {
    "multiprocessing.context.ForkProcess": "_ForkWorker",
    "multiprocessing.context.SpawnProcess": "_SpawnWorker",
    "multiprocessing.context.ForkServerProcess": "_ForkServerWorker",
}


class Worker:
    """A worker process, as the caller sees it.

    Args:
        process: the started process.

    Attributes:
        pid: its process id.
    """

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None
        self.process = process
        self.pid: int = process.pid
        self._ended = watch_end(self.pid)

    @property
    def reports(self) -> bool:
        """Whether the system reports the worker's death, even if other code takes the exit code."""
        return self._ended >= 0

    @property
    def sentinel(self) -> int:
        """The file descriptor that becomes readable when the worker ends.

        The sentinel of multiprocessing is a pipe that the worker's children hold open as well, so
        it is used only if there is no ``pidfd``.
        """
        return self._ended if self._ended >= 0 else self.process.sentinel

    def kill(self) -> None:
        """Kill the worker."""
        self.process.kill()

    def is_alive(self) -> bool:
        """Return whether the worker is running."""
        if self._ended >= 0:
            return not readable(self._ended)
        return self.process.exitcode is None and not wait([self.process.sentinel], 0)

    def exitcode(self) -> int | None:
        """Return the exit code of a worker that has ended; None if other code has taken it."""
        late = not self.reports or isinstance(self.process, _RELAYED)
        if late and self.process.exitcode is None:
            self.process.join(LATE_SECONDS)
        return self.process.exitcode

    def join(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the worker to end; return whether it has ended."""
        if self._ended >= 0:
            return readable(self._ended, seconds)
        self.process.join(seconds)
        return not self.is_alive()

    def close(self) -> None:
        """Release the resources of a worker that has ended."""
        popen = self.process._popen  # type: ignore[attr-defined]
        if popen.poll() is None:  # other code has taken the exit code
            popen.returncode = _UNKNOWN
        self.process.close()
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1

    def disown(self) -> None:
        """Remove the worker from a forked child's list of children, which are ended at its exit."""
        multiprocessing.process._children.discard(self.process)  # type: ignore[attr-defined]
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1


# Starting a worker takes four to six file descriptors for a moment, depending on the start method.
# ``Process.start`` does not close the ones it has opened when it runs out of them. Some must be
# left for other uses.
START_DESCRIPTORS = 12

# The fork server passes an exit code on a moment after the system has reported the death. Where a
# closed pipe shows the death, there is an exit code a moment later.
LATE_SECONDS = 1.0
_RELAYED: tuple[type, ...] = (
    (multiprocessing.context.ForkServerProcess,) if "forkserver" in _METHODS else ()
)

_UNKNOWN = 255  # stands for an unknown exit code
