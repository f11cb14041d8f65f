"""Starting worker processes, and looking after them.

Workers are processes of ``multiprocessing``, with four differences. They never import the caller's
main module, and nothing of the caller's is changed to achieve that. Those of a fork server have a
server of their own. They may have children, although they say of themselves that they are daemonic,
as a Pool's workers do. And a death is seen at once, whoever takes the exit code first, and whatever
the worker's own children still hold open.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import multiprocessing.context
import multiprocessing.process
import os
import select
import signal
import sys
import types
from multiprocessing import spawn
from multiprocessing.connection import wait
from typing import Any

from ..measure.system import read_file
from ..signals import held_signals
from .unwarned import fork_unwarned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess

__all__ = [
    "Worker",
    "descendants",
    "ensure_descriptors",
    "ensure_server",
    "kill",
    "start_worker",
]


class _WithoutMain:
    """Stands for the module ``multiprocessing.spawn`` where a worker is started.

    A worker must not import the caller's main module: what is defined there goes by value, with
    the values its globals have now. Importing it again would take time, run its side effects, make
    second copies of its classes, and without a guard start workers that start workers.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(spawn, name)

    def get_preparation_data(self, name: str) -> dict[str, Any]:
        """Return what a new interpreter needs, without the main module."""
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


def _rebound(function: Any, **names: object) -> Any:
    """Return a copy of a function for which some of its module's names mean something else."""
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _launch_of(module: types.ModuleType) -> Any:
    """Return the function of a module of multiprocessing that starts a process."""
    return module.Popen._launch


# Processes ----------------------------------------------------------------------------------


class _MayHaveChildren:
    """A process that counts as daemonic, as a Pool's workers do, and yet may have children.

    Libraries look at ``daemon`` to see that they had better not start processes of their own.
    Whoever does start some, can: what forbids it is an entry in the process's configuration, which
    is not made here. Its owner sees to it that no worker and no child of one is left behind.
    """

    @property
    def daemon(self) -> bool:
        """Whether it ends with its parent."""
        return True

    @daemon.setter
    def daemon(self, value: bool) -> None:
        """Ignore what is asked for."""


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

            changed = {"__init__": _rebound(module.Popen.__init__, spawn=_WithoutMain())}
        else:
            from multiprocessing import popen_spawn_posix as module

            changed = {"_launch": _rebound(_launch_of(module), spawn=_WithoutMain())}
        return type("Popen", (module.Popen,), changed)(process_obj)


if "forkserver" in _METHODS:
    from multiprocessing import forkserver

    class _ForkServerWorker(_MayHaveChildren, multiprocessing.context.ForkServerProcess):  # pyright: ignore[reportIncompatibleVariableOverride]
        @staticmethod
        def _Popen(process_obj: Any) -> Any:  # noqa: N802 - so named by multiprocessing
            from multiprocessing import popen_forkserver as module

            launch = _rebound(_launch_of(module), spawn=_WithoutMain(), forkserver=_OwnServer())
            return type("Popen", (module.Popen,), {"_launch": launch})(process_obj)

    # Loaded once in the server, so that each worker need not: most of what a worker loads itself.
    _PRELOADED = ["amorsize.run.worker", "amorsize.run.current", "cloudpickle"]

    def _new_server() -> forkserver.ForkServer:
        server = forkserver.ForkServer()
        server.set_forkserver_preload(_PRELOADED)
        return server

    _server = _new_server()

    def _leave_server() -> None:
        """Have a forked child start a server of its own: the parent's serves the parent alone."""
        global _server  # noqa: PLW0603
        alive: int | None = _server._forkserver_alive_fd  # type: ignore[attr-defined]
        if alive is not None:  # the server ends when nobody holds this any more
            os.close(alive)
        _server = _new_server()

    os.register_at_fork(after_in_child=_leave_server)

    class _OwnServer:
        """Stands for the module ``multiprocessing.forkserver``, with a server of amorsize's own.

        The user's server has what the user preloads and the user's signal mask, and may import the
        user's main module, which a script without a guard does not survive.
        """

        @staticmethod
        def connect_to_new_process(fds: list[int]) -> Any:
            return _server.connect_to_new_process(fds)

        def __getattr__(self, name: str) -> Any:
            return getattr(forkserver, name)


def ensure_server(method: str) -> None:
    """Start what a start method needs beside workers.

    Args:
        method: start method.

    Raises:
        OSError: workers cannot be started in this way.
    """
    _check_interpreter(method)
    if method != "fork":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()
    if method == "forkserver":
        # It inherits the mask, so that Ctrl-C does not cut into what it loads; workers lift it.
        with held_signals():
            _server.ensure_running()


def _check_interpreter(method: str) -> None:
    """Fail where this interpreter cannot have worker processes.

    Raises:
        OSError: it cannot.
    """
    if _is_sub_interpreter():
        raise OSError("a sub-interpreter cannot start processes")
    if method != "fork" and not spawn.get_executable():
        raise OSError("where Python's program lies is not known (sys.executable)")


def start_worker(context: BaseContext, name: str, target: Any, args: tuple[Any, ...]) -> Worker:
    """Start a worker process.

    Args:
        context: the multiprocessing context; the user's own kinds keep their own processes.
        name: of the process.
        target: what it runs.
        args: with these.

    Raises:
        OSError: it cannot be started.
    """
    kind = context.Process  # type: ignore[attr-defined,unused-ignore]
    own = globals().get(_OWN.get(f"{kind.__module__}.{kind.__name__}", ""), kind)
    process = own(target=target, args=args, name=name)
    if own is kind:
        process.daemon = True
    try:
        process.start()
    except (RuntimeError, EOFError) as error:
        # A sub-interpreter, an interpreter that is about to end, a fork server that does not run.
        raise OSError(str(error)) from error
    return Worker(process)


@functools.cache
def _is_sub_interpreter() -> bool:
    """Return whether this is another interpreter of the process: a child forked by one dies."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # since 3.13, and before
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() != interpreters.get_main())
    return False


_OWN = {
    "multiprocessing.context.ForkProcess": "_ForkWorker",
    "multiprocessing.context.SpawnProcess": "_SpawnWorker",
    "multiprocessing.context.ForkServerProcess": "_ForkServerWorker",
}


class Worker:
    """A worker process, as its owner sees it.

    Args:
        process: the process, started.

    Attributes:
        pid: its number.
    """

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None
        self.process = process
        self.pid: int = process.pid
        self._ended = -1
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # an old kernel, or it has ended already
                self._ended = os.pidfd_open(self.pid)

    @property
    def reports(self) -> bool:
        """Whether the system reports its death, whoever takes the exit code."""
        return self._ended >= 0

    @property
    def sentinel(self) -> int:
        """What becomes readable when it ends.

        The process's own sentinel is a pipe, which its children hold open as well: it is taken
        only where there is nothing better.
        """
        return self._ended if self._ended >= 0 else self.process.sentinel

    def is_alive(self) -> bool:
        """Return whether it runs."""
        if self._ended >= 0:
            return not _readable(self._ended)
        return self.process.exitcode is None and not wait([self.process.sentinel], 0)

    def exitcode(self) -> int | None:
        """Return how it ended, once it has; None where somebody else has taken the exit code."""
        if self.process.exitcode is None and isinstance(self.process, _RELAYED):
            self.process.join(RELAY_SECONDS)
        return self.process.exitcode

    def join(self, seconds: float) -> bool:
        """Wait so long for its end; return whether it has ended."""
        if self._ended >= 0:
            return _readable(self._ended, seconds)
        self.process.join(seconds)
        return not self.is_alive()

    def close(self) -> None:
        """Give back what belongs to a process that has ended."""
        popen = self.process._popen  # type: ignore[attr-defined]
        if popen.poll() is None:  # somebody else has taken its exit code
            popen.returncode = _UNKNOWN
        self.process.close()
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1

    def disown(self) -> None:
        """Let a forked child not take it for a child of its own, which it would end at its exit."""
        multiprocessing.process._children.discard(self.process)  # type: ignore[attr-defined]
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1


# Starting a worker takes four to six descriptors for a moment, depending on the start method; and
# some must be left to work with.
START_DESCRIPTORS = 12


def ensure_descriptors() -> None:
    """Fail now if too few descriptors are left to start a worker.

    ``Process.start`` never closes those it got before it ran out.

    Raises:
        OSError: too few are left.
    """
    got = [os.open(os.devnull, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))]
    try:
        while len(got) < START_DESCRIPTORS:
            got.append(os.dup(got[0]))
    finally:
        for descriptor in got:
            os.close(descriptor)


# The fork server passes on how its children ended, a moment after the system has reported it.
RELAY_SECONDS = 1.0
_RELAYED: tuple[type, ...] = (
    (multiprocessing.context.ForkServerProcess,) if "forkserver" in _METHODS else ()
)

_UNKNOWN = 255  # stands for an exit code that nobody knows


def descendants(pids: list[int]) -> list[int]:
    """Return the processes that some processes have started, and those in turn.

    Args:
        pids: numbers of the processes.

    >>> descendants([])
    []
    """
    found: list[int] = []
    if not pids:
        return found
    children = _children_by_parent()
    level = list(pids)
    while level:
        level = [child for pid in level for child in children.get(pid, ())]
        found += level
    return found


def _children_by_parent() -> dict[int, list[int]]:
    """Return the processes of this machine by their parents; takes about 1 ms for 100 of them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdecimal():
            with contextlib.suppress(OSError):
                # The name of the program, in parentheses, may hold anything.
                parent = int(read_file(f"/proc/{name}/stat").rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    if not children:
        import psutil  # only where there is no /proc

        for process in psutil.process_iter(["ppid"]):
            children.setdefault(process.info["ppid"], []).append(process.pid)
    return children


def kill(workers: list[Worker]) -> None:
    """End workers and all their descendants at once, and wait for the workers."""
    below = descendants([worker.pid for worker in workers if worker.is_alive()])
    for worker in workers:
        if worker.is_alive():
            worker.process.kill()
    for pid in below:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    for worker in workers:
        worker.join(KILL_SECONDS)


# SIGKILL takes a moment, longer for a process with much memory.
KILL_SECONDS = 30.0


def _readable(descriptor: int, seconds: float = 0.0) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))  # less than none would be for ever
