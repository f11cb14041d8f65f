"""Whose threads a process has: those that no Python code started, and the libraries they run.

The system lists the threads of a process, and where each one's stack is, but not what started it.
That stands on the stack itself: the outermost return address that does not lead into the C library
leads into the library whose thread it is. Linux only, on x86-64 and aarch64.
"""

from __future__ import annotations

import itertools
import os
from bisect import bisect_right
from io import FileIO
from struct import unpack

from .system import PROCESSOR, Region, memory_regions, read_file

__all__ = ["native_threads", "thread_ids", "thread_owners"]

# Threads that Python started run its own code first; a program may be linked with it.
PYTHON = "python"

# What a thread's own code is called by, whoever it belongs to.
_NEUTRAL = ("libc.", "libc-", "libpthread", "ld-linux", "libstdc++", "libgcc_s", "libm.", "[vdso]")

# Of a stack: as much as the frames of a thread that waits take (seen: 0.3 to 4 kB), and as much of
# the upper end as what stands above the frames takes (thread-local data; seen: up to 20 kB).
_FRAMES_BYTES = 16_384
_TOP_BYTES = 65_536


def thread_ids() -> frozenset[int]:
    """Return the system's numbers of all threads of this process; none where it does not tell."""
    try:
        return frozenset(map(int, os.listdir("/proc/self/task")))
    except OSError:
        return frozenset()


def native_threads(python: set[int]) -> frozenset[int]:
    """Return the threads that are none of Python's.

    Args:
        python: the system's numbers of the threads that are.
    """
    return thread_ids() - python


def thread_owners(tids: frozenset[int]) -> set[str]:
    """Return the libraries that some threads belong to, by the names of their files.

    Args:
        tids: the system's numbers of the threads.

    Returns:
        The names; "python" for Python's own, "" where it cannot be found out.
    """
    try:
        with FileIO("/proc/self/mem") as memory:
            return _Stacks(memory.fileno(), memory_regions()).owners(tids)
    except OSError:
        return {""}


class _Stacks:
    """The stacks of this process.

    Args:
        memory: descriptor of ``/proc/self/mem``.
        regions: what its memory consists of, in order.
    """

    def __init__(self, memory: int, regions: list[Region]) -> None:
        self._memory = memory
        self._regions = regions
        self._starts = [region.start for region in regions]

    def owners(self, tids: frozenset[int]) -> set[str]:
        found: set[str] = set()
        claimed: set[int] = set()
        running = False
        for tid in tids:
            pointer = _stack_pointer(tid)
            region = None if pointer is None else self._region(pointer)
            if pointer is None or region is None:
                running = True
                continue
            claimed.add(region.start)
            found.add(self._owner(pointer, min(region.end, pointer + _FRAMES_BYTES)))
        if running:
            # Which stack is that of a thread that runs is not told: it is one of the others.
            others = [region for region in self._thread_stacks() if region.start not in claimed]
            found |= {self._owner(max(r.start, r.end - _TOP_BYTES), r.end) for r in others}
        return found

    def _thread_stacks(self) -> list[Region]:
        """Return the regions that look like stacks of threads: a page that must not be touched."""
        return [
            region
            for guard, region in itertools.pairwise(self._regions)
            if guard.access.startswith("---")
            and guard.end == region.start
            and region.access.startswith("rw")
            and not region.path
        ]

    def _owner(self, low: int, high: int) -> str:
        """Return the library of the outermost frame between two addresses."""
        size = (high - low) // 8 * 8
        try:
            data = os.pread(self._memory, size, low)
        except OSError:
            return ""
        words = unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
        for word in reversed(words):
            region = self._region(word)
            if region is None or "x" not in region.access or not region.path:
                continue
            name = region.path.rpartition("/")[2]
            if not name.startswith(_NEUTRAL) and self._is_return(word):
                return PYTHON if name.startswith(("python", "libpython")) else name
        return ""

    def _region(self, address: int) -> Region | None:
        place = bisect_right(self._starts, address) - 1
        if place < 0 or address >= self._regions[place].end:
            return None
        return self._regions[place]

    def _is_return(self, address: int) -> bool:
        """Return whether the instruction before an address is a call."""
        try:
            before = os.pread(self._memory, 8, address - 8)
        except OSError:
            return False
        if len(before) < 8:
            return False
        if PROCESSOR == "aarch64":
            (code,) = unpack("<I", before[4:])
            return bool(code & 0xFC000000 == 0x94000000 or code & 0xFFFFFC1F == 0xD63F0000)
        # call rel32; or call through a register or memory, of two to seven bytes.
        return before[3] == 0xE8 or any(
            before[place] == 0xFF and before[place + 1] >> 3 & 7 == 2 for place in range(1, 7)
        )


def _stack_pointer(tid: int) -> int | None:
    """Return where the stack of a thread that waits in the kernel stands, None while it runs."""
    try:
        fields = read_file(f"/proc/self/task/{tid}/syscall").split()
    except OSError:
        return None
    return int(fields[-2], 16) if len(fields) > 2 else None
