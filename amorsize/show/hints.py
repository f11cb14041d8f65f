"""Hints to make a call faster: findings of one run, in words a user can act on."""

from __future__ import annotations

from ..decide.figures import Costs, Profile
from ..decide.model import travel_seconds
from ..decide.planner import Plan, PlanInput, StartOption, make_plan
from ..identity.effects import Effects
from ..units import counted, duration, times

__all__ = ["hints_for_effects", "hints_for_items", "hints_for_run"]

# Below this time for an item, most of it is Python's function call.
TINY_SECONDS = 1e-6
# This many tiny items are worth a hint.
MANY = 10_000
# A larger share of the call than this, spent on starting and ending workers, is worth a hint.
LARGE_SHARE = 0.25
# A shorter time than this is not worth a hint.
WORTH_SECONDS = 0.05
# This many bytes are worth a hint, in a function's captured values or in one argument. In one
# result, a hundredth of them is.
LARGE_CAPTURE = 1_000_000
# Chunks shorter than this many times their dispatch slow a run down.
FEW_DISPATCHES = 5
# Most names in one line.
MOST_NAMES = 5


def hints_for_items(profile: Profile, items: int, costs: Costs) -> list[str]:
    """Return hints on the items, wherever they run.

    Args:
        profile: cost of an item.
        items: number of items.
        costs: costs of the machine.
    """
    found = []
    moved = travel_seconds(profile, costs)
    if profile.result_bytes >= LARGE_CAPTURE / 100 and moved > profile.item_seconds:
        found.append(
            f"moving a result ({counted(profile.result_bytes, 'byte')}, {duration(moved)}) costs "
            f"more than computing it ({duration(profile.item_seconds)}): return less, or compute "
            "more at a time"
        )
    elif profile.item_seconds < TINY_SECONDS and items >= MANY:
        found.append(
            f"an item takes {duration(profile.item_seconds)}, of which most is Python's call of "
            "it: let the function work on many values at a time"
        )
    if profile.arg_bytes >= LARGE_CAPTURE:
        found.append(
            f"an argument of {counted(profile.arg_bytes, 'byte')} is sent for each item: pass a "
            "path or an index, and load it in the function"
        )
    return found


def hints_for_effects(effects: Effects) -> list[str]:
    """Return hints on side effects of a function that are lost or repeated in workers.

    Args:
        effects: side effects in its code.

    >>> hints_for_effects(Effects(stored=("count",)))[0].partition(":")[0]
    'the function assigns count, which in a worker is a copy of its own'
    """
    found = []
    for verb, names in (("assigns", effects.stored), ("changes", effects.changed)):
        if names:
            found.append(
                f"the function {verb} {_listed(names)}, which in a worker is a copy of its own: "
                "the caller sees nothing of that. Return what is needed, or use n_jobs=1"
            )
    if effects.drawn:
        found.append(
            f"the function draws from {_listed(effects.drawn)}, whose numbers repeat in each "
            "worker's copy: make a generator for each item, seeded by what the item is"
        )
    return found


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else shown


def hints_for_run(
    profile: Profile,
    items: int,
    costs: Costs,
    plan: Plan | None,
    *,
    jobs: int | None,
    chunksize: int | None,
    cpus: int,
    seconds: float,
    start_seconds: float,
    shipped_bytes: int,
    busy: str = "",
    allowed: int | None = None,
) -> list[str]:
    """Return hints on a call.

    Args:
        profile: cost of an item.
        items: number of items.
        costs: costs of the machine.
        plan: the plan that was carried out, None when all ran in the calling process.
        jobs: workers the caller asked for, None where amorsize or the environment decided.
        chunksize: chunk size the caller asked for.
        cpus: usable CPUs.
        seconds: duration of the call.
        start_seconds: time of the call spent on starting and ending workers.
        shipped_bytes: size of the function and its captured values, as sent; 0 where inherited.
        busy: note on the load by other programs, "" for none.
        allowed: the most workers the environment allows, None for any number.
    """
    found = hints_for_items(profile, items, costs)
    if plan is None:
        return found + _about_idle_cpus(profile, items, jobs, cpus, allowed)
    if jobs is not None:
        found += _about_jobs(profile, items, costs, plan, jobs, cpus, seconds, busy)
    if chunksize is not None:
        found += _about_chunksize(profile, items, costs, plan, chunksize)
    if start_seconds > LARGE_SHARE * seconds and seconds > WORTH_SECONDS:
        found.append(
            f"starting and ending workers took {duration(start_seconds)} of {duration(seconds)}: "
            "give one call more items"
        )
    if shipped_bytes >= LARGE_CAPTURE:
        found.append(
            f"the function carries {shipped_bytes / 1e6:,.0f} MB with it to the workers of each "
            "call: load that in the function, once, or use the start method fork"
        )
    return found


def _about_idle_cpus(
    profile: Profile, items: int, jobs: int | None, cpus: int, allowed: int | None
) -> list[str]:
    serial = profile.item_seconds * items
    if cpus > 1 and serial > WORTH_SECONDS and profile.cpu_share < 1.1:
        idle = f"keeps {cpus - 1} of {cpus} CPUs idle"
        if jobs == 1:
            return [f"n_jobs=1 {idle}: leave it out"]
        if allowed == 1:
            return [f"the environment variable AMORSIZE_N_JOBS {idle}"]
    return []


def _about_jobs(
    profile: Profile,
    items: int,
    costs: Costs,
    plan: Plan,
    jobs: int,
    cpus: int,
    seconds: float,
    busy: str,
) -> list[str]:
    serial = profile.item_seconds * items
    if seconds > 1.1 * serial > 0:
        advice = "leave it out"
        if busy and _pays(profile, items, costs, plan, cpus):
            advice = "other programs had the CPUs, so try it again without them"
        return [
            f"n_jobs={jobs} took {times(seconds / serial)} times as long as the serial loop: "
            f"{advice}"
        ]
    if jobs > 2 * cpus and profile.cpu_share > 0.5:
        return [
            f"n_jobs={jobs} for {counted(cpus, 'CPU')} and items that compute: more than {cpus} "
            f"{'gains' if cpus == 1 else 'gain'} nothing"
        ]
    return []


def _pays(profile: Profile, items: int, costs: Costs, plan: Plan, cpus: int) -> bool:
    """Return whether workers of this start method are forecast to pay without other programs."""
    best = make_plan(profile, PlanInput(items, cpus, costs, (StartOption(plan.method),)))
    return best.executor != "serial"


def _about_chunksize(
    profile: Profile, items: int, costs: Costs, plan: Plan, chunksize: int
) -> list[str]:
    if chunksize * profile.item_seconds < FEW_DISPATCHES * costs.chunk_seconds and items > 100:
        return [
            f"chunksize={chunksize} makes chunks of {duration(chunksize * profile.item_seconds)}, "
            f"and dispatching one takes {duration(costs.chunk_seconds)}: leave it out"
        ]
    if plan.n_jobs > 1 and chunksize * plan.n_jobs > items:
        return [f"chunksize={chunksize} leaves workers without work: leave it out"]
    return []
