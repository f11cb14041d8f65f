"""``seed=``: each item has a random stream of its own, whatever the workers and chunks."""

import concurrent.futures
import random
import sys

import pytest

from amorsize import smart_imap, smart_imap_unordered, smart_map, smart_map_async, smart_starmap
from tests import programs
from tests.seeded import draw, draw_or_fail

METHODS = programs.MOSTLY_FORKSERVER
WAYS = [
    {"n_jobs": 1},
    {"backend": "serial"},
    {},
    {"n_jobs": 2},
    {"n_jobs": 3, "chunksize": 1},
    {"n_jobs": 2, "chunksize": 7},
]


def wanted():
    return smart_map(draw, range(20), n_jobs=1, seed=7)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_results_do_not_depend_on_workers_or_chunks(way):
    """The same numbers, from Python's generator and from NumPy's."""
    assert smart_map(draw, range(20), seed=7, **way) == wanted()


@pytest.mark.parametrize("method", ["fork", *METHODS])
def test_results_do_not_depend_on_the_start_method(method):
    """Nor on the form of the call."""
    how = {"seed": 7, "n_jobs": 2, "mp_context": method}
    assert smart_map(draw, range(20), **how) == wanted()
    assert smart_starmap(draw, [(x,) for x in range(20)], **how) == wanted()
    assert list(smart_imap(draw, iter(range(20)), **how)) == wanted()
    assert sorted(smart_imap_unordered(draw, range(20), **how)) == sorted(wanted())


def test_items_have_different_streams_and_seeds_different_results():
    """No two items draw the same, and neither do two seeds."""
    found = wanted()
    assert len({number for _, *numbers in found for number in numbers}) == 40
    assert smart_map(draw, range(20), seed=8) != found


def test_the_callers_generators_are_left_as_they_were():
    """Also where items run in the calling process."""
    numpy = pytest.importorskip("numpy")
    random.seed(3)
    numpy.random.seed(3)
    before = random.getstate(), numpy.random.get_state()[2]
    smart_map(draw, range(20), n_jobs=1, seed=7)
    for _ in smart_imap(draw, range(5), seed=7):
        assert (random.getstate(), numpy.random.get_state()[2]) == before


def test_without_a_seed_nothing_is_seeded():
    """Two calls draw different numbers."""
    assert smart_map(draw, range(20)) != smart_map(draw, range(20))


def test_failed_items_do_not_move_the_streams_of_others():
    """With exceptions as results, and after the death of a worker."""
    found = smart_map(draw_or_fail, range(20), seed=7, n_jobs=2, return_exceptions=True)
    assert [x for x in found if isinstance(x, tuple)] == [
        x for number, x in enumerate(wanted()) if number != 5
    ]


def test_a_library_that_an_item_loads_is_seeded():
    """NumPy, imported by the function, in a process that had not loaded it."""
    pytest.importorskip("numpy")
    source = (
        "import sys\nfrom amorsize import smart_map\nfrom tests.seeded import draw\n"
        "assert 'numpy' not in sys.modules\n"
        "print(smart_map(draw, range(6), seed=7, {}))\n"
        "import numpy.random\nprint(numpy.random.__spec__.loader is numpy.random.__loader__,"
        " type(numpy.random.__loader__).__name__)"
    )
    for way in ("n_jobs=1", "n_jobs=2, mp_context='fork'", "n_jobs=2, mp_context='forkserver'"):
        ended = programs.run("-c", source.format(way))
        expected = smart_map(draw, range(6), seed=7, n_jobs=1)
        assert ended.out == f"{expected}\nTrue SourceFileLoader\n", ended.err


def test_torch_draws_from_the_same_stream():
    """Its generator is seeded where it is loaded."""
    torch = pytest.importorskip("torch")

    def drawn(x):
        return x, float(torch.rand(()))

    once = smart_map(drawn, range(12), n_jobs=1, seed=7)
    assert len({number for _, number in once}) == 12
    assert smart_map(drawn, range(12), n_jobs=2, seed=7, mp_context="forkserver") == once


def inner(_):
    return random.random()


def outer(x):
    return smart_map(inner, range(3), n_jobs=2)[-1], random.random()


def across_threads(x):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(smart_map, inner, range(3), seed=x, n_jobs=1).result()


@pytest.mark.parametrize("way", [{"n_jobs": 1}, {"n_jobs": 2}], ids=str)
def test_a_call_inside_an_item_draws_from_its_stream(way):
    """Whatever workers the inner call has; also in another thread, where nothing may wait."""
    assert smart_map(outer, range(4), seed=1, **way) == smart_map(outer, range(4), seed=1, n_jobs=1)
    found = smart_map(across_threads, range(4), seed=1, timeout=60, **way)
    assert found == smart_map(across_threads, range(4), seed=2, n_jobs=1)


def test_a_library_that_an_item_loads_is_left_unseeded():
    """After the item its generator is as if the caller had loaded it."""
    source = (
        "from amorsize import smart_map\nfrom tests.seeded import draw\n"
        "smart_map(draw, range(3), seed=7, n_jobs=1)\n"
        "import numpy; print(numpy.random.rand())"
    )
    assert len({programs.run("-c", source).out for _ in range(2)}) == 2


def test_threads_are_refused():
    """They share the generators; the error names both options."""
    with pytest.raises(ValueError, match="seed=1.*thread"):
        smart_map(draw, range(3), seed=1, backend="thread")
    with (
        concurrent.futures.ThreadPoolExecutor(2) as executor,
        pytest.raises(ValueError, match="seed=1.*backend"),
    ):
        smart_map(draw, range(3), seed=1, backend=executor)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True])
def test_bad_seeds_are_refused(seed):
    """Before any item runs."""
    with pytest.raises((TypeError, ValueError), match="seed"):
        smart_map(sys.exit, range(3), seed=seed)


def test_engines_and_awaited_calls_draw_the_same():
    """The stream is the item's, wherever it runs."""
    import asyncio

    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        assert smart_map(draw, range(20), seed=7, backend=executor) == wanted()
    if programs.HAS_EVENT_LOOPS:
        assert asyncio.run(smart_map_async(draw, range(20), seed=7)) == wanted()
