"""Deaths, interrupts and odd places: nothing hangs, nothing stays, the next call works."""

import os
import signal
import time
from functools import partial

import pytest

from amorsize import smart_map
from amorsize.measure.machine import default_start_method
from amorsize.run import shared
from tests import functions as f
from tests import programs

METHODS = ("fork", "spawn", "forkserver")

KILLED = """
import os, signal, sys, time
from amorsize import WorkerLostError, smart_map

def work(x):
    if x == 20:
        os.kill(os.getpid(), signal.{signal})
    time.sleep(0.001)
    return x

if __name__ == "__main__":
    try:
        smart_map(work, range(40), n_jobs={n_jobs}, mp_context="{method}", retries={retries})
    except WorkerLostError as error:
        print("lost", error.index, error.exitcode)
    print(smart_map(abs, range(5), n_jobs=2, mp_context="{method}"))
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
@pytest.mark.parametrize("n_jobs", [2, 5])
def test_a_killed_worker_never_hangs_the_call(tmp_path, method, name, n_jobs):
    """The item that kills is named, and the next call of the same process works."""
    source = KILLED.format(signal=name, n_jobs=n_jobs, method=method, retries=1)
    ended = programs.run_source(source, tmp_path)
    number = -getattr(signal, name)
    assert ended.out.split("\n")[:2] == [f"lost 20 {number}", "[0, 1, 2, 3, 4]"], ended.err
    assert ended.code == 0


IDLE = """
import os, signal, sys, time, psutil
from amorsize import smart_map

def work(x):
    time.sleep(0.05 if x else 1.0)
    return x

def kill_an_idle_worker(done, total):
    # Everything but the long first item is done: the other worker waits for a task.
    if done == total - 1 and not killed:
        idle = min(psutil.Process().children(), key=lambda p: sum(p.cpu_times()[:2]))
        for child in psutil.Process().children():
            if child.pid != slow_pid():
                killed.append(child.pid)
                os.kill(child.pid, signal.SIGKILL)

def slow_pid():
    return int(open({path!r}).read())

def marked(x):
    if x == 0:
        with open({path!r}, "w") as file:
            file.write(str(os.getpid()))
    return work(x)

killed = []
if __name__ == "__main__":
    got = smart_map(marked, range(6), n_jobs=2, mp_context="fork", chunksize=1,
                    progress=kill_an_idle_worker)
    print(got, len(killed))
"""


def test_a_worker_killed_while_idle_never_hangs_the_call(tmp_path):
    """It holds the task queue's lock; the pool is abandoned and the rest runs in a new one."""
    ended = programs.run_source(IDLE.format(path=str(tmp_path / "pid")), tmp_path)
    assert ended.out.strip() == "[0, 1, 2, 3, 4, 5] 1", ended.err


INTERRUPTED = """
import os, sys, time
from amorsize import smart_map

def work(x):
    os.write(1, b"working" + bytes([10]))
    time.sleep(0.2)
    return x

if __name__ == "__main__":
    try:
        smart_map(work, range(1000), **{options})
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(smart_map(abs, range(3), n_jobs=2))
"""


@pytest.mark.parametrize(
    "options",
    [
        "dict(n_jobs=2, mp_context='fork')",
        "dict(n_jobs=2, mp_context='spawn')",
        "dict(n_jobs=2, mp_context='forkserver')",
        "dict(n_jobs=2, backend='thread')",
        "dict(n_jobs=1)",
        "dict()",
    ],
)
def test_ctrl_c_ends_the_call_and_leaves_nothing(tmp_path, options):
    """The whole process group gets SIGINT, as from a terminal; the program goes on and ends."""
    path = tmp_path / "program.py"
    path.write_text(INTERRUPTED.format(options=options))
    with programs.started(path) as process:
        assert process.stdout.readline() == "working\n"
        begun = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        ended = programs.finish(process)
    assert "interrupted\n[0, 1, 2]\n" in ended.out, ended.err
    assert ended.code == 0
    assert "Traceback" not in ended.err, ended.err
    assert time.monotonic() - begun < 30


ORPHANS = """
import os, time
from amorsize import smart_map

def work(x, table=bytes(100_000)):
    os.write(1, b"working" + bytes([10]))
    time.sleep(0.05)
    return x

if __name__ == "__main__":
    smart_map(work, range(100_000), n_jobs=2, mp_context="{method}", chunksize=4)
"""


@pytest.mark.parametrize("method", METHODS)
def test_workers_of_a_killed_caller_end(tmp_path, method):
    """When the caller is killed its workers find their pipes closed and leave."""
    path = tmp_path / "program.py"
    path.write_text(ORPHANS.format(method=method))
    with programs.started(path) as process:
        assert process.stdout.readline() == "working\n"
        process.kill()
        process.wait()
        assert programs.wait_for_group(process.pid, 20)
    left = programs.segments().get(process.pid, [])
    # The function, where it had to be sent; unless another program of amorsize's came by.
    assert len(left) <= (method != "fork")
    smart_map(abs, range(2), n_jobs=2)
    assert not set(os.listdir("/dev/shm")) & set(left)


@pytest.mark.parametrize("method", METHODS)
def test_a_main_module_without_a_guard_works(tmp_path, method):
    """Workers do not import the main module: a script without a guard is no bomb, it works."""
    source = (
        "from amorsize import smart_map\n"
        "class Thing:\n"
        "    def __init__(self, x): self.x = x\n"
        "def work(x): return Thing(x)\n"
        "print('once', __file__[-10:])\n"
        f"got = smart_map(work, range(5), n_jobs=2, mp_context={method!r})\n"
        "print([t.x for t in got], all(isinstance(t, Thing) for t in got), __file__[-10:])\n"
    )
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "once program.py\n[0, 1, 2, 3, 4] True program.py\n", ended.err
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("method", METHODS)
def test_locks_and_values_reach_the_initializer(tmp_path, method):
    """What Pool's initargs can carry (locks, shared values, queues) is carried, from main."""
    source = f"""
import multiprocessing
from amorsize import smart_map
def keep(*things):
    global lock, total, queue
    lock, total, queue = things
def work(x):
    with lock:
        total.value += x
    queue.put(x)
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    things = context.Lock(), context.Value("i", 0), context.SimpleQueue()
    smart_map(work, range(10), n_jobs=2, mp_context=context, initializer=keep, initargs=things)
    print(things[1].value, sorted(things[2].get() for _ in range(10)) == list(range(10)))
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "45 True\n", ended.err


@pytest.mark.parametrize("method", METHODS)
def test_functions_of_main_work_from_dash_c_and_stdin(method):
    """Without a main file functions go by value."""
    source = (
        "from amorsize import smart_map\n"
        "class Thing:\n"
        "    def __init__(self, x): self.x = x\n"
        "def work(x): return Thing(x)\n"
        f"got = smart_map(work, range(5), n_jobs=2, mp_context={method!r})\n"
        "print([t.x for t in got], all(isinstance(t, Thing) for t in got))\n"
    )
    for ended in (programs.run("-c", source), programs.run("-", feed=source)):
        assert ended.out.strip() == "[0, 1, 2, 3, 4] True", ended.err


def test_no_process_to_be_had_means_serial(tmp_path):
    """Where fork fails the call runs here, says so, and the initializer ran once."""
    source = """
import resource
from amorsize import smart_map
if __name__ == "__main__":
    ready, reports = [], []
    import multiprocessing.context
    class Broken(multiprocessing.context.ForkProcess):
        def start(self):
            raise BlockingIOError(11, "Resource temporarily unavailable")
    multiprocessing.context.ForkContext.Process = Broken
    got = smart_map(abs, range(5), n_jobs=2, mp_context="fork", initializer=ready.append,
                    initargs=(1,), report=reports.append)
    print(got, ready, reports[0].backend, reports[0].warnings)
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out.startswith("[0, 1, 2, 3, 4] [1] serial ('the items run in the calling"), (
        ended.err
    )


@pytest.mark.skipif(default_start_method() != "fork", reason="about the default being fork")
def test_many_calls_leave_no_descriptor_open(tmp_path):
    """Pools, well ended or abandoned, give back every descriptor and semaphore."""
    source = """
import os
from amorsize import smart_map, WorkerLostError
from amorsize.run import kept

def die(x):
    os._exit(1)

def count():
    kept.end_all()
    return len(os.listdir("/proc/self/fd"))

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        smart_map(abs, range(5), n_jobs=2, mp_context=method)
        before = count()
        for _ in range(3):
            smart_map(abs, range(5), n_jobs=2, mp_context=method)
            try:
                smart_map(die, range(5), n_jobs=2, mp_context=method)
            except WorkerLostError:
                pass
        print(count() - before)
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out.split() == ["0", "0", "0"], ended.err
    assert ended.err == ""


@pytest.mark.parametrize("through", ["pipe", "memory"])
@pytest.mark.parametrize("delay", [0.001, 0.004, 0.01, 0.03, 0.08])
def test_a_worker_killed_while_it_sends_a_large_result(tmp_path, monkeypatch, through, delay):
    """Half a result in the pipe, or half a segment, costs that chunk a second run and no more."""
    if through == "pipe":
        monkeypatch.setattr(shared, "shared_folder", lambda: "")
    got = smart_map(
        partial(f.killed_while_sending, str(tmp_path / "marker"), delay),
        range(10),
        n_jobs=2,
        mp_context="fork",
        chunksize=1,
    )
    assert got == [bytes([x]) * 30_000_000 for x in range(10)]
    assert shared.make_prefix() == "" or os.getpid() not in programs.segments()
