"""Pool and SmartExecutor against the standard library's, in the same runs.

    python benchmarks/pools.py [--processes 5] [--save] [name ...]

Prints a line for each workload: the medians of both pools' ``map`` without a chunk size, their
ratio, and the least and the greatest ratio of a process; then the time of a chunk of one trivial
item in both pools, and that of 20,000 trivial tasks in both executors. In each of several fresh
processes the two alternate, and both have run the workload before: how fast a function runs in a
process depends on where its memory happens to be, by some per cent.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from math import exp, log

from common import in_fresh_process, write
from workloads import WORKLOADS

from amorsize import Pool, SmartExecutor

WORKERS = 2
ROUNDS = 25
MOST_SECONDS = 3.0
TASKS = 20_000
CHUNKS = 2_000


def same(x):
    """Return the argument."""
    return x


def timed(run):
    """Return the time of a call, s."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def pools(name):
    """Return the medians of (standard Pool, Pool) for a workload in this process, s."""
    workload = WORKLOADS[name]
    data = workload.data()
    data = data if isinstance(data, (list, tuple, range)) else list(data)
    theirs, ours = [], []
    with multiprocessing.Pool(WORKERS) as stock, Pool(WORKERS) as pool:
        pairs = [(stock, theirs), (pool, ours)]
        for one, _ in 3 * pairs:
            one.map(workload.func, data)
        while len(ours) < ROUNDS and sum(theirs) + sum(ours) < MOST_SECONDS:
            pairs.reverse()
            for one, times in pairs:
                times.append(timed(lambda one=one: one.map(workload.func, data)))
    return statistics.median(theirs), statistics.median(ours)


def chunks():
    """Return the medians of (standard Pool, Pool) for a chunk of one trivial item, s."""
    with multiprocessing.Pool(WORKERS) as stock, Pool(WORKERS) as pool:
        found = {stock: [], pool: []}
        for _ in range(15):
            for one, times in found.items():
                times.append(timed(lambda one=one: one.map(same, range(CHUNKS), 1)) / CHUNKS)
    return tuple(map(statistics.median, found.values()))


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


def compared(names, processes):
    """Print a line for each workload; return the figures by its name."""
    lines = {}
    for name in names:
        found = [in_fresh_process(__file__, name) for _ in range(processes)]
        ratios = [ours / theirs for theirs, ours in found]
        ratio = statistics.median(ratios)
        theirs, ours = map(statistics.median, zip(*found, strict=True))
        lines[name] = {"theirs": theirs, "ours": ours, "ratio": ratio, "ratios": ratios}
        print(
            f"{name:28} {theirs * 1e3:9.2f} {ours * 1e3:9.2f} ms {ratio:7.3f}"
            f"   {min(ratios):.3f} to {max(ratios):.3f}",
            flush=True,
        )
    return lines


def main():
    """Run all, print the lines, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="workloads; all of them by default")
    parser.add_argument("--processes", type=int, default=5, help="fresh processes for each")
    parser.add_argument("--save", action="store_true", help="write results/pools.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(pools(options.child)))
        return
    lines = compared(options.names or WORKLOADS, options.processes)
    mean = exp(statistics.fmean(log(line["ratio"]) for line in lines.values()))
    print(f"geometric mean {mean:.3f}")
    chunk = chunks()
    print("a chunk of one trivial item {:.1f} {:.1f} us".format(*(1e6 * each for each in chunk)))
    theirs, ours = executors()
    print(
        f"{TASKS:,} tasks {theirs * 1e3:.0f} {ours * 1e3:.0f} ms, {theirs / ours:.2f} times faster"
    )
    if options.save:
        figures = {"pools": lines, "geometric_mean": mean, "chunk": chunk}
        write("pools", {**figures, "executors": (theirs, ours)})


if __name__ == "__main__":
    main()
