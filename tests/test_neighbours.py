"""Good neighbours: threads inside workers, what they print, random numbers, who computes what."""

import os
import time
from functools import partial

import pytest

from amorsize import TaskTimeoutError, smart_map
from amorsize.measure.machine import oom_kills, usable_cpus
from amorsize.run import processes, worker
from tests import functions as f
from tests import programs

METHODS = ["fork", "spawn", "forkserver"]


def thread_settings(_):
    import numpy  # noqa: F401 - loads the library the settings are about
    from threadpoolctl import threadpool_info

    return os.environ.get("OMP_NUM_THREADS"), {lib["num_threads"] for lib in threadpool_info()}


@pytest.fixture
def no_settings(monkeypatch):
    """Unset what a user may have set."""
    for name in list(os.environ):
        if name.endswith("_NUM_THREADS"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize("method", METHODS)
def test_numerical_libraries_get_their_share_of_the_cpus(method):
    """Two workers on n CPUs have n/2 threads each, if they load the library themselves."""
    pytest.importorskip("numpy")
    share = max(1, usable_cpus() // 2)
    got = smart_map(thread_settings, range(4), n_jobs=2, mp_context=method)
    assert [said for said, _ in got] == [str(share)] * 4
    if method != "fork":
        assert all(max(counts, default=1) <= share for _, counts in got)


@pytest.mark.usefixtures("no_settings")
def test_loaded_numerical_libraries_are_limited_where_items_use_more_than_one_cpu():
    """A forked worker tells the library it has inherited."""
    pytest.importorskip("numpy")
    got = smart_map(
        thread_settings,
        range(2),
        n_jobs=2,
        mp_context="fork",
        initializer=worker.Threads.shared(1, busy=True).apply,
    )
    assert got == [("1", {1})] * 2


@pytest.mark.parametrize("method", METHODS)
def test_the_users_own_thread_settings_are_respected(method, monkeypatch):
    """Whoever has set one variable has thought about it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    got = smart_map(environment, range(2), n_jobs=2, mp_context=method)
    assert got == [("5", None)] * 2


def environment(_):
    return os.environ.get("OMP_NUM_THREADS"), os.environ.get("OPENBLAS_NUM_THREADS")


@pytest.mark.parametrize("method", METHODS)
def test_what_workers_log_and_print_arrives_whole(tmp_path, method):
    """Lines of several workers do not mix, and none waits for its worker's end."""
    source = f"""
import logging, sys, warnings
from amorsize import TaskTimeoutError, smart_map
warnings.simplefilter("default")
def talk(x):
    logging.warning("log %d %s", x, "l" * 200)
    warnings.warn(f"warning {{x}} " + "w" * 200)
    sys.stdout.write(f"print {{x}} " + "p" * 200 + chr(10))
    return x
if __name__ == "__main__":
    smart_map(talk, range(200), n_jobs=2, mp_context={method!r}, chunksize=5)
    print("over", flush=True)
"""
    ended = programs.run_source(source, tmp_path)
    said = ended.out.splitlines()
    assert sorted(said[:-1]) == sorted(f"print {x} {'p' * 200}" for x in range(200))
    assert said[-1] == "over"
    for x in range(200):
        assert ended.err.count(f"WARNING:root:log {x} {'l' * 200}\n") == 1
        assert ended.err.count(f"UserWarning: warning {x} {'w' * 200}\n") == 1


def busy(seconds):
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        pass


class SlowToPickle:
    """A result that takes far longer to send than to make."""

    def __init__(self, x):
        self.x = x

    def __reduce__(self):
        busy(0.001)
        return SlowToPickle, (self.x,)

    def __eq__(self, other):
        return self.x == other.x

    __hash__ = None


def dear_then_slow_to_pickle(x):
    if x < 40:
        busy(0.005)
        return x
    return SlowToPickle(x)


def test_the_caller_takes_over_when_workers_are_slower_than_it():
    """First items that promise much for workers, then results nobody should send."""
    reports = []
    got = smart_map(dear_then_slow_to_pickle, range(4_000), report=reports.append)
    assert got == list(map(dear_then_slow_to_pickle, range(4_000)))
    assert reports[0].worker_items > 0
    assert reports[0].caller_items > 1_000


class VerySlowToPickle(SlowToPickle):
    """A result that takes ten times as long to send as to make."""

    def __reduce__(self):
        busy(0.01)
        return VerySlowToPickle, (self.x,)


def slow_to_pickle_for_a_while(x):
    busy(0.005 if x < 40 else 0.001)
    return VerySlowToPickle(x) if 40 <= x < 400 else x


def test_workers_get_another_chance_after_the_caller_took_over():
    """What made them slow may be over, like another program's work."""
    reports = []
    smart_map(slow_to_pickle_for_a_while, range(2_500), chunksize=5, report=reports.append)
    spans = reports[0].timeline
    own = sum(span.items for span in spans if not span.worker and 40 <= span.start < 400)
    assert own > 240, "the caller did not take over"
    assert any(span.worker and span.start > 1_000 for span in spans)


def test_a_time_limit_holds_for_the_caller_that_took_over():
    """What is left does not run on beyond timeout."""
    with pytest.raises(TaskTimeoutError, match="timeout=1 s"):
        smart_map(dear_slow_to_pickle_then_long, range(100_000), timeout=1)


def dear_slow_to_pickle_then_long(x):
    if x > 1_000:
        busy(0.001)
    return dear_then_slow_to_pickle(x)


def test_fewer_workers_go_on_after_a_death_for_want_of_memory(tmp_path, monkeypatch):
    """The kernel's counter of such deaths tells."""
    counts = iter([7] + [8] * 100)  # it rose after the first crew was started
    monkeypatch.setattr(processes, "oom_kills", lambda: next(counts))
    reports = []
    got = smart_map(
        partial(f.killed_once, str(tmp_path / "died")),
        range(12),
        n_jobs=4,
        mp_context="fork",
        chunksize=1,
        report=reports.append,
    )
    assert got == list(range(12))
    assert reports[0].n_jobs == 2
    assert reports[0].retried > 0


def test_deaths_for_want_of_memory_are_counted(tmp_path):
    """Those of the machine and of the process's own group, old and new groups alike."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 3\n")
    assert oom_kills(str(tmp_path)) == 3
    group = tmp_path / "sys/fs/cgroup/job"
    group.mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
    (group / "memory.events").write_text("low 0\noom 2\noom_kill 2\n")
    assert oom_kills(str(tmp_path)) == 5
