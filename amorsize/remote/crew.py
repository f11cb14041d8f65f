"""A crew on an engine that the user already has: one more crew for amorsize's own engine.

Chunks are handed to the other engine, which decides where they run. What comes back arrives in
threads of that engine, and is put into a queue. A chunk that was lost with its worker comes back as
such, and the others go on.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from functools import partial
from queue import SimpleQueue

from ..errors import SerializationError, WorkerLostError
from ..run import logs
from ..run.crew import Lost, Running, Task
from ..run.failure import keep
from ..run.losses import worded
from ..run.reply import Reply
from ..run.start import packed_call
from ..run.surroundings import put_in_thread, take_of_thread, take_own
from ..run.threads import take_all
from ..run.transport import Parcel, pack_shipped
from .held import Held
from .links import note_link
from .ramp import Ramp
from .runner import Answer, SharedShip, Ship, Work, origin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..run.setup import Setup
    from .clusters import Cluster

__all__ = ["RemoteCrew"]

# Workers that are assumed at first where the engine does not tell how many it has.
FIRST_WORKERS = 2
# How often the engine is asked how many workers it has, and whether it is well, s.
ASK_SECONDS = 1.0
# Chunks that move so many bytes show what a byte costs.
LARGE_BYTES = 1 << 20


class RemoteCrew:
    """Workers of another engine, for one call.

    Args:
        cluster: the engine.
        setup: what its workers run.
        sample: an item; what it refers to counts as used, too.
        lenient: called with a warning about state that cannot be sent; None raises instead.
        limit: most workers to use, None for all.

    Raises:
        SerializationError: the call cannot be sent.
    """

    reused, claims, has_first, inherited = False, True, False, False

    def __init__(
        self,
        cluster: Cluster,
        setup: Setup,
        *,
        sample: object,
        lenient: Callable[[str], None] | None,
        limit: int | None,
    ) -> None:
        name, python = os.urandom(8).hex(), sys.version_info[:2]
        self.shipped_bytes = 0
        ship: Ship | SharedShip
        if cluster.shares_memory:
            surround = partial(put_in_thread, take_of_thread(), take_own())
            context = contextvars.copy_context()
            ship = SharedShip(name, setup, surround, context, threading.Event())
        else:
            main = getattr(sys.modules.get("__main__"), "__file__", None) or ""
            ship = Ship(name, python, origin(), main, packed_call(setup, sample, lenient))
            self.shipped_bytes = sum(map(len, ship.content or ()))
        self.started_at = time.monotonic()
        self.end_seconds = 0.0
        self.peaks: dict[int, int] = {}
        self.nodes: dict[int, str] = {}
        self._numbers: dict[str, int] = {}  # of the nodes
        self._cluster = cluster
        self._found: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
        # What cancels a chunk, when it went out, and its bytes.
        self._out: dict[int, tuple[Any, float, int]] = {}
        self._refused: list[tuple[int, Reply]] = []
        self._fatal: BaseException | None = None  # what the engine has raised
        self._held = Held(cluster.hold)
        self._ended = False
        self._limit = limit
        told = self._capacity()
        self._ramp = None if told else Ramp(FIRST_WORKERS)
        self.workers = told or FIRST_WORKERS
        self._asked = time.monotonic()
        self._round_trip = 0.0
        self._byte_seconds: float | None = None
        self._ship = cluster.ship(ship)
        self.start_seconds = time.monotonic() - self.started_at
        self.ready_at: float | None = time.monotonic()

    @property
    def ready(self) -> int:
        """Number of workers that have been set up."""
        return self.workers

    @property
    def round_trip(self) -> float:
        """What a chunk takes beside its items, at least, s; 0 while not known."""
        return self._round_trip

    def submit(self, task: Task) -> int:
        """Hand out a task; return the number of bytes sent for its items.

        Raises:
            WorkerLostError: the engine takes no tasks any more.
        """
        assert task.columns is not None
        columns: Parcel | tuple[Any, ...] = task.columns
        if not self._cluster.shares_memory:
            self._held.begin()
            try:
                columns = pack_shipped(
                    task.columns, "", start=task.start, replace=self._held.replaced
                )
            except SerializationError as error:
                failure = keep(error, error.index)._replace(unrun=True)
                self._refused.append((task.chunk, Reply([], 0, failure, 0, 0.0, 0.0, 0.0)))
                return 0
        number = task.chunk

        def came(value: Any, error: BaseException | None) -> None:
            self._found.put((number, value, error))

        held = self._held.used
        chunk = Work(task.start, task.size, columns, tuple(held))
        since = time.monotonic()
        size = columns.size if isinstance(columns, Parcel) else 0
        try:
            handle = self._cluster.submit(self._ship, chunk, came, tuple(held.values()))
        except BrokenExecutor as error:
            raise _explained(error) from error
        self._out[number] = handle, since, size
        return size

    def take_back(self) -> int | None:
        """Return None: what was handed out is the engine's."""
        return None

    def has_tasks(self) -> bool:
        """Return whether any chunk is out."""
        return bool(self._out)

    def has_news(self) -> bool:
        """Return whether anything has come back."""
        return bool(self._refused) or not self._found.empty()

    def dismiss(self) -> bool:
        """Do nothing, and return False: the workers are not ours."""
        return False

    def replies(self, timeout: float) -> list[tuple[int, Reply]]:
        """Wait up to ``timeout`` seconds for replies; return (chunk, reply) of all that came."""
        replies, self._refused = self._refused, []
        for number, value, error in take_all(self._found, 0.0 if replies else timeout):
            reply = self._taken(number, value, error)
            if reply is not None:
                replies.append((number, reply))
        return replies

    def running(self) -> dict[int, Running]:
        """Return nothing: what runs is known to the engine only."""
        return {}

    def lost(self) -> Lost | None:
        """Return None: the engine replaces its workers.

        Raises:
            WorkerLostError: the engine itself is gone.
            Exception: what it has raised instead of running a chunk.
        """
        if self._fatal is not None and not self._ended:
            raise self._fatal
        now = time.monotonic()
        if not self._ended and now - self._asked > ASK_SECONDS:
            self._asked = now
            trouble = self._cluster.trouble()
            if trouble:
                raise WorkerLostError(
                    f"{trouble}; {len(self._out)} chunks were out, whose results are lost"
                )
            self.workers = self._capacity() or self.workers
        return None

    def close(self) -> None:
        """Let go of the call; nothing of it is out."""
        if not self._ended:
            self._ended = True
            if self._round_trip:
                engine = f"{self._cluster.kind}:{self.workers}"
                note_link(engine, self._round_trip, self._byte_seconds)
            self._cluster.release(self._ship)

    def abandon(self) -> list[tuple[int, Reply]]:
        """Cancel what is out; return the replies that had arrived."""
        if self._ended:
            return []
        arrived = self.replies(0.0)
        self._ended = True
        if isinstance(self._ship, SharedShip):
            self._ship.stopped.set()
        self._cluster.cancel([handle for handle, *_ in self._out.values()])
        self._out.clear()
        self._cluster.release(self._ship)
        return [pair for pair in arrived if pair[1].failure is None]

    def sweep(self) -> None:
        """Do nothing: there are no shared segments."""

    def _capacity(self) -> int | None:
        """Return how many workers to use; None where the engine does not tell how many it has."""
        told = self._cluster.capacity()
        return told if told is None or self._limit is None else min(told, self._limit)

    # Inside --------------------------------------------------------------------------------

    def _taken(self, chunk: int, value: Any, error: BaseException | None) -> Reply | None:
        """Return the reply for what has come back; None if nobody waits for it."""
        if chunk not in self._out:
            return None
        _, since, sent = self._out.pop(chunk)
        now = time.monotonic()
        if error is not None:
            lost = self._cluster.loss(error)
            if lost:
                return Reply([], 0, None, 0, since, 0.0, 0.0, lost=Lost(0, None, True, cause=lost))
            self._fatal = self._fatal or _explained(error)
            return None
        assert isinstance(value, Answer)
        for record in value.records:
            logs.handle(record)
        _, *fields = value.fields
        reply = Reply(*fields)
        number = self._numbers.setdefault(value.node, len(self._numbers) + 1)
        self.nodes[number] = value.node
        overhead = now - since - reply.seconds
        if reply.done and (not self._round_trip or overhead < self._round_trip):
            self._round_trip = max(overhead, 1e-6)
        moved = reply.size + sent
        if moved >= LARGE_BYTES:
            each = max(0.0, overhead - self._round_trip) / moved
            best = self._byte_seconds
            self._byte_seconds = each if best is None else min(best, each)
        if self._ramp is not None:
            self._ramp.came(now, reply.seconds)
            self.workers = min(self._ramp.workers, self._limit or self._ramp.workers)
        return reply._replace(pid=number, begun=now - reply.seconds - reply.pack_seconds)


def _explained(error: BaseException) -> BaseException:
    """Return the error of a call whose chunk the engine could not run."""
    if isinstance(error, BrokenExecutor):
        lost = WorkerLostError(f"the executor runs nothing any more: {worded(error)}")
        lost.__cause__ = error
        return lost
    return error
