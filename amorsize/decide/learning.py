"""Learning: how estimates move after each real run. Pure functions of frozen values.

A function's ``Profile`` and the machine's ``Costs`` move towards what a run showed. Each step is
limited, so that one disturbed run cannot overturn many good ones. docs/model.md describes what a
run shows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from ..tuples import NamedTuple
from .figures import FIRST_COSTS, FRESH_METHODS, Costs, Profile, StartCost
from .model import start_seconds, workers_per_cpu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "MOST_CONTENTION",
    "Seen",
    "bounded_costs",
    "costs_drifted",
    "faded_costs",
    "has_drifted",
    "is_dearer",
    "learned_costs",
    "merged_profile",
]

# Cap on the item count: more items make no mean more precise, and a record limits its numbers.
MOST_COUNTED = 1_000_000_000


def merged_profile(old: Profile, new: Profile, weight: float = 0.5) -> Profile:
    """Return the running estimate after one more measurement.

    The new measurement counts with ``weight``. It is limited to a factor of 4 from the old
    estimate, so that one disturbed run cannot overturn many good ones. Both numbers are guesses.
    Each call compares its first timings with the record, which covers real changes.

    Args:
        old: the estimate so far.
        new: the new measurement.
        weight: share of the new measurement, 0 to 1.
    """

    def blend(before: float, now: float) -> float:
        if before <= 0 or now <= 0:
            return now if before <= 0 else before
        return before + weight * (min(max(now, before / 4), before * 4) - before)

    changed: dict[str, Any] = {
        name: blend(getattr(old, name), getattr(new, name))
        for name in Profile._fields
        if name not in ("memory_bytes", "items", "waiting_workers")
    }
    return new._replace(
        **changed,
        # A larger need counts at once, a smaller one by halves: workers that do not fit in memory
        # are killed.
        memory_bytes=max(new.memory_bytes, (old.memory_bytes + new.memory_bytes) // 2),
        items=min(old.items + new.items, MOST_COUNTED),
    )


def has_drifted(old: Profile, new: Profile, share: float) -> bool:
    """Return whether any figure that plans depend on has moved by more than ``share``.

    Small figures must move enough to show in a forecast: times are compared with the item time,
    bytes with the size of any message.

    Args:
        old: the profile before.
        new: the profile now.
        share: the allowed movement, as a share of the old value.
    """
    item = old.item_seconds
    least = Profile(
        item_seconds=0.0,
        spread=SMALL_SHARE * item,
        least_seconds=item,
        most_seconds=item,
        cpu_share=SMALL_SHARE,
        arg_bytes=SMALL_BYTES,
        result_bytes=SMALL_BYTES,
        pickle_seconds=SMALL_SHARE * item,
        send_seconds=SMALL_SHARE * item,
        contention=SMALL_SHARE,
        import_seconds=SMALL_SHARE,
        memory_bytes=SMALL_MEMORY,
        items=MOST_COUNTED,
        waiting_workers=1,
    )
    return _any_moved(old, new, least, share)


# Guesses. A share below a quarter is less than the usual error of forecasts.
SMALL_SHARE = 0.25
SMALL_BYTES = 4_096.0
SMALL_MEMORY = 50_000_000


def costs_drifted(old: Costs, new: Costs, share: float) -> bool:
    """Return whether any cost has moved by more than ``share``.

    A cost below a tenth of its first value counts as that tenth: it makes no difference to a plan.

    Args:
        old: the costs before.
        new: the costs now.
        share: the allowed movement, as a share of the old value.
    """
    least = [0.1 * number for number in _numbers(FIRST_COSTS)]
    return _any_moved(_numbers(old), _numbers(new), least, share)


def _numbers(costs: Costs) -> list[float]:
    found: list[float] = []
    for part in costs:
        found += part if isinstance(part, tuple) else (part,)
    return found


def _any_moved(
    old: Iterable[float], new: Iterable[float], least: Iterable[float], share: float
) -> bool:
    """Return whether any number has moved by more than ``share``.

    Args:
        old: the numbers before.
        new: the numbers now.
        least: lower bounds; a smaller old value counts as its bound.
        share: the allowed movement, as a share of the old value.
    """
    return any(
        abs(after - before) > share * max(before, small)
        for before, after, small in zip(old, new, least, strict=True)
    )


class Seen(NamedTuple):
    """What one run showed of the machine. None means that the run did not show the figure.

    Attributes:
        method: start method, or "thread".
        workers: workers of the crew.
        cpus: usable CPUs.
        resident_bytes: the caller's resident memory at that time.
        started: how long the caller was busy starting workers, s; None for kept workers.
        ready: time from the beginning of the start until the first worker was ready, s.
        ended: how long it took to end the workers, s.
        chunk_seconds: time a worker spent between two chunks, s.
        byte_seconds, shared_seconds: time to move a byte through a pipe, through shared memory, s.
        contention: see ``Profile``.
        error: the relative error of the forecast.
    """

    method: str
    workers: int
    cpus: int
    resident_bytes: int = 0
    started: float | None = None
    ready: float | None = None
    ended: float | None = None
    chunk_seconds: float | None = None
    byte_seconds: float | None = None
    shared_seconds: float | None = None
    contention: float | None = None
    error: float | None = None


# No cost but contention and error moves further than this factor from its first value: a machine
# that seems a hundred times slower is disturbed, not slow.
MOST_CHANGE = 20.0
LEAST_ERROR, MOST_ERROR = 0.03, 0.3
MOST_CONTENTION = 1.0


def learned_costs(costs: Costs, seen: Seen, weight: float = 0.3) -> Costs:
    """Return the costs after one more real run.

    Each cost moves by ``weight`` of its difference from what the run showed. A single run counts as
    at most four times as slow or as fast. No cost moves further than a factor of ``MOST_CHANGE``
    from ``FIRST_COSTS``; contention and error have limits of their own.

    Args:
        costs: the estimate so far.
        seen: what the run showed.
        weight: share of the new measurement, 0 to 1.
    """
    cost, first = costs.of(seen.method), FIRST_COSTS.of(seen.method)
    starting = start_seconds(cost, seen.workers, seen.resident_bytes)
    begin = _ratio(seen.started, starting, weight)
    end = _ratio(seen.ended, cost.end + cost.end_each * seen.workers, weight)
    waited = 1.0
    if seen.started is not None and seen.ready is not None:
        one = seen.started * start_seconds(cost, 1, seen.resident_bytes) / starting
        latency = cost.latency
        if seen.method in FRESH_METHODS:
            latency *= workers_per_cpu(seen.workers, seen.cpus)
        waited = _ratio(max(seen.ready - one, latency / 4), latency, weight)
    started = StartCost(
        base=_bounded(cost.base * begin, first.base),
        each=_bounded(cost.each * begin, first.each),
        per_gb=_bounded(cost.per_gb * begin, first.per_gb),
        latency=_bounded(cost.latency * waited, first.latency),
        end=_bounded(cost.end * end, first.end),
        end_each=_bounded(cost.end_each * end, first.end_each),
    )
    changed: dict[str, Any] = {seen.method: started}
    for name in ("chunk_seconds", "byte_seconds", "shared_seconds"):
        before = getattr(costs, name)
        scaled = before * _ratio(getattr(seen, name), before, weight)
        changed[name] = _bounded(scaled, getattr(FIRST_COSTS, name))
    if seen.contention is not None:
        towards = min(max(seen.contention, 0.0), MOST_CONTENTION)
        changed["contention"] = costs.contention + weight * (towards - costs.contention)
    if seen.error is not None:
        towards = min(max(seen.error, LEAST_ERROR), MOST_ERROR)
        changed["error"] = costs.error + weight * (towards - costs.error)
    return costs._replace(**changed)


def bounded_costs(costs: Costs) -> Costs:
    """Return costs from any source, limited to the range that learning allows."""
    found = _each(costs, _bounded)
    return found._replace(
        contention=min(found.contention, MOST_CONTENTION),
        error=min(max(found.error, LEAST_ERROR), MOST_ERROR),
    )


def faded_costs(costs: Costs, share: float) -> Costs:
    """Return the costs moved back towards ``FIRST_COSTS``.

    A cost that keeps calls serial is not measured again by those calls. Without fading, one
    disturbed hour would decide for ever. The share applies to the logarithm of the ratio: with a
    share of one half, a cost of 16 times its first value becomes 4 times.

    Args:
        costs: the estimate so far.
        share: 0 changes nothing, 1 returns ``FIRST_COSTS``.
    """

    def fade(value: float, first: float) -> float:
        if first <= 0 or value <= 0:
            return first
        faded: float = first * (value / first) ** (1 - share)
        return faded

    return _each(costs, fade)


@functools.lru_cache(maxsize=16)  # every plan asks, and costs rarely change
def is_dearer(costs: Costs, method: str) -> bool:
    """Return whether a way to run workers seems more expensive than ``FIRST_COSTS`` has it.

    Args:
        costs: the estimate.
        method: start method, or "thread".
    """
    now, first = _charges(costs, method), _charges(FIRST_COSTS, method)
    return any(value > DEARER * before for value, before in zip(now, first, strict=True))


def _charges(costs: Costs, method: str) -> tuple[float, ...]:
    """Return all costs of one way to run workers."""
    return (
        *costs.of(method),
        costs.chunk_seconds,
        costs.byte_seconds,
        costs.shared_seconds,
        costs.contention,
        costs.error,
    )


# A smaller increase makes only such plans serial as would have gained little.
DEARER = 1.25


def _each(costs: Costs, change: Callable[[float, float], float]) -> Costs:
    """Return the costs with each replaced by ``change(cost, its first value)``."""
    found: dict[str, Any] = {}
    for name, first in FIRST_COSTS._asdict().items():
        value = getattr(costs, name)
        if isinstance(first, StartCost):
            found[name] = StartCost(*(change(v, f) for v, f in zip(value, first, strict=True)))
        else:
            found[name] = change(value, first)
    return Costs(**found)


def _ratio(actual: float | None, forecast: float, weight: float) -> float:
    """Return the factor that scales a forecast towards the actual, limited to a factor of 4."""
    if actual is None or forecast <= 0 or actual <= 0:
        return 1.0
    return 1 + weight * (min(max(actual / forecast, 0.25), 4.0) - 1)


def _bounded(value: float, first: float) -> float:
    return min(max(value, first / MOST_CHANGE), first * MOST_CHANGE)
