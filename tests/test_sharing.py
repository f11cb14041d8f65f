"""The caller as a worker: it shares in the work of a list, and nothing else changes."""

import os
import signal
import time

import pytest

from amorsize import TaskTimeoutError, smart_imap, smart_map
from amorsize.run.caller import Caller
from amorsize.run.course import Course
from amorsize.run.feed import Feed
from amorsize.run.ledger import Ledger
from amorsize.run.policy import Policy
from tests import functions as f
from tests import programs

CALLER = os.getpid()


def shared(func, data, **options):
    """Return the results and the report of a second call, whose function is known."""
    reports = []
    smart_map(func, data, **options)
    got = smart_map(func, data, report=reports.append, **options)
    return got, reports[0]


def who(x):
    """Compute for 2 ms, and tell which process did."""
    end = time.process_time() + 0.002
    while time.process_time() < end:
        pass
    return x, os.getpid()


def test_the_caller_runs_items_of_the_same_queue():
    """On c CPUs c - 1 workers are started; the caller's items are not the first ones only."""
    got, report = shared(who, range(300))
    assert [x for x, _ in got] == list(range(300))
    if report.backend == "serial":
        pytest.skip("the machine is too busy for workers to pay")
    assert len({pid for _, pid in got}) == report.n_jobs
    here = [x for x, pid in got if pid == CALLER]
    assert max(here) > 150
    assert report.caller_items == len(here)
    assert report.worker_items == 300 - len(here)
    assert "and" in report.explain()


@pytest.mark.parametrize(
    "options",
    [
        {"n_jobs": 2},
        {"backend": "process"},
        {"task_timeout": 60},
        {"initializer": int},
    ],
    ids=str,
)
def test_where_workers_were_asked_for_the_caller_runs_no_item(options):
    """An item may kill its process, or need what the initializer set up."""
    got, _ = shared(who, range(100), **options)
    assert CALLER not in {pid for _, pid in got}


def fails_late(x):
    who(x)
    if x in (70, 250):
        raise ValueError(x)
    return x


@pytest.mark.parametrize("form", [smart_map, smart_imap])
def test_the_earliest_failure_wins_wherever_it_ran(form):
    """Also if the later one was seen first."""
    for _ in range(5):
        with pytest.raises(ValueError, match="^70"):
            list(form(fails_late, range(300)))


def test_a_failure_ends_the_claiming(tmp_path):
    """Chunks behind it that nobody has begun are not run."""
    log = tmp_path / "log"
    log.touch()

    def fails(x):
        who(x)
        with open(log, "a") as file:
            file.write("x")
        if x == 100:
            raise ValueError(x)

    for _ in range(2):
        log.write_text("")
        with pytest.raises(ValueError, match="100"):
            smart_map(fails, range(2_000))
        assert len(log.read_text()) < 1_500


def stops(x):
    who(x)
    if x == 150:
        raise StopIteration
    return x


def test_stop_iteration_ends_the_results_wherever_it_ran():
    """As in list(map(...))."""
    for _ in range(3):
        assert smart_map(stops, range(300)) == list(range(150))


def kills_workers(x):
    """End the process, unless it is the caller."""
    who(x)
    if x == 120 and os.getpid() != CALLER:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_a_chunk_that_has_ended_a_worker_does_not_run_in_the_caller():
    """It runs in a new worker, which it ends again, unless the caller had claimed that item."""
    data = range(240)
    smart_map(who, data)
    for _ in range(4):
        reports = []
        try:
            got = smart_map(kills_workers, data, retries=1, report=reports.append)
        except Exception as error:  # noqa: BLE001 - which one it is, is checked
            assert type(error).__name__ == "WorkerLostError"
            assert error.index == 120
        else:
            assert got == list(data)
            spans = [s for s in reports[0].timeline if s.start <= 120 < s.start + s.items]
            assert reports[0].retried == 0 or not [s for s in spans if not s.worker]


def test_a_time_limit_ends_a_shared_call():
    """The caller does not begin what would end after it."""
    smart_map(who, range(300))
    begun = time.monotonic()
    with pytest.raises(TaskTimeoutError):
        smart_map(who, range(100_000), timeout=0.5)
    assert time.monotonic() - begun < 30  # not the 100 s that it would take


def dear_later(x):
    who(x)
    if x >= 200:
        time.sleep(0.02)
    return x


def turns_dear(x):
    """Cheap up to 1,000, then 200 times as dear."""
    end = time.process_time() + (0.000_005 if x < 1_000 else 0.001)
    while time.process_time() < end:
        pass
    return x


def test_a_worker_gives_back_a_chunk_that_takes_too_long():
    """Nobody could know; the others help with the rest of it."""
    for _ in range(2):
        reports = []
        data = range(1_600)
        got = smart_map(turns_dear, data, n_jobs=2, use_cache=False, report=reports.append)
        assert got == list(data)
        dear = [span.items for span in reports[0].timeline if span.start >= 1_000]
        assert max(dear) < 400


def stops_when_dear(x):
    if x == 1_100:
        raise StopIteration
    return turns_dear(x)


def test_a_chunk_that_is_given_back_may_end_the_results():
    """StopIteration is not taken for a chunk that took too long."""
    assert smart_map(stops_when_dear, range(1_600), n_jobs=2) == list(range(1_100))


def test_chunks_are_cut_anew_when_items_turn_out_dear():
    """The last items do not all wait behind one another in one chunk."""
    smart_map(who, range(300))
    reports = []
    assert smart_map(dear_later, range(300), report=reports.append) == list(range(300))
    late = [span for span in reports[0].timeline if span.start >= 220 and span.worker]
    assert all(span.items <= 40 for span in late)


@pytest.mark.parametrize("func", [f.double, who])
@pytest.mark.parametrize("when", [3, 30, 199])
def test_a_list_that_an_item_of_the_caller_extends(func, when):
    """The length is read again before the end, as by map."""
    smart_map(func, range(200))
    data = list(range(200))
    grown = []

    def work(x):
        if x >= when and os.getpid() == CALLER and not grown:
            grown.append(x)
            data.extend(range(200, 260))
        return func(x)

    assert len(smart_map(work, data)) == (260 if grown else 200)


def test_progress_counts_the_callers_items_too():
    """It rises to the number of items, and ends there."""
    for _ in range(2):
        seen = []
        smart_map(who, range(200), progress=lambda done, total, seen=seen: seen.append(done))
        assert seen == sorted(seen)
        assert seen[-1] == 200


def test_the_default_time_limit_of_sockets_does_no_harm(tmp_path):
    """A worker that waits for a task does not spin, and its tasks are not lost."""
    source = """
import socket, time
from amorsize import smart_map
socket.setdefaulttimeout(0.01)
def work(x):
    time.sleep(0.05 if x == 0 else 0.0001)
    return time.process_time()
if __name__ == "__main__":
    got = smart_map(work, range(40), n_jobs=3, chunksize=1)
    print(len(got), max(got) - min(got) < 1)
    print(smart_map(abs, (x for x in range(-30, 0)), n_jobs=2) == list(range(30, 0, -1)))
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "40 True\nTrue\n", ended.err


KILLED = """
import os, random, signal, sys, threading, time
from amorsize import smart_map, WorkerLostError
from tests.test_sharing import who
caller = os.getpid()
def children():
    with open(f"/proc/{caller}/task/{caller}/children") as file:
        return [int(pid) for pid in file.read().split()]
if __name__ == "__main__":
    random.seed(int(sys.argv[1]))
    def work(x):
        end = time.process_time() + 0.0005
        while time.process_time() < end:
            pass
        return [x] * 20
    expected = [[x] * 20 for x in range(150)]
    for _ in range(3):
        smart_map(work, range(150))
    killer, wrong, killed = os.getpid(), 0, 0
    for number in range(60):
        delay = random.uniform(0, 0.05)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(reader, 1)
            time.sleep(delay)
            for child in children():
                if child != os.getpid():
                    try:
                        os.kill(child, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            os._exit(0)
        os.write(writer, b"x")
        try:
            wrong += smart_map(work, range(150), retries=3) != expected
        except WorkerLostError as error:
            killed += 1
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    print(wrong, killed, children())
"""


@pytest.mark.timeout(200)
@pytest.mark.parametrize("seed", [1, 2])
def test_workers_that_are_killed_at_any_moment_lose_nothing(seed, tmp_path):
    """While claiming, between claim and note, in an item, while sending results."""
    path = tmp_path / "program.py"
    path.write_text(KILLED)
    with programs.started(path, seed) as process:
        ended = programs.finish(process, deadline=150)
    assert ended.out == "0 0 []\n", ended.out + ended.err


STOPPED = """
import os, signal, time
from amorsize import smart_map
caller = os.getpid()
def work(x):
    end = time.process_time() + 0.002
    while time.process_time() < end:
        pass
    if os.getpid() != caller and x > 50 and not os.path.exists({mark!r}):
        open({mark!r}, "w").close()
        if os.fork() == 0:
            time.sleep({seconds})
            os.kill(os.getppid(), signal.SIGCONT)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGSTOP)
    return x
if __name__ == "__main__":
    for _ in range(3):
        assert smart_map(work, range(200)) == list(range(200))
    print(os.path.exists({mark!r}))
"""


def test_a_worker_that_is_stopped_is_waited_for(tmp_path):
    """It is neither lost nor stuck, however long it is stopped."""
    source = STOPPED.format(mark=str(tmp_path / "mark"), seconds=10)
    assert programs.run_source(source, tmp_path, deadline=90).out == "True\n"


LAZY = """
import time
from amorsize import smart_imap, smart_map
def work(x):
    end = time.process_time() + 0.002
    while time.process_time() < end:
        pass
    return x
if __name__ == "__main__":
    smart_map(work, range(300))
    longest, last = 0.0, time.monotonic()
    for x in smart_imap(work, range(600)):
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    print(x, longest < 1.0)
    results = smart_imap(work, range(10_000))
    print(next(results))
    results.close()
"""


def test_a_consumer_does_not_wait_for_the_callers_own_items(tmp_path):
    """The caller runs only what is short; a closed iterator ends all claiming."""
    assert programs.run_source(LAZY, tmp_path, deadline=90).out == "599 True\n0\n"


def takes_30ms(x):
    end = time.process_time() + 0.03
    while time.process_time() < end:
        pass
    return os.getpid()


def test_a_consumer_of_long_items_gets_a_worker_for_each_cpu():
    """The caller must not run them, since the consumer would wait; so it is not counted."""
    reports = []
    list(smart_imap(takes_30ms, range(40)))
    pids = list(smart_imap(takes_30ms, range(40), report=reports.append))
    if reports[0].backend == "serial":
        pytest.skip("the machine is too busy for workers to pay")
    assert not reports[0].plan.shared
    assert len(set(pids) - {CALLER}) == reports[0].n_jobs >= 2


LIMITED = """
import os, signal, sys, time
from amorsize import smart_map
caller = os.getpid()
class Late(Exception): pass
class Limit:
    def __call__(self, number, frame):
        raise Late
def late(number, frame):
    raise Late
signal.signal(signal.SIGALRM, {handler})
def work(x):
    end = time.process_time() + 0.002
    while time.process_time() < end:
        pass
    if blocked and os.getpid() != caller:
        signal.setitimer(signal.ITIMER_REAL, 0)
        give_up = time.monotonic() + 60
        while not os.path.exists({over!r}) and time.monotonic() < give_up:
            time.sleep(0.01)
        if not os.path.exists({over!r}):
            open({waited!r}, "w").close()
    elif blocked and x > 5:
        while True:  # until the time limit
            pass
    return x
blocked = []
if __name__ == "__main__":
    for _ in range(3):
        smart_map(work, range(200))
    blocked.append(True)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        smart_map(work, range(200))
    except Late as error:
        print("late")
    open({over!r}, "w").close()
    print(os.path.exists({waited!r}))
"""


@pytest.mark.parametrize("handler", ["late", "Limit()", "Limit().__call__"])
def test_a_time_limit_in_the_callers_item_does_not_wait_for_workers(handler, tmp_path):
    """An exception of a signal handler is no failure of an item, which would wait for others."""
    over, waited = str(tmp_path / "over"), str(tmp_path / "waited")
    source = LIMITED.format(handler=handler, over=over, waited=waited)
    ended = programs.run_source(source, tmp_path, deadline=100)
    assert ended.out == "late\nFalse\n", ended.out + ended.err


INTERRUPTED = """
import os, random, signal, sys, time
from amorsize import smart_map
class Late(Exception): pass
error = {error}
def interrupt(number, frame):
    raise error
signal.signal(signal.SIGALRM, interrupt)
def work(x):
    end = time.process_time() + 0.001
    while time.process_time() < end:
        pass
    return x
def children():
    with open(f"/proc/self/task/{{os.getpid()}}/children") as file:
        return file.read().split()
def open_files():
    found = ((n, f"/proc/self/fd/{{n}}") for n in os.listdir("/proc/self/fd"))
    return {{n: os.readlink(path) for n, path in found if os.path.islink(path)}}
if __name__ == "__main__":
    for _ in range(4):
        smart_map(work, range(40))
    before, hits = open_files(), 0
    random.seed(2)
    for _ in range(250):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.045))
            got = smart_map(work, range(40))
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert got == list(range(40)), got
        except error:
            hits += 1
        assert not children(), children()
    left = {{n: path for n, path in open_files().items() if before.get(n) != path}}
    print(hits > 25, {{n: path for n, path in left.items() if "fd" not in path}})
"""


@pytest.mark.timeout(200)
@pytest.mark.parametrize("error", ["Late", "KeyboardInterrupt"])
def test_an_interrupt_at_any_moment_leaves_nothing_behind(error, tmp_path):
    """No worker and no descriptor stays, and the next call is right; at 500 moments in all."""
    source = INTERRUPTED.format(error=error)
    ended = programs.run_source(source, tmp_path, deadline=150)
    assert ended.out == "True {}\n", ended.out + ended.err


def briefly(x):
    """Compute for 0.3 ms, and tell which process did."""
    end = time.process_time() + 0.0003
    while time.process_time() < end:
        pass
    return x, os.getpid()


def test_the_caller_runs_the_last_items():
    """So that the workers end beside them, and not after them."""
    for _ in range(10):  # with too few CPUs for the workers, items take longer
        got, report = shared(briefly, range(600))
        assert [x for x, _ in got] == list(range(600))
        if report.worker_items and got[-1][1] == CALLER:
            return
    pytest.fail("a worker ran the last item, ten times")


class DiesLate:
    """Kills the first worker that runs one of the last items."""

    def __init__(self, mark, first):
        self.mark = mark
        self.first = first

    def __call__(self, x):
        briefly(x)
        if x >= self.first and os.getpid() != CALLER and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x


@pytest.mark.parametrize("first", [300, 560, 590])
def test_a_death_beside_the_last_items_loses_none(first, tmp_path):
    """Those that the caller has kept, and those of the dead worker."""
    for attempt in range(4):
        func = DiesLate(tmp_path / f"died-{attempt}", first)
        assert smart_map(func, range(600)) == list(range(600))


@pytest.mark.parametrize("guilty", [590, 598, 599])
def test_a_failure_among_the_last_items_is_the_calls(guilty):
    """Whoever runs it."""

    def fails(x):
        briefly(x)
        if x == guilty:
            raise ValueError(x)
        return x

    for _ in range(4):
        with pytest.raises(ValueError, match=str(guilty)):
            smart_map(fails, range(600))


def for_so_long(seconds):
    """Compute for so long."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds


@pytest.mark.parametrize("place", [6, 8, 10, 12, 14, 20])
@pytest.mark.parametrize("form", ["lazy", "limited"])
def test_a_chunk_given_back_near_the_end_finds_a_worker(form, place):
    """Where the caller must not run an item that long, because a consumer or a time limit waits."""
    data = [0.001] * 400
    data[-place - 1] = data[-place] = 0.3
    results = smart_imap(for_so_long, data) if form == "lazy" else None
    if results is None:
        results = smart_map(for_so_long, data, timeout=10)
    assert list(results) == data


class Queue:
    """The chunks that no worker has taken."""

    def __init__(self, numbers):
        self.numbers = list(numbers)

    def take_back(self):
        return self.numbers.pop(0) if self.numbers else None

    def has_tasks(self):
        return bool(self.numbers)

    def has_news(self):
        return False


def test_what_became_too_dear_for_the_caller_is_handed_out_again():
    """The caller must not keep a chunk that it may not run: nobody else would run it."""
    feed = Feed(for_so_long, ([0.001] * 40,), star=False)
    policy = Policy(2, lambda *_, **__: 10, bounded=True, shares=True, flexible=True)
    ledger, course = Ledger(0, ordered=True), Course(0.001, 0.0, 1.0)
    caller = Caller(feed, policy, ledger, course)
    chunks = [ledger.issue(feed.take(10, inherited=False)).number for _ in range(4)]
    queue = Queue(chunks)
    course.own.items = 2  # so that a block has a few items only
    assert caller.share(queue, 2, last=True)
    assert caller.holds
    course.item_seconds = 0.3  # as a worker has shown meanwhile
    assert caller.share(queue, 2, last=True)
    assert not caller.holds
    assert ledger.has_retries
    assert not caller.share(queue, 2, last=True)
