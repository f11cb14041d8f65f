"""Dask: calls on the workers of a ``distributed.Client``."""

from __future__ import annotations

import time
import uuid

from .clusters import Sending, installed, listen, told
from .runner import Ship, Work, work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .clusters import Done

__all__ = ["DaskCluster", "current_client"]

# A call of more bytes is handed on from worker to worker; a smaller one goes with chunks.
SCATTERED_BYTES = 1 << 20
# A client that has been without its scheduler for so long is given up, s.
PATIENCE_SECONDS = 10.0
# How often the scheduler is asked for its workers, s; it takes some ms.
ASK_SECONDS = 1.0


def current_client() -> Any:
    """Return the current Dask client.

    Raises:
        ImportError: Dask is not installed.
        ValueError: there is no client.
    """
    distributed = installed("distributed", "dask")
    try:
        return distributed.get_client()
    except ValueError as error:
        raise ValueError(
            'backend="dask": there is no current client; create a distributed.Client first'
        ) from error


class DaskCluster:
    """The workers of a Dask client.

    Args:
        client: the client; not an asynchronous one.

    Raises:
        TypeError: it is asynchronous.
    """

    kind = "dask"
    shares_memory = False

    def __init__(self, client: Any) -> None:
        if client.asynchronous:
            raise TypeError("backend: an asynchronous Dask client cannot be waited for here")
        self._client = client
        self._sending = Sending(self._start)
        self._scattered: dict[str, tuple[Any, Ship]] = {}
        self._asked = 0.0
        self._workers = 1
        self._alone_since: float | None = None

    def capacity(self) -> int:
        """Return the number of the workers' threads, 1 while there are none."""
        now = time.monotonic()
        if now - self._asked > ASK_SECONDS and self._client.status == "running":
            self._asked = now
            self._workers = max(1, sum(self._client.nthreads().values()))
        return self._workers

    def ship(self, ship: Ship) -> Ship:
        """Hand a large call to all workers."""
        if sum(map(len, ship.content or ())) > SCATTERED_BYTES and self._client.nthreads():
            self._scatter(ship)
        return ship

    def hold(self, array: Any) -> Any:
        """Hand an array to all workers; they fetch it from each other."""
        if not self._client.nthreads():
            return None
        [future] = self._client.scatter([array], broadcast=True, hash=False)
        return future

    def submit(self, ship: Ship, chunk: Work, done: Done, held: tuple[Any, ...] = ()) -> Any:
        """Have a chunk run; see ``Cluster``."""
        scattered = self._scattered.get(ship.name)
        if scattered is None:
            return self._sending.submit(ship, chunk, done, held, workers=self.capacity())
        if scattered[0].status in ("lost", "cancelled", "error"):  # with the workers that had it
            self._scatter(ship)
        future = self._start(work, self._scattered[ship.name][0], chunk, *held)
        listen(future, done)
        return future

    def cancel(self, handles: list[Any]) -> None:
        """Cancel what does not run yet."""
        if self._client.status == "running":
            self._client.cancel(handles, force=True)

    def release(self, ship: Ship) -> None:
        """Forget a call."""
        self._sending.forget(ship)
        self._scattered.pop(ship.name, None)

    def loss(self, error: BaseException) -> str:
        """Return what happened if a chunk was lost with its worker."""
        lost = type(error).__name__ in ("KilledWorker", "FutureCancelledError", "CancelledError")
        return told(error) if lost else ""

    def trouble(self) -> str:
        """Return why nothing can run any more: the scheduler is gone."""
        status, now = self._client.status, time.monotonic()
        if status == "running":
            self._alone_since = None
            return ""
        self._alone_since = self._alone_since or now
        if status == "closed" or now - self._alone_since > PATIENCE_SECONDS:
            return f"the Dask scheduler is gone (the client is {status})"
        return ""

    def _start(self, function: Any, ship: Any, chunk: Work, *held: Any) -> Any:
        key = f"amorsize-{chunk.start}-{uuid.uuid4().hex}"
        return self._client.submit(function, ship, chunk, *held, key=key, pure=False)

    def _scatter(self, ship: Ship) -> None:
        [future] = self._client.scatter([ship], broadcast=True, hash=False)
        self._scattered[ship.name] = future, ship
