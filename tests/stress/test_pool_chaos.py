"""Jobs of all kinds at once, while workers of their pool are killed at random."""

import os
import random
import signal
import threading
import time

import pytest

from amorsize import Pool, WorkerLostError

SEED = int(os.environ.get("AMORSIZE_CHAOS_SEED", "20261130"))


def doubled(x):
    if x % 97 == 0:
        time.sleep(0.005)
    return x * 2


def of_size(x):
    return bytes(x)


def fails_at_37(x):
    if x == 37:
        raise ValueError(x)
    return x


def given(pool, dice):
    """Give the pool some jobs; return (result, what it is to be) of each."""
    sizes = [1, 300_000, 5, 70_000] * 3
    items = range(dice.choice([1, 10, 300, 2_000]))
    chunksize = dice.choice([1, 1, 3, None])
    jobs = [
        (pool.map_async(doubled, items, chunksize), [2 * x for x in items]),
        (pool.map_async(of_size, sizes, 1), [bytes(x) for x in sizes]),
        (pool.map_async(len, [bytes(x) for x in sizes], 1), sizes),
        (pool.apply_async(doubled, (3,)), 6),
        (pool.map_async(fails_at_37, range(60), 1), ValueError),
    ]
    return dice.sample(jobs, dice.randint(2, len(jobs)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("most", [None, 7])
@pytest.mark.parametrize("rounds", [20, pytest.param(1_000, marks=pytest.mark.slow)])
def test_every_job_of_a_pool_ends_as_it_should(rounds, most):
    """With its results, its own exception, or the news that two workers died with it."""
    dice, stop = random.Random(SEED), threading.Event()
    with Pool(3, maxtasksperchild=most) as pool:

        def kill():
            own = random.Random(SEED)
            while not stop.wait(own.uniform(0.02, 0.2)):
                for member in own.sample(pool._pool, min(1, len(pool._pool))):
                    if member.is_alive():
                        os.kill(member.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            for _ in range(rounds):
                for result, wanted in given(pool, dice):
                    try:
                        assert result.get(60) == wanted
                    except ValueError:
                        assert wanted is ValueError
                    except WorkerLostError:
                        pass  # two deaths with one order are possible
        finally:
            stop.set()
            killer.join()
    pool.join()
