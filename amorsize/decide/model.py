"""The cost model: forecasts run times from measurements. Pure functions of frozen values.

Nothing here reads a clock, a file or the machine, so every forecast can be repeated on paper.
Times are in seconds, sizes in bytes, rates per item. docs/model.md derives the formulas and says
where each constant was measured.
"""

from __future__ import annotations

from math import log, sqrt

from ..tuples import NamedTuple
from .cutting import (
    LEAST_SHARE,
    SMALLEST_CHUNK_SECONDS,
    Chunking,
    chunk_count,
    chunk_share,
    evenness,
)
from .figures import FRESH_METHODS, SHARED_FROM_BYTES, Costs, Profile, StartCost

__all__ = [
    "Workforce",
    "chunking",
    "parallel_seconds",
    "serial_seconds",
    "slowdown",
    "start_seconds",
    "travel_seconds",
    "uncertainty",
    "workers_per_cpu",
]

# The start-up cost of kept workers.
NO_START = StartCost(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


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
      starting the workers takes; only by what this exceeds half of the run if the caller is one of
      the workers, because these take their chunks without waiting for it.
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
    if workforce.shared:
        left = min(1.0, 2 * left)
    left *= max(0.0, 1 - found.results_seconds / found.seconds)
    part = items * profile.item_seconds / workforce.workers
    left *= 1 - (1 - evenness(profile)) * min(1.0, profile.most_seconds / part)
    share = max(LEAST_SHARE, chunk_share(profile, items, workforce.workers) * left)
    least = found.least_seconds * profile.item_seconds / found.item_seconds
    fewest = max(1, round(least / profile.item_seconds))
    return Chunking(share, least, fewest, found.ramp_seconds)


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


# The time that results take makes the shortest chunk at most this many times as long.
MOST_LONGER = 3.0


def _round_seconds(started: int, dispatch: float, back: float) -> float:
    """Return the shortest chunk for which a caller that shares handles all replies in time, s.

    Near the end all chunks are of the shortest length d, and in the time of one of them each worker
    sends a reply. If the caller needs longer than d to handle these, replies pile up.

    Args:
        started: number of workers that send replies.
        dispatch: the caller's time for a reply, s.
        back: the caller's time for the results in it, as a share of the chunk's time.
    """
    return started * dispatch * min(MOST_LONGER, 1 / max(1e-9, 1 - started * back))


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
    latency = _latency(profile, cost, workforce)
    # The first worker begins, and the others follow. A caller that shares begins without latency,
    # once it has started the workers.
    begun = cost.base + each + latency * started / workers
    ramp = each * (started - 1)
    reading = max(0.0, min(MOST_READING * profile.item_seconds, workforce.input_seconds))
    alone, share = profile.item_seconds - reading, profile.cpu_share
    slow = 1 + (slowdown(profile, costs, workers, workforce.cpus) - 1) * min(share, 1.0)
    out, back, sent = _moving(profile, costs, workforce)
    if profile.item_seconds > 0 and method in FRESH_METHODS:  # the caller runs items meanwhile
        items -= int(min(items, latency / profile.item_seconds))
    # The results of items that the caller runs do not travel.
    part = started / workers
    t = alone * slow + (out + sent) * part + _touch_seconds(workforce)
    dispatch = costs.chunk_seconds / 2  # the caller's part, and a worker's
    # The larger of result and argument; inherited arguments are not sent.
    size = max(profile.result_bytes, 0 if workforce.inherited else profile.arg_bytes)
    work = items * t
    # Items with threads inside use more CPU time than wall time.
    computing = (work - items * alone * slow * (1 - min(share, 1.0))) * max(share, 1.0)
    moving = items * ((back + sent) * part + reading)
    least = _least_seconds(costs, work, workers, work / workers + ramp / 2)
    for last in (False, True):
        chunks = chunk_count(profile, items, t, workers, least, size)
        busy_caller = moving + chunks * dispatch
        span = _span(profile, t, items, workers, ramp, least, chunks * dispatch / workers)
        span = max(span, (computing + busy_caller) / workforce.cpus)
        available = max(span - ramp - moving, LEAST_AVAILABLE * span)
        count = chunks if workforce.shared else work / least
        longer = least
        if CALLER_ROOM * count * dispatch > SAME_CHUNK * available:
            longer = max(longer, _least_seconds(costs, work, workers, available))
        if workforce.shared:
            round_seconds = _round_seconds(started, dispatch, back / t)
            longer = max(longer, min(round_seconds, work / workers))
        if last or longer <= SAME_CHUNK * least:
            break
        least = longer
    ended = begun + span
    if workforce.shared:  # the caller's work with chunks delays its items
        ended = max(ended, begun + (work + busy_caller) / workers)
    ended = _both(ended, start + busy_caller)
    if workforce.shared:
        # Half of the last replies come while the caller runs its last chunk.
        ended += started * (dispatch + least / t * back) / 2
        # It takes a chunk only while there are no replies to handle, but at least one.
        ended = max(ended, start + busy_caller + min(least, work / workers))
    # No faster than if the workers read their own part: reading beside them is a bonus.
    ended = max(ended, begun + items * profile.item_seconds / workers)
    seconds = ended + cost.end + cost.end_each * started
    return _Forecast(seconds, each * started, moving, t, least)


def _latency(profile: Profile, cost: StartCost, workforce: Workforce) -> float:
    """Return the time from the start of the workers until they run their first items, s."""
    if workforce.kept or workforce.method not in FRESH_METHODS:
        return cost.latency
    seconds = cost.latency + profile.import_seconds
    return seconds * workers_per_cpu(workforce.started, workforce.cpus)


def workers_per_cpu(workers: int, cpus: int) -> float:
    """Return how many times as long fresh interpreters take to start where they share the CPUs.

    >>> workers_per_cpu(1, 2), workers_per_cpu(6, 2)
    (1.0, 3.0)
    """
    return max(1.0, workers / cpus)


def _moving(profile: Profile, costs: Costs, workforce: Workforce) -> tuple[float, float, float]:
    """Return the time to send a result, to receive it, and to send its arguments, s."""
    if workforce.method == "thread":
        return 0.0, 0.0, 0.0
    back = MAP_SECONDS if profile.result_bytes >= SHARED_FROM_BYTES else profile.pickle_seconds
    sent = 0.0
    if not workforce.inherited:
        sent = profile.send_seconds + _moved(profile.arg_bytes, costs)
    return travel_seconds(profile, costs), back, sent


# After a fork, the system copies each memory page that the worker or the caller writes to. Using an
# item writes to its reference count: 70 ns for each item of a list in the worker, and 35 ns in the
# caller, with integers one behind the other (November 2026, two-core machine).
TOUCH_SECONDS = 50e-9


def _touch_seconds(workforce: Workforce) -> float:
    """Return how much longer an item takes because its memory is shared with the caller, s."""
    return TOUCH_SECONDS if workforce.method == "fork" and workforce.inherited else 0.0


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
        span += even * (1 - ramp / t) * (_rounds(t, items, workers, ramp) + dispatch - span)
    # No order of chunks takes less time than one worker's even part of the work.
    return max(span, level)


def _rounds(t: float, items: int, workers: int, ramp: float) -> float:
    """Return the span of equal items, which run in rounds, s; arguments as for ``_span``.

    The workers that started first run the last round.
    """
    rounds, over = divmod(items, workers)
    late = ramp * (over - 1) / max(1, workers - 1)
    return max(rounds * t + ramp, (rounds + 1) * t + late if over else 0.0)


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
