"""Which libraries own the threads that no Python code started.

The system lists the threads of a process and their stack pointers, but not what started them. The
stack itself shows it: the outermost return address outside the C library leads into the library
that owns the thread. Linux only, on x86-64 and aarch64.
"""

from __future__ import annotations

import itertools
import os
from bisect import bisect_right
from io import FileIO
from struct import unpack

from .system import PROCESSOR, Region, memory_regions, read_file

__all__ = ["native_threads", "thread_ids", "thread_owners"]

# The owner of a thread whose outermost frame is in the interpreter: its executable or libpython.
PYTHON = "python"

# Files whose code calls the first function of any thread, so they do not show its owner.
_NEUTRAL = ("libc.", "libc-", "libpthread", "ld-linux", "libstdc++", "libgcc_s", "libm.", "[vdso]")

# How much of a stack to read: for a waiting thread, enough for its frames (seen: 0.3 to 4 kB); for
# a running one, enough of the upper end to get below the thread-local data (seen: up to 20 kB).
_FRAMES_BYTES = 16_384
_TOP_BYTES = 65_536


def thread_ids() -> frozenset[int]:
    """Return the system's numbers of all threads of this process; empty where not known."""
    try:
        return frozenset(map(int, os.listdir("/proc/self/task")))
    except OSError:
        return frozenset()


def native_threads(python: set[int]) -> frozenset[int]:
    """Return the threads of this process that are not Python threads.

    Args:
        python: the system's numbers of the Python threads.
    """
    return thread_ids() - python


def thread_owners(tids: frozenset[int]) -> set[str]:
    """Return the file names of the libraries that own some threads.

    Args:
        tids: the system's numbers of the threads.

    Returns:
        The names; "python" for the interpreter, "" for an unknown owner.
    """
    try:
        with FileIO("/proc/self/mem") as memory:
            return _Stacks(memory.fileno(), memory_regions()).owners(tids)
    except OSError:
        return {""}


class _Stacks:
    """The stacks of this process.

    Args:
        memory: file descriptor of ``/proc/self/mem``.
        regions: the regions of its memory, in order of address.
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
            # The system hides the stack pointer of a running thread: try all unclaimed stacks.
            others = [region for region in self._thread_stacks() if region.start not in claimed]
            found |= {self._owner(max(r.start, r.end - _TOP_BYTES), r.end) for r in others}
        return found

    def _thread_stacks(self) -> list[Region]:
        """Return the regions that look like thread stacks: unnamed, just above a guard page."""
        return [
            region
            for guard, region in itertools.pairwise(self._regions)
            if guard.access.startswith("---")
            and guard.end == region.start
            and region.access.startswith("rw")
            and not region.path
        ]

    def _owner(self, low: int, high: int) -> str:
        """Return the owner of the outermost frame between two addresses, "" if there is none."""
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
        # Either call rel32, or a call of two to seven bytes through a register or memory.
        return before[3] == 0xE8 or any(
            before[place] == 0xFF and before[place + 1] >> 3 & 7 == 2 for place in range(1, 7)
        )


def _stack_pointer(tid: int) -> int | None:
    """Return the stack pointer of a thread that waits in the kernel, None for a running thread."""
    try:
        fields = read_file(f"/proc/self/task/{tid}/syscall").split()
    except OSError:
        return None
    return int(fields[-2], 16) if len(fields) > 2 else None
