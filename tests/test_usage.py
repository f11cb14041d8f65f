"""What a block of items used: of this process, its threads and children, beside other programs."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from amorsize.measure import usage
from amorsize.measure.probe import Probe
from amorsize.measure.timing import CLAIMED, PROVED, UNKNOWN, Block, Stopwatch, examined
from amorsize.measure.usage import Helpers, Surroundings, surroundings
from tests import programs
from tests.load import busy_loops

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these figures")

QUIET = Surroundings(0.0, {}, 1, True)
SERVER = "for line in open(0): print(sum(range(int(line))), flush=True)"


@contextmanager
def server():
    """Give a child that computes when it is asked to, and waits otherwise."""
    child = subprocess.Popen(
        [sys.executable, "-S", "-u", "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(size):
        child.stdin.write(f"{size}\n")
        child.stdin.flush()
        child.stdout.readline()

    try:
        ask(1)
        yield ask
    finally:
        child.kill()
        child.communicate()


def measured(work, helpers=None):
    """Return the block of a call that is expected to be long and looked like waiting before."""
    watch = Stopwatch(0.1, helpers or Helpers())
    work()
    return watch.block(1)


def test_what_a_living_child_computes_is_no_waiting():
    """Its CPU time is in no clock of this process before it ends."""
    with server() as ask:
        block = measured(lambda: ask(4_000_000))
    assert block.cpu_seconds > 0.6 * block.seconds
    assert block.children > 0.5 * block.seconds


def test_what_a_grandchild_computes_is_no_waiting():
    """A child that waits for its own child is looked through."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-u', '-c', {SERVER!r}])"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        child.stdin.write("1\n")
        child.stdin.flush()
        child.stdout.readline()

        def ask():
            child.stdin.write("4000000\n")
            child.stdin.flush()
            child.stdout.readline()

        block = measured(ask)
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()
    assert block.cpu_seconds > 0.6 * block.seconds


def test_children_that_compute_for_something_else_do_not_count():
    """What is busy while the function does not run is not waited for by it."""
    helpers = Helpers()
    with busy_loops(2):
        for _ in range(2):
            block = measured(lambda: time.sleep(0.1), helpers)
            assert block.children < 0.1 * block.seconds


def test_a_child_that_helps_is_told_from_those_that_do_not():
    """Beside children that are always busy, the one that is asked is seen."""
    helpers = Helpers()
    with server() as ask, busy_loops(1):
        block = measured(lambda: ask(6_000_000), helpers)
    assert block.children > 0.1 * block.seconds


def test_what_other_threads_wait_for_a_cpu_counts():
    """The run queues of all threads are read, not that of the calling one alone."""
    done = threading.Event()

    def compute():
        while not done.is_set():
            pass

    threads = [threading.Thread(target=compute) for _ in range(3)]
    before = surroundings()
    with busy_loops(4):
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        during = surroundings()
        done.set()
        for thread in threads:
            thread.join()
    assert during.queued - before.queued > 0.01
    assert usage.queued_seconds() >= usage.own_queued_seconds()


def test_a_block_that_only_looks_like_waiting_is_unknown():
    """It says nothing of the CPU share, and what is not known counts as computing."""
    probe = Probe()
    watch = probe.watch(1)
    time.sleep(0.01)
    probe.add(watch.block(1))
    assert probe.first.proof == UNKNOWN
    assert probe.tally.cpu_share == 1.0
    watch = probe.watch(1)
    time.sleep(0.01)
    probe.add(watch.block(1))
    assert probe.rest.known_seconds > 0.009
    assert probe.tally.cpu_share < 0.5


def test_waiting_is_proved_only_where_cpus_are_to_spare():
    """Beside other programs, or where not all can be read, it is claimed."""
    idle = Block(1, 1.0, 0.0)
    cases = [
        (QUIET, 2, PROVED),
        (QUIET._replace(runnable=2), 2, CLAIMED),
        (QUIET._replace(runnable=5), 64, PROVED),
        (QUIET._replace(complete=False), 2, CLAIMED),
    ]
    for after, cpus, proof in cases:
        assert examined(idle, QUIET, after, cpus).proof == proof
    loaded = examined(idle, QUIET._replace(runnable=9), QUIET, 2)
    assert (loaded.proof, loaded.cpu_seconds) == (CLAIMED, 0.0)


def test_what_gets_its_share_of_busy_cpus_computes():
    """How long ended children and threads waited for a CPU is not seen: their CPU time says it."""
    busy = QUIET._replace(runnable=8)
    assert examined(Block(1, 1.0, 0.25), busy, busy, 2).cpu_seconds == 1.0
    assert examined(Block(1, 1.0, 0.02), busy, busy, 2).cpu_seconds == 0.02
    assert examined(Block(1, 1.0, 0.25), QUIET, QUIET, 2).cpu_seconds == 0.25


def test_time_in_run_queues_is_no_waiting():
    """It is added to the CPU time, within the time that passed."""
    later = QUIET._replace(queued=0.7)
    assert examined(Block(1, 1.0, 0.1), QUIET, later, 2).cpu_seconds == pytest.approx(0.8)
    assert examined(Block(1, 1.0, 0.1), later, QUIET, 2).cpu_seconds == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("blocks", "waits"),
    [
        ([], False),
        ([Block(1, 0.005, 0.0)], True),
        ([Block(1, 0.005, 0.0, UNKNOWN)], False),
        ([Block(1, 0.005, 0.0, CLAIMED)], False),
        ([Block(1, 0.005, 0.0, CLAIMED), Block(2, 0.01, 0.0)], True),
        ([Block(1, 0.005, 0.002)], False),
        ([Block(1, 0.0005, 0.0)], False),
    ],
)
def test_waiting_is_believed_where_it_is_long_idle_and_proved(blocks, waits):
    """A short wait, a little computing, or other programs leave it to be shown."""
    probe = Probe()
    for block in blocks:
        probe.add(block)
    assert probe.tally.waits == waits


def test_a_warning_about_thread_limits_ends_no_worker(monkeypatch):
    """threadpoolctl warns of mixtures of libraries, also where warnings are errors."""
    import types
    import warnings

    from amorsize.run.setup import Threads

    limits = []

    def threadpool_limits(limits_=None, **given):
        limits.append(given)
        warnings.warn("two kinds of OpenMP are loaded", RuntimeWarning, stacklevel=2)

    stand_in = types.ModuleType("threadpoolctl")
    stand_in.threadpool_limits = threadpool_limits
    monkeypatch.setitem(sys.modules, "threadpoolctl", stand_in)
    pytest.importorskip("numpy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Threads(1, {}, busy=True).limit_loaded()
    assert limits == [{"limits": 1}]


STREAMS = """
import itertools, sqlite3, sys, threading
from amorsize import last_run, smart_map
file = open(sys.argv[1])
base = sqlite3.connect(":memory:")
base.execute("CREATE TABLE seen (x)")
numbers = (x for x in itertools.count())
def wait(): threading.Event().wait(0.01)
def read(x): wait(); return int(file.readline())
def keep(x): wait(); return base.execute("INSERT INTO seen VALUES (?)", (x,)).lastrowid
def take(x): wait(); return next(numbers)
def captured():
    mine = open(sys.argv[1])
    def read_mine(x): wait(); return int(mine.readline())
    return read_mine
def logs(x): wait(); log.info("%d", x); return x
import logging
logging.basicConfig(filename=sys.argv[1] + ".log", level=logging.INFO)
log = logging.getLogger("mine")
for work in (read, captured(), take):
    print(smart_map(work, range(100)) == list(range(100)), last_run().worker_items)
print(smart_map(keep, range(100)) == list(range(1, 101)), last_run().worker_items)
print("open file" in last_run().reason or "Connection" in last_run().reason)
smart_map(logs, range(100))
print(last_run().worker_items > 0)
"""


def test_a_function_with_a_stream_stays_in_the_caller(tmp_path):
    """Files, connections and generators have a place that a forked worker would move, or copy."""
    path = tmp_path / "numbers"
    path.write_text("".join(f"{x}\n" for x in range(100)))
    ended = programs.run("-c", STREAMS, path)
    assert ended.out == "True 0\nTrue 0\nTrue 0\nTrue 0\nTrue\nTrue\n", ended.err
