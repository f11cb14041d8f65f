"""Many threads that switch as often as they can: caches, memo and crews give no wrong result."""

import random
import sys
import threading
import time

import pytest

from amorsize import optimize, parallelize, smart_imap, smart_map
from amorsize.identity.fingerprint import fingerprint

THREADS = 8


def closure(k):
    return lambda x: x * k + len(str(x))


@parallelize
def decorated(x):
    return x - 1


def mapped(rng):
    """A closure of its own each time: look-ups, records and the memo change all the time."""
    func, items = closure(rng.randrange(50)), range(rng.randrange(1, 2_000))
    assert smart_map(func, items) == list(map(func, items))


def streamed(rng):
    func, size = closure(rng.randrange(50)), rng.randrange(1, 500)
    assert list(smart_imap(func, iter(range(size)))) == list(map(func, range(size)))


def in_threads(rng):
    func, items = closure(rng.randrange(5)), range(rng.randrange(1, 200))
    assert smart_map(func, items, n_jobs=2, backend="thread") == list(map(func, items))


def fingerprinted(rng):
    k = rng.randrange(50)
    assert fingerprint(closure(k)) == fingerprint(closure(k)) != fingerprint(closure(k + 1))


def advised(rng):
    assert optimize(closure(rng.randrange(50)), range(100)).n_jobs >= 1


def called(rng):
    size = rng.randrange(1, 300)
    assert decorated.map(range(size)) == list(range(-1, size - 1))


WAYS = (mapped, mapped, streamed, in_threads, fingerprinted, advised, called)


@pytest.mark.parametrize(
    "seconds", [3, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
def test_eight_threads_get_the_results_of_map(seconds):
    """Threads that switch every microsecond, for some seconds; for a minute with ``-m slow``."""
    errors, calls = [], []
    until = time.monotonic() + seconds

    def work(seed):
        rng = random.Random(seed)
        try:
            while time.monotonic() < until and not errors:
                rng.choice(WAYS)(rng)
                calls.append(1)
        except BaseException as error:
            errors.append(error)
            raise

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]
    assert len(calls) >= THREADS
