"""The stopping rule over adversarial cost sequences, in simulation: docs/model.md has the bounds.

The session's loop is played on a virtual clock with the real probe and the real planner. Workers
are ideal but for their start and end: what is lost is lost by the rule.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amorsize.call.decision import LOOK_AGAIN, LOOK_UP_SECONDS
from amorsize.call.evidence import PROBE_SECONDS
from amorsize.decide.figures import FIRST_COSTS
from amorsize.decide.planner import PlanInput, StartOption, make_plan, plan_for_little
from amorsize.measure.probe import Probe, profile_of
from amorsize.measure.timing import Block

COSTS = FIRST_COSTS._replace(contention=1e-9, error=0.05)
CPUS = 4


def start_and_end(workers):
    cost = COSTS.fork
    return cost.base + cost.latency + cost.end + workers * (cost.each + cost.end_each)


def ideal(costs, workers):
    """Return the least time so many workers could take."""
    return max(sum(costs) / workers, max(costs, default=0.0)) + start_and_end(workers)


def best(costs):
    """Return the best that anybody could do who knew all."""
    return min(sum(costs), *(ideal(costs, workers) for workers in range(2, CPUS + 1)))


def play(costs, *, known=True):
    """Return (total time, time until workers were started, how many; 0 for none)."""
    probe, done, clock, look = Probe(), 0, 0.0, LOOK_UP_SECONDS
    while done < len(costs):
        left = len(costs) - done
        size = min(left, probe.next_size(left if known else None))
        seconds = sum(costs[done : done + size])
        probe.add(Block(size, seconds, seconds))
        done, clock = done + size, clock + seconds
        left = len(costs) - done
        if clock < look or not left or probe.seconds < PROBE_SECONDS or probe.items < 2:
            continue
        look = LOOK_AGAIN * clock
        room = PlanInput(left if known else done, CPUS, COSTS, (StartOption("fork"),))
        profile = profile_of(probe.tally, probe.mean)
        plan = plan_for_little(profile, room) or make_plan(profile, room)
        if plan.executor != "serial":
            return clock + ideal(costs[done:], plan.n_jobs), clock, plan.n_jobs
    return clock, clock, 0


cheap, dear = st.floats(1e-7, 1e-4), st.floats(1e-3, 1.0)
many = st.integers(1, 300)


@st.composite
def sequences(draw):
    """Cheap then dear, dear then cheap, one giant, random, sorted either way."""
    shape = draw(st.sampled_from(["rise", "fall", "giant", "random", "sorted", "reversed"]))
    low, high = [draw(cheap)] * draw(many), [draw(dear)] * draw(many)
    if shape == "rise":
        return low + high
    if shape == "fall":
        return high + low
    if shape == "giant":
        place = draw(st.integers(0, len(low)))
        return [*low[:place], 10.0, *low[place:]]
    some = draw(st.lists(st.floats(1e-7, 0.1), min_size=1, max_size=300))
    return {"random": some, "sorted": sorted(some), "reversed": sorted(some)[::-1]}[shape]


@given(sequences(), st.booleans())
def test_never_slower_than_serial_by_more_than_starting_workers(costs, known):
    """Whatever comes: serial, and at most one start and end of workers more."""
    total, _, workers = play(costs, known=known)
    assert total <= sum(costs) * (1 + 1e-9) + (start_and_end(workers) if workers else 0.0)


@given(sequences(), st.booleans())
def test_never_slower_than_the_best_plan_by_more_than_the_speed_up(costs, known):
    """T <= p best + S, for any sequence."""
    total, _, workers = play(costs, known=known)
    assert total <= CPUS * best(costs) * (1 + 1e-9) + start_and_end(max(2, workers))


@given(st.floats(1e-7, 0.1), st.integers(1, 3_000))
def test_constant_costs_lose_no_more_than_the_first_look(item, items):
    """The decision comes with the first look that may decide, or the work is not worth any."""
    costs = [item] * items
    total, until, workers = play(costs)
    hindsight = best(costs)
    if workers:
        assert until <= 1.3 * PROBE_SECONDS * 2 + 3 * item
        # The planner counts the dispatch of chunks, of which the ideal has none, so it may prefer
        # another number of workers.
        assert total <= 1.02 * hindsight + until + 2 * COSTS.chunk_seconds
    else:
        # Not worth it by more than forecasts are wrong, or over before it could be known.
        assert total <= 1.25 * hindsight + 2 * PROBE_SECONDS + 2 * item + start_and_end(2)


@given(st.floats(1e-6, 0.01), st.integers(1, 20_000))
def test_unknown_length_is_ski_rental(item, items):
    """At most 2 - 1/p times serial when the input ends at the worst moment, and 30 % late."""
    costs = [item] * items
    total, until, workers = play(costs, known=False)
    if workers:
        saved = 1 - 1 / CPUS
        assert until >= start_and_end(2)
        assert total <= (1 + saved * 1.3) * sum(costs) + 2 * item
        # And an endless one loses what was done alone, once.
        assert total <= ideal(costs, workers) + until


@pytest.mark.parametrize("known", [True, False])
def test_the_worst_that_was_found_stays_found(known):
    """Named adversaries: the loss against serial is the start of workers, and no more."""
    for costs in (
        [1e-6] * 300 + [0.5] * 300,
        [0.5] * 3 + [1e-7] * 300,
        [1e-5] * 150 + [10.0] + [1e-5] * 150,
        [0.002, 0.002] + [1e-7] * 10_000,
    ):
        total, _, workers = play(costs, known=known)
        assert total <= sum(costs) + start_and_end(max(2, workers))
