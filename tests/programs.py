"""Running small programs as users do: in a process of their own, with a deadline."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent

# Libraries add start methods of their own (loky). The first is the quickest.
START_METHODS = [
    method
    for method in ("fork", "spawn", "forkserver")
    if method in multiprocessing.get_all_start_methods()
]

# Where the fork server's workers stand for all that inherit nothing: spawned ones differ in their
# start only, and take ten times as long for it. So they run with the slow tests.
MOSTLY_FORKSERVER = (
    [pytest.param("spawn", marks=pytest.mark.slow), "forkserver"]
    if "forkserver" in START_METHODS
    else ["spawn"]
)


# ``tools/mask`` hides what event loops of Unix need.
HAS_EVENT_LOOPS = os.name != "posix" or hasattr(socket, "AF_UNIX")


@dataclass
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str


def segments():
    """Return the shared segments of amorsize by the processes whose calls they belong to."""
    found = {}
    for name in os.listdir("/dev/shm"):
        if name.startswith("amorsize-"):
            found.setdefault(int(name.split("-")[2]), []).append(name)
    return found


@contextmanager
def started(*args, **env):
    """Run Python with these arguments in a process group of its own, ended at the end."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", *map(str, args)],
        env={**os.environ, "PYTHONPATH": path, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end_group(process.pid)
        process.communicate()


def finish(process, *, feed=None, deadline=60):
    """Wait for a program and all of its process group; fail if either is still there."""
    try:
        out, err = process.communicate(feed, timeout=deadline)
    except subprocess.TimeoutExpired:
        # faulthandler tells where it hangs; Windows has no such signal for another process.
        process.kill() if os.name == "nt" else process.send_signal(signal.SIGABRT)
        out, err = process.communicate()
        raise AssertionError(f"not over after {deadline} s:\n{out}\n{err}") from None
    if not wait_for_group(process.pid, 5):
        raise AssertionError(f"processes left behind:\n{out}\n{err}")
    return Ended(process.returncode, out, err)


def wait_for_rest(process, *, deadline=20):
    """Wait until a program's main thread sleeps and stays asleep.

    Python itself loses an interrupt that comes after its last look for one and before the system
    call it then sleeps in: one of 1,500 in a bare program on a busy machine.
    """
    main = psutil.Process(process.pid)
    give_up = time.monotonic() + deadline
    switches = None
    while switches != (switches := main.num_ctx_switches()):
        if time.monotonic() > give_up:
            raise AssertionError(f"the main thread is not asleep after {deadline} s")
        time.sleep(0.1)


def run(*args, feed=None, deadline=60, **env):
    """Run Python with these arguments to its end."""
    with started(*args, **env) as process:
        return finish(process, feed=feed, deadline=deadline)


def run_source(source, folder, *, name="program.py", deadline=60, **env):
    """Run a program given as text."""
    path = Path(folder) / name
    path.write_text(source)
    return run(path, deadline=deadline, **env)


def group(leader):
    """Return the living processes of a group; a zombie is not left."""
    members = []
    for process in psutil.process_iter(["pid", "ppid", "status"]):
        try:
            if _is_of(process, leader, members) and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.Error):
            continue
    return members


def _is_of(process, leader, members):
    """Return whether a process is of a group: on Windows, a descendant of the leader."""
    if hasattr(os, "getpgid"):
        return os.getpgid(process.pid) == leader
    return process.pid == leader or process.ppid() in (leader, *(one.pid for one in members))


def wait_for_group(leader, seconds):
    """Return whether a group is empty within so many seconds."""
    _, alive = psutil.wait_procs(group(leader), timeout=seconds)
    return not alive


def end_group(leader):
    for process in group(leader):
        with suppress(psutil.NoSuchProcess):
            process.kill()
