"""Inputs of every kind: lengths that lie, streams that react, items that are large."""

import itertools
import resource

import numpy as np
import pytest

from amorsize import optimize, smart_imap, smart_map
from tests import functions as f
from tests import programs


class Liar:
    """Says it has three items, and has ten."""

    def __len__(self):
        return 3

    def __iter__(self):
        return iter(range(10))


class Shy:
    """Raises when asked for its length."""

    def __len__(self):
        raise RuntimeError("none of your business")

    def __iter__(self):
        return iter(range(10))


class OldStyle:
    """Iterates by __getitem__ only."""

    def __getitem__(self, index):
        if index >= 10:
            raise IndexError
        return index


@pytest.mark.parametrize("kind", [Liar, Shy, OldStyle])
@pytest.mark.parametrize("options", [{}, {"n_jobs": 2}, {"n_jobs": 1}])
def test_what_an_input_says_of_its_length_is_only_a_hint(kind, options):
    """An input ends when it ends."""
    assert smart_map(f.double, kind(), **options) == [2 * x for x in range(10)]
    assert list(smart_imap(f.double, kind(), **options)) == [2 * x for x in range(10)]
    # A process that lost its CPU in the middle takes its items for dear: not five of five.
    assert any(optimize(f.double, kind()).n_jobs == 1 for _ in range(5))


def test_ranges_beyond_any_length_are_streams():
    """A range too long for len() can be used lazily, or beside a shorter input."""
    huge = range(10**20)
    assert list(itertools.islice(smart_imap(f.double, huge), 3)) == [0, 2, 4]
    assert smart_map(f.add, huge, [1, 2]) == [1, 3]
    assert optimize(f.double, huge).n_jobs >= 1


def test_a_list_that_grows_while_it_is_mapped_is_seen_growing():
    """As map() does, a serial run sees what func appends."""
    data = [1, 2, 3]

    def grow(x):
        if x < 5:
            data.append(x + 3)
        return x

    assert smart_map(grow, data) == [1, 2, 3, 4, 5, 6, 7]


def test_zero_dimensional_arrays_are_refused_as_map_refuses_them():
    """What cannot be iterated raises TypeError."""
    with pytest.raises(TypeError, match="0-d"):
        smart_map(f.double, np.array(3))


@pytest.mark.parametrize("options", [{}, {"n_jobs": 1}, {"n_jobs": 2}, {"mp_context": "spawn"}])
def test_stop_iteration_ends_every_form(options):
    """Nothing comes after the item that raised StopIteration, from streams and lazily, too."""
    expected = list(map(f.stop_late, range(600)))
    assert smart_map(f.stop_late, iter(range(600)), **options) == expected
    assert list(smart_imap(f.stop_late, range(600), **options)) == expected
    assert list(smart_imap(f.stop_late, iter(range(600)), **options)) == expected
    assert list(smart_imap(f.stop_on_7, range(100), **options)) == list(range(7))


def test_one_worker_process_runs_everything():
    """backend="process" with n_jobs=1 is one worker, and the caller runs nothing."""
    reports = []
    pids = smart_map(f.pid_of, range(30), backend="process", n_jobs=1, report=reports.append)
    assert len(set(pids)) == 1
    assert (reports[0].backend, reports[0].worker_items) == ("process", 30)
    got = smart_map(f.stop_on_7, range(30), backend="process", n_jobs=1, chunksize=10)
    assert got == list(range(7))


def test_a_result_at_hand_is_yielded_before_the_input_is_read_on():
    """A generator that fails later does not take the finished result with it."""

    def two_then_trouble():
        yield 0
        yield 1
        raise LookupError("no third")

    got = []
    with pytest.raises(LookupError):
        got.extend(smart_imap(f.wait_5ms, two_then_trouble()))
    assert got == [0, 1]


def test_a_failing_item_of_a_stream_is_named_without_reading_on():
    """To name the item, the input is not asked for more."""
    taken = []

    def items():
        for x in itertools.count():
            taken.append(x)
            yield x

    with pytest.raises(ValueError, match="no 30") as caught:
        smart_map(f.fail_on_multiples_of_30, items(), n_jobs=1)
    assert caught.value.__notes__[0] == "amorsize: raised for item 30: 30"
    assert taken == list(range(31))


def test_large_items_of_a_stream_are_not_kept(tmp_path):
    """Serially, a stream of a gigabyte goes through a few megabytes of memory."""
    source = """
import resource
from amorsize import smart_map
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert smart_map(len, (bytes(1 << 20) for _ in range(1000)), n_jobs=1) == [1 << 20] * 1000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    assert int(programs.run_source(source, tmp_path).out) < 50


def test_a_long_lazy_run_needs_little_memory(tmp_path):
    """Hundreds of thousands of items leave nothing behind, serially and through workers."""
    source = """
import collections, resource, sys
from amorsize import smart_imap
def f(x): return x
def drain(n, **options):
    collections.deque(smart_imap(f, (x for x in range(n)), **options), maxlen=0)
drain(1000, n_jobs=2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
drain(1_000_000, n_jobs=1)
drain(1_000_000, n_jobs=2)
drain(1_000_000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    assert int(programs.run_source(source, tmp_path).out) < 50


def test_considering_workers_again_and_again_costs_little():
    """A lazy run that stays here is not slowed down by thinking about workers at each item."""
    looked = []

    def lazily(x):
        looked.append(resource.getrusage(resource.RUSAGE_SELF).ru_utime)
        return lambda: x

    results = smart_imap(lazily, (x for x in range(20_000)), use_cache=False)
    assert sum(1 for _ in results) == 20_000


def test_numpy_integers_are_numbers():
    """n_jobs and chunksize may come from NumPy."""
    assert smart_map(f.double, range(4), n_jobs=np.int64(2), chunksize=np.int32(2)) == [0, 2, 4, 6]


def test_large_arrays_come_back_writable():
    """Results beyond the pipe's size travel through shared memory, and are the caller's own."""

    def make(x):
        return np.full(100_000, x)

    for method in ("fork", "spawn"):
        arrays = smart_map(make, range(6), n_jobs=2, mp_context=method)
        for x, array in enumerate(arrays):
            assert (array == x).all()
            array[:] = 1


def test_large_arguments_and_bytes_travel_under_spawn():
    """Large items go to workers that cannot inherit them, and large bytes come back."""
    arrays = [np.full(100_000, x) for x in range(4)]
    assert smart_map(f.total, arrays, n_jobs=2, mp_context="spawn") == [
        0,
        100_000,
        200_000,
        300_000,
    ]
    got = smart_map(bytes, [10**6, 3 * 10**6], n_jobs=2, mp_context="spawn")
    assert [len(b) for b in got] == [10**6, 3 * 10**6]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("options", [{}, {"n_jobs": 1}, {"n_jobs": 2}, {"backend": "thread"}])
def test_whatever_the_input_raises_arrives(error, options):
    """The data's own exception ends the call as it would end list(map()), whatever it is."""

    def items():
        yield from range(5)
        raise error("from the data")

    with pytest.raises(error, match="from the data"):
        smart_map(abs, items(), **options)
    assert smart_map(abs, range(3), **options) == [0, 1, 2]
