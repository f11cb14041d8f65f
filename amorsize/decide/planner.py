"""The planner: searches the cost model for the plan with the shortest forecast. Pure functions.

Serial wins unless parallel is better by more than forecasts are wrong: a call that was not made
slower is worth more than one that might have become faster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil, log, sqrt

from ..tuples import NamedTuple
from ..units import counted, duration
from .model import (
    DEFAULT_CHUNKING,
    FRESH_METHODS,
    LARGEST_CHUNK_BYTES,
    LONGEST_CHUNK_SECONDS,
    MOST_WAITING_WORKERS,
    WAITING_SHARE,
    Chunking,
    Costs,
    Profile,
    Workforce,
    chunking,
    parallel_seconds,
    serial_seconds,
    start_seconds,
    travel_seconds,
    uncertainty,
)

__all__ = [
    "Candidate",
    "Plan",
    "PlanInput",
    "StartOption",
    "chunk_sizes",
    "fixed_chunksize",
    "make_plan",
    "next_chunksize",
    "plan_for_little",
    "worker_bytes",
]

# Where waiting is claimed and not proved, so many workers for each CPU show whether it is true ...
FIRST_STEP = 2
# ... and from so many as were shown to wait as well as one, this many times as many are the next
# step: four of them lead from one CPU to the most. Both are pulled out of the air.
NEXT_STEP = 4

# Numbers of workers closer together than this share of them make no difference.
FLAT = 8

# Each worker's own memory under fork (its interpreter's touched pages) and under the others.
FORKED_WORKER_BYTES = 15_000_000
SPAWNED_WORKER_BYTES = 40_000_000
USABLE_MEMORY = 0.8  # of what is free; the rest is for everybody else

# Chunks of a stream whose length is unknown, and of results someone waits for one by one.
STREAM_CHUNK_SECONDS = 0.05
# And of tiny items so many, which take less than 1 MB as they wait.
STREAM_CHUNK_ITEMS = 20_000


class StartOption(NamedTuple):
    """A way to start workers and run items in them.

    Attributes:
        method: start method, or "thread".
        inherited: whether arguments reach workers without travelling.
        kept: numbers of workers that wait from earlier calls.
    """

    method: str
    inherited: bool = True
    kept: tuple[int, ...] = ()


class PlanInput(NamedTuple):
    """What a plan must fit.

    Attributes:
        items: items left to do; assumed as many as were done when the length is unknown.
        cpus: usable CPUs.
        costs: what the machine charges.
        options: the options to choose from, the preferred one first.
        most_workers: cap on workers (``AMORSIZE_N_JOBS``), None for none.
        n_jobs: workers the caller asked for, None to search.
        resident_bytes: the caller's resident memory.
        free_bytes: memory left on the machine, None when unknown.
        must_run: whether the items must run in workers, whatever it costs.
    """

    items: int
    cpus: int
    costs: Costs
    options: tuple[StartOption, ...]
    most_workers: int | None = None
    n_jobs: int | None = None
    resident_bytes: int = 0
    free_bytes: int | None = None
    must_run: bool = False


class Candidate(NamedTuple):
    """Something that was considered.

    Attributes:
        method: start method, "thread" or "serial".
        workers: how many, 1 for serial.
        kept: whether they wait from an earlier call.
        seconds: forecast.
    """

    method: str
    workers: int
    kept: bool
    seconds: float

    def __str__(self) -> str:
        if self.method == "serial":
            return "serial"
        kept = "kept " if self.kept else ""
        if self.method == "thread":
            return counted(self.workers, f"{kept}thread")
        shown = counted(self.workers, f"{kept}process", f"{kept}processes")
        return f"{shown} ({self.method})"


class Plan(NamedTuple):
    """What to do with the items left.

    Attributes:
        executor: "serial", "thread" or "process".
        method: start method, "thread", or "" for serial.
        n_jobs: workers; 1 for serial.
        seconds: forecast of the time from now on.
        low, high: the range the forecast is expected to be right within.
        serial_seconds: forecast of the same items in the calling process.
        reason: why, in words.
        candidates: everything considered.
        chunking: how to cut the items into chunks, see ``next_chunksize``.
    """

    executor: str
    method: str
    n_jobs: int
    seconds: float
    low: float
    high: float
    serial_seconds: float
    reason: str
    candidates: tuple[Candidate, ...] = ()
    chunking: Chunking = DEFAULT_CHUNKING


def make_plan(profile: Profile, given: PlanInput) -> Plan:
    """Return the plan with the shortest forecast.

    Serial is left only for what is forecast to be quicker by more than forecasts are wrong.

    Args:
        profile: what an item costs.
        given: what the plan must fit.

    >>> from amorsize.decide.model import FIRST_COSTS
    >>> room = PlanInput(items=1000, cpus=4, costs=FIRST_COSTS, options=(StartOption("fork"),))
    >>> make_plan(Profile(item_seconds=3e-8), room).executor
    'serial'
    >>> make_plan(Profile(item_seconds=0.01), room).n_jobs
    4
    """
    serial = serial_seconds(profile, given.items)
    found: list[Candidate] = []
    for option in given.options:
        found += _search(profile, given, option)
    # Of equals the option that was named first, and the fewest workers.
    best = min(found, key=_seconds)
    wrong = uncertainty(profile, given.costs)
    considered = (Candidate("serial", 1, False, serial), *found)
    if given.must_run:
        reason = "workers were asked for"
    elif best.seconds * (1 + wrong) <= serial:
        verb = "is" if best.workers == 1 else "are"
        reason = f"{best} {verb} forecast to take {best.seconds / serial:.0%} of the serial time"
    else:
        why = _why_serial(profile, given.costs, serial, best, wrong)
        return _serial_plan(serial, wrong, why, considered)
    option = next(option for option in given.options if option.method == best.method)
    workforce = _workforce(given, option, best.workers)
    return Plan(
        executor="thread" if best.method == "thread" else "process",
        method=best.method,
        n_jobs=best.workers,
        seconds=best.seconds,
        low=best.seconds * (1 - wrong),
        high=best.seconds * (1 + wrong),
        serial_seconds=serial,
        reason=reason,
        candidates=considered,
        chunking=chunking(profile, given.costs, given.items, workforce),
    )


def _workforce(given: PlanInput, option: StartOption, workers: int) -> Workforce:
    return Workforce(
        option.method,
        workers,
        given.cpus,
        given.resident_bytes,
        option.inherited,
        workers in option.kept,
    )


def plan_for_little(profile: Profile, given: PlanInput) -> Plan | None:
    """Return the plan for so little work that no search could find another; None for more.

    Workers would have to save what it takes to start and end one, and all that they can save is the
    waiting, and of the computing what other CPUs can do.

    Args:
        profile: what an item costs.
        given: what the plan must fit.

    >>> from amorsize.decide.model import FIRST_COSTS
    >>> room = PlanInput(items=100, cpus=4, costs=FIRST_COSTS, options=(StartOption("fork"),))
    >>> plan_for_little(Profile(item_seconds=1e-6), room).executor
    'serial'
    """
    if given.must_run:
        return None
    serial = serial_seconds(profile, given.items)
    costs = given.costs
    least = min(
        2 * costs.chunk_seconds if option.kept else _coming_and_going(costs, option)
        for option in given.options
    )
    computing = serial * min(profile.cpu_share, 1.0)
    saved = serial - computing / given.cpus
    if saved >= least:
        return None
    reason = f"the items left take {duration(serial)} in this process"
    if serial < least:
        reason += ", less than starting a worker and gaining by it"
    else:
        cpus = counted(given.cpus, "CPU")
        reason += f"; what {cpus} could save of that is less than starting a worker costs"
    return _serial_plan(
        serial, uncertainty(profile, costs), reason, (Candidate("serial", 1, False, serial),)
    )


def _coming_and_going(costs: Costs, option: StartOption) -> float:
    cost = costs.of(option.method)
    # While fresh interpreters come up, the caller computes.
    idle = 0.0 if option.method in FRESH_METHODS else cost.latency
    return start_seconds(cost, 1, 0) + idle + cost.end + cost.end_each


def _serial_plan(
    serial: float, wrong: float, reason: str, considered: tuple[Candidate, ...]
) -> Plan:
    low, high = serial * (1 - wrong), serial * (1 + wrong)
    return Plan("serial", "", 1, serial, low, high, serial, reason, considered)


def _seconds(candidate: Candidate) -> float:
    return candidate.seconds


def _search(profile: Profile, given: PlanInput, option: StartOption) -> list[Candidate]:
    """Return what was considered of one option, the best number of workers among it.

    The forecast falls with the number of workers until starting one more costs more than it saves,
    and rises from there on, but for steps where the rounds of items change: powers of two around a
    guess bracket the best, halves narrow the bracket down, and the steps next to it are looked at.
    """
    known: dict[int, Candidate] = {}

    def seconds(workers: int) -> float:
        if workers not in known:
            workforce = _workforce(given, option, workers)
            forecast = parallel_seconds(profile, given.costs, given.items, workforce)
            known[workers] = Candidate(option.method, workers, workforce.kept, forecast)
        return known[workers].seconds

    if given.n_jobs is not None:
        seconds(given.n_jobs)
        return list(known.values())
    most = _most_workers(profile, given, option)
    tried = [1]
    while tried[-1] < most:
        tried.append(min(2 * tried[-1], most))
    if given.cpus < most:
        tried = sorted({*tried, given.cpus})
    best = _lowest(tried, _guess(profile, given, option), seconds)
    rounds = -(-given.items // best)
    for count in (rounds, rounds + 1):
        seconds(min(most, max(1, -(-given.items // count))))
    for workers in option.kept:
        if workers <= most:
            seconds(workers)
    return sorted(known.values(), key=lambda candidate: candidate.workers)


def _lowest(tried: list[int], guess: float, seconds: Callable[[int], float]) -> int:
    """Return where a function of one valley is lowest, up to a share of one in ``FLAT``.

    Args:
        tried: numbers to begin with, rising.
        guess: where to begin among them.
        seconds: the function.
    """
    last = len(tried) - 1
    place = next((i for i, number in enumerate(tried) if number >= guess), last)
    while True:
        around = range(max(0, place - 1), min(last, place + 1) + 1)
        better = min(around, key=lambda i: seconds(tried[i]))
        if better == place:
            break
        place = better
    low, best, high = tried[max(0, place - 1)], tried[place], tried[min(last, place + 1)]
    while high - low > max(2, best // FLAT):
        left, right = (low + best) // 2, (best + high + 1) // 2
        better = min((best, left, right), key=seconds)
        if better == best:
            low, high = left, right
        elif better == left:
            high = best
        else:
            low = best
        best = better
    return best


def _guess(profile: Profile, given: PlanInput, option: StartOption) -> float:
    """Return about how many workers are best: where one more costs what it saves.

    With W for the work, ``W / w + e w`` is least at ``w = sqrt(W / e)``.
    """
    cost = given.costs.of(option.method)
    each = cost.each + cost.end_each + cost.per_gb * given.resident_bytes / 1e9
    return sqrt(given.items * profile.item_seconds / max(each, 1e-9))


def _most_workers(profile: Profile, given: PlanInput, option: StartOption) -> int:
    """Return how many workers make any sense."""
    most = given.cpus
    if profile.cpu_share < WAITING_SHARE:
        most = max(FIRST_STEP * most, NEXT_STEP * profile.waiting_workers)
        most = max(given.cpus, min(most, MOST_WAITING_WORKERS))
    if given.most_workers is not None:
        most = min(most, given.most_workers)
    return max(1, min(most, given.items, _fitting_workers(profile, given, option)))


def _fitting_workers(profile: Profile, given: PlanInput, option: StartOption) -> int:
    """Return how many workers the free memory has room for."""
    if given.free_bytes is None or option.method == "thread":
        return MOST_WAITING_WORKERS + given.cpus
    each = worker_bytes(option.method) + profile.memory_bytes
    return max(1, int(given.free_bytes * USABLE_MEMORY / each))


def worker_bytes(method: str) -> int:
    """Return what a worker needs without any item, in bytes."""
    return FORKED_WORKER_BYTES if method == "fork" else SPAWNED_WORKER_BYTES


def _why_serial(
    profile: Profile, costs: Costs, serial: float, best: Candidate, wrong: float
) -> str:
    if best.seconds < serial:
        return (
            f"{best} would save {1 - best.seconds / serial:.1%} of {duration(serial)} by forecast, "
            f"and forecasts here may be wrong by {wrong:.0%}: too little to leave this process for"
        )
    travel = travel_seconds(profile, costs)
    if travel > profile.item_seconds:
        return (
            f"moving a result between processes ({duration(travel)}) costs more than computing it "
            f"({duration(profile.item_seconds)})"
        )
    return (
        f"the items left take {duration(serial)} in this process and were forecast to take "
        f"{duration(best.seconds)} in workers"
    )


# Chunks -------------------------------------------------------------------------------------


def next_chunksize(
    remaining: int | None,
    workers: int,
    item_seconds: float,
    *,
    chunking: Chunking = DEFAULT_CHUNKING,
    done: int = 0,
    result_bytes: float = 0.0,
    longest_seconds: float = LONGEST_CHUNK_SECONDS,
    most_items: int | None = None,
) -> int:
    """Return the size of the next chunk to hand out, by factoring.

    Half of what remains is dealt out to all workers, again and again: chunks of
    ``ceil(remaining / 2 workers)`` (Hummel, Schonberg and Flynn 1992). They shrink towards the
    end, so that workers finish together whatever the items cost, and need no estimate of the
    spread. Of items that are known to cost the same, more is dealt out at a time; less where
    workers or the caller come late (``model.chunking``). A chunk is at least as long as its
    dispatch makes sense, at most ``longest_seconds``, and its results at most
    ``LARGEST_CHUNK_BYTES``.

    Of an input of unknown length, as much is assumed to remain as was handed out, and dealt out in
    chunks a quarter as large: it may be less.

    Args:
        remaining: items not handed out yet, None when unknown.
        workers: workers that share them.
        item_seconds: an item's time; 0 when not known yet, which gives chunks of one item.
        chunking: the share to deal out at a time, and the shortest chunk.
        done: items handed out so far; counts where ``remaining`` is unknown.
        result_bytes: a result's size.
        longest_seconds: longest chunk wanted, s.
        most_items: largest chunk wanted, None for no such limit.

    >>> next_chunksize(1000, 2, 0.001), next_chunksize(10, 2, 0.001), next_chunksize(10, 2, 1.0)
    (250, 3, 1)
    """
    if item_seconds <= 0:
        return 1
    share = chunking.share
    least = ceil(chunking.least_seconds / item_seconds)
    if remaining is not None:
        # Beyond what was planned, no more than leaves as much for each of the others.
        least = min(least, max(chunking.least_items, ceil(remaining / workers)))
    most = max(1, int(longest_seconds / item_seconds))
    if result_bytes >= 1:
        most = min(most, max(1, int(LARGEST_CHUNK_BYTES / result_bytes)))
    if most_items is not None:
        most = min(most, most_items)
    if remaining is None:
        remaining, share = max(done, workers * least), share / 4
    return max(1, min(most, max(least, ceil(share * remaining / workers))))


def chunk_sizes(chunking: Chunking, fixed: int | None, *, stream: bool) -> Callable[..., int]:
    """Return what tells the size of each next chunk, called as ``next_chunksize``.

    Args:
        chunking: how the plan has it.
        fixed: the size that was asked for, None for none.
        stream: whether results are consumed as they come, or the number of items is not known.

    >>> chunk_sizes(DEFAULT_CHUNKING, 7, stream=False)(1_000)
    7
    """
    if fixed is not None:
        size: int = fixed
        return lambda left, **_: size
    if not stream:
        return partial(next_chunksize, chunking=chunking)
    return partial(
        next_chunksize,
        chunking=chunking,
        longest_seconds=STREAM_CHUNK_SECONDS,
        most_items=STREAM_CHUNK_ITEMS,
    )


def fixed_chunksize(
    profile: Profile, items: int, workers: int, *, chunk_seconds: float, longest_seconds: float
) -> int:
    """Return the one chunk size to give to a plain ``Pool.map``.

    Kruskal and Weiss (1985): ``K = (sqrt(2) N h / (s P sqrt(ln P)))^(2/3)`` balances the dispatch
    cost h of a chunk against the spread s of its items; clamped to ``[1, N / P]``.

    Args:
        profile: what an item costs; gives s.
        items: N.
        workers: P.
        chunk_seconds: h, s.
        longest_seconds: longest chunk wanted, s.

    >>> fixed_chunksize(Profile(item_seconds=0.001, spread=0.001), 1000, 2,
    ...                 chunk_seconds=0.0001, longest_seconds=0.2)
    20
    """
    fair = max(1, ceil(items / workers))
    if workers < 2:
        return fair
    # A spread of exactly 0 was seen only where nothing could be told apart: 5 % is the least seen.
    spread = max(profile.spread, 0.05 * profile.item_seconds, 1e-9)
    size: float = (sqrt(2) * items * chunk_seconds / (spread * workers * sqrt(log(workers)))) ** (
        2 / 3
    )
    longest = max(1, int(longest_seconds / max(profile.item_seconds, 1e-9)))
    return max(1, min(ceil(size), fair, longest))
