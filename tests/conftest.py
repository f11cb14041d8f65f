"""Every test has a cache folder of its own, and leaves no process and no thread behind."""

import inspect
import os
import signal
import sys
import threading

import psutil
import pytest

from amorsize import get_cache_dir
from amorsize.call import costs
from amorsize.memory import naming, remote
from amorsize.memory.cache import CACHE
from amorsize.run import kept

# A shell's background jobs ignore Ctrl-C, and nohup the end of the terminal; so would every program
# the tests start from one.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# These need Linux: real deaths, forks, /proc, limits of the system. They are left out elsewhere,
# and under the mask of ``tools/mask``.
IS_LINUX = hasattr(os, "sched_getaffinity")
if not IS_LINUX:
    collect_ignore = [
        "faults", "stress", "surroundings", "load.py", "test_board.py", "test_clusters.py",
        "test_inputs.py", "test_item_memory.py", "test_kept.py", "test_machine.py",
        "test_misled.py", "test_neighbours.py", "test_no_home.py", "test_sharing.py",
        "test_usage.py", "test_waiting_under_load.py", "test_withdraw.py",
    ]  # fmt: skip
# So do single tests whose text has one of these.
OF_LINUX = (
    '"fork"', '"forkserver"', "os.fork", "sched_setaffinity", "setrlimit", "/proc/", "/dev/shm",
    "SIGALRM", "segments(", "'fork'",
)  # fmt: skip
# And what has one of these in its name: pathos forks, and the mask hides what event loops need.
NAMED_OF_LINUX = ("fork", "pathos", "smart_map_async", "smart_imap_async")
# And these need what Windows lacks: modes and owners of files, links for everybody, signals, and
# removing a file or a folder that is in use.
OF_UNIX = ("st_mode", "S_IMODE", "chmod(", "geteuid", "symlink_to", "SIGKILL", "os.rmdir(",
           "os.unlink(", "drips", "deaf")  # fmt: skip


# In these modules the fork server's workers stand for all that inherit nothing: spawned ones differ
# in their start only, and take ten times as long for it. So they run with the slow tests.
MOSTLY_FORKSERVER = {
    "tests.faults.test_crew", "tests.faults.test_ends", "tests.faults.test_moments",
    "tests.surroundings.test_state", "tests.test_asynchronous", "tests.test_class_identity",
    "tests.test_failure_classes", "tests.test_item_memory", "tests.test_joblib",
    "tests.test_module_state", "tests.test_remote", "tests.test_withdraw",
}  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark slow variants of tests; elsewhere, skip tests of what only Linux has."""
    if IS_LINUX:
        for item in items:
            if "spawn" in item.name and item.module.__name__ in MOSTLY_FORKSERVER:
                item.add_marker(pytest.mark.slow)
        return
    parts = (*OF_LINUX, *OF_UNIX) if os.name == "nt" else OF_LINUX
    for item in items:
        text = inspect.getsource(item.function) if hasattr(item, "function") else ""
        named = any(part in item.name for part in NAMED_OF_LINUX)
        if named or any(part in text for part in parts):
            item.add_marker(pytest.mark.skip(reason="needs what only Linux or Unix has"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Give the test a cache folder of its own; return it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("AMORSIZE_CACHE_DIR", str(folder))
    for name in ("AMORSIZE_CACHE", "AMORSIZE_CACHE_TTL", "AMORSIZE_CACHE_URL", "AMORSIZE_N_JOBS",
                 "PYTHON_CPU_COUNT"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    forget()
    yield folder
    forget()


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Fail a test that leaves a process or a thread behind."""
    threads = set(threading.enumerate())
    yield
    kept.end_all()
    if "amorsize.joblib_backend" in sys.modules:
        sys.modules["amorsize.joblib_backend"]._SHELF.end()
    left = [child for child in psutil.Process().children() if not _is_servant(child)]
    assert not left, f"processes left behind: {left}"
    for watcher in kept._watchers:
        watcher.join(10)
    assert set(threading.enumerate()) <= threads, "threads left behind"


def record_files():
    """Return the files of records; what was learned of the machine lies beside them."""
    folder = get_cache_dir()
    found = folder.iterdir() if folder.exists() else ()
    return sorted(path for path in found if path.name.startswith("func-"))


def forget():
    """Drop the in-memory layer, as a new process would have none."""
    CACHE.forget()
    costs.forget_costs()
    naming.forget_names()
    remote._circuits.clear()


def _is_servant(process):
    """Return whether it is multiprocessing's resource tracker or fork server, or gone already."""
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return True
    return "resource_tracker" in line or "forkserver" in line
