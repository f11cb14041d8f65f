"""When a fork is safe and when it is not: with real libraries, real threads, and real locks."""

import importlib.util
import threading
import time

import pytest

from amorsize.measure.forking import fork_danger
from tests import programs


def needs(library):
    """Skip without a library; loading it here would start its threads in all other tests."""
    if importlib.util.find_spec(library.partition(".")[0]) is None:
        pytest.skip(f"needs {library}, of the dependency group 'heavy'")


MAP = """
import sys, time
from amorsize import smart_map
{setup}
def work(i):
    found = {expression}
    time.sleep(0.01)
    return found
if __name__ == "__main__":
    if {first}:
        work(0)
    reports = []
    got = smart_map(work, range(60), report=reports.append)
    here = list(map(work, range(60)))
    near = all(abs(a - b) <= 1e-3 * abs(b) for a, b in zip(got, here))
    print(len(got), near, reports[0].start_method != "fork")
"""

LIBRARIES = {
    "torch": (
        "import torch\nA = torch.arange(250000.).reshape(500, 500) / 1e5",
        "float((A @ A + i).sigmoid().sum())",
    ),
    "polars": (
        "import polars",
        "polars.DataFrame({'a': [*range(500)], 'b': [i] * 500}).group_by('b').sum()['a'][0]",
    ),
    "sklearn.ensemble": (
        "import numpy\nfrom sklearn.ensemble import HistGradientBoostingRegressor as Trees\n"
        "X = numpy.random.RandomState(0).rand(200, 4)",
        "float(Trees(max_iter=3, random_state=i).fit(X, X[:, 0]).predict(X[:1])[0])",
    ),
    "sklearn.cluster": (
        "import numpy\nfrom sklearn.cluster import KMeans\n"
        "X = numpy.random.RandomState(0).rand(500, 4)",
        "float(KMeans(3, n_init=1, random_state=i).fit(X).inertia_)",
    ),
}


@pytest.mark.parametrize("first", [False, True], ids=["not used", "used first"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_whose_threads_do_not_survive_a_fork_never_hang(library, first, tmp_path):
    """The first items, run here, start the library's threads: workers are not forked then."""
    needs(library)
    setup, expression = LIBRARIES[library]
    source = MAP.format(setup=setup, expression=expression, first=first)
    ended = programs.run_source(source, tmp_path, deadline=100)
    assert ended.out == "60 True True\n", ended.out + ended.err


FORKED = """
import time
from amorsize import smart_map
{setup}
def work(i):
    found = {expression}
    time.sleep(0.005)
    return found
if __name__ == "__main__":
    work(0)
    reports = []
    got = smart_map(work, range(100), report=reports.append)
    print(got == list(map(work, range(100))), reports[0].start_method)
"""


@pytest.mark.parametrize(
    ("library", "setup", "expression"),
    [
        ("numpy", "import numpy\nA = numpy.ones((200, 200))", "float((A @ A)[0, 0])"),
        (
            "pyarrow",
            "import pyarrow\nT = pyarrow.table({'a': [*range(500)]})",
            "T.group_by('a').aggregate([]).num_rows",
        ),
        ("tqdm", "import tqdm\nfor i in tqdm.tqdm(range(2), disable=False): pass", "i + 1"),
    ],
)
def test_libraries_that_survive_a_fork_do_not_prevent_it(library, setup, expression, tmp_path):
    """OpenBLAS and Arrow have fork handlers; tqdm's monitor only waits."""
    needs(library)
    source = FORKED.format(setup=setup, expression=expression)
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "True fork\n", ended.out + ended.err


class Beside:
    """A thread that is at something until the test is over."""

    def __init__(self, run):
        self.over = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=run, args=(self.over, self._ready), daemon=True)

    def __enter__(self):
        self._thread.start()
        self._ready.wait(10)
        deadline = time.monotonic() + 10
        while fork_danger() == "starting" and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.over.set()
        self._thread.join(10)


def waits(over, ready):
    ready.set()
    over.wait()


def sleeps(over, ready):
    ready.set()
    while not over.is_set():
        time.sleep(0.05)


def takes(over, ready):
    import queue

    todo = queue.Queue()
    ready.set()
    while not over.is_set():
        try:
            todo.get(timeout=0.2)
        except queue.Empty:
            continue


def computes(over, ready):
    ready.set()
    while not over.is_set():
        pass


def holds(over, ready):
    lock = threading.Lock()
    with lock:
        ready.set()
        over.wait()


def acquired(over, ready):
    lock = threading.Lock()
    lock.acquire()
    ready.set()
    over.wait()
    lock.release()


def apart(code):
    """Run code in a process that has no other threads."""
    ended = programs.run("-c", f"from tests.surroundings.test_forking import *\n{code}")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("run", ["waits", "sleeps", "takes"])
def test_a_thread_that_waits_without_a_lock_does_not_prevent_a_fork(run):
    """Servers and notebooks are full of those."""
    # It may be looked at just as it wakes.
    apart(f"with Beside({run}): assert any(not fork_danger() for _ in range(50)), fork_danger()")


@pytest.mark.parametrize("run", ["computes", "holds", "acquired"])
def test_a_thread_at_work_or_with_a_lock_prevents_a_fork(run):
    """What it holds would be held for ever in the child."""
    apart(f"with Beside({run}): time.sleep(0.05); assert 'thread' in fork_danger()")


def test_workers_are_forked_beside_a_waiting_thread():
    """The report says how they were started, and why."""
    apart("""
from amorsize import smart_map
reports = []
with Beside(waits):
    got = smart_map(slow, range(100), report=reports.append)
assert got == list(range(100))
assert reports[0].start_method == "fork"
assert reports[0].start_reason == "this process can be forked safely"
""")


def slow(x):
    time.sleep(0.003)
    return x


HANDING_ON = """
import asyncio, os, queue, threading, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from amorsize import smart_map
from amorsize.measure.helpers import needs_threads

main = os.getpid()

class Service:
    def __init__(self):
        self.todo, self.factor = queue.SimpleQueue(), 2
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            x, answer = self.todo.get()
            answer.put(x)

    def ask(self, x):
        answer = queue.SimpleQueue()
        self.todo.put((x, answer))
        return answer.get()

    def double(self, x):
        return self.factor * x

async def identity(x):
    return x

def through_a_helper(x):
    return submits(x)

def submits(x):
    return pool.submit(abs, x).result()

def applies(x):
    return threads.apply(abs, (x,))

def asks_a_loop(x):
    return asyncio.run_coroutine_threadsafe(identity(x), loop).result()

def puts(x):
    todo.put((x, answers))
    return answers.get()

def serve():
    while True:
        x, answer = todo.get()
        answer.put(x)

def doubles(x):
    return 2 * x

if __name__ == "__main__":
    pool, threads = ThreadPoolExecutor(1), ThreadPool(1)
    service, loop = Service(), asyncio.new_event_loop()
    todo, answers = queue.Queue(), queue.Queue()
    for run in (loop.run_forever, serve):
        threading.Thread(target=run, daemon=True).start()
    for call in (submits, applies, asks_a_loop, puts, service.ask):
        assert call(1) == 1  # so that each thread is there, and waits for more
    func = {func}
    {act}
"""

HANDS_ON = ["submits", "through_a_helper", "lambda x: submits(x)", "applies", "asks_a_loop", "puts",
            "service.ask"]  # fmt: skip


@pytest.mark.parametrize("func", [*HANDS_ON, "doubles", "service.double"])
def test_a_function_that_hands_work_to_a_thread_is_seen(func, tmp_path):
    """To a pool's, an event loop's or one's own, by a queue; and one that does not is not."""
    act = "print(bool(needs_threads(func)))"
    ended = programs.run_source(HANDING_ON.replace("{func}", func).replace("{act}", act), tmp_path)
    assert ended.out == f"{func in HANDS_ON}\n", ended.err


def test_a_thread_that_has_started_others_and_waits_for_them_serves_nobody(tmp_path):
    """The main program names queues, too."""
    source = """
import queue, threading
from amorsize.measure.helpers import needs_threads
found, unread = [], queue.Queue()
def puts(x):
    unread.put(x)
def looks():
    found.append(needs_threads(puts))
thread = threading.Thread(target=looks)
thread.start()
thread.join()
print(found, unread.qsize())
"""
    assert programs.run_source(source, tmp_path).out == "[''] 0\n"


LOCKED = """
import threading, time
from amorsize import smart_map

{lock}
held, done = threading.Event(), threading.Event()

def hold():
    lock.acquire()
    held.set()
    done.wait({seconds})
    lock.release()

thread = threading.Thread(target=hold, daemon=True)
thread.start()
held.wait()
if {returned}:
    done.set()
    thread.join()

def work(x):
    time.sleep(0.003)
    if x > 50:
        done.set()
    if x > 60:
        with lock:
            pass
    return x

reports = []
got = smart_map(work, range(100), report=reports.append)
print(got == list(range(100)), reports[0].start_method == "fork")
"""
LOCKS = [
    "lock = threading.Lock()", "lock = threading.RLock()", "lock = threading.Condition()",
]  # fmt: skip


@pytest.mark.parametrize("returned", [False, True], ids=["held", "free"])
@pytest.mark.parametrize("lock", LOCKS)
def test_a_function_that_uses_a_lock_of_another_thread_is_not_forked(tmp_path, lock, returned):
    """In the child nobody would release it; a lock that is free is no hindrance."""
    source = LOCKED.format(lock=lock, seconds=100, returned=returned)
    ended = programs.run_source(source, tmp_path)
    assert ended.out == f"True {returned}\n", ended.out + ended.err


@pytest.mark.parametrize("func", ["submits", "service.ask"])
def test_it_is_not_forked(func, tmp_path):
    """No worker gets stuck first: the report tells why not, and does not contradict itself."""
    act = """
    reports = []
    def work(x):
        time.sleep(0.005)
        return func(x)
    print(smart_map(work, range(400), report=reports.append) == [*range(400)])
    (report,) = reports
    print(report.retried, report.backend, "(fork)" in report.explain())
    print("hands work to the thread" in report.explain(), "<- chosen" in report.explain())
"""
    ended = programs.run_source(HANDING_ON.replace("{func}", func).replace("{act}", act), tmp_path)
    assert ended.out == "True\n0 serial False\nTrue False\n", ended.out + ended.err


def test_a_fork_that_was_asked_for_gets_an_error_that_names_both_causes(tmp_path):
    """A thread that is not there, or a lock: which one, nobody can tell."""
    act = """
    try:
        smart_map(func, range(60), n_jobs=2, mp_context="fork")
    except Exception as error:
        print(type(error).__name__, "a fork does not copy" in str(error), "lock" in str(error))
"""
    source = HANDING_ON.replace("{func}", "submits").replace("{act}", act)
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "WorkerLostError True True\n", ended.out + ended.err


STUCK = """
import os, threading, time
from amorsize import smart_map, WorkerLostError
main, lock, held = os.getpid(), threading.Lock(), threading.Event()
data = {**dict.fromkeys(range(2000)), "lock": lock}  # among so much nobody looks for locks
def hold():
    getattr(lock, "acq" + "uire")()  # in a way that nobody can see
    held.set()
    time.sleep(3600)
def work(x):
    if os.getpid() != main:
        with data["lock"]:
            pass
    time.sleep(0.01)
    return x
if __name__ == "__main__":
    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    reports = []
    for _ in range(2):
        got = smart_map(work, range(100), report=reports.append)
        print(got == [*range(100)], "nothing could release" in str(reports[-1].warnings),
              reports[-1].start_method == "fork")
    try:
        smart_map(work, range(100), n_jobs=2, mp_context="fork")
    except WorkerLostError as error:
        print("nothing can release" in str(error))
"""


def test_a_forked_worker_that_waits_for_ever_is_replaced(tmp_path):
    """It is proven to be stuck; the call goes on in another way, and the next one does so at once.

    Whoever asked for fork gets an error instead of a hang.
    """
    ended = programs.run_source(STUCK, tmp_path, deadline=60)
    assert ended.out == "True True False\nTrue False False\nTrue\n", ended.out + ended.err


NOT_TWICE = """
import os, threading, time
from amorsize import smart_map
import holding
def work(x):
    if os.getpid() != main:
        holding.wait()
    time.sleep(0.01)
    return x
main = os.getpid()
if __name__ == "__main__":
    threading.Thread(target=holding.hold, daemon=True).start()
    holding.held.wait()
    reports = []
    print(smart_map(work, range(100), report=reports.append) == [*range(100)])
    (report,) = reports
    print("nothing could release" in str(report.warnings), report.start_method, report.retried > 0)
"""
HOLDING = """
import threading, time
class Holder:
    def __init__(self):
        self.lock = threading.Lock()
    def __reduce__(self):
        return Holder, ()  # with a lock of its own
data = {**dict.fromkeys(range(2000)), "holder": Holder()}  # nobody looks for locks in it
held = threading.Event()
def hold():
    getattr(data["holder"].lock, "acq" + "uire")()
    held.set()
    time.sleep(3600)
def wait():
    with data["holder"].lock:
        pass
"""


def test_fresh_workers_run_the_chunks_of_forked_workers_that_were_stuck(tmp_path):
    """The forked ones inherited the input; fresh ones get the items of these chunks sent."""
    (tmp_path / "holding.py").write_text(HOLDING)
    ended = programs.run_source(NOT_TWICE, tmp_path, deadline=60)
    assert ended.out == "True\nTrue forkserver True\n", ended.out + ended.err


WAITING = """
import os, socket, time
from amorsize import smart_map
def serve(x):
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        time.sleep(1.6)
        theirs.send(b"x")
        os._exit(0)
    found = ours.recv(1)
    os.wait()
    return found
if __name__ == "__main__":
    reports = []
    print(smart_map(serve, range(2), n_jobs=2, mp_context="fork", report=reports.append))
    print(reports[0].retried)
"""


def test_a_worker_that_waits_for_something_outside_is_left_alone(tmp_path):
    """However long, and without any CPU time."""
    ended = programs.run_source(WAITING, tmp_path)
    assert ended.out == "[b'x', b'x']\n0\n", ended.err
