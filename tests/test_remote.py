"""Calls on engines that the user already has: executors, Dask and Ray give the results of map."""

import concurrent.futures as futures
import contextlib
import contextvars
import csv
import decimal
import functools
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings

import pytest

from amorsize import (
    SerializationError,
    SmartExecutor,
    TaskTimeoutError,
    WorkerLostError,
    last_run,
    smart_imap,
    smart_imap_unordered,
    smart_map,
    smart_map_async,
    smart_starmap,
)
from tests import functions as f
from tests import programs
from tests.load import first_undisturbed

METHODS = [
    one for one in ("fork", *programs.MOSTLY_FORKSERVER) if one != "fork" or hasattr(os, "fork")
]


def loky():
    found = pytest.importorskip("loky")
    return found.ProcessPoolExecutor(2)


def executorlib():
    found = pytest.importorskip("executorlib")
    return found.SingleNodeExecutor(max_workers=2)


def interpreters():
    if not hasattr(futures, "InterpreterPoolExecutor"):
        pytest.skip("InterpreterPoolExecutor came with Python 3.14")
    return futures.InterpreterPoolExecutor(2)


EXECUTORS = {
    "processes": lambda: futures.ProcessPoolExecutor(2),
    "spawned processes": lambda: futures.ProcessPoolExecutor(
        2, multiprocessing.get_context("spawn")
    ),
    "threads": lambda: futures.ThreadPoolExecutor(2),
    "ours": lambda: SmartExecutor(2),
    "ours, fresh": lambda: SmartExecutor(
        2, "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    ),
    "loky": loky,
    "executorlib": executorlib,
    "interpreters": interpreters,
}
# executorlib takes a second to start.
QUICK = [name for name in EXECUTORS if name != "executorlib"]
APART = [
    name for name in EXECUTORS if name not in ("threads", "executorlib")
]  # whose workers share no memory


@contextlib.contextmanager
def opened(name):
    """Give an executor, which has ended with its processes and threads afterwards."""
    threads = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some fork beside threads
        with EXECUTORS[name]() as executor:
            yield executor
    for thread in set(threading.enumerate()) - threads:
        thread.join(20)


@pytest.mark.parametrize("name", EXECUTORS)
class TestAnyExecutor:
    def test_every_form_gives_what_map_gives(self, name):
        """Same values in the same order, for every kind of input."""
        with opened(name) as executor:
            assert smart_map(f.double, range(500), backend=executor) == [2 * x for x in range(500)]
            report = last_run()
            assert (report.backend, report.caller_items) == ("remote", 0)
            assert sum(node.items for node in report.nodes) == 500
            assert "node" in report.explain()
            assert smart_map(pow, [2, 3], [5, 2], backend=executor) == [32, 9]
            assert smart_starmap(max, [(1, 2), (4, 3)], backend=executor) == [2, 4]
            assert list(smart_imap(f.double, iter(range(99)), backend=executor)) == [
                2 * x for x in range(99)
            ]
            unordered = smart_imap_unordered(f.double, range(99), backend=executor)
            assert sorted(unordered) == [2 * x for x in range(99)]
            assert smart_map(f.double, [], backend=executor) == []

    def test_an_exception_arrives_as_itself(self, name):
        """With a note that names its item; the earliest failing item wins."""
        with opened(name) as executor:
            with pytest.raises(ValueError, match="no 30") as caught:
                smart_map(f.fail_on_multiples_of_30, range(500), backend=executor)
            assert "item 30" in caught.value.__notes__[0]
            found = smart_map(
                f.fail_on_multiples_of_30, range(70), backend=executor, return_exceptions=True
            )
            assert [x for x in found if isinstance(x, int)] == [
                x for x in range(70) if x not in (30, 60)
            ]
            assert "item 60" in found[60].__notes__[0]


@pytest.mark.parametrize("name", QUICK)
class TestAnyQuickExecutor:
    def test_input_is_bounded(self, name):
        """An endless input is read no further than ``buffersize`` ahead."""
        taken = []

        def endless():
            x = 0
            while True:
                taken.append(x)
                yield x
                x += 1

        with opened(name) as executor:
            results = smart_imap(f.double, endless(), backend=executor, buffersize=8)
            assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
            assert len(taken) <= 13
            results.close()

    def test_a_time_limit_ends_the_call(self, name):
        """In time, and without waiting for the engine."""
        with opened(name) as executor, pytest.raises(TaskTimeoutError):
            smart_map(f.wait_50ms, range(400), backend=executor, timeout=0.4)


@pytest.mark.parametrize("name", APART)
class TestWorkersApart:
    def test_the_present_globals_are_used(self, name, monkeypatch):
        """Workers that were used before get the values of this call."""
        with opened(name) as executor:
            for factor in (2, 3):
                monkeypatch.setattr(f, "HELPER_FACTOR", factor)
                assert smart_map(f.helped, range(20), backend=executor) == [
                    factor * x for x in range(20)
                ]

    def test_the_callers_state_travels(self, name):
        """Decimal context, warnings and log records, in each call anew."""
        records = []

        class Handler(logging.Handler):
            def emit(self, record):
                records.append((record.name, record.getMessage()))

        handler = Handler()
        logger = logging.getLogger("ours")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            with opened(name) as executor:
                for digits in (5, 9):
                    with decimal.localcontext() as context:
                        context.prec = digits
                        found = smart_map(f.divided, range(6), backend=executor)
                    assert set(found) == {"0." + "3" * digits}
        finally:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
        assert sorted(records) == sorted(("ours", f"item {x}") for x in (*range(6), *range(6)))

    def test_what_cannot_be_sent_is_named(self, name):
        """The index of the argument, before anything of it ran."""
        with opened(name) as executor:
            with pytest.raises(SerializationError) as caught:
                smart_map(f.double, [1, 2, threading.Lock(), 4], backend=executor, chunksize=1)
            assert caught.value.index == 2


def test_threads_share_memory():
    """What a function changes is changed."""
    seen = []
    with opened("threads") as executor:
        smart_map(seen.append, range(50), backend=executor)
    assert sorted(seen) == list(range(50))


def test_a_worker_of_ours_that_dies_costs_its_chunk_only():
    """The item that kills its worker is named, and the others have results."""
    with opened("ours") as executor:
        with pytest.raises(WorkerLostError, match="item 7"):
            smart_map(f.leave_on_7, range(40), backend=executor)
        found = smart_map(f.leave_on_7, range(40), backend=executor, return_exceptions=True)
    assert isinstance(found[7], WorkerLostError)
    assert [x for x in found if isinstance(x, int)] == [x for x in range(40) if x != 7]


def test_a_broken_executor_is_an_error():
    """A ProcessPoolExecutor runs nothing after one of its workers has died."""
    with opened("processes") as executor, pytest.raises(WorkerLostError, match="nothing any more"):
        smart_map(f.leave_on_7, range(40), backend=executor)


def test_an_executor_that_was_shut_down_is_an_error():
    """As if a task had been given to it."""
    executor = futures.ThreadPoolExecutor(2)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        smart_map(f.double, range(5), backend=executor)


def test_an_object_that_gives_no_futures_is_refused():
    """The error says what it gave."""

    class Odd:
        def submit(self, func, /, *args):
            return 3

    with pytest.raises(TypeError, match="returned 3, where a future"):
        smart_map(f.double, range(5), backend=Odd())


def test_an_executor_of_another_kind_is_ramped_up():
    """Where the number of workers is not told, more and more chunks are handed out."""

    class Silent(futures.Executor):
        def __init__(self):
            self._inner = futures.ThreadPoolExecutor(16)
            self.out = self.most = 0

        def submit(self, func, /, *args, **kwargs):
            self.out += 1
            self.most = max(self.most, self.out)
            future = self._inner.submit(func, *args, **kwargs)
            future.add_done_callback(lambda _: setattr(self, "out", self.out - 1))
            return future

        def shutdown(self, wait=True, *, cancel_futures=False):
            self._inner.shutdown(wait=wait)

    def is_found():
        with Silent() as executor:
            assert smart_map(f.wait_5ms, range(600), backend=executor) == list(range(600))
            return executor.most >= 8

    assert first_undisturbed(is_found, wanted=True)


def test_jobs_limit_what_is_used():
    """``n_jobs`` is the most chunks at the same time, times two that wait."""
    with opened("threads") as executor:
        smart_map(f.wait_5ms, range(40), backend=executor, n_jobs=1)
        assert last_run().n_jobs == 1


def test_options_for_processes_are_refused():
    """The error names both options."""
    with opened("threads") as executor:
        for option in ({"task_timeout": 1.0}, {"mp_context": "fork"}):
            with pytest.raises(ValueError, match=f"{next(iter(option))}.*backend"):
                smart_map(f.double, range(5), backend=executor, **option)


def test_an_initializer_runs_in_the_workers():
    """Once in each, before its first item."""
    with opened("processes") as executor:
        found = smart_map(
            functools.partial(f.read_state),
            ["key"] * 20,
            backend=executor,
            initializer=f.set_state,
            initargs=("key", 5),
        )
    assert found == [5] * 20


@pytest.mark.skipif(not programs.HAS_EVENT_LOOPS, reason="needs an event loop")
def test_engines_work_beside_an_event_loop():
    """smart_map_async takes the same backends."""
    import asyncio

    with opened("threads") as executor:
        found = asyncio.run(smart_map_async(f.double, range(50), backend=executor))
    assert found == [2 * x for x in range(50)]


def test_what_was_learned_is_remembered_by_the_kind_and_size_of_the_engine():
    """Another number of workers is another environment."""
    with opened("threads") as executor:
        smart_map(f.wait_5ms, range(40), backend=executor)
        smart_map(f.wait_5ms, range(40), backend=executor)
        assert last_run().cache_hit
    with futures.ThreadPoolExecutor(3) as executor:
        smart_map(f.wait_5ms, range(40), backend=executor)
        assert not last_run().cache_hit


def test_auto_stays_here_without_an_engine():
    """And gives what map gives."""
    assert smart_map(f.double, range(100), backend="auto") == [2 * x for x in range(100)]
    assert last_run().backend == "serial"


def test_an_engine_that_is_not_there_is_an_error(monkeypatch):
    """It says what to install, or to create."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"amorsize\[ray\]"):
        smart_map(f.double, range(3), backend="ray")
    pytest.importorskip("distributed", exc_type=ImportError)
    with pytest.raises(ValueError, match="no current client"):
        smart_map(f.double, range(3), backend="dask")


def process_state():
    """Return what a call might change in the process of a worker."""
    root = logging.getLogger()
    return (
        sys.getrecursionlimit(),
        list(sys.argv),
        gc.get_threshold(),
        list(warnings.filters),
        root.level,
        [type(handler).__name__ for handler in root.handlers],
        logging.getLogger("ours").level,
        f.HELPER_FACTOR,
        csv.list_dialects(),
    )


def prepare():
    """Make the process of a worker differ from a fresh one."""
    csv.register_dialect("own", delimiter=";")
    sys.setrecursionlimit(5000)
    logging.getLogger().addHandler(logging.NullHandler())
    f.STATE = "made by the executor's initializer"


def used_state(_):
    return f.STATE


def test_the_workers_of_an_executor_are_left_as_they_were(monkeypatch):
    """While a chunk runs they have the caller's state; what the caller lacks is left alone."""
    monkeypatch.setattr(f, "HELPER_FACTOR", 9)
    monkeypatch.setattr(f, "STATE", None)
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    with futures.ProcessPoolExecutor(1, context, prepare) as executor:
        before = executor.submit(process_state).result()
        assert smart_map(f.helped, range(6), backend=executor) == [9 * x for x in range(6)]
        assert (
            smart_map(used_state, range(3), backend=executor)
            == ["made by the executor's initializer"] * 3
        )
        assert executor.submit(process_state).result() == before


OF_THE_MAIN_MODULE = """
import multiprocessing, pickle, sys
from concurrent.futures import ProcessPoolExecutor
from amorsize import SmartExecutor, smart_map

model = None
factor = 1

class Point:
    def __init__(self, x): self.x = x

def prepare():
    global model, factor
    model, factor = "made by the initializer", 5

def work(x): return model, factor, x
def point(p): return Point(p.x + 1)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    for kind in (ProcessPoolExecutor, SmartExecutor):
        with kind(2, context, prepare) as engine:
            print(smart_map(work, [1, 2], backend=engine))
            print(smart_map(lambda x: work(x), [1], backend=engine))
            points = smart_map(point, [Point(1), Point(2)], backend=engine)
            print([type(p) is Point for p in points], [p.x for p in points])
            factor = 2
            print(smart_map(work, [3], backend=engine))
            factor = 1
            print(engine.submit(work, 4).result())
"""


@pytest.mark.parametrize("method", METHODS)
def test_what_an_initializer_set_in_the_main_module_is_seen(method, tmp_path):
    """Where the caller has None; other values are the caller's; nothing is left behind."""
    ended = programs.run_source(OF_THE_MAIN_MODULE.replace("sys.argv[1]", repr(method)), tmp_path)
    made = "'made by the initializer'"
    expected = f"""[({made}, 1, 1), ({made}, 1, 2)]
[({made}, 1, 1)]
[True, True] [2, 3]
[({made}, 2, 3)]
({made}, 5, 4)
"""
    assert ended.out == 2 * expected, ended.err


def test_calls_that_take_turns_keep_their_own_values(monkeypatch):
    """Two calls on one worker, each with the globals of its own time."""
    with futures.ProcessPoolExecutor(1) as executor:
        monkeypatch.setattr(f, "HELPER_FACTOR", 2)
        first = smart_imap(f.helped, range(1, 40), backend=executor, chunksize=1)
        assert next(first) == 2
        monkeypatch.setattr(f, "HELPER_FACTOR", 3)
        assert smart_map(f.helped, range(4), backend=executor) == [0, 3, 6, 9]
        assert list(first) == [2 * x for x in range(2, 40)]


def test_a_task_may_use_the_executor_that_runs_it():
    """It runs its items itself, as its worker would be waited for."""
    with opened("threads") as executor:

        def outer(x):
            return sum(smart_map(f.double, range(x), backend=executor))

        found = smart_map(outer, range(8), backend=executor, timeout=60)
    assert found == [x * (x - 1) for x in range(8)]


def test_threads_have_the_callers_context():
    """Context variables and the decimal context; and the threads keep their own."""
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(5)
    with opened("threads") as executor:
        executor.submit(decimal.getcontext).result().prec = 11
        with decimal.localcontext() as context:
            context.prec = 7
            found = smart_map(
                lambda _: (variable.get(), decimal.getcontext().prec), range(6), backend=executor
            )
        assert set(found) == {(5, 7)}
        assert {executor.submit(variable.get).result() for _ in range(4)} == {0}


def test_initializers_run_once_in_each_thread():
    """Also where several calls share an executor."""
    runs = []
    with opened("threads") as executor:
        calls = [
            threading.Thread(
                target=smart_map,
                args=(f.wait_5ms, range(30)),
                kwargs={"backend": executor, "initializer": runs.append, "initargs": (name,)},
            )
            for name in "abc"
        ]
        for call in calls:
            call.start()
        for call in calls:
            call.join(60)
    assert all(1 <= runs.count(name) <= 2 for name in "abc")


def test_threads_stop_when_the_call_has_failed():
    """No item begins after that."""
    ran = []

    def work(x):
        ran.append(x)
        if x == 0:
            raise ValueError(x)
        time.sleep(0.02)

    with opened("threads") as executor:
        with pytest.raises(ValueError):
            smart_map(work, range(200), backend=executor, chunksize=50)
        time.sleep(0.1)
        done = len(ran)
        time.sleep(0.2)
        assert len(ran) == done


def test_ctrl_c_cancels_what_waits(tmp_path):
    """The call ends at once, and nothing more of it begins."""
    log = tmp_path / "log"

    def work(x):
        with log.open("a") as file:
            file.write(f"{x}\n")
        time.sleep(0.02)
        return x

    with opened("threads") as executor:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            smart_map(work, range(1000), backend=executor, chunksize=2)
        timer.join()
        time.sleep(0.1)
        done = len(log.read_text().splitlines())
        time.sleep(0.2)
        assert len(log.read_text().splitlines()) == done < 200
