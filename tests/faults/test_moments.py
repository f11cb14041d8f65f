"""Awkward moments: many chunks, other children, interrupts half way, starts that fail."""

import functools
import multiprocessing
import os
import signal
import time

import pytest

from amorsize import SerializationError, TaskTimeoutError, WorkerLostError, smart_imap, smart_map
from tests import functions as f
from tests import programs


def test_thousands_of_chunks_pass():
    """What workers tell of each chunk never fills the pipe it is told through."""
    assert smart_map(abs, range(10_000), n_jobs=2, chunksize=1) == list(range(10_000))
    assert sum(1 for _ in smart_imap(abs, range(8_000), n_jobs=2, buffersize=8)) == 8_000


def test_a_death_without_retries_beside_a_running_chunk_ends_the_call():
    """With retries=0 the first death is the end, whatever else is running."""
    with pytest.raises(WorkerLostError, match="item 2"):
        smart_map(f.slow_first_dead_third, range(3), n_jobs=3, chunksize=1, retries=0)


def test_other_children_of_the_caller_do_not_hold_up_the_end():
    """A process forked while workers run has copies of their pipes; nobody waits for it."""
    results = smart_imap(f.double, range(1_000), n_jobs=2, mp_context="fork")
    next(results)
    context = multiprocessing.get_context("fork")
    other = context.Process(target=time.sleep, args=(30,), daemon=True)
    other.start()
    begun = time.monotonic()
    results.close()
    assert time.monotonic() - begun < 20
    other.kill()
    other.join()
    other.close()


def test_two_lazy_runs_at_once_can_be_closed_in_any_order():
    """Each run's workers are its own."""
    first = smart_imap(f.double, range(1_000), n_jobs=2, mp_context="fork")
    second = smart_imap(f.double, range(1_000), n_jobs=2, mp_context="fork")
    assert (next(first), next(second), next(first)) == (0, 0, 2)
    first.close()
    assert next(second) == 2
    second.close()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_main_modules_file_is_known_in_workers(tmp_path, method):
    """__file__ and parallelized functions of the main module work everywhere."""
    source = f"""
import os
from amorsize import parallelize, smart_map
def where(x):
    return os.path.basename(__file__)
@parallelize
def add_one(x):
    return x + 1
def calls_it(x):
    return add_one(x) + 1
class Box:
    @parallelize(n_jobs=2)
    def shift(self, x):
        return x + 10
if __name__ == "__main__":
    way = dict(n_jobs=2, mp_context={method!r})
    print(smart_map(where, range(2), **way), add_one.map(range(3), **way))
    print(smart_map(calls_it, range(3), **way), Box().shift.map(range(2), mp_context={method!r}))
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "['program.py', 'program.py'] [1, 2, 3]\n[2, 3, 4] [10, 11]\n", ended.err


READING = """
import queue, sys, time
from amorsize import smart_map
def items():
    yield from range(4)
    print("reading", flush=True)
    {read}
if __name__ == "__main__":
    try:
        smart_map(abs, items(), {options})
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("read", ["time.sleep(60)", "queue.Queue().get()"])
@pytest.mark.parametrize("options", ["n_jobs=1", "n_jobs=2", ""])
def test_ctrl_c_while_the_input_is_read(tmp_path, read, options):
    """An interrupt in the data's own code ends the call at once."""
    path = tmp_path / "program.py"
    path.write_text(READING.format(read=read, options=options))
    with programs.started(path) as process:
        assert process.stdout.readline() == "reading\n"
        programs.wait_for_rest(process)
        os.killpg(process.pid, signal.SIGINT)
        ended = programs.finish(process, deadline=20)
    assert ended.out == "interrupted\n", ended.err


def test_ctrl_c_in_the_last_item_is_no_index_error(tmp_path):
    """An interrupt that comes when the last item is over is still an interrupt."""
    source = """
import os, signal
from amorsize import smart_map
def last(x):
    os.kill(os.getpid(), signal.SIGINT)
try:
    smart_map(last, [1], n_jobs=1)
except KeyboardInterrupt:
    print("interrupted")
"""
    assert programs.run_source(source, tmp_path).out == "interrupted\n"


# A program that gets Ctrl-C as its first worker is about to be forked.
INTERRUPTING = """
import gc, os, signal, threading
from amorsize import smart_map
hits = []
def interrupt():
    if not hits:
        hits.append(os.kill(os.getpid(), signal.SIGINT))
os.register_at_fork(before=interrupt)
"""


def test_ctrl_c_while_workers_start_leaves_no_pool(tmp_path):
    """An interrupt that comes in the middle of a start ends what was started."""
    source = (
        INTERRUPTING
        + """
try:
    smart_map(abs, range(100), n_jobs=2, mp_context="fork")
except KeyboardInterrupt:
    print("interrupted")
gc.collect()
print(smart_map(abs, range(3), n_jobs=2, mp_context="fork"))
"""
    )
    ended = programs.run_source(source, tmp_path, deadline=20)
    assert ended.out == "interrupted\n[0, 1, 2]\n", ended.err


NO_ROOM = """
import threading, multiprocessing.process
from amorsize import smart_map
from tests.functions import {func} as func
started = []
{patch}
reports = []
got = smart_map(func, range({items}), report=reports.append, {options})
assert got == list(map(func, range({items}))), got
print(reports[0].backend, reports[0].n_jobs, reports[0].warnings)
"""
NO_THREAD = """
class Full(threading.Thread):
    def start(self):
        raise RuntimeError("can't start new thread")
threading.Thread = Full
"""
FEW_PROCESSES = """
start = multiprocessing.process.BaseProcess.start
def limited(self):
    import multiprocessing
    if len(multiprocessing.active_children()) >= {limit}:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    start(self)
multiprocessing.process.BaseProcess.start = limited
"""


@pytest.mark.parametrize(
    ("patch", "func", "options", "says"),
    [
        (NO_THREAD, "double", "n_jobs=2", "process 2 ()"),
        (NO_THREAD, "wait_5ms", "", "process"),
        (NO_THREAD, "double", "n_jobs=2, backend='thread'", 'serial 1 ("the items run in'),
        (FEW_PROCESSES.format(limit=0), "double", "n_jobs=2", "serial 1 ('the items run in"),
        (FEW_PROCESSES.format(limit=3), "wait_5ms", "", "process"),
        (FEW_PROCESSES.format(limit=1), "wait_5ms", "backend='process'", "process 1 ("),
    ],
)
def test_workers_that_cannot_be_had_are_done_without(tmp_path, patch, func, options, says):
    """Threads or processes refused by the system: fewer workers, or none, and a word about it."""
    source = NO_ROOM.format(patch=patch, func=func, options=options, items=60)
    ended = programs.run_source(source, tmp_path)
    assert ended.out.replace('"', "'").startswith(says.replace('"', "'")), ended.out + ended.err
    assert ended.code == 0


def test_an_exception_that_does_not_load_can_be_a_result():
    """With return_exceptions=True it arrives as itself, in its place."""
    got = smart_map(f.raise_two_part, range(6), n_jobs=2, return_exceptions=True)
    assert [x for x in got if isinstance(x, int)] == [0, 1, 2, 4, 5]
    assert (type(got[3]), str(got[3])) == (f.TwoPartError, "ab")


def test_results_that_do_not_load_fail_in_their_place():
    """The earliest failing item wins over results that cannot be loaded, which are named."""
    with pytest.raises(KeyError, match="first"):
        smart_map(f.unloadable_after_failure, range(2), n_jobs=2, chunksize=1)
    with pytest.raises(SerializationError, match="cannot be loaded") as caught:
        smart_map(f.unloadable_after_failure, range(1, 3), n_jobs=2, chunksize=1)
    assert caught.value.index == 0


def test_a_late_item_without_retries_runs_nothing_twice(tmp_path):
    """With retries=0 the other running items are waited for, not run again."""
    path = str(tmp_path / "calls")
    func = functools.partial(f.logged_hang_on_3, path)
    got = smart_map(func, range(8), n_jobs=2, task_timeout=0.6, retries=0, return_exceptions=True)
    assert isinstance(got[3], TaskTimeoutError)
    assert f.logged_calls(path) == list(range(8))


def test_a_lost_item_can_be_a_result():
    """With return_exceptions=True the item that kills its workers is given up in its place."""
    got = smart_map(f.leave_on_7, range(20), n_jobs=2, return_exceptions=True)
    assert [x for x in got if isinstance(x, int)] == [x for x in range(20) if x != 7]
    assert isinstance(got[7], WorkerLostError)


def test_threads_started_by_the_first_items_are_noticed(tmp_path):
    """Whether a fork is safe is asked when workers start, not before."""
    source = """
import threading, time
from amorsize import smart_map
def hold():
    with threading.Lock():
        time.sleep(60)
def f(x):
    if threading.active_count() == 1:
        threading.Thread(target=hold, daemon=True).start()
    time.sleep(0.005)
    return x
reports = []
smart_map(f, range(300), report=reports.append, use_cache=False)
print(reports[0].start_method, reports[0].reason)
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out.startswith("forkserver "), ended.out + ended.err


@pytest.mark.parametrize("where", ["before", "mid"])
def test_segments_of_killed_workers_are_swept(where):
    """Shared memory that nobody received does not stay."""
    with pytest.raises(WorkerLostError):
        smart_map(functools.partial(f.large_then_dead, where), range(8), n_jobs=2, chunksize=1)
    assert os.getpid() not in programs.segments()


def test_ctrl_c_while_a_process_spawns_its_first_workers_is_held(tmp_path):
    """The resource tracker, which starts with the first of them, does not let Ctrl-C through."""
    source = """
import multiprocessing.process, os, signal
from amorsize import smart_map
start = multiprocessing.process.BaseProcess.start
def interrupted_start(self):
    os.kill(os.getpid(), signal.SIGINT)
    start(self)
    print("started", flush=True)
multiprocessing.process.BaseProcess.start = interrupted_start
if __name__ == "__main__":
    try:
        smart_map(abs, range(3), n_jobs=2, mp_context="spawn")
    except KeyboardInterrupt:
        print("interrupted")
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "started\nstarted\ninterrupted\n", ended.err


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_interpreter_exits_with_a_lazy_run_half_read(tmp_path, method):
    """Workers of a run nobody finished end with the program."""
    source = f"""
from amorsize import smart_imap
if __name__ == "__main__":
    results = smart_imap(abs, range(100_000), n_jobs=2, mp_context={method!r})
    print(next(results), next(results))
"""
    ended = programs.run_source(source, tmp_path, deadline=30)
    assert (ended.out, ended.code, ended.err) == ("0 1\n", 0, "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("spare", [0, 2, 6, 14])
def test_too_many_open_files(tmp_path, method, spare):
    """With few descriptors left, fewer workers do it, or the caller; the next call is well."""
    source = f"""
import os, resource
from amorsize import smart_map
from tests.functions import double
if __name__ == "__main__":
    smart_map(double, range(3), n_jobs=2, mp_context={method!r}) # what is opened once
    from amorsize.run import kept
    kept.end_all()
    used = len(os.listdir("/proc/self/fd")) - 1
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + {spare}, before[1]))
    got = smart_map(double, range(100), n_jobs=4, mp_context={method!r})
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    kept.end_all()
    print(got == list(map(double, range(100))), len(os.listdir("/proc/self/fd")) - 1 - used)
    print(smart_map(double, range(3), n_jobs=2, mp_context={method!r}))
"""
    ended = programs.run_source(source, tmp_path)
    assert (ended.out, ended.code) == ("True 0\n[0, 2, 4]\n", 0), ended.err


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_full_shared_memory_is_done_without(tmp_path, method):
    """What cannot be written there takes the pipe, in both directions."""
    source = f"""
import resource
from functools import partial
from amorsize import smart_map
def both(table, x):
    return bytes(1_000_000 + x) + table[:1] + x.to_bytes(1, "big")
if __name__ == "__main__":
    # No file can grow beyond this: a write fails half way, as on a full file system.
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    work = partial(both, b"t" * 2_000_000)
    got = smart_map(work, iter(range(9)), n_jobs=2, mp_context={method!r})
    print(got == list(map(work, range(9))))
"""
    ended = programs.run_source(source, tmp_path, AMORSIZE_CACHE="0")
    assert (ended.out, ended.code) == ("True\n", 0), ended.err


TWICE = """
import atexit, os, signal, time
from amorsize import smart_map
def work(x):
    os.write(1, b"working" + bytes([10]))
    time.sleep(60)
if __name__ == "__main__":
    try:
        smart_map(work, range(9), n_jobs=2, mp_context={method!r})
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_second_ctrl_c_does_no_harm(tmp_path, method):
    """Impatience while the workers are being ended leaves nothing behind, and nothing hangs."""
    path = tmp_path / "program.py"
    path.write_text(TWICE.format(method=method))
    with programs.started(path) as process:
        assert process.stdout.readline() == "working\n"
        for _ in range(20):
            os.killpg(process.pid, signal.SIGINT)
        ended = programs.finish(process, deadline=20)
    assert "interrupted" in ended.out or "KeyboardInterrupt" in ended.err


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("ending", ["close", "abandon"])
def test_ctrl_c_at_tear_down_is_kept_until_it_is_over(tmp_path, method, ending):
    """The workers are gone, then the interrupt arrives; the next call works."""
    source = f"""
import multiprocessing, os, signal, time
from amorsize import smart_map
from amorsize.run import kept, processes
inner = processes.ProcessCrew.{ending}
def interrupted(self):
    def dispose():
        os.kill(os.getpid(), signal.SIGINT)
        processes.ProcessCrew._dispose(self)
    self._dispose = dispose
    return inner(self)
processes.ProcessCrew.{ending} = interrupted
def work(x):
    return 1 // (x if {ending == "abandon"} else 1)
if __name__ == "__main__":
    try:
        smart_map(work, range(9), n_jobs=2, mp_context={method!r})
        while any(one.crew.ready < 2 for one in kept._idle):
            time.sleep(0.01)
        kept.end_all()
    except KeyboardInterrupt:
        print("interrupted", multiprocessing.active_children())
    processes.ProcessCrew.{ending} = inner
    print(smart_map(abs, range(3), n_jobs=2, mp_context={method!r}))
"""
    ended = programs.run_source(source, tmp_path, deadline=30)
    assert (ended.out, ended.code) == ("interrupted []\n[0, 1, 2]\n", 0), ended.err


def test_ctrl_c_that_another_thread_receives_is_held_back_as_well(tmp_path):
    """The system may hand the signal to any thread; half a pool is not ended by it."""
    source = (
        INTERRUPTING
        + """
ready, over = threading.Event(), threading.Event()
def receive():
    ready.set()
    over.wait()
threading.Thread(target=receive, daemon=True).start()
ready.wait()
def work(x):
    return x
try:
    smart_map(work, [0, 1, 2], n_jobs=2, mp_context="fork")
except KeyboardInterrupt:
    print("interrupted")
over.set()
print(smart_map(work, [0, 1, 2], n_jobs=2, mp_context="fork"))
"""
    )
    ended = programs.run_source(source, tmp_path, PYTHONWARNINGS="ignore::DeprecationWarning")
    assert ended.out == "interrupted\n[0, 1, 2]\n", ended.err


def test_many_large_results_do_not_use_up_descriptors(tmp_path):
    """Each is mapped from memory of its own, and all are alive at the end."""
    pytest.importorskip("numpy")
    source = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
import numpy
from amorsize import smart_map
def full(i):
    return numpy.full(20_000, i, dtype=float)
found = smart_map(full, range(300), n_jobs=2, chunksize=1)
for i, array in enumerate(found):
    array += 1
    assert (array == i + 1).all()
print(len(found))
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "300\n", ended.err


LIMITED = """
import os, signal, sys
from amorsize import smart_map
def over(number, frame):
    raise TimeoutError("time is up")  # an OSError, as it is of Python's own
signal.signal(signal.SIGALRM, over)
def alarm():
    os.kill(os.getpid(), signal.SIGALRM)
class Loud:
    def __init__(self, n):
        self.n = n
    def __reduce__(self):
        if os.getpid() == CALLER:
            alarm()
        return Loud, (self.n,)
class Late:
    def __setstate__(self, state):
        if os.getpid() == CALLER:
            alarm()
CALLER = os.getpid()
"""

LIMITS = {
    "as workers start": """
from amorsize.run.forks import ForkStarts
start = ForkStarts.start
def started(*args):
    alarm()
    return start(*args)
ForkStarts.start = started
call = lambda: smart_map(abs, range(8), n_jobs=2)
""",
    "as an item is sent": """
call = lambda: smart_map(lambda item: item.n, (Loud(n) for n in range(8)), n_jobs=2)
""",
    "as results are loaded": """
def late(x):
    made = Late()
    made.x = x
    return made
call = lambda: smart_map(late, range(8), n_jobs=2)
""",
}


@pytest.mark.parametrize("when", LIMITS)
def test_a_time_limit_that_is_an_os_error_ends_the_call_at_any_moment(tmp_path, when):
    """TimeoutError is an OSError, and yet no sign that workers cannot be started."""
    source = f"""{LIMITED}{LIMITS[when]}
try:
    print(call())
except TimeoutError as error:
    print(error, [note for note in getattr(error, "__notes__", []) if "is lost" not in note
                  and "are lost" not in note])
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "time is up []\n", ended.err


BOMBARDED = """
import signal, time
from amorsize.signals import held_signals
class Late(Exception): pass
def late(number, frame):
    raise Late
signal.signal(signal.SIGALRM, late)
hits, ends = 0, time.monotonic() + 3
while time.monotonic() < ends:
    try:
        signal.setitimer(signal.ITIMER_REAL, 20e-6)
        with held_signals():
            pass
        with held_signals(), held_signals():
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Late:
        hits += 1
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()), hits
    assert signal.getsignal(signal.SIGALRM) is late, hits
print(hits > 1_000)
"""


def test_a_handler_that_raises_at_any_moment_leaves_no_signal_blocked(tmp_path):
    """Else the next time limit would never be heard of."""
    assert programs.run_source(BOMBARDED, tmp_path).out == "True\n"
