"""SmartExecutor: in the place of ProcessPoolExecutor, for many small tasks."""

import asyncio
import concurrent.futures
import gc
import json
import os
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import BrokenExecutor, CancelledError
from concurrent.futures.process import BrokenProcessPool

import psutil
import pytest

from amorsize import SmartExecutor, WorkerLostError
from amorsize.serve.futures import LightFuture
from tests import functions as f
from tests import programs
from tests.test_pool import METHODS, always_dies, fails_to_begin, gone, make, wait, wait_for


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def executor(method):
    with SmartExecutor(2, method) as executor:
        yield executor


def test_tasks_of_all_kinds_run(executor):
    """Functions, lambdas, closures, keyword arguments; in any number."""
    factor = 3
    futures = [executor.submit(lambda x: factor * x, x) for x in range(500)]
    assert [future.result(60) for future in futures] == [3 * x for x in range(500)]
    assert executor.submit(dict, a=1, b=2).result(60) == {"a": 1, "b": 2}


def test_results_that_pickle_cannot_carry_come_back(executor):
    """Those of a ProcessPoolExecutor do not."""
    made = executor.submit(lambda: lambda x: x + 1).result(60)
    assert made(1) == 2


def test_exceptions_have_the_workers_traceback(executor):
    """As their cause."""
    future = executor.submit(divmod, 1, 0)
    assert type(future.exception(60)) is ZeroDivisionError
    assert "Traceback" in str(future.exception().__cause__)


def test_a_future_can_be_cancelled_before_it_runs(executor):
    """And one that runs cannot."""
    futures = [executor.submit(wait, 0.2) for _ in range(8)]
    while not futures[0].running():
        time.sleep(0.001)
    assert not futures[0].cancel()
    assert futures[-1].cancel()
    with pytest.raises(CancelledError):
        futures[-1].result(60)
    assert futures[0].result(60) == 0.2


def test_all_that_waits_is_cancelled_however_busy_the_executor_is(executor):
    """Also what its thread has not seen yet, because it is pickling an argument."""
    begun, may_go_on = threading.Event(), threading.Event()

    class SentLate:
        def __reduce__(self):
            begun.set()
            assert may_go_on.wait(20)
            return float, (0.2,)

    late = executor.submit(wait, SentLate())
    assert begun.wait(20)
    futures = [executor.submit(wait, 0.1) for _ in range(30)]
    executor.shutdown(wait=False, cancel_futures=True)
    may_go_on.set()
    assert late.result(20) == 0.2
    concurrent.futures.wait(futures, 20)
    assert sum(future.cancelled() for future in futures) > 20
    assert all(future.cancelled() or future.result() == 0.1 for future in futures)
    executor.shutdown()


def test_results_come_as_they_are_done(executor):
    """Whatever waits for them."""
    futures = {executor.submit(wait, seconds): seconds for seconds in (0.4, 0.01, 0.05)}
    done = [futures[future] for future in concurrent.futures.as_completed(futures, 60)]
    assert sorted(done) == sorted(futures.values())
    assert done[-1] == 0.4
    finished, left = concurrent.futures.wait([executor.submit(abs, -1)], 60)
    assert (len(finished), len(left)) == (1, 0)


@pytest.mark.skipif(not programs.HAS_EVENT_LOOPS, reason="needs an event loop")
def test_it_serves_an_event_loop(executor):
    """By ``run_in_executor``."""

    async def main():
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, f.double, x) for x in range(20)]
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == [2 * x for x in range(20)]


@pytest.mark.parametrize("options", [{}, {"chunksize": 7}, {"buffersize": 5}], ids=str)
def test_map_gives_results_in_order(executor, options):
    """Of several iterables, in chunks, with a limited number in flight."""
    assert list(executor.map(pow, range(50), [2] * 40, **options)) == [x * x for x in range(40)]


def test_map_with_a_buffer_does_not_read_ahead(executor):
    """The input may be endless."""
    read = []

    def numbers():
        for number in range(10**9):
            read.append(number)
            yield number

    results = executor.map(f.double, numbers(), buffersize=4)
    assert [next(results) for _ in range(10)] == [2 * x for x in range(10)]
    assert len(read) <= 15
    results.close()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda e: e.map(abs, [1], chunksize=0), ValueError),
        (lambda e: e.map(abs, [1], buffersize=0), ValueError),
        (lambda e: e.map(abs, [1], buffersize=1.5), TypeError),
        (lambda e: SmartExecutor(0), ValueError),
        (lambda e: SmartExecutor(max_tasks_per_child=0), ValueError),
        (lambda e: SmartExecutor(max_tasks_per_child=1.5), TypeError),
        (lambda e: SmartExecutor(initializer=3), TypeError),
        (lambda e: SmartExecutor(mp_context="thread"), ValueError),
    ],
)
def test_bad_arguments_are_refused(executor, call, error):
    """Before anything runs."""
    with pytest.raises(error):
        call(executor)


def test_a_task_whose_worker_dies_runs_again(executor, tmp_path):
    """The executor is not broken, and other tasks are not touched."""
    mark = tmp_path / "died"

    def dies_once():
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return "again"
        return os.kill(os.getpid(), signal.SIGKILL)

    others = [executor.submit(f.double, x) for x in range(50)]
    assert executor.submit(dies_once).result(60) == "again"
    assert [future.result(60) for future in others] == [2 * x for x in range(50)]


def test_a_task_that_kills_two_workers_gets_the_error(executor):
    """It is both amorsize's and that of a ProcessPoolExecutor; further tasks run."""
    error = executor.submit(always_dies, 0).exception(60)
    assert isinstance(error, WorkerLostError)
    assert isinstance(error, BrokenProcessPool)
    assert "SIGKILL" in str(error)
    assert executor.submit(f.double, 2).result(60) == 4


def test_an_initializer_that_fails_breaks_the_executor(method):
    """Tasks that were given get the error, further ones are refused."""
    with SmartExecutor(1, method, fails_to_begin) as executor:
        with pytest.raises(BrokenExecutor):
            executor.submit(abs, 1).result(60)
        with pytest.raises(BrokenExecutor):
            executor.submit(abs, 1)


def test_tasks_that_wait_for_later_tasks_do_not_wait_for_ever(executor, tmp_path):
    """Two workers run two tasks at a time, however short tasks were before."""
    futures = [executor.submit(abs, -1) for _ in range(1_000)]
    for number in range(30):
        path = str(tmp_path / str(number))
        futures += [executor.submit(wait_for, path), executor.submit(make, path)]
        futures += [executor.submit(abs, -1) for _ in range(100)]
    for future in futures:
        future.result(60)


def test_workers_start_when_there_is_work_for_them(method):
    """None before the first task; fork starts all then, as it must not later."""
    with SmartExecutor(3, method) as executor:
        assert executor._service is None
        for _ in range(5):
            executor.submit(abs, 1).result(60)
        assert len(executor._service.members) == (3 if method == "fork" else 1)
        for future in [executor.submit(wait, 0.1) for _ in range(9)]:
            future.result(60)
        assert len(executor._service.members) == 3


@pytest.mark.parametrize("end", ["kill_workers", "terminate_workers"])
def test_workers_can_be_ended_at_once(executor, end):
    """Futures that are not done get an error, and no further task is taken."""
    futures = [executor.submit(wait, 60) for _ in range(4)]
    while not futures[0].running():
        time.sleep(0.001)
    pids = [member.process.pid for member in executor._service.members]
    getattr(executor, end)()
    assert all(isinstance(future.exception(20), BrokenProcessPool) for future in futures)
    assert all(gone(pid) for pid in pids)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


def test_an_executor_that_is_dropped_ends_its_workers(method):
    """When all tasks are done."""
    executor = SmartExecutor(1, method)
    future = executor.submit(wait, 0.1)
    pid, service = executor._service.members[0].process.pid, executor._service
    del executor
    assert future.result(20) == 0.1
    service.join()
    assert gone(pid)


def test_threads_submit_at_the_same_time(executor):
    """Each gets its own results."""
    found = {}

    def use(number):
        futures = [executor.submit(f.double, number * 1_000 + x) for x in range(200)]
        found[number] = [future.result(60) for future in futures]

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, got in found.items():
        assert got == [2 * (number * 1_000 + x) for x in range(200)]


AT_EXIT = """
import json, time
from amorsize import SmartExecutor
def work(x):
    time.sleep(0.1)
    print("done", x, flush=True)
if __name__ == "__main__":
    executor = SmartExecutor(1, {method!r})
    for x in range(3):
        future = executor.submit(work, x)
    print(json.dumps([member.process.pid for member in executor._service.members]), flush=True)
    {end}
"""


@pytest.mark.parametrize("end", ["", "executor.shutdown(wait=False)", "del executor"])
def test_what_was_submitted_is_done_at_the_exit(method, end, tmp_path):
    """As the standard library does it."""
    ended = programs.run_source(AT_EXIT.format(method=method, end=end), tmp_path)
    pids, *lines = ended.out.splitlines()
    assert (lines, ended.err) == ([f"done {x}" for x in range(3)], "")
    assert not any(psutil.pid_exists(pid) for pid in json.loads(pids))


def test_a_future_tells_everybody_who_waits_for_it():
    """However many threads ask, at whatever moment, each gets the result once."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(300):
            future = LightFuture()
            assert future.set_running_or_notify_cancel()
            heard = []
            askers = [
                threading.Thread(target=ask)
                for ask in (
                    lambda: heard.append(future.result(20)),
                    lambda: heard.append(concurrent.futures.wait([future], 20).done.pop().result()),
                    lambda: future.add_done_callback(lambda done: heard.append(done.result())),
                    lambda: heard.append(next(concurrent.futures.as_completed([future])).result()),
                    lambda: future.set_result(number),
                )
            ]
            for asker in askers:
                asker.start()
            for asker in askers:
                asker.join(30)
            assert heard == [number] * 4
            assert future.done()
            with pytest.raises(concurrent.futures.InvalidStateError):
                future.set_result(0)
    finally:
        sys.setswitchinterval(interval)


def test_futures_may_be_dropped_at_any_moment():
    """The garbage collector may run code that uses futures while one is made or waited for."""
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        with SmartExecutor(1) as executor:
            for _ in range(200):
                left = executor.map(f.double, range(3))
                ring = [left]
                ring.append(ring)
                del left, ring
                assert executor.submit(f.double, 2).result(20) == 4
    finally:
        gc.set_threshold(*thresholds)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_may_use_futures():
    """Whatever threads of its parent did with theirs at that moment."""
    ended = threading.Event()

    def use():
        while not ended.is_set():
            future = LightFuture()
            future.set_running_or_notify_cancel()
            future.add_done_callback(id)
            future.set_result(1)

    user = threading.Thread(target=use)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    user.start()
    try:
        for _ in range(100):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of forking beside threads
                child = os.fork()
            if not child:
                signal.alarm(20)
                future = LightFuture()
                future.add_done_callback(id)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        ended.set()
        user.join(20)
        sys.setswitchinterval(interval)
