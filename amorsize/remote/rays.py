"""Ray: calls on the workers of the Ray cluster that this process is connected to."""

from __future__ import annotations

from .clusters import installed, listen, told
from .runner import Ship, Work, work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .clusters import Done

__all__ = ["RayCluster"]


class RayCluster:
    """The workers of Ray, which is started if it was not.

    Raises:
        ImportError: Ray is not installed.
    """

    kind = "ray"
    shares_memory = False

    def __init__(self) -> None:
        self._ray = installed("ray", "ray")
        if not self._ray.is_initialized():
            self._ray.init()
        # Lost chunks are handed out again by the ledger, which counts them.
        self._work = self._ray.remote(max_retries=0, num_cpus=1)(work)

    def capacity(self) -> int:
        """Return the number of CPUs of the cluster."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def ship(self, ship: Ship) -> Any:
        """Put a call into Ray's store, once."""
        return self._ray.put(ship)

    def hold(self, array: Any) -> Any:
        """Put an array into Ray's store."""
        return self._ray.put(array)

    def submit(self, ship: Any, chunk: Work, done: Done, held: tuple[Any, ...] = ()) -> Any:
        """Have a chunk run; see ``Cluster``."""
        reference = self._work.remote(ship, chunk, *held)
        listen(reference.future(), done)
        return reference

    def cancel(self, handles: list[Any]) -> None:
        """Cancel chunks, also those that run."""
        for reference in handles:
            self._ray.cancel(reference, force=True)

    def release(self, ship: Any) -> None:
        """Do nothing: Ray frees what nobody refers to."""

    def loss(self, error: BaseException) -> str:
        """Return what happened if a chunk was lost with its worker."""
        kinds = self._ray.exceptions
        lost = (kinds.WorkerCrashedError, kinds.NodeDiedError, kinds.ObjectLostError)
        return told(error) if isinstance(error, lost) else ""

    def trouble(self) -> str:
        """Return why nothing can run any more: the connection is gone."""
        return "" if self._ray.is_initialized() else "the connection to Ray is gone"
