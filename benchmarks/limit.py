"""How near ``smart_map`` comes to the limit: the least that a parallel ``map`` must do.

The limit is ``spike``, some 40 lines of ``os.fork``: c - 1 forked workers and the caller claim
chunks from one shared counter. Each worker sends its results once, over a pipe. It has no time
limits, no retries, no messages: a worker that dies hangs it. So it shows what all of that costs.

All ways of a workload run in one process, in turns, and only ratios inside that process are
compared. Times are medians of later calls. The best choice by hand is the quickest of the serial
loop and a Pool over a grid of chunk sizes.

    python benchmarks/limit.py [workload ...]
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import json
import mmap
import os
import pickle
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from math import exp, log
from typing import Any

from common import HERE, in_fresh_process, table, write
from workloads import WORKLOADS, Workload, count, is_prime

CPUS = len(os.sched_getaffinity(0))
# Each way of a workload is called for about this long, s, and at least LEAST_ROUNDS times.
SECONDS = 3.0
LEAST_ROUNDS = 7
# The target covers workloads whose serial loop takes between these times, s.
SHORTEST, LONGEST = 0.015, 2.0


def seven_tenths_ms(x: int) -> int:
    return count(14_000) + x


def five_us(x: int) -> int:
    return count(100) + x


def thirty_five_ms(x: int) -> int:
    return count(700_000) + x


CHOSEN = {
    "30 of 0.7 ms": Workload(seven_tenths_ms, lambda: list(range(30)), 30),
    "1,000 of 5 us": Workload(five_us, lambda: list(range(1_000)), 1_000),
    "20,000 of 5 us": Workload(five_us, lambda: list(range(20_000)), 20_000),
    "6,000 primality tests": Workload(
        is_prime, lambda: list(range(10_000_001, 10_012_001, 2)), 6_000
    ),
    "40 of 35 ms": Workload(thirty_five_ms, lambda: list(range(40)), 40),
    **{
        name: workload
        for name, workload in WORKLOADS.items()
        if not workload.waiting and not workload.lazy
    },
}


class Counter:
    """The index of the next item, in shared memory; a lock of the kernel guards it."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._next = mmap.mmap(-1, 8)
        self._lock = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the counter

    def claim(self) -> tuple[int, int]:
        """Return the (begin, end) of the next chunk, by factoring; equal at the end."""
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        begin = struct.unpack_from("q", self._next)[0]
        left = self._items - begin
        end = begin + min(left, max(1, left // (2 * CPUS)))
        struct.pack_into("q", self._next, 0, end)
        fcntl.lockf(self._lock, fcntl.LOCK_UN)
        return begin, end

    def close(self) -> None:
        self._lock.close()
        self._next.close()


def run_claimed(func: Callable[[Any], Any], items: list[Any], counter: Counter) -> list[Any]:
    """Run chunks until none is left; return [(begin, results), ...]."""
    found = []
    while True:
        begin, end = counter.claim()
        if begin == end:
            return found
        found.append((begin, list(map(func, items[begin:end]))))


def spike(func: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    """Return ``list(map(func, items))``, the quickest way that 40 lines can do it."""
    counter = Counter(len(items))
    workers = []
    for _ in range(CPUS - 1):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            with os.fdopen(writing, "wb") as file:
                pickle.dump(run_claimed(func, items, counter), file, pickle.HIGHEST_PROTOCOL)
            os._exit(0)
        os.close(writing)
        workers.append((pid, reading))
    found = run_claimed(func, items, counter)
    for pid, reading in workers:
        with os.fdopen(reading, "rb") as file:
            found += pickle.load(file)
        os.waitpid(pid, 0)
    counter.close()
    return [result for _, results in sorted(found, key=lambda pair: pair[0]) for result in results]


def pool(size: int) -> Callable[[Callable[[Any], Any], list[Any]], list[Any]]:
    import multiprocessing

    def call(func: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        with multiprocessing.Pool(CPUS) as opened:
            return opened.map(func, items, size)

    return call


def ways(workload: Workload) -> dict[str, Callable[[Callable[[Any], Any], list[Any]], list[Any]]]:
    from amorsize import smart_map

    sizes = dict.fromkeys(max(1, workload.items // (share * CPUS)) for share in (1, 4, 16, 64))
    return {
        "serial": lambda func, items: list(map(func, items)),
        "smart_map": smart_map,
        "limit": spike,
        **{f"pool {CPUS} {size}": pool(size) for size in sizes},
    }


def child(name: str) -> dict[str, list[float]]:
    """Return the times of all ways of one workload, in turns in this process, s."""
    workload = CHOSEN[name]
    items: Any = workload.data()
    found = ways(workload)
    times: dict[str, list[float]] = {way: [] for way in found}
    for call in found.values():
        call(workload.func, items)
    begun, rounds = time.perf_counter(), 0
    while rounds < LEAST_ROUNDS or time.perf_counter() - begun < SECONDS * len(found) / 2:
        rounds += 1
        for way, call in found.items():
            gc.collect()
            before = time.perf_counter()
            call(workload.func, items)
            times[way].append(time.perf_counter() - before)
    return times


def measure(name: str) -> dict[str, float]:
    """Return the median time of each way, s."""
    times = in_fresh_process(str(HERE / "limit.py"), name)
    return {way: statistics.median(values) for way, values in times.items()}


def best_by_hand(times: dict[str, float]) -> str:
    return min((way for way in times if way not in ("smart_map", "limit")), key=times.__getitem__)


def geometric_mean(ratios: list[float]) -> float:
    return exp(statistics.fmean(map(log, ratios)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", help="names, as in the table; by default all")
    chosen = parser.parse_args().workloads
    found: dict[str, dict[str, float]] = {}
    rows, to_limit, to_best = [], [], []
    for name in chosen or CHOSEN:
        times = found[name] = measure(name)
        best = best_by_hand(times)
        ours = times["smart_map"]
        counts = SHORTEST <= times["serial"] <= LONGEST
        if counts:
            to_limit.append(ours / times["limit"])
            to_best.append(ours / times[best])
        rows.append([
            name + ("" if counts else " *"),
            f"{times['serial'] * 1e3:.1f} ms",
            f"{ours / times['serial']:.2f}",
            f"{times['limit'] / times['serial']:.2f}",
            f"{times[best] / times['serial']:.2f} ({best})",
            f"{ours / times['limit']:.3f}",
            f"{ours / times[best]:.3f}",
        ])  # fmt: skip
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    header = ["workload", "serial", "smart_map", "limit", "best by hand", "to limit", "to best"]
    print(table(header, rows))
    means = {}
    if to_limit:
        means = {"to limit": geometric_mean(to_limit), "to best": geometric_mean(to_best)}
        print(f"geometric means, without *: to the limit {means['to limit']:.3f}, "
              f"to the best by hand {means['to best']:.3f}")  # fmt: skip
    if not chosen:
        print(write("limit", {"seconds": found, "geometric_means": means}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        json.dump(child(sys.argv[2]), sys.stdout)
    else:
        main()
