"""What deciding costs: from memory, from disk, from a sample, and compared with the plain loop.

Each figure is measured in fresh processes. "First" figures are one per process. The others are
medians and P99 over many calls in each process, pooled over the processes.

    python benchmarks/overhead.py
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time

from common import clock, in_fresh_process, summary, table, write

PROCESSES = 15
CALLS = 2_000

# name -> (target in us, what it is)
TARGETS = {
    "import amorsize": (25_000, "over the bare interpreter"),
    "import of the three names": (25_000, "smart_map, optimize, parallelize; all they load"),
    "hit": (20, "optimize, remembered in this process"),
    "first hit": (300, "optimize, remembered on disk, first call of a process"),
    "miss beyond sample": (1_000, "optimize, nothing remembered, without the sample's own time"),
    "20 trivial items": (30, "smart_map over list(map()), second and later calls"),
    "1,000 trivial items": (30, "the same, with 1,000 items"),
}


def simple(x: int) -> int:
    return x + 1


def medium(x: int) -> int:
    return sum(range(200 + x % 3))


def child(what: str) -> dict[str, list[float]]:
    """Measure one thing in this fresh process; return times in seconds."""
    begun = time.perf_counter()
    if what == "import amorsize":
        import amorsize  # noqa: F401

        return {what: [time.perf_counter() - begun]}
    from amorsize import optimize, parallelize, smart_map  # noqa: F401

    if what == "import of the three names":
        return {what: [time.perf_counter() - begun]}
    data = list(range(1_000))
    if what == "first hit":
        importlib.import_module("platformdirs")  # the one import of a hit, which does not count

        begun = time.perf_counter()
        result = optimize(medium, data)
        seconds = time.perf_counter() - begun
        return {"first hit" if result.cache_hit else "first miss": [seconds]}
    if what == "calls":
        return calls(optimize, smart_map, data)
    return cases(optimize, data)


def calls(optimize, smart_map, data) -> dict[str, list[float]]:
    few = data[:20]
    optimize(medium, data)
    found = {"hit": clock(lambda: optimize(medium, data), CALLS)}
    # The sample itself takes the time of five calls; the rest of a miss is amorsize's.
    misses = clock(lambda: optimize(medium, data, use_cache=False), 50)
    own = min(clock(lambda: [medium(x) for x in few[:5]], 50))
    found["miss beyond sample"] = [seconds - own for seconds in misses[1:]]
    for name, items in (("20 trivial items", few), ("1,000 trivial items", data)):
        smart_map(simple, items)
        pairs = [
            (
                clock(lambda items=items: list(map(simple, items)), 1)[0],
                clock(lambda items=items: smart_map(simple, items), 1)[0],
            )
            for _ in range(CALLS)
        ]
        found[name] = [smart - plain for plain, smart in pairs]
    return found


def cases(optimize, data) -> dict[str, list[float]]:
    """Return the times of the original system's table: cached against uncached."""
    found = {}
    for name, call in {
        "simple, 1,000 items": lambda **k: optimize(simple, data, **k),
        "medium, 1,000 items": lambda **k: optimize(medium, data, **k),
    }.items():
        call()
        found[f"{name}: cached"] = clock(call, 200)
        found[f"{name}: uncached"] = clock(lambda call=call: call(use_cache=False), 200)
    found["another size in the bucket: cached"] = clock(lambda: optimize(medium, data[:900]), 200)
    found["generator: never cached"] = clock(lambda: optimize(medium, (x for x in data)), 200)
    found["profile=True: never cached"] = clock(lambda: optimize(medium, data, profile=True), 200)
    return found


def main() -> None:
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as learned:
        in_fresh_process(__file__, "first hit", folder=learned)  # writes its record at exit
        for _ in range(PROCESSES):  # in turns, so that a slow moment of the machine affects all
            for what in ("import amorsize", "import of the three names"):
                merge(times, in_fresh_process(__file__, what))
            merge(times, in_fresh_process(__file__, "first hit", folder=learned))
        for _ in range(3):
            merge(times, in_fresh_process(__file__, "calls"))
            merge(times, in_fresh_process(__file__, "cases"))
    figures = {name: summary([t * 1e6 for t in values]) for name, values in times.items()}
    rows = []
    for name, figure in figures.items():
        target, note = TARGETS.get(name, (None, ""))
        wanted = "" if target is None else f"{target:,}"
        met = "" if target is None else "yes" if figure["median"] <= target else "NO"
        rows.append([name, f"{figure['median']:,.1f}", f"{figure['p99']:,.1f}", wanted, met, note])
    print(table(["what", "median us", "P99 us", "target", "met", ""], rows))
    print(f"written to {write('overhead', {'unit': 'us', 'figures': figures})}")


def merge(into: dict[str, list[float]], new: dict[str, list[float]]) -> None:
    for name, values in new.items():
        into.setdefault(name, []).extend(values)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    wanted = parser.parse_args().child
    if wanted:
        json.dump(child(wanted), sys.stdout)
    else:
        main()
