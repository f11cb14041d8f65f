"""The options of all forms, for type checkers; ``amorsize.options.Options`` describes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypedDict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from os import PathLike

    from ..show.report import RunReport


class Engine(Protocol):
    """What items can run on besides processes of this machine: an executor, or a Dask client."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Have a function run; return a future."""


__all__ = ["AnyMapOptions", "AnyOptions", "LazyOptions", "MapOptions"]


class MapOptions(TypedDict, total=False):
    """The options of all forms; ``amorsize.options.Options`` describes them."""

    n_jobs: int | None
    chunksize: int | None
    backend: Literal["process", "thread", "serial", "dask", "ray", "auto"] | Engine | None
    mp_context: str | BaseContext | None
    progress: bool | str | Callable[[int, int | None], object]
    timeout: float | None
    task_timeout: float | None
    retries: int
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    use_cache: bool
    report: Callable[[RunReport], object] | None
    total: int | None
    resume: str | PathLike[str] | None
    seed: int | None


class LazyOptions(MapOptions, total=False):
    """The options of the lazy forms."""

    buffersize: int | None


class AnyMapOptions(MapOptions, total=False):
    """The options of the eager forms, where the results' type does not follow from them."""

    return_exceptions: bool


class AnyOptions(LazyOptions, total=False):
    """The options of a decorator and of its lazy forms."""

    return_exceptions: bool
