"""Times one way of one workload in this process; ``regret.py`` runs it in fresh processes.

It loads almost nothing before the clock runs: what a way imports is part of its first call.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from workloads import WORKLOADS, Workload

CALLS = 3


def make_call(workload: Workload, way: str) -> Callable[[], list[Any]]:
    """Return one call of a way; import what the way needs."""
    func, make = workload.func, workload.data
    data = None if workload.lazy else make()

    def items() -> Any:
        return make() if data is None else data

    if way == "serial":
        return lambda: list(map(func, items()))
    if way == "smart_map":
        from amorsize import smart_map

        return lambda: smart_map(func, items())
    if way == "pool default":
        import multiprocessing

        def default() -> list[Any]:
            with multiprocessing.Pool() as pool:
                return pool.map(func, items())

        return default
    if way.startswith("pool"):
        import multiprocessing

        workers, size = map(int, way.split()[1:])

        def pool() -> list[Any]:
            with multiprocessing.Pool(workers) as opened:
                if workload.lazy:
                    return list(opened.imap(func, items(), size))
                return opened.map(func, items(), size)

        return pool
    return package_call(func, items, way)


def package_call(func: Callable[[Any], Any], items: Any, way: str) -> Callable[[], list[Any]]:
    """Return one call of another package, used as in the first example of its documentation."""
    if way == "ProcessPoolExecutor":
        from concurrent.futures import ProcessPoolExecutor

        def executor() -> list[Any]:
            with ProcessPoolExecutor() as opened:
                return list(opened.map(func, items()))

        return executor
    if way == "joblib":
        from joblib import Parallel, delayed

        return lambda: Parallel(n_jobs=-1)(delayed(func)(x) for x in items())
    from mpire import WorkerPool

    def mpire() -> list[Any]:
        with WorkerPool() as opened:
            return opened.map(func, items())

    return mpire


def child(name: str, way: str) -> dict[str, Any]:
    """Time one way of one workload in this process."""
    workload = WORKLOADS[name]
    if not workload.lazy:
        workload.data()  # imports for making the data belong to no way
    begun = time.perf_counter()
    call = make_call(workload, way)
    made = time.perf_counter() - begun
    begun = time.perf_counter()
    call()
    first = time.perf_counter() - begun
    later = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        call()
        later.append(time.perf_counter() - begun)
    found: dict[str, Any] = {"first": made + first, "later": later}
    if way == "smart_map":
        found["forecasts"] = forecasts(workload)
    return found


def forecasts(workload: Workload) -> list[tuple[float, float, str]]:
    """Return (forecast s, actual s, backend and workers) of some more calls."""
    from amorsize import smart_map

    reports: list[Any] = []
    for _ in range(2):
        smart_map(workload.func, workload.data(), report=reports.append)
    return [
        (r.forecast_seconds, r.actual_seconds, f"{r.backend} {r.n_jobs}")
        for r in reports
        if r.forecast_seconds is not None
    ]


if __name__ == "__main__":
    found = child(*sys.argv[-2:])

    import json  # only now: a way must not find it loaded before the clock runs

    json.dump(found, sys.stdout)
