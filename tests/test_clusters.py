"""Calls on real clusters: Dask with processes, as commands and by ``LocalCluster``, and Ray."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from amorsize import SerializationError
from amorsize.remote.runner import Ship, Work, work
from amorsize.run.failure import unpack
from amorsize.run.transport import pack_shipped
from tests import programs

pytestmark = pytest.mark.timeout(300)
HEAD = """
import decimal, functools, itertools, logging, os, signal, sys, threading, time
import numpy
from amorsize import (SerializationError, WorkerLostError, last_run, smart_imap,
                      smart_imap_unordered, smart_map)
FACTOR = 2
def scaled(x): return FACTOR * x
def fails(x):
    if x == 77: raise LookupError("no 77")
    return x
def slow(x):
    time.sleep(0.05)
    return os.getpid()
def dies(x):
    if x == 33: os.kill(os.getpid(), signal.SIGKILL)
    return x
def precise(x): return str(decimal.Decimal(1) / 3)
if __name__ == "__main__":
"""
DASK = """
    from distributed import Client, LocalCluster
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None,
                           silence_logs=logging.CRITICAL)
    engine = client = Client(cluster)
"""
RAY = """
    import ray
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False,
             logging_level=logging.ERROR)
    engine = "ray"
"""
BASICS = """
    print(smart_map(scaled, range(3000), backend=engine) == [2 * x for x in range(3000)])
    print(last_run().backend, last_run().n_jobs)
    FACTOR = 3
    print(smart_map(scaled, range(50), backend=engine) == [3 * x for x in range(50)])
    print(list(smart_imap(abs, itertools.islice(itertools.count(), 200), backend=engine))
          == list(range(200)))
    print(sorted(smart_imap_unordered(abs, range(200), backend=engine)) == list(range(200)))
    try:
        smart_map(fails, range(200), backend=engine)
    except LookupError as error:
        print(error, error.__notes__[0])
    kept = smart_map(fails, range(80), backend=engine, return_exceptions=True)
    print(type(kept[77]).__name__, kept[76], kept[78])
    with decimal.localcontext() as context:
        context.prec = 5
        print(set(smart_map(precise, range(10), backend=engine)))
    table = numpy.arange(400_000.0)
    print(smart_map(lambda x: float(table[x]), range(100), backend=engine)
          == [float(x) for x in range(100)])
    many = [table, table.copy()]
    print(smart_map(lambda x, a: float(a[x]), range(200), itertools.cycle(many), backend=engine,
                    chunksize=5) == [float(x) for x in range(200)])
    def changed(a):
        a[0] += 1
        return float(a[0])
    print(smart_map(changed, [table] * 40, backend=engine, chunksize=1) == [1.0] * 40)
    try:
        smart_map(abs, [1, 2, threading.Lock()], backend=engine, chunksize=1)
    except SerializationError as error:
        print("index", error.index)
    try:
        sys.path.insert(0, sys.argv[1])
        import only_here
        smart_map(only_here.double, range(5), backend=engine)
    except ModuleNotFoundError as error:
        print(error)
    results = smart_imap(slow, itertools.count(), backend=engine, buffersize=6)
    print(next(results) > 0)
    results.close()
"""
EXPECTED = """True
remote 2
True
True
True
no 77 amorsize: raised for item 77: 77
LookupError 76 78
{'0.33333'}
True
True
True
index 2
No module named 'only_here'
True
"""


def run(source, folder, *args):
    """Run a program that uses a cluster; return what it printed, and what went wrong."""
    path = folder / "program.py"
    path.write_text(HEAD + source)
    return programs.run(path, *args, deadline=250, PYTHONPATH=str(programs.ROOT),
                        RAY_AUTH_MODE="disabled")  # fmt: skip


def needs(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"could not import {module!r}, of the dependency group 'engines'")


@pytest.fixture
def elsewhere(tmp_path):
    """Return a folder with a module that workers cannot import."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "only_here.py").write_text("def double(x):\n    return 2 * x\n")
    return folder


def test_dask_gives_what_map_gives(tmp_path, elsewhere):
    """For every form; with the caller's globals and state, exceptions, and large captured data."""
    needs("distributed")
    ended = run(DASK + BASICS, tmp_path, elsewhere)
    assert ended.out == EXPECTED, ended.err


def test_ray_gives_what_map_gives(tmp_path, elsewhere):
    """The same on Ray."""
    needs("ray")
    ended = run(RAY + BASICS, tmp_path, elsewhere)
    assert ended.out == EXPECTED, ended.err


def test_the_current_dask_client_is_found(tmp_path):
    """By name; and "auto" takes it for work that is worth it, and only then."""
    needs("distributed")
    source = (
        DASK
        + """
    print(smart_map(abs, range(50), backend="dask") == list(range(50)), last_run().backend)
    try:
        smart_map(abs, range(50), backend="dask", retries=0)
    except ValueError as error:
        print(error)
    print(smart_map(abs, range(50), backend="auto") == list(range(50)), last_run().backend)
    """
    )
    ended = run(source, tmp_path)
    first, second, third = ended.out.splitlines()
    assert (first, third) == ("True remote", "True serial"), ended.err
    assert "retries=0" in second
    assert "backend" in second


def test_dask_workers_come_and_go(tmp_path):
    """One is killed and two are added in the middle: all results are there, once."""
    needs("distributed")
    source = (
        DASK
        + """
    victim = next(iter(client.run(os.getpid).values()))
    threading.Timer(0.5, os.kill, (victim, signal.SIGKILL)).start()
    threading.Timer(1.0, cluster.scale, (4,)).start()
    pids = smart_map(slow, range(200), backend=engine)
    print(len(pids), len(set(pids)) > 2, max(map(len, [pids])) == 200)
    """
    )
    ended = run(source, tmp_path)
    assert ended.out == "200 True True\n", ended.err


def test_auto_takes_the_cluster_where_it_is_quicker(tmp_path):
    """By forecast: eight workers there, two CPUs here."""
    needs("distributed")
    source = (
        DASK.replace("threads_per_worker=1", "threads_per_worker=4")
        + """
    from tests.functions import busy_ms
    found = smart_map(busy_ms, range(3000), backend="auto")
    print(found == [2 * x for x in range(3000)], last_run().backend, last_run().caller_items > 0)
    print("dask is forecast" in last_run().reason)
    """
    )
    ended = run(source, tmp_path)
    assert ended.out == "True remote True\nTrue\n", ended.err


def test_ctrl_c_leaves_nothing_running(tmp_path):
    """What waits on the cluster is cancelled; what runs is a short chunk."""
    needs("distributed")
    source = (
        DASK
        + """
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        smart_map(slow, range(2000), backend=engine)
    except KeyboardInterrupt:
        print("interrupted")
    for _ in range(50):
        left = sum(map(len, client.processing().values()))
        if not left:
            break
        time.sleep(0.1)
    print(left)
    """
    )
    ended = run(source, tmp_path)
    assert ended.out == "interrupted\n0\n", ended.err


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_an_item_that_kills_its_workers_is_named(tmp_path, engine):
    """The others have results."""
    needs("distributed" if engine == "dask" else "ray")
    source = (
        (DASK if engine == "dask" else RAY)
        + """
    found = smart_map(dies, range(60), backend=engine, return_exceptions=True)
    print(type(found[33]).__name__, found[33].index, [x for x in found if type(x) is int]
          == [x for x in range(60) if x != 33])
    """
    )
    ended = run(source, tmp_path)
    # Ray tells of deaths on standard output.
    assert "WorkerLostError 33 True" in ended.out.splitlines(), ended.out + ended.err


@pytest.fixture
def commands(tmp_path):
    """Start a Dask scheduler and two workers as commands; return (address, their processes)."""
    needs("distributed")
    env = {**os.environ, "PYTHONPATH": str(programs.ROOT)}
    place = tmp_path / "scheduler.json"
    started = []

    def start(*args):
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + args[0], *args[1:]],
                env=env,
                cwd=tmp_path,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
          "--scheduler-file", place)  # fmt: skip
    for _ in range(2):
        start("worker", "--scheduler-file", place, "--nthreads", "1", "--no-dashboard",
              "--no-nanny", "--host", "127.0.0.1", "--memory-limit", "0")  # fmt: skip
    yield place, started
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(20)


BY_COMMAND = """
    from distributed import Client
    engine = client = Client(scheduler_file=sys.argv[1])
    client.wait_for_workers(2, timeout=60)
    print("ready", flush=True)
"""


def test_a_worker_that_is_cut_off_for_a_while(tmp_path, commands):
    """It is stopped for two seconds, as if the network had gone; the call waits or goes on."""
    place, (_, first, _) = commands
    source = (
        BY_COMMAND
        + """
    os.kill(int(sys.argv[2]), signal.SIGSTOP)
    threading.Timer(2.0, os.kill, (int(sys.argv[2]), signal.SIGCONT)).start()
    pids = smart_map(slow, range(80), backend=engine)
    print(len(pids))
    """
    )
    ended = run(source, tmp_path, place, first.pid)
    assert ended.out == "ready\n80\n", ended.err


def test_programs_that_share_workers_keep_their_own_names(tmp_path, commands):
    """Each has a main module of its own, with helpers of the same names."""
    place, _ = commands
    first = (
        BY_COMMAND
        + """
    def helper(x): return "first", x
    def work(x): return helper(x)
    results = smart_imap(work, range(200), backend=engine, chunksize=5, buffersize=20)
    print(next(results), flush=True)
    sys.stdin.readline()
    print(set(results) == {("first", x) for x in range(1, 200)})
    """
    )
    second = (
        BY_COMMAND
        + """
    def helper(x): return "second", x
    def work(x): return helper(x)
    print(smart_map(work, range(20), backend=engine) == [("second", x) for x in range(20)])
    """
    )
    path = tmp_path / "first.py"
    path.write_text(HEAD + first)
    with programs.started(path, place) as process:
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "('first', 0)\n"]
        between = run(second, tmp_path, place)
        ended = programs.finish(process, feed="\n")
    assert (between.out, ended.out) == ("ready\nTrue\n", "True\n"), between.err + ended.err


@pytest.fixture
def hosts():
    """Make two network namespaces with addresses of their own; return [(name, address)]."""
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("needs root and iproute2, to make network namespaces")
    found = []
    for number in (1, 2):
        name, net = f"amorsize{number}", f"10.77.{number}"
        for command in (
            f"netns add {name}",
            f"link add am{number} type veth peer name inside netns {name}",
            f"addr add {net}.1/24 dev am{number}",
            f"link set am{number} up",
            f"-n {name} addr add {net}.2/24 dev inside",
            f"-n {name} link set inside up",
            f"-n {name} link set lo up",
            f"-n {name} route add default via {net}.1",
        ):
            made = subprocess.run(["ip", *command.split()], capture_output=True, check=False)
            if made.returncode:
                forget(found)
                pytest.skip(f"this machine makes no network namespaces: {made.stderr.decode()}")
        found.append((name, f"{net}.2"))
    yield found
    forget(found)


def forget(hosts):
    for name, _ in hosts:
        subprocess.run(["ip", "netns", "delete", name], check=False)


def test_workers_on_other_hosts(tmp_path, hosts):
    """Each in a network namespace with an address of its own; the report names both."""
    needs("distributed")
    env = {**os.environ, "PYTHONPATH": str(programs.ROOT)}
    place = tmp_path / "scheduler.json"
    module = [sys.executable, "-m"]
    commands = [
        [*module, "distributed.cli.dask_scheduler", "--host", "0.0.0.0", "--port", "18786",
         "--no-dashboard", "--scheduler-file", place],
        *(
            ["ip", "netns", "exec", name, *module, "distributed.cli.dask_worker",
             f"tcp://{address[:-1]}1:18786", "--host", address, "--nthreads", "1",
             "--no-dashboard", "--no-nanny", "--name", name, "--memory-limit", "0"]
            for name, address in hosts
        ),
    ]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen(one, env=env, cwd=tmp_path, **quiet) for one in commands]
    source = """
    from distributed import Client
    engine = client = Client("tcp://127.0.0.1:18786", timeout=60)
    client.wait_for_workers(2, timeout=60)
    print(len(set(smart_map(slow, range(60), backend=engine))), len(last_run().nodes))
    print(sorted(one["host"] for one in client.scheduler_info()["workers"].values()))
    """
    try:
        ended = run(source, tmp_path)
    finally:
        for process in started:
            process.kill()
            process.wait(20)
    assert ended.out == f"2 2\n{[address for _, address in hosts]}\n", ended.err


def test_a_scheduler_that_is_stopped_is_an_error(tmp_path, commands):
    """In bounded time, with what was out."""
    place, (scheduler, *_) = commands
    source = (
        BY_COMMAND
        + """
    threading.Timer(1.0, os.kill, (int(sys.argv[2]), signal.SIGKILL)).start()
    begun = time.monotonic()
    try:
        smart_map(slow, range(2000), backend=engine)
    except WorkerLostError as error:
        print("scheduler is gone" in str(error), time.monotonic() - begun < 40)
    sys.stdout.flush()
    os._exit(0)
    """
    )
    ended = run(source, tmp_path, place, scheduler.pid)
    assert ended.out == "ready\nTrue True\n", ended.err


def test_another_version_of_python_is_refused():
    """With both versions named, and nothing opened."""
    ship = Ship("name", (3, 99), "here:1", "", None)
    answer = work(ship, Work(0, 1, pack_shipped(([1],), "")))
    error = unpack(answer.fields[3])
    assert type(error) is SerializationError
    here = ".".join(map(str, sys.version_info[:2]))
    assert f"Python {here}" in str(error)
    assert "Python 3.99" in str(error)


def test_a_call_that_a_worker_lacks_is_asked_for():
    """Where it neither came with the chunk nor was there before."""
    ship = Ship(f"unknown-{time.monotonic()}", sys.version_info[:2], "here:1", "", None)
    assert work(ship, Work(0, 1, pack_shipped(([1],), ""))) == "missing"
