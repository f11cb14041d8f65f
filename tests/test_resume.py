"""``resume=``: results are kept as they finish, and the same call computes only what is missing."""

import asyncio
import concurrent.futures
import itertools
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amorsize import (
    SerializationError,
    WorkerLostError,
    smart_imap,
    smart_imap_unordered,
    smart_map,
    smart_map_async,
    smart_starmap,
)
from amorsize.memory.digests import value_digest
from tests import functions as f
from tests import programs

WAYS = [{"n_jobs": 1}, {}, {"n_jobs": 2}, {"n_jobs": 2, "chunksize": 3}]
# Each item leaves a line in this file when it runs; workers get the path in their environment.
TRACE = "AMORSIZE_TEST_TRACE"


def traced(x):
    with open(os.environ[TRACE], "a") as file:
        file.write(f"{x}\n")
    return 2 * x


def traced_until_told(x):
    """Fail at 13, unless a file says that all is well."""
    if x == 13 and not os.path.exists(os.environ[TRACE] + ".well"):
        raise LookupError("13 is not there")
    return traced(x)


def traced_sum(x, y):
    return traced(x) // 2 + y


def one_less(x, y):
    return traced_sum(x, y) - 1


def ends_at_13(x):
    if x == 13:
        raise StopIteration
    return traced(x)


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Return a function that tells which items have run since it was called last."""
    path = tmp_path / "trace"
    path.touch()
    monkeypatch.setenv(TRACE, str(path))

    def told():
        found = sorted(map(int, path.read_text().split()))
        path.write_text("")
        return found

    return told


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.db"


def forget(path, items):
    """Remove results, as if their items had never run."""
    with sqlite3.connect(path) as file:
        file.executemany("DELETE FROM results WHERE item = ?", [(x,) for x in items])
    file.close()


FORMS = {
    "map": lambda **how: smart_map(traced, range(40), **how),
    "map of a generator": lambda **how: smart_map(traced, iter(range(40)), **how),
    "starmap": lambda **how: smart_starmap(one_less, [(x, x + 1) for x in range(40)], **how),
    "two inputs": lambda **how: smart_map(traced_sum, range(40), range(40), **how),
    "imap": lambda **how: list(smart_imap(traced, iter(range(40)), **how)),
    "imap of a list": lambda **how: list(smart_imap(traced, [*range(40)], **how)),
    "unordered": lambda **how: sorted(smart_imap_unordered(traced, iter(range(40)), **how)),
    "awaited": lambda **how: asyncio.run(smart_map_async(traced, range(40), **how)),
}  # fmt: skip


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize(
    "form", [name for name in FORMS if name != "awaited" or programs.HAS_EVENT_LOOPS]
)
def test_only_what_is_missing_runs(form, how, path, ran):
    """First all, then nothing, then what was lost; the results are those of map each time."""
    expected = [2 * x for x in range(40)]
    lost = [0, 1, 7, 20, 21, 22, 39]
    for missing in (range(40), [], lost):
        forget(path, missing) if path.exists() else None
        assert FORMS[form](resume=path, **how) == expected
        assert ran() == [*missing]


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_a_failure_keeps_what_has_finished(how, path, ran, tmp_path):
    """The exception says so, and names the item by its index in the whole input, in each call."""
    for _ in range(2):
        with pytest.raises(LookupError, match="13") as caught:
            smart_map(traced_until_told, range(30), resume=path, **how)
        assert caught.value.__notes__[0] == "amorsize: raised for item 13: 13"
        assert f"results are kept in {path}" in caught.value.__notes__[1]
    done = ran()
    # The chunks that workers had when the call failed may have been run for nothing.
    assert len(done) - 8 <= len(set(done)) >= 13
    (tmp_path / "trace.well").touch()
    assert smart_map(traced_until_told, range(30), resume=path, **how) == [2 * x for x in range(30)]
    assert {*done, *ran()} == {*range(30)}


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_exceptions_as_results_are_not_kept(how, path, ran, tmp_path):
    """They run again, and have the index of their item."""
    for _ in range(2):
        found = smart_map(traced_until_told, range(30), resume=path, return_exceptions=True, **how)
        assert [x for x in found if isinstance(x, int)] == [2 * x for x in range(30) if x != 13]
        assert found[13].__notes__ == ["amorsize: raised for item 13: 13"]
    (tmp_path / "trace.well").touch()
    ran()
    found = smart_map(traced_until_told, range(30), resume=path, return_exceptions=True, **how)
    assert (found[13], ran()) == (26, [13])


def test_a_killed_worker_is_named_by_its_index_in_the_whole_input(path, ran):
    """Items 0 to 9 are kept; item 25 kills its worker."""
    assert smart_map(f.dies_at_25, range(10), resume=path) == [*range(10)]
    with pytest.raises(WorkerLostError, match="item 25") as caught:
        smart_map(f.dies_at_25, range(40), resume=path, n_jobs=2, chunksize=1)
    assert caught.value.index == 25


def test_a_function_that_ends_the_map_ends_it_here(path, ran):
    """StopIteration, as in ``map``; kept results behind it do not come back."""
    for how in WAYS:
        assert smart_map(ends_at_13, range(30), resume=path, **how) == [2 * x for x in range(13)]
    forget(path, [3])
    assert list(smart_imap(ends_at_13, range(30), resume=path)) == [2 * x for x in range(13)]


def test_a_lazy_call_continues_where_its_consumer_stopped(path, ran):
    """An endless input: what was consumed is kept, and comes at once the next time."""
    results = smart_imap(traced, itertools.count(), resume=path, n_jobs=2, buffersize=4)
    assert list(itertools.islice(results, 20)) == [2 * x for x in range(20)]
    results.close()
    first = ran()
    results = smart_imap(traced, itertools.count(), resume=path, n_jobs=1)
    assert list(itertools.islice(results, 30)) == [2 * x for x in range(30)]
    results.close()
    assert not {*first} & {*ran()} & {*range(20)}


class Mine:
    """A class of this module."""

    def __init__(self, x):
        self.x = x


def make_mine(x):
    return Mine(x), lambda: x


def test_results_of_all_kinds_are_kept(path):
    """Also what only cloudpickle can carry; classes are those of their modules."""
    for _ in range(2):
        found = smart_map(make_mine, range(5), resume=path)
        assert [(type(mine), mine.x, inner()) for mine, inner in found] == [
            (Mine, x, x) for x in range(5)
        ]


def test_a_result_that_cannot_be_kept_is_an_error(path):
    """By the index of its item."""
    for how in ({"n_jobs": 1}, {"n_jobs": 2}):
        with pytest.raises(SerializationError, match="item 3") as caught:
            smart_map(lambda x: threading.Lock() if x == 3 else x, range(9), resume=path, **how)
        assert caught.value.index == 3
        path.unlink()


# What is refused -----------------------------------------------------------------------------


def other(x):
    return 3 * x


@pytest.mark.parametrize(
    ("call", "differs"),
    [
        (lambda path: smart_map(other, range(9), resume=path), "the function was double"),
        (lambda path: smart_map(f.double, [0, 1, 5], resume=path), "item 2 is now 5"),
        (lambda path: smart_map(f.double, iter([0, 1, 5]), resume=path), "item 2 is now 5"),
        (lambda path: smart_map(f.double, range(9), resume=path, seed=1), "seed was None"),
        (lambda path: smart_starmap(f.double, [(0,)], resume=path), "arguments was map"),
    ],
)
def test_another_call_is_refused_with_what_differs(call, differs, path):
    """Before anything runs, and the file stays as it is."""
    smart_map(f.double, range(9), resume=path)
    with pytest.raises(ValueError, match=differs):
        call(path)
    assert smart_map(f.double, range(12), resume=path) == [2 * x for x in range(12)]


def test_what_the_function_uses_belongs_to_it(path, monkeypatch):
    """A changed global, a changed captured value and changed code are other functions."""
    smart_map(f.helped, range(5), resume=path)
    monkeypatch.setattr(f, "HELPER_FACTOR", 9)
    with pytest.raises(ValueError, match="what the function uses was"):
        smart_map(f.helped, range(5), resume=path)
    path.unlink()

    def scale(factor):
        return lambda x: factor * x

    assert smart_map(scale(2), range(5), resume=path) == [0, 2, 4, 6, 8]
    assert smart_map(scale(2), range(5), resume=path) == [0, 2, 4, 6, 8]
    with pytest.raises(ValueError, match="what the function uses was"):
        smart_map(scale(3), range(5), resume=path)


def test_other_files_are_refused(path, tmp_path):
    """A text, another database, a folder; the file stays as it is."""
    path.write_text("some notes of mine\n" * 100)
    with pytest.raises(ValueError, match="no file of results"):
        smart_map(f.double, range(5), resume=path)
    assert path.read_text() == "some notes of mine\n" * 100
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE mine (x)")
    file.close()
    with pytest.raises(ValueError, match="another database"):
        smart_map(f.double, range(5), resume=other)
    with pytest.raises(ValueError, match="is a folder"):
        smart_map(f.double, range(5), resume=tmp_path)
    with pytest.raises(OSError, match="resume="):
        smart_map(f.double, range(5), resume=tmp_path / "no" / "such" / "folder")
    with pytest.raises(TypeError, match="resume=3"):
        smart_map(f.double, range(5), resume=3)


def test_a_function_that_cannot_be_recognized_is_refused(path, tmp_path):
    """It holds an open file, whose content nobody can compare."""
    with (
        (tmp_path / "open").open("w") as file,
        pytest.raises(ValueError, match="cannot be compared"),
    ):
        smart_map(lambda x: (file.name, x), range(5), resume=path)


def test_two_calls_cannot_have_the_same_file(path):
    """The second one is told so, also in another process."""
    results = smart_imap(f.double, range(5), resume=path)
    assert next(results) == 0
    with pytest.raises(OSError, match="another process keeps"):
        smart_map(f.double, range(5), resume=path)
    results.close()
    assert smart_map(f.double, range(5), resume=path) == [0, 2, 4, 6, 8]


def test_items_that_cannot_be_compared_are_refused(path):
    """By their index, before anything runs."""
    with pytest.raises(SerializationError, match="item 1 cannot be compared") as caught:
        smart_map(f.double, [1, threading.Lock()], resume=path)
    assert caught.value.index == 1


# The end of processes -------------------------------------------------------------------------

PROGRAM = """
import os, sys, time
from amorsize import smart_map

def work(x):
    time.sleep(0.01)
    with open(sys.argv[2], "a") as file:
        file.write(f"{x}\\n")
    return x * x

if __name__ == "__main__":
    print("begun", flush=True)
    print(sum(smart_map(work, range(300), resume=sys.argv[1], **eval(sys.argv[3]))))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals of Unix")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize(
    "how", ["{}", "{'n_jobs': 1}", "{'n_jobs': 2, 'mp_context': 'forkserver'}"]
)
def test_a_program_that_was_ended_computes_the_rest(sign, how, tmp_path):
    """Few items run twice: those whose results were not written yet."""
    program, trace = tmp_path / "program.py", tmp_path / "trace"
    program.write_text(PROGRAM)
    args = (program, tmp_path / "results.db", trace, how)
    with programs.started(*args) as process:
        assert process.stdout.readline() == "begun\n"
        while not trace.exists() or trace.read_text().count("\n") < 60:
            assert process.poll() is None
        process.send_signal(sign)
        out, err = process.communicate(timeout=60)
    assert out == ""
    if sign == signal.SIGINT:
        assert "results are kept in" in err
    ended = programs.run(*args)
    assert ended.out == f"begun\n{sum(x * x for x in range(300))}\n", ended.err
    runs = trace.read_text().split()
    assert {*map(int, runs)} == {*range(300)}
    assert len(runs) < 300 + 60


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_a_full_disk_is_an_error_and_nothing_is_half_written(tmp_path):
    """Every result in the file is whole; with more room the call goes on."""
    path = tmp_path / "results.db"
    source = (
        "import resource, signal, sys\nfrom amorsize import smart_map\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "if sys.argv[2:]: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "def work(x): return bytes([x]) * 10_000\n"
        "try: print(len(smart_map(work, range(100), resume=sys.argv[1])))\n"
        "except OSError as error: print(type(error).__name__, error)\n"
    )
    ended = programs.run("-c", source, path, "limited")
    assert ended.out.startswith("OSError"), ended.out + ended.err
    file = sqlite3.connect(path)
    kept = file.execute("SELECT item, length(result) FROM results").fetchall()
    assert all(size > 10_000 for _, size in kept)
    file.close()
    assert programs.run("-c", source, path).out == "100\n"


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to mount")
def test_a_disk_without_room_is_an_error(tmp_path):
    """A file system of 200 kB."""
    source = (
        "import sys\nfrom amorsize import smart_map\n"
        "def work(x): return bytes([x]) * 10_000\n"
        "try: smart_map(work, range(100), resume=sys.argv[1])\n"
        "except OSError as error: print(error.errno, error)\n"
    )
    place = tmp_path / "small"
    place.mkdir()
    mount = 'mount -t tmpfs -o size=200k tmpfs "$1" && exec "$2" -c "$3" "$1/results.db"'
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", place, sys.executable, source],
        capture_output=True, text=True, timeout=60, cwd=programs.ROOT, check=False,
    )  # fmt: skip
    if "unshare" in ended.stderr or "mount" in ended.stderr:
        pytest.skip(f"no file system can be mounted here: {ended.stderr}")
    assert ended.stdout.startswith("28 "), ended.stdout + ended.stderr


# Loss without it ------------------------------------------------------------------------------


def slow_until_43(x):
    f.wait_50ms(x)
    if x == 43:
        raise LookupError("no 43")
    return x


@pytest.mark.parametrize("how", [{"n_jobs": 1}, {"n_jobs": 2}])
def test_a_failed_call_says_how_many_results_are_lost(how):
    """And names the option that keeps them."""
    with pytest.raises(LookupError) as caught:
        smart_map(slow_until_43, range(60), **how)
    assert 'finished results are lost; with resume="FILE"' in caught.value.__notes__[-1]
    with pytest.raises(ValueError, match="no 30") as caught:  # too little to tell of
        smart_map(f.fail_on_multiples_of_30, range(100), n_jobs=1)
    assert len(caught.value.__notes__) == 1


def test_engines_of_others_keep_their_results_too(path, ran):
    """An executor."""
    context = multiprocessing.get_context("spawn")  # its workers have the present environment
    with concurrent.futures.ProcessPoolExecutor(2, context) as executor:
        for missing in ([*range(20)], []):
            assert smart_map(traced, range(20), resume=path, backend=executor) == [
                2 * x for x in range(20)
            ]
            assert ran() == missing


def test_random_streams_are_those_of_the_items(path):
    """With a seed, a call in two parts draws what a whole one draws."""

    def draw(x):
        return x, random.random()

    whole = smart_map(draw, range(20), seed=3)
    smart_map(draw, range(20), seed=3, resume=path)
    forget(path, [0, 3, 4, 19])
    assert smart_map(draw, range(20), seed=3, resume=path, n_jobs=2) == whole


# Digests --------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(VALUES, VALUES)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_equal_digests_mean_equal_values(one, two):
    """As far as their representation tells: 1, True and 1.0 differ."""
    assert (value_digest(one) == value_digest(two)) == (repr(one) == repr(two))


def test_digests_do_not_depend_on_the_process():
    """Nor on the order of sets, nor on what is the same object."""
    source = (
        "from amorsize.memory.digests import value_digest as d\n"
        "import decimal, numpy\n"
        "a = str(12345) + 'x'\n"
        "print([d(x).hex() for x in ({'a', 'b', 'c', ('d', 1)}, (a, a), (a, str(12345) + 'x'),"
        " decimal.Decimal(3), numpy.arange(9), [frozenset('xyz')])])"
    )
    found = {programs.run("-c", source, PYTHONHASHSEED=str(seed)).out for seed in range(4)}
    assert len(found) == 1
    text = found.pop()
    assert text.split("'")[3] == text.split("'")[5]


def test_a_value_that_holds_itself_has_a_digest():
    """And a very deep one."""
    ring = [1]
    ring.append(ring)
    deep = []
    for _ in range(50_000):
        deep = [deep]
    assert value_digest(ring) == value_digest(ring)
    with pytest.raises(RecursionError):
        value_digest(deep)
