"""The promise: the result of list(map(func, data)), whatever happens on the way."""

import functools
import os
import signal
import time

import numpy as np
import pytest

from amorsize import (
    SerializationError,
    TaskTimeoutError,
    WorkerLostError,
    smart_imap,
    smart_map,
    smart_starmap,
)
from tests import functions as f

METHODS = ("fork", "spawn", "forkserver")
WAYS = [pytest.param({"n_jobs": 2, "mp_context": method}, id=method) for method in METHODS] + [
    pytest.param({"n_jobs": 2, "backend": "thread"}, id="thread"),
    pytest.param({"n_jobs": 1}, id="serial"),
    pytest.param({}, id="decided"),
]
WORKERS = [way for way in WAYS if way.id in METHODS]


@pytest.mark.parametrize("way", WAYS)
class TestEveryWay:
    def test_gives_the_results_of_map_in_order(self, way):
        """Each way of running gives list(map(func, data))."""
        assert smart_map(f.double, range(100), **way) == [2 * x for x in range(100)]

    def test_takes_several_iterables_up_to_the_shortest(self, way):
        """Several iterables are consumed together, and the shortest ends the call."""
        assert smart_map(f.add, range(50), iter(range(1000, 2000)), **way) == [
            1000 + 2 * x for x in range(50)
        ]

    def test_starmap_unpacks_arguments(self, way):
        """smart_starmap calls func with each tuple's items."""
        pairs = [(x, 10) for x in range(40)]
        assert smart_starmap(f.add, pairs, **way) == [x + 10 for x in range(40)]

    def test_empty_input_gives_an_empty_list(self, way):
        """No items, no results, and nothing is started."""
        assert smart_map(f.double, [], **way) == []
        assert smart_map(f.double, iter(()), **way) == []

    def test_lambdas_closures_partials_and_methods_work(self, way):
        """What only cloudpickle can carry is carried."""
        offset = 5
        data = range(20)
        scale = f.Scale(3)
        for func in (
            lambda x: x + offset,
            functools.partial(f.add, 5),
        ):
            assert smart_map(func, data, **way) == [x + 5 for x in data]
        for func in (scale, scale.times, f.Scale.triple):
            assert smart_map(func, data, **way) == [3 * x for x in data]

    def test_an_exception_arrives_as_itself_with_index_and_item(self, way):
        """The earliest failing item's exception arrives, with a note that names it."""
        with pytest.raises(ValueError, match="no 30") as caught:
            smart_map(f.fail_on_multiples_of_30, range(100), **way)
        assert caught.value.args == ("no 30",)
        assert caught.value.__notes__[0] == "amorsize: raised for item 30: 30"

    def test_return_exceptions_puts_them_in_their_place(self, way):
        """With return_exceptions=True an exception is the result of its item."""
        results = smart_map(f.fail_on_multiples_of_30, range(61), return_exceptions=True, **way)
        assert [type(r).__name__ for r in results if not isinstance(r, int)] == ["ValueError"] * 2
        assert [r for r in results if isinstance(r, int)] == [
            x for x in range(61) if x % 30 or not x
        ]

    def test_stop_iteration_ends_the_results_as_it_ends_map(self, way):
        """A func that raises StopIteration ends list(map()), so it ends smart_map."""
        assert smart_map(f.stop_on_7, range(50), **way) == list(map(f.stop_on_7, range(50)))

    def test_system_exit_of_func_reaches_the_caller(self, way):
        """SystemExit and KeyboardInterrupt raised by func arrive, and nothing hangs."""
        with pytest.raises(SystemExit, match="seven"):
            smart_map(f.exit_on_7, range(50), **way)
        with pytest.raises(KeyboardInterrupt):
            smart_map(f.interrupt_on_7, range(50), **way)

    def test_the_inputs_own_exception_arrives_without_a_note(self, way):
        """An exception raised by the data's iterator arrives as itself, with no item blamed."""

        def items():
            yield from range(20)
            raise LookupError("no more data")

        with pytest.raises(LookupError, match="no more data") as caught:
            smart_map(f.double, items(), **way)
        assert not hasattr(caught.value, "__notes__")

    def test_each_item_runs_exactly_once(self, way, tmp_path):
        """Whatever is decided, func is called once for each item."""
        if os.name == "nt":
            pytest.skip("appends of several processes to one file are not atomic on Windows")
        path = str(tmp_path / "calls")
        n = 200
        smart_map(functools.partial(f.log_call, path), range(n), **way)
        assert f.logged_calls(path) == list(range(n))

    def test_arrays_dicts_and_sets_can_be_mapped_over(self, way):
        """Any iterable works: arrays by row, dicts by key, sets in their order."""
        rows = np.arange(60).reshape(20, 3)
        assert smart_map(sum, rows, **way) == [sum(row) for row in rows]
        mapping = dict.fromkeys(range(30))
        assert smart_map(f.double, mapping, **way) == [2 * x for x in mapping]
        assert smart_map(f.double, set(mapping), **way) == [2 * x for x in set(mapping)]
        assert smart_map(str.upper, "abc", **way) == ["A", "B", "C"]


@pytest.mark.parametrize("way", WORKERS)
class TestInWorkers:
    def test_no_item_meets_the_caller(self, way):
        """With workers asked for, every item runs in one of them."""
        assert os.getpid() not in smart_map(f.pid_of, range(20), **way)

    def test_the_remote_traceback_is_the_cause(self, way):
        """The worker's traceback is the exception's cause."""
        with pytest.raises(ValueError, match="no 30") as caught:
            smart_map(f.fail_on_multiples_of_30, range(100), **way)
        assert "fail_on_multiples_of_30" in str(caught.value.__cause__)

    def test_an_exception_that_cannot_be_unpickled_comes_as_itself(self, way):
        """It arrives as its own class, made without its __init__, with the same text."""
        with pytest.raises(Exception, match=r"^one and two") as caught:
            smart_map(f.raise_needs_two, range(20), **way)
        assert type(caught.value) is f.NeedsTwoError
        assert "NeedsTwoError" in str(caught.value.__cause__)

    def test_a_result_that_cannot_be_pickled_is_named(self, way):
        """SerializationError names the item whose result cannot travel."""
        with pytest.raises(SerializationError, match="generator") as caught:
            smart_map(f.generator_on_7, range(20), **way)
        assert caught.value.index == 7

    def test_initializer_runs_once_in_each_worker(self, way):
        """What the initializer set up is there for every item, and never in the caller."""
        f.STATE.pop("key", None)
        results = smart_map(
            f.read_state, ["key"] * 10, initializer=f.set_state, initargs=("key", 5), **way
        )
        assert results == [5] * 10
        assert "key" not in f.STATE

    def test_a_failing_initializer_arrives_once(self, way):
        """The initializer's own error reaches the caller."""
        with pytest.raises(RuntimeError, match="no start today") as caught:
            smart_map(f.double, range(10), initializer=f.fail_to_start, **way)
        assert "set up" in caught.value.__notes__[0]

    def test_a_dead_worker_is_reported_with_the_item(self, way):
        """An item that ends its worker every time is named in WorkerLostError."""
        with pytest.raises(WorkerLostError, match="exit code 3 while it ran item 7") as caught:
            smart_map(f.leave_on_7, range(50), **way)
        assert (caught.value.index, caught.value.exitcode) == (7, 3)

    def test_items_of_a_lost_worker_run_again(self, way, tmp_path):
        """One death with retries left loses nothing."""
        reports = []
        func = functools.partial(f.leave_first_time, str(tmp_path / "once"))
        assert smart_map(func, range(50), report=reports.append, **way) == list(range(50))
        assert reports[0].retried > 0

    def test_without_retries_no_item_runs_twice(self, way, tmp_path):
        """retries=0 turns the first death into WorkerLostError."""
        func = functools.partial(f.leave_first_time, str(tmp_path / "once"))
        with pytest.raises(WorkerLostError):
            smart_map(func, range(50), retries=0, **way)

    def test_a_late_item_ends_the_call(self, way):
        """task_timeout names the item that is late."""
        with pytest.raises(TaskTimeoutError, match="item 3 took longer") as caught:
            smart_map(f.hang_on_3, range(20), task_timeout=0.2, **way)
        assert (caught.value.index, caught.value.seconds) == (3, 0.2)

    def test_a_late_item_can_be_a_result(self, way):
        """With return_exceptions=True the late item's place holds the error, and the call ends."""
        results = smart_map(
            f.hang_on_3, range(8), task_timeout=0.2, return_exceptions=True, chunksize=4, **way
        )
        assert [x for x in results if not isinstance(x, Exception)] == [0, 1, 2, 4, 5, 6, 7]
        assert isinstance(results[3], TaskTimeoutError)

    def test_timeout_ends_the_call(self, way):
        """timeout ends the whole call, and the hanging worker with it."""
        begun = time.monotonic()
        with pytest.raises(TaskTimeoutError, match="timeout=0.4") as caught:
            smart_map(f.hang_on_3, range(20), timeout=0.4, **way)
        assert caught.value.index is None
        assert time.monotonic() - begun < 30


def test_timeout_ends_a_serial_call_between_items():
    """timeout holds in the calling process, too, at the next item."""
    with pytest.raises(TaskTimeoutError):
        smart_map(f.wait_5ms, range(10_000), n_jobs=1, timeout=0.1)


@pytest.mark.parametrize("form", [smart_map, lambda *args, **kw: list(smart_imap(*args, **kw))])
def test_timeout_holds_when_items_turn_dear_in_the_middle_of_a_block(form):
    """However many items the caller meant to run before it looks up again."""
    ran = []

    def cheap_then_dear(x):
        if x >= 5_000:
            ran.append(x)
            time.sleep(0.02)

    with pytest.raises(TaskTimeoutError, match=r"timeout=0\.2"):
        form(cheap_then_dear, range(100_000), n_jobs=1, timeout=0.2)
    assert len(ran) <= 11


def test_worker_signals_are_named():
    """The signal that killed a worker is named; SIGKILL with the word that memory may be short."""

    def kill_myself(x):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerLostError, match=r"SIGKILL \(the system may be out of memory\)"):
        smart_map(kill_myself, range(2), n_jobs=2)


def test_a_nested_call_runs_serially_and_says_so():
    """Inside a daemonic worker a call runs in that worker, with a warning in its report."""
    for total, backend, warnings in smart_map(f.nested_sum, [10, 20], n_jobs=2):
        assert total in (90, 380)
        assert backend == "serial"
        assert "daemonic" in warnings[0]


def test_a_function_that_cannot_be_shipped_is_refused_when_workers_were_asked_for():
    """SerializationError says what cannot be sent; free to choose, the call stays here."""
    generator = (x for x in range(3))

    def uses_generator(x):
        return generator is not None and x

    with pytest.raises(SerializationError, match="generator"):
        smart_map(uses_generator, range(10), n_jobs=2, mp_context="spawn")
    assert smart_map(uses_generator, range(1, 5), mp_context="spawn") == [1, 2, 3, 4]


def test_results_that_cannot_be_pickled_keep_the_call_here():
    """Free to choose, the call sees that results cannot travel, and runs serially."""

    def lazily(x):
        f.busy_ms(x)
        return (y for y in [x])

    reports = []
    results = smart_map(lazily, range(60), report=reports.append)
    assert [next(r) for r in results] == list(range(60))
    assert reports[0].backend == "serial"
    assert "cannot be pickled" in reports[0].reason


def test_numpy_random_state_differs_between_workers():
    """Forked workers do not draw the same numbers."""

    def draw(_):
        time.sleep(0.02)  # so that each worker gets a share
        return os.getpid(), np.random.random()

    drawn = dict(smart_map(draw, range(8), n_jobs=2, mp_context="fork", chunksize=1))
    assert len(set(drawn.values())) == len(drawn)


def test_mutated_globals_are_current_under_fork():
    """A forked worker sees the caller's globals as they are at the call."""
    for value in (1, 2):
        f.STATE["current"] = value
        assert smart_map(f.read_state, ["current"] * 4, n_jobs=2, mp_context="fork") == [value] * 4
    del f.STATE["current"]


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_caller_goes_on_while_workers_start(method, kind):
    """Under a slow start the calling process computes items meanwhile; all come out in order."""
    reports = []
    data = kind(range(1_500))
    got = smart_map(f.busy_ms, data, mp_context=method, report=reports.append)
    assert got == [2 * x for x in range(1_500)]
    assert reports[0].backend == "process"
    assert reports[0].worker_items > 0
    # More than the probe's few: the caller helped, unless workers came at once.
    if method == "spawn":
        assert reports[0].caller_items > 10


@pytest.mark.parametrize(
    ("func", "error"), [(f.fail_late, ValueError), (f.exit_late, SystemExit), (f.stop_late, None)]
)
def test_what_happens_while_the_caller_helps_is_as_in_map(func, error):
    """An item that fails, exits or stops in the helping caller ends the call as map would."""
    if error is None:
        got = smart_map(func, range(600), mp_context="spawn")
        assert got == list(map(func, range(600)))
        return
    with pytest.raises(error) as caught:
        smart_map(func, range(600), mp_context="spawn")
    assert caught.value.__notes__[0] == "amorsize: raised for item 20: 20"


@pytest.mark.parametrize(
    ("func", "items", "more"), [(f.busy_ms, 200, False), (f.wait_50ms, 40, True)]
)
def test_one_workers_timing_decides_about_more(func, items, more):
    """With backend="process" and nothing known, one worker starts, and more follow if they pay."""
    reports = []
    got = smart_map(func, range(items), backend="process", report=reports.append)
    assert got == list(map(func, range(items)))
    (report,) = reports
    assert report.caller_items == 0
    assert report.n_jobs > os.cpu_count() if more else report.n_jobs >= 1
    assert report.forecast_seconds is not None
