"""The cost model: what a run would take, from what was measured. Pure functions of frozen values.

Nothing here reads a clock, a file or the machine, so every forecast can be repeated on paper.
Times are in seconds, sizes in bytes, rates per item. docs/model.md derives the formulas and tells
where each constant was measured.
"""

from __future__ import annotations

from math import log, sqrt

from ..tuples import NamedTuple

__all__ = [
    "DEFAULT_CHUNKING",
    "FIRST_COSTS",
    "FRESH_METHODS",
    "MOST_WAITING_WORKERS",
    "TIME_BUCKETS",
    "WAITING_SHARE",
    "Chunking",
    "Costs",
    "Profile",
    "StartCost",
    "Workforce",
    "chunk_share",
    "chunking",
    "evenness",
    "parallel_seconds",
    "serial_seconds",
    "size_bucket",
    "slowdown",
    "start_seconds",
    "time_bucket",
    "travel_seconds",
    "uncertainty",
]


# More processes than this hide no more waiting: their start costs 1 ms each.
MOST_WAITING_WORKERS = 256

# An item that uses less than this share of a CPU is waiting for something.
WAITING_SHARE = 0.5


class Profile(NamedTuple):
    """What was measured of a function's items.

    Attributes:
        item_seconds: mean wall time of an item that runs alone, s.
        spread: standard deviation of item times (of blocks of them, for tiny items), s.
        least_seconds, most_seconds: wall time of an item in the fastest and slowest block of them,
            s: the range in which a later call's first items are no surprise.
        cpu_share: CPU time over wall time; near 0 for waiting, above 1 for threads inside.
        arg_bytes: pickled size of an argument; 0 when not measured.
        result_bytes: pickled size of a result; 0 when not measured.
        pickle_seconds: time to pickle one result, about that to unpickle it, s.
        send_seconds: time to pickle one argument, about that to unpickle it, s.
        contention: how much longer an item takes while all CPUs are busy, as a share of its time;
            0 when not measured.
        import_seconds: what a fresh interpreter needs, beyond its own start, to import what the
            function uses; 0 when not measured.
        memory_bytes: growth of the peak resident memory while items ran.
        items: number of items measured.
        waiting_workers: so many workers at once are known to wait as well as one; 0 where waiting
            is only claimed.
    """

    item_seconds: float
    spread: float = 0.0
    least_seconds: float = 0.0
    most_seconds: float = 0.0
    cpu_share: float = 1.0
    arg_bytes: float = 0.0
    result_bytes: float = 0.0
    pickle_seconds: float = 0.0
    send_seconds: float = 0.0
    contention: float = 0.0
    import_seconds: float = 0.0
    memory_bytes: int = 0
    items: int = 1
    waiting_workers: int = MOST_WAITING_WORKERS


class StartCost(NamedTuple):
    """What it costs to start and end a crew of workers with one start method, in seconds.

    Attributes:
        base: once, while the caller waits.
        each: for each worker, while the caller waits.
        per_gb: for each worker and GB resident in the caller, while it waits (page tables).
        latency: from its start until a worker runs its first item.
        end: once, to end the crew.
        end_each: for each worker, to end it.
    """

    base: float
    each: float
    per_gb: float
    latency: float
    end: float
    end_each: float


class Costs(NamedTuple):
    """What this machine charges, as far as known.

    Attributes:
        fork, spawn, forkserver, thread: start costs by start method (threads have none to start
            but themselves).
        chunk_seconds: CPU time of dispatching one chunk and collecting its result.
        byte_seconds: moving one byte through a pipe.
        shared_seconds: moving one byte through shared memory.
        contention: how much longer an item takes while all CPUs are busy, as a share of its time,
            where that is not known of the function.
        error: by what share forecasts have been wrong of late.
    """

    fork: StartCost
    spawn: StartCost
    forkserver: StartCost
    thread: StartCost
    chunk_seconds: float
    byte_seconds: float
    shared_seconds: float
    contention: float
    error: float

    def of(self, method: str) -> StartCost:
        """Return the start cost of a start method."""
        cost: StartCost = getattr(self, method)
        return cost


# Measured in November 2026 on a quiet two-core x86-64 machine, Linux 6, Python 3.11; every real run
# corrects them (learned_costs), so they matter on the first day only.
FIRST_COSTS = Costs(
    fork=StartCost(0.0015, 0.0010, 0.025, 0.0005, 0.0010, 0.0004),
    spawn=StartCost(0.0010, 0.0030, 0.0, 0.0900, 0.0020, 0.0030),
    forkserver=StartCost(0.0200, 0.0020, 0.0, 0.0900, 0.0010, 0.0020),
    thread=StartCost(0.0002, 0.0001, 0.0, 0.0, 0.0001, 0.0000),
    chunk_seconds=0.000_25,
    byte_seconds=1.5e-9,
    shared_seconds=0.5e-9,
    contention=0.05,
    error=0.1,
)

# Those whose workers import what they need.
FRESH_METHODS = ("spawn", "forkserver")

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
# A chunk's result comes back at once: longer chunks make a run blind (progress, deaths, surprises).
LONGEST_CHUNK_SECONDS = 0.5
# Results of a chunk are in memory twice for a moment.
LARGEST_CHUNK_BYTES = 32_000_000
# From here on a buffer goes through shared memory (``run.shared``). Below it the pipe is quicker:
# 64 kB took 75 us through the pipe and 42 us shared, 16 kB 64 and 90 us; 8 MB took 17 ms and 3 ms
# (November 2026, two-core machine).
SHARED_FROM_BYTES = 1 << 17


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


class Workforce(NamedTuple):
    """So many workers, and what they start from.

    Attributes:
        method: start method, or "thread".
        workers: how many, 1 or more.
        cpus: usable CPUs.
        resident_bytes: the caller's resident memory, which a fork has to map.
        inherited: whether arguments need not travel.
        kept: whether that many workers are there already, and stay.
    """

    method: str
    workers: int
    cpus: int
    resident_bytes: int = 0
    inherited: bool = True
    kept: bool = False


class Chunking(NamedTuple):
    """How to cut the items into chunks.

    Attributes:
        share: which share of a worker's part of what remains is dealt out at a time.
        least_seconds: the shortest chunk, s.
        least_items: the smallest, by what items cost on average: where those of late were light,
            those to come may not be.
        ramp_seconds: how long the last worker starts after the first, s: so much work for each must
            wait for those that are there while the caller is busy starting others.
    """

    share: float = 0.5
    least_seconds: float = SMALLEST_CHUNK_SECONDS
    least_items: int = 1
    ramp_seconds: float = 0.0


# Where nothing is known.
DEFAULT_CHUNKING = Chunking()


def parallel_seconds(profile: Profile, costs: Costs, items: int, workforce: Workforce) -> float:
    """Return the time ``items`` would take in workers, start and end included.

    Args:
        profile: what an item costs.
        costs: what the machine charges.
        items: items left.
        workforce: the workers.
    """
    return _forecast(profile, costs, items, workforce).seconds


def chunking(profile: Profile, costs: Costs, items: int, workforce: Workforce) -> Chunking:
    """Return how to cut the items of such a run into chunks.

    Of what remains less is dealt out at a time where workers come up so late that they would find
    nothing left, and where the caller has so much to do with results that it must not wait for the
    first of them: less by the share of the run that each of the two takes.

    Args:
        profile: what an item costs.
        costs: what the machine charges.
        items: items left.
        workforce: the workers.
    """
    found = _forecast(profile, costs, items, workforce)
    left = max(0.0, 1 - found.ramp_seconds / found.seconds)
    left *= max(0.0, 1 - found.results_seconds / found.seconds)
    part = items * profile.item_seconds / workforce.workers
    left *= 1 - (1 - evenness(profile)) * min(1.0, profile.most_seconds / part)
    share = max(LEAST_SHARE, chunk_share(profile, items, workforce.workers) * left)
    least = found.least_seconds * profile.item_seconds / found.item_seconds
    fewest = max(1, round(least / profile.item_seconds))
    return Chunking(share, least, fewest, found.ramp_seconds)


# No less is dealt out at a time: a twentieth of what a worker would get of the rest.
LEAST_SHARE = 0.05


def _both(one: float, other: float) -> float:
    """Return how long two take that work on each other's output at the same time.

    The longer of them, and some more where they are close: then now the one waits, now the other.
    The power is pulled out of the air; it adds 9 % where both take equally long.
    """
    longer, shorter = max(one, other), min(one, other)
    return longer * sqrt(sqrt(sqrt(1 + (shorter / longer) ** 8)))


# How much more time the caller has than it needs to dispatch chunks.
CALLER_ROOM = 1.2
LEAST_AVAILABLE = 0.02
SAME_CHUNK = 1.1


def _least_seconds(costs: Costs, work: float, workers: int, available: float) -> float:
    """Return the shortest chunk worth its dispatch.

    With T for a worker's part of the work, chunks of d seconds cost ``(T / d) h`` for dispatch, and
    ``d / 2`` at the end, on average: least where ``d = sqrt(2 T h)``. No longer than ten times its
    dispatch; and so long that the caller, who has half of the dispatch of every chunk, is not busy
    all the time that it has for it.

    Args:
        costs: what the machine charges; gives h.
        work: what all items take together in workers, s.
        workers: how many.
        available: how long the caller has, s.
    """
    part, dispatch = work / workers, costs.chunk_seconds
    best = min(sqrt(2 * part * dispatch), max(SMALLEST_CHUNK_SECONDS, 10 * dispatch))
    if CALLER_ROOM * work * dispatch / 2 > best * available:
        unhurried = CALLER_ROOM * work * dispatch / 2 / max(available, 1e-9)
        best = max(best, min(unhurried, sqrt(work * dispatch)))
    return max(min(best, part), 1e-6)


class _Forecast(NamedTuple):
    seconds: float
    ramp_seconds: float  # until the caller has started the last worker
    results_seconds: float  # of the caller's work, with arguments and results
    item_seconds: float  # of one in a worker, with all that it takes to move it
    least_seconds: float  # the shortest chunk, so counted


def _forecast(profile: Profile, costs: Costs, items: int, workforce: Workforce) -> _Forecast:
    workers, method = workforce.workers, workforce.method
    cost = NO_START if workforce.kept else costs.of(method)
    start = start_seconds(cost, workers, workforce.resident_bytes)
    each = (start - cost.base) / workers
    latency = cost.latency
    if not workforce.kept and method in FRESH_METHODS:
        latency += profile.import_seconds
    begun = cost.base + each + latency  # the first worker; the others follow
    ramp = each * (workers - 1)
    alone, share = profile.item_seconds, profile.cpu_share
    slow = 1 + (slowdown(profile, costs, workers, workforce.cpus) - 1) * min(share, 1.0)
    out = back = sent = 0.0
    if method != "thread":
        out = travel_seconds(profile, costs)
        back = profile.pickle_seconds
        if profile.result_bytes >= SHARED_FROM_BYTES:
            back = MAP_SECONDS
        if not workforce.inherited:
            sent = profile.send_seconds + _moved(profile.arg_bytes, costs)
    if alone > 0 and method in FRESH_METHODS:
        items -= int(min(items, latency / alone))  # the caller computes meanwhile
    t = alone * slow + out + sent
    dispatch = costs.chunk_seconds / 2  # the caller's part, and a worker's
    # Of what is larger; what is inherited does not travel.
    size = (
        profile.result_bytes
        if workforce.inherited
        else max(profile.result_bytes, profile.arg_bytes)
    )
    work = items * t
    # Items with threads inside compute more than they last.
    computing = (work - items * alone * slow * (1 - min(share, 1.0))) * max(share, 1.0)
    moving = items * (back + sent)
    least = _least_seconds(costs, work, workers, work / workers + ramp / 2)
    for last in (False, True):
        chunks = _chunk_count(profile, items, t, workers, least, size)
        busy_caller = moving + chunks * dispatch
        span = _span(profile, t, items, workers, ramp, least, chunks * dispatch / workers)
        span = max(span, (computing + busy_caller) / workforce.cpus)
        available = max(span - ramp - moving, LEAST_AVAILABLE * span)
        if last or CALLER_ROOM * work * dispatch <= SAME_CHUNK * least * available:
            break
        least = max(least, _least_seconds(costs, work, workers, available))
    seconds = _both(begun + span, start + busy_caller) + cost.end + cost.end_each * workers
    return _Forecast(seconds, each * workers, moving, t, least)


def _span(
    profile: Profile,
    t: float,
    items: int,
    workers: int,
    ramp: float,
    least: float,
    dispatch: float,
) -> float:
    """Return the time from the first worker's start to the last worker's end.

    Args:
        profile: gives the spread, and the longest item.
        t: an item's time in a worker, s.
        items: how many.
        workers: how many.
        ramp: how long the last of them starts after the first, s.
        least: the shortest chunk, s.
        dispatch: of each worker's chunks together, s.
    """
    if items < 1:
        return 0.0
    spread = profile.spread
    longest = t + max(profile.most_seconds - profile.item_seconds, 0.0)
    if not profile.most_seconds:
        longest = t + 3 * spread
    if items <= workers:
        # One each, of which the last starts late: the greatest of sums of two.
        excess, giants = _excess(spread, longest - t, items)
        return t + max(ramp, excess + ramp * giants / (giants + 1)) + dispatch
    level = items * t / workers + dispatch
    # The last chunks: what is left of them when nothing else is to be had, on average and at most.
    size = max(1.0, least / t)
    chunk = size * t
    rest = (chunk + size * spread * spread / chunk) / 2
    most = min(size * longest, longest + (size - 1) * t)
    running = float(workers)
    filled = max(level + ramp / 2 - rest, 0.0)
    if filled < ramp:  # the last workers to come find nothing
        each = ramp / (workers - 1)
        filled = sqrt(rest * rest + 2 * each * level * workers) - rest
        running = max(1.0, filled / each)
    harmonic = log(running) + 0.577 + 0.5 / running - 0.077 / running**2
    span = filled + min(most * running / (running + 1), rest * harmonic)
    # One giant starts anywhere.
    if workers > 1:
        others = max(level - longest / workers, 0.0) + ramp / 2
        if longest < others:
            giant = others + longest * longest / (2 * others)
        else:
            giant = longest + others / 2
        span = max(span, giant)
    even = evenness(profile)
    if even and ramp < t:
        # In rounds; the last one by those who come first.
        rounds, over = divmod(items, workers)
        late = ramp * (over - 1) / max(1, workers - 1)
        rounded = max(rounds * t + ramp, (rounds + 1) * t + late if over else 0.0)
        span += even * (1 - ramp / t) * (rounded + dispatch - span)
    # No order of chunks gets more than its part of the work out of each worker.
    return max(span, level)


# Mapping a segment and removing its name.
MAP_SECONDS = 0.000_05


def slowdown(profile: Profile, costs: Costs, workers: int, cpus: int) -> float:
    """Return how many times as long an item computes while so many workers do.

    CPUs share caches, memory and, as hardware threads, parts of a core: an item takes
    ``1 + k (b - 1) / (c - 1)`` times as long with b of c CPUs at work.

    Args:
        profile: what an item costs; its ``contention`` is k, where measured.
        costs: what the machine charges; has k for other functions.
        workers: how many.
        cpus: usable CPUs.
    """
    busy = min(workers * min(profile.cpu_share, 1.0), float(cpus))
    if busy <= 1 or cpus < 2:
        return 1.0
    return 1 + (profile.contention or costs.contention) * (busy - 1) / (cpus - 1)


def evenness(profile: Profile) -> float:
    """Return how sure it is that items cost the same: 1 for no spread, 0 from a quarter of it on.

    >>> evenness(Profile(item_seconds=0.01)), evenness(Profile(item_seconds=0.01, spread=0.01))
    (1.0, 0.0)
    """
    return max(0.0, 1.0 - 4 * profile.spread / profile.item_seconds)


def chunk_share(profile: Profile, items: int, workers: int) -> float:
    """Return which share of what remains is dealt out at a time, as far as the items go.

    Half of it, as factoring has it; up to four fifths where items cost the same; and less where
    they differ so much, and are so few for each worker, that factoring's own rule says so: 1 / x of
    it, with ``x = 1 + b^2 + b sqrt(b^2 + 2)`` and ``b = w s / (2 t sqrt(R))`` (Hummel, Schonberg
    and Flynn 1992).

    >>> chunk_share(Profile(0.01, spread=0.01), 1_000, 2), chunk_share(Profile(0.01), 1_000, 2)
    (0.5, 0.8)
    """
    b = workers * profile.spread / (2 * profile.item_seconds * sqrt(max(1, items)))
    return min(0.5 + 0.3 * evenness(profile), 1 / (1 + b * b + b * sqrt(b * b + 2)))


def uncertainty(profile: Profile, costs: Costs) -> float:
    """Return by what share a forecast may be wrong.

    What forecasts have been off by of late, and the standard error of the mean.
    """
    known = max(1, profile.items)
    return min(0.9, costs.error + profile.spread / profile.item_seconds / sqrt(known))


def travel_seconds(profile: Profile, costs: Costs) -> float:
    """Return the time it takes a worker to pickle and send one result."""
    return profile.pickle_seconds + _moved(profile.result_bytes, costs)


def _moved(size: float, costs: Costs) -> float:
    """Return the time to move so many bytes from one process to another."""
    return size * (costs.shared_seconds if size >= SHARED_FROM_BYTES else costs.byte_seconds)


def _chunk_count(
    profile: Profile,
    items: int,
    item_seconds: float,
    workers: int,
    least_seconds: float,
    item_bytes: float,
) -> int:
    """Return about how many chunks the policy of ``planner.next_chunksize`` makes.

    Each chunk takes the share f / w of what remains, down to the smallest: from ``f R / w`` to
    ``s`` items that is ``(w / f) ln(f R / (w s))`` chunks, and ``w / f`` of the smallest. None is
    longer or larger than the longest and the largest.
    """
    if items <= workers:
        return items
    share = max(LEAST_SHARE, chunk_share(profile, items, workers))
    least = max(1.0, least_seconds / max(item_seconds, 1e-12))
    first = share * items / workers
    count = workers / share * (1 + max(0.0, log(max(first / least, 1.0))))
    most = LONGEST_CHUNK_SECONDS / max(item_seconds, 1e-12)
    most = min(most, LARGEST_CHUNK_BYTES / max(item_bytes, 1.0))
    return int(min(items, max(workers, count, items / max(1, int(most)))))


def _excess(spread: float, most: float, count: int) -> tuple[float, float]:
    """Return by how much the longest of so many items exceeds their mean, and how many come close.

    ``s sqrt(2 ln n)``, as for normal times, and no more than is known of. Or that much, if a spread
    so large comes of few items so long: no more than ``(s / most)^2`` of all can be.
    """
    if count < 2 or most <= 0 or spread <= 0:
        return 0.0, 1.0
    giants = count * (spread / most) ** 2
    excess = max(spread * sqrt(2 * log(count)), most * min(1.0, giants))
    return min(most, excess), max(1.0, giants)
