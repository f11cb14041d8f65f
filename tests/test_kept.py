"""Kept workers: used again where that is safe, never stale, gone in the end."""

import functools
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time

import psutil
import pytest

from amorsize import smart_map
from amorsize.call import adviser, costs
from amorsize.measure.machine import ASKED
from amorsize.run import kept, shared
from tests import changing, programs, slow_import
from tests.functions import imports_late

LASTING = ["spawn", "forkserver"]


def pids(method, n_jobs=2):
    # Slow enough that both workers get some.
    return set(
        smart_map(changing.slow_pid, range(40), n_jobs=n_jobs, mp_context=method, chunksize=1)
    )


def same_as_map(func, method="spawn", items=range(4)):
    """Check the law: the workers give what ``map`` gives here."""
    got = smart_map(func, items, n_jobs=2, mp_context=method, chunksize=1)
    assert got == list(map(func, items))


def is_dead(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("method", LASTING)
def test_workers_serve_the_next_call(method):
    """A second call starts no worker."""
    first = pids(method)
    while len(first) < 2:  # a call may be over before its second worker is up
        first |= pids(method)
    assert pids(method) <= first
    assert smart_map(abs, range(-3, 3), n_jobs=2, mp_context=method) == [3, 2, 1, 0, 1, 2]


def test_what_fresh_workers_must_import_is_remembered_of_the_function():
    """Another function's forecast must not pay for it."""
    reports = []
    kept.end_all()
    smart_map(slow_import.double, range(40), n_jobs=2, mp_context="spawn", report=reports.append)
    assert reports[0].profile.import_seconds > 0.8 * slow_import.IMPORT_SECONDS
    assert costs.machine_costs().spawn.latency < slow_import.IMPORT_SECONDS
    smart_map(slow_import.double, range(40), n_jobs=2, mp_context="spawn", report=reports.append)
    assert reports[1].profile.import_seconds > 0.8 * slow_import.IMPORT_SECONDS


@pytest.mark.parametrize("method", LASTING)
def test_globals_have_the_callers_current_values(method, monkeypatch):
    """Changed values of the user's modules and classes count in workers, fresh and kept."""
    monkeypatch.setattr(changing, "SCALE", 10)
    for plus in (1, 2):
        monkeypatch.setitem(changing.TABLE, "plus", plus)
        monkeypatch.setattr(changing.Config, "shift", 100 * plus)
        expected = list(map(changing.compute, range(4)))
        assert smart_map(changing.compute, range(4), n_jobs=2, mp_context=method) == expected


def test_globals_are_current_for_an_initializer_too(monkeypatch):
    """Workers with an initializer are started for the call, and get the same values."""
    monkeypatch.setattr(changing, "SCALE", 7)
    got = smart_map(
        changing.compute, range(4), n_jobs=2, mp_context="spawn", initializer=time.monotonic
    )
    assert got == [0, 7, 14, 21]


@pytest.mark.parametrize("method", LASTING)
def test_a_reloaded_module_counts(method, tmp_path, monkeypatch):
    """Workers that imported a module are not asked again once its code has changed."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "edited_module.py"
    path.write_text("def work(x):\n    return x + 1\n")
    module = importlib.import_module("edited_module")
    try:
        assert smart_map(module.work, range(3), n_jobs=2, mp_context=method) == [1, 2, 3]
        path.write_text("def work(x):\n    return x + 100\n")
        importlib.invalidate_caches()
        importlib.reload(module)
        assert smart_map(module.work, range(3), n_jobs=2, mp_context=method) == [100, 101, 102]
    finally:
        del sys.modules["edited_module"]


@pytest.mark.parametrize("change", ["environment", "folder", "path"])
def test_changed_surroundings_count(change, monkeypatch, tmp_path):
    """Workers are not used again when the caller's environment, folder or path has changed."""
    first = pids("spawn")
    if change == "environment":
        monkeypatch.setenv("TOLD_LATER", "yes")
    elif change == "folder":
        monkeypatch.chdir(tmp_path)
    else:
        monkeypatch.syspath_prepend(tmp_path)
    assert not first & pids("spawn")


class TestTheCallersState:
    """What workers have imported must behave as what the caller has now, call after call."""

    @pytest.mark.parametrize("method", LASTING)
    def test_objects_stay_themselves(self, method):
        """A default that is compared by identity is still the module's own."""
        same_as_map(changing.or_nothing, method)
        assert changing.or_nothing(1) == (True, True)

    def test_two_names_of_one_list_stay_one_list(self, monkeypatch):
        """Also when its content has changed, or the list itself."""
        same_as_map(changing.limits)
        changing.LIMITS.append(4)
        try:
            same_as_map(changing.limits)
        finally:
            changing.LIMITS.pop()
        other = [7]
        monkeypatch.setattr(changing, "LIMITS", other)
        monkeypatch.setattr(changing, "SAME_LIMITS", other)
        same_as_map(changing.limits)
        assert changing.limits(0) == ([7, 0], True)

    def test_a_replaced_function_counts_until_it_is_put_back(self, monkeypatch):
        """Another function under its name, for one call and not for the next."""
        same_as_map(changing.stepped)
        with monkeypatch.context() as patch:
            patch.setattr(changing, "step", lambda x: x + 100)
            same_as_map(changing.stepped)
        same_as_map(changing.stepped)

    def test_a_wrapped_function_counts_until_it_is_put_back(self, monkeypatch):
        """Also where the wrapper bears the name of what it wraps."""
        same_as_map(changing.calls_wrapped)
        original = changing.wrapped

        @functools.wraps(original)
        def tripled(x):
            return 3 * original(x)

        with monkeypatch.context() as patch:
            patch.setattr(changing, "wrapped", tripled)
            same_as_map(changing.calls_wrapped)
        same_as_map(changing.calls_wrapped)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("side", property(lambda self: 2)),
            ("scale", staticmethod(lambda x: 10 * x)),
            ("name", classmethod(lambda cls: cls.__name__.lower())),
            ("__len__", lambda self: 5),
        ],
    )
    def test_patched_methods_of_every_kind_count(self, name, value, monkeypatch):
        """For one call and not for the next."""
        with monkeypatch.context() as patch:
            patch.setattr(changing.Shape, name, value)
            same_as_map(changing.shape)
        same_as_map(changing.shape)

    def test_a_deleted_global_is_gone(self, monkeypatch):
        """And there again when it is set again."""
        with monkeypatch.context() as patch:
            patch.delattr(changing, "OPTIONAL")
            same_as_map(changing.optional)
            assert changing.optional(0) == "gone"
        same_as_map(changing.optional)

    def test_kept_results_are_forgotten(self, monkeypatch):
        """A worker's lru_cache may hold what was true in another call."""
        same_as_map(changing.remembers)
        monkeypatch.setattr(changing, "FACTOR", 1_000)
        changing.remembered.cache_clear()
        try:
            same_as_map(changing.remembers)
        finally:
            changing.remembered.cache_clear()

    def test_what_is_imported_late_counts(self, monkeypatch):
        """Globals of modules that the function imports as it runs."""
        monkeypatch.setattr(changing, "FACTOR", 7)
        monkeypatch.setattr(changing, "OPTIONAL", "other")
        same_as_map(imports_late)
        assert imports_late(2) == (14, "other")

    def test_changed_defaults_count(self, monkeypatch):
        """Of a function that travels by name."""
        monkeypatch.setattr(changing.with_default, "__defaults__", (50,))
        same_as_map(changing.with_default)
        assert changing.with_default(1) == 51

    def test_the_environment_is_the_callers(self, monkeypatch):
        """A fork server has that of when it was started; its workers have the caller's."""
        same_as_map(changing.environment, "forkserver", ["PATH"])
        monkeypatch.setenv("AMORSIZE_TEST_TOLD_LATER", "yes")
        monkeypatch.delenv("PATH")
        names = ["AMORSIZE_TEST_TOLD_LATER", "PATH"]
        same_as_map(changing.environment, "forkserver", names)
        got = smart_map(
            changing.environment,
            names,
            n_jobs=2,
            mp_context="forkserver",
            initializer=time.monotonic,
        )
        assert got == ["yes", None]


@pytest.mark.parametrize("method", LASTING)
def test_a_module_reloaded_before_its_function_is_used_counts(method, tmp_path, monkeypatch):
    """Workers may have imported it for another function's sake."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "two_functions.py"
    source = "def first(x):\n    return x\ndef second(x):\n    return x + {}\n"
    path.write_text(source.format(1))
    module = importlib.import_module("two_functions")
    try:
        same_as_map(module.first, method)
        path.write_text(source.format(100))
        importlib.invalidate_caches()
        importlib.reload(module)
        same_as_map(module.second, method)
        assert module.second(0) == 100
    finally:
        del sys.modules["two_functions"]


@pytest.mark.parametrize("room", ["none", "too little"])
def test_without_shared_memory_one_crew_serves_a_call(room, monkeypatch, tmp_path):
    """Small calls travel by the pipe to kept workers, large ones with the start of others."""
    if room == "none":
        monkeypatch.setattr(shared, "shared_folder", lambda: "")
    else:
        monkeypatch.setattr(shared, "write", lambda prefix, parts: "")
    same_as_map(changing.compute)
    assert kept.idle_workers("spawn") == (2,)
    reports = []
    table = bytes(100_000)
    got = smart_map(
        lambda x: (len(table), os.getpid()),
        range(40),
        n_jobs=2,
        mp_context="spawn",
        report=reports.append,
    )
    assert {length for length, _ in got} == {100_000}
    assert set(reports[0].workers) >= {pid for _, pid in got}
    assert len(reports[0].workers) <= 2


def test_a_forked_child_leaves_the_parents_workers_alone(tmp_path):
    """A child that ends with an unfinished imap in its memory ends nothing of its parent's."""
    source = """
import os
from amorsize import smart_imap
def work(x):
    return x
if __name__ == "__main__":
    results = smart_imap(
        work, range(2_000), n_jobs=2, mp_context="spawn", chunksize=1, retries=0
    )
    first = next(results)
    child = os.fork()
    if child == 0:
        del results
        raise SystemExit(0)
    _, status = os.waitpid(child, 0)
    print(status, [first, *results] == list(range(2_000)), flush=True)
"""
    ended = programs.run_source(source, tmp_path, PYTHONWARNINGS="ignore::DeprecationWarning")
    assert (ended.code, ended.out) == (0, "0 True\n"), ended.err


def test_forks_beside_threads_that_use_kept_workers(tmp_path):
    """Forking ends promptly whatever other threads give back meanwhile, and children can work."""
    source = """
import os, threading
from amorsize import smart_map
from amorsize.run import kept
def work(x):
    return x
def use():
    for _ in range(20):
        assert smart_map(work, range(20), n_jobs=2, mp_context="spawn") == list(range(20))
if __name__ == "__main__":
    thread = threading.Thread(target=use)
    thread.start()
    forks = 0
    while thread.is_alive():
        child = os.fork()
        if child == 0:
            ok = kept.idle_workers("spawn") == ()
            os._exit(0 if ok else 1)
        assert os.waitpid(child, 0)[1] == 0
        forks += 1
    thread.join()
    print("done", forks > 5)
"""
    ended = programs.run_source(
        source, tmp_path, deadline=100, PYTHONWARNINGS="ignore::DeprecationWarning"
    )
    assert (ended.code, ended.out) == (0, "done True\n"), ended.err


def test_a_function_is_pickled_once_a_call():
    """However many chunks and workers there are."""
    before = changing.Counted.pickled
    xs = list(range(50))
    assert smart_map(changing.Counted(), xs, n_jobs=2, mp_context="spawn", chunksize=1) == xs
    assert changing.Counted.pickled == before + 1


def test_large_captured_arrays_are_the_workers_own():
    """What workers write into captured data is seen by nobody else, nor in the next call."""
    numpy = pytest.importorskip("numpy")
    table = numpy.zeros(1_000_000)

    def count(x):
        table[0] += 1
        return bool(table[0] >= 1), float(table[1])

    for _ in range(2):
        got = smart_map(count, range(8), n_jobs=2, mp_context="spawn", chunksize=8)
        assert got == [(True, 0.0)] * 8
    assert table[0] == 0


@pytest.mark.parametrize("method", LASTING)
def test_a_worker_killed_while_it_waits_is_replaced(method):
    """The next call notices before it hands out anything."""
    first = pids(method)
    for pid in first:
        os.kill(pid, signal.SIGKILL)
        while not is_dead(pid):
            time.sleep(0.001)
    reports = []
    got = smart_map(changing.compute, range(4), n_jobs=2, mp_context=method, report=reports.append)
    assert (got, reports[0].retried) == ([0, 1, 2, 3], 0)


def test_workers_that_wait_are_ended_after_a_while(monkeypatch):
    """The idle limit: processes and threads go."""
    monkeypatch.setattr(kept, "IDLE_SECONDS", 0.05)
    smart_map(abs, range(3), n_jobs=2, mp_context="spawn")
    (watcher,) = kept._watchers
    watcher.join(30)
    assert not watcher.is_alive()
    assert kept.idle_workers("spawn") == ()


def test_only_a_few_crews_are_kept():
    """Another number of workers is another crew; the oldest goes."""
    for n_jobs in (2, 3, 2, 4):
        assert smart_map(abs, range(8), n_jobs=n_jobs, mp_context="forkserver") == [*range(8)]
    assert kept.idle_workers("forkserver") == (2, 4)


def test_two_threads_have_crews_of_their_own():
    """A crew serves one call at a time."""
    got = {}

    def run(k):
        got[k] = smart_map(changing.compute, range(k), n_jobs=2, mp_context="forkserver")

    threads = [threading.Thread(target=run, args=(k,)) for k in (5, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == {5: list(range(5)), 50: list(range(50))}


def test_a_fork_finds_no_idle_threads():
    """Kept workers are watched by a thread, which is not there while the process is forked."""
    smart_map(abs, range(3), n_jobs=2, mp_context="spawn")
    (before,) = kept._watchers
    smart_map(abs, range(3), n_jobs=2, mp_context="fork")
    (after,) = kept._watchers
    assert not before.is_alive()
    assert after.is_alive()
    assert kept.idle_workers("spawn") == (2,)


def test_a_failed_call_keeps_nothing():
    """Workers that were busy when a call failed are ended, and the next call is right."""
    with pytest.raises(ZeroDivisionError):
        smart_map((1).__truediv__, [1, 0, 2, 3], n_jobs=2, mp_context="spawn", chunksize=1)
    assert kept.idle_workers("spawn") == ()
    assert smart_map(abs, [-1, 1], n_jobs=2, mp_context="spawn") == [1, 1]


@pytest.mark.parametrize("method", LASTING)
def test_the_exit_is_clean(tmp_path, method):
    """Kept workers end with the program, also a forked child of it, without a word."""
    source = f"""
import os
from amorsize import smart_map
def double(x):
    return 2 * x
if __name__ == "__main__":
    print(smart_map(double, range(3), n_jobs=2, mp_context={method!r}), flush=True)
    child = os.fork()
    if child == 0:
        print(smart_map(double, range(4), n_jobs=2, mp_context={method!r}), flush=True)
    else:
        os.waitpid(child, 0)
        print(smart_map(double, range(5), n_jobs=2, mp_context={method!r}), flush=True)
"""
    # The program's own fork beside the threads of kept workers is warned of since Python 3.12.
    quiet = "default::ResourceWarning,ignore::DeprecationWarning"
    ended = programs.run_source(source, tmp_path, PYTHONWARNINGS=quiet)
    assert ended.out == "[0, 2, 4]\n[0, 2, 4, 6]\n[0, 2, 4, 6, 8]\n", ended.err
    assert (ended.code, ended.err) == (0, "")


def test_workers_of_a_killed_caller_end_while_they_wait(tmp_path):
    """No orphan stays when the caller is killed between two calls."""
    source = """
import time
from amorsize import smart_map
if __name__ == "__main__":
    smart_map(abs, range(3), n_jobs=2, mp_context="spawn")
    print("waiting", flush=True)
    time.sleep(600)
"""
    path = tmp_path / "program.py"
    path.write_text(source)
    with programs.started(path) as process:
        assert process.stdout.readline() == "waiting\n"
        process.kill()
        process.wait()
        assert programs.wait_for_group(process.pid, 20)


def busy(x):
    end = time.process_time() + 0.002
    while time.process_time() < end:
        pass
    return x


def test_objects_that_raise_when_looked_at_do_no_harm(monkeypatch):
    """A function that uses one runs in kept workers like any other, with its other values."""
    moody = changing.MOODY
    got = smart_map(lambda x: (x, type(moody).__name__), [1, 2], n_jobs=2, mp_context="spawn")
    assert got == [(1, "Moody"), (2, "Moody")]
    monkeypatch.setattr(changing, "AFTER_MOODY", "as it is now")
    same_as_map(changing.uses_moody, "spawn")


class Interrupts:
    """A callable whose pickling is interrupted by Ctrl-C."""

    def __call__(self, x):
        return x

    def __reduce__(self):
        raise KeyboardInterrupt


def test_ctrl_c_while_the_function_is_pickled_leaves_no_worker():
    """The crew that was to run it ends."""
    with pytest.raises(KeyboardInterrupt):
        smart_map(Interrupts(), range(3), n_jobs=2, mp_context="spawn")
    assert not multiprocessing.active_children()
    assert kept.idle_workers("spawn") == ()


class TestLargeCaller:
    """Forking a process of many GB takes so long that kept workers are better, if they can be."""

    @pytest.fixture(autouse=True)
    def large(self, monkeypatch):
        monkeypatch.setattr(adviser, "resident_bytes", lambda: 8_000_000_000)
        monkeypatch.setattr(adviser, "choose_start_method", self.choose)
        # On a busy machine items seem to wait, and more workers would follow at the next call.
        monkeypatch.setenv("AMORSIZE_N_JOBS", "2")

    @staticmethod
    def choose(asked, about_to=True):
        """Choose as where fork is the default."""
        return (asked, ASKED) if asked else ("fork", "the interpreter's default")

    def report_of(self, func, **options):
        reports = []
        assert smart_map(func, range(400), report=reports.append, **options) == [*range(400)]
        return reports[0]

    def test_light_work_goes_to_kept_workers(self):
        """The report says why, and the next call finds both the record and the workers."""
        first = self.report_of(busy)
        assert (first.backend, first.start_method) == ("process", "forkserver")
        assert "8.0 GB" in first.start_reason
        second = self.report_of(busy)
        assert (second.start_method, second.cache_hit) == ("forkserver", True)
        assert set(second.workers) & set(first.workers)

    def test_an_explicit_choice_wins(self):
        """Whoever asks for fork gets it."""
        assert self.report_of(busy, mp_context="fork").start_method in ("fork", "")

    def test_heavy_work_is_inherited(self):
        """What would have to be sent is looked at, and no further than needed."""
        table = bytes(10_000_000)

        def heavy(x):
            return busy(x) + table[x]

        assert self.report_of(heavy).start_method in ("fork", "")
