"""Exceptions arrive as their own classes wherever the caller has those."""

import threading

import pytest

from amorsize import smart_map
from tests import programs
from tests.functions import Answering

METHODS = ["fork", "spawn", "forkserver"]

OWN = """
import sys
from amorsize import smart_map
class Plain(Exception):
    pass
class TwoPart(Exception):
    def __init__(self, code, detail):
        super().__init__(f"code {code}")
        self.code, self.detail = code, detail
    def __str__(self):
        return f"{self.code}: {self.detail}"
class KeywordOnly(ValueError):
    def __init__(self, message, *, limit):
        super().__init__(message)
        self.limit = limit
class Unpicklable(OSError):
    def __init__(self, message):
        super().__init__(message)
        self.lock = __import__("threading").Lock()
        self.where = "here"
KINDS = [lambda: Plain("p"), lambda: TwoPart(5, "d"), lambda: KeywordOnly("m", limit=3),
         lambda: Unpicklable("u")]
def work(job):
    kind, x = job
    if x >= 3:
        error = KINDS[kind]()
        error.add_note(f"noted {x}")
        raise error
    return x
if __name__ == "__main__":
    for kind, cls in enumerate((Plain, TwoPart, KeywordOnly, Unpicklable)):
        jobs = [(kind, x) for x in range(6)]
        before = dict(vars(cls))
        try:
            smart_map(work, jobs, n_jobs=2, mp_context={method!r}, chunksize=1)
        except cls as error:
            wanted = KINDS[kind]()
            assert type(error) is cls and error.args == wanted.args and str(error) == str(wanted)
            assert error.__notes__[0] == "noted 3"
            assert "item 3" in error.__notes__[1], error.__notes__
            for name in ("code", "detail", "limit", "where"):
                assert getattr(error, name, None) == getattr(wanted, name, None)
            assert "Traceback" in str(error.__cause__)
        got = smart_map(work, jobs, n_jobs=2, mp_context={method!r}, return_exceptions=True)
        assert got[:3] == [0, 1, 2] and [type(x) for x in got[3:]] == [cls] * 3, got
        assert dict(vars(cls)) == before
        print(cls.__name__)
"""


@pytest.mark.parametrize("method", METHODS)
def test_classes_of_the_caller_are_kept(method, tmp_path):
    """Whatever their __init__ wants: with args, attributes, notes; the class is not touched."""
    ended = programs.run_source(OWN.replace("{method!r}", repr(method)), tmp_path)
    assert ended.out.split() == ["Plain", "TwoPart", "KeywordOnly", "Unpicklable"], ended.err


WORKERS_ONLY = """
import os, sys
from amorsize import smart_map
main = os.getpid()
def work(x):
    if x == 3 or x == 4:
        sys.path.insert(0, {folder!r})
        import only_here
        raise only_here.Deeper(f"no {x}") if x == 3 else KeyError(x)
    return x
if __name__ == "__main__":
    for _ in range(2):
        try:
            smart_map(work, range(6), n_jobs=2, mp_context={method!r}, chunksize=1)
        except LookupError as error:
            print(type(error).__name__, error, error.__notes__[0])
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_class_that_only_the_worker_finds_arrives_as_its_nearest_base(method, tmp_path):
    """With its text, its index and its place in the order."""
    folder = tmp_path / "far"
    folder.mkdir()
    (folder / "only_here.py").write_text(
        "class Deep(LookupError): pass\nclass Deeper(Deep): pass\n"
    )
    source = WORKERS_ONLY.replace("{method!r}", repr(method)).replace(
        "{folder!r}", repr(str(folder))
    )
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "LookupError no 3 amorsize: raised for item 3: 3\n" * 2, ended.err


def quit_at_three(x):
    if x == 3:
        raise SystemExit(4)
    return x


@pytest.mark.parametrize("method", METHODS)
def test_system_exit_arrives_as_itself(method):
    """With its code."""
    with pytest.raises(SystemExit) as caught:
        smart_map(quit_at_three, range(6), n_jobs=2, mp_context=method)
    assert caught.value.code == 4


class Wanting(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"{code}")
        self.detail = detail


def give_back(x):
    return Wanting(x, detail=[x]) if x == 3 else x


@pytest.mark.parametrize("method", METHODS)
def test_exceptions_that_are_results_or_items_travel(method):
    """Returned rather than raised; whatever their __init__ wants."""
    got = smart_map(give_back, range(6), n_jobs=2, mp_context=method)
    assert (type(got[3]), got[3].args, got[3].detail) == (Wanting, ("3",), [3])
    items = iter([Wanting(1, detail=2), 5])
    assert smart_map(str, items, n_jobs=2, mp_context=method) == ["1", "5"]


ALL_KEPT = """
import dataclasses
from amorsize import smart_map
class Quit(SystemExit):
    pass
class Missing(FileNotFoundError):
    pass
@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int
class NeedsTwo(Exception):
    __slots__ = ("second",)
    def __init__(self, first, second):
        super().__init__(first)
        self.second = second
class Shop:
    class Sold(Exception):
        def __new__(cls, first, *, limit):
            return super().__new__(cls, first)
        def __init__(self, first, *, limit):
            self.limit = limit
def locked():
    error = Shop.Sold(1, limit=2)
    error.lock = __import__("threading").Lock()
    return error
KINDS = [lambda: Quit(3), lambda: Missing(2, "gone", "a.txt"), lambda: Frozen(5),
         lambda: NeedsTwo(1, 2), lambda: Shop.Sold(1, limit=2), locked,
         lambda: ExceptionGroup("g", [ValueError(1), NeedsTwo(1, 2)])]
def content(error):
    names = ("code", "filename", "second", "limit")
    members = [content(member) for member in getattr(error, "exceptions", ())]
    return type(error), str(error), [getattr(error, name, None) for name in names], members
def raised(job):
    kind, x = job
    if x == 3:
        raise KINDS[kind]()
    return x
def returned(kind):
    return {"deep": (None, KINDS[kind]())}
if __name__ == "__main__":
    workers = dict(n_jobs=2, mp_context={method!r}, chunksize=1)
    for kind, make in enumerate(KINDS):
        wanted = content(make())
        try:
            smart_map(raised, [(kind, x) for x in range(5)], **workers)
        except BaseException as error:
            assert content(error) == wanted, content(error)
            assert "item 3" in error.__notes__[-1]
            print("raised", end=" ")
    kinds = [kind for kind, make in enumerate(KINDS) if make is not locked]
    for kind, got in zip(kinds, smart_map(returned, kinds, **workers)):
        assert content(got["deep"][1]) == content(KINDS[kind]()), got
        print("returned", end=" ")
"""


@pytest.mark.parametrize("method", METHODS)
def test_exceptions_of_main_classes_keep_all_they_hold(method, tmp_path):
    """Fields of builtin bases, slots, attributes and members; raised, and deep in a result."""
    ended = programs.run_source(ALL_KEPT.replace("{method!r}", repr(method)), tmp_path)
    assert ended.out == "raised " * 7 + "returned " * 6, ended.err


@pytest.mark.parametrize("part", ["plain", "with a lock"])
@pytest.mark.parametrize("method", METHODS)
def test_a_class_made_in_a_function_is_caught(part, method):
    """The caller's own, whether or not all of the exception can be sent."""

    class Stop(Exception):
        pass

    def stop_at_three(x):
        if x == 3:
            error = Stop(x)
            if part != "plain":
                error.lock = threading.Lock()
            raise error
        return x

    with pytest.raises(Stop) as caught:
        smart_map(stop_at_three, range(6), n_jobs=2, mp_context=method)
    assert caught.value.args == (3,)


def answer_at_three(x):
    if x == 3:
        raise Answering({"code": x})
    return x


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_outlives_an_exception_that_raises_when_it_is_looked_at(method):
    """It arrives as itself; with its code, and a note of its item."""
    with pytest.raises(Answering) as caught:
        smart_map(answer_at_three, range(6), n_jobs=2, mp_context=method)
    assert caught.value.code == 3
    assert "item 3" in caught.value.__notes__[0]
