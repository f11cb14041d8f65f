"""The channel of pipes, which Windows needs. It is tried here with Unix's start methods, too."""

import ctypes
import logging
import os
import time

import psutil
import pytest

from amorsize import TaskTimeoutError, WorkerLostError, smart_map
from amorsize.run import pipes, processes
from amorsize.run.channel import END
from tests import programs
from tests.functions import busy_ms, double, pid_of

METHODS = [name for name in ("spawn", "forkserver") if name != "forkserver" or os.name == "posix"]


@pytest.fixture(params=METHODS, autouse=True)
def options(request, monkeypatch):
    """Have crews use pipes; return options that ask for two workers."""
    if request.param not in __import__("multiprocessing").get_all_start_methods():
        pytest.skip("this system has no such start method")
    monkeypatch.setattr(processes, "open_channel", pipes.PipeChannel)
    return {"mp_context": request.param, "n_jobs": 2}


def reverse(data):
    return data[::-1]


def wait_for(path_or_none, path):
    """Wait until a file exists; make another one before."""
    if path_or_none:
        open(path_or_none, "w").close()
    give_up = time.monotonic() + 60
    while not os.path.exists(path):
        if time.monotonic() > give_up:  # an assert of pytest's would lead to all of the tests
            raise TimeoutError(f"nobody has made {path}")
        time.sleep(0.005)
    return os.getpid()


def hold_the_gil(seconds, data):
    """Run C code that keeps Python from running any thread of this process."""
    if seconds:
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return len(data)


def log(x):
    for _ in range(20):
        logging.getLogger("tests.pipes").warning("item %d", x)
    return x


def test_kept_workers_serve_call_after_call(options):
    """Small items, large ones and none, all in the workers of the first call."""
    assert smart_map(double, range(1000), **options) == [2 * x for x in range(1000)]
    first = set(smart_map(pid_of, range(50), chunksize=1, **options))
    for size in (0, 100, 10_000, 3_000_000):
        data = [bytes([number]) * size + b"!" for number in range(20)]
        assert smart_map(reverse, data, **options) == [part[::-1] for part in data]
    assert set(smart_map(pid_of, range(50), chunksize=1, **options)) <= first


def test_no_item_waits_behind_another_one_while_a_worker_is_idle(options, tmp_path):
    """An item sent ahead to a busy worker is called back: 0 ends only after 3 has run."""
    gate = tmp_path / "gate"
    gate.touch()
    last = tmp_path / "last"
    data = [(None, last), (None, gate), (None, gate), (last, gate)]
    pids = smart_map(wait_for, *zip(*data, strict=True), chunksize=1, **options)
    assert pids[0] != pids[3]


@pytest.mark.skipif(os.name == "nt", reason="PyDLL(None) is this program itself, on Unix only")
def test_a_worker_that_reads_nothing_does_not_block_the_caller(options):
    """Its thread cannot run, and much is waiting for it: the time limit holds."""
    data = [os.urandom(20_000) for _ in range(40)]
    seconds = [0.0, 60.0, *[0.0] * 38]
    with pytest.raises(TaskTimeoutError) as caught:
        smart_map(hold_the_gil, seconds, data, task_timeout=1.0, chunksize=1, **options)
    assert caught.value.index == 1


def die_on_5(x):
    if x == 5:
        os._exit(9)
    return x


def test_a_death_is_noticed_and_its_item_named(options):
    """The others' results are kept."""
    with pytest.raises(WorkerLostError, match="item 5"):
        smart_map(die_on_5, range(8), chunksize=1, **options)
    results = smart_map(die_on_5, range(8), chunksize=1, return_exceptions=True, **options)
    assert [type(one) for one in results] == [int] * 5 + [WorkerLostError] + [int] * 2


def test_log_records_of_threads_and_results_arrive_whole(options, caplog):
    """More of them than a pipe holds."""
    assert smart_map(log, range(200), chunksize=1, **options) == list(range(200))
    assert len([one for one in caplog.records if one.name == "tests.pipes"]) == 4000


def test_more_workers_than_the_system_can_wait_for_are_not_started(options, monkeypatch):
    """The call goes on with as many as can be."""
    monkeypatch.setattr(pipes, "MOST_WAITED_FOR", 3)
    pids = smart_map(pid_of, range(60), **{**options, "n_jobs": 5}, chunksize=1)
    assert len(set(pids)) <= 3


def test_a_failure_ends_the_call_and_the_crew_serves_the_next(options):
    """What was sent ahead runs, as in a Pool; what was not is forgotten."""
    with pytest.raises(ZeroDivisionError):
        smart_map(reciprocal, [*range(20, 0, -1), 0, *range(1, 200)], chunksize=1, **options)
    assert smart_map(busy_ms, range(30), **options) == smart_map(busy_ms, range(30), n_jobs=1)


def reciprocal(x):
    return 1 / x


ORPHANS = """
import os, sys, time
from amorsize import smart_map
from amorsize.run import pipes, processes
processes.open_channel = pipes.PipeChannel
def work(x):
    print(os.getpid(), flush=True)
    time.sleep(300)
if __name__ == "__main__":
    smart_map(work, range(2), n_jobs=2, chunksize=1, mp_context={method!r})
"""


@pytest.mark.skipif(os.name == "nt", reason="the tests cannot pass a pipe's end on there")
def test_workers_end_with_a_caller_that_is_killed(options, tmp_path):
    """In the middle of an item."""
    path = tmp_path / "program.py"
    path.write_text(ORPHANS.format(method=options["mp_context"]))
    with programs.started(path) as process:
        workers = [psutil.Process(int(process.stdout.readline())) for _ in range(2)]
        process.kill()
        _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


class TestLine:
    """One worker's pipes, without a worker."""

    @pytest.fixture
    def ends(self):
        channel = pipes.PipeChannel()
        ends = [channel.connect() for _ in range(2)]
        for _, frames in ends:
            channel.listen(None, frames)
        yield channel, *ends
        for link, _ in ends:
            link.release()
        channel.close()

    def test_a_starting_worker_gets_one_small_message_ahead_and_no_large_one(self, ends):
        """A write to a process that does not read yet would wait."""
        channel, *_ = ends
        for size in (3, 4, 5, pipes.SMALL_BYTES + 1):
            channel.put(b"x" * size)
        assert [len(message) for message in channel.waiting] == [5, pipes.SMALL_BYTES + 1]

    def test_each_worker_is_asked_once_to_end(self, ends):
        """After the last task, even if one of them is still busy."""
        channel, (first, _), (second, _) = ends
        for _ in range(2):
            channel.put(END)
        assert first._tasks.recv_bytes() == second._tasks.recv_bytes() == END
        channel.put(END)
        assert list(channel.waiting) == [END]
