"""How a map of a pool is cut: all items once, in order, finer where they are dear."""

from functools import partial
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amorsize.decide.course import Course, course_of, even_course
from amorsize.serve.jobs import MapJob
from amorsize.serve.orders import Sendable
from amorsize.serve.paces import Paces
from amorsize.serve.results import AsyncResult

SECONDS = st.floats(0, 10, allow_nan=False)


@st.composite
def courses(draw):
    sizes = draw(st.lists(st.integers(1, 50), min_size=1, max_size=30))
    pieces, start = [], 0
    for size in sizes:
        pieces.append((start, size, draw(SECONDS)))
        start += size
    return course_of(draw(st.permutations(pieces)))


def cuts(course, items, workers, seconds_of):
    """Return the (start, size) of all chunks, the results, and the job.

    Args:
        course: of an earlier job; None for none.
        items: number of items.
        workers: number of workers.
        seconds_of: returns the time of an item, given its index.
    """
    result = AsyncResult()
    job = MapJob(
        Sendable(abs, ""), range(items), star=False, chunksize=None, workers=workers, result=result
    )
    if course is not None:
        job.expect(course.seconds / course.items, course)
    out, found = [], []
    while not result.ready():
        ticket = job.draw()
        if ticket is not None:
            out.append(ticket)
            continue
        oldest = out.pop(0)
        chunk = oldest.order.items
        found.append((chunk[0], len(chunk)))
        seconds = sum(map(seconds_of, chunk))
        oldest.settle(list(chunk), seconds, seconds)
    return found, result.get(), job


@given(courses(), st.floats(0, 1))
def test_what_is_before_an_index_is_reached_there(course, part):
    """Both ways agree, and neither leaves the items."""
    index = round(part * course.items)
    assert 0 <= course.before(index) <= course.seconds + 1e-9
    reached = course.reached(part * course.seconds)
    assert 0 <= reached <= course.items
    assert course.before(course.items) == pytest.approx(course.seconds)
    earlier = course.reached(part * course.seconds / 2)
    assert earlier <= reached


@given(courses() | st.none(), st.integers(1, 500), st.integers(1, 8), st.floats(1e-7, 2.0))
def test_any_course_gives_all_items_once_and_in_order(course, items, workers, each):
    """Right or wrong, of this number of items or of another."""
    found, values, _ = cuts(course, items, workers, lambda _: each)
    assert values == list(range(items))
    assert [start for start, _ in found] == sorted(start for start, _ in found)
    if course is not None:
        assert max(size for _, size in found) <= ceil(items / workers)


def test_dear_items_are_found_in_a_few_runs():
    """A single dear item gets a chunk of its own; many short ones stay together."""

    def seconds_of(index):
        return 0.1 if index == 700 else 50e-6

    course = even_course(2_000, 1e-4)
    for _ in range(5):
        found, _, job = cuts(course, 2_000, 2, seconds_of)
        course = course_of(job.pieces)
    assert (700, 1) in found
    assert len(found) < 40


def test_what_all_take_alike_is_cut_by_factoring():
    """At first as many items as a Pool gives, at last as few as are worth a chunk."""
    found, *_ = cuts(even_course(1_000, 0.001), 1_000, 2, lambda _: 0.001)
    assert [size for _, size in found[:4]] == [125] * 4
    assert found[-1][1] == 1
    assert len(found) < 30


def test_partials_of_different_functions_have_courses_of_their_own():
    """And partials of one function have one."""
    paces = Paces()
    paces.note(partial(pow, 2), even_course(10, 0.1))
    assert paces.of(partial(divmod, 2)) is None
    assert paces.of(partial(partial(pow, 3))) == even_course(10, 0.1)


def test_a_course_without_any_time_is_no_error():
    """Clocks may show no time."""
    _, values, _ = cuts(Course((5, 10), (0.0, 0.0)), 10, 2, lambda _: 0.0)
    assert values == list(range(10))
