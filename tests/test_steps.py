"""Workers beyond the CPUs are added in steps that each must show their gain: events played."""

import pytest

from amorsize.decide.figures import FIRST_COSTS, MOST_WAITING_WORKERS, Profile
from amorsize.decide.planner import PlanInput, StartOption, make_plan
from amorsize.decide.steps import Stage, Step, Steps
from amorsize.measure.timing import Block
from amorsize.run.monitor import STEP_SECONDS, TRIAL_SECONDS, Trial

CPUS = 2
ROOM = PlanInput(
    items=4_000, cpus=CPUS, costs=FIRST_COSTS, options=(StartOption("fork"),), must_run=True
)


def stage(workers, each, *, share=0.0, left=4_000):
    return Stage(workers, workers, workers * each, share, left)


def plan_of(profile):
    return make_plan(profile, ROOM)


def play(takes, *, alone=0.005, share=0.0, workers=4):
    """Return the numbers of workers of a call whose items take ``takes(workers)`` among so many."""
    steps, numbers = Steps(CPUS, alone), [workers]
    while True:
        found = steps.next(stage(workers, takes(workers), share=share), 4_000, plan_of)
        if isinstance(found, Step):
            return (*numbers, found.workers) if found.workers != workers else (*numbers,)
        workers = found.n_jobs
        numbers.append(workers)
        assert len(numbers) < 9


def test_waiting_leads_to_the_planned_number_in_few_steps():
    """Each step shows that items take no longer among more."""
    numbers = play(lambda workers: 0.005)
    planned = make_plan(Profile(0.005, cpu_share=0.0), ROOM).n_jobs
    assert numbers[:2] == (4, 16)
    assert planned / 2 <= numbers[-1] <= planned
    assert len(numbers) <= 4


def test_computing_that_looks_like_waiting_is_taken_back():
    """Items that take longer by as much as there are workers gain nothing."""
    assert play(lambda workers: 0.005 * max(1, workers / CPUS)) == (4, CPUS)


def test_a_step_without_gain_goes_back_to_the_one_before():
    """A server that serves sixteen at a time is not asked by more."""
    assert play(lambda workers: 0.005 * max(1, workers / 16) ** 1.5)[-1] == 16


def test_a_step_with_some_gain_stays_and_is_the_last():
    """Less than was hoped for, and more than before."""
    numbers = play(lambda workers: 0.005 if workers <= 4 else 0.009)
    assert numbers == (4, 16)


def test_workers_that_compute_are_taken_back_at_once():
    """What they used of the CPUs says it, whatever their times."""
    steps = Steps(CPUS, 0.005)
    found = steps.next(stage(4, 0.005, share=0.9), 4_000, plan_of)
    assert found.n_jobs <= CPUS
    assert found.reason == "items computed in 4 workers"
    assert (steps.over, steps.shown) == (True, 0)


def test_a_step_says_why_it_was_taken():
    """The report shows it; where one worker was asked first, workers were asked for."""
    why = Steps(CPUS, 0.005).next(stage(4, 0.005), 4_000, plan_of).reason
    assert why == "items took no longer among 4 workers than before: the next step"
    assert Steps(CPUS).next(stage(1, 0.005), 4_000, plan_of).reason == "workers were asked for"


def test_a_few_items_are_worth_no_further_step():
    """Starting more must save more than it costs."""
    steps = Steps(CPUS, 0.005)
    few = ROOM._replace(items=8)
    found = steps.next(stage(4, 0.005, left=8), 8, lambda profile: make_plan(profile, few))
    assert found == Step(4, last=True)
    assert Steps(CPUS).next(stage(1, 0.005, left=0), 0, plan_of) == Step(1, last=True)


def test_what_is_claimed_is_planned_for_the_first_step_only():
    """What is remembered says what was shown, and the next step may follow that."""
    for shown, most in [(0, 4), (4, 16), (16, 64), (MOST_WAITING_WORKERS, MOST_WAITING_WORKERS)]:
        profile = Profile(1.0, cpu_share=0.0, waiting_workers=shown)
        assert make_plan(profile, ROOM).n_jobs == most
    computing = Profile(1.0, cpu_share=0.9)
    assert make_plan(computing, ROOM).n_jobs <= CPUS


@pytest.mark.parametrize(
    ("workers", "shown", "stepped"),
    [(2, 0, False), (4, 0, True), (16, 4, True), (40, 36, False), (40, 256, False)],
)
def test_only_what_was_not_shown_goes_in_steps(workers, shown, stepped):
    """A plan that was shown before, or proved by the caller's items, is carried out at once."""
    profile = Profile(0.005, cpu_share=0.0, waiting_workers=shown)
    plan = plan_of(profile)._replace(n_jobs=workers)
    assert (Steps.of_plan(CPUS, plan, profile) is not None) == stepped


def test_a_step_that_stayed_is_where_the_next_call_begins():
    """What is remembered of it allows just as many again."""
    steps = Steps(CPUS, 0.005)
    steps.book(stage(4, 0.005))
    steps.book(stage(16, 0.009))
    assert steps.best == 16
    profile = Profile(1.0, cpu_share=0.0, waiting_workers=steps.shown)
    assert make_plan(profile, ROOM).n_jobs == 16


def test_a_trial_gives_each_worker_one_chunk_and_then_decides():
    """Further rounds follow until the workers have run for long enough."""
    asked = []

    def rethink(stage):
        asked.append(stage)
        return Step(8, last=True)

    trial = Trial(rethink)
    trial.begin(4)
    assert (trial.over, trial.room, trial.seconds) == (False, 4, STEP_SECONDS)
    for _ in range(4):
        trial.hand_out()
        trial.note(Block(1, STEP_SECONDS / 2, 0.0))
    assert trial.room == 0
    assert trial.verdict(4, 90) is None
    assert trial.room == 4
    for _ in range(4):
        trial.note(Block(1, STEP_SECONDS / 2, 0.0))
    assert trial.verdict(4, 86) == Step(8, last=True)
    assert trial.over
    assert asked == [Stage(4, 8, pytest.approx(4 * STEP_SECONDS), 0.0, 86)]
    assert Trial(None).over
    trial.begin(1)
    assert trial.seconds == TRIAL_SECONDS
