"""The forecast against schedules that are played through, item by item."""

import heapq
import random
import statistics

import pytest

from amorsize.decide.figures import FIRST_COSTS, Profile, StartCost
from amorsize.decide.model import Workforce, parallel_seconds

EACH = 0.002
# Starting workers takes time, nothing else does.
COSTS = FIRST_COSTS._replace(
    fork=StartCost(0.0, EACH, 0.0, 0.0, 0.0, 0.0),
    chunk_seconds=1e-9,
    byte_seconds=0.0,
    contention=1e-9,
)


def played(costs, workers):
    """Return when the last of the items ends that free workers take one by one."""
    free = [(worker + 1) * EACH for worker in range(workers)]
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def forecast(costs, workers):
    profile = Profile(
        item_seconds=statistics.fmean(costs),
        spread=statistics.pstdev(costs),
        least_seconds=min(costs),
        most_seconds=max(costs),
        items=10**6,
    )
    return parallel_seconds(profile, COSTS, len(costs), Workforce("fork", workers, 1_000))


def shuffled(costs, workers):
    """Return how long it takes, on average over orders."""
    rng = random.Random(workers)
    return statistics.fmean(played(rng.sample(costs, len(costs)), workers) for _ in range(200))


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("items", [1, 2, 5, 16, 41, 300])
@pytest.mark.parametrize("seconds", [0.003, 0.02, 0.3])
def test_even_items_take_what_their_schedule_takes(seconds, items, workers):
    """Also where workers come up while the first items end, and where the last of them are late."""
    if items < workers:
        return
    costs = [seconds] * items
    assert forecast(costs, workers) == pytest.approx(played(costs, workers), rel=0.1)


@pytest.mark.parametrize("workers", [2, 6, 30])
@pytest.mark.parametrize("items", [30, 100, 1_000])
@pytest.mark.parametrize("kind", ["uniform", "exponential", "two kinds", "a giant"])
def test_uneven_items_take_what_their_schedules_take_on_average(kind, items, workers):
    """The last item to end is expected, not hoped for."""
    rng = random.Random(items)
    draw = {
        "uniform": lambda: rng.uniform(0.01, 0.05),
        "exponential": lambda: rng.expovariate(1 / 0.03),
        "two kinds": lambda: 0.3 if rng.random() < 0.05 else 0.015,
        "a giant": lambda: 0.03,
    }[kind]
    costs = [draw() for _ in range(items)]
    if kind == "a giant":
        costs[0] = 0.3 * items * 0.03
    assert forecast(costs, workers) == pytest.approx(shuffled(costs, workers), rel=0.2)
