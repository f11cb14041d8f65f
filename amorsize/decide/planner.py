"""The planner: searches the cost model for the plan with the shortest forecast. Pure functions.

Serial wins unless parallel is clearly better: a forecast is only a forecast, and a call that was
not made slower is worth more than one that might have become faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, sqrt

from ..units import duration
from .model import (
    SMALLEST_CHUNK_SECONDS,
    Costs,
    Profile,
    parallel_seconds,
    serial_seconds,
    start_seconds,
)

__all__ = [
    "Plan",
    "Situation",
    "evenness",
    "fixed_chunksize",
    "make_plan",
    "next_chunksize",
    "plan_for_little",
]

# Parallel must be forecast to take at most this share of the serial time ...
CLEARLY_BETTER = 0.9
# ... and to save at least this much: below it, the noise of one fork decides.
LEAST_GAIN_SECONDS = 0.001

# More processes than this hide no more waiting: their start costs 1 ms each.
MOST_WAITING_WORKERS = 256

# An item that uses less than this share of a CPU is waiting for something.
WAITING_SHARE = 0.5

# Each worker's own memory under fork (its interpreter's touched pages) and under the others.
FORKED_WORKER_BYTES = 15_000_000
SPAWNED_WORKER_BYTES = 40_000_000
USABLE_MEMORY = 0.8  # of what is free; the rest is for everybody else

# A chunk's result comes back at once: longer chunks make a run blind (progress, deaths, surprises),
# larger ones double the memory.
LONGEST_CHUNK_SECONDS = 0.5
LARGEST_CHUNK_BYTES = 32_000_000
# Chunks of a stream whose length is unknown, and of results someone waits for one by one.
STREAM_CHUNK_SECONDS = 0.05
# And of tiny items so many, which take less than 1 MB as they wait.
STREAM_CHUNK_ITEMS = 20_000


@dataclass(frozen=True, slots=True)
class Situation:
    """What a plan must fit.

    Attributes:
        items: items left to do; assumed as many as were done when the length is unknown.
        cpus: usable CPUs.
        costs: what the machine charges.
        method: start method, or "thread".
        most_workers: cap on workers (``AMORSIZE_N_JOBS``), None for none.
        n_jobs: workers the caller asked for, None to search.
        resident_bytes: the caller's resident memory.
        free_bytes: memory left on the machine, None when unknown.
        inherited: whether arguments reach workers without travelling.
        must_run: whether the items must run in workers, whatever it costs.
        kept: numbers of workers that wait from earlier calls.
    """

    items: int
    cpus: int
    costs: Costs
    method: str
    most_workers: int | None = None
    n_jobs: int | None = None
    resident_bytes: int = 0
    free_bytes: int | None = None
    inherited: bool = True
    must_run: bool = False
    kept: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with the items left.

    Attributes:
        executor: "serial", "thread" or "process".
        n_jobs: workers; 1 for serial.
        seconds: forecast of the time from now on.
        serial_seconds: forecast of the same items in the calling process.
        reason: why, in words.
        candidates: (workers, forecast seconds) of everything considered; 0 workers is serial.
    """

    executor: str
    n_jobs: int
    seconds: float
    serial_seconds: float
    reason: str
    candidates: tuple[tuple[int, float], ...] = ()


def make_plan(profile: Profile, situation: Situation) -> Plan:
    """Return the plan with the shortest forecast.

    Args:
        profile: what an item costs.
        situation: what the plan must fit.

    >>> from amorsize.decide.model import FIRST_COSTS
    >>> room = Situation(items=1000, cpus=4, costs=FIRST_COSTS, method="fork")
    >>> make_plan(Profile(item_seconds=3e-8), room).executor
    'serial'
    >>> make_plan(Profile(item_seconds=0.01), room).n_jobs
    4
    """
    serial = serial_seconds(profile, situation.items)
    candidates = tuple(
        (workers, _forecast(profile, situation, workers))
        for workers in _worker_counts(profile, situation)
    )
    workers, seconds = min(candidates, key=lambda pair: (pair[1], pair[0]))
    considered = ((0, serial), *candidates)
    executor = "thread" if situation.method == "thread" else "process"
    if situation.must_run:
        return Plan(executor, workers, seconds, serial, "workers were asked for", considered)
    if seconds <= CLEARLY_BETTER * serial and serial - seconds >= LEAST_GAIN_SECONDS:
        reason = f"{workers} workers are forecast to take {seconds / serial:.0%} of the serial time"
        return Plan(executor, workers, seconds, serial, reason, considered)
    return Plan(
        "serial", 1, serial, serial, _why_serial(profile, situation, serial, seconds), considered
    )


def plan_for_little(
    profile: Profile, items: int, costs: Costs, method: str, *, kept: bool
) -> Plan | None:
    """Return the plan for so little work that no search could find another; None for more.

    Workers would have to save ``LEAST_GAIN_SECONDS``, having cost what it takes to start one.

    Args:
        profile: what an item costs.
        items: items left.
        costs: what the machine charges.
        method: start method, or "thread".
        kept: whether workers wait from earlier calls, and need no start.

    >>> from amorsize.decide.model import FIRST_COSTS
    >>> plan_for_little(Profile(item_seconds=1e-6), 100, FIRST_COSTS, "fork", kept=False).executor
    'serial'
    """
    serial = serial_seconds(profile, items)
    start = 0.0 if kept else start_seconds(costs.of(method), 1, 0)
    if serial >= start + LEAST_GAIN_SECONDS:
        return None
    taking = f"the items left take {duration(serial)} in this process"
    reason = f"{taking}, less than starting a worker and gaining by it"
    return Plan("serial", 1, serial, serial, reason, ((0, serial),))


def _forecast(profile: Profile, situation: Situation, workers: int) -> float:
    return parallel_seconds(
        profile,
        situation.costs,
        situation.method,
        situation.items,
        workers,
        cpus=situation.cpus,
        resident_bytes=situation.resident_bytes,
        inherited=situation.inherited,
        kept=workers in situation.kept,
    )


def _worker_counts(profile: Profile, situation: Situation) -> list[int]:
    """Return the numbers of workers worth a forecast: all of a few, a growing grid of many."""
    if situation.n_jobs is not None:
        return [situation.n_jobs]
    most = situation.cpus
    if profile.cpu_share < WAITING_SHARE:
        hidden = situation.cpus / max(profile.cpu_share, 1e-3)
        most = max(most, min(MOST_WAITING_WORKERS, ceil(hidden)))
    if situation.most_workers is not None:
        most = min(most, situation.most_workers)
    most = max(1, min(most, situation.items, _fitting_workers(profile, situation)))
    counts = list(range(1, min(most, 16) + 1))
    while counts[-1] < most:
        counts.append(min(most, ceil(counts[-1] * 1.15)))
    return counts


def _fitting_workers(profile: Profile, situation: Situation) -> int:
    """Return how many workers the free memory has room for."""
    if situation.free_bytes is None or situation.method == "thread":
        return MOST_WAITING_WORKERS + situation.cpus
    own = FORKED_WORKER_BYTES if situation.method == "fork" else SPAWNED_WORKER_BYTES
    each = own + profile.memory_bytes
    return max(1, int(situation.free_bytes * USABLE_MEMORY / each))


def _why_serial(profile: Profile, situation: Situation, serial: float, parallel: float) -> str:
    travel = profile.pickle_seconds + profile.result_bytes * situation.costs.byte_seconds
    if travel > profile.item_seconds:
        return (
            f"moving a result between processes ({duration(travel)}) costs more than computing it "
            f"({duration(profile.item_seconds)})"
        )
    return (
        f"the items left take {duration(serial)} in this process and were forecast to take "
        f"{duration(parallel)} in workers"
    )


# Chunks -------------------------------------------------------------------------------------


def next_chunksize(
    remaining: int | None,
    workers: int,
    item_seconds: float,
    *,
    done: int = 0,
    evenness: float = 0.0,
    result_bytes: float = 0.0,
    longest_seconds: float = LONGEST_CHUNK_SECONDS,
    most_items: int | None = None,
) -> int:
    """Return the size of the next chunk to hand out, by factoring.

    Half of what remains is dealt out in equal chunks to all workers, again and again: chunks of
    ``ceil(remaining / 2 workers)`` (Hummel, Schonberg and Flynn 1992). They shrink towards the
    end, so that workers finish together whatever the items cost, and need no estimate of the
    spread. Of items that are known to cost the same, up to four fifths are dealt out at a time. A
    chunk is at least ``SMALLEST_CHUNK_SECONDS`` long, at most ``longest_seconds``, and its results
    at most ``LARGEST_CHUNK_BYTES``.

    Of an input of unknown length, as much is assumed to remain as was handed out.

    Args:
        remaining: items not handed out yet, None when unknown.
        workers: workers that share them.
        item_seconds: an item's time; 0 when not known yet, which gives chunks of one item.
        done: items handed out so far; counts where ``remaining`` is unknown.
        evenness: how sure it is that items cost the same, 0 to 1.
        result_bytes: a result's size.
        longest_seconds: longest chunk wanted, s.
        most_items: largest chunk wanted, None for no such limit.

    >>> next_chunksize(1000, 2, 0.001), next_chunksize(10, 2, 0.001), next_chunksize(10, 2, 1.0)
    (250, 3, 1)
    """
    if item_seconds <= 0:
        return 1
    least = ceil(SMALLEST_CHUNK_SECONDS / item_seconds)
    most = max(1, int(longest_seconds / item_seconds))
    if result_bytes >= 1:
        most = min(most, max(1, int(LARGEST_CHUNK_BYTES / result_bytes)))
    if most_items is not None:
        most = min(most, most_items)
    if remaining is None:
        remaining = max(done, workers * least)
    share = 0.5 + 0.3 * evenness
    # Tiny items: the smallest worthwhile chunk must still leave one for each worker.
    fair = ceil(remaining / workers)
    return max(1, min(most, fair, max(least, ceil(share * remaining / workers))))


def evenness(profile: Profile) -> float:
    """Return how sure it is that items cost the same: 1 for no spread, 0 from a quarter of it on.

    >>> evenness(Profile(item_seconds=0.01)), evenness(Profile(item_seconds=0.01, spread=0.01))
    (1.0, 0.0)
    """
    return max(0.0, 1.0 - 4 * profile.spread / profile.item_seconds)


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
