"""The policy of a call: what its plan and its options mean for the engine."""

from __future__ import annotations

from collections.abc import Callable

from ..decide.cutting import chunk_sizes
from ..decide.figures import FRESH_METHODS, Profile
from ..decide.planner import Plan
from ..decide.remote import remote_chunk_sizes
from ..options import Options
from ..run.policy import LIMIT_SHARE, LONGEST_LAZY_SECONDS, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..decide.steps import Stage, Step

__all__ = ["may_share", "policy_of"]


def may_share(profile: Profile, options: Options, *, lazy: bool) -> bool:
    """Return whether the caller may run items like a worker.

    A consumer or a time limit must not wait long for an item that runs in the caller.

    Args:
        profile: what an item costs.
        options: checked options.
        lazy: whether results are consumed one by one.
    """
    if lazy and profile.item_seconds > LONGEST_LAZY_SECONDS:
        return False
    return options.timeout is None or profile.item_seconds < LIMIT_SHARE * options.timeout


def policy_of(
    plan: Plan,
    options: Options,
    method: str,
    *,
    ordered: bool,
    lazy: bool,
    must_run: bool,
    apart: bool,
    streamed: bool,
    deadline: float | None,
    round_trip: Callable[[], float] | None,
    rethink: Callable[[Stage], Step] | None,
    check: Callable[[], object] | None,
) -> Policy:
    """Return the engine's settings for a call.

    Args:
        plan: the plan for the items left.
        options: checked options.
        method: start method, or "thread".
        ordered: whether results are yielded in the order of the items.
        lazy: whether results are consumed one by one.
        must_run: whether the items must run in workers.
        apart: whether they are to run in workers wherever that is possible.
        streamed: whether the number of items is unknown.
        deadline: when the call must end, on the monotonic clock, None for no limit.
        round_trip: returns what a chunk takes on another engine beside its items, s; None for
            workers of this machine.
        rethink: see ``Policy``.
        check: see ``Policy``.
    """
    fixed = options.chunksize
    if options.task_timeout is not None and (fixed is None or not options.retries):
        fixed = 1  # so that ending a late item makes no other item run again
    # Short chunks where somebody watches how many items are finished, or an event loop goes on.
    steady = lazy or streamed or apart or options.progress is not False
    return Policy(
        workers=plan.n_jobs - plan.shared,
        shares=plan.shared,
        flexible=options.chunksize is None,
        size=chunk_sizes(plan.chunking, fixed, stream=steady)
        if round_trip is None
        else remote_chunk_sizes(fixed, round_trip),
        ahead_seconds=plan.chunking.ramp_seconds,
        ordered=ordered,
        bounded=lazy,
        buffersize=options.buffersize,
        retries=options.retries,
        task_timeout=options.task_timeout,
        deadline=deadline,
        timeout=options.timeout,
        return_exceptions=options.return_exceptions,
        help=not (must_run or apart) and method in FRESH_METHODS,
        withdraw=not must_run,
        retreat=not (must_run or apart or lazy or round_trip) and method != "thread",
        rethink=rethink,
        check=check,
    )
