"""Shared by the benchmarks: statistics, fresh processes, the machine, results on disk."""

from __future__ import annotations

import compileall
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def machine() -> dict[str, Any]:
    """Return a description of the machine that the figures come from."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "processor": model or platform.processor(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "amorsize": metadata.version("amorsize"),
    }


def summary(values: list[float]) -> dict[str, float]:
    """Return median, P99 and count; means say little about times on a shared machine."""
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "count": len(ordered),
    }


def clock(func: Any, repeats: int) -> list[float]:
    """Return the wall time of each of ``repeats`` calls, s."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        func()
        times.append(time.perf_counter() - begun)
    return times


@cache
def compile_once() -> None:
    """Compile the sources, as an installer does: first calls must not include the compiler."""
    package = find_spec("amorsize")
    assert package is not None
    assert package.origin is not None
    for folder in (Path(package.origin).parent, HERE):
        compileall.compile_dir(folder, quiet=1)


def in_fresh_process(script: str, *args: str, folder: str | None = None) -> Any:
    """Run ``script --child args`` in a fresh interpreter; return the JSON it prints.

    Args:
        script: path of the benchmark.
        args: what to measure.
        folder: the cache folder of amorsize; by default a new, empty one.
    """
    compile_once()
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, script, "--child", *args],
            env={**os.environ, "AMORSIZE_CACHE_DIR": folder or empty},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def write(name: str, content: dict[str, Any]) -> Path:
    """Write results with the machine that they came from; return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
    return path


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return rows as a readable table, which is also Markdown."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in [header, *rows]
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
