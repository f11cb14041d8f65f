"""What the machine allows, read from made-up trees and from the real one."""

import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest

from amorsize.measure import machine as m

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
MEMINFO = "MemTotal:  8000000 kB\nMemFree: 1 kB\nMemAvailable:  4000000 kB\n"


def tree(root, **files):
    """Write files below root; names use '__' for '/' and '_DOT_' for '.'."""
    for name, text in {"proc__meminfo": MEMINFO, **files}.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_without_limits_the_affinity_counts(tmp_path):
    """No quota: as many CPUs as the affinity mask has."""
    read = m.read_machine(tree(tmp_path))
    assert (read.cpus, "affinity" in read.reason) == (CPUS, True)


@pytest.mark.parametrize(("quota", "cpus"), [("50000 100000", 1), ("100000 100000", 1)])
def test_a_quota_of_an_ancestor_binds_v2(tmp_path, quota, cpus):
    """The tightest cpu.max along the path counts, rounded up, also that of a parent group."""
    root = tree(
        tmp_path,
        proc__self__cgroup="0::/a/b\n",
        sys__fs__cgroup__cgroup_DOT_controllers="cpu memory",
        sys__fs__cgroup__a__cpu_DOT_max=quota,
        sys__fs__cgroup__a__b__cpu_DOT_max="max 100000",
    )
    read = m.read_machine(root)
    assert read.cpus == cpus
    assert "quota" in read.reason or CPUS == 1


def test_a_quota_v1(tmp_path):
    """cfs quota over period counts under cgroup v1."""
    root = tree(
        tmp_path,
        proc__self__cgroup="3:cpu:/x\n2:memory:/x\n",
        sys__fs__cgroup__cpu__x__cpu_DOT_cfs_quota_us="20000",
        sys__fs__cgroup__cpu__x__cpu_DOT_cfs_period_us="100000",
    )
    assert m.read_machine(root).cpus == 1


def test_memory_limits_bind_v2(tmp_path):
    """memory.max of any ancestor limits, memory.high too, and reclaimable cache is not used."""
    root = tree(
        tmp_path,
        proc__self__cgroup="0::/a/b\n",
        sys__fs__cgroup__cgroup_DOT_controllers="memory",
        sys__fs__cgroup__a__memory_DOT_max="1000000",
        sys__fs__cgroup__a__memory_DOT_current="900000",
        sys__fs__cgroup__a__memory_DOT_stat="anon 1\ninactive_file 300000\n",
        sys__fs__cgroup__a__b__memory_DOT_max="max",
        sys__fs__cgroup__a__b__memory_DOT_high="2000000",
        sys__fs__cgroup__a__b__memory_DOT_current="1900000",
    )
    assert m.read_machine(root).memory_bytes == 1_000_000
    assert m.free_memory(root) == 100_000


def test_free_memory_without_groups_is_what_is_available(tmp_path):
    """MemAvailable counts where no group limits."""
    assert m.free_memory(tree(tmp_path)) == 4_000_000 * 1024


def test_python_cpu_count_counts(tmp_path, monkeypatch):
    """PYTHON_CPU_COUNT lowers the count; nonsense in it is nobody's limit."""
    monkeypatch.setenv("PYTHON_CPU_COUNT", "1")
    assert m.read_machine(tree(tmp_path)).cpus == 1
    monkeypatch.setenv("PYTHON_CPU_COUNT", "default")
    assert m.read_machine(tree(tmp_path)).cpus == CPUS


def test_cores_are_counted_by_their_siblings(tmp_path):
    """Two CPUs that share a core count as one core."""
    files = {
        f"sys__devices__system__cpu__cpu{cpu}__topology__thread_siblings_list": "all"
        for cpu in os.sched_getaffinity(0)
    }
    assert m.read_machine(tree(tmp_path, **files)).cores == 1


@pytest.mark.skipif(CPUS < 2, reason="needs two CPUs to take one away")
def test_taskset_is_seen():
    """A process bound to one CPU sees one."""
    cpu = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{cpu}}}); "
        "from amorsize.measure.machine import this_machine; print(this_machine().cpus)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "1"


@pytest.mark.skipif(shutil.which("taskset") is None, reason="there is no taskset here")
def test_a_call_under_taskset_stays_serial_and_says_why(tmp_path):
    """One CPU: nothing is gained by workers, and the reason for one CPU is told."""
    source = """
from amorsize import smart_map
def work(x):
    return sum(range(20_000)) + x
reports = []
smart_map(work, range(100), report=reports.append)
print(reports[0].backend)
print(reports[0].explain())
"""
    path = tmp_path / "program.py"
    path.write_text(source)
    done = subprocess.run(
        ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("serial\n")
    assert "1 usable CPU (CPUs of the affinity mask)" in done.stdout


def test_resident_memory_is_read():
    """This process has a resident size that makes sense."""
    assert 1e6 < m.resident_bytes() < 1e12


def test_an_explicit_start_method_always_wins():
    """A name or a context given by the caller is taken as it is."""
    assert m.choose_start_method("spawn")[0] == "spawn"
    assert m.choose_start_method(multiprocessing.get_context("forkserver"))[0] == "forkserver"


@pytest.mark.skipif(sys.platform != "linux", reason="fork is for Linux alone")
def test_fork_is_left_alone_while_another_thread_may_hold_a_lock():
    """It is taken on every Python version unless a thread makes it unsafe, which is told."""
    if m.choose_start_method(None)[0] != "fork":
        pytest.skip("another test has loaded a library whose threads no fork survives")
    ready, done, lock = threading.Event(), threading.Event(), threading.Lock()

    def hold():
        with lock:
            ready.set()
            done.wait()

    thread = threading.Thread(target=hold, name="other")
    thread.start()
    try:
        assert ready.wait(10)
        method, why = m.choose_start_method(None)
        assert (method, "other" in why) == ("forkserver", True)
    finally:
        done.set()
        thread.join()


def test_the_default_start_method_is_known_without_multiprocessing():
    """The guess made before multiprocessing is imported is what multiprocessing says."""
    code = (
        "import sys; from amorsize.measure.machine import default_start_method as d; a = d(); "
        "assert 'multiprocessing' not in sys.modules; import multiprocessing; "
        "assert a == multiprocessing.get_start_method(), a"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


@pytest.fixture
def real_group():
    """Make a control group of our own with half a CPU, where the machine lets us; return it."""
    name = f"amorsize-test-{os.getpid()}"
    for base, quota in (
        ("/sys/fs/cgroup/cpu", ("cpu.cfs_quota_us", "50000")),
        ("/sys/fs/cgroup", ("cpu.max", "50000 100000")),
    ):
        folder = pathlib.Path(base, name)
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / quota[0]).write_text(quota[1])
        except OSError:
            folder.rmdir()
            continue
        yield folder
        folder.rmdir()
        return
    pytest.skip("this machine lets nobody here make control groups with a CPU quota")


def test_a_real_quota_is_seen(real_group):
    """A process in a group with half a CPU may use one, and says why."""
    source = (
        "import os, sys\n"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from amorsize.measure.machine import read_machine\n"
        "print(read_machine())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, str(real_group)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("1 usable CPU (")
    assert "quota of 0.5" in done.stdout or CPUS == 1


def test_the_reason_for_the_memory_is_told(tmp_path):
    """The machine's, or a group's limit."""
    assert m.read_machine(tree(tmp_path / "a")).memory_reason == "of the machine"
    root = tree(
        tmp_path / "b",
        proc__self__cgroup="0::/a\n",
        sys__fs__cgroup__cgroup_DOT_controllers="memory",
        sys__fs__cgroup__a__memory_DOT_max="1000000",
    )
    assert m.read_machine(root).memory_reason == "a cgroup limit"


def test_windows_most_workers_bind(tmp_path, monkeypatch):
    """A Pool there cannot wait for more than 61."""
    monkeypatch.setattr(m.sys, "platform", "win32")
    monkeypatch.setattr(m, "_affinity", lambda: frozenset(range(128)))
    read = m.read_machine(tree(tmp_path))
    assert (read.cpus, "Windows" in read.reason) == (61, True)
