"""Crews that outlive their call, for start methods whose workers take long to start.

A spawned worker takes a tenth of a second and more to start, so it is kept for the next call. What
makes keeping workers dangerous is what they remember. These remember nothing that counts: each
call sends its function and the current values of the globals it uses (``current``), and a crew is
not used again once the caller's folder, path, environment or code has changed.

Idle crews are ended after a while by a thread that lives only as long as there are any, before any
fork, and at the exit of the interpreter.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from ..decide.fingerprint import uses
from ..decide.machine import IDLE_THREAD
from ..errors import SerializationError
from .crew import Lost, Running, Task
from .current import current_values, those_that_travel
from .pool import ProcessCrew
from .transport import Parcel, pack_common
from .worker import Call, Reply, Setup, Shipment, Threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from typing import Any

__all__ = ["end_all", "idle_workers", "lease"]

# Long enough for the next cell of a notebook, short enough not to be found in a list of processes
# and wondered about. Pulled out of the air.
IDLE_SECONDS = 60.0

# Of each number of workers there is one at most; a third kind sends the oldest away.
MOST_CREWS = 2


class _Kept:
    """A crew and what it was started under.

    Args:
        crew: the crew.
        context: what it was started with.
        surroundings: of the caller when it was started.
    """

    def __init__(self, crew: ProcessCrew, context: BaseContext, surroundings: object) -> None:
        self.crew = crew
        self.context = context
        self.surroundings = surroundings
        self.codes: dict[tuple[str, str], frozenset[bytes]] = {}
        self.idle_since = 0.0

    def fits(self, context: BaseContext, workers: int, surroundings: object) -> bool:
        return (
            self.crew.workers == workers
            and type(self.context) is type(context)
            and self.surroundings == surroundings
        )

    def set_idle(self, idle: bool) -> None:
        """Note that the crew waits for a call, or serves one."""
        self.crew.idle = idle
        self.idle_since = time.monotonic()
        for thread in self.crew.threads:
            thread.name = f"{IDLE_THREAD if idle else 'amorsize'}-{thread.ident}"

    def knows_other(self, codes: dict[tuple[str, str], frozenset[bytes]]) -> bool:
        """Return whether a function it may have imported has other code by now."""
        return any(self.codes.get(key, digests) != digests for key, digests in codes.items())


_lock = threading.Condition()
_idle: list[_Kept] = []  # the one that waits longest first
_watchers: list[threading.Thread] = []


def lease(context: BaseContext, workers: int, call: Call, threads: Threads | None) -> Lease | None:
    """Return a crew for one call: a kept one, or a new one that will be kept.

    Args:
        context: the multiprocessing context; not for fork.
        workers: how many.
        call: the call.
        threads: as in ``Setup``.

    Returns:
        The crew; None where the function can only travel while a worker is started, or there is
        no room for it to lie.

    Raises:
        OSError: a process, pipe or semaphore cannot be had.
    """
    used = uses(call.func)
    surroundings = _surroundings()
    kept = _take(context, workers, surroundings, used.codes)
    reused = kept is not None
    if kept is None:
        blank = Setup(None, None, (), threads=threads)
        kept = _Kept(ProcessCrew(context, workers, blank, inherits=False), context, surroundings)
    try:
        parcel = _pack(call, current_values(used), kept.crew.prefix)
    except SerializationError:
        parcel = None
    except BaseException:  # Ctrl-C while much is pickled
        kept.crew.end()
        raise
    if parcel is None:
        _keep(kept)
        return None
    kept.codes |= used.codes
    return Lease(kept, parcel, reused=reused)


def idle_workers(method: str) -> tuple[int, ...]:
    """Return the numbers of workers of the crews that wait for a call with this start method."""
    with _lock:
        return tuple(
            kept.crew.workers for kept in _idle if kept.context.get_start_method() == method
        )


def end_all() -> None:
    """End all idle crews, and whoever watches them."""
    while True:
        with _lock:
            watchers = list(_watchers)
            kept = _idle.pop() if _idle else None
            _lock.notify_all()
        if kept is None:
            break
        kept.crew.end()
    for watcher in watchers:
        if watcher is not threading.current_thread():
            watcher.join()


class Lease:
    """A kept crew in the hands of one call; the engine sees a ``Crew``.

    Args:
        kept: the crew.
        parcel: the call.
        reused: whether the crew served another call before.
    """

    inherited = False

    def __init__(self, kept: _Kept, parcel: Parcel, *, reused: bool) -> None:
        crew = kept.crew
        self.workers = crew.workers
        self.reused = reused
        self.started_at = time.monotonic() if reused else crew.started_at
        self.start_seconds = 0.0 if reused else crew.start_seconds
        self.end_seconds = 0.0
        self._kept: _Kept | None = kept
        self._crew = crew
        self._parcel = parcel
        crew.begin(Shipment(parcel.segment, parcel))

    @property
    def ready(self) -> int:
        """Number of workers that have been set up."""
        return self._crew.ready

    @property
    def ready_at(self) -> float | None:
        """When the first was set up, on the monotonic clock, s; None before."""
        return self.started_at if self.reused else self._crew.ready_at

    def submit(self, task: Task) -> int:
        """Hand out a task; return the bytes its items took on the way."""
        return self._crew.submit(task)

    def replies(self, timeout: float) -> list[tuple[int, Reply]]:
        """Wait up to ``timeout`` seconds for replies; return (chunk, reply) of all there are."""
        return self._crew.replies(timeout)

    def running(self) -> dict[int, Running]:
        """Return what each worker said last, by its pid."""
        return self._crew.running()

    def lost(self) -> Lost | None:
        """Return a worker that died, None while all are well."""
        return self._crew.lost()

    def close(self) -> None:
        """Give the crew back, all of whose workers are idle."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            self._crew.sweep()
            _keep(kept)

    def abandon(self) -> list[tuple[int, Reply]]:
        """End the workers at once, whatever they do; return replies that still came through."""
        if self._kept is None:
            return []
        self._kept = None
        return self._crew.abandon()

    def sweep(self) -> None:
        """Free what replies that nobody opened left behind; after the crew has ended."""
        if self._crew.ended:
            self._crew.sweep()


def _pack(call: Call, values: tuple[Any, ...], prefix: str) -> Parcel | None:
    try:
        return pack_common((call, values), prefix)
    except SerializationError:
        return pack_common((call, those_that_travel(values)), prefix)


def _take(
    context: BaseContext,
    workers: int,
    surroundings: object,
    codes: dict[tuple[str, str], frozenset[bytes]],
) -> _Kept | None:
    """Take a fitting crew out of those that wait; end what fits no more."""
    with _lock:
        found = [kept for kept in _idle if kept.fits(context, workers, surroundings)]
        stale = [kept for kept in _idle if kept.surroundings != surroundings]
        stale += [kept for kept in found if kept.knows_other(codes) or not kept.crew.is_well()]
        found = [kept for kept in found if kept not in stale]
        taken = found[-1] if found else None
        for kept in (*stale, *([taken] if taken else [])):
            _idle.remove(kept)
    for kept in stale:
        kept.crew.end()
    if taken is not None:
        taken.set_idle(False)
    return taken


def _keep(kept: _Kept) -> None:
    kept.set_idle(True)
    with _lock:
        _idle.append(kept)
        surplus = _idle[:-MOST_CREWS]
        surplus += [k for k in _idle[-MOST_CREWS:-1] if k.crew.workers == kept.crew.workers]
        for other in surplus:
            _idle.remove(other)
        _watch()
    for other in surplus:
        other.crew.end()


def _surroundings() -> object:
    """Return what a worker started now would take over from this process."""
    try:
        folder = os.getcwd()
    except OSError:  # it was removed
        folder = ""
    return folder, tuple(sys.path), dict(os.environ)


def _watch() -> None:
    """Have somebody look at the time; called with the lock held."""
    if not _watchers:
        thread = threading.Thread(target=_end_idle, name=f"{IDLE_THREAD}-watcher", daemon=True)
        _watchers.append(thread)
        thread.start()


def _end_idle() -> None:
    """End crews as they have waited long enough; return when there are none."""
    while True:
        with _lock:
            if not _idle:
                _watchers.clear()
                return
            left = _idle[0].idle_since + IDLE_SECONDS - time.monotonic()
            if left > 0:
                _lock.wait(left)
                continue
            kept = _idle.pop(0)
        kept.crew.end()


def _before_fork() -> None:
    """Leave nothing idle to a child that is being forked: no thread, and no lock that is held."""
    end_all()
    _lock.acquire()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release
    )
