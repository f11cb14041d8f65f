"""Functions that change what they reach: remembered by their code, once, and found again."""

import functools
import random
import threading

import pytest

from amorsize import optimize, smart_imap, smart_map
from amorsize.identity.coarse import coarse_digest
from tests import programs
from tests.conftest import forget, record_files
from tests.functions import busy_ms

count = 0
memo = {}
seen = []
rng = random.Random(1)
lazy = None


def counts_in_a_global(x):
    global count  # noqa: PLW0603
    count += 1
    return busy_ms(x)


def keeps_results(x):
    if (x, len(memo)) not in memo:
        memo[x, len(memo)] = busy_ms(x)
    return 2 * x


def appends(x):
    seen.append(x)
    return busy_ms(x)


def draws(x):
    rng.random()
    return busy_ms(x)


def counts_in_itself(x):
    counts_in_itself.calls += 1
    return busy_ms(x)


counts_in_itself.calls = 0


def helper():
    global count  # noqa: PLW0603
    count += 1


def counts_in_a_helper(x):
    helper()
    return busy_ms(x)


def loads_late(x):
    global lazy  # noqa: PLW0603
    if lazy is None or len(lazy) > 100:
        lazy = {}
    lazy[len(lazy)] = x
    return busy_ms(x)


def has_a_default(x, cache={}):
    cache[len(cache)] = x
    return busy_ms(x)


class Model:
    n = 0
    shared = 0

    def __init__(self):
        self.n = 0

    def work(self, x):
        self.n += 1
        return busy_ms(x)

    def counts_in_the_class(self, x):
        Model.shared += 1
        return busy_ms(x)

    def __call__(self, x):
        self.n += 1
        return busy_ms(x)


def closure_list():
    found = []

    def work(x):
        found.append(x)
        return busy_ms(x)

    return work


def closure_number():
    n = 0

    def work(x):
        nonlocal n
        n += 1
        return busy_ms(x)

    return work


KINDS = {
    "a global number": lambda: counts_in_a_global,
    "a dictionary of results": lambda: keeps_results,
    "a global list": lambda: appends,
    "a generator": lambda: draws,
    "an attribute of its own": lambda: counts_in_itself,
    "a helper's global": lambda: counts_in_a_helper,
    "made late": lambda: loads_late,
    "a default": lambda: has_a_default,
    "a bound method": lambda: Model().work,
    "its class": lambda: Model().counts_in_the_class,
    "an instance": Model,
    "a closure's list": closure_list,
    "a closure's number": closure_number,
    "a partial": lambda: functools.partial(closure_list()),
}


def run(func, items=60, **options):
    """Run; return whether it was a hit."""
    reports = []
    got = smart_map(func, range(items), report=reports.append, **options)
    assert got == [2 * x for x in range(items)]
    return reports[0].cache_hit


def names():
    """Return what is remembered; on a busy machine one of it may have two time buckets."""
    return {path.name.partition("_")[0] for path in record_files()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_process_hits(kind):
    """One record, found by the next call, and by one in another process."""
    func = KINDS[kind]()
    assert not run(func)
    assert len(names()) == 1
    assert run(func)
    forget()
    assert run(KINDS[kind]())
    assert len(names()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_many_calls_write_one_record(kind):
    """Not one a call, which would drive out everybody else's."""
    func = KINDS[kind]()
    for _ in range(8):
        smart_map(func, range(50))  # enough that even a slow walk of the function pays
    assert len(names()) == 1


COUNTER = """
import sys
from amorsize import get_cache_dir, smart_map
from amorsize.memory.cache import CACHE
n = 0
seen = []
def light(x):
    global n
    n += 1
    return x
def lists(x):
    seen.append(x)
    return x
class Sum:
    total = 0
    def add(self, x):
        self.total += x
        return x
sums = Sum()
for _ in range(50):
    for func in (light, lists, sums.add):
        smart_map(func, range(int(sys.argv[1])))
CACHE.flush()
print(len(list(get_cache_dir().glob("func-*"))))
"""


@pytest.mark.parametrize("items", [3, 30, 3_000])
def test_calls_of_microseconds_write_no_record_each(items, tmp_path):
    """Nor do those that are over before anything is looked up."""
    path = tmp_path / "program.py"
    path.write_text(COUNTER)
    ended = programs.run(path, items)
    assert ended.code == 0, ended.err
    assert int(ended.out) <= 6


@pytest.mark.parametrize("jobs", [None, 2])
def test_where_it_runs_in_workers_the_next_call_hits(jobs):
    """What workers change is theirs; what the first items changed here is seen."""
    func = closure_list()
    run(func, items=200, n_jobs=jobs)
    assert run(func, items=200, n_jobs=jobs)
    assert len(names()) == 1


def test_threads_and_lazy_runs_count_as_well():
    """Every way of running a function may change what it reaches."""
    for options in ({"backend": "thread", "n_jobs": 2}, {}):
        forget()
        func = closure_number()
        for _ in range(2):
            if options:
                smart_map(func, range(60), **options)
            else:
                list(smart_imap(func, range(60)))
    assert len(names()) == 1


def test_advice_is_found_again():
    """What optimize measured on a sample, another call of it finds."""
    func = closure_list()
    assert not optimize(func, range(60)).cache_hit
    assert optimize(func, range(60)).cache_hit
    forget()
    assert optimize(closure_list(), range(60)).cache_hit


def make(k):
    def work(x):
        return busy_ms(x) + k - k

    return work


def test_functions_that_change_nothing_keep_their_own_records():
    """Those that differ in a value alone are still two."""
    assert not run(make(1))
    assert not run(make(2))
    assert len(names()) == 2
    forget()
    assert run(make(1))
    assert not run(make(3))


def test_values_changed_between_calls_are_seen():
    """It is the function's own doing that counts, not its user's."""
    config = {"k": 0}

    def work(x):
        return busy_ms(x) + config["k"]

    smart_map(work, range(60))
    config["k"] = 1
    smart_map(work, range(60))
    assert len(names()) == 2


def test_code_is_told_apart_without_values():
    """By bytecode, helpers, methods and type; not by what they hold."""
    assert coarse_digest(make(1)) == coarse_digest(make(2))
    assert coarse_digest(Model().work) == coarse_digest(Model().work)
    assert coarse_digest(functools.partial(pow, 2)) == coarse_digest(functools.partial(pow, 3))
    digests = {coarse_digest(KINDS[kind]()) for kind in KINDS}
    assert len(digests) == len(KINDS)
    assert coarse_digest(Model()) != coarse_digest(threading.Event())


def test_another_process_gives_code_the_same_digest(tmp_path):
    """Whatever the hash seed."""
    source = (
        "from tests.test_changing_functions import KINDS, coarse_digest\n"
        "print(*[coarse_digest(KINDS[kind]()) for kind in KINDS])"
    )
    found = {programs.run("-c", source, PYTHONHASHSEED=seed).out for seed in ("1", "2")}
    assert found == {" ".join(coarse_digest(KINDS[kind]()) for kind in KINDS) + "\n"}
