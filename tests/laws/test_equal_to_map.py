"""The law of the library: smart_map(f, *xs) == list(map(f, *xs)), each item once."""

import functools
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amorsize import smart_imap, smart_imap_unordered, smart_map, smart_starmap
from tests import functions as f

WAYS = {
    "fork": {"mp_context": "fork"},
    "spawn": {"mp_context": "spawn"},
    "forkserver": {"mp_context": "forkserver"},
    "thread": {"backend": "thread"},
}
# Starting interpreters takes a while, so the slow ways get fewer examples.
EXAMPLES = {"fork": 40, "thread": 60, "spawn": 6, "forkserver": 6}

sizes = st.integers(0, 300)
chunks = st.none() | st.integers(1, 400)
workers = st.integers(2, 5)
# Each kind of input: sliceable, sized but not sliceable, and a bare iterator.
kinds = st.sampled_from([range, list, tuple, dict.fromkeys, iter])


def law(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def data(kind, size):
    return kind(size) if kind is range else kind(range(size))


@pytest.mark.parametrize("way", WAYS)
def test_map_in_workers_is_map(way):
    """For any size, chunk size and number of workers, of any kind of input."""

    @law(EXAMPLES[way])
    @given(size=sizes, chunksize=chunks, n_jobs=workers, kind=kinds)
    def check(size, chunksize, n_jobs, kind):
        got = smart_map(f.double, data(kind, size), n_jobs=n_jobs, chunksize=chunksize, **WAYS[way])
        assert got == list(map(f.double, range(size)))

    check()


@pytest.mark.parametrize("way", ["fork", "thread"])
def test_every_form_in_workers_is_its_serial_form(way):
    """starmap, several iterables, imap and imap_unordered, with any buffer."""

    @law(EXAMPLES[way] // 2)
    @given(
        sizes=st.tuples(sizes, sizes),
        chunksize=chunks,
        n_jobs=workers,
        kinds=st.tuples(kinds, kinds),
        buffersize=st.none() | st.integers(1, 50),
    )
    def check(sizes, chunksize, n_jobs, kinds, buffersize):
        options = {"n_jobs": n_jobs, "chunksize": chunksize, **WAYS[way]}
        lazy = {**options, "buffersize": buffersize}
        expected = list(map(f.add, range(sizes[0]), range(sizes[1])))

        def columns():
            return [data(kind, size) for kind, size in zip(kinds, sizes, strict=True)]

        assert smart_map(f.add, *columns(), **options) == expected
        assert smart_starmap(f.add, zip(*columns(), strict=False), **options) == expected
        assert list(smart_imap(f.add, *columns(), **lazy)) == expected
        assert sorted(smart_imap_unordered(f.add, *columns(), **lazy)) == expected

    check()


@law(150)
@given(size=sizes, kind=kinds, parts=st.lists(st.integers(1, 40), max_size=5))
def test_serial_and_decided_runs_are_map(size, kind, parts):
    """Alone or free to decide, and lazily, also when consumed in parts."""
    expected = list(map(f.double, range(size)))
    assert smart_map(f.double, data(kind, size), n_jobs=1) == expected
    assert smart_map(f.double, data(kind, size)) == expected
    results = smart_imap(f.double, data(kind, size))
    got = [x for part in parts for x in itertools.islice(results, part)]
    assert got + list(results) == expected


@law(25)
@given(
    size=st.integers(1, 200),
    failing=st.sets(st.integers(0, 220), max_size=4),
    n_jobs=st.sampled_from([None, 1, 2, 3]),
    chunksize=chunks,
)
def test_the_earliest_failing_index_wins(size, failing, n_jobs, chunksize):
    """Whatever fails where, the exception of the earliest failing item arrives."""

    def check(x):
        if x in failing:
            raise ValueError(x)
        return x

    expected = min((x for x in failing if x < size), default=None)
    try:
        got = smart_map(check, range(size), n_jobs=n_jobs, chunksize=chunksize)
    except ValueError as error:
        assert error.args == (expected,)
    else:
        assert expected is None
        assert got == list(range(size))


@law(15)
@given(
    size=st.integers(0, 150),
    n_jobs=st.sampled_from([None, 1, 2, 3]),
    chunksize=chunks,
    kind=kinds,
    backend=st.sampled_from([None, "thread"]),
)
def test_every_item_runs_exactly_once(tmp_path_factory, size, n_jobs, chunksize, kind, backend):
    """Counted by appends to a file, which no process can lose."""
    path = tmp_path_factory.mktemp("calls") / "calls"
    path.touch()
    func = functools.partial(f.log_call, str(path))
    smart_map(func, data(kind, size), n_jobs=n_jobs, chunksize=chunksize, backend=backend)
    assert f.logged_calls(path) == list(range(size))
