"""Exceptions arrive as their own classes wherever the caller has those."""

import pytest

from amorsize import smart_map
from tests import programs

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
