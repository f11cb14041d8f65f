"""The law of records: whatever passes as one can be planned with, told of and written again."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amorsize.decide.cutting import fixed_chunksize, next_chunksize
from amorsize.decide.figures import FIRST_COSTS, Costs, Profile, StartCost
from amorsize.decide.learning import bounded_costs, merged_profile
from amorsize.decide.model import Workforce, chunking
from amorsize.decide.planner import PlanInput, StartOption, make_plan, plan_for_little
from amorsize.measure.machine import Machine
from amorsize.memory import records
from amorsize.memory.records import FORMAT, Environment, Record
from amorsize.show.hints import hints_for_run
from amorsize.show.report import describe, describe_candidates

METHODS = ("fork", "spawn", "forkserver", "thread")
EDGES = [0, 5e-324, 1e-300, 1e-9, 1e-3, 1.0, 1e4, 1e7, 1e8, 1e12, 1e300, 10**400, math.inf,
         -math.inf, math.nan, -1, -0.0, True, None, "1", [], 1 << 50, 1 << 62]  # fmt: skip
numbers = st.sampled_from(EDGES) | st.floats(0, 1e8) | st.integers(0, 1 << 40)
profiles = st.fixed_dictionaries(dict.fromkeys(Profile._fields, numbers))
# Most of those are refused for one bad field; these have only numbers that may pass.
plausible = st.fixed_dictionaries(
    {
        **dict.fromkeys(Profile._fields, st.floats(1e-9, 1e4) | st.just(0.0) | st.just(1e12)),
        "memory_bytes": st.integers(0, 1 << 51),
        "items": st.integers(0, 1 << 62),
    }
)
counts = st.sampled_from([1, 2, 3, 9, 100, 9_999, 10**6, 10**12])
ENVIRONMENT = Environment(2, 2, "fork", "3.11", 10**9)
GOOD = Profile(item_seconds=0.001, least_seconds=0.0005, most_seconds=0.002)


def data_of(profile, items=50):
    """Return a record's data with such a profile, consistent in all else."""
    record = Record("0" * 16, "small", items, GOOD, "process", 2, 10, ENVIRONMENT, 1e9)
    data = records.to_data(record)
    data["profile"] = profile
    seconds = profile["item_seconds"]
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds < 1e300:
        data["key"] = records.record_key("0" * 16, "small", records.time_bucket(seconds))
    return data


def plan_with(profile, costs, items, cpus):
    """Plan in every way there is, show it, and blend it with itself."""
    for method in METHODS:
        way = StartOption(method, inherited=method == "fork", kept=(2,))
        room = PlanInput(items, cpus, costs, (way,), free_bytes=10**9)
        plan_for_little(profile, room)
        for situation in (room, room._replace(must_run=True, n_jobs=3)):
            plan = make_plan(profile, situation)
            describe_candidates(plan)
            for remaining in (None, 0, items):
                size = next_chunksize(remaining, plan.n_jobs, profile.item_seconds,
                                      chunking=plan.chunking, done=items,
                                      result_bytes=profile.result_bytes)  # fmt: skip
                assert size >= 1
        chunking(profile, costs, items, Workforce(method, 2, cpus))
    fixed_chunksize(profile, items, 2, chunk_seconds=costs.chunk_seconds, longest_seconds=0.2)
    describe(profile)
    hints_for_run(profile, items, costs, plan, jobs=2, chunksize=1, cpus=cpus, seconds=1.0,
                  start_seconds=0.1, shipped_bytes=0)  # fmt: skip
    return merged_profile(profile, profile)


@settings(max_examples=300, deadline=None)
@given(profiles | plausible, counts, st.sampled_from([1, 2, 64]))
@example({**GOOD._asdict(), "item_seconds": 5e-324, "least_seconds": 5e-324}, 100, 2)
@example({**GOOD._asdict(), "item_seconds": 1e-300}, 10**6, 2)
@example({**GOOD._asdict(), "most_seconds": 1e7, "spread": 1e8}, 10**6, 2)
def test_whatever_passes_as_a_record_can_be_planned_with(profile, items, cpus):
    """Every field is bounded so that no forecast, chunk size or line of text can fail."""
    try:
        record = records.from_data(data_of(profile))
    except ValueError:
        return
    blended = plan_with(record.profile, FIRST_COSTS, items, cpus)
    again = record._replace(profile=blended)
    assert records.from_bytes(records.to_bytes(again)) == again


DIVISORS = ("item_seconds", "least_seconds", "most_seconds")
BAD = [(name, value) for name in Profile._fields
       for value in (1e300, math.inf, math.nan, -1.0, True, None, "1", [])]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [*BAD, *((name, 5e-324) for name in DIVISORS)])
def test_no_field_of_a_profile_takes_what_no_run_measures(name, value):
    """Not finite, negative, denormal where it divides, far too large, or no number at all."""
    with pytest.raises(ValueError, match=r"number|range|contradict"):
        records.from_data(data_of({**GOOD._asdict(), name: value}))


starts = st.builds(StartCost, *[st.sampled_from([0.0, 5e-324, 1e-9, 0.001, 1.0, 1e3])] * 6)
figures = st.sampled_from([0.0, 5e-324, 1e-12, 1e-3, 1.0, 1e3])


@settings(max_examples=100, deadline=None)
@given(st.builds(Costs, starts, starts, starts, starts, *[figures] * 5), counts)
def test_whatever_passes_as_costs_can_be_planned_with(costs, items):
    """A costs file is checked and bounded before anything is planned with it."""
    read, _ = records.costs_from_bytes(records.costs_to_bytes(costs, 1e9))
    for profile in (GOOD, GOOD._replace(item_seconds=1e-9), GOOD._replace(item_seconds=1e7)):
        plan_with(profile, bounded_costs(read), items, 2)


def test_the_format_of_costs_is_checked():
    """A costs file of another format, or with no time that can be, is none."""
    for change in ({"format": FORMAT + 1}, {"updated": -1.0}, {"updated": "now"}):
        data = {"format": FORMAT, "updated": 1e9, **FIRST_COSTS._asdict()}
        for method in METHODS:
            data[method] = data[method]._asdict()
        with pytest.raises(ValueError, match=r"format|updated"):
            records.costs_from_bytes(records._sealed({**data, **change}))
    assert records.is_costs_name(records.costs_name(Machine(2, 2, 10**9, "")))
