"""optimize: advice from a sample, or from what is remembered, and nothing lost."""

import threading
import time

import pytest

from amorsize import OptimizationResult, optimize, smart_map
from amorsize.measure.machine import this_machine
from tests import functions as f


def test_tiny_work_needs_no_pool():
    """For a trivial function the advice is to stay serial."""
    advice = optimize(f.double, range(1_000))
    assert (advice.n_jobs, advice.executor_type, advice.estimated_speedup) == (1, "serial", 1.0)
    assert isinstance(advice, OptimizationResult)
    assert advice.chunksize >= 1


@pytest.mark.skipif(this_machine().cpus < 2, reason="needs two CPUs")
def test_heavy_work_gets_workers_and_chunks():
    """For a millisecond's work the advice is a pool with chunks that leave each worker several."""
    advice = optimize(f.busy_ms, range(10_000))
    assert (advice.n_jobs, advice.executor_type) == (this_machine().cpus, "process")
    assert 1 < advice.chunksize <= 10_000 / advice.n_jobs
    assert 1 < advice.estimated_speedup <= advice.n_jobs


def test_target_chunk_duration_bounds_the_chunks():
    """No chunk is advised to be longer than the target."""
    assert optimize(f.busy_ms, range(10_000), target_chunk_duration=0.01).chunksize <= 11


def test_a_hit_honours_other_options():
    """What is remembered is measurements: another target or n_jobs is planned anew."""
    optimize(f.busy_ms, range(10_000))
    advice = optimize(f.busy_ms, range(10_000), target_chunk_duration=0.01, n_jobs=2)
    assert advice.cache_hit
    assert advice.chunksize <= 11
    assert advice.n_jobs == 2


def test_the_second_call_runs_nothing():
    """With something remembered, func is not called."""
    calls = []

    def work(x):
        time.sleep(0.001)
        return x

    def count(x):
        calls.append(x)
        return work(x)

    assert not optimize(work, range(100)).cache_hit
    assert optimize(work, range(100)).cache_hit
    optimize(count, range(100), sample_size=3, use_cache=False)
    assert calls == [0, 1, 2]


def test_what_smart_map_learned_is_advice_too():
    """optimize takes the freshest record of the function and size."""
    smart_map(f.busy_ms, range(100))
    assert optimize(f.busy_ms, range(100)).cache_hit


def test_a_generators_items_are_all_in_data():
    """The sample taken from a generator is put back."""
    advice = optimize(f.double, (x for x in range(20)))
    assert list(advice.data) == list(range(20))
    assert any("length" in text for text in advice.warnings)
    data = [1, 2, 3]
    assert optimize(f.double, data).data is data


def test_no_data_is_no_pool():
    """Nothing to do gives advice for nothing."""
    assert optimize(f.double, []).n_jobs == 1
    assert list(optimize(f.double, iter(())).data) == []


def test_profile_measures_now_and_keeps_the_measurement():
    """profile=True bypasses the cache, and the result holds what was measured."""
    optimize(f.busy_ms, range(100))
    advice = optimize(f.busy_ms, range(100), profile=True)
    assert not advice.cache_hit
    assert 0.0005 < advice.profile.item_seconds < 0.1  # other programs may hold it up
    assert optimize(f.busy_ms, range(100)).profile is None


def test_verbose_writes_the_advice_to_standard_error(capsys):
    """verbose=True tells what explain() tells; nothing goes to standard output."""
    advice = optimize(f.double, range(10), verbose=True)
    captured = capsys.readouterr()
    assert captured.err.strip() == advice.explain()
    assert captured.out == ""


def test_explicit_workers_that_hurt_are_warned_about():
    """n_jobs is honoured, with a warning when it is forecast to be slower."""
    advice = optimize(f.double, range(1_000), n_jobs=2)
    assert advice.n_jobs == 2
    assert "times the serial time" in advice.warnings[0]


def opaque(x):
    f.busy_ms(x)
    return lambda: x


def ignores(x):
    f.busy_ms(1)


LOCKS = [threading.Lock()] * 500


@pytest.mark.parametrize(
    ("func", "data"),
    [
        (f.generator_on_7, lambda: [7, 7, 7]),
        (opaque, lambda: range(500)),
        (opaque, lambda: iter(range(500))),
        (ignores, lambda: LOCKS),
    ],
    ids=["generators", "lambdas", "for an iterator", "locks as items"],
)
def test_what_cannot_travel_is_told_each_time(func, data):
    """A function whose items or results no pool can send gets advice to stay serial, for good."""
    for _ in range(2):
        advice = optimize(func, data())
        assert (advice.n_jobs, advice.executor_type) == (1, "serial")
        assert advice.reason == "items or results cannot be sent between processes"
        assert "cannot be pickled" in advice.warnings[0]


def test_results_that_only_smart_map_can_carry_are_told():
    """What was learned of a function whose results pickle refuses is no advice for a pool."""
    for _ in range(2):
        smart_map(opaque, range(500))
    advice = optimize(opaque, range(500))
    assert (advice.n_jobs, advice.cache_hit) == (1, False)
    assert "cannot be pickled" in advice.warnings[0]


def test_items_that_cannot_travel_say_nothing_of_others():
    """What can be sent gets advice of its own after what cannot."""
    optimize(ignores, LOCKS)
    advice = optimize(ignores, range(500))
    assert advice.warnings == ()
    assert not advice.cache_hit


def test_an_exception_in_the_sample_arrives():
    """What func raises for a sampled item reaches the caller."""
    with pytest.raises(ValueError, match="no 30"):
        optimize(f.fail_on_multiples_of_30, [30])
