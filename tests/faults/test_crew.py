"""The crew of processes: nothing blocks it, nothing that dies takes anything with it."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from amorsize import WorkerLostError, smart_map
from tests import programs

METHODS = ["fork", "spawn", "forkserver"]

FULL = """
import time
from amorsize import smart_map
def fetch(text):
    time.sleep(0.05)
    return len(text)
if __name__ == "__main__":
    for size in {sizes}:
        data = {{i: "q" * size for i in range(200)}}
        got = smart_map(fetch, {data}, {options})
        assert got == [size] * 200, got
    print("over")
"""


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ("data.values()", ""),
        ("(t for t in data.values())", "n_jobs=24"),
        ("data.values()", "n_jobs=16, mp_context='spawn'"),
    ],
)
def test_first_tasks_that_fill_the_way_to_the_workers_do_not_block_the_caller(
    data, options, tmp_path
):
    """Tasks of any size are sent as there is room, and there may be no worker yet."""
    sizes = (2_300,) if "spawn" in options else (2_300, 60_000)
    source = FULL.format(sizes=sizes, data=data, options=options)
    assert programs.run_source(source, tmp_path, deadline=60).out == "over\n"


ORPHAN = """
import os, signal, subprocess, time
from amorsize import smart_map, WorkerLostError
def work(x):
    if x == 3 and not os.path.exists({path!r}):
        open({path!r}, "w").close()
        {start}
        os.kill(os.getpid(), signal.SIGKILL)
    return x
if __name__ == "__main__":
    began = time.monotonic()
    print(smart_map(work, range(8), n_jobs=2, mp_context={method!r}, chunksize=1))
    print(time.monotonic() - began < 30)
"""
STARTS = {
    "fork": "os.fork() or (time.sleep(60), os._exit(0))",
    "daemon": "os.system('sleep 60 &')",
    "popen": "subprocess.Popen(['sleep', '60'], close_fds=False)",
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", STARTS)
def test_a_death_is_noticed_although_a_grandchild_lives(start, method, tmp_path):
    """What the worker's children hold open hides nothing."""
    source = ORPHAN.format(path=str(tmp_path / "mark"), start=STARTS[start], method=method)
    path = tmp_path / "program.py"
    path.write_text(source)
    with programs.started(path) as process:
        out, err = (
            process.communicate(timeout=60)
            if start == "none"
            else (
                process.stdout.readline() + process.stdout.readline(),
                "",
            )
        )
    assert out == "[0, 1, 2, 3, 4, 5, 6, 7]\nTrue\n", err


@pytest.mark.parametrize("method", METHODS)
def test_workers_end_when_they_and_their_caller_are_killed(method, tmp_path):
    """Idle or at work: nothing is left that waits for a lock of the dead."""
    source = f"""
import os, sys, time
from amorsize import smart_map
def work(x):
    print(os.getpid(), flush=True)
    time.sleep(0.5 if x else 0)
    return x
if __name__ == "__main__":
    smart_map(work, range(4), n_jobs=4, mp_context={method!r}, chunksize=1)
    smart_map(work, range(400), n_jobs=4, mp_context={method!r}, chunksize=1)
"""
    path = tmp_path / "program.py"
    path.write_text(source)
    with programs.started(path) as process:
        pids = {int(process.stdout.readline()) for _ in range(20)}
        victim = next(pid for pid in pids if psutil.pid_exists(pid))
        os.kill(victim, signal.SIGKILL)
        os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [pid for pid in pids if alive(pid)]


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


IN_HANDLER = """
import os, signal, sys, time
from amorsize import smart_map
found = []
def handler(number, frame):
    found.append(smart_map(abs, range(3), n_jobs=2, mp_context={method!r}))
signal.signal(signal.SIGUSR1, handler)
if __name__ == "__main__":
    for delay in (0.0, 0.002, 0.01, 0.03, 0.06):
        if os.fork() == 0:
            time.sleep(delay)
            os.kill(os.getppid(), signal.SIGUSR1)
            os._exit(0)
        assert smart_map(abs, range(4), n_jobs=2, mp_context={method!r}) == [0, 1, 2, 3]
        os.wait()
    deadline = time.monotonic() + 20
    while len(found) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    print(found == [[0, 1, 2]] * 5)
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_signal_handler_may_map(method, tmp_path):
    """Also in the middle of a start of workers."""
    ended = programs.run_source(IN_HANDLER.replace("{method!r}", repr(method)), tmp_path)
    assert ended.out == "True\n", ended.err


TOGETHER = """
import sys, threading
gate = threading.Barrier(8)
bad = []
def call(k):
    gate.wait()
    try:
        from amorsize import smart_map
        assert smart_map(pow, range(50), range(50), n_jobs=k % 3 + 1) == [x ** x for x in range(50)]
    except BaseException as error:
        bad.append(repr(error))
threads = [threading.Thread(target=call, args=(k,)) for k in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print(bad)
"""


def test_first_calls_of_several_threads(tmp_path):
    """What another thread is still importing is not looked at."""
    for _ in range(6):
        ended = programs.run_source(TOGETHER, tmp_path)
        assert ended.out == "[]\n", ended.out + ended.err


@pytest.mark.parametrize("how", ["signal.SIG_IGN", "reap"])
@pytest.mark.parametrize("method", METHODS)
def test_exit_codes_that_others_take_do_no_harm(how, method, tmp_path):
    """SIGCHLD ignored, or a handler that reaps all children: workers end and die as ever."""
    source = f"""
import os, signal
from amorsize import smart_map, WorkerLostError
def reap(number, frame):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError:
        pass
def die(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x
if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, {how})
    for _ in range(3):
        assert smart_map(abs, range(6), n_jobs=2, mp_context={method!r}) == [*range(6)]
    try:
        smart_map(die, range(6), n_jobs=2, mp_context={method!r}, chunksize=1)
    except WorkerLostError as error:
        print(error.index)
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "3\n", ended.out + ended.err
    assert "Traceback" not in ended.err


ALARM = """
import gc, os, random, signal, sys, time
from amorsize import smart_map
class Late(Exception): pass
def late(number, frame):
    raise Late
signal.signal(signal.SIGALRM, late)
def work(x):
    time.sleep(0.001)
    return x
def children():
    import multiprocessing
    return len(multiprocessing.active_children())
if __name__ == "__main__":
    smart_map(work, range(9), n_jobs=2, mp_context={method!r})
    from amorsize.run import kept
    kept.end_all()
    def open_files():
        found = ((n, f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd"))
        return {n: os.readlink(path) for n, path in found if os.path.islink(path)}
    before = open_files()
    random.seed(1)
    hits = 0
    for _ in range({calls}):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, {longest}))
            smart_map(work, range(30), n_jobs=2, mp_context={method!r})
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Late:
            hits += 1
        assert children() <= 2, children()
    kept.end_all()
    left = {n: path for n, path in open_files().items() if before.get(n) != path}
    print(hits > {calls} / 10, children(), {n: p for n, p in left.items() if "fd" not in p})
"""


@pytest.mark.parametrize(
    ("method", "calls", "longest"),
    [("fork", 150, 0.04), ("spawn", 25, 0.1), ("forkserver", 60, 0.06)],
)
def test_a_raising_alarm_leaves_nothing_behind(method, calls, longest, tmp_path):
    """The usual time limit, at any moment of a call: no worker and no descriptor stays."""
    source = ALARM.replace("{method!r}", repr(method)).replace("{calls}", str(calls))
    ended = programs.run_source(source.replace("{longest}", str(longest)), tmp_path, deadline=100)
    assert ended.out == "True 0 {}\n", ended.out + ended.err


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
    make = lambda: interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    make = lambda: interpreters.create(isolated=False)
code = '''
import sys
sys.path[:] = {path!r}
from amorsize import smart_map
print(smart_map(abs, range(-3, 3)), smart_map(abs, range(-3, 3), n_jobs=2, mp_context="fork"))
'''
sub = make()
interpreters.run_string(sub, code)
interpreters.destroy(sub)
"""


def test_a_sub_interpreter_maps(tmp_path):
    """Where a process cannot be forked from, the items run in the caller."""
    source = SUBINTERPRETER.replace("{path!r}", repr(sys.path))
    ended = programs.run_source(source, tmp_path)
    assert ended.out.strip() == "[3, 2, 1, 0, 1, 2] [3, 2, 1, 0, 1, 2]", ended.err


NESTED = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from amorsize import smart_map
def with_pool(x):
    time.sleep(0.01)
    with multiprocessing.Pool(2) as pool:
        return sum(pool.map(abs, [x, -x]))
def with_executor(x):
    with ProcessPoolExecutor(2) as executor:
        return sum(executor.map(abs, [x, -x]))
def with_leftovers(x):
    pool = multiprocessing.Pool(2)
    return sum(pool.map(abs, [x, -x]))
def failing(x):
    pool = multiprocessing.Pool(2)
    pool.map(abs, [x])
    if x == 5:
        time.sleep(0.2)
        raise ValueError(x)
    time.sleep(2)
if __name__ == "__main__":
    for func in (with_pool, with_executor, with_leftovers):
        reports = []
        got = smart_map(func, range(12), {options} report=reports.append)
        assert got == [2 * x for x in range(12)], got
        print(reports[0].backend, reports[0].warnings)
    try:
        smart_map(failing, [4, 5], n_jobs=2, mp_context={method!r}, chunksize=1)
    except ValueError as error:
        print(error)
"""


@pytest.mark.parametrize("method", METHODS)
def test_functions_that_have_pools_of_their_own_run_in_workers(method, tmp_path):
    """Workers may have children, and none of those outlives the call."""
    options = f"n_jobs=2, mp_context={method!r},"
    source = NESTED.replace("{options}", options).replace("{method!r}", repr(method))
    path = tmp_path / "program.py"
    path.write_text(source)
    with programs.started(path) as process:
        ended = programs.finish(process, deadline=80)
    assert ended.out == "process ()\n" * 3 + "5\n", ended.out + ended.err


def has_children(_):
    import multiprocessing

    return multiprocessing.current_process().daemon


def test_a_worker_says_that_it_is_daemonic():
    """As a Pool's does: libraries that look at it start no processes of their own."""
    assert smart_map(has_children, range(2), n_jobs=2, mp_context="fork") == [True, True]


def memory_of(i):
    from multiprocessing import shared_memory

    segment = shared_memory.SharedMemory(create=True, size=64)
    segment.buf[0] = i
    segment.close()
    return segment.name


@pytest.mark.parametrize("method", METHODS)
def test_shared_memory_of_a_worker_outlives_the_call(method):
    """The caller opens and removes what a worker has made."""
    from multiprocessing import shared_memory

    for i, name in enumerate(smart_map(memory_of, range(4), n_jobs=2, mp_context=method)):
        segment = shared_memory.SharedMemory(name=name)
        assert segment.buf[0] == i
        segment.close()
        segment.unlink()


SCRATCH = """
import time, numpy
from amorsize import smart_map
def make(i):
    return numpy.full(200_000, i, dtype=float)
scratch = smart_map(make, range(3), n_jobs=2)[1]
before = scratch.copy()
def work(i):
    scratch[:] = i
    time.sleep(0.01)
    return float(scratch.sum())
got = smart_map(work, range(20), n_jobs=3, mp_context="fork")
print(got == [i * 200_000.0 for i in range(20)], (scratch == before).all())
"""


def test_processes_do_not_write_into_each_others_results(tmp_path):
    """A large result belongs to the caller; a worker forked later has a copy."""
    pytest.importorskip("numpy")
    assert programs.run_source(SCRATCH, tmp_path).out == "True True\n"


def test_a_mapping_that_cannot_be_made_is_a_copy(tmp_path):
    """At the limit of mappings, results arrive all the same."""
    source = """
import mmap
from amorsize import smart_map
def big(i):
    return bytearray([i]) * 300_000
real = mmap.mmap
class Full:
    def __new__(cls, *args, **options):
        raise OSError(12, "Cannot allocate memory")
mmap.mmap = Full
print([x[5] for x in smart_map(big, range(4), n_jobs=2)])
"""
    assert programs.run_source(source, tmp_path).out == "[0, 1, 2, 3]\n"


TERMINATED = """
import os, signal, sys, time
from amorsize import smart_map
def work(x):
    print("working", flush=True)
    time.sleep(0.3)
    return x
if __name__ == "__main__":
    smart_map(work, range(1000), n_jobs=2, mp_context={method!r}, chunksize=1)
"""


@pytest.mark.parametrize("whom", ["caller", "group"])
@pytest.mark.parametrize("method", METHODS)
def test_a_terminated_program_ends_quietly(method, whom, tmp_path):
    """SIGTERM to it, or to all of its processes: no page of tracebacks, and nothing is left."""
    path = tmp_path / "program.py"
    path.write_text(TERMINATED.replace("{method!r}", repr(method)))
    with programs.started(path) as process:
        for _ in range(3):
            process.stdout.readline()
        (os.kill if whom == "caller" else os.killpg)(process.pid, signal.SIGTERM)
        ended = programs.finish(process, deadline=30)
    assert ended.err.count("\n") <= 1, ended.err


BLOCKED = """
import os, time
from amorsize import smart_map
def slow_input():
    for i in range(3):
        yield i
    print("blocked", flush=True)
    time.sleep(3600)
if __name__ == "__main__":
    try:
        smart_map(abs, slow_input(), n_jobs=2, mp_context={method!r})
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(len(os.listdir("/proc/self/fd")) < 12)
"""


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_while_the_input_blocks(method, tmp_path):
    """Before there are any results, too, the call ends at once and leaves nothing."""
    path = tmp_path / "program.py"
    path.write_text(BLOCKED.replace("{method!r}", repr(method)))
    with programs.started(path) as process:
        assert process.stdout.readline() == "blocked\n"
        programs.wait_for_rest(process)
        os.killpg(process.pid, signal.SIGINT)
        began = time.monotonic()
        ended = programs.finish(process, deadline=30)
    assert ended.out == "interrupted\nTrue\n", ended.err
    assert time.monotonic() - began < 20


def test_the_users_own_processes_are_as_if_amorsize_were_not_there(tmp_path):
    """Started beside our workers and after them: main module, server and signal mask are theirs."""
    source = """
import multiprocessing, signal, sys, threading, time
from amorsize import smart_map
VALUE = 7
def user(queue):
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    queue.put((VALUE, __name__, signal.SIGINT in blocked))
def start(method):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=user, args=(queue,))
    process.start()
    found = queue.get()
    process.join()
    return found
if __name__ == "__main__":
    found, over = [], threading.Event()
    def beside():
        while not over.is_set():
            found.append(start("spawn"))
    thread = threading.Thread(target=beside)
    thread.start()
    for _ in range(3):
        for method in ("spawn", "forkserver"):
            smart_map(abs, range(5), n_jobs=2, mp_context=method)
            smart_map(abs, range(5), n_jobs=3, mp_context=method)
    over.set()
    thread.join()
    found.append(start("forkserver"))
    print(set(found), sys.modules["__main__"].__spec__)
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "{(7, '__mp_main__', False)} None\n", ended.out + ended.err


def test_lines_are_whole_when_a_chunk_prints_much(tmp_path):
    """Lines of several workers do not mix, however many a chunk prints."""
    source = """
import sys
from amorsize import smart_map
def talk(x):
    for _ in range(40):
        print(x, "p" * 997)
if __name__ == "__main__":
    smart_map(talk, range(30), n_jobs=3, mp_context="fork", chunksize=5)
"""
    ended = programs.run_source(source, tmp_path)
    lines = sorted(ended.out.splitlines())
    assert lines == sorted(f"{x} {'p' * 997}" for x in range(30) for _ in range(40))


def test_a_worker_does_not_run_the_callers_handlers(tmp_path):
    """SIGTERM to a worker ends it; the caller's event loop hears nothing of it."""
    source = """
import asyncio, os, signal, time
from amorsize import smart_map
heard = []
marker = {marker!r}
def work(x):
    if x == 2 and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    return x
async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: heard.append(1))
    print(smart_map(work, range(5), n_jobs=2, mp_context="fork", chunksize=1))
    await asyncio.sleep(0.1)
    print(heard)
asyncio.run(main())
"""
    ended = programs.run_source(source.replace("{marker!r}", repr(str(tmp_path / "m"))), tmp_path)
    assert ended.out == "[0, 1, 2, 3, 4]\n[]\n", ended.out + ended.err


def test_a_removed_working_directory_does_no_harm(tmp_path):
    """Workers start all the same; in the automatic mode the caller does what they cannot."""
    # Python 3.13.0 itself cannot start in such a place.
    asked = ("fork", "spawn", "forkserver") if sys.version_info < (3, 13) else ("fork",)
    place = tmp_path / "gone"
    place.mkdir()
    source = f"""
import os, time
from amorsize import smart_map
def work(x):
    time.sleep(0.003)
    return x
os.chdir({str(place)!r})
os.rmdir({str(place)!r})
if __name__ == "__main__":
    for method in {asked}:
        assert smart_map(abs, range(3), n_jobs=2, mp_context=method) == [0, 1, 2]
    for method in ("fork", "spawn", "forkserver", None):
        assert smart_map(work, range(200), mp_context=method) == [*range(200)]
    print("right")
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "right\n", ended.err


def test_random_numbers_of_workers_differ(tmp_path):
    """NumPy's, torch's and Python's own global generators do not repeat the caller's numbers."""
    source = """
import random
from amorsize import smart_map
names = ["random"]
try:
    import numpy; numpy.random.rand(); names.append("numpy")
    import torch; torch.rand(1); names.append("torch")
except ImportError: pass
draw = {{"random": lambda: random.random(), "numpy": lambda: float(numpy.random.rand()),
        "torch": lambda: float(torch.rand(1))}}
for name in names:
    got = smart_map(lambda _: draw[name](), range(8), n_jobs=4, mp_context="fork", chunksize=1)
    print(len(set(got)) == 8, draw[name]() not in got)
"""
    ended = programs.run_source(source.replace("{{", "{").replace("}}", "}"), tmp_path)
    assert set(ended.out.split()) == {"True"}, ended.out + ended.err


def test_a_lost_worker_with_nothing_to_say(tmp_path):
    """An exit code that was taken by another is said to be unknown."""
    with pytest.raises(WorkerLostError):
        smart_map(os._exit, [3], n_jobs=2, mp_context="fork", retries=0)


def test_the_interpreter_ends_where_a_lazy_run_is_dropped(tmp_path):
    """A generator that nobody finishes is collected, in whatever thread, with its workers."""
    source = """
import gc, multiprocessing, threading, time
from amorsize import smart_imap
def work(x):
    time.sleep(0.002)
    return x
class Box: pass
for method in ("fork", "forkserver", "spawn"):
    box = Box()
    box.me, box.run = box, smart_imap(work, iter(range(10**6)), n_jobs=2, mp_context=method)
    assert next(box.run) == 0
    del box
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join(20)
    print(thread.is_alive(), multiprocessing.active_children())
"""
    ended = programs.run_source(source, tmp_path)
    assert (ended.out, ended.err) == ("False []\n" * 3, "")


def test_nothing_is_asked_of_subprocesses(tmp_path):
    """Programs that items start still end on Ctrl-C."""
    source = """
import os, signal, subprocess, sys
from amorsize import smart_map
def work(x):
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
if __name__ == "__main__":
    print(set(smart_map(work, range(2), n_jobs=2)))
"""
    path = tmp_path / "program.py"
    path.write_text(source)
    got = subprocess.run(
        [sys.executable, str(path)], check=False, capture_output=True, text=True, timeout=60,
        cwd=programs.ROOT, env={**os.environ, "PYTHONPATH": str(programs.ROOT)},
    )  # fmt: skip
    assert got.stdout == "{'True\\n'}\n", got.stderr
