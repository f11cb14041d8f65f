"""A grid search of scikit-learn with joblib's workers (loky) and with amorsize's, in turns.

python benchmarks/grid_search.py [--repeats N] [--save]

Each repeat is a fresh process that makes the search several times with one backend: the first time
workers start, later they may be there already.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from common import write

BACKENDS = ("loky", "amorsize")

SEARCH = """
import sys, time
import joblib
from amorsize import register_joblib
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

register_joblib()
values, labels = make_classification(3000, 40, random_state=0)
grid = {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}
with joblib.parallel_config(backend=sys.argv[1]):
    for _ in range(4):
        begun = time.perf_counter()
        GridSearchCV(SVC(), grid, n_jobs=-1, cv=3).fit(values, labels)
        print(time.perf_counter() - begun)
"""


def searched(backend: str) -> list[float]:
    """Return the times of the searches of a fresh process, s."""
    command = [sys.executable, "-c", SEARCH, backend]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(line) for line in ended.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write results/grid_search.json")
    given = parser.parse_args()
    times: dict[str, list[list[float]]] = {backend: [] for backend in BACKENDS}
    for _ in range(given.repeats):
        for backend in BACKENDS:
            times[backend].append(searched(backend))
    first = {b: statistics.median(run[0] for run in runs) for b, runs in times.items()}
    later = {b: statistics.median(t for run in runs for t in run[1:]) for b, runs in times.items()}
    for name, found in (("first search", first), ("later searches", later)):
        ratio = found["amorsize"] / found["loky"]
        print(
            f"{name}: loky {found['loky']:.2f} s, amorsize {found['amorsize']:.2f} s, {ratio:.2f}"
        )
    if given.save:
        write("grid_search", {"first": first, "later": later, "times": times})


if __name__ == "__main__":
    main()
