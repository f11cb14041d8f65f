"""Laws of the model and the planner, over drawn profiles and machines."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from amorsize.decide.cutting import fixed_chunksize, next_chunksize
from amorsize.decide.figures import FIRST_COSTS, Profile
from amorsize.decide.learning import merged_profile
from amorsize.decide.model import Workforce, parallel_seconds, uncertainty
from amorsize.decide.planner import PlanInput, StartOption, make_plan, plan_for_little

seconds = st.floats(1e-8, 100.0)
profiles = st.builds(
    Profile,
    item_seconds=seconds,
    spread=st.floats(0, 10),
    least_seconds=st.just(0.0) | seconds,
    most_seconds=st.just(0.0) | seconds,
    cpu_share=st.floats(0, 4),
    arg_bytes=st.floats(0, 1e9),
    result_bytes=st.floats(0, 1e9),
    pickle_seconds=st.floats(0, 1),
    send_seconds=st.floats(0, 1),
    contention=st.floats(0, 1),
    import_seconds=st.floats(0, 100),
    memory_bytes=st.integers(0, 10**10),
    items=st.integers(1, 10**7),
)
ways = st.builds(
    StartOption,
    method=st.sampled_from(["fork", "spawn", "forkserver", "thread"]),
    inherited=st.booleans(),
    kept=st.sampled_from([(), (2,), (1, 8)]),
)
situations = st.builds(
    PlanInput,
    items=st.integers(1, 10**7),
    cpus=st.integers(1, 1024),
    costs=st.just(FIRST_COSTS),
    options=st.lists(ways, min_size=1, max_size=3).map(tuple),
    most_workers=st.none() | st.integers(1, 64),
    resident_bytes=st.integers(0, 10**11),
    free_bytes=st.none() | st.integers(10**7, 10**12),
    n_jobs=st.none(),
    must_run=st.just(False),
)


@given(profiles, situations)
def test_a_plan_is_the_best_of_its_candidates(profile, situation):
    """Nothing considered would be quicker by more than forecasts are wrong; never below serial."""
    plan = make_plan(profile, situation)
    best = min(candidate.seconds for candidate in plan.candidates)
    wrong = uncertainty(profile, situation.costs)
    assert plan.seconds <= best * (1 + wrong) * (1 + 1e-9)
    assert plan.seconds <= plan.serial_seconds
    assert plan.low <= plan.seconds <= plan.high


@given(situations, st.floats(0.001, 0.05), st.floats(0, 2))
def test_what_is_little_is_planned_as_a_search_would(situation, total, share):
    """The short way to a serial plan is not taken where the long one leads elsewhere."""
    profile = Profile(total / situation.items, cpu_share=share)
    if plan_for_little(profile, situation) is not None:
        assert make_plan(profile, situation).executor == "serial"


@given(profiles, situations)
def test_a_plan_fits_its_situation(profile, situation):
    """Workers within the cap, the items and the memory; serial has one job."""
    plan = make_plan(profile, situation)
    assert 1 <= plan.n_jobs <= situation.items
    if situation.most_workers is not None:
        assert plan.n_jobs <= situation.most_workers
    if plan.executor == "serial":
        assert plan.n_jobs == 1
    if profile.cpu_share >= 0.5:
        assert plan.n_jobs <= situation.cpus


@given(profiles, situations, st.integers(1, 1000))
def test_more_items_take_no_less_time(profile, situation, more):
    """Forecasts grow with the items."""

    def forecast(items):
        workforce = Workforce(situation.options[0].method, 4, 4)
        return parallel_seconds(profile, FIRST_COSTS, items, workforce)

    slack = profile.item_seconds + 2 * profile.spread + 0.01
    assert forecast(situation.items) <= forecast(situation.items + more) * (1 + 1e-9) + slack


@given(
    total=st.integers(1, 5_000),
    workers=st.integers(1, 64),
    item=st.floats(1e-7, 10.0),
    result_bytes=st.floats(0, 1e8),
)
def test_chunks_cover_the_items_once_and_never_grow(total, workers, item, result_bytes):
    """Taken one after the other, chunks use up the items, shrinking, none longer than it may be."""
    left, before = total, None
    while left:
        size = min(left, next_chunksize(left, workers, item, result_bytes=result_bytes))
        assert 1 <= size <= max(1, ceil(left / workers))
        assert before is None or size <= before
        before = size
        left -= size


@given(
    profiles,
    st.integers(1, 10**6),
    st.integers(1, 64),
    st.floats(1e-6, 1e-2),
    st.floats(1e-3, 10),
)
def test_a_fixed_chunk_size_is_between_one_and_a_fair_share(profile, items, workers, cost, longest):
    """Whatever the profile, the advice can be given to Pool.map."""
    size = fixed_chunksize(profile, items, workers, chunk_seconds=cost, longest_seconds=longest)
    assert 1 <= size <= max(1, ceil(items / workers))


@given(profiles, profiles)
def test_a_merged_profile_lies_between_and_moves_by_a_bounded_factor(old, new):
    """One run, however wild, moves the estimate by a bounded factor."""
    merged = merged_profile(old, new).item_seconds
    low, high = sorted((old.item_seconds, new.item_seconds))
    assert low * (1 - 1e-9) <= merged <= high * (1 + 1e-9)
    assert old.item_seconds / 2 <= merged <= old.item_seconds * 2.5 * (1 + 1e-9)


@given(profiles, situations)
def test_what_is_asked_for_is_planned(profile, situation):
    """An explicit number of workers is planned for, whatever it costs."""
    asked = situation._replace(n_jobs=1, must_run=True)
    plan = make_plan(profile, asked)
    assert (plan.n_jobs, plan.executor != "serial") == (1, True)
