"""Equal structure, equal fingerprint; anything the function uses differs, another one."""

import array
import collections
import copy
import datetime
import decimal
import fractions
import functools
import importlib
import math
import operator
import os
import pathlib
import random
import subprocess
import sys
import textwrap
import types
from types import FunctionType

import numpy as np
import pytest

from amorsize import parallelize
from amorsize.identity.coarse import coarse_digest
from amorsize.identity.fingerprint import fingerprint


def make(source, name="f", **names):
    """Return the function ``name`` of a fresh module with this source."""
    module = types.ModuleType("made")
    vars(module).update(names)
    exec(compile(textwrap.dedent(source), "made.py", "exec"), vars(module))
    return vars(module)[name]


def digest(func):
    return fingerprint(func).digest


DIFFERENT = {
    "constant": ("def f(x): return x * 2", "def f(x): return x * 3"),
    "type of constant": ("def f(x): return x * 1", "def f(x): return x * 1.0"),
    "bool and int": ("def f(x): return x == 1", "def f(x): return x == True"),
    "signed zero": ("def f(x): return 0.0", "def f(x): return -0.0"),
    "default": ("def f(x, k=2): return x * k", "def f(x, k=3): return x * k"),
    "keyword default": ("def f(x, *, k=2): return x * k", "def f(x, *, k=3): return x * k"),
    "name of a method": ("def f(x): return x.upper()", "def f(x): return x.lower()"),
    "library function": (
        "import math\ndef f(x): return math.sin(x)",
        "import math\ndef f(x): return math.factorial(x)",
    ),
    "same name, other module": (
        "from math import sqrt\ndef f(x): return sqrt(x)",
        "from cmath import sqrt\ndef f(x): return sqrt(x)",
    ),
    "global": ("K = 2\ndef f(x): return x * K", "K = 3\ndef f(x): return x * K"),
    "helper": (
        "def h(x): return x + 1\ndef f(x): return h(x)",
        "def h(x): return x + 2\ndef f(x): return h(x)",
    ),
    "helper of a helper": (
        "def g(x): return x + 1\ndef h(x): return g(x)\ndef f(x): return h(x)",
        "def g(x): return x + 2\ndef h(x): return g(x)\ndef f(x): return h(x)",
    ),
    "global inside a comprehension": (
        "K = 2\ndef f(x): return [y * K for y in x]",
        "K = 3\ndef f(x): return [y * K for y in x]",
    ),
    "constant of a nested function": (
        "def f(x):\n def g(y): return y + 1\n return g(x)",
        "def f(x):\n def g(y): return y + 2\n return g(x)",
    ),
    "first constant of a comprehension": (
        "def f(x): return ['a' for _ in x]",
        "def f(x): return ['b' for _ in x]",
    ),
    "docstring that is also a value": (
        "def f(x):\n 'one'\n return 'one'",
        "def f(x):\n 'two'\n return 'two'",
    ),
    "class attribute": (
        "class A:\n k = 2\ndef f(x): return A.k * x",
        "class A:\n k = 3\ndef f(x): return A.k * x",
    ),
    "method of a class": (
        "class A:\n def m(self): return 2\ndef f(x): return A().m()",
        "class A:\n def m(self): return 3\ndef f(x): return A().m()",
    ),
    "exception handling": (
        "def f(x):\n try: return x()\n except KeyError: return 1",
        "def f(x):\n try: return x()\n except ValueError: return 1",
    ),
    "frozenset in the code": (
        "def f(x): return x in {'a', 'b'}",
        "def f(x): return x in {'a', 'c'}",
    ),
    "captured dict": (
        "D = {'a': [1, 2]}\ndef f(x): return D[x]",
        "D = {'a': [1, 3]}\ndef f(x): return D[x]",
    ),
    "captured set": ("S = {1, 2}\ndef f(x): return x in S", "S = {1, 3}\ndef f(x): return x in S"),
    "shadowed builtin": (
        "def f(x): return len(x)",
        "def len(x): return 7\ndef f(x): return len(x)",
    ),
    "decorated helper": (
        "import functools\n@functools.lru_cache\ndef h(x): return 1\ndef f(x): return h(x)",
        "import functools\n@functools.lru_cache\ndef h(x): return 2\ndef f(x): return h(x)",
    ),
    "regular expression": (
        "import re\nP = re.compile('a')\ndef f(x): return P.match(x)",
        "import re\nP = re.compile('b')\ndef f(x): return P.match(x)",
    ),
    "enum": (
        "import enum\nclass E(enum.Enum):\n A = 1\ndef f(x): return E.A",
        "import enum\nclass E(enum.Enum):\n A = 2\ndef f(x): return E.A",
    ),
    "coroutine": ("def f(x): return x", "async def f(x): return x"),
    "body of a coroutine": (
        "async def h(x): return x\ndef f(x): return h(x)",
        "async def h(x): return x + 1\ndef f(x): return h(x)",
    ),
    "body of a generator": (
        "def h(x):\n yield x\ndef f(x): return list(h(x))",
        "def h(x):\n yield x, x\ndef f(x): return list(h(x))",
    ),
    "property": (
        "class A:\n @property\n def p(self): return 1\ndef f(x): return A().p",
        "class A:\n @property\n def p(self): return 2\ndef f(x): return A().p",
    ),
    "class method": (
        "class A:\n @classmethod\n def m(cls): return 1\ndef f(x): return A.m()",
        "class A:\n @classmethod\n def m(cls): return 2\ndef f(x): return A.m()",
    ),
    "default of a data class": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n x: int = 1\ndef f(x): return A()",
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n x: int = 2\ndef f(x): return A()",
    ),
    "field of a data class": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n x: int\ndef f(x): return A(x)",
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n y: int\ndef f(x): return A(x)",
    ),
    "wrapped function": (
        "import functools\ndef d(g):\n @functools.wraps(g)\n def w(x): return g(x)\n return w\n"
        "@d\ndef f(x): return 1",
        "import functools\ndef d(g):\n @functools.wraps(g)\n def w(x): return g(x)\n return w\n"
        "@d\ndef f(x): return 2",
    ),
    "partial of a keyword": (
        "import functools\ndef h(x, k=0): return x\nf = functools.partial(h, k=1)",
        "import functools\ndef h(x, k=0): return x\nf = functools.partial(h, k=2)",
    ),
    "metaclass": (
        "class M(type): k = 1\nclass A(metaclass=M): pass\ndef f(x): return A.k",
        "class M(type): k = 2\nclass A(metaclass=M): pass\ndef f(x): return A.k",
    ),
    "annotation of a class": (
        "class A:\n x: int\ndef f(x): return A",
        "class A:\n x: float\ndef f(x): return A",
    ),
    "annotation of a data class": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n x: int\ndef f(x): return A(x)",
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n x: str\ndef f(x): return A(x)",
    ),
    "annotation of a named tuple": (
        "import typing\nclass A(typing.NamedTuple):\n x: int\ndef f(x): return A(x)",
        "import typing\nclass A(typing.NamedTuple):\n x: str\ndef f(x): return A(x)",
    ),
    "annotation of a typed dict": (
        "import typing\nclass A(typing.TypedDict):\n x: int\ndef f(x): return A(x=x)",
        "import typing\nclass A(typing.TypedDict):\n x: str\ndef f(x): return A(x=x)",
    ),
    "metadata of a field": (
        "from dataclasses import *\n@dataclass\nclass A:\n x: int = field(metadata={'k': 1})\n"
        "def f(x): return A(x)",
        "from dataclasses import *\n@dataclass\nclass A:\n x: int = field(metadata={'k': 2})\n"
        "def f(x): return A(x)",
    ),
    "name that is asked for by text": (
        "K = 1\ndef f(x): return globals()['K']",
        "K = 2\ndef f(x): return globals()['K']",
    ),
    "base class": (
        "class A:\n def m(self): return 1\nclass B(A): pass\ndef f(x): return B().m()",
        "class A:\n def m(self): return 2\nclass B(A): pass\ndef f(x): return B().m()",
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_any_difference_in_what_is_used_shows(name):
    """Changing anything the function uses changes the fingerprint; running it twice does not."""
    first, second = DIFFERENT[name]
    assert digest(make(first)) != digest(make(second))
    assert digest(make(first)) == digest(make(first))


SAME = {
    "comments, lines, docstring": (
        "def f(x):\n    '''One.'''\n    return x + 1",
        "\n\n# a comment\ndef f(x):\n    '''Two.'''\n\n    return x + 1  # more",
    ),
    "unused neighbours": ("def f(x): return x", "K = 3\ndef g(): pass\ndef f(x): return x"),
    "own name": ("def f(x): return x + 1", "def g(x): return x + 1\nf = g"),
}


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_matter_does_not_show(name):
    """Comments, docstrings, line numbers and unrelated names change nothing."""
    first, second = SAME[name]
    assert digest(make(first)) == digest(make(second))


def test_closures_over_different_values_differ():
    """Captured values count."""

    def scale(k):
        return lambda x: x * k

    assert digest(scale(2)) != digest(scale(5000))
    assert digest(scale(2)) == digest(scale(2))


def test_bound_methods_partials_and_instances_differ_by_state():
    """What an object holds counts, through methods, calls and partials."""

    class Scale:
        def __init__(self, k):
            self.k = k

        def times(self, x):
            return self.k * x

        def __call__(self, x):
            return self.k * x

    assert digest(Scale(2).times) != digest(Scale(3).times)
    assert digest(Scale(2)) != digest(Scale(3))
    assert digest(Scale(2).times) == digest(Scale(2).times)
    assert digest(functools.partial(pow, 2)) != digest(functools.partial(pow, 3))
    assert digest(functools.partial(pow, exp=2)) != digest(functools.partial(pow, 2))


def test_builtins_and_ufuncs_differ_by_name():
    """Functions without code are told apart by name, bound ones by what they are bound to."""
    funcs = [len, abs, math.sin, math.cos, str.upper, str.lower, np.sin, np.cos, int, float]
    funcs += ["a".join, "b".join]
    assert len({digest(func) for func in funcs}) == len(funcs)


def test_slots_count():
    """Attributes in __slots__ are seen, also private ones."""

    class Point:
        __slots__ = ("__secret", "x")

        def __init__(self, x, secret):
            self.x = x
            self.__secret = secret

        def __call__(self, y):
            return self.x + y

    assert len({digest(Point(x, s)) for x in (1, 2) for s in (3, 4)}) == 4


def test_cycles_and_recursion_end():
    """Recursive functions and values that contain themselves have a fingerprint."""
    loop = []
    loop.append(loop)

    def uses_loop(x):
        return loop[x]

    recursive = make("def f(n): return 1 if n < 2 else n * f(n - 1)")
    assert fingerprint(uses_loop).stable
    assert digest(recursive) == digest(make("def f(n): return 1 if n < 2 else n * f(n - 1)"))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a + 1,
        lambda a: a.astype("float32"),
        lambda a: a.reshape(10, -1),
        lambda a: a[::-1],
    ],
)
def test_arrays_count_by_type_shape_and_content(change):
    """A captured array counts by dtype, shape and a sample of its items."""
    base = np.arange(1_000, dtype="float64")

    def over(array):
        return lambda x: array[x]

    assert digest(over(base)) == digest(over(base.copy()))
    assert digest(over(base)) != digest(over(change(base)))


def test_the_memo_notices_every_change():
    """A changed global, cell, default, class attribute or code is noticed at the next call."""
    f = make("class A: k = 1\nK = 2\ndef h(x): return x\ndef f(x, d=1): return h(x) * K * A.k + d")
    seen = [digest(f)]
    namespace = f.__globals__
    namespace["K"] = 3
    seen.append(digest(f))
    namespace["h"] = lambda x: x + 1
    seen.append(digest(f))
    f.__defaults__ = (2,)
    seen.append(digest(f))
    namespace["A"].k = 5
    seen.append(digest(f))
    namespace["A"].extra = 6
    seen.append(digest(f))
    f.__code__ = make("def f(x, d=1): return x").__code__
    seen.append(digest(f))
    assert len(set(seen)) == len(seen)


def test_the_memo_notices_attributes_of_functions_and_other_bases():
    """What is put on a function, or made the base of a class, after it was looked at is noticed."""
    f = make("class A: pass\nclass B: k = 1\nclass C(A): pass\ndef h(x): return h.k\n"
             "def f(x): return h(x), C")  # fmt: skip
    seen = [digest(f), digest(f)]
    f.__globals__["C"].__bases__ = (f.__globals__["B"],)
    seen.append(digest(f))
    f.__globals__["h"].k = 1
    seen.append(digest(f))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_the_memo_notices_a_changed_cell_and_a_mutated_list():
    """A rebound closure variable and a list changed in place are noticed."""
    k, items = 1, [1]

    def uses(x):
        return x * k + len(items)

    first = digest(uses)
    k = 2
    second = digest(uses)
    items.append(2)
    assert len({first, second, digest(uses)}) == 3


def test_short_lived_functions_never_borrow_a_fingerprint():
    """A new function at a freed one's address gets its own fingerprint, 100,000 times over."""
    codes = [eval(f"lambda x: x + {n}").__code__ for n in range(50)]
    wanted = [digest(FunctionType(code, {})) for code in codes]
    assert len(set(wanted)) == 50
    wrong = 0
    for n in range(100_000):
        place = n * 7 % 50
        # Every other one of code that is new as well.
        code = codes[place] if n % 2 else codes[place].replace(co_firstlineno=n)
        wrong += digest(FunctionType(code, {})) != wanted[place]
    assert wrong == 0


class TestPandas:
    """Frames, series and indexes by their labels, types and a sample of their rows."""

    @staticmethod
    def of(value):
        return fingerprint(lambda: value)

    def test_equal_ones_are_equal_and_stable(self):
        """A copy is the same; what is known of it may be kept on disk."""
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"a": range(1_000), "b": ["x"] * 1_000})
        assert self.of(frame) == self.of(frame.copy())
        assert self.of(frame).stable
        zoned = pandas.Series(pandas.date_range("2020", periods=3, tz="UTC"))
        assert self.of(zoned) == self.of(zoned.copy())

    def test_differences_show(self):
        """Another value, name, type, order or length."""
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"a": range(1_000), "b": ["x"] * 1_000})
        changed = frame.copy()
        changed.loc[3, "b"] = "y"
        others = [
            frame,
            changed,
            frame.rename(columns={"a": "c"}),
            frame.astype({"a": float}),
            frame[::-1],
            frame[:999],
            frame["a"],
            frame["b"],
            frame.index,
            frame.set_index("b"),
            frame["a"].rename("c"),
        ]
        assert len({self.of(other).digest for other in others}) == len(others)


def test_what_cannot_be_pinned_down_is_unstable(tmp_path):
    """A function over an open file has a fingerprint for this process only."""
    with open(tmp_path / "file", "w") as file:

        def write(x):
            return file.write(x)

        assert not fingerprint(write).stable
    assert fingerprint(len).stable


def test_a_parallel_function_is_its_function():
    """Decorating a helper does not change what it is."""
    plain = make("def h(x): return x + 1\ndef f(x): return h(x)")
    decorated = make("def h(x): return x + 1\nh = p(h)\ndef f(x): return h(x)", p=parallelize)
    assert digest(plain) == digest(decorated)


class MyInt(int):
    pass


class MyText(str):
    __slots__ = ()


class Holder:
    def __init__(self, inner):
        self.inner = inner


class Proxy:
    @property
    def __dict__(self):
        raise RuntimeError("nobody home")


def chain(length):
    """Return a list nested so deep."""
    inner = []
    for _ in range(length):
        inner = Holder(inner)
    return inner


PAIRS = {
    "int subclass": (MyInt(2), MyInt(5000)),
    "str subclass": (MyText("a"), MyText("b")),
    "date": (datetime.date(2020, 1, 1), datetime.date(2024, 1, 1)),
    "datetime": (datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 2)),
    "timezone": (
        datetime.timezone(datetime.timedelta(hours=1)),
        datetime.timezone(datetime.timedelta(hours=2)),
    ),
    "decimal": (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    "fraction": (fractions.Fraction(1, 2), fractions.Fraction(1, 3)),
    "path": (pathlib.Path("a"), pathlib.Path("b")),
    "deque": (collections.deque([1, 2]), collections.deque([1, 3])),
    "ordered dict": (collections.OrderedDict(a=1), collections.OrderedDict(a=2)),
    "counter": (collections.Counter("aab"), collections.Counter("abb")),
    "middle of a list": ([0] * 500, [0] * 250 + [1] * 250),
    "itemgetter": (operator.itemgetter(1), operator.itemgetter(2)),
    "bytearray": (bytearray(b"abc"), bytearray(b"abd")),
    "memoryview": (memoryview(b"abcdef")[::2], memoryview(b"abxdef")[::2]),
    "array": (array.array("i", [1, 2]), array.array("i", [1, 3])),
    "slice": (slice(1, 2), slice(1, 3)),
    "range": (range(10), range(11)),
    "numpy scalar": (np.float32(1), np.float64(1)),
    "numpy dtype": (np.dtype("i4"), np.dtype("i8")),
    "random generator": (random.Random(1), random.Random(2)),
    "namespace": (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_captured_objects_of_every_kind_count(name):
    """Objects of the standard library's and of derived types are told apart by content."""

    def over(value):
        return lambda x: (x, value)

    first, second = PAIRS[name]
    assert digest(over(first)) != digest(over(second))
    assert digest(over(first)) == digest(
        over(copy.deepcopy(first) if name != "memoryview" else first)
    )
    assert fingerprint(over(first)).stable


def test_using_a_path_changes_nothing():
    """What an object keeps for its own convenience is not what it is."""
    path = pathlib.Path("some/where")

    def uses(x):
        return path / x

    before = digest(uses)
    assert str(path) and hash(path) and path.parts
    assert digest(uses) == before


def test_odd_objects_are_no_error():
    """Deep nesting and objects that raise when looked at have a fingerprint, too."""

    def over(value):
        return lambda x: (x, value)

    assert digest(over(chain(50))) != digest(over(chain(51)))
    assert digest(over(chain(5_000)))
    assert not fingerprint(over(Proxy())).stable


def test_keyword_defaults_and_attributes_of_functions_count():
    """A replaced dict of keyword defaults is noticed, and so is an attribute of a helper."""
    f = make("def f(x, *, k=1): return x * k")
    before = digest(f)
    f.__kwdefaults__ = {"k": 2}
    assert digest(f) != before
    g = make("def h(x): return h.k\nh.k = 1\ndef g(x): return h(x)", name="g")
    before = digest(g)
    g.__globals__["h"].k = 2
    assert digest(g) != before


def test_attributes_of_submodules_count():
    """package.module.helper is followed through the user's modules."""
    package, module = types.ModuleType("package"), types.ModuleType("package.module")
    package.module, module.helper = module, make("def f(x): return x + 1")
    f = make("def f(x): return package.module.helper(x)", package=package)
    before = digest(f)
    module.helper = make("def f(x): return x + 2")
    assert digest(f) != before


def over_closure(module):
    return lambda x: x * module.K


def over_default(module):
    return lambda x, m=module: x * m.K


def over_instance(module):
    class A:
        m = module

        def method(self, x):
            return x * self.m.K

    return A().method


def over_getattr(module):
    return make("def f(x): return x * getattr(module, 'K')", module=module)


@pytest.mark.parametrize(
    "over",
    [over_closure, over_default, over_instance, over_getattr,
     lambda module: functools.partial(lambda m, x: x * m.K, module)],
    ids=["closure", "default", "class attribute", "getattr", "partial"],
)  # fmt: skip
def test_modules_count_however_they_are_reached(over):
    """What code may ask a module for counts, also where the module is reached as a value."""

    def module(**names):
        made = types.ModuleType("settings")
        vars(made).update(names)
        return made

    first, second, third = module(K=1), module(K=2), module(K=1, unused=3)
    assert digest(over(first)) == digest(over(first)) == digest(over(third))
    assert digest(over(first)) != digest(over(second))
    func = over(first)
    before = digest(func)
    first.K = 5
    assert digest(func) != before


def test_modules_imported_inside_count(monkeypatch, tmp_path):
    """A module that a function imports counts by its source, once loaded by what is used of it."""
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "imported_inside.py"
    f = make("def f(x):\n from imported_inside import work\n return work(x)")
    seen, coarse = [], []
    for body in ("def work(x): return x", "def work(x): return x + 1"):
        source.write_text(body)
        importlib.invalidate_caches()
        seen.append(digest(f))
        coarse.append(coarse_digest(f))
    assert "imported_inside" not in sys.modules
    assert f(1) == 2
    module = sys.modules["imported_inside"]
    monkeypatch.setitem(sys.modules, "unused", sys.modules.pop("imported_inside"))
    monkeypatch.setitem(sys.modules, "imported_inside", module)
    seen.append(digest(f))
    module.work = make("def work(x): return x + 2", name="work")
    seen.append(digest(f))
    assert len(set(seen)) == 4
    assert coarse[0] != coarse[1] == coarse_digest(f)


def test_pickling_an_instance_changes_nothing():
    """copyreg leaves a note in a class once an instance was pickled; that is not the user's."""
    f = make("class A: k = 1\ndef f(x): return A().k")
    before = digest(f)
    f.__globals__["A"]().__reduce_ex__(2)
    assert "__slotnames__" in vars(f.__globals__["A"])
    assert digest(f) == before


PROGRAM = """
import enum, re
from dataclasses import dataclass
from amorsize.identity.fingerprint import fingerprint
K = {"a", "b", "c"}
@dataclass
class Point:
    x: int = 1
class Colour(enum.Enum):
    RED = 1
PATTERN = re.compile("a+")
def helper(x):
    return x in K or x in {"x", "y", "z"}
def f(x):
    '''Documented.'''
    return helper(x), Point(x), Colour.RED, PATTERN.match(x), [len(y) for y in x]
print(fingerprint(f).digest, fingerprint(f).stable)
"""


def test_equal_in_every_process(tmp_path):
    """Hash seed, folder and line numbers do not matter."""
    seen = set()
    for seed in (0, 1, 2):
        folder = tmp_path / f"folder{seed}"
        folder.mkdir()
        script = folder / f"script{seed}.py"
        script.write_text("\n" * seed + PROGRAM)
        path = os.pathsep.join(filter(None, sys.path))
        done = subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        seen.add(done.stdout.strip())
    assert len(seen) == 1
    assert seen.pop().endswith("True")
