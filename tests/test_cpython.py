"""CPython's own tests of Pool and of executors pass with amorsize's."""

import importlib.util
import re

import pytest

from tests import programs

# The first is the quickest: fork, where there is fork.
METHODS = [
    pytest.param(method, marks=[pytest.mark.slow] if place else [])
    for place, method in enumerate(programs.START_METHODS)
]


def ran(what, method):
    """Run CPython's tests; return how many ran."""
    ended = programs.run("-m", "tests.cpython", what, method, deadline=300)
    assert ended.code == 0, ended.err
    assert "skipped" not in ended.out, ended.out
    return int(re.search(r"^ran (\d+)", ended.out, re.MULTILINE)[1])


has_tests = pytest.mark.skipif(
    not importlib.util.find_spec("test._test_multiprocessing"),
    reason="CPython's tests are not installed",
)
has_mixins = pytest.mark.skipif(
    not importlib.util.find_spec("test.test_concurrent_futures"),
    reason="CPython's tests of executors are not installed",
)


@has_tests
@pytest.mark.timeout(400)
@pytest.mark.parametrize("method", METHODS)
def test_pool_passes_the_tests_of_multiprocessing(method):
    """All that the Pool of the standard library passes: 31 in Python 3.11 to 3.13."""
    assert ran("pool", method) >= 31


@has_mixins
@pytest.mark.timeout(400)
@pytest.mark.parametrize("method", METHODS)
def test_executor_passes_the_tests_of_concurrent_futures(method):
    """All mixins that are about any executor of processes: 31 in Python 3.13."""
    assert ran("executor", method) >= 31
