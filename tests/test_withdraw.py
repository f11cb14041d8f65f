"""In the automatic mode, what workers cannot do as the caller can is done by the caller."""

import threading
import time

import pytest

from amorsize import SerializationError, smart_imap, smart_map
from tests import programs

METHODS = ["fork", "spawn", "forkserver"]


def slow(x):
    time.sleep(0.003)
    return x if isinstance(x, int) else 7


class OnlyHere:
    """Pickles, and does not open in a worker."""

    def __reduce__(self):
        return open_here, (threading.get_native_id(),)


def open_here(thread):
    if thread != threading.get_native_id():
        raise RuntimeError("it does not open here")
    return 7


def items(late):
    yield from range(60)
    yield late
    yield from range(60)


@pytest.mark.parametrize("late", [threading.Lock(), OnlyHere()], ids=["not sent", "not opened"])
@pytest.mark.parametrize("method", METHODS)
def test_a_late_item_that_does_not_travel_is_run_here(method, late):
    """With all that follow; each item runs once, and the report says why."""
    reports = []
    got = smart_map(slow, items(late), mp_context=method, report=reports.append)
    assert got == [*range(60), 7, *range(60)]
    if method == "fork":  # elsewhere the caller may have run it before any worker was ready
        own = [span for span in reports[0].timeline if not span.worker]
        ran_here = any(span.start <= 60 < span.start + span.items for span in own)
        assert ran_here or "the items left ran in the calling process" in str(reports[0].warnings)


def test_a_late_item_of_a_lazy_run_is_run_here():
    """In order, as it comes."""
    got = smart_imap(slow, items(threading.Lock()), mp_context="fork")
    assert list(got) == [*range(60), 7, *range(60)]


@pytest.mark.parametrize("method", METHODS)
def test_where_workers_were_asked_for_the_item_is_named(method):
    """The error has the index of the item at fault."""
    data = iter([0, 1, 2, 3, threading.Lock(), 5])
    with pytest.raises(SerializationError) as caught:
        smart_map(slow, data, n_jobs=2, mp_context=method, chunksize=3)
    assert caught.value.index == 4


@pytest.mark.parametrize(("method", "n_jobs"), [("fork", None), *((m, 2) for m in METHODS)])
def test_a_late_result_that_does_not_travel_is_named(method, n_jobs):
    """Its item has run, and does not run again: the error has its index."""
    with pytest.raises(SerializationError) as caught:
        smart_map(lock_at_50, range(100), mp_context=method, n_jobs=n_jobs)
    assert caught.value.index == 50


def lock_at_50(x):
    time.sleep(0.003)
    return threading.Lock() if x == 50 else x


NOT_THERE = """
import importlib.util, sys, time
from amorsize import smart_map
lines = ["import time", "def work(x):", "    time.sleep(0.004)", "    return x * FACTOR"]
source = chr(10).join([*lines, "FACTOR = 2"])
open({file!r}, "w").write(source)
spec = importlib.util.spec_from_file_location("by_path", {file!r})
module = importlib.util.module_from_spec(spec)
{register}
spec.loader.exec_module(module)
module.FACTOR = 3
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        got = smart_map(module.work, range(120), mp_context=method)
        assert got == [3 * x for x in range(120)], got[:5]
    print("right")
"""


@pytest.mark.parametrize("register", ["", "sys.modules['by_path'] = module"])
def test_functions_of_modules_loaded_by_path(register, tmp_path):
    """They run, in workers or here, with the values their module has now."""
    source = NOT_THERE.replace("{file!r}", repr(str(tmp_path / "elsewhere.py")))
    ended = programs.run_source(source.replace("{register}", register), tmp_path)
    assert ended.out == "right\n", ended.err


@pytest.mark.parametrize("data", ["range(60)", "iter(range(60))"])
def test_chunks_that_no_worker_has_begun_are_taken_back(data, tmp_path):
    """While workers start the caller runs dry of other items: it takes back what was handed out."""
    source = f"""
import time
from amorsize import smart_map
from tests.slow_start import make_slow
make_slow()
def work(x):
    time.sleep(0.005)
    return x
if __name__ == "__main__":
    reports = []
    began = time.monotonic()
    got = smart_map(work, {data}, n_jobs=None, mp_context="spawn", report=reports.append)
    assert got == [*range(60)]
    print(reports[0].caller_items, time.monotonic() - began < 2.5)
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "60 True\n", ended.out + ended.err


@pytest.mark.parametrize("last", [3, 40, 59])
def test_an_exit_in_a_chunk_that_was_taken_back_names_its_item(last, tmp_path):
    """An item that calls sys.exit() is named in the note, in whichever way the caller ran it."""
    source = f"""
import sys, time
from amorsize import smart_map
from tests.slow_start import make_slow
make_slow()
def work(x):
    time.sleep(0.005)
    return sys.exit(7) if x == {last} else x
if __name__ == "__main__":
    try:
        smart_map(work, range(60), mp_context="spawn")
    except SystemExit as error:
        print(error.code, error.__notes__[:1])
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == f"7 ['amorsize: raised for item {last}: {last}']\n", ended.out + ended.err


def test_an_unreadable_memory_file_system_does_no_harm(tmp_path):
    """Large values go through the folder of temporary files; every method works."""
    source = """
import os
real = os.access
os.access = lambda path, mode, **options: path != "/dev/shm" and real(path, mode, **options)
from amorsize import smart_map
table = bytes(300_000)
def work(x):
    return bytes([x]) * 400_000 + table[:1]
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        got = smart_map(work, iter(range(6)), n_jobs=2, mp_context=method)
        assert [x[0] for x in got] == [*range(6)]
    print("right", [n for n in os.listdir("/dev/shm") if f"-{os.getpid()}-" in n])
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "right []\n", ended.err


NO_START = """
import multiprocessing, os, time, warnings
from amorsize import smart_map

# From 3.15 on multiprocessing warns where its tracker of resources cannot start.
warnings.filterwarnings("ignore", "resource_tracker")

def work(x):
    time.sleep(0.004)
    return -x

{break_it}
reports = []
got = smart_map(work, range(150), mp_context="{method}", report=reports.append)
print(got == [-x for x in range(150)], reports[0].warnings)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize(
    "break_it",
    ['os.environ["PYTHONHOME"] = "/nonexistent"', 'multiprocessing.set_executable("/bin/false")'],
    ids=["no library", "no Python"],
)
def test_where_no_worker_can_start_the_caller_runs_the_items(tmp_path, method, break_it):
    """New interpreters end at once, whatever the reason."""
    ended = programs.run_source(NO_START.format(method=method, break_it=break_it), tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("True"), ended.out


@pytest.mark.parametrize("method", METHODS)
def test_without_retries_what_other_workers_have_begun_is_waited_for(method, tmp_path):
    """An item that does not open sends the rest to the caller; no item runs twice."""
    log = tmp_path / "runs"

    def noted(x):
        with open(log, "a") as file:
            file.write(f"{x if isinstance(x, int) else 60}\n")
        time.sleep(0.02)
        return x if isinstance(x, int) else 7

    options = {"mp_context": method, "retries": 0, "use_cache": False}
    got = smart_map(noted, items(OnlyHere()), **options)
    assert got == [*range(60), 7, *range(60)]
    runs = sorted(map(int, log.read_text().split()))
    assert runs == sorted([*range(60), 60, *range(60)])
