"""What a fingerprint costs does not follow the size of what a function reaches, nor its shape."""

import array
import collections
import ctypes
import io
import json
import mmap
import random
import sys
import textwrap
import tracemalloc
import types
from contextlib import contextmanager
from xml.etree import ElementTree

import numpy as np
import pytest

from amorsize.identity.fingerprint import fingerprint
from amorsize.identity.uses import uses
from amorsize.identity.walk import MOST_NODES, Walk
from tests import programs

MOST_CALLS = 100_000  # of functions, in Python and in C: 20 ms at most
MOST_BYTES = 2_000_000
MANY = 1_000_000


class TooMuchError(BaseException):
    """The walk went on and on; no broad except may catch it."""


@contextmanager
def at_most(calls):
    """Stop what calls more functions than that: a hang fails at once."""
    left = calls

    def count(frame, event, argument):
        nonlocal left
        left -= event in ("call", "c_call")
        if left < 0:
            sys.setprofile(None)
            raise TooMuchError

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


def over(value):
    return lambda x: (x, value)


class Node:
    def __init__(self, name, *parts):
        self.name = name
        self.links = set()
        self.parts = parts


def linked(count, *, change=0):
    """Return the first of so many objects, each of which has a set of all the others."""
    nodes = [Node(f"n{number + change * (number == 3)}") for number in range(count)]
    random.shuffle(nodes)
    for node in nodes:
        others = [other for other in nodes if other is not node]
        random.shuffle(others)
        node.links = set(others)
    return min(nodes, key=lambda node: node.name)


def ring(count):
    """Return one of so many objects, each of which has a set of its neighbours."""
    nodes = [Node(f"n{number}") for number in range(count)]
    for here, there in zip(nodes, nodes[1:] + nodes[:1], strict=True):
        here.links.add(there)
        there.links.add(here)
    return nodes[0]


def sharing(*, change=0):
    """Return 100 objects in a frozenset, which share 30 others; one may differ in the last."""
    shared = [Node(number, {"a": [number] * 50}) for number in range(29)]
    shared.append(Node(29, {"a": [change] * 50}))
    members = [Node(number, shared) for number in range(100)]
    random.shuffle(members)
    return frozenset(members)


def keyed():
    """Return objects that are linked through keys and tuples in sets."""
    nodes = [Node(number) for number in range(12)]
    for node in nodes:
        node.links = {(other, ("to", other)) for other in nodes}
        node.table = {frozenset(nodes): node}
    return nodes[0]


NODES = [Node(number) for number in range(150)]


def complete(count, kind):
    """Return one of so many objects, each of which refers to all."""
    nodes = [Node(number) for number in range(count)]
    for node in nodes:
        node.links = kind(nodes)
    return nodes[0]


def deep(length):
    inner = ()
    for number in range(length):
        inner = (inner, number)
    return inner


def doubling():
    """Return a tuple whose written form has 2**100 items."""
    inner = ()
    for _ in range(100):
        inner = (inner, inner)
    return inner


LINKED = {
    "six linked through sets": lambda: linked(6),
    "sixty linked through sets": lambda: linked(60),
    "a ring through sets": lambda: ring(500),
    "sharing": sharing,
    "keyed": keyed,
    "sets of sets": lambda: {frozenset({frozenset({i, j}) for j in range(40)}) for i in range(40)},
    "deep tuple": lambda: deep(5_000),
    "doubling tuple": doubling,
    "lists of lists": lambda: [[[i, j, "x" * 99] for j in range(300)] for i in range(300)],
    "dicts of dicts": lambda: {i: {j: {"k": [i, j]} for j in range(99)} for i in range(99)},
    "each with a list of all": lambda: complete(500, list),
    "each with a set of all": lambda: complete(500, set),
    "lists of the same objects": lambda: [[NODES[:]] * 9 for _ in range(190)],
    "sets of the same objects": lambda: [[set(NODES) for _ in range(190)] for _ in range(9)],
    "many objects in a set": lambda: {Node(number) for number in range(500)},
    "very many objects in a set": lambda: {Node(number) for number in range(20_000)},
}


@pytest.mark.parametrize("name", LINKED)
def test_what_is_linked_is_looked_at_once(name):
    """Objects linked in any way, also through sets, are each looked at once, and few of many."""
    func = over(LINKED[name]())
    with at_most(MOST_CALLS):
        assert fingerprint(func).stable


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_references_to_what_is_known_are_counted(kind):
    """A walk that is bounded in objects is bounded in references between them as well."""
    walk = Walk()
    walk.value(complete(500, kind))
    walk.encoding()
    references = sum(len(node.children) + len(node.members) for node in walk._nodes)
    assert references < 4 * MOST_NODES


@pytest.mark.parametrize("name", ["sharing", "sixty linked through sets", "keyed"])
def test_all_that_is_used_is_found_through_sets(name):
    """Looking for all that a function uses is bounded as well, and need not give up for a set."""
    func = over(LINKED[name]())
    with at_most(10 * MOST_CALLS):
        assert uses(func).whole


@pytest.mark.parametrize(
    "make",
    [lambda change: linked(6, change=10 * change), lambda change: sharing(change=change)],
    ids=["linked", "sharing"],
)
def test_members_of_sets_count_without_their_order(make):
    """Sets built in any order are equal; a difference deep inside one member shows."""
    seen = {fingerprint(over(make(0))) for _ in range(5)}
    assert len(seen) == 1
    assert fingerprint(over(make(1))) not in seen


def test_links_within_sets_count():
    """Which member refers to which shows, though all members are the same."""

    def pair(first, second):
        a, b = Node("a"), Node("b")
        a.parts, b.parts = ([a, b][first],), ([a, b][second],)
        return {a, b}

    seen = [fingerprint(over(pair(*links))) for links in ((0, 0), (1, 1), (0, 1), (1, 0)) * 2]
    assert len(set(seen)) == 4
    assert seen[:4] == seen[4:]


PROGRAM = """
import json
from amorsize.identity.fingerprint import fingerprint
class Node:
    def __init__(self, name, *parts):
        self.name, self.parts = name, parts
    def __hash__(self): return hash(self.name)
    def __eq__(self, other): return self is other
def over(value):
    return lambda x: (x, value)
shared = [Node(str(i), {str(j) for j in range(99)}) for i in range(30)]
many = {Node(str(i), *shared) for i in range(400)}
for node in many:
    node.others = many
nested = {frozenset({Node(str(i)), str(j)}) for i in range(9) for j in range(9)}
functions = {eval(f"lambda x: (x, json.dumps, {i}, shared)") for i in range(30)}
print(json.dumps([fingerprint(over(value)) for value in (many, nested, functions)]))
"""


def test_sets_too_large_to_walk_are_equal_in_every_process(tmp_path):
    """Where a walk ends among members of sets, no order and no hash seed leave a trace."""
    found = []
    for seed in "123":
        ended = programs.run_source(PROGRAM, tmp_path, PYTHONHASHSEED=seed)
        found.append(json.loads(ended.out))
    assert found[0] == found[1] == found[2]
    assert all(stable for _, stable in found[0])


class Text(str):
    __slots__ = ()


class Bytes(bytes):
    pass


class Items(list):
    pass


class Numbers(int):
    pass


def shared_memory():
    return mmap.mmap(-1, 20_000_000)


def element(count):
    """Return a node of an XML tree with so many children."""
    root = ElementTree.Element("root")
    for _ in range(count):
        ElementTree.SubElement(root, "item")
    return root


LARGE = {
    "text": lambda: "x" * 20_000_000,
    "text beyond ASCII": lambda: "\u1234" * 10_000_000,
    "text of a subclass": lambda: Text("x" * 20_000_000),
    "bytes": lambda: b"x" * 20_000_000,
    "bytes of a subclass": lambda: Bytes(20_000_000),
    "integer": lambda: 1 << 80_000_000,
    "negative integer": lambda: -(1 << 80_000_000),
    "integer of a subclass": lambda: Numbers(1 << 80_000_000),
    "bytearray": lambda: bytearray(20_000_000),
    "memoryview": lambda: memoryview(bytearray(20_000_000)),
    "memoryview with gaps": lambda: memoryview(bytearray(20_000_000))[::2],
    "memoryview of two dimensions": lambda: memoryview(np.zeros((2_000, 2_000)).T),
    "array": lambda: array.array("d", bytes(20_000_000)),
    "mapped memory": shared_memory,
    "bytes in a file": lambda: io.BytesIO(bytes(20_000_000)),
    "text in a file": lambda: io.StringIO("x" * 20_000_000),
    "array of ctypes": ctypes.c_double * 2_500_000,
    "list": lambda: [0] * MANY,
    "list of a subclass": lambda: Items([0] * MANY),
    "tuple": lambda: (0,) * MANY,
    "dict": lambda: dict.fromkeys(range(MANY)),
    "proxy of a dict": lambda: types.MappingProxyType(dict.fromkeys(range(MANY))),
    "keys": lambda: dict.fromkeys(range(MANY)).keys(),
    "values": lambda: dict.fromkeys(range(MANY)).values(),
    "items": lambda: dict.fromkeys(range(MANY)).items(),
    "ordered dict": lambda: collections.OrderedDict.fromkeys(range(MANY)),
    "keys of an ordered dict": lambda: collections.OrderedDict.fromkeys(range(MANY)).keys(),
    "counter": lambda: collections.Counter(range(MANY)),
    "chain of dicts": lambda: collections.ChainMap(dict.fromkeys(range(MANY))),
    "user's dict": lambda: collections.UserDict(dict.fromkeys(range(MANY))),
    "deque": lambda: collections.deque(range(MANY)),
    "element": lambda: element(200_000),
    "generators of random numbers": lambda: [random.Random(seed) for seed in range(400)],
    "set of numbers": lambda: set(range(MANY)),
    "set of text": lambda: set(map(str, range(200_000))),
    "set of long texts": lambda: {f"{number}{'x' * 100_000}" for number in range(200)},
    "set of pairs with a long text": lambda: set(zip(range(200), ["x" * 5_000_000] * 200)),
    "array of NumPy": lambda: np.zeros(2_500_000),
    "array with gaps": lambda: np.zeros((2_000, 2_000)).T[::2, ::3],
    "array of objects": lambda: np.array([Node(0)] * 100_000, dtype=object),
    "array of texts, one of them long": lambda: np.array(["short"] * 60 + ["a" * 300_000]),
    "array of long rows": lambda: np.zeros(100, dtype="V1000000"),
    "array of long rows with gaps": lambda: np.zeros((20, 20), dtype="V100000")[::2, ::3],
    "array of many fields": lambda: np.zeros(3, dtype=[(f"f{n}", "i4") for n in range(5_000)]),
    "type of many fields": lambda: np.dtype([(f"f{n}", "i4") for n in range(5_000)]),
    "array of long texts": lambda: np.array(["x" * 1_000_000] * 3, dtype=object),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_large_is_neither_copied_nor_encoded_whole(name):
    """The fingerprint of a function over something large takes little memory and few steps."""
    func = over(LARGE[name]())
    tracemalloc.start()
    try:
        with at_most(MOST_CALLS):
            assert fingerprint(func).stable
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def levels(pandas):
    """Return an index of two levels, each with many values."""
    dates = pandas.date_range("2000", periods=100_000, freq="s")
    return pandas.MultiIndex.from_arrays([dates, range(100_000)])


@pytest.mark.parametrize(
    "make",
    [
        lambda pandas: pandas.DataFrame(np.zeros((20, 50_000))),
        lambda pandas: pandas.DataFrame({"a": np.zeros(1_000_000), "b": "x"}),
        lambda pandas: pandas.Series(np.zeros(1_000_000)),
        lambda pandas: pandas.Series([list(range(100_000))] * 1_000),
        lambda pandas: pandas.Index(np.arange(1_000_000.0)),
        lambda pandas: pandas.DataFrame({c: [np.ones(900)] * 100 for c in "abcde"}),
        lambda pandas: pandas.Series([collections.Counter(range(5_000))] * 100),
        lambda pandas: pandas.Series([collections.deque(range(50_000)) for _ in range(70)]),
        lambda pandas: pandas.Series([pandas.DataFrame(np.zeros((50, 5)))] * 70),
        lambda pandas: pandas.Series(0, index=levels(pandas)),
        levels,
        lambda pandas: pandas.Series(pandas.Categorical(map(str, range(100_000)))),
    ],
)
def test_frames_of_any_size_are_sampled(make):
    """A frame counts by a sample of its rows and columns, however long or wide it is."""
    func = over(make(pytest.importorskip("pandas")))
    fingerprint(func)  # pandas loads some of its parts when they are first used
    tracemalloc.start()
    try:
        with at_most(MOST_CALLS):
            assert fingerprint(func).stable
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", [iter, lambda values: iter(values.items()), lambda v: iter({*v})])
def test_iterators_over_large_tables_are_not_copied(make):
    """An iterator over a large dictionary or set counts by what is left, in this process alone."""
    tracemalloc.start()
    try:
        func = over(make(dict.fromkeys(range(200_000))))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert not fingerprint(func).stable
        assert tracemalloc.get_traced_memory()[1] - before < MOST_BYTES
    finally:
        tracemalloc.stop()


def compiled(source):
    namespace = {}
    exec(source, namespace)
    return namespace["f"]


def with_constant(value):
    """Return a function whose code has a constant that no compiler would put there."""
    code = compiled("def f(x): return x, 1234567").__code__
    constants = tuple(value if const == 1234567 else const for const in code.co_consts)
    return types.FunctionType(code.replace(co_consts=constants), {})


CODE = {
    "set of constants": lambda: compiled(
        f"def f(x): return x in {{{','.join(repr(str(n)) for n in range(50_000))}}}"
    ),
    "tuple of constants": lambda: compiled(
        f"def f(x): return x in ({','.join(map(str, range(50_000)))})"
    ),
    "many literals": lambda: compiled(
        f"def f(x): return [{','.join(f'x + {n}.5, (x, {n}, {n}.25)' for n in range(20_000))}]"
    ),
    "long text": lambda: compiled(f"def f(x): return {'x' * 20_000_000!r}"),
    "deep constant": lambda: with_constant(deep(5_000)),
    "object as a constant": lambda: with_constant(Node("a")),
    "class of 1,200 methods": lambda: over(
        type("A", (), {f"m{n}": eval(f"lambda self, x: x + {n}") for n in range(1_200)})
    ),
}


@pytest.mark.parametrize("name", CODE)
def test_code_of_any_size_is_bounded(name):
    """Large code has a fingerprint as well, at a cost that does not follow its constants."""
    func = CODE[name]()
    tracemalloc.start()
    try:
        with at_most(MOST_CALLS):
            assert fingerprint(func).stable
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def test_constants_count_within_what_is_sampled():
    """Sets and tuples of constants in code differ by their members, small or large."""
    for count in (5, 500, 5_000):
        pairs = [
            [f"def f(x): return x in {{{','.join(map(str, [*range(count), last]))}}}"
             for last in (-1, -2)],
            [f"def f(x): return x, ({','.join(map(str, [*range(count), last]))})"
             for last in (-1, -2)],
        ]  # fmt: skip
        for first, second in pairs:
            assert fingerprint(compiled(first)) == fingerprint(compiled(first))
            assert fingerprint(compiled(first)) != fingerprint(compiled(second))


def test_a_walk_does_not_hold_what_it_looked_at():
    """A bytearray can grow right after the walk has seen it: no view of it stays open."""
    value = bytearray(100_000)
    fingerprint(over(value))
    value += b"more"
    file = io.BytesIO(bytes(100_000))
    fingerprint(over(file))
    file.write(bytes(200_000))


def test_a_program_with_linked_objects_goes_on(tmp_path):
    """The call itself of a function over objects linked through sets is over."""
    source = """
        from amorsize import smart_map
        class Node: pass
        nodes = [Node() for _ in range(12)]
        for node in nodes:
            node.links = {other for other in nodes if other is not node}
        def f(x):
            return sum(len(node.links) for node in nodes) + sum(range(10_000)) + x
        print(smart_map(f, range(50)) == list(map(f, range(50))))
    """
    ended = programs.run_source(textwrap.dedent(source), tmp_path, deadline=30)
    assert ended.out.strip() == "True", ended.err
