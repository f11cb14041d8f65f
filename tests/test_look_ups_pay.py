"""A fingerprint is taken only where the work done pays for it many times over."""

import functools
import sys
import types

import pytest

from amorsize import smart_imap, smart_map
from amorsize.call.decision import LOOK_UP_SECONDS, WALK_SHARE
from amorsize.identity import fingerprint as fingerprints
from amorsize.identity.fingerprint import fingerprint, walk_seconds
from tests.load import first_undisturbed

CONFIG = {f"key{n}": {"a": n, "b": [n, n + 1]} for n in range(120)}


def with_config(x):
    return x + len(CONFIG)


def with_methods():
    """Return a function that reaches a class of 1,200 methods and something mutable."""
    source = "".join(f" def m{n}(self, x): return x + {n}\n" for n in range(1_200))
    namespace = {"__name__": "__main__", "seen": []}
    exec(f"class A:\n{source}\ndef f(x): return x if x else A, seen", namespace)
    return namespace["f"]


def with_memo():
    seen = {}

    def f(x):
        return seen.setdefault(x, x)

    return f


class Scale:
    def __init__(self):
        self.table = [*range(100)]

    def __call__(self, x):
        return x

    def method(self, x):
        return x


FUNCTIONS = {
    "config": lambda: with_config,
    "methods": with_methods,
    "memo": with_memo,
    "instance": Scale,
    "method": lambda: Scale().method,
    "partial": lambda: functools.partial(with_config),
    "plain": lambda: lambda x: x,
    "large set": lambda: functools.partial(lambda s, x: x, set(map(str, range(9_000)))),
}


@pytest.fixture
def walks(monkeypatch):
    """Return a list that gets every function that is walked, or whose guards are looked at."""
    seen = []
    walked, holds = fingerprints._walked, fingerprints._Memo.holds
    monkeypatch.setattr(fingerprints, "_walked", lambda func: seen.append(func) or walked(func))
    monkeypatch.setattr(fingerprints._Memo, "holds", lambda self: seen.append(self) or holds(self))
    return seen


def is_quiet(call, walks):
    """Return whether one of some calls looks at nothing; a busy machine makes items dear."""
    for _ in range(20):
        walks.clear()
        call()
        if not walks:
            return True
    return False


@pytest.mark.parametrize("name", FUNCTIONS)
def test_three_trivial_items_are_not_worth_a_look(name, walks):
    """Neither the first call nor a later one takes a fingerprint, whatever the function reaches."""
    func = FUNCTIONS[name]()
    fingerprints._memo.clear()
    fingerprints._costs.clear()
    assert is_quiet(lambda: smart_map(func, range(3)), walks)
    assert is_quiet(lambda: list(smart_imap(func, range(3))), walks)
    fingerprint(func)
    assert is_quiet(lambda: smart_map(func, range(3)), walks)


def spinning(seconds):
    """Return a function over many things that takes so long; its clock is all that passes."""
    import time

    table = [[n, n] for n in range(400)]

    def f(x):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return x + len(table)

    return f


def test_a_dear_walk_waits_for_more_work(walks):
    """What a walk cost the last time must be little next to the work, done and to come."""
    func = spinning(0.002)
    fingerprint(func)
    cost = walk_seconds(func)
    assert 0.002 * WALK_SHARE < cost < 1.0 * WALK_SHARE
    walks.clear()

    def counted(x):
        return func(x)

    # The same code as far as costs go, so that it is this function that is asked about.
    fingerprints._costs[id(counted.__code__)] = counted.__code__, cost
    few = int(cost / WALK_SHARE / 0.002) // 6  # on a busy machine they take several times as long

    def walked():
        walks.clear()
        assert smart_map(counted, range(few)) == [x + 400 for x in range(few)]
        return list(walks)

    assert first_undisturbed(walked, []) == []
    assert smart_map(counted, range(200)) == [x + 400 for x in range(200)]
    assert walks


def test_a_walk_is_counted_in_steps_not_timed(monkeypatch):
    """The cost that is remembered is the same in every run, on a busy machine as well."""
    made = [spinning(0.0) for _ in range(3)]
    costs = []
    for func in made:
        fingerprint(func)
        costs.append(walk_seconds(func))
    assert len(set(costs)) == 1
    assert walk_seconds(made[0]) > 50 * walk_seconds(lambda x: x)


def test_costs_are_remembered_by_code():
    """Partials, methods and closures made of one code count as one; others are not known yet."""
    func = with_memo()
    assert walk_seconds(func) == 0
    fingerprint(func)
    assert walk_seconds(func) > 0
    assert walk_seconds(with_memo()) == walk_seconds(func)
    assert walk_seconds(functools.partial(functools.partial(func))) == walk_seconds(func)
    scale = Scale()
    assert walk_seconds(scale.method) == 0
    fingerprint(scale.method)
    assert walk_seconds(Scale().method) > 0
    assert walk_seconds(types.FunctionType((lambda x: x).__code__, {})) == 0


def test_a_memoised_function_costs_its_guards_only():
    """A function that reaches nothing mutable is cheap to ask about once it is known."""

    def f(x):
        return x + 1

    first = fingerprint(f)
    assert walk_seconds(f) < LOOK_UP_SECONDS * WALK_SHARE
    assert fingerprint(f) == first


def test_costs_do_not_keep_all_functions(monkeypatch):
    """What is remembered of costs is limited."""
    monkeypatch.setattr(fingerprints, "MOST_COSTS", 10)
    for number in range(50):
        fingerprint(eval(f"lambda x: x + {number}"))
    assert len(fingerprints._costs) <= 10
    assert sys.getrefcount(fingerprints._costs)
