"""Inputs without a length: remembered in the process, and read by the caller beside its workers."""

import os
import time

import pytest

from amorsize import cache_stats, smart_imap, smart_map
from amorsize.decide.figures import FIRST_COSTS, Profile
from amorsize.decide.model import Workforce, parallel_seconds
from amorsize.run.feed import Feed

CALLER = os.getpid()


def computes(x):
    """Compute for 2 ms, and tell which process did."""
    end = time.process_time() + 0.002
    while time.process_time() < end:
        pass
    return x, os.getpid()


def generated(n):
    yield from range(n)


def reported(call):
    reports = []
    got = call(reports.append)
    return got, reports[0]


def test_the_second_call_over_a_generator_knows_the_function():
    """Its workers start after an item or two."""
    first, one = reported(lambda r: smart_map(computes, generated(200), report=r))
    second, two = reported(lambda r: smart_map(computes, generated(200), report=r))
    assert [x for x, _ in first] == [x for x, _ in second] == list(range(200))
    assert not one.cache_hit
    assert two.cache_hit
    if two.backend == "serial":
        pytest.skip("the machine is too busy for workers to pay")
    before = min(span.start for span in two.timeline)
    assert before <= 3


def test_what_is_remembered_of_a_generator_stays_in_the_process():
    """No file is written, and the statistics of the cache do not count it."""
    before = cache_stats()
    for _ in range(3):
        smart_map(computes, generated(50))
    after = cache_stats()
    assert (after.entries, after.hits, after.misses) == (
        before.entries,
        before.hits,
        before.misses,
    )


@pytest.mark.parametrize("count", [0, 1, 40, 1_000])
def test_a_generator_of_another_length_is_read_to_its_end(count):
    """The length of the call before is a guess."""
    smart_map(computes, generated(200))
    assert [x for x, _ in smart_map(computes, generated(count))] == list(range(count))


def test_an_endless_generator_is_not_read_ahead_without_bound():
    """Also if a finite one is remembered."""
    taken = []

    def endless():
        x = 0
        while True:
            taken.append(x)
            yield x
            x += 1

    smart_map(computes, generated(200))
    results = smart_imap(computes, endless())
    assert [next(results)[0] for _ in range(20)] == list(range(20))
    results.close()
    assert len(taken) < 2_000


class Breaks:
    """An iterator that raises after some items."""

    def __init__(self, good, error):
        self.good, self.error = good, error
        self.given = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.given == self.good:
            raise self.error
        self.given += 1
        return self.given


@pytest.mark.parametrize("good", [0, 1, 63, 64, 65, 300])
def test_an_exception_of_the_input_arrives_after_the_items_before_it(good):
    """Where the timing of its first items ends, too."""
    error = OSError("no more")
    got = []
    with pytest.raises(OSError, match="no more"):
        for result in smart_imap(abs, Breaks(good, error)):
            got.append(result)
    assert got == list(range(1, good + 1))


def test_the_time_of_reading_is_measured():
    """Without it, a slow input looks like a slow function."""

    def slow():
        for x in range(20):
            time.sleep(0.002)
            yield x

    feed = Feed(abs, (slow(),), star=False)
    out = []
    feed.run(20, out)
    assert out == list(range(20))
    assert 0.002 <= feed.input_seconds < 0.1
    assert Feed(abs, ([1, 2],), star=False).input_seconds == 0


def test_workers_do_not_pay_where_reading_is_the_work():
    """The caller reads each item; only the rest can be shared."""
    profile = Profile(item_seconds=100e-6, items=1_000)
    crew = Workforce("fork", 2, 2, inherited=False, shared=True)
    quick = parallel_seconds(profile, FIRST_COSTS, 4_000, crew)
    slow = parallel_seconds(profile, FIRST_COSTS, 4_000, crew._replace(input_seconds=80e-6))
    assert quick < 0.7 * 4_000 * 100e-6
    assert slow > 4_000 * 80e-6
