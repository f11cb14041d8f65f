"""The fork server loads what its workers need, once, unless they could not be forked then."""

import multiprocessing
import textwrap

import pytest

from tests import programs

pytestmark = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="needs a fork server"
)

PROGRAM = """
import os, sys
sys.path.insert(0, {folder!r})
from amorsize import smart_map
import library
def work(x):
    library.use()
    return *sys.loaded, os.getppid(), os.getpid()
if __name__ == "__main__":
    for n_jobs in (2, 3):
        found = smart_map(work, range(30), n_jobs=n_jobs, chunksize=1, mp_context="forkserver")
        for loader, limit, server, worker in found:
            print({{server: "server", worker: "worker"}}.get(loader, "?"), limit)
    assert "OMP_NUM_THREADS" not in os.environ
"""

# What it notes is not in the library: workers would have the caller's value.
LIBRARY = """
import os, sys
sys.loaded = os.getpid(), os.environ.get("OMP_NUM_THREADS")
def use(): pass
"""


def lines(tmp_path, source):
    """Return what a program says whose function uses a library with this source."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "library.py").write_text(LIBRARY + textwrap.dedent(source))
    program = PROGRAM.format(folder=str(folder))
    ended = programs.run_source(program, tmp_path, deadline=100)
    assert ended.code == 0, ended.err
    return ended.out.splitlines(), ended.err


def test_a_library_is_loaded_once_for_all_crews(tmp_path):
    """By the server, with the limit on threads that the first crew has."""
    found, _ = lines(tmp_path, "")
    assert found == ["server 1"] * 60


@pytest.mark.parametrize(
    "source",
    [
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
        "raise RuntimeError('not here')",
        "sys.exit(3)",
        "os._exit(3)",
        "os.kill(os.getpid(), 9)",
    ],
)
def test_what_cannot_be_loaded_there_is_loaded_by_the_workers(source, tmp_path):
    """A thread would be missing in workers; any error ends the server. The call goes on."""
    head, *rest = source.split("\n")
    only_once = "mark = {!r}\nif os.path.exists(mark + '1') and not os.path.exists(mark + '2'):\n"
    body = "    open(mark + '2', 'w').close()\n" + "".join(f"    {one}\n" for one in (head, *rest))
    body += "if not os.path.exists(mark + '1'):\n    open(mark + '1', 'w').close()\n"
    found, err = lines(tmp_path, only_once.format(str(tmp_path / "mark")) + body)
    assert {line.partition(" ")[0] for line in found} == {"worker"}, err


def test_a_module_of_the_users_is_loaded_by_each_worker(tmp_path):
    """It may be another one at the next call."""
    (tmp_path / "library.py").write_text(LIBRARY)
    ended = programs.run_source(PROGRAM.format(folder=str(tmp_path)), tmp_path, deadline=100)
    assert ended.out.splitlines() == ["worker 1"] * 60, ended.err


TWO = """
import os, sys
sys.path.insert(0, {folder!r})
from amorsize import smart_map
from amorsize.run import kept
import first, second
def one(x):
    first.use()
    return sys.loaded[0], os.getppid()
def other(x):
    second.use()
    return sys.loaded[0], os.getppid()
def children():
    import psutil
    return [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
if __name__ == "__main__":
    servers = []
    for work, n_jobs in ((one, 2), (other, 3), (one, 2), (one, 4)):
        found = set(smart_map(work, range(30), n_jobs=n_jobs, chunksize=1, mp_context="forkserver"))
        print(n_jobs, len(found), all(loader == server for loader, server in found))
        servers += [server for _, server in found]
    kept.end_all()
    import time
    give_up = time.monotonic() + 30
    while sum("forkserver" in " ".join(p.cmdline()) for p in children()) > 1:
        assert time.monotonic() < give_up, children()
        time.sleep(0.01)
    print(len(set(servers)))
"""


def test_another_package_starts_another_server_and_the_old_one_ends(tmp_path):
    """When the last of its workers has ended; kept workers go on as they are."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    for name in ("first", "second"):
        (folder / f"{name}.py").write_text(LIBRARY)
    ended = programs.run_source(TWO.format(folder=str(folder)), tmp_path, deadline=100)
    assert ended.out.splitlines() == [
        "2 1 True", "3 1 True", "2 1 True", "4 1 True", "2"
    ], ended.err  # fmt: skip


SLOW = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from amorsize import smart_map
import slow
class Stop(Exception):
    pass
def stop(*_):
    raise Stop
def work(x):
    slow.use()
    return x
if __name__ == "__main__":
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        smart_map(work, range(4), n_jobs=2, mp_context="forkserver")
    except Stop:
        print("stopped", os.path.exists({folder!r} + "/loaded"))
    print(smart_map(work, range(4), n_jobs=2, mp_context="forkserver"))
"""


def test_a_time_limit_does_not_wait_for_what_the_server_loads(tmp_path):
    """The call ends while the server goes on loading, and the next call uses that server."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "slow.py").write_text(
        "import os, time\n"
        f"here = {str(folder)!r}\n"
        "def use(): pass\n"
        "if os.path.exists(here + '/begun'):\n"
        "    time.sleep(4)\n"
        "    open(here + '/loaded', 'w').close()\n"
        "open(here + '/begun', 'w').close()\n"
    )
    ended = programs.run_source(SLOW.format(folder=str(folder)), tmp_path, deadline=60)
    assert ended.out == "stopped False\n[0, 1, 2, 3]\n", ended.err
