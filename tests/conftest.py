"""Every test has a cache folder of its own, and leaves no process and no thread behind."""

import signal
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
