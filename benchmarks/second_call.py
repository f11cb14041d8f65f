"""smart_map's second call against the serial loop and the best hand-tuned Pool, in one run.

Every way is timed in a fresh process, warm: one call is made first, the next ones are timed. The
ways take turns, and what counts is the ratio to the better of serial and the best Pool over a grid
of chunk sizes. The Pool is kept open for its timed calls' maps only as people do it: opened,
mapped and closed, once for each call.

    python benchmarks/second_call.py [workload ...]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from common import HERE, in_fresh_process, table, write

sys.path.insert(0, str(HERE.parent / "examples"))

ROUNDS = 3
CALLS = 2


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def add_one(x: int) -> int:
    return x + 1


def ten_us(x: int) -> int:
    total = 0
    for i in range(200):
        total += i
    return total + x


def one_ms(x: int) -> int:
    total = 0
    for i in range(20_000):
        total += i
    return total + x


def rising(x: int) -> int:
    total = 0
    for i in range(20 * x):
        total += i
    return total


def wait_5ms(x: int) -> int:
    time.sleep(0.005)
    return x


def census_of(path: str) -> object:
    from stdlib_census import census

    return census(path)


def census_files() -> list[str]:
    from stdlib_census import library_files

    return library_files()


# name -> (function, data, chunk sizes worth trying by hand)
WORKLOADS: dict[str, tuple[Callable, Callable[[], list], tuple[int, ...]]] = {
    "1,000 of 30 ns": (add_one, lambda: list(range(1_000)), (50, 500)),
    "100,000 of 30 ns": (add_one, lambda: list(range(100_000)), (5_000, 50_000)),
    "1,000 of 10 us": (ten_us, lambda: list(range(1_000)), (50, 125, 500)),
    "20,000 of 10 us": (ten_us, lambda: list(range(20_000)), (250, 1_000, 2_500)),
    "300 of 1 ms": (one_ms, lambda: list(range(300)), (1, 10, 38)),
    "cost rising with the index": (rising, lambda: list(range(1_500)), (5, 20, 188)),
    "census of the standard library": (census_of, census_files, (1, 8, 30)),
    "400 waits of 5 ms": (wait_5ms, lambda: list(range(400)), (1, 10)),
}


def ways(name: str) -> list[str]:
    return ["serial", "smart_map", *(f"pool {size}" for size in WORKLOADS[name][2])]


def child(name: str, way: str) -> list[float]:
    """Time one way of one workload in this process."""
    func, make, _ = WORKLOADS[name]
    data = make()
    if way == "serial":

        def call() -> list:
            return list(map(func, data))
    elif way == "smart_map":
        from amorsize import smart_map

        def call() -> list:
            return smart_map(func, data)
    else:
        size = int(way.split()[1])
        workers = 24 if "waits" in name else multiprocessing.cpu_count()

        def call() -> list:
            with multiprocessing.Pool(workers) as pool:
                return pool.map(func, data, size)

    call()
    times = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return times


def main(names: list[str]) -> None:
    rows, found = [], {}
    for name in names:
        with tempfile.TemporaryDirectory() as learned:
            times: dict[str, list[float]] = {}
            for _ in range(ROUNDS):
                for way in ways(name):
                    times.setdefault(way, []).extend(
                        in_fresh_process(__file__, name, way, cache=learned)
                    )
        medians = {way: statistics.median(values) for way, values in times.items()}
        best = min((way for way in medians if way != "smart_map"), key=medians.__getitem__)
        ratio = medians["smart_map"] / medians[best]
        found[name] = {"seconds": medians, "best other": best, "ratio": ratio}
        rows.append(
            [
                name,
                f"{medians['serial'] * 1e3:,.3f}",
                best,
                f"{medians[best] * 1e3:,.3f}",
                f"{medians['smart_map'] * 1e3:,.3f}",
                f"{ratio:.3f}",
            ]
        )
        print(rows[-1], flush=True)
    print(table(["workload", "serial ms", "best other", "ms", "smart_map ms", "ratio"], rows))
    if names == list(WORKLOADS):
        print(f"written to {write('second_call', {'workloads': found})}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), metavar="workload")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        json.dump(child(*given.child), sys.stdout)
    else:
        main(given.workloads)
