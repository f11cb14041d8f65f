"""What is used of the CPUs: by this process, by its threads and by its children, and beside it.

A function that waits is told from one that computes by the CPU time it does not take. That time may
be taken elsewhere: by another thread, by a child that is alive or has ended; or it was wanted and
not given, while other programs had the CPUs. So all of these are read. Linux has them under
``/proc``; elsewhere the clocks of this process and of its ended children are all there is.
"""

from __future__ import annotations

import os
import time

from ..tuples import NamedTuple

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

# Of more threads or descendants not all are read: 4 us for each thread (November 2026, two-core
# machine), twice for each block of items.
MOST_READ = 64
# What children do on their own is seen in this time: the kernel books it every 1 to 4 ms.
REST_SECONDS = 0.02
# One that has to write its last answer to the end uses less of it.
BUSY_SHARE = 0.1
# Children that used so much of a block may have worked for it.
HELPING_SHARE = 0.1

# What computes waits for a CPU no longer than so many times what it computes: 40 programs on two
# CPUs. Pulled out of the air.
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
    """What is not this process's own CPU time, at one moment; two of them are compared.

    Attributes:
        queued: time that the threads of this process have waited in run queues, s.
        children: CPU time that each living descendant has taken and waited for, s, by its pid.
        runnable: threads of the whole machine that run or wait for a CPU now, this one among them.
        complete: whether all of that could be read.
    """

    queued: float
    children: dict[str, float]
    runnable: int
    complete: bool

    def children_since(self, before: Surroundings, apart: frozenset[str]) -> float:
        """Return what children have used since then, s, but for some."""
        used = 0.0
        for child, seconds in self.children.items():
            if child not in apart:
                used += max(0.0, seconds - before.children.get(child, 0.0))
        return used


def surroundings() -> Surroundings:
    """Return what other threads, living children and other programs have used so far."""
    tasks = _tasks("self")
    children, read_all = _descendants(tasks)
    running = runnable()
    complete = read_all and 0 < len(tasks) <= MOST_READ and running > 0
    queued = sum(_schedstat("self", task)[1] for task in tasks[:MOST_READ])
    return Surroundings(queued, children, running, complete)


class Helpers:
    """Tells children that work for a function from those that work for something else.

    Whether they do is asked once they were busy while the function ran: those that are busy when it
    does not run as well are not waited for by it.
    """

    def __init__(self) -> None:
        self._apart: frozenset[str] | None = None  # pids of those that work for something else

    def seconds(self, before: Surroundings, after: Surroundings, wall: float) -> float:
        """Return what children did for a block, s.

        Args:
            before: the surroundings at its beginning.
            after: those at its end, now.
            wall: how long it took, s.
        """
        used = after.children_since(before, self._apart or frozenset())
        if used >= HELPING_SHARE * wall and self._apart is None:
            self._apart = busy_at_rest()
            used = after.children_since(before, self._apart)
        return used


def busy_at_rest() -> frozenset[str]:
    """Return the pids of descendants that use CPUs while this thread rests for a moment."""
    time.sleep(REST_SECONDS / 2)  # what one was asked for may not be over yet
    before = surroundings().children
    waiting = {pid for pid in before if _wants_cpu(pid)}
    time.sleep(REST_SECONDS)
    after = surroundings().children
    busy = {pid for pid in after if after[pid] - before.get(pid, 0.0) > BUSY_SHARE * REST_SECONDS}
    # On busy CPUs it may have waited for one all the time.
    return frozenset(busy | {pid for pid in waiting if _wants_cpu(pid)})


def cpu_seconds() -> float:
    """Return the CPU time of this process and its children, s.

    Living descendants are counted with the time they waited for a CPU.
    """
    return own_cpu_seconds() + sum(_descendants(_tasks("self"))[0].values())


def queued_seconds() -> float:
    """Return how long the threads of this process have waited in run queues, s; 0 if unknown."""
    return sum(_schedstat("self", task)[1] for task in _tasks("self")[:MOST_READ])


def own_cpu_seconds() -> float:
    """Return the CPU time of this process and of its ended children, s."""
    return time.process_time() + children_seconds()


def own_queued_seconds() -> float:
    """Return how long this thread has waited in a run queue, s; 0 where that is not known."""
    return _times(_read("/proc/thread-self/schedstat"))[1]


def own_peak_bytes() -> int:
    """Return the largest resident memory of this process so far, 0 where it is not known."""
    _, mark, rest = _read("/proc/self/status").partition(b"VmHWM:")
    return int(rest.split(None, 1)[0]) * 1024 if mark else 0


def with_queue(cpu: float, queued: float, wall: float) -> float:
    """Return the CPU time taken or waited for, within the time that passed; all in s.

    Whatever wakes up on a busy machine waits for a CPU, also to go back to sleep at once. So the
    time in the run queue counts as far as the CPU time makes it likely.

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
    """Return what each living descendant has used and waited for, s, and whether all was read."""
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
    """Return what a process, its ended threads and its ended children have used and waited for, s.

    Its living threads are known to the ns, the rest to a tick of the clock.
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
    """Return the fields of a process's stat from its state on, none if it has ended."""
    return _read(f"/proc/{process}/stat").rpartition(b")")[2].split()


def _tasks(process: str) -> list[str]:
    """Return the threads of a process, none where they cannot be read."""
    try:
        return os.listdir(f"/proc/{process}/task")
    except OSError:
        return []


def _schedstat(process: str, task: str) -> tuple[float, float]:
    """Return (s on a CPU, s in a run queue) of one thread; zeros if it has ended."""
    return _times(_read(f"/proc/{process}/task/{task}/schedstat"))


def _times(text: bytes) -> tuple[float, float]:
    """Return the first two figures of the kernel's schedstat, which are ns, as s.

    Documentation/scheduler/sched-stats.rst describes them.
    """
    fields = text.split()
    return (int(fields[0]) / 1e9, int(fields[1]) / 1e9) if len(fields) > 1 else (0.0, 0.0)


def _read(path: str) -> bytes:
    """Return the content of a small file of the kernel's, b"" when it cannot be read.

    Left open, the file might be closed by the user's code, and its number be another file's.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(file, 1 << 14)
    except OSError:  # the process has ended meanwhile
        return b""
    finally:
        os.close(file)


_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

# A kernel built without CONFIG_PROC_CHILDREN has no such file.
_LISTS_CHILDREN = os.path.exists("/proc/thread-self/children")
