"""Learning: how estimates move after each real run. Pure functions of frozen values.

What is remembered of a function (``Profile``) and what this machine charges (``Costs``) move
towards what a run showed, held so that one disturbed run cannot overturn many good ones.
docs/model.md tells what a run shows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from ..tuples import NamedTuple
from .model import FIRST_COSTS, Costs, Profile, StartCost, start_seconds

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

# No mean is known any better after so many items; and the sum stays a number that a record takes.
MOST_COUNTED = 1_000_000_000


def merged_profile(old: Profile, new: Profile, weight: float = 0.5) -> Profile:
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

    changed: dict[str, Any] = {
        name: blend(getattr(old, name), getattr(new, name))
        for name in Profile._fields
        if name not in ("memory_bytes", "items", "waiting_workers")
    }
    return new._replace(
        **changed,
        # More is needed at once, less is believed by and by: workers that do not fit are killed.
        memory_bytes=max(new.memory_bytes, (old.memory_bytes + new.memory_bytes) // 2),
        items=min(old.items + new.items, MOST_COUNTED),
    )


def has_drifted(old: Profile, new: Profile, share: float) -> bool:
    """Return whether any figure that plans has moved by more than a share of what it was.

    Of small figures only what would show in a forecast counts: times next to that of an item,
    bytes next to what a message takes anyhow.

    Args:
        old: as it was.
        new: as it is.
        share: by which share.
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


# Pulled out of the air: below a quarter, what forecasts are wrong by anyhow is more.
SMALL_SHARE = 0.25
SMALL_BYTES = 4_096.0
SMALL_MEMORY = 50_000_000


def costs_drifted(old: Costs, new: Costs, share: float) -> bool:
    """Return whether any charge has moved by more than a share of what it was.

    What is a tenth of its first value or less makes no difference to a plan.

    Args:
        old: as they were.
        new: as they are.
        share: by which share.
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
    """Return whether any number moved by more than a share of itself, or of the least that counts.

    Args:
        old: as they were.
        new: as they are.
        least: what a number counts as that is smaller.
        share: by which share.
    """
    return any(
        abs(after - before) > share * max(before, small)
        for before, after, small in zip(old, new, least, strict=True)
    )


class Seen(NamedTuple):
    """What one run showed of the machine. None stands for what it did not show.

    Attributes:
        method: start method, or "thread".
        workers: workers it started.
        resident_bytes: the caller's resident memory then.
        started: how long the caller was busy starting them, s; None where they were there already.
        ready: how long it took, from the beginning, until the first of them was ready, s.
        ended: how long it took to end them, s.
        chunk_seconds: time a worker spent between two chunks, s.
        byte_seconds, shared_seconds: time to move a byte through a pipe, through shared memory, s.
        contention: see ``Profile``.
        error: by what share the forecast was wrong.
    """

    method: str
    workers: int
    resident_bytes: int = 0
    started: float | None = None
    ready: float | None = None
    ended: float | None = None
    chunk_seconds: float | None = None
    byte_seconds: float | None = None
    shared_seconds: float | None = None
    contention: float | None = None
    error: float | None = None


# No figure leaves this range around what it was on the first day: a machine that seems to be a
# hundred times slower than it was is disturbed, not slow.
MOST_CHANGE = 20.0
LEAST_ERROR, MOST_ERROR = 0.03, 0.3
MOST_CONTENTION = 1.0


def learned_costs(costs: Costs, seen: Seen, weight: float = 0.3) -> Costs:
    """Return the costs after one more real run.

    Each figure moves towards what was seen, by ``weight`` of the difference, a single run counting
    as at most four times as slow or as fast; and none moves further than ``MOST_CHANGE`` times from
    ``FIRST_COSTS``.

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
        waited = _ratio(max(seen.ready - one, cost.latency / 4), cost.latency, weight)
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
    """Return the costs within the range that learning keeps to, wherever they come from."""
    found = _each(costs, _bounded)
    return found._replace(
        contention=min(found.contention, MOST_CONTENTION),
        error=min(max(found.error, LEAST_ERROR), MOST_ERROR),
    )


def faded_costs(costs: Costs, share: float) -> Costs:
    """Return the costs, moved back towards ``FIRST_COSTS`` by a share of the way.

    A charge that keeps work from workers is never measured again by that work: without this, a
    disturbed hour would rule for ever. The way is that of the ratio: of 16 times, half of it leaves
    4 times.

    Args:
        costs: the estimate so far.
        share: 0 leaves all as it is, 1 forgets all.
    """

    def fade(value: float, first: float) -> float:
        if first <= 0 or value <= 0:
            return first
        faded: float = first * (value / first) ** (1 - share)
        return faded

    return _each(costs, fade)


@functools.lru_cache(maxsize=16)  # costs change after a run at most, and each plan asks
def is_dearer(costs: Costs, method: str) -> bool:
    """Return whether a way to run workers seems dearer than on the first day.

    Args:
        costs: the estimate.
        method: start method, or "thread".
    """
    now, first = _charges(costs, method), _charges(FIRST_COSTS, method)
    return any(value > DEARER * before for value, before in zip(now, first, strict=True))


def _charges(costs: Costs, method: str) -> tuple[float, ...]:
    """Return all that is charged of one way to run workers."""
    return (
        *costs.of(method),
        costs.chunk_seconds,
        costs.byte_seconds,
        costs.shared_seconds,
        costs.contention,
        costs.error,
    )


# Less than that makes no plan serial that is worth a word.
DEARER = 1.25


def _each(costs: Costs, change: Callable[[float, float], float]) -> Costs:
    """Return costs of what ``change`` makes of each charge and its first value."""
    found: dict[str, Any] = {}
    for name, first in FIRST_COSTS._asdict().items():
        value = getattr(costs, name)
        if isinstance(first, StartCost):
            found[name] = StartCost(*(change(v, f) for v, f in zip(value, first, strict=True)))
        else:
            found[name] = change(value, first)
    return Costs(**found)


def _ratio(actual: float | None, forecast: float, weight: float) -> float:
    """Return by how much to scale a forecast: towards the actual, held within a factor of 4."""
    if actual is None or forecast <= 0 or actual <= 0:
        return 1.0
    return 1 + weight * (min(max(actual / forecast, 0.25), 4.0) - 1)


def _bounded(value: float, first: float) -> float:
    return min(max(value, first / MOST_CHANGE), first * MOST_CHANGE)
