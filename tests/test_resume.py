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
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amorsize import (
    SerializationError,
    TaskTimeoutError,
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
    with pytest.raises(ValueError, match="uses tests.functions.HELPER_FACTOR, which has changed"):
        smart_map(f.helped, range(5), resume=path)
    path.unlink()

    def scale(factor):
        return lambda x: factor * x

    assert smart_map(scale(2), range(5), resume=path) == [0, 2, 4, 6, 8]
    assert smart_map(scale(2), range(5), resume=path) == [0, 2, 4, 6, 8]
    with pytest.raises(ValueError, match="uses the captured factor, which has changed"):
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
    with pytest.raises(OSError, match="No such file"):
        smart_map(f.double, range(5), resume=tmp_path / "no" / "such" / "folder")
    for nothing in ("", ":memory:"):
        with pytest.raises(ValueError, match="keeps nothing"):
            smart_map(f.double, range(5), resume=nothing)
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


def _canonical(value):
    return repr(value).replace("-nan", "nan")


@given(VALUES, VALUES)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_equal_digests_mean_equal_values(one, two):
    """As far as their representation tells: 1, True and 1.0 differ."""
    assert (value_digest(one) == value_digest(two)) == (_canonical(one) == _canonical(two))


def test_digests_do_not_depend_on_the_process():
    """Nor on the order of sets, nor on what is the same object."""
    source = (
        "from amorsize.memory.digests import value_digest as d\n"
        "import decimal, numpy, collections, dataclasses, pandas\n"
        "@dataclasses.dataclass\nclass Job:\n    name: str\n    tags: set\n"
        "Pair = collections.namedtuple('Pair', 'a b')\n"
        "rows = pandas.DataFrame({'a': [1], 'b': ['x']}).itertuples()\n"
        "a = str(12345) + 'x'\n"
        "print([d(x).hex() for x in ({'a', 'b', 'c', ('d', 1)}, (a, a), (a, str(12345) + 'x'),"
        " decimal.Decimal(3), numpy.arange(9), [frozenset('xyz')], Job('j', {'a', 'b'}),"
        " Pair(1, frozenset('ab')), collections.defaultdict(set, k={'a', 'b'}), next(rows),"
        " lambda x: x, len, 10**5000)])"
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
    shared = []
    for _ in range(60):
        shared = [shared, shared]
    assert value_digest(shared) == value_digest(shared)


# Found by hostile readers ---------------------------------------------------------------------

TABLE = {number: number for number in range(1000)}
MEMO = {}


def looked_up(x):
    return TABLE[500 + x]


def remembered(x):
    if x not in MEMO:
        MEMO[x] = x * x
    return MEMO[x]


class Hashed:
    """A callable whose attribute has a name that fingerprints leave out."""

    def __init__(self, value):
        self.value_hash = value

    def __call__(self, x):
        return x * self.value_hash


def test_large_data_are_compared_to_the_last_value(path, monkeypatch):
    """A fingerprint has samples of them; a changed value in the middle is another function."""
    numpy = pytest.importorskip("numpy")
    smart_map(looked_up, range(5), resume=path)
    monkeypatch.setitem(TABLE, 500, -1)
    with pytest.raises(ValueError, match="uses .*TABLE, which has changed"):
        smart_map(looked_up, range(5), resume=path)
    for make, change in (
        (lambda: [0] * 1000, lambda held: held.__setitem__(677, 1)),
        (lambda: numpy.zeros((500, 500)), lambda held: held.__setitem__((250, 250), 1)),
        (lambda: set(range(20_000)), lambda held: held.add(-1) or held.remove(777)),
    ):
        path.unlink()
        held = make()
        smart_map(lambda x: (x, len(held)), range(3), resume=path)
        change(held)
        with pytest.raises(ValueError, match="the captured held, which has changed"):
            smart_map(lambda x: (x, len(held)), range(3), resume=path)
    path.unlink()
    assert smart_map(Hashed(3), range(3), resume=path) == [0, 3, 6]
    with pytest.raises(ValueError, match="has changed"):
        smart_map(Hashed(4), range(3), resume=path)


def call(function):
    return function()


def test_functions_as_items_are_compared_by_what_they_do(path):
    """Not by their names, nor by the lines that they are in."""

    def made(value, line=0):
        names = {}
        exec("\n" * line + f"def task(): return {value}", names)
        names["task"].__module__ = "tests.functions"
        return names["task"]

    assert smart_map(call, [made(1)], resume=path) == [1]
    assert smart_map(call, [made(1, line=5)], resume=path) == [1]
    with pytest.raises(ValueError, match="item 0 is now"):
        smart_map(call, [made(2)], resume=path)


def test_what_the_function_itself_changes_is_no_change(path, monkeypatch):
    """A memo in a global: the same call again in the same session goes on."""
    monkeypatch.setattr(sys.modules[__name__], "MEMO", {})
    for _ in range(3):
        assert smart_map(remembered, range(5), resume=path, n_jobs=1) == [0, 1, 4, 9, 16]
    MEMO[77] = 1
    with pytest.raises(ValueError, match="MEMO, which has changed"):
        smart_map(remembered, range(5), resume=path, n_jobs=1)


KILLED = """
import itertools, os, sys, time
from amorsize import smart_imap, smart_map
{source}
if __name__ == "__main__":
    {call}
"""


def kept_in(path):
    file = sqlite3.connect(path)
    found = [item for (item,) in file.execute("SELECT item FROM results ORDER BY item")]
    file.close()
    return found


@pytest.mark.skipif(os.name != "posix", reason="needs signals of Unix")
@pytest.mark.parametrize(
    ("source", "what", "least"),
    [
        # A chunk is written when it comes, and does not wait for the next one.
        ("def w(x):\n    if x == 100: print('go', flush=True); time.sleep(60)\n    return x",
         "smart_map(w, range(200), n_jobs=2, chunksize=50, resume=sys.argv[1])", 50),
        # So are results that lie behind a slow one.
        ("def w(x):\n    if x == 0: time.sleep(60)\n"
         "    if x == 6: print('go', flush=True)\n    return x",
         "list(smart_imap(w, range(300), n_jobs=2, chunksize=1, resume=sys.argv[1]))", 5),
        # What a consumer has got is kept, however long it takes.
        ("def w(x): return x",
         "r = smart_imap(w, range(300), n_jobs=2, chunksize=100, resume=sys.argv[1]); "
         "[next(r) for _ in range(100)]; print('go', flush=True); time.sleep(60)", 100),
        # A child of the user's that ends by itself leaves the file to its parent.
        ("def w(x):\n    if x == 5:\n        if os.fork() == 0: sys.exit(0)\n        os.wait()\n"
         "    if x == 50: print('go', flush=True); time.sleep(60)\n    time.sleep(0.006)\n"
         "    return x",
         "smart_map(w, range(200), n_jobs=1, resume=sys.argv[1])", 40),
    ],
    ids=["chunk", "behind", "consumed", "child"],
)  # fmt: skip
def test_what_has_finished_outlives_a_kill(source, what, least, tmp_path):
    """At any moment, and whatever else goes on."""
    program, path = tmp_path / "program.py", tmp_path / "results.db"
    program.write_text(KILLED.format(source=source, call=what))
    with programs.started(program, path) as process:
        assert process.stdout.readline() == "go\n"
        time.sleep(1.5)  # the file is locked: nothing can be waited for
        process.kill()
        process.wait(20)
    assert len(kept_in(path)) >= least


def locked_at_25(x):
    return threading.Lock() if x == 25 else x


def raises_its_own(x):
    if x == 13:
        raise WorkerLostError("my own: item 3 of 5", index=3)
    return x


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_indices_are_those_of_the_whole_input(how, path):
    """Of errors of amorsize's own, also as results; a user's error is left as it is."""
    smart_map(locked_at_25, range(10), resume=path)
    with pytest.raises(SerializationError, match="item 25") as caught:
        smart_map(locked_at_25, range(30), resume=path, **how)
    assert caught.value.index == 25
    path.unlink()
    smart_map(raises_its_own, range(10), resume=path)
    with pytest.raises(WorkerLostError, match="^my own: item 3 of 5") as caught:
        smart_map(raises_its_own, range(30), resume=path, **how)
    assert caught.value.index == 3
    assert caught.value.__notes__[0] == "amorsize: raised for item 13: 13"


def test_lost_items_as_results_have_their_own_index(path):
    """And are shown as the user knows them."""
    smart_map(f.dies_at_25, range(10), resume=path)
    found = smart_map(
        f.dies_at_25, range(40), resume=path, n_jobs=2, chunksize=1, return_exceptions=True
    )
    assert found[25].index == 25
    assert "item 25 (25)" in str(found[25])


def late_at_25(x):
    if x == 25:
        threading.Event().wait(30)
    return x


def test_a_late_item_has_its_own_index(path):
    """In the message, the attribute and the note."""
    smart_map(late_at_25, range(10), resume=path)
    with pytest.raises(TaskTimeoutError, match="item 25 took") as caught:
        smart_map(late_at_25, range(30), resume=path, task_timeout=0.3, n_jobs=2)
    assert caught.value.index == 25
    assert caught.value.__notes__[0] == "amorsize: raised for item 25: 25"


def test_kept_results_come_before_anything_runs(path, ran):
    """An input is read no further than its consumer asks, and an endless one gives what is kept."""
    smart_map(traced, range(5), resume=path)
    ran()
    read = []

    def source():
        for x in itertools.count():
            read.append(x)
            yield x

    results = smart_imap(traced, source(), resume=path)
    assert next(results) == 0
    assert (read, ran()) == ([0], [])
    results.close()
    results = smart_imap_unordered(traced, itertools.count(), resume=path)
    assert [next(results) for _ in range(8)][:5] == [0, 2, 4, 6, 8]
    results.close()


@pytest.mark.skipif(os.name != "posix", reason="needs locks of Unix")
def test_reading_the_file_does_not_open_it_to_others(path):
    """POSIX drops a process's locks on a file as soon as it closes it anywhere."""
    results = smart_imap(f.double, range(5), resume=path)
    next(results)
    path.read_bytes()
    source = (
        "import sys; from amorsize import smart_map; from tests import functions as f\n"
        "smart_map(f.double, range(5), resume=sys.argv[1])"
    )
    assert "another process keeps its results there" in programs.run("-c", source, path).err
    results.close()


def gives_errors_back(x):
    return ValueError(x)


def test_exceptions_that_are_returned_are_results(path, ran):
    """With ``return_exceptions``, only those that were raised run again."""
    for _ in range(2):
        found = smart_map(gives_errors_back, range(3), resume=path, return_exceptions=True)
        assert [str(error) for error in found] == ["0", "1", "2"]
    assert kept_in(path) == [0, 1, 2]


class Unopened:
    """It pickles, and does not open."""

    def __reduce__(self):
        return (int, ("x",))


def test_a_kept_result_that_does_not_open_is_named(path):
    """With what to do."""
    smart_map(lambda x: Unopened() if x == 1 else x, range(3), resume=path, n_jobs=1)
    with pytest.raises(SerializationError, match="result of item 1 .*; delete the file") as caught:
        smart_map(lambda x: Unopened() if x == 1 else x, range(3), resume=path, n_jobs=1)
    assert caught.value.index == 1


def test_a_damaged_file_is_told(path):
    """In one line, with what to do."""
    smart_map(f.double, range(5_000), resume=path)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises((ValueError, OSError), match="resume="):
        smart_map(f.double, range(5_000), resume=path)
