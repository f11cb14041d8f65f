"""What a function does to what it reaches: told where its items ran in workers."""

import array
import bisect
import collections
import functools
import heapq
import itertools
import operator
import queue as std_queue
import random
import shutil
import subprocess
import sys

import pytest

from amorsize import smart_map
from amorsize.identity.effects import Effects, effects_of
from amorsize.show.hints import hints_for_effects
from tests import functions as f
from tests import programs

count = 0
seen = []
heap = []
ticks = itertools.count()
todo = std_queue.Queue()
shorts = array.array("h")
push = seen.append
table = {}
nested = {"a": {"b": []}}
names = set()
queue = collections.deque()
rng = random.Random(1)
draw = rng.random
text = "abc"
numbers = (1, 2)


class Config:
    level = 0
    entries = []


class Log:
    def __init__(self):
        self.lines = []
        self.rng = random.Random(2)
        self.n = 0

    def add(self, line):
        self.lines.append(line)

    def note(self, line):
        self.lines.append(line)

    def work(self, x):
        self.n += 1
        self.last = x
        self.lines[0:1] = [x]
        return x

    def calls_another(self, x):
        self.note(x)
        return x

    def draws(self, x):
        return self.rng.random()

    def __call__(self, x):
        self.total = x


log = Log()


def assigns(x):
    global count  # noqa: PLW0603
    count += 1


def deletes(x):
    global count  # noqa: PLW0603
    del count


def assigns_in_a_closure():
    n = 0

    def work(x):
        nonlocal n
        n = x

    return work


def appends_in_a_closure():
    found = []
    return lambda x: found.append(x + 1)


def helper(x):
    seen.append(x)


def module_helper(x):
    return sys.modules and helper(x)


def has_nested(x):
    def inner():
        table[x] = 1

    return inner()


def collects(x, found=[]):
    found.append(x)


def collects_into(found, x):
    found.append(x)


def collects_by_keyword(x, *, found=None):
    found.append(x)


def uses_an_alias(x):
    mine = seen
    mine.append(x)


def uses_a_methods_alias(x):
    add = seen.append
    add(x)


def uses_an_items_alias(x):
    inner = nested["a"]
    inner[x] = 1


def counts_in_its_class(self, x):
    type(self).n += 1
    self.__class__.entries.append(x)


class Counting:
    n = 0
    entries = []
    count = counts_in_its_class


@functools.lru_cache
def cached(x):
    seen.append(x)


@functools.singledispatch
def dispatched(x):
    seen.append(x)


CHANGES = {
    "append": (lambda x: seen.append(x + 1), "seen"),
    "extend": (lambda x: seen.extend([x, x]), "seen"),
    "setdefault": (lambda x: table.setdefault(x, []).append(x), "table"),
    "update": (lambda x: table.update({x: 1}), "table"),
    "add": (lambda x: names.add(x + 1), "names"),
    "deque": (lambda x: queue.appendleft(x + 1), "queue"),
    "inner list": (lambda x: nested["a"]["b"].append(x + 1), "nested"),
    "a user's object": (lambda x: log.add(x + 1), "log"),
    "an object's list": (lambda x: log.lines.append(x + 1), "log.lines"),
    "a class's list": (lambda x: Config.entries.append(x + 1), "Config.entries"),
    "a closure's list": (appends_in_a_closure(), "found"),
    "a helper": (lambda x: helper(x + 1), "seen"),
    "a helper of a helper": (module_helper, "seen"),
    "a nested function": (has_nested, "table"),
    "a method": (Log().work, "self.n"),
    "a method's method": (Log().calls_another, "self.lines"),
    "an instance": (Log(), "self.total"),
    "a default": (collects, "found"),
    "a partial's default": (functools.partial(collects), "found"),
    "a partial's argument": (functools.partial(collects_into, []), "found"),
    "a partial's keyword": (functools.partial(collects_by_keyword, found=[]), "found"),
    "an alias": (uses_an_alias, "seen"),
    "a method's alias": (uses_a_methods_alias, "seen"),
    "an item's alias": (uses_an_items_alias, "nested"),
    "a global method": (lambda x: push(x + 1), "push"),
    "a method as the function": (seen.append, "the list it belongs to"),
    "a class's method": (lambda x: list.append(seen, x + 1), "seen"),
    "a heap": (lambda x: heapq.heappush(heap, x + 1), "heap"),
    "a heap in a dict": (lambda x: heapq.heappush(nested["a"], (x + 1, x)), "nested"),
    "a sorted list": (lambda x: bisect.insort(seen, x + 1), "seen"),
    "an iterator": (lambda x: next(ticks), "ticks"),
    "a queue": (lambda x: todo.put(x + 1), "todo"),
    "an array": (lambda x: shorts.append(x + 1), "shorts"),
    "setattr": (lambda x: setattr(Config, "level", x + 1), "Config"),
    "operator": (lambda x: operator.setitem(table, x, len(str(x))), "table"),
    "a cached function": (cached, "seen"),
    "a cached helper": (lambda x: cached(x + 1), "seen"),
    "a dispatched function": (dispatched, "seen"),
    "its class": (Counting().count, "type(self).n"),
    "its class by attribute": (Counting().count, "self.__class__.entries"),
    "a partial": (functools.partial(lambda a, x: seen.append(a + x), 1), "seen"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_changes_by_a_method_is_seen(kind):
    """Methods that change a container or a user's object, reached in any way."""
    func, name = CHANGES[kind]
    assert name in effects_of(func).changed


def stores_an_item(x):
    table[x] = 1


def stores_an_odd_key(x):
    table[x + 1, len(str(x))] = max(x, key=lambda y: y)


def stores_deep(x):
    nested["a"][x] = 1


def adds_up(x):
    table[x % 3] += x


def adds_up_odd(x):
    nested["a"][x % 3, x] += x


def deletes_an_item(x):
    del table[x]


def sets_an_attribute(x):
    Config.level = x


def counts_an_attribute(x):
    Config.level += 1


def stores_two(x):
    table[x], seen[0] = x, x


def sets_by_vars(x):
    vars(Config)["level"] = x


def sets_by_globals(x):
    globals()["count"] = x


STORES = {
    sets_by_vars: "vars(Config)",
    sets_by_globals: "globals()",
    stores_an_item: "table",
    stores_an_odd_key: "table",
    stores_deep: "nested",
    adds_up: "table",
    adds_up_odd: "nested",
    deletes_an_item: "table",
    sets_an_attribute: "Config.level",
    counts_an_attribute: "Config.level",
    stores_two: "seen",
}


@pytest.mark.parametrize("func", STORES, ids=lambda func: func.__name__)
def test_stores_into_what_is_reached_are_seen(func):
    """By index and by attribute, plain and augmented."""
    assert STORES[func] in effects_of(func).changed
    assert effects_of(func).stored == ()


def test_assignments_are_seen():
    """Globals, and variables of enclosing functions."""
    assert effects_of(assigns).stored == ("count",)
    assert effects_of(deletes).stored == ("count",)
    assert effects_of(assigns_in_a_closure()).stored == ("n",)


def default_generator(x, mine=rng):
    return mine.random()


table_of_generators = {"a": rng}


def reads_only(x):
    local = []
    heapq.heappush(local, x)
    either = seen
    either = [*either]
    either.append(x)
    setattr(Log(), "n", list.copy(seen))
    fresh = (
        collects_into,
        sorted(seen),
        type(x),
        vars(Config)["level"],
        next(iter(seen)),
        todo.qsize(),
    )
    fresh = [*fresh]
    fresh.append(operator.getitem(seen, 0))
    local.append(x)
    mine = {}
    mine[x] = local
    mine[x] += [1]
    parts = text.replace("a", "b"), seen[0:1], table.get(x), nested["a"], len(names), Config.level
    thing = Log()
    thing.n = x
    thing.lines.append(x)
    return parts, numbers[0], [y for y in seen if y], {k: k for k in table}, sorted(seen)


def test_what_dies_with_the_call_is_nobodys_business():
    """Locals, new objects, and reading of what is reached."""
    assert effects_of(reads_only) == Effects()
    for func in (len, str.upper, f.double, f.busy_ms, functools.partial(pow, 2), int, print):
        assert effects_of(func) == Effects()


def test_a_slice_is_changed_like_an_item():
    """Set, deleted, extended in place, or changed by a method."""
    rows = [[0], [1]]

    def sets(x):
        rows[x:] = [x]

    def deletes(x):
        del rows[:x]

    def extends(x):
        rows[x : x + 1] += [[x]]

    def deep(x):
        rows[1:][0].append(x)

    for function in (sets, deletes, extends, deep):
        assert effects_of(function).changed == ("rows",), function.__name__
    assert effects_of(lambda x: len(rows[x:])) == Effects()


def test_numpys_functions_are_no_changes():
    """A module's add or sort is no method of a container; an array's item is."""
    np = pytest.importorskip("numpy")
    out = np.zeros(10)

    def fills(x):
        out[x] = np.add(x, np.sort(out)[0])

    assert effects_of(fills).changed == ("out",)
    for changing in (
        lambda x: out.fill(x + 1),
        lambda x: np.add(out, x, out=out),
        lambda x: np.add(x, x, out=out[1:], where=x > 0),
        lambda x: np.add.at(out, [0], x + 1),
    ):
        assert effects_of(changing).changed == ("out",)
    for reading in (lambda x: np.add(out, x), lambda x: out.sum() + out.max(where=x, initial=0)):
        assert effects_of(reading) == Effects()


def test_captured_generators_are_seen():
    """As a global, in a closure, by a bound method, in an instance."""
    mine = random.Random(3)
    assert effects_of(lambda x: rng.random()).drawn == ("rng",)
    assert effects_of(lambda x: mine.gauss(0, 1)).drawn == ("mine",)
    assert effects_of(lambda x: draw()).drawn == ("draw",)
    assert effects_of(Log().draws).drawn == ("self.rng",)
    assert effects_of(lambda x: log.rng.random()).drawn == ("log.rng",)
    assert effects_of(default_generator).drawn == ("mine",)
    assert effects_of(lambda x: table_of_generators["a"].random()).drawn == ("table_of_generators",)
    assert effects_of(Log().work).drawn == ()
    assert effects_of(lambda x: random.random() + random.Random(x).random()).drawn == ()


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_generators_of_libraries_are_seen(library):
    """NumPy's, new and old, and torch's."""
    module = pytest.importorskip(library)
    if library == "numpy":
        made = [module.random.default_rng(1), module.random.RandomState(1)]
    else:
        made = [module.Generator()]
    for generator in made:
        assert effects_of(lambda x, g=None: generator and x).drawn == ("generator",)


def test_looking_runs_no_code():
    """Neither properties nor __getattr__ nor __class__ of what is reached."""
    looked = []

    class Shy:
        def __getattribute__(self, name):
            if not name.startswith("__dict"):
                looked.append(name)
            raise RuntimeError(name)

    shy = Shy()
    effects_of(lambda x: shy.lines.append(shy.other))
    effects_of(shy)
    assert looked == []


def test_the_hints_name_what_and_say_what_to_do():
    """One line for each kind; long lists are cut."""
    assert hints_for_effects(Effects()) == []
    stored, changed, drawn = hints_for_effects(Effects(("count",), tuple("abcdefgh"), ("rng",)))
    assert "count" in stored
    assert "a, b, c, d, e and 3 more" in changed
    assert "rng" in drawn
    for text in (stored, changed):
        assert "n_jobs=1" in text
    assert "repeat" in drawn


def appends_slowly(x):
    seen.append(x)
    rng.random()
    return f.busy_ms(x)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"n_jobs": 2}, True), ({"n_jobs": 1}, False), ({"n_jobs": 2, "backend": "thread"}, False)],
    ids=str,
)
def test_a_report_tells_where_items_ran_in_worker_processes(options, told):
    """And there alone: threads and the caller change the one there is."""
    reports = []
    smart_map(appends_slowly, range(40), report=reports.append, **options)
    (report,) = reports
    assert any("changes seen" in hint for hint in report.hints) is told
    assert any("draws from rng" in hint for hint in report.hints) is told
    assert ("hint      the function changes seen" in report.explain()) is told


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_other_versions_bytecode_says_the_same(version):
    """Pairs of loads in one instruction, methods as attributes."""
    python = shutil.which(f"python{version}")
    # There may be a file of that name that only says how to install it.
    if python is None or subprocess.run([python, "-c", ""], check=False).returncode:
        pytest.skip(f"there is no Python {version} here")
    command = [python, "-c", OTHER_VERSIONS, str(programs.ROOT)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    expected = ["seen", "table", "self.n self.m", *["seen"] * 2, "type(self).n", "seen", "found",
                "table"]  # fmt: skip
    assert done.stdout == f"{expected}\n"


OTHER_VERSIONS = """
import sys
sys.path.insert(0, sys.argv[1])
from amorsize.identity.effects import effects_of
seen, table = [], {}
def one(x, y):
    seen[y] = x
def two(x, y):
    table[x, y] += y
class A:
    def three(self, x):
        self.n = x
        self.m += x
def four(x):
    seen.append(x)
import heapq
def five(x):
    heapq.heappush(seen, x + 1)
class B:
    n = 0
    def six(self, x):
        type(self).n += 1
def seven(x):
    mine = seen
    mine.append(x)
def eight(x, found=[]):
    found.append(x)
def nine(x):
    return sorted(x, key=len, out=table)
functions = (one, two, A().three, four, five, B().six, seven, eight, nine)
print([" ".join(effects_of(g).changed) for g in functions])
"""
