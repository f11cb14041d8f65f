"""Workers forked without multiprocessing are what a Pool's workers are."""

import pytest

from tests import programs

MAP = """
import os, sys, threading, time
from amorsize import smart_map
{setup}
def work(x):
    {body}
if __name__ == "__main__":
    got = smart_map(work, range(6), n_jobs=2, chunksize=1{options})
    {after}
"""


def run(tmp_path, *, setup="", body="return x", options="", after="print(set(got))"):
    """Return what a program prints that maps ``work`` in two forked workers."""
    source = MAP.format(setup=setup, body=body, options=options, after=after)
    ended = programs.run_source(source, tmp_path, deadline=60)
    assert ended.code == 0, ended.err
    return ended.out


def test_a_call_that_forks_does_not_load_multiprocessing(tmp_path):
    """It takes longer to load than to fork."""
    out = run(tmp_path, after="print('multiprocessing' in sys.modules, got)")
    assert out == "False [0, 1, 2, 3, 4, 5]\n"


@pytest.mark.parametrize("when", ["import multiprocessing", ""], ids=["before", "in the item"])
def test_the_current_process_is_a_daemonic_child_of_the_caller(when, tmp_path):
    """As libraries ask, whenever multiprocessing is loaded."""
    body = """
    import multiprocessing as mp
    me, parent = mp.current_process(), mp.parent_process()
    return (me.daemon, me.name.startswith("amorsize-"), me.pid == os.getpid(), parent.pid == main,
            parent.is_alive(), me.is_alive(), mp.active_children(), repr(me).count("daemon"))
"""
    out = run(tmp_path, setup=f"{when}\nmain = os.getpid()", body=body, after="print(got[0])")
    assert out == "(True, True, True, True, True, True, [], 1)\n"


def test_a_call_in_an_item_runs_serially(tmp_path):
    """Workers start no workers, also where multiprocessing is not loaded."""
    body = """
    reports = []
    got = smart_map(abs, range(-500, 0), n_jobs=2, report=reports.append)
    return len(got), reports[0].backend, "daemonic" in reports[0].warnings[0]
"""
    assert run(tmp_path, body=body) == "{(500, 'serial', True)}\n"


STARTS = {
    "process": """
    import multiprocessing as mp
    queue = mp.SimpleQueue()
    child = mp.Process(target=queue.put, args=(x,))
    child.start()
    child.join()
    return queue.get() == x, child.exitcode, mp.active_children()
""",
    "pool": """
    import multiprocessing as mp
    with mp.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2])[1] == 2, 0, []
""",
    "executor": """
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(1) as executor:
        return executor.submit(abs, -x).result() == x, 0, []
""",
    "call of its child": """
    import multiprocessing as mp
    queue = mp.SimpleQueue()
    child = mp.get_context("fork").Process(
        target=lambda: queue.put(smart_map(abs, [-x], n_jobs=2) == [x]))
    child.start()
    child.join()
    return queue.get(), child.exitcode, mp.active_children()
""",
}


@pytest.mark.parametrize("start", STARTS)
def test_an_item_may_start_processes(start, tmp_path):
    """They work, and none is left."""
    out = run(tmp_path, body=STARTS[start], after="print(got)")
    assert out == str([(True, 0, [])] * 6) + "\n"


@pytest.mark.parametrize("setup", ["import logging", ""], ids=["before", "in the item"])
def test_log_records_have_the_workers_name(setup, tmp_path):
    """As those of a Pool's workers have."""
    body = """
    import logging
    logging.basicConfig(format="%(processName)s", stream=sys.stdout, force=True)
    logging.warning("")
    return 0
"""
    out = run(tmp_path, setup=setup, body=body, after="")
    assert set(out.split()) <= {"amorsize-1", "amorsize-2"}
    assert len(out.split()) == 6


def test_a_worker_reads_nothing_from_the_callers_input(tmp_path):
    body = "return sys.stdin.read()"
    assert run(tmp_path, body=body) == "{''}\n"


def test_what_the_caller_has_not_written_yet_is_written_once(tmp_path):
    setup = "sys.stdout.write('begun ')\nsys.stderr.write('')"
    assert run(tmp_path, setup=setup) == "begun {0, 1, 2, 3, 4, 5}\n"


END = """
import atexit, multiprocessing, sys
from multiprocessing.util import Finalize
def note(what):
    with open({path!r}, "a") as file:
        file.write(what + "\\n")
atexit.register(note, "of the caller")
def work(x):
    import threading, time
    if not seen:
        seen.append(x)
        atexit.register(note, "atexit")
        Finalize(None, note, args=("finalizer",), exitpriority=10)
        threading.Thread(target=lambda: (time.sleep(0.2), note("thread"))).start()
    return x
seen = []
"""
OURS = """
import sys
from amorsize import smart_map
def work(x):
    import ending
    return ending.work(x)
if __name__ == "__main__":
    smart_map(work, range(8), n_jobs=2, chunksize=1)
"""
POOLS = """
import multiprocessing
import ending
if __name__ == "__main__":
    pool = multiprocessing.get_context("fork").Pool(2)
    pool.map(ending.work, range(8), 1)
    pool.close()
    pool.join()
"""


def test_at_its_end_a_worker_runs_what_a_pools_worker_runs(tmp_path):
    """Finalizers, threads and, on newer Pythons, functions registered with atexit."""
    found = {}
    for name, source in (("ours", OURS), ("pool's", POOLS)):
        path = tmp_path / f"{name}.txt"
        (tmp_path / "ending.py").write_text(END.format(path=str(path)))
        ended = programs.run_source(source, tmp_path, deadline=60)
        assert not ended.err
        found[name] = set(path.read_text().split("\n")) - {"of the caller"}
    assert found["ours"] == found["pool's"]
    assert "thread" in found["ours"]


def test_a_killed_worker_is_noticed_and_replaced(tmp_path):
    """Its chunk runs again; nothing is left."""
    body = """
    if x == 3 and not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), 9)
    return x
"""
    setup = f"mark = {str(tmp_path / 'mark')!r}\nreports = []"
    after = "print(got, reports[0].retried > 0)"
    out = run(tmp_path, setup=setup, body=body, options=", report=reports.append", after=after)
    assert out == "[0, 1, 2, 3, 4, 5] True\n"


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("sys.exit()", "SystemExit()"),
        ("sys.exit('why')", "SystemExit('why')"),
        ("sys.exit(7)", "SystemExit(7)"),
        ("os._exit(7)", "WorkerLostError(exitcode=7)"),
    ],
)
def test_an_item_that_ends_its_process(end, says, tmp_path):
    """SystemExit is the item's exception; a process that is gone is named with its exit code."""
    setup = """
def call():
    try:
        smart_map(work, range(6), n_jobs=2)
    except BaseException as error:
        code = getattr(error, "exitcode", None)
        print(repr(error) if code is None else f"{type(error).__name__}(exitcode={code})")
    return [0]
"""
    body = f"{end} if os.getpid() != main else 0"
    source = MAP.format(setup=setup, body=body, options="", after="")
    source = source.replace("got = smart_map(work, range(6), n_jobs=2, chunksize=1)", "call()")
    ended = programs.run_source("import os\nmain = os.getpid()\n" + source, tmp_path)
    assert ended.out == says + "\n", ended.err


def test_without_reports_of_deaths_a_death_is_noticed(tmp_path):
    """On systems that have no pidfd_open, workers are asked."""
    setup = f"mark = {str(tmp_path / 'mark')!r}\nif hasattr(os, 'pidfd_open'): del os.pidfd_open"
    body = """
    if x == 3 and not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), 9)
    return x
"""
    assert run(tmp_path, setup=setup, body=body, after="print(got)") == "[0, 1, 2, 3, 4, 5]\n"
