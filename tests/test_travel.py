"""What travels between processes arrives as it was, or is refused by its name."""

import collections
import io
import logging
import operator
import os
import re
import struct
import sys
import textwrap
import threading
import types
import typing
import weakref
from concurrent.futures import ProcessPoolExecutor

import pytest

from amorsize import SerializationError, smart_map
from amorsize.run.pickler import Way, pickled
from amorsize.run.pickles import dumps, loads
from amorsize.run.transport import pack_forked, pack_shipped, unpack
from tests import functions, programs

METHODS = ["fork", "spawn", "forkserver"]
FRESH = ["spawn", "forkserver"]


def both(func, items, method, **options):
    options = {"n_jobs": 2, "chunksize": 2, **options}
    return smart_map(func, items, mp_context=method, **options)


def ways(value):
    """Yield a value as it arrives on each way."""
    yield loads(dumps(value))
    for way in Way:
        yield loads(pickled(value, way)[0])


# Results and items that are changed on the way, or were --------------------------------------


def opened_for(mode):
    def func(path):
        return open(path, mode)

    return func


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["r", "r+", "a", "rb"])
def test_an_open_file_as_a_result_is_refused(mode, method, tmp_path):
    """Whatever it is open for; its index is named."""
    path = tmp_path / "file"
    path.write_text("text")
    with pytest.raises(SerializationError, match=r"file|Buffered") as caught:
        both(opened_for(mode), [path] * 4, method)
    assert caught.value.index == 0


@pytest.mark.parametrize("method", FRESH)
def test_open_files_never_mix_with_copies_in_the_automatic_mode(method, tmp_path):
    """All results are files, as ``map`` gives them."""
    path = tmp_path / "file"
    path.write_text("text")

    def func(x):
        threading.Event().wait(0.01)
        return open(path)

    got = smart_map(func, range(60), mp_context=method)
    try:
        assert {type(file) for file in got} == {io.TextIOWrapper}
    finally:
        for file in got:
            file.close()


def test_a_file_among_items_and_captured_is_refused(tmp_path):
    """By its name, for fresh workers; not copied."""
    with open(__file__) as log:
        with pytest.raises(SerializationError, match=r"captured variable 'log' of function .*func"):

            def func(x):
                return log.fileno() + x

            both(func, range(3), "spawn")
        with pytest.raises(SerializationError, match="open file") as caught:
            both(str, [1, 2, 3, log, 5], "spawn")
    assert caught.value.index == 3


class Streams:
    """A stand-in for a notebook's stream: it cannot be pickled, and is ``sys.stdout``."""

    def __init__(self):
        self.lock = threading.Lock()

    def write(self, text):
        return len(text)

    def flush(self):
        pass


@pytest.mark.parametrize("method", METHODS)
def test_the_standard_streams_are_those_of_the_receiver(method, monkeypatch):
    """Captured or returned, whatever they are replaced by."""
    monkeypatch.setattr(sys, "stdout", Streams())
    out = sys.stdout

    def func(x):
        print(x, file=out)
        return sys.stdout

    assert all(stream is out for stream in both(func, range(4), method))


class Format:
    """A compiled format, which compares as what it is of."""

    def __init__(self, form):
        self.struct = struct.Struct(form)

    def __eq__(self, other):
        return self.struct.format == other.struct.format

    __hash__ = None


VALUES = {
    "memoryview": lambda: memoryview(b"abcdef"),
    "memoryview of numbers": lambda: memoryview(bytearray(range(24))).cast("i", [2, 3]),
    "keys": {"a": 1, 2: 3}.keys,
    "items": {"a": 1, 2: 3}.items,
    "ordered keys": lambda: collections.OrderedDict(a=1).keys(),
    "mapping proxy": lambda: types.MappingProxyType({"a": 1}),
    "logger": lambda: logging.getLogger("amorsize.test"),
    "root logger": logging.getLogger,
    "ellipsis": lambda: (..., NotImplemented, None),
    "builtin types": lambda: (int, type(None), types.FunctionType, type(...), types.ModuleType),
    "module": lambda: os.path,
    "method of a type": lambda: (str.join, int.__add__, dict.fromkeys),
    "getter": lambda: functions.double,
    "generic alias": lambda: (list[int], typing.List[int], typing.Optional[int]),  # noqa: UP006, UP045
    "type variable of a module": lambda: typing.AnyStr,
    "compiled format": lambda: Format("<qd"),
    "compiled pattern": lambda: re.compile("a+", re.IGNORECASE),
    "text in memory": lambda: loads(dumps(io.StringIO)),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_arrive_equal_and_of_their_type(name):
    """On each way."""
    value = VALUES[name]()
    for arrived in ways(value):
        assert type(arrived) is type(value)
        assert arrived == value


def test_views_of_a_dictionary_keep_their_values():
    """They are compared by identity: their contents are what counts."""
    for arrived in ways({1: "a", 2: "b"}.values()):
        assert type(arrived) is type({}.values())
        assert list(arrived) == ["a", "b"]


def test_a_memoryview_stays_writable_or_not():
    """With its format and its shape."""
    for arrived in ways(memoryview(bytearray(range(16))).cast("h", [2, 4])):
        assert (arrived.format, arrived.shape, arrived.readonly) == ("h", (2, 4), False)
    for arrived in ways(memoryview(b"abc")):
        assert arrived.readonly


class Thing:
    """Something to refer to."""


THING = Thing()

REFUSED = {
    "generator": lambda: (x for x in []),
    "weak reference": lambda: weakref.ref(THING),
    "weak method": lambda: weakref.WeakMethod(Held().__init__),
    "lock": threading.Lock,
    "frame": sys._getframe,
    "standard input": lambda: sys.__stdin__,
    "iterator over a file": lambda: os.scandir("."),
    "thread": threading.current_thread,
    "thread's own": threading.local,
    "class in C of no module": lambda: type({}.keys()),
    "text over memory": lambda: io.TextIOWrapper(io.BytesIO(), encoding="utf-8"),
    "weak values": lambda: weakref.WeakValueDictionary({1: THING}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_travel_is_refused(name):
    """It is not sent as something else."""
    value = REFUSED[name]()
    with pytest.raises(SerializationError):
        dumps(value)
    for way in Way:
        with pytest.raises(Exception, match="."):
            pickled(value, way)
    if name == "iterator over a file":
        value.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_module_made_by_hand_arrives_with_its_content(method):
    """Among the loaded ones or not."""
    made = types.ModuleType("made_by_hand")
    exec("N = 3\ndef scaled(x):\n    return x * N", made.__dict__)

    def func(x):
        return made.scaled(x)

    assert both(func, range(3), method) == [0, 3, 6]
    sys.modules["made_by_hand"] = made
    try:
        made.N = 4
        assert both(func, range(3), method) == [0, 4, 8]
        assert both(made.scaled, range(3), method) == [0, 4, 8]
    finally:
        del sys.modules["made_by_hand"]


# Errors name what it was ----------------------------------------------------------------------


class Held:
    def __init__(self):
        self.inner = {"deep": [1, threading.Lock()]}


HELD = Held()


def uses_a_lock_in_a_default(x, lock=HELD.inner["deep"][1]):
    return x


def named_by(func, *items):
    with pytest.raises(SerializationError) as caught:
        both(func, items or range(3), "spawn")
    return caught.value


def test_the_path_to_what_cannot_be_sent_is_named():
    """Through captured variables, attributes, keys and elements."""
    held = Held()
    text = str(named_by(lambda x: held))
    assert (
        "element 1 of the key 'deep' of the attribute 'inner' of the captured variable 'held'"
        in text
    )
    assert "(lock)" in text
    assert "of function test_the_path" in text
    text = str(named_by(operator.methodcaller("run"), held))
    assert "'inner'" in text


def test_the_global_of_a_main_function_is_named(tmp_path):
    """As in a notebook, where a stream was kept."""
    source = """
import threading
from amorsize import smart_map
class OutStream:
    def __init__(self):
        self.session = threading.Lock()
log = OutStream()
def f(x):
    return log, x
try:
    smart_map(f, range(3), n_jobs=2, mp_context="spawn")
except Exception as error:
    print(error)
"""
    out = programs.run_source(source, tmp_path).out
    assert "attribute 'session' of the global 'log' of function f (lock) cannot be sent" in out


# Which item ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("star", [False, True])
def test_a_late_item_that_cannot_be_sent_is_named(star, method):
    """Its index, not that of its chunk, whatever the number of arguments."""
    items = [*range(7), threading.Lock(), 8]
    with pytest.raises(SerializationError, match="lock") as caught:
        if star:
            both_of = smart_map(
                lambda x, y: y, iter(items), range(9), n_jobs=2, mp_context=method, chunksize=5
            )
            assert both_of is None
        else:
            both(lambda x: 1, iter(items), method, chunksize=5)
    assert caught.value.index == 7


def test_columns_are_looked_into_item_by_item():
    """Both for forked and for fresh workers."""
    columns = ([1, 2, threading.Lock()], [4, 5, 6])
    for pack in (pack_forked, pack_shipped):
        with pytest.raises(SerializationError) as caught:
            pack(columns, "", start=10)
        assert caught.value.index == 12
        assert unpack(pack(([1], [2]), "", start=3)) == ([1], [2])


@pytest.mark.parametrize("method", METHODS)
def test_a_result_that_cannot_be_sent_is_named(method):
    """Its index, and nothing before it is lost."""
    for bad in (5, 8):
        with pytest.raises(SerializationError) as caught:
            both(lambda x: threading.Lock() if x == bad else x, range(9), method, chunksize=4)
        assert caught.value.index == bad


# What pickles here and is not found there ------------------------------------------------------


BY_PATH = """
N = 1
def scaled(x):
    return x * N
class Point:
    def __init__(self, x):
        self.x = x
    def get(self):
        return self.x * N
"""

LOADED = {
    "by path": """
import importlib.util
spec = importlib.util.spec_from_file_location("by_path", FOLDER + "/by_path.py")
by_path = importlib.util.module_from_spec(spec)
sys.modules["by_path"] = by_path
spec.loader.exec_module(by_path)
""",
    "by path, not registered": """
import importlib.util
spec = importlib.util.spec_from_file_location("by_path", FOLDER + "/by_path.py")
by_path = importlib.util.module_from_spec(spec)
spec.loader.exec_module(by_path)
""",
    "path changed back": """
sys.path.insert(0, FOLDER)
import by_path
sys.path.remove(FOLDER)
""",
    "in a package": """
sys.path.insert(0, FOLDER)
from package import by_path
sys.path.remove(FOLDER)
""",
    "made by exec": """
import types
by_path = types.ModuleType("by_path")
exec(open(FOLDER + "/by_path.py").read(), vars(by_path))
sys.modules["by_path"] = by_path
""",
}


@pytest.mark.parametrize("method", FRESH)
@pytest.mark.parametrize("how", LOADED)
def test_a_module_that_a_fresh_process_does_not_find_is_found(how, method, tmp_path):
    """Its functions, its classes as items and as results, its changed values."""
    folder = tmp_path / "hidden"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "__init__.py").write_text("")
    for place in (folder, folder / "package"):
        (place / "by_path.py").write_text(BY_PATH)
    source = textwrap.dedent(f"""
        import sys
        from amorsize import smart_map
        FOLDER = {str(folder)!r}
        {textwrap.indent(LOADED[how], " " * 8).strip()}

        def run(func, items):
            return smart_map(func, items, n_jobs=2, mp_context={method!r})

        by_path.N = 5
        print(run(by_path.scaled, range(3)))
        print(run(lambda x: by_path.scaled(x), range(3)))
        print([type(p) is by_path.Point for p in run(by_path.Point, range(3))])
        print(run(lambda p: (p.get(), isinstance(p, by_path.Point)), [by_path.Point(2)] * 2))
        print(run(lambda p: p.x, [by_path.Point(2)] * 2))
    """)
    ended = programs.run_source(source, tmp_path)
    assert ended.out.splitlines() == [
        "[0, 5, 10]",
        "[0, 5, 10]",
        "[True, True, True]",
        "[(10, True), (10, True)]",
        "[2, 2]",
    ], ended.err


def test_what_is_not_found_there_is_no_error_of_the_user(tmp_path):
    """A file that is gone: the error says so, and the automatic mode stays in the caller."""
    source = """
import importlib.util, os, sys, time
from amorsize import SerializationError, smart_map
with open("gone.py", "w") as file:
    file.write("class Point:\\n    x = 1\\n")
spec = importlib.util.spec_from_file_location("gone", "gone.py")
gone = importlib.util.module_from_spec(spec)
sys.modules["gone"] = gone
spec.loader.exec_module(gone)
os.remove("gone.py")
def f(p):
    time.sleep(0.01)
    return p.x
items = [gone.Point() for _ in range(6)]
try:
    print(smart_map(f, items, n_jobs=2, mp_context="spawn"))
except SerializationError as error:
    print("gone" in str(error), error.index)
"""
    path = tmp_path / "program.py"
    path.write_text(source)
    old = os.getcwd()
    os.chdir(tmp_path)
    try:
        ended = programs.run(path)
    finally:
        os.chdir(old)
    assert ended.out in ("[1, 1, 1, 1, 1, 1]\n", "True 0\n"), ended.err


class Slim:
    __slots__ = ("_Slim__mangled", "__hidden", "open")

    def __init__(self, x):
        self.open = self.__hidden = x

    def get(self):
        return self.open, self.__hidden


@pytest.mark.parametrize("method", METHODS)
def test_private_slots_travel(method, tmp_path):
    """Of an importable class, and of one of the main module."""
    got = both(lambda item: item, iter([Slim(x) for x in range(3)]), method)
    assert [item.get() for item in got] == [(x, x) for x in range(3)]
    source = f"""
from amorsize import smart_map
class __Slim:
    __slots__ = "__hidden"
    def __init__(self, x):
        self.__hidden = x
    def get(self):
        return self.__hidden
class Sub(__Slim):
    __slots__ = ("__other", "__dict__", "__weakref__")
    def __init__(self, x):
        super().__init__(x)
        self.__other = x
        self.y = x
    def both(self):
        return self.get(), self.__other, self.y
def f(item):
    return Sub(item.get() + 1), item.both()
got = smart_map(f, iter([Sub(1), Sub(2)]), n_jobs=2, mp_context={method!r})
print([(made.both(), seen, type(made) is Sub) for made, seen in got])
"""
    ended = programs.run_source(source, tmp_path, PYTHONWARNINGS="ignore::DeprecationWarning")
    assert ended.out == "[((2, 2, 2), (1, 1, 1), True), ((3, 3, 3), (2, 2, 2), True)]\n", ended.err


def test_tracebacks_keep_file_and_line(tmp_path):
    """Of functions that were sent by value."""
    source = """
from amorsize import smart_map
def f(x):
    return 1 / x
try:
    smart_map(f, [0, 1], n_jobs=2, mp_context="spawn")
except ZeroDivisionError as error:
    print(error.__cause__)
"""
    out = programs.run_source(source, tmp_path).out
    assert 'program.py", line 4, in f' in out


# Results that pickle and do not open ---------------------------------------------------------


class Unopened:
    """It pickles, and does not open: its class wants an argument that it does not keep."""

    def __init__(self, needed):
        self.needed = needed

    def __reduce__(self):
        return Unopened, ()


def give_unopened(x):
    return {"deep": [None, Unopened(x)]} if x == 3 else x


@pytest.mark.parametrize("method", METHODS)
def test_a_result_that_would_not_open_is_named(method):
    """By the index of its item, in whatever depth it lies."""
    with pytest.raises(SerializationError, match="not be opened again: TypeError") as caught:
        both(give_unopened, range(8), method)
    assert caught.value.index == 3


class Closed:
    """Its fifth instance pickles, and raises in whoever opens it."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return (refuse if self.number == 5 else Closed), (self.number,)


def refuse(number):
    raise LookupError(f"{number} is closed")


def number_of(thing):
    return thing.number


@pytest.mark.parametrize("backend", [*FRESH, "executor"])
def test_an_item_that_does_not_open_in_a_worker_is_named(backend):
    """By its own index, not by that of the first item of its chunk."""
    things = list(map(Closed, range(12)))
    with ProcessPoolExecutor(2) as executor:
        how = {"backend": executor} if backend == "executor" else {"mp_context": backend}
        with pytest.raises(LookupError, match="5 is closed") as caught:
            smart_map(number_of, things, n_jobs=2, chunksize=4, **how)
    assert caught.value.__notes__[0].startswith("amorsize: raised for item 5: ")


@pytest.mark.parametrize("method", METHODS)
def test_results_that_would_not_open_keep_the_automatic_mode_in_the_caller(method):
    """All results are there, as ``map`` gives them, and the report says why."""

    def func(x):
        threading.Event().wait(0.01)
        return None, Unopened(x)

    reports = []
    got = smart_map(func, range(60), mp_context=method, report=reports.append)
    assert [thing.needed for _, thing in got] == list(range(60))
    assert reports[0].worker_items == 0
    assert "opened again" in reports[0].reason


# Arrays that are mapped from files -----------------------------------------------------------


@pytest.fixture
def mapped(tmp_path):
    """A mapped file of 20 rows that are all 0."""
    numpy = pytest.importorskip("numpy")
    return numpy.memmap(tmp_path / "rows", dtype="f8", mode="w+", offset=4104, shape=(20, 10))


INPUTS = {
    "array": lambda rows: rows,
    "rows of a generator": lambda rows: (row for row in rows),
    "columns of a generator": lambda rows: (column for column in rows.T),
    "backwards": lambda rows: (row for row in rows[::-1]),
    "pairs": lambda rows: ({"row": (row,)} for row in rows),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", INPUTS)
def test_what_a_function_writes_into_a_mapped_file_is_there(kind, method, mapped):
    """However the rows reach it."""

    def fill(row):
        (row["row"][0] if isinstance(row, dict) else row)[:] += 1

    both(fill, INPUTS[kind](mapped), method)
    assert (mapped == 1).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_mapped_array_as_a_result_is_mapped_again(method, mapped, tmp_path):
    """With its file and mode; all rows of one file through one mapping."""

    def make(x):
        return type(mapped)(tmp_path / str(x), dtype="i4", mode="w+", shape=3), mapped[x]

    for x, (array, row) in enumerate(both(make, range(6), method)):
        assert (type(array), array.mode, array.filename.name) == (type(mapped), "w+", str(x))
        array[:] = row[:] = 7
        assert (tmp_path / str(x)).read_bytes() == array.tobytes()
    assert (mapped[:6] == 7).all()
    assert not mapped[6:].any()


def test_views_of_a_mapped_array_lie_where_they_lay(mapped):
    """Whatever their order, step and type; also after a second journey."""
    mapped[:] = [[10 * row + column for column in range(10)] for row in range(20)]
    views = [mapped, mapped[3], mapped.T, mapped[::-2, 1::3], mapped.view("u8")[2:4], mapped[1, :1]]
    arrived = loads(dumps(loads(dumps(views))))
    for one, other in zip(views, arrived, strict=True):
        assert (type(other), other.shape, other.dtype) == (type(one), one.shape, one.dtype)
        assert (one == other).all()
        other[:] = 0
        assert not one.any()
    assert len({id(array._mmap) for array in arrived}) == 1


def test_a_private_or_deleted_mapping_is_copied(mapped, tmp_path):
    """There is no file to write to."""
    private = type(mapped)(tmp_path / "rows", dtype="f8", mode="c", shape=(5,))
    private[:] = 3
    assert list(loads(dumps(private))) == [3] * 5
    os.unlink(mapped.filename)
    assert loads(dumps(mapped)).shape == (20, 10)


REPLACED = """
import os, sys
import numpy
from amorsize import smart_map

def first(array):
    return int(array[0])

def make(x):
    path = f"{x}.bin"
    numpy.full(4, x, "i4").tofile(path)
    array = numpy.memmap(path, dtype="i4", mode="r")
    numpy.full(4, 99, "i4").tofile("new.bin" + path)
    os.replace("new.bin" + path, path)
    return array

os.chdir(sys.argv[1])
numpy.full(4, 7, "i4").tofile("a.bin")
array = numpy.memmap("a.bin", dtype="i4", mode="r")
numpy.full(4, 9, "i4").tofile("b.bin")
os.replace("b.bin", "a.bin")
print(smart_map(first, (array for _ in range(4)), n_jobs=2, mp_context=sys.argv[2]))
print([int(a[0]) for a in smart_map(make, range(4), n_jobs=2, mp_context=sys.argv[2])])
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_array_whose_file_was_replaced_keeps_what_it_shows(tmp_path, method):
    """It is copied: under the file's name there is another file by now."""
    path = tmp_path / "program.py"
    path.write_text(REPLACED)
    ended = programs.run(path, tmp_path, method)
    assert ended.out == "[7, 7, 7, 7]\n[0, 1, 2, 3]\n", ended.err


ANNOTATED = """
import sys
from typing import get_type_hints
from amorsize import smart_map

class Known:
    size: int

class Lazy:
    size: Known
    other: OnlyForTypeCheckers

def work(x: OnlyForTypeCheckers, y: int = 3) -> Known:
    return x + y

def hints(x):
    return Known.__annotations__, get_type_hints(Known)

def names(x):
    return sorted(Lazy.__annotations__), work(x)

if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        before = set(vars(Lazy))
        assert smart_map(work, range(6), n_jobs=2, mp_context=method) == [*range(3, 9)]
        found = smart_map(names, range(6), n_jobs=2, mp_context=method)
        assert found == [(["other", "size"], x + 3) for x in range(6)], found
        found = smart_map(hints, range(2), n_jobs=2, mp_context=method)
        assert found == [({"size": int}, {"size": int})] * 2, found
        assert set(vars(Lazy)) == before
    print("right")
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
def test_annotations_that_cannot_be_evaluated_travel_as_texts(tmp_path):
    """A function whose annotations name what only type checkers import is sent all the same."""
    ended = programs.run_source(ANNOTATED, tmp_path)
    assert ended.out == "right\n", ended.out + ended.err
