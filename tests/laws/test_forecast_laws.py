"""Laws of the forecast: nothing is done in less time than its work takes."""

from hypothesis import example, given
from hypothesis import strategies as st

from amorsize.decide.figures import FIRST_COSTS, Profile
from amorsize.decide.model import Workforce, parallel_seconds, serial_seconds
from tests.laws.test_planner_laws import profiles

workforces = st.builds(
    Workforce,
    method=st.sampled_from(["fork", "spawn", "forkserver", "thread"]),
    workers=st.integers(1, 300),
    cpus=st.integers(1, 256),
    resident_bytes=st.integers(0, 10**10),
    inherited=st.booleans(),
    kept=st.booleans(),
)
# The caller can only be one of several.
workforces = st.tuples(workforces, st.booleans()).map(
    lambda pair: pair[0]._replace(shared=pair[1] and pair[0].workers > 1)
)

# What travels takes so long that it would hide the rest.
staying = profiles.map(
    lambda profile: profile._replace(
        arg_bytes=0.0, result_bytes=0.0, pickle_seconds=0.0, send_seconds=0.0
    )
)
# A spread that comes of other blocks than the longest.
SPREAD = Profile(0.01, spread=0.1, least_seconds=0.01, most_seconds=0.012)


@given(staying, st.integers(1, 10**6), workforces)
@example(SPREAD, 100, Workforce("fork", 1, 2))
@example(SPREAD, 100, Workforce("fork", 2, 2))
def test_no_forecast_is_below_a_workers_part_of_the_work(profile, items, workforce):
    """So one worker is never forecast to be quicker than the caller."""
    forecast = parallel_seconds(profile, FIRST_COSTS, items, workforce)
    serial = serial_seconds(profile, items)
    assert forecast >= serial / workforce.workers * (1 - 1e-9)


@given(staying, st.integers(1, 10**6), workforces)
@example(SPREAD, 100, Workforce("fork", 2, 2))
def test_no_forecast_is_below_what_the_cpus_compute(profile, items, workforce):
    """However many workers there are."""
    forecast = parallel_seconds(profile, FIRST_COSTS, items, workforce)
    computing = serial_seconds(profile, items) * min(profile.cpu_share, 1.0)
    assert forecast >= computing / min(workforce.workers, workforce.cpus) * (1 - 1e-9)
