"""Whether a call runs on another engine: where it was named, or is forecast to be quicker."""

from __future__ import annotations

from collections.abc import Callable

from ..lookup import load
from ..options import Options
from .adviser import Adviser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..decide.figures import Profile
    from ..decide.planner import Plan

__all__ = ["adviser_of", "better_elsewhere"]

# Another engine must be forecast to take at most this share of the best time on this machine.
WORTH_SHARE = 0.7


def adviser_of(
    func: Callable[..., Any], total: int | None, jobs: int | None, options: Options
) -> Adviser:
    """Return the adviser of a call.

    Args:
        func: the function.
        total: number of items of the call, None when unknown.
        jobs: workers asked for, None to decide.
        options: checked options.
    """
    if not options.is_remote:
        return Adviser.of_call(
            func,
            total,
            jobs=jobs,
            backend=options.backend,
            mp_context=options.mp_context,
            use_cache=options.use_cache,
        )
    load("amorsize.remote.choosing")
    from ..remote.choosing import cluster_of

    return Adviser.of_remote_call(
        func,
        total,
        jobs=jobs if (options.n_jobs or 0) > 0 else None,
        cluster=cluster_of(options.backend, options.retries, options.seed),
        use_cache=options.use_cache,
    )


def better_elsewhere(
    adviser: Adviser, plan: Plan, profile: Profile, left: int
) -> tuple[Adviser, Plan]:
    """Return the adviser and the plan for the current engine if that is forecast to be quicker.

    Args:
        adviser: the adviser for this machine.
        plan: the best plan for this machine.
        profile: what an item costs.
        left: number of items left.
    """
    load("amorsize.remote.choosing")
    from ..remote.choosing import current_cluster

    cluster = current_cluster()
    if cluster is None:
        return adviser, plan
    there = Adviser.of_remote_call(
        adviser.func,
        adviser.items,
        jobs=adviser.jobs,
        cluster=cluster,
        use_cache=adviser.use_cache,
    )
    found = there.plan_remote(left, "", profile)
    if found.seconds > WORTH_SHARE * plan.seconds:
        return adviser, plan
    share = found.seconds / plan.seconds
    reason = f"{cluster.kind} is forecast to take {share:.0%} of the time on this machine"
    return there, found._replace(reason=reason, candidates=(*plan.candidates, found.candidates[-1]))
