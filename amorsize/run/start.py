"""Starting a crew: threads, kept workers, or fresh processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..decide.uses import uses
from .worker import Setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from .crew import Crew, Task

__all__ = ["start_crew"]


def start_crew(
    method: str,
    workers: int,
    setup: Setup,
    *,
    context: str | BaseContext | None,
    inherits: bool,
    first: Callable[[bool], Iterator[Task]] | None,
) -> Crew:
    """Start workers, or take those that wait since an earlier call.

    Args:
        method: start method, or "thread".
        workers: how many.
        setup: what they are to run, and what they begin with.
        context: the caller's choice: a start method's name or a context; None for ``method``.
        inherits: whether workers reach the input without its being sent.
        first: gives the first chunks, which forked workers find as they start; None for none.

    Raises:
        OSError, ImportError: workers cannot be had.
        SerializationError: what they are to run cannot be sent.
    """
    if method == "thread":
        from .threads import ThreadCrew

        return ThreadCrew(workers, setup)
    import multiprocessing  # 25 ms: only when a crew really starts

    from . import kept
    from .current import current_values
    from .pool import ProcessCrew

    if context is None or isinstance(context, str):
        context = multiprocessing.get_context(method)
    if method != "fork":
        used = uses(setup.call.func)
        if setup.is_plain:
            crew = kept.lease(context, workers, setup.call, used, setup.threads)
            if crew is not None:
                return crew
        setup = setup.of_caller(current_values(used), kept.current_environ(context))
    tasks = first(inherits) if first is not None and method == "fork" else None
    return ProcessCrew(context, workers, setup, inherits=inherits, first=tasks)
