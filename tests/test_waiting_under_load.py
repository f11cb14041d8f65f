"""What computes is not taken for waiting, whatever else is at work: real load, real processes."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from amorsize import smart_map
from amorsize.measure.machine import usable_cpus
from tests import programs
from tests.load import busy_loops

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these figures")


def count_to(size):
    total = 0
    for number in range(size):
        total += number
    return total


def compute_for_long(_):
    return count_to(60_000)


def compute_for_short(_):
    return count_to(10_000)


def compute_and_wait(_):
    count_to(20_000)
    time.sleep(0.0005)
    return count_to(20_000)


def compute_in_a_child(_):
    code = "sum(range(500_000))"
    return subprocess.run([sys.executable, "-S", "-c", code], check=True).returncode


def compute_in_a_thread(_):
    thread = threading.Thread(target=count_to, args=(60_000,))
    thread.start()
    thread.join()


KINDS = {
    "3 ms": (compute_for_long, 150),
    "0.5 ms": (compute_for_short, 600),
    "with a wait in between": (compute_and_wait, 150),
    "in a child that ends": (compute_in_a_child, 30),
    "in a thread that ends": (compute_in_a_thread, 150),
}


def workers_used(func, items):
    """Return the most workers that one of three calls had, and the reports."""
    reports = []
    for _ in range(3):
        smart_map(func, range(items), report=reports.append)
    return max(max(report.n_jobs, len(report.workers)) for report in reports), reports


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loops", [0, 4])
def test_what_computes_gets_no_more_workers_than_cpus(kind, loops):
    """Nor in later calls, by what the first ones remembered."""
    with busy_loops(loops):
        used, reports = workers_used(*KINDS[kind])
    assert used <= usable_cpus(), reports


@contextmanager
def spinning():
    """Have another thread of this process compute."""
    done = threading.Event()

    def spin():
        while not done.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_what_computes_beside_a_spinning_thread_gets_no_more_workers_than_cpus():
    """It waits for the interpreter's lock, which is no reason for more processes."""
    with spinning(), busy_loops(2):
        used, reports = workers_used(compute_for_long, 60)
    assert used <= usable_cpus(), reports


HELPED = """
import subprocess, sys
from amorsize import smart_map
from amorsize.measure.machine import usable_cpus

server = subprocess.Popen(
    [sys.executable, "-S", "-u", "-c", "for line in open(0): print(sum(range(400_000)))"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE)

def ask(x):
    server.stdin.write(b"x\\n")
    server.stdin.flush()
    return int(server.stdout.readline())

reports = []
for _ in range(3):
    assert smart_map(ask, range(60), report=reports.append) == [sum(range(400_000))] * 60
server.stdin.close()
server.wait()
print(*(report.worker_items for report in reports))
print(reports[0].reason)
"""


@pytest.mark.parametrize("loops", [0, 4])
def test_what_is_computed_by_a_child_that_stays_is_left_to_the_caller(tmp_path, loops):
    """A server of the caller's can answer the caller alone: workers would share its pipe."""
    with busy_loops(loops):
        ended = programs.run_source(HELPED, tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [
        "0 0 0",
        "the function has processes of its own that work for it",
    ]


JOBLIB = """
import warnings
warnings.simplefilter("ignore")
from amorsize import smart_map
from amorsize.measure.machine import usable_cpus
from joblib import parallel_config
from sklearn.ensemble import RandomForestClassifier

def fit(seed):
    X, y = [[i % 7, i % 3] for i in range(60)], [i % 2 for i in range(60)]
    with parallel_config(backend="loky"):
        forest = RandomForestClassifier(n_estimators=8, n_jobs=2, random_state=seed)
        return float(forest.fit(X, y).score(X, y))

reports = []
for _ in range(2):
    smart_map(fit, range(12), report=reports.append)
print(max(max(report.n_jobs, len(report.workers)) for report in reports) <= usable_cpus())
"""


@pytest.mark.parametrize("loops", [0, 4])
def test_a_forest_with_jobs_of_its_own_gets_no_more_workers_than_cpus(tmp_path, loops):
    """scikit-learn's processes stay alive, and the caller waits for them."""
    pytest.importorskip("sklearn")
    with busy_loops(loops):
        ended = programs.run_source(JOBLIB, tmp_path, deadline=110)
    assert ended.code == 0, ended.err
    assert ended.out.split() == ["True"]


def wait(_):
    time.sleep(0.005)


@pytest.mark.parametrize("loops", [0, 4])
def test_what_waits_is_known_to_wait(loops):
    """Also beside other programs; its CPU share is small, so that more workers may show it."""
    reports = []
    with busy_loops(loops):
        smart_map(wait, range(400), report=reports.append)
    assert reports[0].profile.cpu_share < 0.5
