"""@parallelize: the function stays itself and gains the forms of map."""

import inspect
import pickle

import pytest

from amorsize import ParallelFunction, RunReport, optimize, parallelize
from tests import functions as f


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
