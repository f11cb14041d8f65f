"""``last_run``: the report of this thread's last call of any form; it keeps nothing alive."""

import gc
import threading
import weakref

import pytest

from amorsize import (
    last_run,
    parallelize,
    smart_imap,
    smart_imap_unordered,
    smart_map,
    smart_starmap,
)

from . import functions as f


class Item:
    """Something that can be seen to go."""


def ask(results, name):
    results[name] = last_run()


def test_it_is_the_last_call_of_any_form():
    """Each form counts when it ends, also inside a worker function."""
    smart_map(f.double, range(3))
    assert (last_run().function, last_run().items) == ("double", 3)
    smart_starmap(pow, [(2, 3)])
    assert (last_run().function, last_run().items) == ("pow", 1)
    started = smart_imap(f.double, range(5))
    next(started)
    assert last_run().function == "pow"
    assert list(started) == [2, 4, 6, 8]
    assert (last_run().function, last_run().items) == ("double", 5)
    list(smart_imap_unordered(abs, [-1, 2]))
    assert (last_run().function, last_run().items) == ("abs", 2)
    assert last_run() is last_run()


def test_it_is_that_of_the_thread():
    """A thread sees its own calls only."""
    smart_map(f.double, range(3))
    found = {}
    thread = threading.Thread(target=ask, args=(found, "new"))
    thread.start()
    thread.join(20)
    assert found == {"new": None}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_tells_of_workers(method):
    """What was decided and what happened in workers is told afterwards."""
    smart_map(f.busy_ms, range(60), n_jobs=2, mp_context=method)
    found = last_run()
    assert found.n_jobs == 2
    assert found.start_method == method
    assert found.worker_items == 60
    assert len(found.workers) in (1, 2)
    assert found.timeline
    assert "ran" in found.explain()


def test_a_call_that_failed_is_told():
    """The report says that the call ended early."""
    with pytest.raises(ZeroDivisionError):
        smart_map(lambda x: 1 / x, [1, 2, 0, 3])
    assert last_run().ended_early


def test_it_is_the_report_of_a_decorated_function():
    """The same report, whichever way it is asked for."""
    double = parallelize(f.double)
    double.map([1, 2])
    assert double.last_run is last_run()
    smart_map(abs, [1])
    assert double.last_run is not last_run()
    assert double.last_run.items == 2


@pytest.mark.parametrize("options", [{}, {"n_jobs": 2, "mp_context": "fork"}])
def test_nothing_of_the_call_is_kept_alive(options):
    """Items, results, what the function captured and the options' callables go with the call."""
    item, captured, shown = Item(), Item(), Item()
    seen = [weakref.ref(one) for one in (item, captured, shown)]

    def work(one, held=captured):
        return held is not None

    def progress(done, total, held=shown):
        pass

    def call(item, func, show):
        return smart_map(func, [item] * 4, progress=show, **options)

    assert call(item, work, progress) == [True] * 4
    del item, captured, shown, work, progress
    gc.collect()
    assert [one() for one in seen] == [None] * 3
    assert last_run().items == 4


def test_what_a_failed_call_held_goes_with_its_exception():
    """The exception holds the call's frames; the report holds nothing of them."""
    item = Item()
    seen = weakref.ref(item)

    def call(item):
        with pytest.raises(ZeroDivisionError):
            smart_map(lambda one: 1 / 0, [item, item], n_jobs=2, mp_context="fork")

    call(item)
    del item
    gc.collect()
    assert seen() is None
    assert last_run().ended_early


def test_effects_are_told_while_the_function_exists():
    """A function that changes what workers only have copies of is told so afterwards."""
    total = []

    def work(x):
        total.append(x)
        return x

    smart_map(work, range(40), n_jobs=2)
    assert any("total" in hint for hint in last_run().hints)


def test_nothing_is_kept_where_the_report_raises():
    """An error of the user's callable changes nothing."""
    item = Item()
    seen = weakref.ref(item)

    def bad(report):
        raise OSError("no")

    def call(item):
        with pytest.raises(OSError, match="no"):
            smart_map(lambda one: 1, [item], report=bad)

    call(item)
    del item
    gc.collect()
    assert seen() is None


def test_a_function_that_holds_data_is_not_kept():
    """Neither its defaults nor its attributes."""
    held = [Item(), Item()]
    seen = [weakref.ref(one) for one in held]

    def work(x, *, by=held[0]):
        return x

    work.data = held[1]
    smart_map(work, [1, 2])
    del work, held
    gc.collect()
    assert [one() for one in seen] == [None, None]
