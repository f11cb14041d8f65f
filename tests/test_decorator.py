"""@parallelize: the function stays itself and gains the forms of map."""

import copy
import functools
import inspect
import pickle
import sys
import threading

import pytest

from amorsize import ParallelFunction, RunReport, optimize, parallelize
from tests import functions as f
from tests import programs


@parallelize
def triple(x):
    """Return three times x."""
    return 3 * x


@parallelize(n_jobs=2, mp_context="spawn")
def shipped(x):
    return triple(x) + 1


class Box:
    """A class with parallel methods of each kind."""

    factor = 5

    def __init__(self, offset):
        self.offset = offset

    @parallelize(n_jobs=2)
    def shift(self, x):
        return x + self.offset

    @parallelize
    @classmethod
    def scale(cls, x):
        return cls.factor * x

    @parallelize
    @staticmethod
    def negate(x):
        return -x


def test_calling_it_is_the_plain_function():
    """Name, doc, signature and result are the function's own."""
    assert triple(4) == 12
    assert (triple.__name__, triple.__doc__) == ("triple", "Return three times x.")
    assert str(inspect.signature(triple)) == "(x)"
    assert isinstance(triple, ParallelFunction)


def test_the_forms_of_map_are_methods():
    """map, starmap, imap and imap_unordered do what their names say."""
    assert triple.map([1, 2]) == [3, 6]
    assert list(triple.imap([1, 2])) == [3, 6]
    assert sorted(triple.imap_unordered([1, 2])) == [3, 6]
    assert parallelize(f.add).starmap([(1, 2), (3, 4)]) == [3, 7]
    assert parallelize(f.add).map([1, 2], [10, 20]) == [11, 22]


def test_options_of_the_decorator_the_copy_and_the_call():
    """Options of a call go before those of the function, and a copy leaves the original alone."""
    inside = triple.options(n_jobs=2)
    assert inside.map(range(10)) == [3 * x for x in range(10)]
    assert inside.last_run.backend == "process"
    assert inside.map(range(10), n_jobs=1) == [3 * x for x in range(10)]
    assert inside.last_run.backend == "serial"
    triple.map(range(3))
    assert triple.last_run.backend == "serial"
    with pytest.raises(ValueError, match="n_jobs=0"):
        triple.options(n_jobs=0)


def test_it_travels_by_name_to_a_fresh_interpreter():
    """A decorated function works under spawn, and calls other decorated functions there."""
    assert shipped.map(range(20)) == [3 * x + 1 for x in range(20)]
    assert pickle.loads(pickle.dumps(triple)) is triple


def test_methods_classmethods_and_staticmethods():
    """It binds as functions do, calls and maps."""
    box = Box(7)
    assert (box.shift(1), Box.scale(2), Box.negate(3), box.negate(4)) == (8, 10, -3, -4)
    assert box.shift.map(range(5)) == [7, 8, 9, 10, 11]
    assert box.shift.last_run.items == 5
    assert Box.scale.map(range(5)) == [0, 5, 10, 15, 20]
    assert Box.negate.map([1, 2]) == [-1, -2]


class Turned:
    """The decorators in the other order."""

    factor = 5

    @classmethod
    @parallelize
    def scale(cls, x):
        return cls.factor * x

    @staticmethod
    @parallelize
    def negate(x):
        return -x


class Base(Turned):
    pass


def test_classmethods_and_staticmethods_in_the_other_order():
    """Calls always work; the forms of map do where Python tells which class is meant."""
    assert Turned.scale(2) == Turned().scale(2) == 10
    assert Turned.negate.map([1, 2]) == Turned().negate.map([1, 2]) == [-1, -2]
    if sys.version_info < (3, 13):
        assert Base.scale.map([1]) == [5]
    else:
        with pytest.raises(TypeError, match="above @classmethod"):
            Base.scale.map([1])


class Alone:
    factor = 2

    @classmethod
    @parallelize
    def scale(cls, x):
        return cls.factor * x


def test_a_classmethod_around_it_is_found():
    """Also from Python 3.13 on, where no subclass is in doubt."""
    assert Alone.scale.map([1, 2]) == Alone().scale.map([1, 2]) == [2, 4]
    assert list(Alone.scale.imap([1, 2], n_jobs=2)) == [2, 4]


@parallelize
@functools.lru_cache
def remembered(x):
    return x


remembered.__wrapped__.unit = "m"


def test_attributes_of_the_function_are_reached():
    """Those of a cached function, and the user's own."""
    remembered(1)
    assert remembered.cache_info().currsize == 1
    assert remembered.unit == "m"
    assert not inspect.iscoroutinefunction(remembered)
    with pytest.raises(AttributeError, match="'colour'"):
        remembered.colour
    assert copy.copy(remembered)(3) == 3


async def fetch(x):
    return x


async def stream(x):
    yield x


def produce(x):
    yield x


@pytest.mark.parametrize("func", [fetch, stream, produce, staticmethod(produce)])
def test_functions_that_return_before_their_work_are_refused(func):
    """With a word on what to use."""
    with pytest.raises(TypeError, match="gather|return a list"):
        parallelize(func)


MAIN = """
import asyncio, functools, multiprocessing, pickle
import cloudpickle
from amorsize import Pool, parallelize
def logged(func):
    @functools.wraps(func)
    def inner(*args):
        return func(*args)
    return inner
@parallelize
def work(x):
    return 3 * x
@parallelize(n_jobs=2)
@logged
def wrapped(x):
    return work(x)
class Box:
    @parallelize
    def shift(self, x):
        return x + 1
if __name__ == "__main__":
    for func in (work, wrapped, Box().shift):
        copy = pickle.loads(pickle.dumps(func))
        assert copy(2) == func(2)
        by_value = cloudpickle.loads(cloudpickle.dumps(func))
        assert by_value(2) == func(2)
        with multiprocessing.get_context({method!r}).Pool(1) as pool:
            assert pool.map(func, [1, 2]) == [func(1), func(2)]
        with Pool(1, context={method!r}) as pool:
            assert pool.map(func, [1, 2]) == [func(1), func(2)]
        assert func.map([1, 2], n_jobs=2, mp_context={method!r}) == [func(1), func(2)]
    reports = []
    work.map([1], report=reports.append)
    print(work.__name__, work.__qualname__, reports[0].function)
"""


@pytest.mark.parametrize("method", ["fork", *programs.MOSTLY_FORKSERVER])
def test_one_of_the_main_module_pickles_wherever_the_function_would(method, tmp_path):
    """Into the workers of any pool."""
    ended = programs.run_source(MAIN.format(method=method), tmp_path)
    assert (ended.out, ended.err) == ("work work work\n", "")


def test_last_run_is_that_of_the_thread():
    """Another thread has its own, or none."""
    triple.map([1, 2, 3])
    seen = []

    def other():
        seen.append(triple.last_run)
        triple.map([1])
        seen.append(triple.last_run.items)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [None, 1]
    assert triple.last_run.items == 3


def test_last_run_and_report_both_get_the_report():
    """last_run holds the report of the last run; a report option still gets it, too."""
    decorated = parallelize(f.double)
    assert decorated.last_run is None
    reports = []
    decorated.map(range(5), report=reports.append)
    assert [decorated.last_run] == reports
    assert isinstance(decorated.last_run, RunReport)


def test_optimize_is_amorsize_optimize():
    """.optimize gives the advice of optimize for the function."""
    assert triple.optimize(range(10)).n_jobs == optimize(triple, range(10)).n_jobs == 1


def test_bad_use_is_refused():
    """What is not callable cannot be parallelized; options are checked when decorating."""
    with pytest.raises(TypeError, match="a function is needed"):
        parallelize(n_jobs=2)(3)
    with pytest.raises(TypeError, match="unknown option 'jobs'"):
        parallelize(jobs=3)
    with pytest.raises(TypeError, match="report='x'"):
        triple.map([1], report="x")
