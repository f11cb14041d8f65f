"""Pool and SmartExecutor against the standard library's, in one run.

    python benchmarks/pools.py

Prints a line for each workload: the medians of both pools' ``map`` without a chunk size, and their
ratio; then the time of 20,000 trivial tasks in both executors. The two alternate, and both have
run the workload before.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from math import exp, log
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import write
from workloads import WORKLOADS

from amorsize import Pool, SmartExecutor

WORKERS = 2
ROUNDS = 9
MOST_SECONDS = 12.0
TASKS = 20_000


def same(x):
    """Return the argument."""
    return x


def timed(run):
    """Return the time of a call, s."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def pools(workload):
    """Return the medians of (standard Pool, Pool) for a workload, s."""
    data = workload.data()
    data = data if isinstance(data, (list, tuple, range)) else list(data)
    theirs, ours = [], []
    with multiprocessing.Pool(WORKERS) as stock, Pool(WORKERS) as pool:
        for _ in range(2):
            stock.map(workload.func, data)
            pool.map(workload.func, data)
        while len(ours) < ROUNDS and sum(theirs) + sum(ours) < MOST_SECONDS:
            theirs.append(timed(lambda: stock.map(workload.func, data)))
            ours.append(timed(lambda: pool.map(workload.func, data)))
    return statistics.median(theirs), statistics.median(ours)


def submit_all(executor):
    """Submit all tasks and wait for their results."""
    futures = [executor.submit(same, number) for number in range(TASKS)]
    assert [future.result() for future in futures] == list(range(TASKS))


def executors():
    """Return the medians of (ProcessPoolExecutor, SmartExecutor) for trivial tasks, s."""
    found = {ProcessPoolExecutor: [], SmartExecutor: []}
    for _ in range(5):
        for kind, times in found.items():
            with kind(WORKERS) as executor:
                executor.submit(same, 0).result()
                times.append(timed(lambda: submit_all(executor)))
    return tuple(map(statistics.median, found.values()))


def main():
    """Run all, print the lines, and write the results."""
    lines = {}
    for name, workload in WORKLOADS.items():
        theirs, ours = lines[name] = pools(workload)
        ratio = ours / theirs
        print(f"{name:32} {theirs * 1e3:10.2f} {ours * 1e3:10.2f} ms {ratio:7.3f}", flush=True)
    mean = exp(statistics.fmean(log(ours / theirs) for theirs, ours in lines.values()))
    print(f"geometric mean {mean:.3f}")
    theirs, ours = executors()
    ratio = theirs / ours
    print(f"{TASKS:,} tasks {theirs * 1e3:.0f} {ours * 1e3:.0f} ms, {ratio:.2f} times faster")
    write("pools", {"pools": lines, "geometric_mean": mean, "executors": (theirs, ours)})


if __name__ == "__main__":
    main()
