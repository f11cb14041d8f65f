"""The cost model: forecasts run times from measurements. Pure functions of frozen values.

Nothing here reads a clock, a file or the machine, so every forecast can be repeated on paper.
Times are in seconds, sizes in bytes, rates per item. docs/model.md derives the formulas and says
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
    "UNKNOWN_SIZE",
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


# More workers than this do not pay even for waiting items: each costs 1 ms to start.
MOST_WAITING_WORKERS = 256

# An item that uses less than this share of a CPU counts as waiting.
WAITING_SHARE = 0.5


class Profile(NamedTuple):
    """What was measured of a function's items.

    Attributes:
        item_seconds: mean wall time of an item that runs alone, s.
        spread: standard deviation of item times (of block means, for tiny items), s.
        least_seconds, most_seconds: item time in the fastest and the slowest block, s: the range
            in which the first timings of a later call confirm the profile.
        cpu_share: CPU time over wall time; near 0 for waiting, above 1 for threads inside.
        arg_bytes: pickled size of an argument; 0 if not measured.
        result_bytes: pickled size of a result; 0 if not measured.
        pickle_seconds: time to pickle one result, s; unpickling takes about the same.
        send_seconds: time to pickle one argument, s; unpickling takes about the same.
        contention: how much longer an item takes while all CPUs are busy, as a share of its time;
            0 if not measured.
        import_seconds: time a fresh interpreter needs, beyond its own start, to import what the
            function uses, s; 0 if not measured.
        memory_bytes: growth of the peak resident memory while items ran.
        items: number of items measured.
        waiting_workers: number of workers known to wait as well as one; 0 if waiting is only
            claimed.
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
    """The cost of starting and ending a crew with one start method, in seconds.

    Attributes:
        base: once, while the caller waits.
        each: for each worker, while the caller waits.
        per_gb: for each worker and each GB resident in the caller, while the caller waits (page
            tables).
        latency: from a worker's start until it runs its first item.
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
    """What running workers costs on this machine, as far as known.

    Attributes:
        fork, spawn, forkserver, thread: start-up costs of each start method, and of threads.
        chunk_seconds: CPU time of dispatching one chunk and collecting its result.
        byte_seconds: time to move one byte through a pipe.
        shared_seconds: time to move one byte through shared memory.
        contention: how much longer an item takes while all CPUs are busy, as a share of its time;
            for functions whose contention is not known.
        error: the recent relative error of forecasts.
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
        """Return the start-up cost of a start method."""
        cost: StartCost = getattr(self, method)
        return cost


# Measured in November 2026 on a quiet two-core x86-64 machine, Linux 6, Python 3.11. Every real run
# corrects them (learned_costs), so they matter on the first day only.
FIRST_COSTS = Costs(
    fork=StartCost(0.0008, 0.0010, 0.025, 0.0015, 0.0005, 0.0010),
    spawn=StartCost(0.0010, 0.0030, 0.0, 0.0900, 0.0020, 0.0030),
    forkserver=StartCost(0.0200, 0.0020, 0.0, 0.0900, 0.0010, 0.0020),
    thread=StartCost(0.0002, 0.0001, 0.0, 0.0, 0.0001, 0.0000),
    chunk_seconds=0.000_20,
    byte_seconds=1.5e-9,
    shared_seconds=0.5e-9,
    contention=0.05,
    error=0.1,
)

# Start methods whose workers are fresh interpreters, which import what they need.
FRESH_METHODS = ("spawn", "forkserver")

# The start-up cost of kept workers.
NO_START = StartCost(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

# The buckets of item times, with their upper bounds in seconds.
TIME_BUCKETS = (
    ("instant", 0.0001),
    ("fast", 0.001),
    ("moderate", 0.01),
    ("slow", 0.1),
    ("very_slow", float("inf")),
)

_SIZE_BUCKETS = (("tiny", 10), ("small", 100), ("medium", 1_000), ("large", 10_000))

# A shorter chunk is not worth its dispatch: 0.2 ms of dispatch is 8 % of this.
SMALLEST_CHUNK_SECONDS = 0.0025
# All results of a chunk arrive together, so during a longer chunk the caller would see no progress,
# worker deaths or changes in cost for too long.
LONGEST_CHUNK_SECONDS = 0.5
# A chunk's results are briefly in memory twice.
LARGEST_CHUNK_BYTES = 32_000_000
# Buffers from this size on go through shared memory (``run.shared``). Small buffers are quicker
# through the pipe: 16 kB took 64 us through the pipe and 90 us shared; 64 kB took 75 and 42 us;
# 8 MB took 17 and 3 ms (November 2026, two-core machine).
SHARED_FROM_BYTES = 1 << 17


# The size of an input of unknown length, in place of a bucket.
UNKNOWN_SIZE = "unknown"


def time_bucket(item_seconds: float) -> str:
    """Return the name of the bucket for an item time.

    >>> [time_bucket(t) for t in (3e-8, 0.0005, 0.005, 0.05, 5.0)]
    ['instant', 'fast', 'moderate', 'slow', 'very_slow']
    """
    return next(name for name, bound in TIME_BUCKETS if item_seconds < bound)


def size_bucket(items: int) -> str:
    """Return the name of the bucket for a number of items.

    >>> [size_bucket(n) for n in (9, 10, 999, 9_999, 10_000)]
    ['tiny', 'small', 'medium', 'large', 'xlarge']
    """
    return next((name for name, bound in _SIZE_BUCKETS if items < bound), "xlarge")


def serial_seconds(profile: Profile, items: int) -> float:
    """Return the forecast for ``items`` items in the calling process, s."""
    return profile.item_seconds * items


def start_seconds(cost: StartCost, workers: int, resident_bytes: int) -> float:
    """Return how long the caller is busy starting ``workers`` workers, s."""
    return cost.base + workers * (cost.each + cost.per_gb * resident_bytes / 1e9)


class Workforce(NamedTuple):
    """A crew to forecast for.

    Attributes:
        method: start method, or "thread".
        workers: number of processes or threads that run items, 1 or more.
        cpus: usable CPUs.
        resident_bytes: the caller's resident memory, which a fork must map.
        inherited: whether workers inherit the arguments, which are then not sent.
        kept: whether the workers are kept workers, which are neither started nor ended.
        shared: whether the caller is one of them.
        input_seconds: time that the caller needs to read an item of the input, s. It is part of
            the time of an item that runs in the caller, not of one in a worker.
    """

    method: str
    workers: int
    cpus: int
    resident_bytes: int = 0
    inherited: bool = True
    kept: bool = False
    shared: bool = False
    input_seconds: float = 0.0

    @property
    def started(self) -> int:
        """Number of processes or threads to start, 1 or more."""
        return max(1, self.workers - self.shared)


class Chunking(NamedTuple):
    """How to cut the items into chunks.

    Attributes:
        share: the size of a chunk, as a share of one worker's part of the remaining items.
        least_seconds: the shortest chunk, s.
        least_items: the same in items, at the mean item time: recent items may have been shorter
            than the items to come.
        ramp_seconds: how long the caller is busy starting workers, s. Workers that have started
            need this much queued work each, because the caller cannot send more meanwhile.
    """

    share: float = 0.5
    least_seconds: float = SMALLEST_CHUNK_SECONDS
    least_items: int = 1
    ramp_seconds: float = 0.0


# For calls where nothing is known.
DEFAULT_CHUNKING = Chunking()


def parallel_seconds(profile: Profile, costs: Costs, items: int, workforce: Workforce) -> float:
    """Return the forecast for ``items`` items in workers, including their start and end, s.

    Args:
        profile: what an item costs.
        costs: the machine's costs.
        items: items left.
        workforce: the crew.
    """
    return _forecast(profile, costs, items, workforce).seconds


def chunking(profile: Profile, costs: Costs, items: int, workforce: Workforce) -> Chunking:
    """Return how to cut the items of a run into chunks.

    Chunks are smaller for three reasons:

    - Workers that start late must still find work. Chunks shrink by the share of the run that
      starting the workers takes.
    - A caller that is busy with results must get the first ones early. Chunks shrink by the share
      of the run that the caller's work on arguments and results takes.
    - Results in the same chunk as the longest item wait for it. If items differ, chunks shrink by
      the longest item's share of one worker's work.

    Args:
        profile: what an item costs.
        costs: the machine's costs.
        items: items left.
        workforce: the crew.
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


# Lower bound for ``Chunking.share``.
LEAST_SHARE = 0.05


def _both(one: float, other: float) -> float:
    """Return how long two activities take that run at the same time and feed each other.

    They take as long as the longer one, and some more if both are close, because each then waits
    for the other at times. The power is a guess; it adds 9 % if both take equally long.
    """
    longer, shorter = max(one, other), min(one, other)
    return longer * sqrt(sqrt(sqrt(1 + (shorter / longer) ** 8)))


# Reading counts as at most this share of an item's time, whatever was measured on some other items.
MOST_READING = 0.95
# The caller must have this many times the time it needs to dispatch chunks.
CALLER_ROOM = 1.2
LEAST_AVAILABLE = 0.02
SAME_CHUNK = 1.1


def _least_seconds(costs: Costs, work: float, workers: int, available: float) -> float:
    """Return the shortest chunk worth its dispatch.

    T is a worker's part of the work and h the dispatch of a chunk. Chunks of d seconds cost
    ``(T / d) h`` for dispatch, and ``d / 2`` at the end on average. The sum is least at
    ``d = sqrt(2 T h)``. d is at most the larger of ``10 h`` and ``SMALLEST_CHUNK_SECONDS``. It is
    longer if the caller, which does half of each dispatch, would otherwise be busy all the time.

    Args:
        costs: the machine's costs, which include h.
        work: time of all items together in workers, s.
        workers: number of workers.
        available: time the caller has for dispatch, s.
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
    results_seconds: float  # the caller's work with arguments and results
    item_seconds: float  # of an item in a worker, including the time to move it
    least_seconds: float  # the shortest chunk, in the same time


def _forecast(profile: Profile, costs: Costs, items: int, workforce: Workforce) -> _Forecast:
    workers, started, method = workforce.workers, workforce.started, workforce.method
    cost = NO_START if workforce.kept else costs.of(method)
    start = start_seconds(cost, started, workforce.resident_bytes)
    each = (start - cost.base) / started
    latency = cost.latency
    if not workforce.kept and method in FRESH_METHODS:
        latency += profile.import_seconds
    # The first worker begins, and the others follow. A caller that shares begins without latency,
    # once it has started the workers.
    begun = cost.base + each + latency * started / workers
    ramp = each * (started - 1)
    reading = max(0.0, min(MOST_READING * profile.item_seconds, workforce.input_seconds))
    alone, share = profile.item_seconds - reading, profile.cpu_share
    slow = 1 + (slowdown(profile, costs, workers, workforce.cpus) - 1) * min(share, 1.0)
    out = back = sent = 0.0
    if method != "thread":
        out = travel_seconds(profile, costs)
        back = profile.pickle_seconds
        if profile.result_bytes >= SHARED_FROM_BYTES:
            back = MAP_SECONDS
        if not workforce.inherited:
            sent = profile.send_seconds + _moved(profile.arg_bytes, costs)
    if profile.item_seconds > 0 and method in FRESH_METHODS:  # the caller runs items meanwhile
        items -= int(min(items, latency / profile.item_seconds))
    # The results of items that the caller runs do not travel.
    part = started / workers
    t = alone * slow + (out + sent) * part
    dispatch = costs.chunk_seconds / 2  # the caller's part, and a worker's
    # The size of the larger of result and argument; inherited arguments are not sent.
    size = (
        profile.result_bytes
        if workforce.inherited
        else max(profile.result_bytes, profile.arg_bytes)
    )
    work = items * t
    # Items with threads inside use more CPU time than wall time.
    computing = (work - items * alone * slow * (1 - min(share, 1.0))) * max(share, 1.0)
    moving = items * ((back + sent) * part + reading)
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
    if workforce.shared:  # the caller's work with chunks delays its items
        ended = begun + max(span, (work + busy_caller) / workers)
        # It takes a chunk only while there are no replies to handle, but at least one.
        ended = max(ended, start + busy_caller + min(least, work / workers))
    else:
        ended = _both(begun + span, start + busy_caller)
    # No faster than if the workers read their own part: reading beside them is a bonus.
    ended = max(ended, begun + items * profile.item_seconds / workers)
    seconds = ended + cost.end + cost.end_each * started
    return _Forecast(seconds, each * started, moving, t, least)


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
        profile: has the spread and the longest item.
        t: an item's time in a worker, s.
        items: number of items.
        workers: number of workers.
        ramp: time from the first worker's start to the last worker's start, s.
        least: the shortest chunk, s.
        dispatch: dispatch of all chunks of one worker, s.
    """
    if items < 1:
        return 0.0
    spread = profile.spread
    longest = t + max(profile.most_seconds - profile.item_seconds, 0.0)
    if not profile.most_seconds:
        longest = t + 3 * spread
    if items <= workers:
        # One item for each worker: the maximum over workers of start time plus item time.
        excess, giants = _excess(spread, longest - t, items)
        return t + max(ramp, excess + ramp * giants / (giants + 1)) + dispatch
    level = items * t / workers + dispatch
    # What is left of a running chunk when no more chunks are left, on average and at most.
    size = max(1.0, least / t)
    chunk = size * t
    rest = (chunk + size * spread * spread / chunk) / 2
    most = min(size * longest, longest + (size - 1) * t)
    running = float(workers)
    filled = max(level + ramp / 2 - rest, 0.0)
    if filled < ramp:  # the last workers to start find no work
        each = ramp / (workers - 1)
        filled = sqrt(rest * rest + 2 * each * level * workers) - rest
        running = max(1.0, filled / each)
    harmonic = log(running) + 0.577 + 0.5 / running - 0.077 / running**2
    span = filled + min(most * running / (running + 1), rest * harmonic)
    # The longest item may start at any time.
    if workers > 1:
        others = max(level - longest / workers, 0.0) + ramp / 2
        if longest < others:
            giant = others + longest * longest / (2 * others)
        else:
            giant = longest + others / 2
        span = max(span, giant)
    even = evenness(profile)
    if even and ramp < t:
        # Equal items run in rounds; the workers that started first run the last round.
        rounds, over = divmod(items, workers)
        late = ramp * (over - 1) / max(1, workers - 1)
        rounded = max(rounds * t + ramp, (rounds + 1) * t + late if over else 0.0)
        span += even * (1 - ramp / t) * (rounded + dispatch - span)
    # No order of chunks takes less time than one worker's even part of the work.
    return max(span, level)


# Time to map a shared segment and to remove its name, s.
MAP_SECONDS = 0.000_05


def slowdown(profile: Profile, costs: Costs, workers: int, cpus: int) -> float:
    """Return the factor by which an item computes longer while ``workers`` workers compute.

    CPUs share caches, memory and, as hardware threads, parts of a core. With b of c CPUs busy an
    item takes ``1 + k (b - 1) / (c - 1)`` times as long.

    Args:
        profile: what an item costs; its ``contention`` is k, if measured.
        costs: the machine's costs, which include k for other functions.
        workers: number of workers.
        cpus: usable CPUs.
    """
    busy = min(workers * min(profile.cpu_share, 1.0), float(cpus))
    if busy <= 1 or cpus < 2:
        return 1.0
    return 1 + (profile.contention or costs.contention) * (busy - 1) / (cpus - 1)


def evenness(profile: Profile) -> float:
    """Return how even item times are: 1 without spread, 0 from a spread of a quarter of the mean.

    >>> evenness(Profile(item_seconds=0.01)), evenness(Profile(item_seconds=0.01, spread=0.01))
    (1.0, 0.0)
    """
    return max(0.0, 1.0 - 4 * profile.spread / profile.item_seconds)


def chunk_share(profile: Profile, items: int, workers: int) -> float:
    """Return the size of a chunk, as a share of one worker's part of the remaining items.

    The share is one half as in factoring, and up to four fifths for even items. If items differ
    much and are few for each worker, factoring's own rule limits it to 1 / x, with
    ``x = 1 + b^2 + b sqrt(b^2 + 2)`` and ``b = w s / (2 t sqrt(R))`` (Hummel, Schonberg and Flynn
    1992).

    >>> chunk_share(Profile(0.01, spread=0.01), 1_000, 2), chunk_share(Profile(0.01), 1_000, 2)
    (0.5, 0.8)
    """
    b = workers * profile.spread / (2 * profile.item_seconds * sqrt(max(1, items)))
    return min(0.5 + 0.3 * evenness(profile), 1 / (1 + b * b + b * sqrt(b * b + 2)))


def uncertainty(profile: Profile, costs: Costs) -> float:
    """Return the relative error a forecast may have.

    It is the recent error of forecasts plus the standard error of the mean item time.
    """
    known = max(1, profile.items)
    return min(0.9, costs.error + profile.spread / profile.item_seconds / sqrt(known))


def travel_seconds(profile: Profile, costs: Costs) -> float:
    """Return the time a worker takes to pickle and send one result, s."""
    return profile.pickle_seconds + _moved(profile.result_bytes, costs)


def _moved(size: float, costs: Costs) -> float:
    """Return the time to move ``size`` bytes from one process to another, s."""
    return size * (costs.shared_seconds if size >= SHARED_FROM_BYTES else costs.byte_seconds)


def _chunk_count(
    profile: Profile,
    items: int,
    item_seconds: float,
    workers: int,
    least_seconds: float,
    item_bytes: float,
) -> int:
    """Return about how many chunks ``planner.next_chunksize`` makes.

    Each chunk takes the share f / w of the remaining items, down to the smallest size s. From
    ``f R / w`` to ``s`` items these are ``(w / f) ln(f R / (w s))`` chunks, then ``w / f`` chunks
    of the smallest size. The limits on a chunk's time and bytes may require more chunks.
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
    """Return by how much the longest item exceeds the mean, s, and the number of giants.

    For normally distributed times the excess is ``s sqrt(2 ln n)``. If a few items cause the spread
    s, at most ``(s / most)^2`` of all items can exceed the mean by ``most``: these are the giants.
    The excess is then ``most`` times their expected number, if that is larger. It never exceeds
    ``most``.
    """
    if count < 2 or most <= 0 or spread <= 0:
        return 0.0, 1.0
    giants = count * (spread / most) ** 2
    excess = max(spread * sqrt(2 * log(count)), most * min(1.0, giants))
    return min(most, excess), max(1.0, giants)
