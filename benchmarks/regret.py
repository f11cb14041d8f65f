"""What choosing amorsize costs against the best choice by hand, and against other packages.

For each workload: the serial loop, ``smart_map``, Pools over a grid of worker counts and chunk
sizes, Pool's own defaults, ProcessPoolExecutor, joblib and mpire. Each way runs in a fresh process,
and the ways take turns. Only ratios inside one run are compared. The quickest of many noisy figures
is too good to be true. So the first rounds determine the best choice by hand, and the times come
from later rounds, which measure only the ways that come close.

First call: the imports of a way and the first call of a process, with nothing remembered. Later
calls: the next ones in that process. A Pool is opened, used and closed for each call, as people do
it. The packages keep what they keep by default (joblib its workers).

    python benchmarks/regret.py [workload ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from math import exp, log
from typing import Any

from common import HERE, RESULTS, in_fresh_process, table, write
from workloads import WORKLOADS, Workload

ROUNDS = 3
FINAL_ROUNDS = 5
# A way that took less than this many times as long as smart_map is measured again.
CLOSE = 1.25
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
OTHERS = ("pool default", "ProcessPoolExecutor", "joblib", "mpire")


def grid(workload: Workload) -> list[str]:
    """Return the Pools that people would try by hand, as "pool workers chunksize"."""
    if workload.waiting:
        counts, shares = [k * CPUS for k in (4, 8, 16, 32)], [1, 8]
    else:
        counts, shares = [CPUS], [1, 4, 16, 64]
    found = []
    for workers in counts:
        for share in shares:
            size = max(1, workload.items // (share * workers))
            found.append(f"pool {workers} {size}")
    return list(dict.fromkeys(found))


def ways(name: str) -> list[str]:
    return ["serial", "smart_map", *grid(WORKLOADS[name]), *OTHERS]


def measure_packages(name: str) -> dict[str, Any]:
    """Time the serial loop, ``smart_map`` and what people use without tuning, in turns."""
    tried = take_turns(name, ["serial", "smart_map", *OTHERS], ROUNDS)
    return {"best": {when: best_by_hand(tried[when]) for when in ("first", "later")}, **tried}


def measure(name: str) -> dict[str, Any]:
    """Time all ways of one workload, in turns, and those that come close once more."""
    tried = take_turns(name, ways(name), ROUNDS)
    best = {when: best_by_hand(tried[when]) for when in ("first", "later")}
    finalists = [way for way in ways(name) if way in best.values() or is_close(way, tried)]
    final = take_turns(name, finalists, FINAL_ROUNDS)
    return {
        "best": best,
        "first": tried["first"] | final["first"],
        "later": tried["later"] | final["later"],
        "forecasts": tried["forecasts"] + final["forecasts"],
    }


def take_turns(name: str, ways: list[str], rounds: int) -> dict[str, Any]:
    """Return the median times of the first and of later calls, s, and the forecasts."""
    first: dict[str, list[float]] = {way: [] for way in ways}
    later: dict[str, list[float]] = {way: [] for way in ways}
    told: list[list[Any]] = []
    for _ in range(rounds):
        for way in ways:
            got = in_fresh_process(str(HERE / "once.py"), name, way)
            first[way].append(got["first"])
            later[way].extend(got["later"])
            told += got.get("forecasts", [])
    return {
        "first": {way: statistics.median(times) for way, times in first.items()},
        "later": {way: statistics.median(times) for way, times in later.items()},
        "forecasts": told,
    }


def is_close(way: str, tried: dict[str, Any]) -> bool:
    """Return whether a way is so close to ``smart_map`` that it must be measured again."""
    if way.startswith("pool ") and way not in OTHERS:
        return False  # of the grid only the best is measured again
    return any(tried[w][way] < CLOSE * tried[w]["smart_map"] for w in ("first", "later"))


def best_by_hand(times: dict[str, float]) -> str:
    """Return the quickest of the serial loop and all Pools."""
    return min((w for w in times if w == "serial" or w.startswith("pool")), key=times.__getitem__)


def row(name: str, found: dict[str, Any], when: str) -> list[str]:
    times, best = found[when], found["best"][when]
    ours = times["smart_map"]
    return [
        name,
        f"{times['serial'] * 1e3:,.2f}",
        f"{ours * 1e3:,.2f}",
        f"{times[best] * 1e3:,.2f} ({best})",
        f"{ours / times[best]:.3f}",
        *(f"{times[way] / ours:.2f}" for way in OTHERS),
    ]


HEADER = ["workload", "serial ms", "smart_map ms", "best by hand ms", "ratio to it",
          *OTHERS]  # fmt: skip


def verdict(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the figures that the targets are about."""
    later = {name: f["later"] for name, f in found.items()}
    ratios = {n: t["smart_map"] / t[found[n]["best"]["later"]] for n, t in later.items()}
    errors = sorted(
        abs(forecast - actual) / actual
        for f in found.values()
        for forecast, actual, _ in f["forecasts"]
    )
    over_serial = {n: t["smart_map"] - 1.02 * t["serial"] for n, t in later.items()}
    first_over = {
        n: f["first"]["smart_map"] - 1.05 * f["first"]["serial"] for n, f in found.items()
    }
    slower = [
        f"{n}: {way} ({when})"
        for n, f in found.items()
        for when in ("first", "later")
        for way in OTHERS
        if f[when][way] < f[when]["smart_map"]
    ]
    return {
        "geometric mean of ratios": exp(sum(map(log, ratios.values())) / len(ratios)),
        "worst ratio": max(ratios.items(), key=lambda pair: pair[1]),
        "most over 1.02 serial, us": max(over_serial.values()) * 1e6,
        "first call: most over 1.05 serial, ms": max(first_over.values()) * 1e3,
        "was faster": slower,
        "forecast error, median": statistics.median(errors) if errors else None,
        "forecast error, P90": errors[int(0.9 * len(errors))] if errors else None,
    }


def draw(found: dict[str, dict[str, Any]]) -> None:
    """Draw the ratios to the best choice by hand, of later calls."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = list(found)[::-1]
    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(names) + 1.2))
    for way, mark in (("smart_map", "o"), ("pool default", "|"), ("ProcessPoolExecutor", "x"),
                      ("joblib", "+"), ("mpire", "2")):  # fmt: skip
        later = [(found[name]["later"], found[name]["best"]["later"]) for name in names]
        ratios = [times[way] / times[best] for times, best in later]
        axes.plot(ratios, range(len(names)), mark, label=way, markersize=8)
    axes.set_xscale("log")
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("time, as a multiple of the best choice by hand (serial or any Pool)")
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(RESULTS / "regret.svg")


def main(names: list[str], results: str, measure: Callable[[str], dict[str, Any]]) -> None:
    found = {}
    for name in names:
        found[name] = measure(name)
        print(" | ".join(row(name, found[name], "later")), flush=True)
    for when in ("first", "later"):
        print(f"\n{when} calls; the last columns are multiples of smart_map's time\n")
        print(table(HEADER, [row(name, found[name], when) for name in names]))
    judged = verdict(found)
    print(json.dumps(judged, indent=1))
    if names == list(WORKLOADS):
        if results == "regret":
            draw(found)
        print(f"written to {write(results, {'workloads': found, 'verdict': judged})}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), metavar="workload")
    parser.add_argument("--results", default="regret", metavar="name", help="of the file written")
    parser.add_argument("--packages", action="store_true", help="leave out Pools tuned by hand")
    given = parser.parse_args()
    main(given.workloads, given.results, measure_packages if given.packages else measure)
