"""CPU use of this process, its threads and its children, and of other programs.

A function that waits uses less CPU time than wall time. But a function that computes may look the
same: another thread or a child, living or ended, may use the CPU time for it, or the function may
be in a run queue while other programs have the CPUs. So all of these are read. Linux has them under
``/proc``. Other systems only have the clocks of this process and of its ended children.
"""

from __future__ import annotations

import os
import time

from ..tuples import NamedTuple
from .system import read_file

__all__ = [
    "HELPING_SHARE",
    "Helpers",
    "Surroundings",
    "children_seconds",
    "cpu_seconds",
    "own_cpu_seconds",
    "own_peak_bytes",
    "own_queued_seconds",
    "queued_seconds",
    "runnable",
    "surroundings",
    "with_queue",
]

# Limit on the threads and on the descendants' threads that are read. Each takes 4 us (November
# 2026, two-core machine), twice for each block of items.
MOST_READ = 64
# Long enough to see CPU time that children use on their own: the kernel updates it every 1 to 4 ms.
REST_SECONDS = 0.02
# A child that only finishes its last answer uses a smaller share of REST_SECONDS.
BUSY_SHARE = 0.1
# Children that used this share of a block's wall time may have worked for the function.
HELPING_SHARE = 0.1

# A computing thread waits in run queues at most this many times its CPU time: 40 programs on two
# CPUs. A guess.
QUEUED_TIMES = 20

try:
    from resource import RUSAGE_CHILDREN, getrusage
except ImportError:  # Windows has no such module

    def children_seconds() -> float:
        """Return the CPU time of child processes that have ended, s; 0 where it is not known."""
        return 0.0

else:

    def children_seconds() -> float:
        """Return the CPU time of child processes that have ended, s; 0 where it is not known."""
        usage = getrusage(RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime


class Surroundings(NamedTuple):
    """What counts besides this process's own CPU time, at one moment, to be compared with another.

    Attributes:
        queued: time that the threads of this process have waited in run queues, s.
        children: CPU and run queue time of each living descendant, s, by its pid.
        runnable: threads of the whole machine that run or wait for a CPU now, including this one.
        complete: whether all of these could be read.
    """

    queued: float
    children: dict[str, float]
    runnable: int
    complete: bool

    def children_since(self, before: Surroundings, apart: frozenset[str]) -> float:
        """Return the time children have used since ``before``, s, except the pids in ``apart``."""
        used = 0.0
        for child, seconds in self.children.items():
            if child not in apart:
                used += max(0.0, seconds - before.children.get(child, 0.0))
        return used


def surroundings() -> Surroundings:
    """Return the current surroundings."""
    tasks = _tasks("self")
    children, read_all = _descendants(tasks)
    running = runnable()
    complete = read_all and 0 < len(tasks) <= MOST_READ and running > 0
    queued = sum(_schedstat("self", task)[1] for task in tasks[:MOST_READ])
    return Surroundings(queued, children, running, complete)


class Helpers:
    """Tells children that work for a function from those that work for something else.

    The check is made once, after children were busy while the function ran. Children that are also
    busy while the function does not run do not work for it.
    """

    def __init__(self) -> None:
        self._apart: frozenset[str] | None = None  # pids of children that work for something else

    def seconds(self, before: Surroundings, after: Surroundings, wall: float) -> float:
        """Return the time children used for a block, s.

        Args:
            before: the surroundings at the block's start.
            after: the surroundings at its end, which is now.
            wall: the block's wall time, s.
        """
        used = after.children_since(before, self._apart or frozenset())
        if used >= HELPING_SHARE * wall and self._apart is None:
            self._apart = busy_at_rest()
            used = after.children_since(before, self._apart)
        return used


def busy_at_rest() -> frozenset[str]:
    """Return the pids of descendants that use CPUs while this thread sleeps for a moment."""
    time.sleep(REST_SECONDS / 2)  # a child may not have finished the function's last request
    before = surroundings().children
    waiting = {pid for pid in before if _wants_cpu(pid)}
    time.sleep(REST_SECONDS)
    after = surroundings().children
    busy = {pid for pid in after if after[pid] - before.get(pid, 0.0) > BUSY_SHARE * REST_SECONDS}
    # On busy CPUs a child may have been in a run queue all the time.
    return frozenset(busy | {pid for pid in waiting if _wants_cpu(pid)})


def cpu_seconds() -> float:
    """Return the CPU time of this process and its children, s.

    The run queue time of living descendants is included.
    """
    return own_cpu_seconds() + sum(_descendants(_tasks("self"))[0].values())


def queued_seconds() -> float:
    """Return the run queue time of this process's threads, s; 0 where it is not known."""
    return sum(_schedstat("self", task)[1] for task in _tasks("self")[:MOST_READ])


def own_cpu_seconds() -> float:
    """Return the CPU time of this process and of its ended children, s."""
    return time.process_time() + children_seconds()


def own_queued_seconds() -> float:
    """Return the run queue time of this thread, s; 0 where it is not known."""
    return _times(_read("/proc/thread-self/schedstat"))[1]


def own_peak_bytes() -> int:
    """Return the largest resident memory of this process so far, 0 where it is not known."""
    _, mark, rest = _read("/proc/self/status").partition(b"VmHWM:")
    return int(rest.split(None, 1)[0]) * 1024 if mark else 0


def with_queue(cpu: float, queued: float, wall: float) -> float:
    """Return the CPU time plus the run queue time that counts, limited by the wall time; all in s.

    On a busy machine a thread that wakes up waits for a CPU even if it only goes back to sleep. So
    run queue time counts at most ``QUEUED_TIMES`` times the CPU time.

    >>> with_queue(1.0, 0.5, 2.0), with_queue(1.0, 3.0, 2.0), with_queue(4.0, 1.0, 2.0)
    (1.5, 2.0, 4.0)
    >>> with_queue(0.0, 0.5, 2.0)
    0.0
    """
    return cpu + min(max(wall - cpu, 0.0), max(queued, 0.0), QUEUED_TIMES * cpu)


def runnable() -> int:
    """Return how many threads of the machine run or wait for a CPU now, 0 where it is not known."""
    fields = _read("/proc/loadavg").split()
    return int(fields[3].partition(b"/")[0]) if len(fields) > 3 else 0


def _descendants(tasks: list[str]) -> tuple[dict[str, float], bool]:
    """Return each living descendant's CPU and run queue time, s, and whether all were read."""
    todo: list[tuple[str, str]] = [("self", task) for task in tasks[:MOST_READ]]
    used: dict[str, float] = {}
    read = 0
    while todo and read < MOST_READ:
        listed = _read("/proc/{}/task/{}/children".format(*todo.pop()))
        for child in listed.decode().split():
            below = _tasks(child)
            read += len(below)
            used[child] = _used_by(child, below)
            todo += [(child, task) for task in below]
    return used, not todo and _LISTS_CHILDREN


def _used_by(process: str, tasks: list[str]) -> float:
    """Return the CPU time of a process and its ended children, s, and its threads' run queue time.

    CPU time of living threads is exact to the ns, the rest to a clock tick.
    """
    alive = [_schedstat(process, task) for task in tasks]
    running, queued = sum(run for run, _ in alive), sum(queue for _, queue in alive)
    ticks = _status(process)[11:15]
    own, ended = sum(map(int, ticks[:2])) / _TICKS, sum(map(int, ticks[2:])) / _TICKS
    return max(running, own) + ended + queued


def _wants_cpu(process: str) -> bool:
    """Return whether the main thread of a process runs or waits for a CPU."""
    return _status(process)[:1] == [b"R"]


def _status(process: str) -> list[bytes]:
    """Return the fields of a process's stat from its state on, none if the process has ended."""
    return _read(f"/proc/{process}/stat").rpartition(b")")[2].split()


def _tasks(process: str) -> list[str]:
    """Return the threads of a process, none where they cannot be read."""
    try:
        return os.listdir(f"/proc/{process}/task")
    except OSError:
        return []


def _schedstat(process: str, task: str) -> tuple[float, float]:
    """Return (s on a CPU, s in a run queue) of one thread; zeros if the thread has ended."""
    return _times(_read(f"/proc/{process}/task/{task}/schedstat"))


def _times(text: bytes) -> tuple[float, float]:
    """Return the first two figures of a schedstat file, converted from ns to s.

    The kernel's Documentation/scheduler/sched-stats.rst describes them.
    """
    fields = text.split()
    return (int(fields[0]) / 1e9, int(fields[1]) / 1e9) if len(fields) > 1 else (0.0, 0.0)


def _read(path: str) -> bytes:
    """Return the content of a small kernel file, b"" if it cannot be read.

    The file is opened for each read. User code could close a file descriptor that is kept open, and
    its number could then belong to another file.
    """
    try:
        return read_file(path)
    except OSError:  # missing, or the process has ended since
        return b""


_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

# False for a kernel built without CONFIG_PROC_CHILDREN.
_LISTS_CHILDREN = os.path.exists("/proc/thread-self/children")
