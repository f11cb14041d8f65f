"""Classes on their way: what the caller has comes back as itself, and is never written to."""

import collections
import dataclasses
import enum
import functools
import textwrap
import typing

import pytest

from amorsize import smart_map
from tests import programs

METHODS = ["fork", "spawn", "forkserver"]
FRESH = ["spawn", "forkserver"]
QUIET = "ignore::DeprecationWarning"


def run_main(body, folder, method, **env):
    """Run a script whose ``run(func, items)`` is a call with workers; return what it prints."""
    source = textwrap.dedent(f"""
        import dataclasses, enum, functools, collections, typing
        from amorsize import smart_map

        def run(func, items, **options):
            return smart_map(func, items, n_jobs=2, mp_context={method!r}, chunksize=2, **options)
        """) + textwrap.dedent(body)
    ended = programs.run_source(source, folder, PYTHONWARNINGS=QUIET, **env)
    assert ended.code == 0, ended.err
    return ended.out


def content_of(cls):
    """Return what a class holds, but for what Python notes in it: for copyreg, of annotations."""
    noted = ("__slotnames__", "__annotations_cache__")
    return {name: value for name, value in vars(cls).items() if name not in noted}


def names_of(cls):
    return cls.__name__, cls.__qualname__, cls.__module__


def both(func, items, method):
    return smart_map(func, items, n_jobs=2, mp_context=method, chunksize=2)


# Classes made in a function ------------------------------------------------------------------


def a_dataclass():
    @dataclasses.dataclass
    class Point:
        x: int

        def twice(self):
            return Point(2 * self.x)

    return Point, Point


def a_named_tuple():
    Pair = collections.namedtuple("Pair", "x y")
    return Pair, lambda x: Pair(x, x)


def a_typed_tuple():
    class Row(typing.NamedTuple):
        x: int

    return Row, Row


def an_exception():
    class Trouble(Exception):
        pass

    return Trouble, Trouble


def a_generic():
    T = typing.TypeVar("T")

    class Box(typing.Generic[T]):
        def __init__(self, x):
            self.x = x

    return Box, Box[int]


def with_slots():
    class Slim:
        __slots__ = ("__hidden", "x")

        def __init__(self, x):
            self.x = self.__hidden = x

        def hidden(self):
            return self.__hidden

    return Slim, Slim


def nested():
    class Outer:
        @dataclasses.dataclass
        class Inner:
            x: int

    return Outer.Inner, Outer.Inner


def that_lies():
    class Liar:
        def __init__(self, x):
            self.x = x

    Liar.__module__ = "collections"
    Liar.__qualname__ = "OrderedDict"
    return Liar, Liar


def made_by_call():
    made = dataclasses.make_dataclass("Made", ["x"])
    return made, made


def a_subclass():
    class Base:
        def __init__(self, x):
            self.x = x

    class Sub(Base):
        pass

    return Sub, Sub


def counted():
    class Counted:
        made = 0

        def __init__(self, x):
            type(self).made += 1
            self.x = x

    return Counted, Counted


MAKERS = [a_dataclass, a_named_tuple, a_typed_tuple, an_exception, a_generic, with_slots,
          nested, that_lies, made_by_call, a_subclass, counted]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_results_are_instances_of_the_callers_class(make, method):
    """Of a class that was made in a function, whatever kind it is."""
    cls, func = make()
    before = content_of(cls)
    got = both(func, range(6), method)
    assert [type(result) for result in got] == [cls] * 6
    assert content_of(cls) == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_items_are_instances_of_the_class_the_function_knows(make, method):
    """Items that are sent one by one are what ``isinstance`` asks for; so are items alone."""
    cls, func = make()
    items = [func(x) for x in range(6)]
    before = content_of(cls)
    known = both(lambda item: isinstance(item, cls), iter(items), method)
    assert known == [True] * 6
    returned = both(lambda item: item, iter(items), method)
    assert [type(result) for result in returned] == [cls] * 6
    assert content_of(cls) == before


@pytest.mark.parametrize("method", METHODS)
def test_members_of_an_enumeration_are_themselves(method):
    """Of one made in a function, plain, of integers and of flags."""

    class Colour(enum.Enum):
        RED = 1
        BLUE = "b"

    class Level(enum.IntEnum):
        LOW = 1

    class Bits(enum.Flag):
        A = 1
        B = 2

    members = [Colour.RED, Colour.BLUE, Level.LOW, Bits.A, Bits.A | Bits.B]
    got = both(lambda place: members[place], range(5), method)
    assert all(one is other for one, other in zip(got, members, strict=True))
    got = both(lambda item: (item, item in members), iter(members), method)
    assert all(one is other and known for (one, known), other in zip(got, members, strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_classes_have_their_names_in_workers(make, method):
    """Name, qualified name and module; so has what an item makes and returns."""
    cls, func = make()
    names = names_of(cls)

    def work(x):
        return names_of(type(func(x))), make()[0]

    for seen, made in both(work, range(4), method):
        assert seen == names
        assert names_of(made) == names


def test_a_class_each_item_makes_is_not_taken_for_the_callers():
    """A forked worker makes classes at addresses where its caller has others."""

    def work(k):
        class Made:
            factor = k

            def times(self):
                return self.factor

        return Made()

    for _ in range(3):
        own = [work(-k) for k in range(10)]
        got = both(work, range(40), "fork")
        assert [made.times() for made in got] == list(range(40))
        assert {type(made) for made in got}.isdisjoint(type(made) for made in own)


def test_classes_of_a_stream_are_not_taken_for_one_another():
    """Items of classes that the caller makes and drops as it goes on, at addresses used before."""

    def make(k):
        class Item:
            factor = k

        return Item()

    def stream():
        for k in range(200):
            yield make(k)

    got = smart_map(lambda item: item.factor, stream(), n_jobs=2, mp_context="fork", chunksize=3)
    assert got == list(range(200))


@pytest.mark.parametrize("method", METHODS)
def test_a_class_with_a_lock_comes_back_where_it_was_inherited(method):
    """A class that no pickler can carry is named under fork, and refused otherwise."""
    import threading

    from amorsize import SerializationError

    class Guarded:
        lock = threading.Lock()

        def __init__(self, x):
            self.x = x

    if method == "fork":
        assert {type(got) for got in both(Guarded, range(4), method)} == {Guarded}
    else:
        with pytest.raises(SerializationError, match="'lock'.* of class .*Guarded"):
            both(Guarded, range(4), method)


# Classes of the main module -------------------------------------------------------------------


MAIN_CLASSES = """
class Plain:
    count = 0
    def __init__(self, x):
        self.x = x
    def where(self):
        return SCALE

@dataclasses.dataclass(frozen=True)
class Data:
    x: int

class Colour(enum.Enum):
    RED = 0
    BLUE = 1

Pair = collections.namedtuple("Pair", "x")

class Outer:
    class Inner:
        def __init__(self, x):
            self.x = x

T = typing.TypeVar("T")

class Box(typing.Generic[T]):
    def __init__(self, x):
        self.x = x

class Trouble(ValueError):
    def __init__(self, x, y):
        super().__init__(x)
        self.y = y
    def __reduce__(self):
        return Trouble, (self.args[0], self.y)

KINDS = [Plain, Data, Pair, Outer.Inner, Box, lambda x: Trouble(x, x)]
TYPES = [Plain, Data, Pair, Outer.Inner, Box, Trouble]
SCALE = 1
"""


@pytest.mark.parametrize("method", METHODS)
def test_results_of_main_classes_do_not_touch_them(method, tmp_path):
    """Methods keep their globals, attributes their values, and results their class."""
    body = (
        MAIN_CLASSES
        + """
def work(x):
    Plain.count += 1
    made = [kind(x) for kind in KINDS]
    return made, Colour(x % 2)

def content_of(cls):
    noted = ("__slotnames__", "__annotations_cache__")
    return {name: value for name, value in vars(cls).items() if name not in noted}

before = {cls: content_of(cls) for cls in TYPES}
for _ in range(2):
    got = run(work, range(8))
    print(all(list(map(type, made)) == TYPES for made, _ in got),
          all(colour is Colour(x % 2) for x, (_, colour) in enumerate(got)),
          all(content_of(cls) == content for cls, content in before.items()))
SCALE = 7
print(got[0][0][0].where(), Plain.where.__globals__ is globals(), Plain.count)
"""
    )
    out = run_main(body, tmp_path, method)
    assert out.splitlines() == ["True True True"] * 2 + ["7 True 0"]


@pytest.mark.parametrize("method", METHODS)
def test_items_of_main_classes_do_not_touch_the_workers(method, tmp_path):
    """What a worker's function has set in a class is still there with the next chunk."""
    body = (
        MAIN_CLASSES
        + """
def work(item):
    first = Plain.count == 0
    Plain.count += 1
    return first, type(item) is Plain, item.where(), SCALE

items = [Plain(x) for x in range(12)]
for scale in (1, 5):
    SCALE = scale
    got = run(work, iter(items))
    # Each worker has counted from 0 once in the call.
    print(sum(first for first, *_ in got) <= 2, {tuple(rest) for _, *rest in got}, Plain.count)
"""
    )
    out = run_main(body, tmp_path, method)
    assert out.splitlines() == ["True {(True, 1, 1)} 0", "True {(True, 5, 5)} 0"]


@pytest.mark.parametrize("method", FRESH)
def test_changed_main_classes_count_in_kept_workers(method, tmp_path):
    """Attributes that were set or deleted between two calls, and globals that are gone."""
    body = """
class Config:
    shift = 1
    extra = 2

LATE = "there"

def work(x):
    try:
        late = LATE
    except NameError:
        late = "gone"
    return Config.shift, hasattr(Config, "extra"), late

print(set(run(work, range(4))))
Config.shift = 5
del Config.extra
del LATE
print(set(run(work, range(4))))
"""
    out = run_main(body, tmp_path, method)
    assert out.splitlines() == ["{(1, True, 'there')}", "{(5, False, 'gone')}"]


@pytest.mark.parametrize("method", METHODS)
def test_functions_of_main_come_back_as_themselves(method, tmp_path):
    """With the globals of the caller, also those that a worker has made."""
    body = """
SCALE = 1

def helper(x):
    return x * SCALE

def make(k):
    return lambda x: x * k * SCALE

def work(x):
    return helper, make(x)

got = run(work, range(4))
SCALE = 10
print([h is helper for h, _ in got], [made(2) for _, made in got])
got = run(lambda f: f(3), [helper, make(2), helper, make(3)])
print(got, helper.__globals__ is globals(), SCALE)
"""
    out = run_main(body, tmp_path, method)
    assert out.splitlines() == [
        "[True, True, True, True] [0, 20, 40, 60]",
        "[30, 60, 30, 90] True 10",
    ]


@pytest.mark.parametrize("method", METHODS)
def test_a_nested_main_class_pickles_in_the_function(method, tmp_path):
    """Under its qualified name, and is one with that of the caller."""
    body = """
import pickle

class Outer:
    @dataclasses.dataclass
    class Inner:
        x: int

def work(x):
    return repr(pickle.loads(pickle.dumps(Outer.Inner(x)))), Outer.Inner(x)

print(*run(work, range(2)), type(run(work, range(2))[0][1]) is Outer.Inner)
"""
    out = run_main(body, tmp_path, method)
    assert out == (
        "('Outer.Inner(x=0)', Outer.Inner(x=0)) ('Outer.Inner(x=1)', Outer.Inner(x=1)) True\n"
    )


@pytest.mark.parametrize("method", METHODS)
def test_type_variables_of_main_travel(method, tmp_path):
    """All kinds of them, used by a class, a function and its annotations."""
    body = """
T = typing.TypeVar("T", bound=int)
P = typing.ParamSpec("P")
Ts = typing.TypeVarTuple("Ts")

class Box(typing.Generic[T, P]):
    def __init__(self, x):
        self.x = x

class Row(typing.Generic[*Ts]):
    pass

def logged(f: typing.Callable[P, T]) -> typing.Callable[P, T]:
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        return f(*args, **kwargs)
    return inner

@logged
def work(x):
    return Box(x), Row(), T.__bound__, T, P, Ts, (T.__module__, P.__name__)

for box, row, bound, *variables, names in run(work, range(4)):
    print(type(box) is Box, type(row) is Row, bound is int, variables == [T, P, Ts], names)
"""
    out = run_main(body, tmp_path, method)
    assert out == "True True True True ('__main__', 'P')\n" * 4


WRAPPERS = {
    "lru_cache": "@functools.lru_cache(maxsize=32)\ndef func(x):\n    return helper(x)",
    "cache": "@functools.cache\ndef func(x):\n    return func(x - 1) + 1 if x else helper(0)",
    "wraps": """
def logged(f):
    @functools.wraps(f)
    def inner(*args):
        return f(*args)
    return inner
@logged
def func(x):
    return helper(x)
""",
    "singledispatch": """
@functools.singledispatch
def func(x):
    return helper(x)
@func.register
def _(x: int):
    return x + 1
@func.register
def _(x: list):
    return [func(y) for y in x]
ITEMS = [1, 2.5, [3, 4.5], 2]
""",
    "cached_property": """
class Holder:
    def __init__(self, x):
        self.x = x
    @functools.cached_property
    def value(self):
        return helper(self.x)
def func(x):
    return Holder(x).value
""",
    "partialmethod": """
class Holder:
    def add(self, x, y):
        return helper(x) + y
    add_one = functools.partialmethod(add, y=1)
def func(x):
    return Holder().add_one(x)
""",
    "singledispatchmethod": """
class Holder:
    @functools.singledispatchmethod
    def show(self, x):
        return helper(x)
    @show.register
    def _(self, x: str):
        return x
def func(x):
    return Holder().show(x), Holder().show("s")
""",
    "cached_method": """
class Holder:
    @functools.lru_cache
    def value(self, x):
        return helper(x)
    @staticmethod
    @functools.cache
    def other(x):
        return helper(x) + 1
HOLDER = Holder()
def func(x):
    return HOLDER.value(x), Holder.other(x)
""",
    "bound cached method": """
class Holder:
    @functools.cache
    def value(self, x):
        return helper(x)
func = Holder().value
""",
    "partial of a cached one": """
@functools.cache
def cached(x, y):
    return helper(x) + y
func = functools.partial(cached, y=2)
""",
    "total_ordering": """
@functools.total_ordering
class Holder:
    def __init__(self, x):
        self.x = x
    def __lt__(self, other):
        return helper(self.x) < helper(other.x)
    def __eq__(self, other):
        return self.x == other.x
def func(x):
    return Holder(x) >= Holder(2)
""",
    "context manager": """
import contextlib
@contextlib.contextmanager
def context(x):
    yield helper(x)
def func(x):
    with context(x) as value:
        return value
""",
    "abstract class": """
import abc
class Base(abc.ABC):
    @abc.abstractmethod
    def value(self): ...
class Holder(Base):
    def __init__(self, x):
        self.x = x
    def value(self):
        return helper(self.x)
@Base.register
class Other: ...
def func(x):
    return Holder(x).value(), isinstance(Holder(x), Base), issubclass(Other, Base)
""",
    "shared cell": """
def make():
    n = 0
    def up():
        nonlocal n
        n += 1
    def get():
        return n
    return up, get
UP, GET = make()
def func(x):
    before = GET()
    UP()
    return GET() - before
""",
    "by its name": """
def func(x):
    return globals()["help" + "er"](x)
""",
}  # fmt: skip


@pytest.mark.parametrize("method", FRESH)
@pytest.mark.parametrize("kind", WRAPPERS)
def test_wrappers_around_main_functions_work_in_fresh_workers(kind, method, tmp_path):
    """Those of functools, in C and in Python, give what they give in the caller."""
    body = f"""
SCALE = 3
def helper(x):
    return x * SCALE
ITEMS = [0, 1, 2, 3, 1, 2]
{textwrap.dedent(WRAPPERS[kind])}
for SCALE in (3, 4):
    if hasattr(func, "cache_clear"):
        func.cache_clear()
    got = run(func, ITEMS)
    if hasattr(func, "cache_clear"):
        func.cache_clear()
    print(got == list(map(func, ITEMS)), got)
"""
    if kind == "cached_method":
        body = body.replace(
            "    got =", "    Holder.value.cache_clear(); Holder.other.cache_clear(); got ="
        )
        body = body.replace(
            "    print(", "    Holder.value.cache_clear(); Holder.other.cache_clear(); print("
        )
    elif kind == "partial of a cached one":
        body = body.replace("    got =", "    cached.cache_clear(); got =")
        body = body.replace("    print(", "    cached.cache_clear(); print(")
    out = run_main(body, tmp_path, method)
    assert [line.split()[0] for line in out.splitlines()] == ["True", "True"], out


@pytest.mark.parametrize("method", METHODS)
def test_an_exception_of_a_local_class_that_is_returned_is_itself(method):
    """With ``return_exceptions`` and where the function returns it."""

    class Trouble(Exception):
        pass

    trouble = Trouble("kept")

    def work(x):
        return trouble if x % 2 else functools.partial(Trouble, x)

    got = both(work, range(4), method)
    assert type(got[1]) is Trouble
    assert got[1].args == ("kept",)
    assert got[2].func is Trouble
