"""Bad input is refused, by name, before any item runs."""

import itertools
import multiprocessing

import pytest

from amorsize import optimize, parallelize, smart_imap, smart_map, smart_starmap
from amorsize.options import count_jobs, environment_cap, make_options
from tests.functions import double

BAD = [
    ({"n_jobs": 0}, ValueError, "n_jobs=0"),
    ({"n_jobs": "many"}, TypeError, "n_jobs='many'"),
    ({"n_jobs": True}, TypeError, "n_jobs=True"),
    ({"n_jobs": 1.5}, TypeError, "n_jobs=1.5"),
    ({"chunksize": 0}, ValueError, "chunksize=0"),
    ({"chunksize": "big"}, TypeError, "chunksize='big'"),
    ({"timeout": -1}, ValueError, "timeout=-1"),
    ({"timeout": float("nan")}, ValueError, "timeout=nan"),
    ({"task_timeout": -0.5}, ValueError, "task_timeout=-0.5"),
    ({"task_timeout": "soon"}, TypeError, "task_timeout='soon'"),
    ({"backend": "gpu"}, ValueError, "backend='gpu'"),
    ({"backend": 3}, TypeError, "backend=3"),
    ({"mp_context": "teleport"}, ValueError, "mp_context='teleport'.*fork"),
    ({"mp_context": 7}, TypeError, "mp_context=7"),
    ({"progress": 3}, TypeError, "progress=3"),
    ({"retries": -1}, ValueError, "retries=-1"),
    ({"return_exceptions": "yes"}, TypeError, "return_exceptions='yes'"),
    ({"initializer": 3}, TypeError, "initializer=3"),
    ({"initargs": (1,)}, ValueError, "initargs"),
    ({"initializer": print, "initargs": 3}, TypeError, "initargs=3"),
    ({"use_cache": 1}, TypeError, "use_cache=1"),
    ({"report": "here"}, TypeError, "report='here'"),
    ({"buffersize": 3}, TypeError, "buffersize belongs to smart_imap"),
    ({"njobs": 3}, TypeError, "unknown option 'njobs'.*mean n_jobs.*n_jobs"),
    ({"anything": 3}, TypeError, "unknown option 'anything': the options are"),
    ({"max_workers": 3}, TypeError, "unknown option 'max_workers': here it is n_jobs"),
    ({"workers": 3}, TypeError, "here it is n_jobs"),
    ({"processes": 3}, TypeError, "here it is n_jobs"),
    ({"chunk_size": 3}, TypeError, "here it is chunksize"),
    ({"verbose": 3}, TypeError, "here it is progress"),
    ({"kwargs": {}}, TypeError, "functools.partial"),
    ({"backend": "threading"}, ValueError, "say 'thread'"),
    ({"backend": "loky"}, ValueError, "say 'process'"),
    ({"backend": "multiprocessing"}, ValueError, "say 'process'"),
    ({"total": -1}, ValueError, "total=-1"),
    ({"total": "many"}, TypeError, "total='many'"),
    ({"task_timeout": 1, "backend": "thread"}, ValueError, "task_timeout needs backend='process'"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_a_bad_option_is_named_before_any_item_runs(options, error, message):
    """Each bad option gets a TypeError or ValueError that names it and what it accepts."""

    def never(x):
        raise AssertionError("an item ran")

    with pytest.raises(error, match=message):
        smart_map(never, [1, 2], **options)
    with pytest.raises(error, match=message):
        if "buffersize" in options:
            smart_starmap(never, [(1,)], **options)
        else:
            parallelize(**options)


def test_the_habit_of_pool_map_is_told_about_chunksize():
    """smart_map(f, data, 10) says chunksize=10."""
    with pytest.raises(TypeError, match="chunksize=10"):
        smart_map(double, [1, 2], 10)


@pytest.mark.parametrize("call", [smart_map, smart_imap, smart_starmap, optimize])
def test_func_and_data_are_checked(call):
    """A func that is not callable and data that is not iterable are refused at once."""
    with pytest.raises(TypeError, match="func must be callable, but 3 was given"):
        call(3, [1])
    with pytest.raises(TypeError, match="data must be iterable"):
        call(double, 5)


def test_no_data_at_all_is_refused():
    """smart_map(f) has nothing to map over."""
    with pytest.raises(TypeError, match="no data"):
        smart_map(double)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_size": 0}, "sample_size=0"),
        ({"target_chunk_duration": -1}, "target_chunk_duration=-1"),
        ({"n_jobs": 0}, "n_jobs=0"),
        ({"mp_context": "teleport"}, "mp_context='teleport'"),
    ],
)
def test_optimize_checks_its_own_options(options, message):
    """optimize names the option that is wrong."""
    with pytest.raises(ValueError, match=message):
        optimize(double, [1], **options)


def test_n_jobs_counts_as_joblib_does():
    """-1 is all CPUs, -2 all but one, never fewer than one."""
    assert [count_jobs(n, 4) for n in (1, 9, -1, -2, -4, -9)] == [1, 9, 4, 3, 1, 1]


def test_the_environment_caps_workers(monkeypatch):
    """AMORSIZE_N_JOBS caps, counting as n_jobs; nonsense is refused by name."""
    monkeypatch.setenv("AMORSIZE_N_JOBS", "-2")
    assert environment_cap(8) == 7
    monkeypatch.setenv("AMORSIZE_N_JOBS", "1")
    reports = []
    smart_map(double, range(10), n_jobs=4, report=reports.append)
    assert reports[0].backend == "serial"
    monkeypatch.setenv("AMORSIZE_N_JOBS", "lots")
    with pytest.raises(ValueError, match="AMORSIZE_N_JOBS='lots'"):
        smart_map(double, range(10), n_jobs=4)


def test_a_context_object_is_taken():
    """mp_context takes a multiprocessing context."""
    context = multiprocessing.get_context("spawn")
    reports = []
    assert smart_map(double, [1, 2], n_jobs=2, mp_context=context, report=reports.append) == [2, 4]
    assert reports[0].start_method == "spawn"


def test_options_go_on_top_of_a_base():
    """What is not given stays as the base has it."""
    base = make_options({"n_jobs": 3, "retries": 0})
    assert make_options({"n_jobs": 5}, base=base).retries == 0


@pytest.mark.parametrize("total", [0, 3, 30, 300])
def test_total_is_a_hint_for_inputs_without_a_length(total):
    """Progress shows it; all items run, however many there are."""
    seen = []
    numbers = (x for x in range(30))
    got = smart_map(double, numbers, total=total, progress=lambda *shown: seen.append(shown))
    assert got == [2 * x for x in range(30)]
    assert seen[-1] == (30, total)
    assert list(smart_imap(double, iter(range(30)), total=total, n_jobs=2)) == got


def test_total_does_not_take_the_place_of_a_length():
    """The input knows better."""
    seen = []
    smart_map(double, [1, 2], total=7, progress=lambda *shown: seen.append(shown))
    assert seen[-1] == (2, 2)


def nothing(*_):
    """Take anything, and do nothing."""


SOME = {
    "n_jobs": [1, 2, -1],
    "chunksize": [1, 7],
    "backend": ["process", "thread", "serial"],
    "mp_context": [multiprocessing.get_all_start_methods()[0]],
    "progress": [nothing],
    "timeout": [30.0],
    "task_timeout": [5.0],
    "retries": [0, 2],
    "return_exceptions": [True],
    "initializer": [nothing],
    "use_cache": [False],
    "report": [nothing],
    "buffersize": [1, 3],
    "total": [0, 20],
}


@pytest.mark.parametrize("first", SOME)
def test_two_options_work_together_or_the_error_names_both(first):
    """Whatever is combined with whatever."""
    for second in [*SOME][[*SOME].index(first) + 1 :]:
        for one, other in itertools.product(SOME[first], SOME[second]):
            options = {first: one, second: other}
            try:
                found = list(smart_imap(double, range(20), **options))
            except ValueError as error:
                assert first in str(error), options
                assert second in str(error), options
            else:
                assert found == [2 * x for x in range(20)], options
