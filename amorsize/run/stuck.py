"""Prove that a worker is deadlocked, from what its threads wait for.

A forked worker may wait for a lock that a thread of its parent held, or for a thread that the fork
did not copy. Elapsed time and lack of CPU use do not show a deadlock: waiting for a network looks
the same. But the system shows what each thread waits for. If every thread of a process waits in a
futex that is private to the process, without a time limit, then no thread of the process can wake
another, and no other process can. Linux only, on x86-64 and aarch64.
"""

from __future__ import annotations

import os

from ..measure.system import PROCESSOR, read_file

__all__ = ["deadlock"]

# The number of the system call futex (asm/unistd_64.h, asm-generic/unistd.h).
_FUTEX = {"x86_64": "202", "aarch64": "98"}.get(PROCESSOR, "")
# Its operations (linux/futex.h): FUTEX_WAIT and FUTEX_WAIT_BITSET; the mask of the operation, and
# the flag of a private futex.
_WAITS = (0, 9)
_OPERATION, _PRIVATE = 127, 128


def deadlock(pid: int) -> tuple[str, ...]:
    """Return what the threads of a process wait for if none can be woken, else an empty tuple.

    A signal could still wake a thread. So the caller checks twice, and accepts only equal answers.

    Args:
        pid: id of the process, a child of this one.

    >>> deadlock(os.getpid())
    ()
    """
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        found = [_wait(f"/proc/{pid}/task/{task}/syscall") for task in tasks]
    except OSError:  # the process is gone, or not readable for this user
        return ()
    return tuple(sorted(found)) if found and all(found) else ()


def _wait(path: str) -> str:
    """Return what a thread waits for if only its own process can end the wait, else ""."""
    text = read_file(path).decode()
    fields = text.split()
    if len(fields) < 5 or fields[0] != _FUTEX:
        return ""
    operation, limit = int(fields[2], 16), int(fields[4], 16)
    private = operation & _PRIVATE and operation & _OPERATION in _WAITS
    return text if private and not limit else ""
