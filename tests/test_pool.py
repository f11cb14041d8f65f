"""Pool: in the place of multiprocessing.Pool, also where that one hangs or refuses."""

import collections
import gc
import json
import multiprocessing
import operator
import os
import signal
import sys
import threading
import time
import warnings

import numpy
import psutil
import pytest

from amorsize import Pool, WorkerLostError
from amorsize.serve import staff
from amorsize.serve.attendant import Attendant
from amorsize.serve.claims import Claims
from tests import functions as f
from tests import programs

METHODS = ["fork"] if "fork" in multiprocessing.get_all_start_methods() else []
METHODS += programs.MOSTLY_FORKSERVER


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def pool(method):
    with Pool(2, context=method) as pool:
        yield pool
    pool.join()


def wait(seconds):
    time.sleep(seconds)
    return seconds


def gone(pid):
    """Wait until a process is gone; return whether it is."""
    try:
        psutil.Process(pid).wait(20)
    except psutil.NoSuchProcess:
        return True
    return not psutil.pid_exists(pid)


def fails_at(x):
    if x == 7:
        raise KeyError(x)
    return x


def with_keywords(a, *, b):
    return a, b


def kills_itself(path):
    """Die the first time."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return os.getpid()
    return os.kill(os.getpid(), signal.SIGKILL)


def notes_and_may_die(item):
    """Return the number of (mark, log, number), having noted it; die once if there is a mark."""
    mark, log, number = item
    with open(log, "a") as file:
        file.write(f"{number}\n")
    if number < 0:
        time.sleep(0.05)  # longer than any outcome waits
    if mark is not None:
        kills_itself(mark)
    return number


def wait_for_file(file):
    limit = time.monotonic() + 60
    while not os.path.exists(file) and time.monotonic() < limit:
        time.sleep(0.01)
    assert os.path.exists(file)


def meets_another(folder, number, _=b""):
    """Return the number; if there is a folder, when two workers have been there."""
    if folder is not None:
        open(os.path.join(folder, str(os.getpid())), "w").close()
        limit = time.monotonic() + 60
        while len(os.listdir(folder)) < 2 and time.monotonic() < limit:
            time.sleep(0.01)
        assert len(os.listdir(folder)) == 2
    return number


def returns_or_waits(file):
    time.sleep(0.003)
    if file is not None:
        wait_for_file(file)
    return file


class Marks:
    """Makes a file when a copy of it is let go in a worker."""

    def __init__(self, path):
        self.path, self.made_in = path, os.getpid()

    def __del__(self):
        if os.getpid() != self.made_in:
            open(self.path, "w").close()


def always_dies(_):
    os.kill(os.getpid(), signal.SIGKILL)


# As the standard one -------------------------------------------------------------------------


def test_every_method_gives_what_the_standard_pool_gives(pool):
    """Values and order; lambdas and closures as well."""
    items = list(range(50))
    assert pool.map(lambda x: x + 1, items) == [x + 1 for x in items]
    assert pool.map(f.double, items, chunksize=7) == [2 * x for x in items]
    assert pool.starmap(pow, [(x, 2) for x in items]) == [x * x for x in items]
    assert pool.apply(with_keywords, (1,), {"b": 2}) == (1, 2)
    assert pool.apply_async(f.double, (4,)).get(20) == 8
    assert pool.map_async(f.double, iter(items)).get(20) == [2 * x for x in items]
    assert pool.starmap_async(pow, [(2, 3)]).get(20) == [8]
    assert list(pool.imap(f.double, items)) == [2 * x for x in items]
    assert list(pool.imap(f.double, iter(items), 8)) == [2 * x for x in items]
    assert sorted(pool.imap_unordered(f.double, items)) == [2 * x for x in items]


@pytest.mark.parametrize(
    "data",
    [
        [], (), range(7), "text", b"bytes", {3: 1, 2: 2}, {1: 2}.values(), {5, 6},
        numpy.arange(12).reshape(4, 3), collections.deque([1, 2]),
    ],
    ids=lambda data: type(data).__name__,
)  # fmt: skip
def test_any_input_can_be_mapped(pool, data):
    """Sequences, sets, views of dictionaries, arrays by rows."""
    got, wanted = pool.map(repr, data), list(map(repr, data))
    assert got == wanted
    assert list(pool.imap(repr, data)) == wanted


def test_exceptions_are_the_functions_with_the_index_of_the_item(pool):
    """And the worker's traceback as the cause, as the standard pool's."""
    with pytest.raises(KeyError) as caught:
        pool.map(fails_at, range(40))
    assert caught.value.args == (7,)
    assert caught.value.__notes__ == ["amorsize: raised for item 7"]
    assert type(caught.value.__cause__) is multiprocessing.pool.RemoteTraceback
    assert "fails_at" in str(caught.value.__cause__)


def test_imap_goes_on_after_an_item_that_failed(pool):
    """Without a chunk size, each item has its own result or exception."""
    results, got = pool.imap(fails_at, range(10)), []
    for _ in range(10):
        try:
            got.append(next(results))
        except KeyError:
            got.append("failed")
    assert got == [0, 1, 2, 3, 4, 5, 6, "failed", 8, 9]
    with pytest.raises(StopIteration):
        next(results)


def test_the_next_result_can_be_waited_for_a_limited_time(pool):
    """It comes later all the same."""
    results = pool.imap(wait, [0.5])
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.01)
    assert results.next(timeout=20) == 0.5


def test_one_exception_stands_for_a_chunk_of_a_given_size(pool):
    """As in the standard pool."""
    results = pool.imap(fails_at, range(12), 4)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == [8, 9, 10, 11]


def test_callbacks_come_before_the_result_is_ready(pool):
    """With the value, or with the exception."""
    seen = []
    pool.apply_async(f.double, (2,), callback=seen.append).wait(20)
    pool.map_async(fails_at, [7], error_callback=seen.append).wait(20)
    assert seen[0] == 4
    assert isinstance(seen[1], KeyError)


def test_a_callback_that_raises_does_not_end_the_pool(pool, capsys):
    """It is reported, and the result is there."""

    def broken(_):
        raise RuntimeError("in the callback")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hook, told = threading.excepthook, []
        threading.excepthook = lambda args: told.append(args.exc_value)
        try:
            assert pool.apply_async(f.double, (2,), callback=broken).get(20) == 4
            assert pool.apply(f.double, (3,)) == 6
        finally:
            threading.excepthook = hook
    assert [str(error) for error in told] == ["in the callback"]


def test_large_values_travel(pool):
    """Through shared memory, in both directions."""
    arrays = [numpy.full(1 << 20, number, dtype=numpy.float64) for number in range(3)]
    for got, sent in zip(pool.map(operator.neg, arrays), arrays, strict=True):
        assert (got == -sent).all()


def test_many_threads_use_one_pool(pool):
    """Each gets its own results."""
    results = {}

    def use(number):
        results[number] = [pool.map(f.double, range(number, number + 20)) for _ in range(5)]

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(6):
        assert results[number] == [[2 * x for x in range(number, number + 20)]] * 5


def test_closed_and_terminated_pools_refuse_work(method):
    """As the standard one does: with a ValueError."""
    pool = Pool(1, context=method)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    for call in (pool.map, pool.imap, pool.map_async, pool.starmap):
        with pytest.raises(ValueError, match="not running"):
            call(abs, [1])
    with pytest.raises(ValueError, match="not running"):
        pool.__enter__()
    pool.join()
    pool.terminate()


def test_what_was_given_before_close_is_done(method):
    """Close waits for nothing, join for all."""
    pool = Pool(2, context=method)
    results = [pool.apply_async(wait, (0.05,)) for _ in range(6)]
    pool.close()
    pool.join()
    assert [result.get(0) for result in results] == [0.05] * 6


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"processes": 0}, ValueError),
        ({"maxtasksperchild": 0}, ValueError),
        ({"initializer": 3}, TypeError),
        ({"context": "thread"}, ValueError),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options, error):
    """Before a worker starts."""
    with pytest.raises(error):
        Pool(**options)


def test_bad_calls_are_refused(pool):
    """A chunk size below 1, something that cannot be called."""
    for call in (pool.map, pool.imap, pool.map_async):
        with pytest.raises(ValueError, match="Chunksize"):
            call(abs, [1], chunksize=0)
        with pytest.raises(TypeError, match="callable"):
            call(3, [1])


# Where the standard one hangs ----------------------------------------------------------------


def test_a_worker_that_dies_is_replaced_and_its_task_runs_again(pool, tmp_path):
    """With the other results, in order."""
    marks = [str(tmp_path / str(number)) for number in range(3)]
    before = {member.pid for member in pool._pool}
    assert not before.intersection(pool.map(kills_itself, marks, chunksize=1)) or len(before) > 1
    assert len(pool._pool) == 2
    assert all(member.is_alive() for member in pool._pool)


def runs_of(log):
    """Return how often each number was noted."""
    return collections.Counter(map(int, log.read_text().split()))


def test_chunks_that_had_run_in_a_worker_that_dies_are_not_lost(method, tmp_path):
    """Nor is any blamed but the last; what had run is run again at most once."""
    log = tmp_path / "log"
    dying = {number: str(tmp_path / f"mark{number}") for number in (35, 40, 44, 47, 49, 50)}
    with Pool(1, context=method) as pool:
        items = [(dying.get(number), str(log), number) for number in range(60)]
        assert pool.map(notes_and_may_die, items, chunksize=1) == list(range(60))
    pool.join()
    runs = runs_of(log)
    assert set(runs) == set(range(60))
    assert max(runs.values()) == 2


def test_a_chunk_that_took_long_is_not_run_again(method, tmp_path):
    """It was answered before the next one was begun."""
    log = tmp_path / "log"
    with Pool(1, context=method) as pool:
        items = [(None, str(log), number) for number in (*range(40), -1, -2)]
        items.append((str(tmp_path / "mark"), str(log), 50))
        assert pool.map(notes_and_may_die, items, chunksize=1) == [*range(40), -1, -2, 50]
    pool.join()
    assert [runs_of(log)[number] for number in (-1, -2, 50)] == [1, 1, 2]


def test_a_call_behind_a_map_runs_again_when_its_worker_dies(method, tmp_path):
    """The worker sends the outcomes of the map when it has taken the call already."""
    with Pool(1, context=method) as pool:
        values = pool.map_async(abs, range(-20, 0), chunksize=1)
        pid = pool.apply_async(kills_itself, (str(tmp_path / "mark"),))
        assert values.get(60) == list(range(20, 0, -1))
        assert pid.get(60) == pool._pool[0].pid
    pool.join()


@pytest.mark.skipif("fork" not in METHODS, reason="the worker must inherit what is changed here")
def test_a_chunk_that_has_run_is_not_blamed_for_a_later_death(monkeypatch, tmp_path):
    """A worker that dies as it takes the next order had run all that it had."""
    folder = tmp_path / "died"
    folder.mkdir()
    begin = Claims.begin

    def die(claims):
        begin(claims)
        if claims.count > 1 and len(list(folder.iterdir())) < 3:
            (folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Claims, "begin", die)
    with Pool(1, context="fork") as pool:
        assert pool.map(abs, range(-40, 0), chunksize=1) == list(range(40, 0, -1))
    pool.join()
    assert len(list(folder.iterdir())) == 3


def test_workers_that_leave_take_no_answer_with_them(method, monkeypatch):
    """Also where the answer comes while the pool looks whether they live."""
    lost = Attendant.lost

    def late(attendant):
        time.sleep(0.01)
        return lost(attendant)

    monkeypatch.setattr(Attendant, "lost", late)
    with Pool(1, context=method, maxtasksperchild=1) as pool:
        for number in range(5):
            assert pool.apply_async(wait, (0.004,)).get(60) == 0.004
            assert pool.map_async(abs, [-number, 1, 2], chunksize=1).get(60) == [number, 1, 2]
    pool.join()


def test_a_call_does_not_wait_for_a_map_that_keeps_one_worker(pool, tmp_path):
    """What that worker has run, and not answered, keeps no other worker idle."""
    file = str(tmp_path / "file")
    pool.apply(wait, (0.15,))  # orders are long, so few are put up
    values = pool.map_async(returns_or_waits, [*[None] * 9, file], chunksize=1)
    assert pool.apply_async(abs, (-1,)).get(60) == 1
    (tmp_path / "file").touch()
    assert values.get(60) == [*[None] * 9, file]


def test_large_items_of_a_map_run_in_all_workers(pool, tmp_path):
    """Whatever small ones have run and were not answered."""
    folder = str(tmp_path / "met")
    os.mkdir(folder)
    items = [(None, number, b"") for number in range(40)]
    items += [(folder, number, bytes(300_000)) for number in range(2)]
    assert pool.starmap(meets_another, items, chunksize=1) == [*range(40), 0, 1]


def test_a_map_does_not_wait_for_what_comes_after_it(method, tmp_path):
    """Its results are sent before its worker begins with something else."""
    with Pool(1, context=method) as pool:
        file = str(tmp_path / "file")
        results = [
            pool.map_async(abs, range(-20, 0), chunksize=1),
            pool.apply_async(wait_for_file, (file,)),
            pool.map_async(abs, range(-20, 0), chunksize=1),
            pool.apply_async(wait_for_file, (file,)),
        ]
        assert results[0].get(60) == list(range(20, 0, -1))
        (tmp_path / "file").touch()
        assert results[2].get(60) == list(range(20, 0, -1))
    pool.join()


def test_the_first_result_of_imap_comes_while_the_next_item_runs(method, tmp_path):
    """Results that come one by one are not held back."""
    file = str(tmp_path / "file")
    with Pool(1, context=method) as pool:
        results = pool.imap(returns_or_waits, [None, None, file], chunksize=1)
        assert [results.next(60), results.next(60)] == [None, None]
        (tmp_path / "file").touch()
        assert results.next(60) == file
    pool.join()


def test_an_argument_is_let_go_when_its_call_is_done(method, tmp_path):
    """A worker that waits keeps nothing of the last task alive."""
    with Pool(1, context=method) as pool:
        for call in (pool.apply, lambda func, items: pool.map(func, items, chunksize=1)):
            mark = tmp_path / "mark"
            call(callable, (Marks(str(mark)),))
            limit = time.monotonic() + 60
            while not mark.exists() and time.monotonic() < limit:
                time.sleep(0.01)
            mark.unlink()
    pool.join()


def test_items_that_were_short_before_are_shared_out_when_they_are_long(pool, tmp_path):
    """No worker is given all items, however short they were: some may wait for others."""
    folder = str(tmp_path / "met")
    os.mkdir(folder)
    fast = [(None, number) for number in range(30)]
    for _ in range(3):
        assert pool.starmap(meets_another, fast) == list(range(30))
    slow = [(folder, number) for number in range(30)]
    assert pool.starmap(meets_another, slow) == list(range(30))
    assert len(os.listdir(folder)) == 2


def test_a_task_that_kills_two_workers_raises(pool):
    """And the pool goes on."""
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        pool.apply(always_dies, (0,))
    with pytest.raises(WorkerLostError) as caught:
        pool.map(always_dies, [1, 2], chunksize=2)
    assert "items 0 to 1" in caught.value.__notes__[0]
    assert pool.map(f.double, range(5)) == [0, 2, 4, 6, 8]


def test_idle_workers_that_are_killed_are_replaced(pool):
    """Before or when they are needed."""
    for member in pool._pool:
        os.kill(member.pid, signal.SIGKILL)
    assert pool.map(f.double, range(5)) == [0, 2, 4, 6, 8]
    assert len(pool._pool) == 2


def test_sys_exit_in_a_task_is_its_exception(pool):
    """The standard pool loses the worker and waits for ever."""
    with pytest.raises(SystemExit):
        pool.apply(exit, (3,))
    assert pool.apply(f.double, (2,)) == 4


def fails_to_begin():
    raise RuntimeError("no database")


def dies_as_it_begins():
    os._exit(3)


def test_an_initializer_that_fails_is_the_error_of_every_task(method):
    """The standard pool starts workers for ever."""
    with Pool(2, fails_to_begin, context=method) as pool:
        for call in (lambda: pool.map(abs, [1]), lambda: list(pool.imap(abs, [1]))):
            with pytest.raises(RuntimeError, match="no database"):
                call()


def test_workers_that_cannot_begin_are_given_up(method):
    """After some of them, with the exit code."""
    lost = pytest.raises(WorkerLostError, match="exit code 3")
    with Pool(2, dies_as_it_begins, context=method) as pool, lost:
        pool.map(abs, range(5))


def test_results_that_are_waited_for_when_the_pool_ends_raise(method):
    """Those of the standard pool never come."""
    pool = Pool(1, context=method)
    result, results = pool.apply_async(time.sleep, (60,)), pool.imap(time.sleep, [60, 60])
    pool.terminate()
    with pytest.raises(WorkerLostError, match="terminated"):
        result.get(10)
    with pytest.raises(WorkerLostError, match="terminated"):
        results.next(10)


def test_a_callback_may_use_the_pool(pool):
    """And terminate it, or wait for another result that is there."""
    begun, later = threading.Event(), []

    def again(value):
        later.append(pool.apply_async(f.double, (value,)))
        begun.set()

    pool.apply_async(f.double, (1,), callback=again)
    assert begun.wait(20)
    assert later[0].get(20) == 4


def wait_for(path):
    """Wait until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.005)
    return path


def make(path):
    """Make a file."""
    with open(path, "w"):
        return path


def test_tasks_that_wait_for_later_tasks_do_not_wait_for_ever(pool, tmp_path):
    """Two workers run two tasks at a time, however short tasks were before."""
    assert pool.map(abs, range(3_000)) == list(range(3_000))
    results = [pool.apply_async(abs, (-1,)) for _ in range(1_000)]
    for number in range(30):
        path = str(tmp_path / str(number))
        results += [pool.apply_async(wait_for, (path,)), pool.apply_async(make, (path,))]
        results += [pool.apply_async(abs, (-1,)) for _ in range(100)]
    for result in results:
        result.get(30)


# State ---------------------------------------------------------------------------------------

INITIALIZED = """
from amorsize import Pool
data = None
def begin(value):
    global data
    data = value
def work(x):
    return data + x
if __name__ == "__main__":
    with Pool(2, begin, (10,), context={method!r}) as pool:
        assert pool.map(work, range(40)) == list(range(10, 50))
        assert [pool.apply(work, (x,)) for x in range(3)] == [10, 11, 12]
        assert list(pool.imap(lambda x: work(x), range(3))) == [10, 11, 12]
    def later(x):
        return work(x) + 1
    with Pool(1, begin, (1,), context={method!r}) as pool:
        def defined_after_the_pool(x):
            return later(x)
        assert pool.map(defined_after_the_pool, [1]) == [3]
    print("done")
"""


def test_what_an_initializer_sets_up_is_what_functions_find(method, tmp_path):
    """In the main module, too, for functions that are sent later."""
    ended = programs.run_source(INITIALIZED.format(method=method), tmp_path)
    assert (ended.out, ended.err) == ("done\n", "")


REDEFINED = """
import sys
from amorsize import Pool
def work(x):
    return 1
class Point:
    def __init__(self, x):
        self.x = x
def move(point):
    return Point(point.x + 1)
if __name__ == "__main__":
    with Pool(1, context={method!r}) as pool:
        assert pool.map(work, [0]) == [1]
        def work(x):
            return 2
        assert pool.map(work, [0]) == [2]
        assert pool.apply(work, (0,)) == 2
        assert type(pool.map(move, [Point(1)])[0]) is Point
    print("done")
"""


def test_a_function_that_was_defined_anew_is_the_new_one(method, tmp_path):
    """As in a notebook; a forked worker has the old one under that name."""
    ended = programs.run_source(REDEFINED.format(method=method), tmp_path)
    assert (ended.out, ended.err) == ("done\n", "")


def test_workers_live_as_long_as_the_pool(pool):
    """Many calls run in the same two processes."""
    pids = {pid for _ in range(5) for pid in pool.map(f.pid_of, range(20))}
    assert pids <= {member.pid for member in pool._pool}


def test_workers_are_replaced_after_so_many_tasks(method):
    """Each new one runs the initializer."""
    with Pool(1, maxtasksperchild=2, context=method) as pool:
        pids = [pool.apply(f.pid_of, (0,)) for _ in range(6)]
    assert len(set(pids)) == 3
    assert [pids[0], pids[2], pids[4]] == [pids[1], pids[3], pids[5]]


def test_workers_that_share_no_board_are_replaced_after_so_many_tasks(method, monkeypatch):
    """Where processes share no memory: a worker that is about to end is given no order."""
    monkeypatch.setattr(staff, "_board", lambda _: None)
    with Pool(1, maxtasksperchild=2, context=method) as pool:
        pids = [pool.apply(f.pid_of, (0,)) for _ in range(20)]
        assert pool.map(abs, range(-9, 0), chunksize=1) == list(range(9, 0, -1))
    assert len(set(pids)) == 10


HOLDS = """
from amorsize import Pool, SmartExecutor
class Job:
    pool = None
    @classmethod
    def work(cls, x):
        return -x
if __name__ == "__main__":
    with Pool(1, context={method!r}) as Job.pool:
        assert Job.pool.map(Job.work, [1, 2]) == [-1, -2]
    with SmartExecutor(1, {method!r}) as Job.pool:
        assert Job.pool.submit(Job.work, 1).result() == -1
    print("done")
"""


def test_a_class_may_have_the_pool_that_runs_its_methods(method, tmp_path):
    """As in the standard library, where workers import the main module."""
    ended = programs.run_source(HOLDS.format(method=method), tmp_path)
    assert (ended.out, ended.err) == ("done\n", "")


LEFT = """
from amorsize import Pool
def work(x):
    return x
if __name__ == "__main__":
    pool = Pool(2, context={method!r})
    print(sorted(member.pid for member in pool._pool))
    pool.map(work, range(10))
    {end}
"""


@pytest.mark.parametrize("end", ["", "del pool", "raise SystemExit(0)", "import os; os._exit(0)"])
def test_no_worker_outlives_the_program(method, end, tmp_path):
    """However it ends."""
    ended = programs.run_source(LEFT.format(method=method, end=end), tmp_path)
    assert ended.code == 0
    assert all(gone(pid) for pid in json.loads(ended.out))


INTERRUPTED = """
import os, signal, threading, time
from amorsize import Pool
if __name__ == "__main__":
    pool = Pool(2, context={method!r})
    pool.map(abs, range(4))
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    begun = time.monotonic()
    try:
        pool.map(time.sleep, [30, 30])
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - begun < 5)
    pool.terminate()
    print("ended", time.monotonic() - begun < 10)
"""


def test_ctrl_c_interrupts_a_wait_for_results(method, tmp_path):
    """And leaves the pool to its owner."""
    ended = programs.run_source(INTERRUPTED.format(method=method), tmp_path)
    assert (ended.out, ended.err) == ("interrupted True\nended True\n", "")


def test_an_unclosed_pool_warns(method):
    """As the standard one, and ends."""
    pool = Pool(1, context=method)
    pid = pool._pool[0].pid
    with pytest.warns(ResourceWarning, match="unclosed running"):
        del pool
        gc.collect()
    assert gone(pid)


# What a hostile reader found -------------------------------------------------------------------


class ExitsAsItOpens:
    """Unpickling it calls ``sys.exit``."""

    def __reduce__(self):
        return sys.exit, (3,)


def makes_one(_):
    return ExitsAsItOpens()


def leaves(_):
    sys.exit(1)


@pytest.fixture
def told(monkeypatch):
    """What is reported of threads."""
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
    return told


def test_nothing_that_a_callback_or_a_result_raises_ends_the_pool(pool, told):
    """Whatever it is, and wherever it is called."""
    with pytest.raises(SystemExit):
        pool.apply(makes_one, (0,))
    assert pool.map_async(abs, [], callback=leaves).get(20) == []
    assert pool.apply_async(abs, (-1,), callback=leaves).get(20) == 1
    assert pool.map(f.double, range(5)) == [0, 2, 4, 6, 8]
    assert told == [SystemExit, SystemExit]


def test_all_that_waits_fails_when_the_pool_is_terminated(method, told):
    """Also behind a callback that raises."""
    pool = Pool(1, context=method)
    pool.apply_async(time.sleep, (60,))
    results = [pool.map_async(abs, range(9), error_callback=leaves) for _ in range(2)]
    results.append(pool.apply_async(abs, (1,), error_callback=leaves))
    pool.terminate()
    for result in results:
        with pytest.raises(WorkerLostError):
            result.get(20)


ALARMED = """
import signal, time
from amorsize import Pool
class Late(Exception):
    pass
armed = False
def late(*_):
    if armed:
        raise Late
if __name__ == "__main__":
    signal.signal(signal.SIGALRM, late)
    hits = calls = 0
    with Pool(1, context={method!r}) as pool:
        pool.apply(abs, (1,))
        end = time.monotonic() + 3
        while time.monotonic() < end:
            calls += 1
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, 0.00005 * (1 + calls % 8))
                pool.apply(abs, (-1,))
                armed = False
            except Late:
                armed = False
                hits += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert pool.apply_async(abs, (-2,)).get(10) == 2
    print(hits > 0)
"""


def test_a_signal_handler_that_raises_at_any_moment_does_not_stop_the_pool(method, tmp_path):
    """The usual time limit."""
    ended = programs.run_source(ALARMED.format(method=method), tmp_path)
    assert (ended.out, ended.err) == ("True\n", "")


def test_an_input_is_not_read_far_ahead(pool):
    """An endless one has results, too."""
    read = []

    def numbers():
        for number in range(10**9):
            read.append(number)
            yield number

    results = pool.imap(wait, (0 * number for number in numbers()), chunksize=1)
    assert [next(results) for _ in range(5)] == [0] * 5
    pool.terminate()
    assert len(read) < 20_000
    with pytest.raises(WorkerLostError):
        list(results)


def test_a_pool_of_the_parent_is_refused_in_a_forked_child(method):
    """It would wait for ever: the pool's thread is not there."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork")
    with Pool(1, context=method) as pool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pid = os.fork()
        if pid == 0:
            try:
                pool.apply(abs, (1,))
            except ValueError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert pool.apply(abs, (-1,)) == 1
