"""Whether the present code runs inside a worker, where no further workers are started."""

from __future__ import annotations

from _thread import _local
from collections.abc import Iterator
from contextlib import contextmanager

from .lookup import loaded

__all__ = [
    "as_worker_thread",
    "enter_worker_process",
    "enter_worker_thread",
    "in_worker_thread",
    "inside_worker",
]


class _Here(_local):
    """What is known of the present thread."""

    is_worker = False


_here = _Here()
_processes: set[str] = set()  # not empty in a worker process


def enter_worker_thread() -> None:
    """Note that the present thread is a worker."""
    _here.is_worker = True


@contextmanager
def as_worker_thread() -> Iterator[None]:
    """Be a worker for a while: the thread is somebody else's."""
    before, _here.is_worker = _here.is_worker, True
    try:
        yield
    finally:
        _here.is_worker = before


def in_worker_thread() -> str:
    """Return what kind of worker this thread is, in words; "" if it is none."""
    return "this is a worker thread of another call already" if _here.is_worker else ""


def enter_worker_process() -> None:
    """Note that the present process is a worker, also where multiprocessing is not loaded."""
    _processes.add("worker")


def inside_worker() -> str:
    """Return what kind of worker runs the present code, in words; "" outside of workers.

    >>> inside_worker()
    ''
    """
    if _here.is_worker:
        return in_worker_thread()
    multiprocessing = loaded("multiprocessing")
    if multiprocessing is None:
        is_daemon = bool(_processes)
    else:  # a worker may have started another process, which may start workers
        is_daemon = multiprocessing.current_process().daemon
    if is_daemon:
        return "this is a daemonic worker process, which may not start processes"
    return ""
