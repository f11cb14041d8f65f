"""Whether this process can be forked safely.

A forked child has only the thread that forked. If another thread held a lock at the fork, that
lock is never released in the child. A library that waits for one of its own threads waits for ever.
So every thread is checked:

- A Python thread is harmless while it waits and holds no lock. Python code may hold a lock inside
  a ``with`` block or after ``acquire``. The standard library and the packages listed below release
  the lock that belongs to a condition, a queue or a socket while they wait for it.
- A library's thread is harmless if the library has fork handlers, or if the child never needs the
  thread. Libraries known to be harmless are listed, and so are libraries known to break.
- Any other thread makes a fork unsafe. ``mp_context="fork"`` overrules this.

docs/engine.md has the measurements.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import types
from collections.abc import Callable

from ..lookup import load, loaded
from .system import count_threads, read_file

__all__ = ["IDLE_THREAD", "fork_danger", "got_stuck", "remember_stuck"]

# Name prefix of the thread that watches kept workers. That thread is ended before each fork.
IDLE_THREAD = "amorsize-idle"

# Long enough for a thread that waits for the GIL to get it and to execute some instructions.
SETTLE_SECONDS = 20e-6

# Libraries whose threads are harmless in a child: file name prefix -> the reason and its source.
# Each was tried (tests/surroundings).
HARMLESS = {
    "python": "its threads are looked at one by one",
    "libopenblas": "ends its threads before a fork (blas_server.c: pthread_atfork)",
    "libscipy_openblas": "NumPy's and SciPy's own copies of OpenBLAS",
    "libarrow": "starts its pools anew in the child (arrow/util/atfork_internal.h)",
    "libzmq": "serves sockets, which belong to the process that made them (pyzmq looks at the pid)",
    "libomp": "LLVM's OpenMP starts anew in the child (kmp_runtime.cpp: __kmp_register_atfork)",
    "libiomp5": "Intel's OpenMP is LLVM's",
}

# Libraries known to break: file name prefix -> the reason to report. A library in neither table
# makes a fork unsafe as well.
BREAKING = {
    "libgomp": "GNU OpenMP waits for threads that are not there (GCC bug 58378)",
    "_polars_runtime": "polars waits for threads that are not there (its user guide says so)",
    "polars": "polars waits for threads that are not there (its user guide says so)",
    "libcuda": "CUDA does not work in a forked child",
}

# Packages besides the standard library whose threads hold no lock of their own while they wait.
# Tried with tqdm 4.67, ipykernel 6 and 7, tornado 6.
_TRUSTED = ("tqdm", "ipykernel", "IPython", "tornado", "zmq", "jupyter_client", "traitlets")


def fork_danger(*, about_to: bool = True) -> str:
    """Return why forking this process is not safe, "" if it is safe.

    Args:
        about_to: whether a fork follows at once. For a plan only, the last finding about library
            threads is reused while their number is unchanged.
    """
    if count_threads() == 1:  # most programs have no other threads: 2 us instead of 6
        return _cuda_danger()
    others = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and not thread.name.startswith(IDLE_THREAD)
    ]
    return _python_danger(others) or _native_danger(about_to=about_to) or _cuda_danger()


def _python_danger(others: list[threading.Thread]) -> str:
    """Return why a Python thread makes a fork unsafe, "" if none does."""
    unknown = _unknown_threads()
    if not others and not unknown:
        return ""
    before = _places()
    time.sleep(SETTLE_SECONDS)
    after = _places()
    for thread in others:
        frame = sys._current_frames().get(thread.ident or 0)
        reason = _moving(thread, before, after) or _holding(frame)
        if reason:
            return f"the thread {thread.name} {reason}"
    for ident in unknown:
        if before.get(ident) != after.get(ident) or _holding(sys._current_frames().get(ident)):
            return "a thread started by other means than the module threading is at work"
    return ""


def _unknown_threads() -> set[int]:
    """Return the identifiers of threads that run Python code but are unknown to ``threading``."""
    idents = {thread.ident for thread in threading.enumerate()}
    return {ident for ident in sys._current_frames() if ident not in idents}


def _places() -> dict[int, tuple[int, int]]:
    """Return each thread's current frame and instruction."""
    return {ident: (id(f), f.f_lasti) for ident, f in sys._current_frames().items()}


def _moving(
    thread: threading.Thread,
    before: dict[int, tuple[int, int]],
    after: dict[int, tuple[int, int]],
) -> str:
    """Return what a thread is doing, "" if it is waiting."""
    ident = thread.ident or 0
    if ident not in after:
        return "" if ident not in before and not thread.is_alive() else "is starting or ending"
    if before.get(ident) != after[ident] or _is_running(thread.native_id):
        return "is at work"
    return ""


def _is_running(tid: int | None) -> bool:
    """Return whether a thread is on a CPU or in a run queue; False where this is not known."""
    try:
        status = read_file(f"/proc/self/task/{tid}/stat")
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[0] == b"R"


def _holding(frame: types.FrameType | None) -> str:
    """Return how a waiting thread may hold a lock, "" if it holds none."""
    # Importing dis takes 2 ms, and few processes have other threads.
    from .blocks import acquires, holds_block

    while frame is not None:
        code = frame.f_code
        if not _is_trusted(frame) and (acquires(code) or holds_block(code, frame.f_lasti)):
            return f"may hold a lock (it waits in {code.co_qualname})"
        frame = frame.f_back
    return ""


def _is_trusted(frame: types.FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    top = name.partition(".")[0]
    return top in _TRUSTED or (top in sys.stdlib_module_names and top != "__main__")


# The library threads checked last, and the finding. Libraries keep their threads, so it is reused.
_looked: tuple[frozenset[int], str] = (frozenset(), "")


def _native_danger(*, about_to: bool) -> str:
    """Return why a library's thread makes a fork unsafe, "" if none does."""
    global _looked  # noqa: PLW0603 - replaced whole: two threads may look at the same time
    others = count_threads() - threading.active_count()
    if others <= 0:
        return ""
    if not about_to and others == len(_looked[0]):
        return _looked[1]
    load("amorsize.measure.natives")
    from .natives import native_threads, thread_owners  # few programs have such threads

    python = {thread.native_id for thread in threading.enumerate() if thread.native_id is not None}
    tids = native_threads(python)
    if tids == _looked[0]:
        return _looked[1]
    found = [_judged(owner) for owner in sorted(thread_owners(tids))]
    danger = next(filter(None, found), "")
    # A thread that could not be named may have been starting or ending.
    if "cannot be named" not in danger:
        _looked = (tids, danger)
    return danger


def _judged(owner: str) -> str:
    """Return why threads of one library make a fork unsafe, "" if they do not."""
    if owner.startswith(tuple(HARMLESS)):
        return ""
    for name, why in BREAKING.items():
        if owner.startswith(name):
            return f"{why}; it runs threads"
    return f"threads of {owner} are alive" if owner else "threads are alive that cannot be named"


def _cuda_danger() -> str:
    cuda = getattr(loaded("torch"), "cuda", None)
    if cuda is not None and getattr(cuda, "is_initialized", lambda: False)():
        return "CUDA is initialised"
    return ""


# Code objects of functions whose forked workers got stuck although a fork looked safe.
_stuck: set[object] = set()


def remember_stuck(func: Callable[..., object]) -> None:
    """Remember that forked workers of a function got stuck."""
    _stuck.add(_code_of(func))


def got_stuck(func: Callable[..., object]) -> bool:
    """Return whether forked workers of a function got stuck earlier in this process."""
    return bool(_stuck) and _code_of(func) in _stuck


def _code_of(func: Callable[..., object]) -> object:
    """Return the code object that identifies a function and is shared by all its closures.

    A callable without a code object is identified by its type.
    """
    inner = getattr(func, "func", None) or getattr(func, "__func__", None) or func
    return getattr(inner, "__code__", type(inner))


if hasattr(os, "register_at_fork"):

    def _forget() -> None:
        global _looked  # noqa: PLW0603
        _looked = (frozenset(), "")

    os.register_at_fork(after_in_child=_forget)
