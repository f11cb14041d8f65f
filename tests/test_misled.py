"""What misled a call, or the next one: failing reports, growing and slow inputs, wrong memories."""

import subprocess
import sys
import threading
import time
from collections import deque
from functools import partial

import pytest

from amorsize import TaskTimeoutError, smart_imap, smart_map
from amorsize.call import adviser, costs
from amorsize.decide.figures import FIRST_COSTS, Costs, StartCost
from amorsize.decide.learning import bounded_costs
from amorsize.memory.cache import CACHE
from amorsize.run import worker
from tests import functions as f


def fail_on_40(x):
    time.sleep(0.004)
    if x == 40:
        raise ValueError("forty")
    return x


@pytest.mark.parametrize("jobs", [None, 2])
def test_a_report_does_not_replace_the_error_of_a_call(jobs):
    """A call that fails while its items wait raises what the function raised."""
    with pytest.raises(ValueError, match="forty"):
        smart_map(fail_on_40, range(60), n_jobs=jobs, report=lambda report: None)


def waits_and_returns_a_generator(x):
    time.sleep(0.004)
    return (x for _ in range(1))


def test_results_that_cannot_be_sent_are_found_out_each_time():
    """What is remembered of a function does not send results that cannot be sent."""
    for _ in range(3):
        assert len(smart_map(waits_and_returns_a_generator, list(range(60)))) == 60


def waits_with(lock):
    with lock:
        time.sleep(0.004)
    return 1


def test_items_that_cannot_be_sent_are_found_out_each_time():
    """Nor items that cannot, where the last call's were inherited."""
    assert smart_map(waits_with, [threading.Lock() for _ in range(60)]) == [1] * 60
    assert smart_map(waits_with, deque(threading.Lock() for _ in range(60))) == [1] * 60


@pytest.mark.parametrize("jobs", [None, 2])
def test_a_list_that_grows_is_run_to_its_end(jobs):
    """As map does, also where workers have inherited the list as it was."""
    todo = list(range(200))
    results = []
    for result in smart_imap(f.wait_5ms, todo, n_jobs=jobs):
        results.append(result)
        if len(todo) < 400:
            todo.append(len(todo))
    assert results == list(range(400))


def slowly(taken):
    while True:
        time.sleep(0.004)
        taken.append(1)
        yield len(taken)


@pytest.mark.parametrize("form", [smart_map, lambda *args, **kw: list(smart_imap(*args, **kw))])
@pytest.mark.parametrize("jobs", [None, 2])
def test_a_slow_input_does_not_outlast_the_time_limit(form, jobs):
    """No chunk is filled with so many tiny items that the call is over meanwhile."""
    taken = []
    with pytest.raises(TaskTimeoutError, match="timeout=1 s"):
        form(f.double, slowly(taken), timeout=1, n_jobs=jobs)
    assert len(taken) <= 400


def burn_in_a_child(_):
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)


def test_computing_of_child_processes_is_no_waiting():
    """A worker's CPU time is that of the processes it waits for, too."""
    out = []
    _, wall, cpu = worker.run_columns(burn_in_a_child, ([1, 2],), False, 0, out)
    assert len(out) == 2
    assert cpu > 0.1 * wall


def test_standing_in_line_is_computing_and_no_more_than_the_time_that_passed():
    """What computes uses one CPU, whether or not it has to wait for it."""
    ways = [{}, {"queue": iter([0.0, 1e9]).__next__}, {"clock": lambda: 0.0, "queue": lambda: 0.0}]
    shares = []
    for way in ways:
        _, wall, cpu = worker.run_columns(f.busy_ms, (range(20),), False, 0, [], **way)
        shares.append(cpu / wall)
    assert 0.8 < shares[0] < 1.05
    assert shares[1] == pytest.approx(1.0, abs=0.05)
    assert shares[2] == 0.0


def log_then_hang_on_3(path, x):
    f.log_call(path, x)
    if x == 3:
        time.sleep(60)
    return x


def test_without_retries_a_late_item_makes_no_other_run_twice(tmp_path):
    """Whatever the chunks: those before it in one would have to run again."""
    path = str(tmp_path / "log")
    call = partial(log_then_hang_on_3, path)
    got = smart_map(
        call, range(5), n_jobs=1, chunksize=5, task_timeout=0.5, retries=0, return_exceptions=True
    )
    assert got[:3] + got[4:] == [0, 1, 2, 4]
    assert isinstance(got[3], TaskTimeoutError)
    assert sorted(f.logged_calls(path)) == [0, 1, 2, 3, 4]


def waits_so_long(seconds):
    if seconds:
        time.sleep(seconds)
    return sum(range(400))


def test_a_memory_of_cheap_items_does_not_hide_dear_ones():
    """What was serial last time is looked at again after some items, not at the end."""
    cheap = [0.0] * 2_000
    for _ in range(2):
        smart_map(waits_so_long, cheap)
    reports = []
    smart_map(waits_so_long, [0.0] * 100 + [0.003] * 1_000 + cheap[:900], report=reports.append)
    dear = [span for span in reports[0].timeline if span.worker and 100 <= span.start < 1_100]
    assert sum(span.items for span in dear) > 200


def test_a_machine_is_not_judged_by_a_slow_consumer():
    """Workers that wait until somebody wants more results are no dear dispatch."""
    smart_map(f.busy_ms, range(60))
    before = costs.machine_costs()
    for _ in range(2):
        for _ in smart_imap(f.double, range(60), n_jobs=2, chunksize=1):
            time.sleep(0.005)
    after = costs.machine_costs()
    assert (after.chunk_seconds, after.error) == (before.chunk_seconds, before.error)


def test_learned_costs_are_within_bounds_wherever_they_come_from():
    """A file that says that everything is free, or takes for ever, is not believed."""
    for value in (0.0, 1e9):
        start = StartCost(*[value] * 6)
        wild = bounded_costs(Costs(start, start, start, start, *[value] * 5))
        for cost, first in zip(wild.fork, FIRST_COSTS.fork, strict=True):
            assert first / 20 <= cost <= first * 20
        assert 0 < wild.chunk_seconds < 1
    assert bounded_costs(FIRST_COSTS) == FIRST_COSTS


def test_nothing_learned_is_used_without_the_cache():
    """use_cache=False knows what is known on the first day, also of the machine."""
    smart_map(f.busy_ms, range(60), n_jobs=2)
    assert costs.machine_costs() != FIRST_COSTS
    assert costs.machine_costs(use_cache=False) == FIRST_COSTS


def busy_with(data):
    f.busy_ms(len(data))
    return len(data)


def test_the_price_of_items_is_asked_when_they_are_first_sent():
    """Items that cost nothing while they were inherited may be dear in another container."""
    items = [bytes([i]) * 1_000_000 for i in range(40)]
    for _ in range(2):
        smart_map(busy_with, items)
    reports = []
    smart_map(busy_with, deque(items), report=reports.append)
    assert reports[0].profile.arg_bytes >= 1_000_000


def make_4_mb(x):
    f.busy_ms(x)
    return b"x" * 4_000_000


RESULTS = """
from amorsize import smart_map
from tests.test_misled import make_4_mb

reports = []
for _ in range(2):
    smart_map(make_4_mb, range(60), report=reports.append)
print(max(report.profile.memory_bytes for report in reports))
"""


def test_results_are_not_counted_as_the_need_of_every_worker():
    """Memory that the caller fills with results limits no workers."""
    done = subprocess.run(  # this process may have needed more already
        [sys.executable, "-c", RESULTS], stdout=subprocess.PIPE, check=True, timeout=60, text=True
    )
    # All results are 240 MB; those of a chunk, up to a quarter of them, are its worker's own.
    assert int(done.stdout) < 150_000_000


def test_what_only_workers_can_measure_is_forgotten_when_there_are_none():
    """One disturbed run that showed bad contention does not keep a function serial for ever."""
    smart_map(f.busy_ms, range(60))
    record = advised_of(f.busy_ms, 60).recall.record
    disturbed = record._replace(profile=record.profile._replace(contention=1.0))
    CACHE.remember(disturbed, run_seconds=1.0, stable=True)
    assert advised_of(f.busy_ms, 60).recall.profile.contention == 1.0
    for _ in range(12):
        smart_map(f.busy_ms, range(60))
    assert advised_of(f.busy_ms, 60).recall.profile.contention < 0.5


def advised_of(func, items):
    found = adviser.Adviser.of_call(
        func, items, jobs=None, backend=None, mp_context=None, use_cache=True
    )
    found.recall.look_up()
    return found
