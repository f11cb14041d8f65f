"""The fork server of amorsize, which starts the workers of the start method forkserver.

It is amorsize's own. The user's has the user's preloaded modules and signal mask, and may import
the user's main module, which fails in a script without a guard.

The server loads once what each worker would load: amorsize, and the installed packages that the
functions of its crews use. Where a new crew needs another package, a new server is started, and the
old one ends with its last worker. Modules of the user may change, so no server loads them.

After loading, a server looks at its threads (``loading``). If it cannot be forked safely, it ends,
and from then on servers load no packages.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from multiprocessing import forkserver, util
from typing import Any

from ..identity.looking import namespace_of
from .descriptors import LOADING, readable
from .rebinding import rebound
from .sockets import End

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SERVERS", "Server"]

# Most of the modules that a worker needs, the last of them to see whether forks are safe.
_OWN = ("amorsize.run.worker", "amorsize.run.adopting", "amorsize.run.carriers", "cloudpickle")
_CHECK = "amorsize.run.loading"

# How long to wait at a time for a server to load, s.
WAIT_SECONDS = 1.0


class Servers:
    """The present server. Calls in several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.current = Server((), {})
        self._may_load = sys.platform == "linux"  # elsewhere threads are not seen

    def ensure_running(self, libraries: Iterable[str], variables: dict[str, str]) -> None:
        """Start a server that has loaded some packages, unless there is one.

        Args:
            libraries: installed modules that workers will need.
            variables: environment variables that limit the threads of libraries.
        """
        wanted = dict.fromkeys(filter(_is_file, libraries)) if self._may_load else {}
        with self._lock:
            loaded = self.current.libraries
            if not self.current.is_started or not _packages(wanted) <= _packages(loaded):
                self._replace(Server((*dict.fromkeys([*loaded, *wanted]),), variables))
            self.current.ensure_running()

    def claim(self) -> Server:
        """Return the present server, for one worker; ``release`` gives it back."""
        with self._lock:
            self.current.workers += 1
            return self.current

    def release(self, server: Server) -> None:
        """Give back a server whose worker has ended."""
        with self._lock:
            server.workers -= 1
            self._end_unused(server)

    def give_up_libraries(self, gone: Server) -> bool:
        """Start a server without packages in place of one that has ended.

        Returns:
            Whether there is another server now; False if the other had loaded no packages, either.
        """
        with self._lock:
            if gone is self.current:
                if not gone.libraries:
                    return False
                self._may_load = False
                self._replace(Server((), {}))
                self.current.ensure_running()
            return True

    def forget(self) -> None:
        """Let go of the parent's servers in a forked child: they serve only the parent."""
        for server in list(_servers):
            server.leave()
        self._lock = threading.RLock()  # the old one may be held by a thread that is not here
        self.current = Server((), {})

    def _replace(self, server: Server) -> None:
        before, self.current = self.current, server
        self._end_unused(before)

    def _end_unused(self, server: Server) -> None:
        """Have a server end that is used no more; it passes on the exit codes of its workers."""
        if server is not self.current and not server.workers and server.leave():
            _ended.append(server.pid)
        _ended[:] = [pid for pid in _ended if not _has_exited(pid)]


class Server(forkserver.ForkServer):
    """A fork server that loads some packages; replaces the module ``multiprocessing.forkserver``.

    Args:
        libraries: the installed modules to load.
        variables: environment variables to set before.

    Attributes:
        is_started: whether it was started.
        workers: number of workers that have not been closed.
    """

    def __init__(self, libraries: tuple[str, ...], variables: dict[str, str]) -> None:
        super().__init__()
        _servers.add(self)
        self.libraries = libraries
        self.is_started = False
        self.workers = 0
        self.set_forkserver_preload([*_OWN, *libraries, _CHECK] if libraries else [*_OWN])
        self._prepared = _Prepared(variables, tells=bool(libraries))

    def __getattr__(self, name: str) -> Any:
        return getattr(forkserver, name)

    @property
    def pid(self) -> int:
        """The process id of a server that was started."""
        return int(vars(self)["_forkserver_pid"])

    def ensure_running(self) -> None:
        """Start the server unless it is running."""
        self.is_started = True
        rebound(forkserver.ForkServer.ensure_running, util=self._prepared)(self)

    def wait(self) -> bool:
        """Wait until the server has loaded all; return False if it has ended before."""
        loading = self._prepared.take_loading()
        if loading is None:
            return True
        while not readable(loading.fileno(), WAIT_SECONDS):
            pass
        has_loaded = bool(os.read(loading.fileno(), 1))
        loading.close()
        return has_loaded

    def leave(self) -> bool:
        """Close this process's hold on the server, if it has one; return whether it had.

        The server ends when no process has it.
        """
        state = vars(self)
        alive, state["_forkserver_alive_fd"] = state["_forkserver_alive_fd"], None
        if alive is not None:
            os.close(alive)
        return alive is not None


_servers: weakref.WeakSet[Server] = weakref.WeakSet()

# Process ids of servers that are ending; each exit code is still to be taken.
_ended: list[int] = []


def _has_exited(pid: int) -> bool:
    """Return whether a server has ended, and take its exit code."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # other code has taken it
        return True


def _packages(modules: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


class _Prepared:
    """Replaces the module ``multiprocessing.util`` while the server is started.

    Libraries read their number of threads as they are loaded, from the server's environment. The
    caller's own is left as it is. In some versions the server does not take the caller's path.

    Args:
        variables: environment variables that the server sets first.
        tells: whether the server tells when it has loaded all.
    """

    def __init__(self, variables: dict[str, str], *, tells: bool) -> None:
        self._variables = variables
        self._tells = tells
        self._loading: End | None = None  # read end of the pipe through which it tells

    def __getattr__(self, name: str) -> Any:
        return getattr(util, name)

    def take_loading(self) -> End | None:
        """Return the pipe through which a server that was started tells, to one thread only."""
        loading, self._loading = self._loading, None
        return loading

    def spawnv_passfds(self, path: bytes, args: list[str], passfds: list[int]) -> int:
        """Start Python with a program that prepares its process first."""
        if not self._tells:
            return self._spawn(path, args, passfds, self._variables)
        reading, writing = map(End, os.pipe())
        try:
            variables = {**self._variables, LOADING: str(writing.fileno())}
            pid = self._spawn(path, args, [*passfds, writing.fileno()], variables)
        finally:
            writing.close()
        self._loading = reading
        return pid

    @staticmethod
    def _spawn(path: bytes, args: list[str], passfds: list[int], variables: dict[str, str]) -> int:
        where = [place for place in sys.path if type(place) is str]
        prepare = f"os.environ.update({variables!r}); sys.path[:] = {where!r}"
        place = args.index("-c") + 1  # from 3.14 on the caller's sys.argv comes after it
        program = f"import os, sys; {prepare}; {args[place]}"
        return util.spawnv_passfds(path, [*args[:place], program, *args[place + 1 :]], passfds)


def _is_file(name: str) -> bool:
    """Return whether a module was loaded from a file, as a library makes some at run time."""
    return type(namespace_of(sys.modules.get(name)).get("__file__")) is str


SERVERS = Servers()

# A forked child has a server of its own: the parent's serves only the parent.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SERVERS.forget)
