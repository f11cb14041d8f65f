"""Calls under fire: ``python -m tests.stress.chaos SEED CALLS``.

A second process kills random workers of this one at random moments while it makes call after call;
each result is compared, and each item accounted for by what it wrote to a file.
"""

import faulthandler
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial

import psutil

from amorsize import smart_imap, smart_imap_unordered, smart_map

DEADLINE_SECONDS = 100
# In one call: an enemy that never tires would keep spawned workers of a loaded machine from ever
# being ready.
MOST_SHOTS = 40
METHODS = ("fork", "fork", "spawn", "forkserver")


def logged(path, work, x):
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, x.to_bytes(4, "little"))
    os.close(descriptor)
    return work(x)


def tiny(x):
    return 2 * x


def busy(x):
    return sum(range(x % 50 * 1_000))


def waiting(x):
    time.sleep(0.002)
    return -x


def large(x):
    return bytes([x % 251]) * (x % 7 * 300_000)


def many(x):
    return [str(x)] * (x % 5 * 5_000)


WORKS = (tiny, busy, waiting, large, many)


def fire(pid, seed):
    """Kill random workers of a process until it is gone."""
    rng = random.Random(seed)
    target = psutil.Process(pid)
    killed, left = 0, [MOST_SHOTS]
    signal.signal(signal.SIGUSR1, lambda *_: left.__setitem__(0, MOST_SHOTS))  # another call
    print("ready", flush=True)
    try:
        while True:
            time.sleep(rng.uniform(0.01, 0.6))
            for _ in range(min(left[0], rng.choice((1, 1, 1, 2, 5)))):
                hit = shoot(rng, target)
                killed += hit
                left[0] -= hit
            print(killed, flush=True)
    except psutil.NoSuchProcess:
        return


def shoot(rng, target):
    """Kill one worker; return how many were hit."""
    workers = [child for child in target.children(recursive=True) if is_worker(child)]
    if not workers:
        return 0
    try:
        os.kill(rng.choice(workers).pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def is_worker(child):
    try:
        line = " ".join(child.cmdline())
        by_server = "forkserver" in " ".join(child.parent().cmdline())
    except (psutil.Error, AttributeError):
        return False
    if by_server:
        return True
    return not any(word in line for word in ("resource_tracker", "forkserver", "--fire"))


def one_call(rng, folder, number):
    """Make a random call; return the number of items that ran more than once."""
    work, items = rng.choice(WORKS), rng.choice((1, 7, 60, 300))
    options = {
        "mp_context": rng.choice(METHODS),
        "n_jobs": rng.choice((1, 2, 3, 5)),
        "backend": "process",
        "chunksize": rng.choice((None, None, 1, 5, 40)),
        "retries": 1_000,  # the enemy is not the items' own doing
    }
    path = os.path.join(folder, f"{number}")
    open(path, "wb").close()
    func = partial(logged, path, work)
    data = range(items) if rng.random() < 0.5 else iter(range(items))
    form = rng.choice((smart_map, smart_imap, smart_imap_unordered))
    got = list(form(func, data, **options))
    expected = list(map(work, range(items)))
    if form is smart_imap_unordered:
        got.sort(key=repr)
        expected.sort(key=repr)
    assert got == expected, (number, work.__name__, items, options)
    with open(path, "rb") as file:
        runs = file.read()
    ran = [int.from_bytes(runs[i : i + 4], "little") for i in range(0, len(runs), 4)]
    assert set(ran) == set(range(items)), (number, "items that never ran")
    os.unlink(path)
    return len(ran) - items


def main(seed, calls):
    rng = random.Random(seed)
    enemy = subprocess.Popen(
        [sys.executable, "-m", "tests.stress.chaos", "--fire", str(os.getpid()), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
    )
    again = 0
    assert enemy.stdout.readline() == "ready\n"
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(calls):
                faulthandler.dump_traceback_later(DEADLINE_SECONDS, exit=True)
                enemy.send_signal(signal.SIGUSR1)
                again += one_call(rng, folder, number)
        faulthandler.cancel_dump_traceback_later()
    finally:
        enemy.kill()
        shots = (enemy.communicate()[0].split() or ["0"])[-1]
    print(f"seed {seed}: {calls} calls, {shots} workers killed, {again} items run again")


if __name__ == "__main__":
    if sys.argv[1] == "--fire":
        fire(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
