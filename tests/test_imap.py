"""The lazy forms: nothing ahead of need, nothing left behind."""

import itertools
import time

import psutil
import pytest

from amorsize import smart_imap, smart_imap_unordered
from tests import functions as f

WAYS = [
    pytest.param({"n_jobs": 2, "mp_context": "fork"}, id="fork"),
    pytest.param({"n_jobs": 2, "mp_context": "spawn"}, id="spawn"),
    pytest.param({"n_jobs": 2, "backend": "thread"}, id="thread"),
    pytest.param({"n_jobs": 1}, id="serial"),
    pytest.param({}, id="decided"),
]


def counted(limit=None):
    """Return (generator, list that holds how many items were taken from it)."""
    taken = [0]

    def items():
        for x in itertools.count() if limit is None else range(limit):
            taken[0] += 1
            yield x

    return items(), taken


@pytest.mark.parametrize("way", WAYS)
class TestEveryWay:
    def test_yields_the_results_in_order(self, way):
        """smart_imap yields what map yields."""
        assert list(smart_imap(f.double, range(200), **way)) == [2 * x for x in range(200)]

    def test_unordered_yields_the_same_results(self, way):
        """smart_imap_unordered yields each result once."""
        results = smart_imap_unordered(f.double, range(200), **way)
        assert sorted(results) == [2 * x for x in range(200)]

    def test_infinite_input_is_no_problem(self, way):
        """An endless generator is read only as far as the workers need."""
        items, taken = counted()
        results = smart_imap(f.busy_ms, items, **way)
        assert list(itertools.islice(results, 100)) == [2 * x for x in range(100)]
        results.close()
        assert taken[0] < 10_000

    def test_buffersize_bounds_the_items_in_flight(self, way):
        """At most buffersize items are taken beyond those consumed."""
        items, taken = counted(300)
        for consumed, _ in enumerate(smart_imap(f.double, items, buffersize=7, **way)):
            assert taken[0] - consumed <= 8  # the one being yielded counts as consumed next
        assert taken[0] == 300

    def test_results_before_a_failure_are_yielded_first(self, way):
        """Everything before the failing item arrives, then its exception."""
        got = []
        with pytest.raises(ValueError, match="no 30"):
            for x in smart_imap(f.fail_on_multiples_of_30, range(100), **way):
                got.append(x)
        assert got == list(range(30))

    def test_an_abandoned_iterator_ends_its_workers(self, way):
        """Closing the iterator leaves no process behind (the fixture looks again at the end)."""
        results = smart_imap(f.busy_ms, itertools.count(), **way)
        for _ in range(30):
            next(results)
        results.close()
        own = psutil.Process()  # a forked worker has the command line of this process
        assert not [c for c in own.children() if c.cmdline() == own.cmdline()]


def test_nothing_runs_before_the_first_result_is_asked_for():
    """Making the iterator takes nothing from the input."""
    items, taken = counted()
    results = smart_imap(f.double, items)
    assert taken[0] == 0
    results.close()


def test_serially_nothing_is_taken_ahead():
    """In the calling process exactly as many items are taken as results were asked for."""
    items, taken = counted()
    results = smart_imap(f.double, items, n_jobs=1)
    for wanted in range(1, 300):
        next(results)
        assert taken[0] == wanted
    results.close()


def test_a_slow_consumer_stops_the_input():
    """While nobody asks for results, the input is not read on."""
    items, taken = counted()
    results = smart_imap(f.busy_ms, items, n_jobs=2, buffersize=20)
    next(results)
    time.sleep(0.1)
    assert taken[0] <= 21
    results.close()


def test_bad_options_are_refused_before_the_first_result():
    """Options are checked when the iterator is made."""
    with pytest.raises(ValueError, match="n_jobs"):
        smart_imap(f.double, [1], n_jobs=0)
