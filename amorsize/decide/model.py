"""The cost model: what a run would take, from what was measured. Pure functions of frozen values.

Nothing here reads a clock, a file or the machine, so every forecast can be repeated on paper.
Times are in seconds, sizes in bytes, rates per item.

The formulas, with R items left, w workers, t seconds an item, share the CPU part of t::

    serial    R t
    start     base + each w + per_gb w (resident GB)         the caller is busy with it
    travel    pickling + bytes (pipe)                        one item's result, and its argument
    workers   latency + ceil(R / w) (t + travel)             if the workers are the bottleneck
    cpus      latency + R (t share + 2 travel) / c           if the CPUs are
    caller    latency + R travel                             if unpickling in the caller is
    tail      max(t, smallest chunk) (1 - 1/w)               the last chunk, while the others idle
    end       base_end + each_end w
    parallel  start + max(workers, cpus, caller) + tail + dispatch w + end

While the latency of a spawned worker lasts, the calling process computes items itself, so those
``latency / t`` items are taken off R first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "FIRST_COSTS",
    "TIME_BUCKETS",
    "Costs",
    "Profile",
    "StartCost",
    "corrected_costs",
    "merged_profile",
    "parallel_seconds",
    "serial_seconds",
    "size_bucket",
    "start_seconds",
    "time_bucket",
]


@dataclass(frozen=True, slots=True)
class Profile:
    """What was measured of a function's items.

    Attributes:
        item_seconds: mean wall time of an item in the calling process, s.
        spread: standard deviation of item times (of blocks of them, for tiny items), s.
        least_seconds, most_seconds: wall time of an item in the fastest and slowest block of them,
            s: the range in which a later call's first items are no surprise.
        cpu_share: CPU time over wall time; near 0 for waiting, above 1 for threads inside.
        arg_bytes: pickled size of an argument; 0 when not measured.
        result_bytes: pickled size of a result; 0 when not measured.
        pickle_seconds: time to pickle one result, about that to unpickle it, s.
        memory_bytes: growth of the peak resident memory while items ran.
        items: number of items measured.
    """

    item_seconds: float
    spread: float = 0.0
    least_seconds: float = 0.0
    most_seconds: float = 0.0
    cpu_share: float = 1.0
    arg_bytes: float = 0.0
    result_bytes: float = 0.0
    pickle_seconds: float = 0.0
    memory_bytes: int = 0
    items: int = 1


@dataclass(frozen=True, slots=True)
class StartCost:
    """What it costs to start and end a crew of workers with one start method, in seconds.

    Attributes:
        base: once, while the caller waits.
        each: for each worker, while the caller waits.
        per_gb: for each worker and GB resident in the caller, while it waits (page tables).
        latency: from then until the workers run their first item.
        end: once, to end the crew.
        end_each: for each worker, to end it.
    """

    base: float
    each: float
    per_gb: float
    latency: float
    end: float
    end_each: float


@dataclass(frozen=True, slots=True)
class Costs:
    """What this machine charges, as far as known.

    Attributes:
        fork, spawn, forkserver, thread: start costs by start method (threads have none to start
            but themselves).
        chunk_seconds: dispatching one chunk and collecting its result.
        byte_seconds: moving one byte through a pipe.
    """

    fork: StartCost
    spawn: StartCost
    forkserver: StartCost
    thread: StartCost
    chunk_seconds: float
    byte_seconds: float

    def of(self, method: str) -> StartCost:
        """Return the start cost of a start method."""
        cost: StartCost = getattr(self, method)
        return cost


# Measured in November 2026 on a quiet two-core x86-64 machine, Linux 6, Python 3.11, with
# benchmarks/start.py; every real run corrects them (corrected_costs).
FIRST_COSTS = Costs(
    fork=StartCost(0.0010, 0.0010, 0.025, 0.0005, 0.0004, 0.0003),
    spawn=StartCost(0.0010, 0.0030, 0.0, 0.0900, 0.0020, 0.0030),
    forkserver=StartCost(0.0200, 0.0020, 0.0, 0.0900, 0.0010, 0.0020),
    thread=StartCost(0.0002, 0.0001, 0.0, 0.0, 0.0001, 0.0000),
    chunk_seconds=0.000_15,
    byte_seconds=1.5e-9,
)

# Of workers that are there already.
NO_START = StartCost(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

# The contract's buckets of an item's time, by their upper bounds in seconds.
TIME_BUCKETS = (
    ("instant", 0.0001),
    ("fast", 0.001),
    ("moderate", 0.01),
    ("slow", 0.1),
    ("very_slow", float("inf")),
)

_SIZE_BUCKETS = (("tiny", 10), ("small", 100), ("medium", 1_000), ("large", 10_000))

# A chunk below this is not worth its dispatch: 0.25 ms of dispatch is 10 % of it.
SMALLEST_CHUNK_SECONDS = 0.0025


def time_bucket(item_seconds: float) -> str:
    """Return the name of the bucket an item's time falls into.

    >>> [time_bucket(t) for t in (3e-8, 0.0005, 0.005, 0.05, 5.0)]
    ['instant', 'fast', 'moderate', 'slow', 'very_slow']
    """
    return next(name for name, bound in TIME_BUCKETS if item_seconds < bound)


def size_bucket(items: int) -> str:
    """Return the name of the bucket a number of items falls into.

    >>> [size_bucket(n) for n in (9, 10, 999, 9_999, 10_000)]
    ['tiny', 'small', 'medium', 'large', 'xlarge']
    """
    return next((name for name, bound in _SIZE_BUCKETS if items < bound), "xlarge")


def serial_seconds(profile: Profile, items: int) -> float:
    """Return the time ``items`` would take in the calling process."""
    return profile.item_seconds * items


def start_seconds(cost: StartCost, workers: int, resident_bytes: int) -> float:
    """Return how long the caller is busy starting ``workers`` workers."""
    return cost.base + workers * (cost.each + cost.per_gb * resident_bytes / 1e9)


def parallel_seconds(
    profile: Profile,
    costs: Costs,
    method: str,
    items: int,
    workers: int,
    *,
    cpus: int,
    resident_bytes: int = 0,
    inherited: bool = True,
    kept: bool = False,
) -> float:
    """Return the time ``items`` would take in ``workers`` workers, start and end included.

    Args:
        profile: what an item costs.
        costs: what the machine charges.
        method: start method, or "thread".
        items: items left.
        workers: workers to start, 1 or more.
        cpus: usable CPUs.
        resident_bytes: the caller's resident memory, which a fork has to map.
        inherited: whether arguments need not travel.
        kept: whether that many workers are there already, and stay.
    """
    cost = NO_START if kept else costs.of(method)
    start = start_seconds(cost, workers, resident_bytes)
    end = cost.end + cost.end_each * workers
    t = profile.item_seconds
    if method == "thread":
        travel = 0.0
    else:
        sent = profile.result_bytes + (0.0 if inherited else profile.arg_bytes)
        travel = profile.pickle_seconds + sent * costs.byte_seconds
    if t > 0:
        items = max(0, items - int(cost.latency / t))  # the caller computes while workers start
    rounds = -(-items // workers)
    busy_workers = rounds * (t + travel)
    busy_cpus = items * (t * profile.cpu_share + 2 * travel) / cpus
    busy_caller = items * travel
    tail = max(t, SMALLEST_CHUNK_SECONDS) * (1 - 1 / workers) if rounds > 1 else 0.0
    span = cost.latency + max(busy_workers, busy_cpus, busy_caller) + tail
    return start + span + costs.chunk_seconds * workers + end


def merged_profile(old: Profile, new: Profile, weight: float = 0.3) -> Profile:
    """Return the running estimate after one more measurement.

    The new measurement counts ``weight``, and is held within a factor of 4 of the old one, so that
    one disturbed run cannot overturn many good ones. Both numbers are pulled out of the air; the
    live check against a record's time bucket covers real changes.

    Args:
        old: the estimate so far.
        new: what was measured this time.
        weight: share of the new measurement, 0 to 1.
    """

    def blend(before: float, now: float) -> float:
        if before <= 0 or now <= 0:
            return now if before <= 0 else before
        return before + weight * (min(max(now, before / 4), before * 4) - before)

    return replace(
        new,
        item_seconds=blend(old.item_seconds, new.item_seconds),
        spread=blend(old.spread, new.spread),
        least_seconds=blend(old.least_seconds, new.least_seconds),
        most_seconds=blend(old.most_seconds, new.most_seconds),
        cpu_share=blend(old.cpu_share, new.cpu_share),
        arg_bytes=blend(old.arg_bytes, new.arg_bytes),
        result_bytes=blend(old.result_bytes, new.result_bytes),
        pickle_seconds=blend(old.pickle_seconds, new.pickle_seconds),
        memory_bytes=max(old.memory_bytes, new.memory_bytes),
        items=old.items + new.items,
    )


def corrected_costs(
    costs: Costs,
    method: str,
    workers: int,
    *,
    resident_bytes: int,
    started: float,
    latency: float | None,
    ended: float,
    weight: float = 0.3,
) -> Costs:
    """Return the costs after one more real start and end of a crew.

    Args:
        costs: the estimate so far.
        method: start method of the run.
        workers: workers it started.
        resident_bytes: the caller's resident memory then.
        started: how long the caller was busy starting them, s.
        latency: how long it took from then until the first worker was ready, s; None if no worker
            came to it.
        ended: how long it took to end them, s.
        weight: share of the new measurement, 0 to 1.
    """
    cost = costs.of(method)
    begin = _ratio(started, start_seconds(cost, workers, resident_bytes), weight)
    end = _ratio(ended, cost.end + cost.end_each * workers, weight)
    waited = 1.0 if latency is None else _ratio(latency, cost.latency, weight)
    corrected = StartCost(
        base=cost.base * begin,
        each=cost.each * begin,
        per_gb=cost.per_gb * begin,
        latency=cost.latency * waited,
        end=cost.end * end,
        end_each=cost.end_each * end,
    )
    changed: dict[str, Any] = {method: corrected}
    return replace(costs, **changed)


def _ratio(actual: float, forecast: float, weight: float) -> float:
    """Return by how much to scale a forecast: towards the actual, held within a factor of 4."""
    if forecast <= 0 or actual <= 0:
        return 1.0
    return 1 + weight * (min(max(actual / forecast, 0.25), 4.0) - 1)
