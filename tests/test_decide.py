"""The probe, the model and the planner: what is measured, forecast and chosen."""

import os
import pickle
import random
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from amorsize.decide.cutting import Chunking, chunk_share, fixed_chunksize, next_chunksize
from amorsize.decide.figures import FIRST_COSTS, Profile, size_bucket, time_bucket
from amorsize.decide.learning import MOST_CHANGE, Seen, learned_costs, merged_profile
from amorsize.decide.model import Workforce, chunking, parallel_seconds, slowdown, start_seconds
from amorsize.decide.planner import PlanInput, StartOption, make_plan
from amorsize.measure.probe import Probe, pickling, profile_of
from amorsize.measure.timing import Block, Stopwatch, Tally

ROOM = PlanInput(items=1_000, cpus=4, costs=FIRST_COSTS, options=(StartOption("fork"),))
TINY = Profile(item_seconds=3e-8, result_bytes=6, pickle_seconds=3e-8)
BUSY = Profile(item_seconds=0.01, result_bytes=10, pickle_seconds=1e-6)
WAITING = Profile(item_seconds=0.005, cpu_share=0.01)


def test_tiny_work_stays_serial_and_says_why():
    """Below the cost of starting workers, serial wins, with a reason in words."""
    plan = make_plan(TINY, ROOM)
    assert (plan.executor, plan.n_jobs) == ("serial", 1)
    assert "computing it" in plan.reason


def test_heavy_work_takes_all_cpus():
    """Computing functions get as many workers as there are CPUs, and no more."""
    assert make_plan(BUSY, ROOM).n_jobs == 4
    assert make_plan(BUSY, ROOM._replace(cpus=64, items=100_000)).n_jobs == 64


def test_waiting_takes_more_workers_than_cpus():
    """A function that waits is limited by the waiting, not by the CPUs."""
    plan = make_plan(WAITING, ROOM._replace(items=400, cpus=2))
    assert plan.n_jobs > 10
    assert plan.seconds < 0.25


@pytest.mark.parametrize(
    ("profile", "inherited", "chunks"),
    [
        (Profile(item_seconds=0.01, result_bytes=16e6), True, 500),
        (Profile(item_seconds=0.01, result_bytes=17e6), True, 1_000),
        (Profile(item_seconds=0.01, arg_bytes=17e6), False, 1_000),
        (Profile(item_seconds=0.3), True, 1_000),
    ],
)
def test_what_is_large_or_long_takes_more_chunks(profile, inherited, chunks):
    """The forecast pays dispatch for as many chunks as the engine makes of large or long items."""
    dear, workers = 0.01, 4

    def seconds(dispatch):
        workforce = Workforce("fork", workers, 4, inherited=inherited)
        costs = FIRST_COSTS._replace(chunk_seconds=dispatch)
        return parallel_seconds(profile, costs, 1_000, workforce)

    assert seconds(dear) - seconds(1e-9) >= 0.99 * chunks * dear / 2 / workers


@pytest.mark.parametrize("arg_bytes", [0, 17e6])
def test_inherited_arguments_make_no_chunks(arg_bytes):
    """What workers inherit is not kept in small chunks."""
    profile = Profile(item_seconds=0.01, arg_bytes=arg_bytes)
    workforce = Workforce("fork", 4, 4, inherited=True)
    alike = parallel_seconds(profile._replace(arg_bytes=0), FIRST_COSTS, 1_000, workforce)
    assert parallel_seconds(profile, FIRST_COSTS, 1_000, workforce) == alike


def test_workers_that_do_not_pay_are_not_started():
    """With a few items, fewer workers than CPUs are chosen."""
    assert make_plan(BUSY, ROOM._replace(items=2, cpus=16)).n_jobs == 2


def test_results_dearer_to_move_than_to_compute_stay_here():
    """Moving results counts, and the reason says so."""
    profile = Profile(item_seconds=0.002, result_bytes=8e6, pickle_seconds=0.003)
    plan = make_plan(profile, ROOM)
    assert plan.executor == "serial"
    assert "moving a result" in plan.reason


def test_sent_arguments_count_only_when_they_travel():
    """Large arguments are free for workers that inherit them."""
    profile = Profile(item_seconds=0.01, arg_bytes=50e6)
    assert make_plan(profile, ROOM).executor == "process"
    assert (
        make_plan(profile, ROOM._replace(options=(StartOption("fork", inherited=False),))).executor
        == "serial"
    )


def test_a_large_parent_makes_forks_dear():
    """The resident memory of the caller counts under fork."""
    small = parallel_seconds(BUSY, FIRST_COSTS, 10, Workforce("fork", 2, 2))
    large = parallel_seconds(BUSY, FIRST_COSTS, 10, Workforce("fork", 2, 2, 4 * 10**9))
    # The first worker runs while the second is being forked.
    assert 1.4 * 4 * 0.025 < large - small < 2 * 4 * 0.025


def test_memory_limits_workers():
    """No more workers than the free memory has room for."""
    hungry = BUSY._replace(memory_bytes=1_000_000_000)
    assert make_plan(hungry, ROOM._replace(free_bytes=3_000_000_000)).n_jobs == 2


def test_what_the_caller_asks_for_is_planned_for():
    """n_jobs and must_run have their way; a cap holds."""
    assert make_plan(TINY, ROOM._replace(n_jobs=3, must_run=True)).n_jobs == 3
    assert make_plan(BUSY, ROOM._replace(most_workers=2)).n_jobs == 2


def test_chunks_shrink_towards_the_end():
    """Factoring: half of the rest in equal chunks, down to the smallest that is worth it."""
    left, sizes = 1_000, []
    while left:
        sizes.append(min(left, next_chunksize(left, 2, 0.001)))
        left -= sizes[-1]
    assert sizes[0] == 250
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes[-2:]) <= 3


def test_chunks_are_bounded_in_time_and_bytes():
    """No chunk is longer than the limit, or larger."""
    assert next_chunksize(10**6, 2, 0.01) == 50
    assert next_chunksize(1_000, 2, 1e-6, result_bytes=8e6) == 4
    assert next_chunksize(None, 2, 0.01, done=1_000, longest_seconds=0.05) == 5
    assert next_chunksize(100, 2, 0.0) == 1


def test_chunks_of_an_endless_input_grow_with_what_was_done():
    """As much is assumed to be left, and dealt out in smaller parts."""
    sizes = [next_chunksize(None, 2, 1e-4, done=done) for done in (0, 100, 10_000, 100_000)]
    assert sizes == [25, 25, 625, 5_000]
    assert next_chunksize(10_000, 2, 1e-4) == 2_500


def test_more_is_dealt_out_at_a_time_of_items_that_cost_the_same():
    """Four fifths instead of a half; nothing of it where they differ."""
    even, uneven = Profile(0.001, spread=0.0), Profile(0.001, spread=0.001)
    assert next_chunksize(100, 2, 0.001, chunking=Chunking(chunk_share(even, 100, 2))) == 40
    assert next_chunksize(100, 2, 0.001, chunking=Chunking(chunk_share(uneven, 100, 2))) == 25


def test_few_items_that_differ_much_are_dealt_out_one_by_one():
    """Factoring's own rule: the fewer for each worker, and the more they differ, the less."""
    wild = Profile(0.06, spread=0.13)
    assert chunk_share(wild, 900, 62) < 0.15
    assert chunk_share(wild, 1_000_000, 62) == 0.5


def test_late_workers_and_a_busy_caller_get_smaller_chunks():
    """Chunks are cut for those that come last; the shortest grow with what the caller has to do."""
    quick = chunking(BUSY, FIRST_COSTS, 10**6, Workforce("fork", 2, 2))
    late = chunking(BUSY, FIRST_COSTS, 2_000, Workforce("fork", 64, 64))
    assert late.share < quick.share / 1.1
    assert late.ramp_seconds == pytest.approx(64 * FIRST_COSTS.fork.each)
    many = chunking(BUSY, FIRST_COSTS, 10**6, Workforce("fork", 512, 512))
    assert many.least_seconds > 20 * quick.least_seconds
    dear = BUSY._replace(pickle_seconds=0.004)
    assert chunking(dear, FIRST_COSTS, 10**5, Workforce("fork", 2, 2)).share < quick.share


def test_blocks_of_an_endless_input_grow_slowly():
    """Each item that runs here may be one too many for workers that would pay."""
    probe = Probe()
    probe.add(Block(1_000, 0.01, 0.01))
    assert probe.next_size(None) < 0.35 * probe.next_size(10**6)


def test_workers_that_wait_are_preferred_where_starting_others_takes_long():
    """Of two ways the planner takes the one that is forecast to be quicker, and says so."""
    ways = (StartOption("fork"), StartOption("forkserver", inherited=False, kept=(2,)))
    room = ROOM._replace(items=20, cpus=2, options=ways)
    small, large = make_plan(BUSY, room), make_plan(BUSY, room._replace(resident_bytes=8 * 10**9))
    assert small.n_jobs == large.n_jobs == 2
    assert large.method == "forkserver"
    assert any(candidate.kept for candidate in large.candidates)
    assert "kept" in large.reason


def test_imports_count_for_fresh_interpreters_only():
    """A fork has them, and so have workers that are there already."""
    light, heavy = BUSY, BUSY._replace(import_seconds=0.2)

    def more(method, **options):
        workforce = Workforce(method, 2, 2, **options)
        return parallel_seconds(heavy, FIRST_COSTS, 1_000, workforce) - parallel_seconds(
            light, FIRST_COSTS, 1_000, workforce
        )

    assert more("fork") == more("spawn", kept=True) == 0
    assert 0 < more("spawn") <= 0.2  # the caller computes meanwhile


def test_contention_counts_while_all_cpus_are_at_work():
    """A function that is slower beside others gains less, and one worker not at all less."""
    contended = BUSY._replace(contention=1.0)
    assert slowdown(BUSY, FIRST_COSTS, 1, 4) == 1.0
    assert slowdown(contended, FIRST_COSTS, 4, 4) == pytest.approx(2.0)
    assert slowdown(contended._replace(cpu_share=0.1), FIRST_COSTS, 4, 4) == 1.0
    assert make_plan(contended, ROOM).seconds > 1.5 * make_plan(BUSY, ROOM).seconds


def test_the_planner_is_as_good_as_a_search_of_all_numbers_of_workers():
    """Within 5 % of the best number by the model itself, for drawn workloads."""
    rng = random.Random(5)
    for _ in range(300):
        profile = Profile(10 ** rng.uniform(-7, 1), cpu_share=rng.choice([1.0, 1.0, 0.01]),
                          result_bytes=10 ** rng.uniform(0, 7), pickle_seconds=1e-6)  # fmt: skip
        room = ROOM._replace(items=int(10 ** rng.uniform(0, 6)), cpus=rng.choice([2, 16, 256]))
        plan = make_plan(profile, room)
        best = min(
            parallel_seconds(
                profile, FIRST_COSTS, room.items, Workforce("fork", workers, room.cpus)
            )
            for workers in range(1, min(room.items, max(256, room.cpus)) + 1)
            if profile.cpu_share < 0.5 or workers <= room.cpus
        )
        found = min(c.seconds for c in plan.candidates if c.method != "serial")
        assert found <= 1.05 * best, (profile, room)


def test_the_fixed_chunk_size_is_clamped():
    """Kruskal and Weiss between one item and a fair share."""
    even = Profile(item_seconds=0.001, spread=0.0)
    wild = Profile(item_seconds=0.001, spread=0.01)
    args = {"chunk_seconds": 0.0001, "longest_seconds": 10.0}
    assert fixed_chunksize(wild, 1_000, 4, **args) < fixed_chunksize(even, 1_000, 4, **args) <= 250
    assert fixed_chunksize(even, 3, 8, **args) == 1
    assert fixed_chunksize(even, 100, 1, **args) == 100


def test_buckets_have_the_contracts_bounds():
    """A bound belongs to the bucket above it."""
    assert [time_bucket(t) for t in (0.0000999, 0.0001, 0.001, 0.01, 0.1)] == [
        "instant",
        "fast",
        "moderate",
        "slow",
        "very_slow",
    ]
    assert [size_bucket(n) for n in (0, 99, 100, 1_000, 10**9)] == [
        "tiny",
        "small",
        "medium",
        "large",
        "xlarge",
    ]


def test_a_profile_moves_towards_what_was_measured_but_not_at_once():
    """The running estimate blends, and one wild run moves it by a bounded factor."""
    merged = merged_profile(BUSY, BUSY._replace(item_seconds=0.02))
    assert 0.01 < merged.item_seconds < 0.02
    wild = merged_profile(BUSY, BUSY._replace(item_seconds=100.0))
    assert wild.item_seconds <= 2.5 * BUSY.item_seconds


def test_costs_are_corrected_by_real_runs():
    """Start costs move towards what a run took, bounded, and only those of its method."""
    forecast = start_seconds(FIRST_COSTS.fork, 2, 0)
    after = learned_costs(FIRST_COSTS, Seen("fork", 2, 2, started=2 * forecast, ended=0.001))
    assert forecast < start_seconds(after.fork, 2, 0) < 2 * forecast
    assert after.spawn == FIRST_COSTS.spawn
    wild = learned_costs(FIRST_COSTS, Seen("fork", 2, 2, started=1e6))
    assert start_seconds(wild.fork, 2, 0) < 2 * forecast


@pytest.mark.parametrize("value", [1e-9, 1e9])
def test_no_cost_is_learned_without_bounds(value):
    """However often a disturbed machine shows nonsense, figures keep to a range."""
    costs, first = FIRST_COSTS, FIRST_COSTS
    for _ in range(200):
        costs = learned_costs(
            costs,
            Seen("fork", 2, 2, started=value, ready=value, ended=value, chunk_seconds=value,
                 byte_seconds=value, shared_seconds=value, contention=value, error=value),
        )  # fmt: skip
    for name in ("base", "each", "latency", "end", "end_each"):
        ratio = getattr(costs.fork, name) / getattr(first.fork, name)
        assert 1 / MOST_CHANGE * 0.999 <= ratio <= MOST_CHANGE * 1.001
    for name in ("chunk_seconds", "byte_seconds", "shared_seconds"):
        ratio = getattr(costs, name) / getattr(first, name)
        assert 1 / MOST_CHANGE * 0.999 <= ratio <= MOST_CHANGE * 1.001
    assert 0 <= costs.contention <= 1
    assert 0.03 <= costs.error <= 0.3


def test_costs_converge_to_what_is_seen():
    """After some runs of a machine that is twice as slow to start, forecasts say so."""
    costs, twice = FIRST_COSTS, 2 * start_seconds(FIRST_COSTS.fork, 2, 0)
    for _ in range(12):
        costs = learned_costs(costs, Seen("fork", 2, 2, started=twice, chunk_seconds=0.0005))
    assert start_seconds(costs.fork, 2, 0) == pytest.approx(twice, rel=0.02)
    assert costs.chunk_seconds == pytest.approx(0.0005, rel=0.02)


def test_probe_blocks_grow_with_the_time_spent():
    """Blocks start with one item and grow, by a bounded factor, to a bounded time."""
    probe, sizes = Probe(), []
    for _ in range(30):
        size = probe.next_size(10**9)
        sizes.append(size)
        probe.add(Block(size, size * 1e-6, size * 1e-6))
    assert sizes[0] == 1
    assert all(b <= 16 * a for a, b in pairwise(sizes))
    assert all(b <= 4 * a for a, b in pairwise(sizes[4:]))
    assert sizes[-1] == pytest.approx(50_000, rel=0.01)
    assert Probe().next_size(0) == 1


def test_a_slow_first_item_does_not_spoil_the_mean():
    """The first item, which may import things, is left out once there are others."""
    probe = Probe()
    probe.add(Block(1, 1.0, 1.0))
    assert probe.mean == 1.0
    probe.add(Block(9, 0.009, 0.009))
    assert probe.mean == pytest.approx(0.001)
    profile = profile_of(probe.tally, probe.mean)
    assert profile.least_seconds == pytest.approx(0.001)
    assert profile.most_seconds == 1.0


def test_spread_is_the_deviation_between_blocks():
    """The deviation is weighted by items."""
    for blocks, spread in (([(1, 1.0)] * 2, 0), ([(3, 3.0), (1, 5.0)], 3**0.5), ([], 0)):
        tally = Tally()
        for items, seconds in blocks:
            tally.add(Block(items, seconds, seconds))
        assert tally.spread == pytest.approx(spread)


def test_tallies_add_up():
    """Two tallies merged are the tally of all their blocks."""
    blocks = [Block(1, 0.5, 0.1), Block(3, 0.3, 0.3), Block(2, 4.0, 0.0)]
    whole, first, second = Tally(), Tally(), Tally()
    for block in blocks:
        whole.add(block)
    first.add(blocks[0])
    second.add(blocks[1])
    second.add(blocks[2])
    first.merge(second)
    for name in Tally.__slots__:
        assert getattr(first, name) == getattr(whole, name), name


def test_the_stopwatch_tells_waiting_from_computing():
    """A sleep has a CPU share near zero, a loop one near one."""
    watch = Stopwatch()
    time.sleep(0.05)
    slept = watch.block(1)
    assert slept.cpu_seconds < 0.5 * slept.seconds
    watch = Stopwatch()
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    computed = watch.block(1)
    assert computed.cpu_seconds >= 0.04


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="nobody tells")
@pytest.mark.parametrize(
    ("computing", "sleeping", "least", "most"),
    [(0.1, 0, 0.9, 1.1), (0, 0.2, 0, 0.3), (0.01, 0.3, 0, 0.4)],
)
def test_who_stands_in_line_for_a_cpu_is_no_waiting_function(computing, sleeping, least, most):
    """Beside others on one CPU computing has a share near one, and waiting one near zero."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    loop = "print(flush=True)\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) for _ in "123"]
    try:
        for other in others:
            other.stdout.readline()
        watch, end = Stopwatch(expected=0.1), time.process_time() + computing
        while time.process_time() < end:
            pass
        time.sleep(sleeping)
        block = watch.block(1)
    finally:
        os.sched_setaffinity(0, cpus)
        for other in others:
            other.kill()
            other.communicate()
    assert block.seconds > 1.2 * computing + sleeping
    assert least * block.seconds <= block.cpu_seconds <= most * block.seconds


def test_pickling_is_measured_without_copying_large_buffers():
    """A large array's size is known without pickling it."""
    np = pytest.importorskip("numpy")
    assert pickling([np.zeros(10**6)], pickle.dumps)[0] == 8e6
    size, seconds = pickling([1, 2, 3], pickle.dumps)
    assert 1 < size < 50
    assert seconds > 0
    with pytest.raises(TypeError):
        pickling([(y for y in [])], pickle.dumps)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_fresh_workers_share_the_cpus_while_they_start(method):
    """More fresh workers than CPUs start later, so short waits get fewer of them than of forks."""
    waits = Profile(item_seconds=0.002, cpu_share=0.01)
    jobs = {}
    for one in ("fork", method):
        room = PlanInput(500, 2, FIRST_COSTS, (StartOption(one),), n_jobs=None)
        plan = make_plan(waits, room)
        jobs[one] = plan.n_jobs
        assert plan.seconds <= plan.serial_seconds
    assert jobs[method] <= 6 and jobs["fork"] >= 12


def test_a_late_start_of_many_fresh_workers_is_not_held_against_one():
    """Eight fresh workers on two CPUs that are ready four times as late show nothing new."""
    costs = FIRST_COSTS
    started = costs.spawn.base + 8 * costs.spawn.each
    ready = 4 * costs.spawn.latency + costs.spawn.base + costs.spawn.each
    after = learned_costs(costs, Seen("spawn", 8, 2, started=started, ready=ready))
    assert after.spawn.latency == pytest.approx(costs.spawn.latency, rel=0.05)
