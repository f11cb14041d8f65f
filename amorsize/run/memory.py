"""How much memory workers need for their items, beyond what they start with.

The caller's own peak does not show this: the peak does not grow if the caller needed more memory
before. A forked worker's peak begins at the memory it inherits, so the growth is the worker's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..decide.planner import worker_bytes
from ..measure.system import read_file

__all__ = ["WorkerMemory"]


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

    def look(self, workers: Iterable[int]) -> None:
        """Read the peaks of living workers.

        Args:
            workers: their pids; the calling process is ignored.
        """
        for worker in {*workers} - {0, os.getpid()}:
            found = _figures(str(worker))
            if "VmHWM" not in found:
                continue
            # Pages of files are shared between processes. They are hardly ever given back, so
            # their present size is taken for that at the peak.
            shared = found.get("RssFile", 0) + found.get("RssShmem", 0)
            self.grown = max(self.grown or 0, found["VmHWM"] - shared - self._there)


def _figures(process: str) -> dict[str, int]:
    """Return what the kernel reports of a process's memory, in bytes by name; {} if it ended."""
    try:
        lines = read_file(f"/proc/{process}/status").decode("ascii", "replace").splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in fields}
