"""What would make a call faster: findings of one run, in words a user can act on."""

from __future__ import annotations

from ..decide.model import Costs, Profile, travel_seconds
from ..decide.planner import Plan, PlanInput, StartOption, make_plan
from ..identity.effects import Effects
from ..units import counted, duration, times

__all__ = ["hints_for_effects", "hints_for_items", "hints_for_run"]

# Below this an item costs less than Python's own call of it.
TINY_SECONDS = 1e-6
# That many tiny items are worth a word.
MANY = 10_000
# A part of the whole this large is worth a word.
LARGE_SHARE = 0.25
# And so is a run of this length at least.
WORTH_SECONDS = 0.05
# What is sent with a function beside its code.
LARGE_CAPTURE = 1_000_000
# Chunks so many times as long as their dispatch are not what slows a run down.
FEW_DISPATCHES = 5
# Names in one line.
MOST_NAMES = 5


def hints_for_items(profile: Profile, items: int, costs: Costs) -> list[str]:
    """Return what could be changed about the items, whoever runs them.

    Args:
        profile: what an item costs.
        items: how many there are.
        costs: what the machine charges.
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
    """Return what a function does that had no effect, or an odd one, where workers ran it.

    Args:
        effects: what its code does.

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
    """Return what could be changed about a call.

    Args:
        profile: what an item costs.
        items: how many there were.
        costs: what the machine charges.
        plan: what was carried out, None when all ran in the calling process.
        jobs: workers the caller asked for, None where something else decided.
        chunksize: chunk size the caller asked for.
        cpus: usable CPUs.
        seconds: what the call took.
        start_seconds: of that, starting and ending workers.
        shipped_bytes: size of the function and what it captures, as it was sent; 0 where it was
            inherited.
        busy: what other programs did with the CPUs, "" for nothing.
        allowed: the most workers the environment allows, None for any number.
    """
    found = hints_for_items(profile, items, costs)
    serial = profile.item_seconds * items
    if plan is None:
        if cpus > 1 and serial > WORTH_SECONDS and profile.cpu_share < 1.1:
            idle = f"keeps {cpus - 1} of {cpus} CPUs idle"
            if jobs == 1:
                found.append(f"n_jobs=1 {idle}: leave it out")
            elif allowed == 1:
                found.append(f"the environment variable AMORSIZE_N_JOBS {idle}")
        return found
    if jobs is not None and seconds > 1.1 * serial > 0:
        advice = "leave it out"
        if busy and _pays(profile, items, costs, plan, cpus):
            advice = "other programs had the CPUs, so try it again without them"
        found.append(
            f"n_jobs={jobs} took {times(seconds / serial)} times as long as the serial loop: "
            f"{advice}"
        )
    elif jobs is not None and jobs > 2 * cpus and profile.cpu_share > 0.5:
        found.append(
            f"n_jobs={jobs} for {counted(cpus, 'CPU')} and items that compute: more than {cpus} "
            f"{'gains' if cpus == 1 else 'gain'} nothing"
        )
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


def _pays(profile: Profile, items: int, costs: Costs, plan: Plan, cpus: int) -> bool:
    """Return whether workers started so are forecast to be faster, other programs aside."""
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
