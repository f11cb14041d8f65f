"""How much memory workers need for their items, beyond what they start with.

The caller's own peak does not show this: the peak does not grow if the caller needed more memory
before. A forked worker's peak begins at the memory it inherits, so the growth is the worker's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from ..decide.planner import worker_bytes
from ..measure.system import read_file

__all__ = ["WorkerMemory", "private_peak"]


# The peak of the resident memory, and its present parts, as ``proc_pid_status(5)`` names them.
_NAMES = ("VmHWM", "RssAnon", "RssFile", "RssShmem")


class WorkerMemory:
    """Reads the peak memory of workers before they end.

    Args:
        method: start method.

    Attributes:
        grown: largest growth of the peak of a worker, in bytes; None if unknown.
    """

    def __init__(self, method: str) -> None:
        self.grown: int | None = None
        self._own = self._there = worker_bytes(method)
        self._forked = method == "fork"

    def begin(self) -> None:
        """Record the memory that workers started from now on begin with."""
        inherited = _figures("self").get("RssAnon", 0) if self._forked else 0
        self._there = self._own + inherited

    def look(self, workers: Iterable[int], told: Mapping[int, int] | None = None) -> None:
        """Read the peaks of workers.

        Args:
            workers: their pids; the calling process is ignored.
            told: what ``private_peak`` returned in the workers that have left, by pid.
        """
        for worker in {*workers} - {0, os.getpid()}:
            peak = (told or {}).get(worker) or private_peak(str(worker))
            if peak:
                self.grown = max(self.grown or 0, peak - self._there)


def private_peak(process: str = "self") -> int:
    """Return the largest resident memory of a process without pages of files, in bytes; 0: unknown.

    Pages of files are shared between processes. They are hardly ever given back, so their present
    size is taken for that at the peak.
    """
    found = _figures(process)
    if "VmHWM" not in found:
        return 0
    return found["VmHWM"] - found.get("RssFile", 0) - found.get("RssShmem", 0)


def _figures(process: str) -> dict[str, int]:
    """Return what the kernel reports of a process's memory, in bytes by name; {} if it ended."""
    try:
        text = read_file(f"/proc/{process}/status")
    except OSError:
        return {}
    # Only these four of some sixty lines: a worker reads this as it ends, and each page of memory
    # that it writes to takes some us.
    found = ((name, text.find(b"\n" + name.encode() + b":")) for name in _NAMES)
    return {name: int(text[at:].split(None, 2)[1]) * 1024 for name, at in found if at >= 0}
