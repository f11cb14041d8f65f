"""Which engine a ``backend`` option means."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor

from ..lookup import load, loaded
from .clusters import Cluster, ExecutorCluster, SharedCluster

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["cluster_of", "current_cluster"]


def cluster_of(backend: Any, retries: int = 1, seed: int | None = None) -> Cluster:
    """Return the engine that a ``backend`` option means.

    Args:
        backend: an executor, a Dask client, "dask" for the current one, or "ray".
        retries: the option of that name.
        seed: the option of that name.

    Raises:
        ImportError: the engine is not installed; the message names the extra.
        ValueError: there is no current Dask client, or no retries were asked for with Dask, or a
            seed with threads.
        TypeError: this is no engine.
    """
    if backend == "ray":
        load("amorsize.remote.rays")
        from .rays import RayCluster

        return RayCluster()
    if backend == "dask" or _is_client(backend):
        load("amorsize.remote.dasks")
        from .dasks import DaskCluster, current_client

        if not retries:
            raise ValueError(
                "retries=0 cannot be kept with backend=Dask: Dask itself runs a task again when a "
                "worker dies"
            )
        return DaskCluster(current_client() if backend == "dask" else backend)
    if not isinstance(backend, Executor) and not callable(getattr(backend, "submit", None)):
        raise TypeError(f"backend={backend!r:.80} is neither an executor nor a Dask client")
    # The interpreters of an InterpreterPoolExecutor share nothing, though it is made of threads.
    if isinstance(backend, ThreadPoolExecutor) and "Interpreter" not in type(backend).__name__:
        if seed is not None:
            raise ValueError(
                f"seed={seed} cannot be kept with backend={backend!r:.80}: all of its threads draw "
                "from the same generators"
            )
        return SharedCluster(backend)
    return ExecutorCluster(backend)


def _is_client(backend: object) -> bool:
    distributed = loaded("distributed")
    return distributed is not None and isinstance(backend, distributed.Client)


def current_cluster() -> Cluster | None:
    """Return the engine that this process is connected to; None for none."""
    distributed = loaded("distributed")
    if distributed is not None:
        from .dasks import DaskCluster

        try:
            return DaskCluster(distributed.default_client())
        except (ValueError, TypeError):  # there is none, or it is asynchronous
            pass
    ray = loaded("ray")
    if ray is not None and ray.is_initialized():
        from .rays import RayCluster

        return RayCluster()
    return None
