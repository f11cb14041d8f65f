"""What items need of memory is known, and limits the workers."""

import os

import pytest

from amorsize.decide.figures import FIRST_COSTS, Profile
from amorsize.decide.learning import merged_profile
from amorsize.decide.planner import PlanInput, StartOption, make_plan
from amorsize.run.memory import WorkerMemory
from tests import programs

MB = 1_000_000

NEEDY = """
import sys
from amorsize import smart_map

def touch(size):
    data = bytearray(size)
    data[::4096] = b"x" * len(data[::4096])
    return data

def need(x):
    data = touch(300_000_000)
    return sum(len(data) for _ in range(2_000_000)) if x < 0 else len(data)

if __name__ == "__main__":
    earlier, method = int(sys.argv[1]), sys.argv[2]
    if earlier:
        touch(earlier)
    options = {"n_jobs": 2} if method != "here" else {"n_jobs": 1}
    if method != "here":
        options["mp_context"] = method
    reports = []
    for _ in range(2):
        smart_map(need, range(6), report=reports.append, **options)
        print(reports[-1].profile.memory_bytes)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("earlier", [0, 700 * MB])
def test_what_items_need_in_workers_is_remembered(tmp_path, method, earlier):
    """Also where the caller itself has needed more before."""
    path = tmp_path / "program.py"
    path.write_text(NEEDY)
    ended = programs.run(path, earlier, method)
    assert ended.code == 0, ended.err
    for line in ended.out.split():
        assert 200 * MB < int(line) < 400 * MB


def test_what_items_need_in_the_caller_is_remembered(tmp_path):
    """Its peak grows with the first of them, whatever is looked up when."""
    path = tmp_path / "program.py"
    path.write_text(NEEDY)
    ended = programs.run(path, 0, "here")
    assert ended.code == 0, ended.err
    for line in ended.out.split():
        assert 200 * MB < int(line) < 400 * MB


LIMITED = """
import os, time
from amorsize import smart_map
from amorsize.call import adviser
adviser.free_memory = lambda: 600_000_000  # of a smaller machine

def wait_with_100_mb(_):
    data = bytearray(100_000_000)
    data[::4096] = b"x" * len(data[::4096])
    time.sleep(0.3)
    return os.getpid()

if __name__ == "__main__":
    for _ in range(2):
        reports = []
        smart_map(wait_with_100_mb, range(24), report=reports.append)
        assert 1 <= reports[0].n_jobs <= 5, reports[0]
        assert len(reports[0].workers) <= 5, reports[0]
"""


def test_free_memory_limits_the_workers(tmp_path):
    """In the first call by what the caller's own items needed, later by what is remembered."""
    ended = programs.run_source(LIMITED, tmp_path)  # what this process needed before would hide it
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("free", [None, 10**9, 10**10])
def test_a_plan_fits_the_free_memory(free):
    """Workers and their items together take no more than is free."""
    profile = Profile(1.0, cpu_share=0.01, memory_bytes=300 * MB)
    room = PlanInput(1_000, 8, FIRST_COSTS, (StartOption("fork"),), free_bytes=free)
    plan = make_plan(profile, room)
    assert plan.n_jobs == 256 if free is None else plan.n_jobs * 300 * MB < free


def test_a_need_is_believed_at_once_and_forgotten_by_and_by():
    """Workers that do not fit are killed; those that would fit are only missed."""
    small, large = Profile(0.01, memory_bytes=10 * MB), Profile(0.01, memory_bytes=300 * MB)
    assert merged_profile(small, large).memory_bytes == 300 * MB
    assert 10 * MB < merged_profile(large, small).memory_bytes < 200 * MB


def test_a_process_that_is_gone_says_nothing():
    """Nor does the calling process, which is no worker."""
    memory = WorkerMemory("fork")
    memory.begin()
    memory.look([0, os.getpid(), 2**22 + 5])
    assert memory.grown is None
