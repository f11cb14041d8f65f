"""However call, worker or program end, nothing waits for ever and nobody is left behind."""

import signal
import sys

import psutil
import pytest

from tests import programs

METHODS = ["fork", "spawn", "forkserver"]


def run(source, folder, *args, deadline=60):
    path = folder / "program.py"
    path.write_text(source)
    return programs.run(path, *args, deadline=deadline)


SLOW_ENDS = """
import sys, threading, time
from multiprocessing import util
from amorsize import smart_map

def lingers(x):
    if sys.argv[1] == "thread":
        threading.Thread(target=time.sleep, args=(1000,)).start()
    else:
        util.Finalize(None, time.sleep, (1000,), exitpriority=1)
    time.sleep(0.1)
    return x

print(smart_map(lingers, range(4), n_jobs=2, chunksize=1, mp_context="fork"))
"""


@pytest.mark.parametrize("what", ["thread", "finalizer"])
def test_several_workers_that_do_not_end_are_ended(tmp_path, what):
    """Each has its time, and no more."""
    ended = run(SLOW_ENDS, tmp_path, what)
    assert ended.out == "[0, 1, 2, 3]\n", ended.err


EMPTY = """
import os, sys, time
from amorsize import smart_map
caller = os.getpid()

class Item:
    def __init__(self, x):
        self.x = x
    def __setstate__(self, state):
        {refuse}
        self.__dict__.update(state)

def work(item):
    time.sleep(0.005)
    return item.x

reports = []
got = smart_map(work, (Item(i) for i in range(200)), mp_context=sys.argv[1], report=reports.append)
print(got == list(range(200)), reports[0].warnings)
"""


@pytest.mark.parametrize("refuse", ["raise NotImplementedError", "assert os.getpid() == caller"])
def test_an_item_that_is_refused_without_a_word_is_run_here(tmp_path, refuse):
    """An exception need not have a text; the report has its type."""
    ended = run(EMPTY.format(refuse=refuse), tmp_path, "fork")
    assert ended.out.startswith("True"), ended.out + ended.err
    assert "Error" in ended.out


BLOCKED = """
import os, queue, signal, sys, time
from amorsize import smart_imap, smart_map
signal.signal(signal.SIGINT, signal.default_int_handler)

def work(x):
    end = time.process_time() + 0.004
    while time.process_time() < end:
        pass
    return x

def items(count):
    yield from range(count)
    print("blocked", flush=True)
    queue.Queue().get()

form = sys.argv[2]
options = dict(n_jobs=2, mp_context="fork") if form == "workers" else {}
try:
    if form == "lazy":
        list(smart_imap(work, items(int(sys.argv[1])), **options))
    else:
        smart_map(work, items(int(sys.argv[1])), **options)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("count", [0, 4, 5, 7])
@pytest.mark.parametrize("form", ["automatic", "workers", "lazy"])
def test_ctrl_c_ends_a_call_whose_input_blocks(tmp_path, count, form):
    """Also while the first items for workers are taken from it."""
    path = tmp_path / "program.py"
    path.write_text(BLOCKED)
    with programs.started(path, count, form) as process:
        assert process.stdout.readline() == "blocked\n"
        programs.wait_for_rest(process)
        process.send_signal(signal.SIGINT)
        ended = programs.finish(process, deadline=20)
    assert ended.out == "interrupted\n", ended.err


HELD = """
import multiprocessing.process, os, signal, sys
import psutil
from amorsize import smart_map
signal.signal(signal.SIGINT, signal.default_int_handler)
start = multiprocessing.process.BaseProcess.start

def interrupted(self):
    os.kill(os.getpid(), signal.SIGINT)
    start(self)

smart_map(abs, range(4), n_jobs=2, mp_context=sys.argv[1])  # servers and trackers
before = {child.pid for child in psutil.Process().children()}
multiprocessing.process.BaseProcess.start = interrupted
try:
    smart_map(abs, range(100), n_jobs=3, mp_context=sys.argv[1])
except KeyboardInterrupt as error:
    held = error  # as a REPL does, and a notebook
print([child for child in psutil.Process().children() if child.pid not in before])
"""


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_while_workers_start_leaves_none_though_the_exception_is_kept(tmp_path, method):
    """Nobody waits for the garbage collector."""
    ended = run(HELD, tmp_path, method)
    assert ended.out == "[]\n", ended.out + ended.err


LONG_ITEMS = """
import os, sys, time
from amorsize import smart_map

def work(x):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(1000)

smart_map(work, range(4), n_jobs=2, mp_context=sys.argv[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker notices after its item")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("method", METHODS)
def test_workers_end_with_their_caller_in_the_middle_of_an_item(tmp_path, method, end):
    """Whatever ended it."""
    path = tmp_path / "program.py"
    path.write_text(LONG_ITEMS)
    with programs.started(path, method) as process:
        workers = [psutil.Process(int(process.stdout.readline())) for _ in range(2)]
        process.send_signal(end)
        process.wait(20)
        _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


SPAWNS = """
import multiprocessing
from amorsize import smart_map

def inner(x):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(abs, [x])

if __name__ == "__main__":
    print(smart_map(inner, range(-2, 0), n_jobs=2, mp_context="fork", chunksize=1))
"""


def test_forked_workers_may_spawn_processes_though_the_caller_has_no_tracker(tmp_path):
    """multiprocessing's tracker is started in the worker when a child is to be given one."""
    ended = run(SPAWNS, tmp_path)
    assert ended.out == "[[2], [1]]\n", ended.err


AT_EXIT = """
import atexit, sys
from amorsize import smart_map

def late():
    print(smart_map(abs, range(-3, 0), n_jobs=2, mp_context=sys.argv[1]), flush=True)

atexit.register(late)  # it runs after multiprocessing's own, which ends the workers that wait
late()
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_call_after_the_exit_of_multiprocessing_is_served(tmp_path, method):
    """Workers that were kept are gone; it gets new ones, or runs here."""
    ended = run(AT_EXIT, tmp_path, method)
    assert ended.out == "[3, 2, 1]\n" * 2, ended.out + ended.err
    assert ended.err == ""


CHILD = """
import os
from amorsize import smart_map

def who(x):
    return os.getpid()

smart_map(who, range(4), n_jobs=2, mp_context="forkserver")
child = os.fork()
if child == 0:
    found = smart_map(who, range(4), n_jobs=2, mp_context="forkserver")
    print(os.getpid() not in found, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_forked_child_has_a_fork_server_of_its_own(tmp_path):
    """The parent's serves the parent alone."""
    ended = run(CHILD, tmp_path)
    assert ended.out == "True\n", ended.out + ended.err


DEADLY = """
import os, sys, threading, time
sys.path.insert(0, sys.argv[1])
from amorsize import smart_map
os.environ["CALLER"] = str(os.getpid())
import deadly

reports = []
got = smart_map(deadly.work, range(400), mp_context="spawn", report=reports.append)
print(got == list(range(400)), reports[0].warnings)
"""


def test_a_module_that_ends_each_worker_that_loads_it_keeps_the_call_here(tmp_path):
    """In the automatic mode: no item was begun, so none is to blame."""
    (tmp_path / "deadly.py").write_text(
        "import os, time\n"
        "if os.environ['CALLER'] != str(os.getpid()):\n    os._exit(9)\n"
        "def work(x):\n    time.sleep(0.004)\n    return x\n"
    )
    ended = run(DEADLY, tmp_path, tmp_path)
    assert ended.out.startswith("True"), ended.out + ended.err


LOOKED_AT = """
import os, signal, time
from amorsize import smart_map

class Late(Exception):
    pass

def late(*_):
    raise Late

class Result:
    def __reduce__(self):
        if os.getpid() == caller and not sent:
            sent.append(os.kill(caller, signal.SIGUSR1))
        return Result, ()

def work(x):
    time.sleep(0.004)
    return Result()

caller, sent = os.getpid(), []
signal.signal(signal.SIGUSR1, late)
try:
    smart_map(work, range(100))
except Late:
    print("late", len(sent))
"""


def test_a_signal_while_results_are_looked_at_is_not_lost(tmp_path):
    """The exception of its handler is no sign that results cannot be sent."""
    ended = run(LOOKED_AT, tmp_path)
    assert ended.out == "late 1\n", ended.out + ended.err


EARLY_SIGNALS = """
import os, signal
from amorsize import smart_map

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def work(x):
    return os.getpid(), x

os.register_at_fork(after_in_child=interrupt)
got = smart_map(work, range(8), n_jobs=2, mp_context="fork")
print([x for _, x in got] == [*range(8)], os.getpid() in {pid for pid, _ in got})
"""


def test_a_worker_that_is_interrupted_as_it_begins_says_nothing_and_works(tmp_path):
    """Ctrl-C reaches it before it has handlers of its own; what it means the caller decides."""
    ended = run(EARLY_SIGNALS, tmp_path)
    assert (ended.out, ended.err) == ("True False\n", "")
