"""Kept workers: crews that outlive their call, for start methods whose workers start slowly.

A spawned worker takes a tenth of a second or more to start, so it is kept for the next call. State
from earlier calls is the danger of kept workers. Here no such state matters: each call sends its
function and the current values of the globals it uses (``current``), and a crew is not used again
once the caller's folder, path, environment or code has changed.

Idle crews are ended at the exit of the interpreter, or after a while by a watcher thread. This
thread lives only as long as there are idle crews. It ends before each fork and starts again
afterwards: a fork beside other threads is not safe, and Python 3.12 and later warn about it.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from ..errors import SerializationError
from ..identity.looking import namespace_of
from ..identity.owners import is_users
from ..identity.uses import Uses
from ..lookup import loaded
from ..measure.forking import IDLE_THREAD
from .crew import Lost, Running, Task
from .current import Current
from .launch import Starts
from .processes import ProcessCrew
from .reply import Reply
from .setup import Call, Setup, Shipment, Threads
from .shared import make_prefix, sweep
from .surroundings import State
from .transport import pack_common

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["Surroundings", "current_environ", "end_all", "idle_workers", "lease"]

# Long enough for the next cell of a notebook, short enough that users do not find idle processes in
# a list and wonder about them. Chosen without measurement.
IDLE_SECONDS = 60.0

# How long to wait for the watcher thread, which may be ending an idle crew. That takes some ms, and
# GRACE_SECONDS of ``processes`` at most.
JOIN_SECONDS = 1.0

# At most one crew is kept for each number of workers. Keeping a third crew ends the oldest.
MOST_CREWS = 2


class _Kept:
    """A crew and the conditions it was started under.

    Args:
        crew: the crew.
        context: the multiprocessing context it was started with.
        surroundings: the caller's surroundings when it was started.
    """

    def __init__(self, crew: ProcessCrew, context: BaseContext, surroundings: Surroundings) -> None:
        self.crew = crew
        self.context = context
        self.surroundings = surroundings
        self.codes: dict[tuple[str, str], frozenset[bytes]] = {}
        self.kinds: frozenset[int] = frozenset()  # of the user's state that its workers hold
        self.idle_since = 0.0

    def fits(self, context: BaseContext, workers: int) -> bool:
        return self.crew.workers == workers and type(self.context) is type(context)

    def set_idle(self, idle: bool) -> None:
        """Record whether the crew waits for a call or serves one."""
        self.crew.idle = idle
        self.idle_since = time.monotonic()

    def knows_other(self, codes: dict[tuple[str, str], frozenset[bytes]]) -> bool:
        """Return whether a function that the crew may have imported has changed its code."""
        return any(self.codes.get(key, digests) != digests for key, digests in codes.items())


class Surroundings:
    """What a worker started now would take over from this process."""

    def __init__(self) -> None:
        try:
            folder = os.getcwd()
        except OSError:  # it was removed
            folder = ""
        self.place = folder, tuple(sys.path), dict(os.environ)
        # A reloaded module has a new spec.
        self.specs = {
            name: namespace_of(module).get("__spec__")
            for name, module in list(sys.modules.items())
            if is_users(name)
        }

    def still_hold(self, now: Surroundings) -> bool:
        """Return whether all of this is unchanged; modules loaded since are ignored."""
        return self.place == now.place and all(
            self.specs[name] is now.specs[name] for name in self.specs.keys() & now.specs.keys()
        )


_lock = threading.Condition()  # looked up at each use: a forked child replaces it
_idle: list[_Kept] = []  # the longest idle first
_watchers: list[threading.Thread] = []  # the current watcher thread; none or one


def lease(
    context: BaseContext,
    workers: int,
    call: Call,
    used: Uses,
    current: Current,
    threads: Threads | None,
    state: State,
) -> Lease | None:
    """Return a crew for one call: a kept one, or a new one that will be kept.

    Args:
        context: the multiprocessing context; not for fork.
        workers: how many.
        call: the call.
        used: what its function uses.
        current: the caller's values of what the function uses.
        threads: as in ``Setup``.
        state: the state that the caller runs in.

    Returns:
        The crew; None where a crew cannot be kept for this function: it can only be sent while a
        worker is started, there is no room for it in shared memory, or it uses too much to search.

    Raises:
        CannotStart: a process, pipe or socket cannot be created.
    """
    if not used.whole:
        return None
    prefix = make_prefix()
    shipment = None
    try:
        shipment = _pack(call, current, state, prefix)
        if shipment is None:
            return None
        surroundings = Surroundings()
        kept = _take(context, workers, surroundings, used.codes, state.kinds)
        reused = kept is not None
        if kept is None:
            blank = Setup(None, None, (), environ=current_environ(context), threads=threads)
            starts = Starts(context, used.libraries, threads)
            crew = ProcessCrew(starts, workers, blank, inherits=False)
            kept = _Kept(crew, context, surroundings)
    except BaseException:  # no process could be started, or Ctrl-C
        sweep(prefix)
        raise
    kept.codes |= used.codes
    kept.kinds = state.kinds
    kept.surroundings.specs = surroundings.specs | kept.surroundings.specs
    return Lease(kept, shipment, prefix, reused=reused)


def current_environ(context: BaseContext) -> dict[str, str] | None:
    """Return the environment to send to new workers; None where they inherit it.

    Workers of a fork server inherit the environment that the server was started with, so they are
    sent the caller's present one.
    """
    return dict(os.environ) if context.get_start_method() == "forkserver" else None


def idle_workers(method: str) -> tuple[int, ...]:
    """Return the number of workers of each idle crew with this start method."""
    with _lock:
        return tuple(
            kept.crew.workers for kept in _idle if kept.context.get_start_method() == method
        )


def end_all() -> None:
    """End all idle crews, and the thread that watches them."""
    with _lock:
        ending = list(_idle)
        _idle.clear()
    for kept in ending:
        kept.crew.end()
    _pause()


def _pause() -> None:
    """End the thread that watches the idle crews."""
    with _lock:
        watchers = list(_watchers)
        _watchers.clear()
        _lock.notify_all()
    for watcher in watchers:
        # With a limit: this runs before every fork, whatever the program is doing.
        watcher.join(JOIN_SECONDS)


def _resume() -> None:
    """Start watching idle crews again."""
    with _lock:
        if _idle:
            _watch()


class Lease:
    """A kept crew while it serves one call; a ``Crew`` for the engine.

    Args:
        kept: the crew.
        shipment: the call.
        prefix: prefix of the shared segments that hold the call.
        reused: whether the crew served another call before.
    """

    inherited = False
    has_first = False
    claims = True
    nodes: dict[int, str] = {}  # noqa: RUF012 - never written to

    def __init__(self, kept: _Kept, shipment: Shipment, prefix: str, *, reused: bool) -> None:
        crew = kept.crew
        self.workers = crew.workers
        self.reused = reused
        self.started_at = time.monotonic() if reused else crew.started_at
        self.start_seconds = 0.0 if reused else crew.start_seconds
        self.end_seconds = 0.0
        self.peaks: dict[int, int] = {}
        self._kept: _Kept | None = kept
        self._crew = crew
        self._prefix = prefix
        self.shipped_bytes = shipment.call.size + shipment.current.size
        crew.begin(shipment)

    @property
    def ready(self) -> int:
        """Number of workers that have been set up."""
        return self._crew.ready

    @property
    def ready_at(self) -> float | None:
        """When the first worker was set up, on the monotonic clock, s; None before."""
        return self.started_at if self.reused else self._crew.ready_at

    def submit(self, task: Task) -> int:
        """Hand out a task; return the size of its items as sent, in bytes."""
        return self._crew.submit(task)

    def take_back(self) -> int | None:
        """Withdraw a chunk that no worker has taken; return its number, None if there is none."""
        return self._crew.take_back()

    def has_tasks(self) -> bool:
        """Return whether any task waits that no worker has taken."""
        return self._crew.has_tasks()

    def has_news(self) -> bool:
        """Return whether anything has arrived from workers, or one has ended."""
        return self._crew.has_news()

    def dismiss(self) -> bool:
        """Do nothing, and return False: the workers are kept."""
        return False

    def replies(self, timeout: float) -> list[tuple[int, Reply]]:
        """Wait up to ``timeout`` seconds for replies; return (chunk, reply) of all that came."""
        return self._crew.replies(timeout)

    def running(self) -> dict[int, Running]:
        """Return the last report of each worker, by its pid."""
        return self._crew.running()

    def lost(self) -> Lost | None:
        """Return a worker that died or is stuck, None while all are well."""
        return self._crew.lost()

    def close(self) -> None:
        """Give back the crew, whose workers are all idle."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            self._crew.sweep()
            self.sweep()
            if _is_measured():
                self._crew.close()
            else:
                _keep(kept)

    def abandon(self) -> list[tuple[int, Reply]]:
        """End the workers at once, whatever they do; return the replies that still arrived."""
        if self._kept is None:
            return []
        self._kept = None
        return self._crew.abandon()

    def sweep(self) -> None:
        """Free the segments of the call and, once the crew has ended, those of unopened replies."""
        if self._crew.ended:
            self._crew.sweep()
        if not self._crew.is_inherited():
            sweep(self._prefix)


def _pack(call: Call, current: Current, state: State, prefix: str) -> Shipment | None:
    """Return a call ready to be sent to running workers; None if it cannot be sent."""
    try:
        parcels = [pack_common(part, prefix) for part in (state, current, call)]
    except SerializationError:
        parcels = [None]
    whole = [parcel for parcel in parcels if parcel is not None]
    if len(whole) < len(parcels) or len(whole) < 3:
        sweep(prefix)
        return None
    return Shipment(os.urandom(8).hex(), *whole)


def _take(
    context: BaseContext,
    workers: int,
    surroundings: Surroundings,
    codes: dict[tuple[str, str], frozenset[bytes]],
    kinds: frozenset[int],
) -> _Kept | None:
    """Take a fitting crew from the idle crews; end those that no longer fit."""
    with _lock:
        found = [kept for kept in _idle if kept.fits(context, workers)]
        stale = [kept for kept in _idle if not kept.surroundings.still_hold(surroundings)]
        stale += [
            kept
            for kept in found
            if kept not in stale
            and (
                kept.knows_other(codes)
                or kept.kinds - kinds  # only the user could undo that state
                or not kept.crew.is_well()
            )
        ]
        found = [kept for kept in found if kept not in stale]
        taken = found[-1] if found else None
        for kept in (*stale, *([taken] if taken else [])):
            _idle.remove(kept)
    for kept in stale:
        kept.crew.end()
    if taken is not None:
        taken.set_idle(False)
    return taken


def _is_measured() -> bool:
    """Return whether coverage is measured: workers save their coverage data as they end.

    Test runners combine the data before this process ends. Kept workers would still run then.
    """
    coverage = loaded("coverage")
    return coverage is not None and coverage.Coverage.current() is not None


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


def _watch() -> None:
    """Start the watcher thread if there is none; the lock must be held."""
    if not _watchers:
        thread = threading.Thread(target=_end_idle, name=f"{IDLE_THREAD}-watcher", daemon=True)
        _watchers.append(thread)
        thread.start()


def _end_idle() -> None:
    """End crews that have been idle for ``IDLE_SECONDS``; return when none are left."""
    while True:
        with _lock:
            if threading.current_thread() not in _watchers:  # removed by _pause(), to end
                return
            if not _idle:
                _watchers.clear()
                return
            left = _idle[0].idle_since + IDLE_SECONDS - time.monotonic()
            if left > 0:
                _lock.wait(left)
                continue
            kept = _idle.pop(0)
        kept.crew.end()


def _forget_all() -> None:
    """Forget the parent's crews in a forked child: they belong to the parent."""
    global _lock  # noqa: PLW0603 - the old one may be held by a thread that is not here
    _lock = threading.Condition()
    _idle.clear()
    _watchers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_pause, after_in_parent=_resume, after_in_child=_forget_all)
