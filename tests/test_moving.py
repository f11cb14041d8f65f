"""docs/moving.md: each row's two calls give the same results, with the real library."""

import functools
import gc
import importlib
import re
import threading
import warnings

import pytest

import amorsize
from amorsize.run import kept
from tests.programs import ROOT

# How to make what the head of a section speaks of, and how to end it.
SETUPS = {
    "multiprocessing.Pool": ("multiprocessing", "multiprocessing.Pool(2)", "terminate"),
    "concurrent.futures": (
        "concurrent.futures",
        "concurrent.futures.ProcessPoolExecutor(2)",
        "shutdown",
    ),
    "joblib": ("joblib", "", ""),
    "mpire": ("mpire", "mpire.WorkerPool(n_jobs=2)", "terminate"),
    "tqdm.contrib.concurrent": ("tqdm.contrib.concurrent", "", ""),
    "pathos": ("pathos.pools", "pathos.pools.ProcessPool(nodes=2)", "terminate"),
    "parmap": ("parmap", "", ""),
}


def work(x):
    return x * x


def both(x, y):
    return 10 * x + y


def rows():
    """Yield (section, their code, our code) of each row."""
    section = ""
    for line in (ROOT / "docs" / "moving.md").read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        found = re.match(r"\| `(.+?)` \| `(.+?)` \|", line)
        if found:
            yield pytest.param(section, *found.groups(), id=f"{section}: {found[1][:50]}")


@pytest.mark.parametrize(("section", "theirs", "ours"), list(rows()))
def test_both_calls_give_the_same(section, theirs, ours, monkeypatch):
    """Whatever the container of their results."""
    module, make, end = SETUPS[section]
    before = set(threading.enumerate())
    pytest.importorskip(module)
    data = list(range(40))
    names = {
        **{name: getattr(amorsize, name) for name in amorsize.__all__},
        module.partition(".")[0]: importlib.import_module(module.partition(".")[0]),
        "functools": functools,
        "work": work,
        "both": both,
        "data": data,
        "pairs": [(x, x + 1) for x in data],
    }
    importlib.import_module(module)
    if section == "joblib":
        amorsize.register_joblib()
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # its thread would stay
    opened = []

    def noting(kind):
        def make(*args):
            opened.append(kind(*args))
            return opened[-1]

        return make

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries fork beside threads
        pool = eval(make, names) if make else None
        try:
            wanted = eval(theirs, {**names, "pool": pool, "executor": pool})
        finally:
            if pool is not None:
                getattr(pool, end)()
                if hasattr(pool, "join"):
                    pool.join()
            if section == "pathos":
                pool.clear()
            if section == "joblib":
                importlib.import_module("joblib.externals.loky").get_reusable_executor().shutdown()
    kinds = {name: noting(names[name]) for name in ("Pool", "SmartExecutor")}
    try:
        got = eval(ours, {**names, **kinds})
    finally:
        for one in opened:
            one.terminate() if hasattr(one, "terminate") else one.shutdown()
    assert got == wanted
    del pool
    gc.collect()
    kept.end_all()
    for thread in set(threading.enumerate()) - before:  # theirs may end a little later
        thread.join(20)


def test_every_section_is_run():
    """And has rows."""
    assert {row.values[0] for row in rows()} == set(SETUPS)
