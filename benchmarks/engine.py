"""The engine against Pool, ProcessPoolExecutor, joblib and mpire, in one run.

Every way is timed in a fresh process, and the ways take turns. One call is made first, and the next
ones are timed. Of the spawn workloads the first call is timed. "Ideal" is the time of one process
per CPU for equal shares of the items, without start and without results sent back. It is measured,
since two CPUs at work are each slower than one alone. Start-up is the time to open and close a
Pool for a trivial task.

    python benchmarks/engine.py [workload ...]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from common import in_fresh_process, table, write
from workloads import heavy_tail, make_array, one_ms, rising

ROUNDS = 3
CALLS = 2
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total(array: Any) -> float:
    """Work on an array for about 20 ms."""
    return float(sum(float((array * k).sum()) for k in range(20)))


def arrays() -> list[Any]:
    return [make_array(x) for x in range(48)]


# name -> (function, data, start method, chunk size for the Pool)
WORKLOADS: dict[str, tuple[Callable[[Any], Any], Callable[[], Any], str, int]] = {
    "8 MB arguments": (total, arrays, "fork", 1),
    "8 MB results": (make_array, lambda: range(24), "fork", 1),
    "cost rising with the index": (rising, lambda: range(1_500), "fork", 8),
    "one in a hundred heavy": (heavy_tail, lambda: range(2_000), "fork", 8),
    "spawn, 50 ms of work": (one_ms, lambda: range(50), "spawn", 4),
    "spawn, 0.5 s of work": (one_ms, lambda: range(500), "spawn", 16),
}
OTHERS = ("Pool", "Pool default", "ProcessPoolExecutor", "joblib", "mpire")
# For these the first call of a process is timed, start-up included.
FIRST_CALLS = ("spawn, 50 ms of work", "spawn, 0.5 s of work")


def make_call(name: str, way: str) -> Callable[[], Any]:
    """Return the call to time."""
    func, make, method, size = WORKLOADS[name]
    data = make()
    if way == "serial":
        return lambda: list(map(func, data))
    if way == "smart_map":
        from amorsize import smart_map

        context = None if method == "fork" else method
        # By itself smart_map would stay serial: making such results is quicker than moving them.
        jobs = CPUS if name == "8 MB results" else None
        return lambda: smart_map(func, data, mp_context=context, n_jobs=jobs)
    context = multiprocessing.get_context(method)
    if way in ("Pool", "Pool default", "start-up"):

        def pool() -> list[Any]:
            with context.Pool(CPUS) as workers:
                if way == "start-up":
                    return workers.map(abs, range(CPUS))
                return workers.map(func, data, size if way == "Pool" else None)

        return pool
    if way == "ProcessPoolExecutor":
        from concurrent.futures import ProcessPoolExecutor

        def executor() -> list[Any]:
            with ProcessPoolExecutor(CPUS, mp_context=context) as workers:
                return list(workers.map(func, data))

        return executor
    if way == "joblib":
        from joblib import Parallel, delayed

        return lambda: Parallel(n_jobs=CPUS)(delayed(func)(x) for x in data)
    from mpire import WorkerPool

    def mpire() -> list[Any]:
        with WorkerPool(CPUS, start_method=method) as workers:
            return workers.map(func, list(data))

    return mpire


def ideal_seconds(name: str) -> float:
    """Return the time of one process per CPU that share the items evenly, s."""
    func, make, _, _ = WORKLOADS[name]
    data = make()
    fork = multiprocessing.get_context("fork")
    barrier, times = fork.Barrier(CPUS), fork.SimpleQueue()

    def share(first: int) -> None:
        barrier.wait()
        begun = time.perf_counter()
        for item in data[first::CPUS]:
            func(item)
        times.put(time.perf_counter() - begun)

    processes = [fork.Process(target=share, args=(first,)) for first in range(CPUS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    # The mean: an ideal schedule would not split uneven items so unluckily.
    return sum(times.get() for _ in processes) / CPUS


def child(name: str, way: str) -> list[float]:
    """Return the times of one way of one workload in this process, s."""
    if way == "ideal":
        return [ideal_seconds(name) for _ in range(CALLS)]
    call = make_call(name, way)
    times = []
    for _ in range(1 if name in FIRST_CALLS else CALLS + 1):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return times[-CALLS:]


def growth() -> dict[str, float]:
    """Return the growth of memory over 10 million items of smart_imap, MB, and us an item."""
    import psutil

    from amorsize import smart_imap

    process = psutil.Process()
    found = {}
    for name, options in (("serial", {}), ("2 workers", {"n_jobs": 2})):
        results = smart_imap(abs, iter(range(10_000_000)), **options)
        next(results)
        before, peak, begun = process.memory_info().rss, 0, time.perf_counter()
        for index, _ in enumerate(results):
            if index % 100_000 == 0:
                peak = max(peak, process.memory_info().rss)
        found[name] = (peak - before) / 1e6
        found[f"{name}, us an item"] = (time.perf_counter() - begun) / 10
    return found


def measure(name: str) -> dict[str, float]:
    """Return the median time of each way, s."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as learned:
        for _ in range(ROUNDS):
            for way in ("serial", "ideal", "smart_map", "start-up", *OTHERS):
                times.setdefault(way, []).extend(
                    in_fresh_process(__file__, name, way, folder=learned)
                )
    return {way: statistics.median(values) for way, values in times.items()}


def main(names: list[str]) -> None:
    rows, found = [], {}
    ways = ("serial", "ideal", "smart_map", *OTHERS)
    for name in names:
        medians = measure(name)
        ideal = medians["ideal"]
        with_start = ideal + medians["start-up"]
        ours = medians["smart_map"]
        found[name] = {
            "seconds": medians,
            "share of the ideal speed-up": ideal / ours,
            "ratio to ideal and start-up": ours / with_start,
            "ratio to serial": ours / medians["serial"],
            "ratio to the best other": ours / min(medians[way] for way in ("serial", *OTHERS)),
            "times as fast as Pool": medians["Pool"] / ours,
        }
        rows.append([name, *(f"{medians[way] * 1e3:,.0f}" for way in ways)])
        rows[-1] += [f"{ideal / ours:.2f}", f"{ours / with_start:.2f}"]
        print(rows[-1], flush=True)
    header = ["workload (ms)", *ways, "ideal/ours", "ours/(ideal+start)"]
    print(table(header, rows))
    if names == list(WORKLOADS):
        memory = in_fresh_process(__file__, "growth", "")
        print("10 million items through smart_imap, MB:", memory)
        print(f"written to {write('engine', {'workloads': found, 'memory growth': memory})}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), metavar="workload")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.child:
        main(given.workloads)
    elif given.child[0] == "growth":
        json.dump(growth(), sys.stdout)
    else:
        json.dump(child(*given.child), sys.stdout)
