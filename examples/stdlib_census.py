"""A census of the standard library: parse every .py file and count its syntax nodes.

The files are very uneven, from one line to thousands of lines, and pools are usually bad at that.
Run it twice: the second time amorsize remembers what it measured.

    python examples/stdlib_census.py [FOLDER]

A folder is looked at in place of the standard library.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from amorsize import optimize, parallelize


@dataclass(frozen=True)
class FileCensus:
    """The census of one file: node types with their counts, and functions with their lengths."""

    nodes: Counter[str]
    functions: tuple[tuple[int, str], ...]


@parallelize
def census(path: str) -> FileCensus:
    """Parse one file. A file that is broken on purpose, as test data, counts as empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old code has invalid escape sequences
        try:
            tree = ast.parse(Path(path).read_bytes())
        except (SyntaxError, ValueError):
            return FileCensus(Counter(), ())
    nodes: Counter[str] = Counter()
    functions = []
    for node in ast.walk(tree):
        nodes[type(node).__name__] += 1
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            functions.append((lines, f"{Path(path).name}:{node.name}"))
    return FileCensus(nodes, tuple(sorted(functions, reverse=True)[:5]))


def python_files(folder: str) -> list[str]:
    """Return every .py file in a folder, in order; installed packages are left out."""
    found = (p for p in Path(folder).rglob("*.py") if "site-packages" not in p.parts)
    return sorted(map(str, found))


def main(folder: str) -> None:
    """Count serially, then twice with amorsize; print the results and the times."""
    files = python_files(folder)
    serial = [census(path) for path in files]

    for title in ("First run", "Second run"):
        results = census.map(files)
        report = census.last_run
        assert results == serial
        assert report is not None
        assert report.serial_seconds is not None
        decided = report.decided_seconds
        print(f"{title}: {report.explain()}")
        # The serial time is that of the items in this run: the CPUs may be busier in another.
        speedup = report.serial_seconds / report.actual_seconds
        print(f"  speed-up  {speedup:.2f} over the serial loop\n")

    total = sum((r.nodes for r in results), Counter())
    print(f"{len(files):,} files, {total.total():,} syntax nodes; the most used:")
    for name, count in total.most_common(8):
        print(f"  {count:9,} {name}")
    print("The largest functions:")
    for lines, name in sorted((f for r in results for f in r.functions), reverse=True)[:5]:
        print(f"  {lines:5} lines  {name}")

    show_advice(files, decided)


def show_advice(files: list[str], decided: float) -> None:
    """Print how much faster a decision from memory is than one from a sample."""
    times = {}
    for title, use_cache in (("sampled", False), ("remembered", True)):
        begun = time.perf_counter()
        optimize(census, files, use_cache=use_cache)
        times[title] = time.perf_counter() - begun
    print(
        f"\nDeciding: {decided * 1e3:.2f} ms into the second run. Asked for advice alone: "
        f"{times['sampled'] * 1e3:.2f} ms with a sample, {times['remembered'] * 1e6:.0f} us from "
        f"memory, {times['sampled'] / times['remembered']:.0f} times as fast."
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib"))
