"""What ``resume=`` costs: 300 items of 10 ms with it and without it, in turns.

python benchmarks/resume.py [--save]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import write

from amorsize import smart_map

ITEMS = 300
ROUNDS = 7


def work(x):
    """Compute for 10 ms; return 1 kB."""
    end = time.perf_counter() + 0.01
    while time.perf_counter() < end:
        pass
    return bytes(1000)


def timed(**options):
    """Return the time of a call, s."""
    begun = time.perf_counter()
    smart_map(work, range(ITEMS), **options)
    return time.perf_counter() - begun


def main():
    """Print the medians, and their ratio."""
    lines = {}
    for name, options in {"serial": {"n_jobs": 1}, "two workers": {"n_jobs": 2}}.items():
        without, kept = [], []
        with tempfile.TemporaryDirectory() as folder:
            for number in range(ROUNDS):
                without.append(timed(**options))
                kept.append(timed(resume=Path(folder, f"{number}.db"), **options))
        before, after = lines[name] = statistics.median(without), statistics.median(kept)
        print(f"{name:12} {before:.3f} {after:.3f} s {after / before:.3f}")
    if "--save" in sys.argv:
        write("resume", {"lines": lines})


if __name__ == "__main__":
    main()
