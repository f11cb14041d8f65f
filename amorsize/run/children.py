"""Worker processes and the processes that they have started: find them, and kill them."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # ``signal`` takes 1 ms to load
import contextlib
import os
import sys

from ..measure.system import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .crew import Process

__all__ = ["descendants", "kill"]


def descendants(pids: list[int]) -> list[int]:
    """Return the ids of all descendants of some processes.

    Args:
        pids: ids of the processes.

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
    """Return the processes of this machine by parent; takes about 1 ms for 100 processes.

    None are known on Linux where no file descriptor is left to look with.
    """
    children: dict[int, list[int]] = {}
    if sys.platform != "linux":
        import psutil  # takes 20 ms to load

        for process in psutil.process_iter(["ppid"]):
            children.setdefault(process.info["ppid"], []).append(process.pid)
        return children
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir("/proc")
    for name in filter(str.isdecimal, names):
        with contextlib.suppress(OSError):
            # The program's name, in parentheses, may contain any character.
            parent = int(read_file(f"/proc/{name}/stat").rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    return children


def kill(workers: list[Process]) -> None:
    """Kill workers and all their descendants, and wait for the workers."""
    below = descendants([worker.pid for worker in workers if worker.is_alive()])
    for worker in workers:
        if worker.is_alive():
            worker.kill()
    for pid in below:
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            os.kill(pid, _KILL)
    for worker in workers:
        worker.join(KILL_SECONDS)


# On Windows any signal but Ctrl-C ends a process at once.
_KILL = getattr(_signal, "SIGKILL", _signal.SIGTERM)

# SIGKILL takes a moment to act, longer for a process with much memory.
KILL_SECONDS = 30.0
