"""What this machine lets the process use: CPUs, memory, start method.

The figures come from files of the operating system. Reading them is cheap enough to be done before
each decision. Results are frozen values. ``root`` lets a test supply its own tree of files.
"""

from __future__ import annotations

import os
import sys
import time
from io import FileIO
from math import ceil
from posixpath import dirname

from ..lookup import loaded
from ..tuples import NamedTuple
from ..units import counted
from ..versions import DEFAULT_ON_LINUX
from .forking import fork_danger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = [
    "ASKED",
    "Machine",
    "choose_start_method",
    "default_start_method",
    "free_memory",
    "most_children",
    "oom_kills",
    "read_machine",
    "resident_bytes",
    "this_machine",
    "usable_cpus",
    "waiting_programs",
]

# Windows can wait for at most 63 handles at once, so a Pool hangs above 61 workers there.
WINDOWS_MOST_WORKERS = 61

# Quotas and memory change slowly. Reading them takes about 90 us, which a cache hit must not pay.
REFRESH_SECONDS = 5.0


class Machine(NamedTuple):
    """The part of the machine this process may use.

    Attributes:
        cpus: usable CPUs: the least of the affinity mask, the cgroup quota rounded up,
            ``PYTHON_CPU_COUNT`` or ``-X cpu_count`` and, on Windows, ``WINDOWS_MOST_WORKERS``.
        cores: physical cores among the CPUs of the affinity mask; a hint, at least 1.
        memory_bytes: total memory the process may have: the machine's, or its cgroup's limit.
        reason: what limited ``cpus``, as text for the user.
        memory_reason: what limited ``memory_bytes``, as text for the user.
    """

    cpus: int
    cores: int
    memory_bytes: int
    reason: str
    memory_reason: str = ""

    def __str__(self) -> str:
        return (
            f"{counted(self.cpus, 'usable CPU')} ({self.reason}), "
            f"{counted(self.cores, 'physical core')}, "
            f"{self.memory_bytes / 1e9:.1f} GB ({self.memory_reason})"
        )


def this_machine() -> Machine:
    """Return the current machine, at most ``REFRESH_SECONDS`` old."""
    global _last, _last_at
    now = time.monotonic()
    affinity = _affinity()
    if _last is None or now - _last_at > REFRESH_SECONDS or affinity != _last_affinity[0]:
        _last, _last_at = read_machine(), now
        _last_affinity[0] = affinity
    return _last


_last: Machine | None = None
_last_at = 0.0
_last_affinity: list[frozenset[int]] = [frozenset()]


def usable_cpus() -> int:
    """Return the number of CPUs this process may use."""
    return this_machine().cpus


def waiting_programs(root: str = "/") -> int:
    """Return how many threads on the machine, besides this one, run or wait for a CPU now.

    Returns 0 where this is not known. It is the fourth figure of proc_loadavg(5): the averages
    before it cover minutes, and most calls end sooner. Reading it takes 15 us.

    Args:
        root: folder that replaces ``/``.
    """
    figures = _read(f"{root}/proc/loadavg").split()
    running = figures[3].partition("/")[0] if len(figures) > 3 else ""
    return max(0, int(running) - 1) if running.isdecimal() else 0


def read_machine(root: str = "/") -> Machine:
    """Read what this process may use.

    Args:
        root: folder that replaces ``/``; a test puts its own ``proc`` and ``sys`` below it.
    """
    groups = _read(f"{root}/proc/self/cgroup")
    cpus, reason = _count_cpus(root, groups)
    memory, memory_reason = _memory_limit(root, groups)
    return Machine(
        cpus=cpus,
        cores=_physical_cores(root),
        memory_bytes=memory,
        reason=reason,
        memory_reason=memory_reason,
    )


def resident_bytes() -> int:
    """Return the resident memory of this process, in bytes, at most a second old."""
    global _resident, _resident_at
    now = time.monotonic()
    if not _resident or now - _resident_at > 1.0:
        _resident, _resident_at = fresh_resident_bytes(), now
    return _resident


_resident = 0
_resident_at = 0.0


def fresh_resident_bytes() -> int:
    """Return the resident memory of this process now, in bytes."""
    text = _read("/proc/self/statm")
    if text:
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "linux":  # no file descriptor is left to read it
        return _resident
    import psutil  # only on systems without /proc

    return int(psutil.Process().memory_info().rss)


# CPUs ---------------------------------------------------------------------------------------


def _affinity() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _count_cpus(root: str, groups: str) -> tuple[int, str]:
    counts = [(len(_affinity()), "CPUs of the affinity mask")]
    quota = _cgroup_quota(root, groups)
    if quota is not None:
        counts.append((max(1, ceil(quota - 1e-9)), f"a cgroup quota of {quota:g} CPUs"))
    told, where = _told_cpus()
    if told.isdecimal() and int(told) > 0:
        counts.append((int(told), where))
    if sys.platform == "win32":
        counts.append((WINDOWS_MOST_WORKERS, "the most workers a Pool can wait for on Windows"))
    return min(counts, key=lambda pair: pair[0])


def _told_cpus() -> tuple[str, str]:
    """Return the CPU count given to Python, as text, and the setting that gives it.

    Python knows both since 3.13. The option comes before the variable, which ``-E`` hides.
    """
    option = sys._xoptions.get("cpu_count")
    if isinstance(option, str):
        return option, "-X cpu_count"
    if sys.flags.ignore_environment:
        return "", ""
    return os.environ.get("PYTHON_CPU_COUNT", ""), "PYTHON_CPU_COUNT"


def _physical_cores(root: str) -> int:
    """Count the physical cores among the usable CPUs."""
    topology = f"{root}/sys/devices/system/cpu"
    usable = _affinity()
    if _read(f"{topology}/smt/active") == "0":  # one file instead of one per CPU
        return len(usable)
    siblings = {_read(f"{topology}/cpu{cpu}/topology/thread_siblings_list") for cpu in usable}
    siblings.discard("")
    if siblings:
        return len(siblings)
    if sys.platform == "linux":
        return len(usable)
    import psutil  # not on Linux; on some ARM machines it returns None

    return psutil.cpu_count(logical=False) or len(usable)


# Control groups -----------------------------------------------------------------------------


def _cgroup_folders(root: str, groups: str, controller: str) -> tuple[str, list[str]]:
    """Return ("v1" or "v2", folders from this process's own group up to the root of the mount).

    A limit in any folder on the path applies, so all folders are returned. In a container,
    ``/proc/self/cgroup`` may name folders of the host that are not mounted; readers skip them.
    """
    unified = ""
    for line in groups.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(","):
            return "v1", _ancestors(f"{root}/sys/fs/cgroup/{controller}", path)
        if not names:
            unified = path
    if not unified:
        return "v2", []
    for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if os.path.exists(f"{root}{mount}/cgroup.controllers"):
            return "v2", _ancestors(f"{root}{mount}", unified)
    return "v2", _ancestors(f"{root}/sys/fs/cgroup", unified)


def _ancestors(mount: str, path: str) -> list[str]:
    folders = []
    while path not in ("", "/"):
        folders.append(mount + path)
        path = dirname(path)
    return [*folders, mount]


def _cgroup_quota(root: str, groups: str) -> float | None:
    """Return the smallest CPU quota on the path, in CPUs; None if there is none."""
    version, folders = _cgroup_folders(root, groups, "cpu")
    quotas = []
    for folder in folders:
        if version == "v2":
            quota, _, period = _read(f"{folder}/cpu.max").partition(" ")
        else:
            quota = _read(f"{folder}/cpu.cfs_quota_us")
            period = _read(f"{folder}/cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


# Memory -------------------------------------------------------------------------------------


def _memory_limit(root: str, groups: str) -> tuple[int, str]:
    """Return the total memory this process may have, in bytes, and what limits it."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        import psutil  # only where sysconf does not have it

        total = psutil.virtual_memory().total
    limits = [(limit, "a cgroup limit") for _, limit in _memory_groups(root, groups)]
    return min([(total, "of the machine"), *limits], key=lambda pair: pair[0])


def free_memory(root: str = "/") -> int:
    """Return the memory this process may still allocate, in bytes.

    It is the least of the machine's available memory and of what each cgroup limit leaves. Page
    cache that the kernel can reclaim does not count as used.

    Args:
        root: folder that replaces ``/``; a test puts its own ``proc`` and ``sys`` below it.
    """
    free = _available(root)
    groups = _read(f"{root}/proc/self/cgroup")
    version, _ = _cgroup_folders(root, groups, "memory")
    usage = "memory.current" if version == "v2" else "memory.usage_in_bytes"
    for folder, limit in _memory_groups(root, groups):
        used = _read(f"{folder}/{usage}")
        if used.isdecimal():
            free = min(free, max(0, limit - int(used) + _inactive_file(folder)))
    return free


# Windows waits for 64 objects at a time (``WaitForMultipleObjects``), one of which Python keeps for
# Ctrl-C. ``concurrent.futures`` leaves two for itself, and so allows as many workers.
MOST_WAITED_FOR = 61


def most_children() -> int | None:
    """Return how many workers the system allows, None for no limit.

    On Unix the limit on open files counts, on Windows how many can be waited for. A started
    process takes two file descriptors. Half of the limit is left for other uses.
    """
    try:
        import resource
    except ImportError:  # Windows
        return MOST_WAITED_FOR
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else max(1, limit // 4)


def oom_kills(root: str = "/") -> int:
    """Return how many processes the kernel has killed so far because memory ran out.

    It adds the counts of the machine and of this process's own control group, where known.

    Args:
        root: folder that replaces ``/``; a test puts its own ``proc`` and ``sys`` below it.
    """
    texts = [_read(f"{root}/proc/vmstat")]
    version, folders = _cgroup_folders(root, _read(f"{root}/proc/self/cgroup"), "memory")
    name = "memory.events" if version == "v2" else "memory.oom_control"
    texts += [_read(f"{folder}/{name}") for folder in folders[:1]]
    # The counter stands on a line of its own among some 150 others.
    places = ((text, f"\n{text}".find("\noom_kill ")) for text in texts)
    return sum(int(text[at:].split(None, 2)[1]) for text, at in places if at >= 0)


def _available(root: str) -> int:
    for line in _read(f"{root}/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    if sys.platform == "linux":  # no file descriptor is left to read it
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import psutil  # only on systems without /proc

    return int(psutil.virtual_memory().available)


def _memory_groups(root: str, groups: str) -> list[tuple[str, int]]:
    """Return (folder, limit in bytes) for each control group of this process with a limit."""
    version, folders = _cgroup_folders(root, groups, "memory")
    names = ("memory.max", "memory.high") if version == "v2" else ("memory.limit_in_bytes",)
    found = []
    for folder in folders:
        limits = [int(t) for t in (_read(f"{folder}/{name}") for name in names) if t.isdecimal()]
        if limits:
            found.append((folder, min(limits)))
    return found


def _inactive_file(folder: str) -> int:
    """Return the page cache that the kernel would reclaim first, in bytes."""
    for line in _read(f"{folder}/memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


# Start methods ------------------------------------------------------------------------------


def default_start_method() -> str:
    """Return the start method the interpreter would use, without importing multiprocessing."""
    multiprocessing = loaded("multiprocessing")
    if multiprocessing is not None:
        chosen: str | None = multiprocessing.get_start_method(allow_none=True)
        if chosen is not None:
            return chosen
    return _platform_default()


def _platform_default() -> str:
    """Return the start method that multiprocessing uses here by default."""
    if sys.platform != "linux":
        return "spawn"
    return DEFAULT_ON_LINUX


# The reason given when the caller passed ``mp_context``.
ASKED = "asked for"


def choose_start_method(
    asked: str | BaseContext | None, *, about_to: bool = True
) -> tuple[str, str]:
    """Return (start method, why), without importing multiprocessing.

    On Linux the choice is fork where fork is safe, whatever the interpreter's default. A forked
    worker has the caller's state without any transfer, and starts in 2 ms where a fresh interpreter
    takes 40. A start method that the program has set is kept.

    Args:
        asked: the ``mp_context`` option, which always wins.
        about_to: whether workers are started next; False for a plan only.
    """
    if isinstance(asked, str):
        return asked, ASKED
    if asked is not None:
        return asked.get_start_method(allow_none=True) or default_start_method(), ASKED
    method = default_start_method()
    if method != _platform_default():
        return method, "multiprocessing.set_start_method chose it"
    if sys.platform != "linux":
        return method, "the default of this platform"
    danger = fork_danger(about_to=about_to)
    if danger:
        return "forkserver", f"fork is not safe here: {danger}"
    return "fork", "this process can be forked safely"


def _read(path: str) -> str:
    """Return the text of a small file, stripped; "" if it cannot be read.

    ``open`` in text mode takes three times as long, and reading the machine is half the cost of a
    process's first decision. ``os.open`` is not used because its file descriptor would leak if a
    signal handler raised before the descriptor is stored.
    """
    try:
        with FileIO(path) as file:
            return (file.read(1 << 16) or b"").decode("ascii", "replace").strip()
    except OSError:
        return ""
