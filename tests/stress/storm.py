"""A storm on one cache folder: ``python -m tests.stress.storm SEED PROCESSES THREADS OPERATIONS``.

Processes of threads do random things to the folder at once; some are killed on the way.
Any exception ends it with code 1.
"""

import multiprocessing
import os
import random
import signal
import sys
import threading
import time

from amorsize import (
    cache_stats,
    check_cache,
    clear_cache,
    export_cache,
    get_cache_dir,
    import_cache,
    prune_expired_cache,
)
from amorsize.decide.figures import Profile, size_bucket
from amorsize.measure.machine import this_machine
from amorsize.memory.cache import CACHE
from amorsize.memory.records import Record, environment_of

FUNCTIONS = [f"{number:016x}" for number in range(40)]


def record(rng):
    seconds = rng.choice((3e-5, 3e-4, 3e-3, 3e-2, 3.0))
    items = rng.choice((5, 50, 500, 5_000, 50_000))
    return Record(
        func=rng.choice(FUNCTIONS),
        size=size_bucket(items),
        items=items,
        profile=Profile(seconds, least_seconds=seconds / 2, most_seconds=seconds * 2),
        executor="process",
        n_jobs=2,
        chunksize=7,
        environment=environment_of(this_machine(), "fork"),
        updated=time.time(),
    )


def one_operation(rng, folder, name):
    here = environment_of(this_machine(), "fork")
    draw = rng.random()
    if draw < 0.45:
        CACHE.remember(record(rng), run_seconds=1.0, stable=True)
    elif draw < 0.9:
        items = rng.choice((5, 50, 500, 5_000, 50_000))
        found = CACHE.look_up(rng.choice(FUNCTIONS), items, here)
        assert found is None or found.size == size_bucket(items)
    elif draw < 0.93:
        CACHE.forget_records(pending=False, written=False)
    elif draw < 0.95:
        clear_cache()
    elif draw < 0.96:
        prune_expired_cache()
    elif draw < 0.97:
        cache_stats()
    elif draw < 0.98:
        CACHE.places.tidy(str(get_cache_dir()))
    else:
        path = os.path.join(folder, name)
        export_cache(path)
        import_cache(path, overwrite=rng.random() < 0.5)


def work(seed, threads, operations, folder):
    failed = []

    def loop(number):
        rng = random.Random(seed * 1_000 + number)
        try:
            for _ in range(operations):
                one_operation(rng, folder, f"{seed}-{number}")
        except BaseException as error:
            failed.append(error)
            raise

    running = [threading.Thread(target=loop, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    sys.exit(1 if failed else 0)


def main(seed, processes, threads, operations):
    rng = random.Random(seed)
    folder = os.path.dirname(os.environ["AMORSIZE_CACHE_DIR"])
    start = multiprocessing.get_context("spawn").Process
    running, number, killed = [], seed, 0
    for _ in range(processes):
        number += 1
        running.append(start(target=work, args=(number, threads, operations, folder)))
        running[-1].start()
    for _ in range(processes):
        time.sleep(rng.uniform(0.2, 0.5))
        victim = rng.choice(running)
        if victim.is_alive():
            os.kill(victim.pid, signal.SIGKILL)
            killed += 1
    for process in running:
        process.join()
    codes = [process.exitcode for process in running]
    wrong = check_cache()
    print(f"seed {seed}: codes {codes}, {killed} killed, wrong: {wrong}")
    return 1 if wrong or any(code not in (0, -signal.SIGKILL) for code in codes) else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
