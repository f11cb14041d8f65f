"""What a function does to what it reaches, as far as its bytecode shows: lost where workers run it.

``def f(x): seen.append(x)`` and ``global count`` change a worker's copy. This reads the code of the
function and of the helpers it names, and runs none of it: it looks for stores into globals and
closures, for stores into and changing methods of what they hold, for functions such as
``heapq.heappush`` and ``setattr`` that change their first argument, and for random generators that
are captured (each worker draws the same numbers from its copy). A local name that is assigned once,
and a default, stand for what they were given. It is asked only when a report is made
of a run whose items ran in worker processes: it takes about 1 ms.
"""

from __future__ import annotations

import builtins
import dis
import functools
import sys
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from ..tuples import NamedTuple
from .owners import is_users
from .walk import MISSING, content_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Effects", "effects_of"]

# Helpers to look into: more than people would want to read of.
MOST_FUNCTIONS = 64

# Methods that change a container, or what a user's class has named as they are.
CHANGING = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop",
     "popitem", "popleft", "remove", "reverse", "setdefault", "sort", "update"}
)  # fmt: skip
_CONTAINERS = (list, dict, set, bytearray, deque)
# And those of what is neither, by (module, name) of the type.
_PUT = frozenset({"get", "get_nowait", "put", "put_nowait"})
_CHANGING_OF = {
    ("array", "array"): CHANGING,
    ("numpy", "ndarray"): frozenset({"fill", "itemset", "partition", "put", "resize", "sort"}),
    ("queue", "Queue"): _PUT,
    ("_queue", "SimpleQueue"): _PUT,
}
# Functions that change their first argument, by (module, name).
_CHANGERS = {
    *(("_heapq", f"heap{what}") for what in ("ify", "pop", "push", "pushpop", "replace")),
    *(("_bisect", f"insort_{side}") for side in ("left", "right")),
    *(("_operator", name) for name in ("delitem", "iadd", "iconcat", "setitem")),
    *(("builtins", name) for name in ("delattr", "next", "setattr")),
}
_GENERATORS = {
    ("random", "Random"),
    ("numpy.random._generator", "Generator"),
    ("numpy.random.mtrand", "RandomState"),
    ("torch._C", "Generator"),
    ("torch", "Generator"),
}


_METHODS = (types.MethodType, types.BuiltinFunctionType)
_CACHED = type(functools.lru_cache(len))


def _changes(kind: type, name: str) -> bool:
    """Return whether a method of a type changes the instance."""
    if issubclass(kind, _CONTAINERS) or is_users(kind.__module__):
        return name in CHANGING
    return any(
        name in _CHANGING_OF.get((base.__module__, base.__name__), ()) for base in kind.__mro__
    )


def _is_changer(value: object) -> bool:
    """Return whether a function changes its first argument, such as ``list.append``."""
    if type(value) is types.MethodDescriptorType:
        return _changes(value.__objclass__, value.__name__)
    is_known = type(value) is types.BuiltinFunctionType
    return is_known and (value.__module__, value.__name__) in _CHANGERS  # type: ignore[attr-defined]


def _is_changing_method(value: object) -> bool:
    """Return whether a value is a bound method such as ``seen.append``."""
    is_method = type(value) is types.BuiltinFunctionType and value.__self__ is not None
    return is_method and _changes(type(value.__self__), value.__name__)  # type: ignore[attr-defined]


def _is_librarys(value: object) -> bool:
    """Return whether a generator is the one behind a library's own functions.

    Those are seeded anew in each worker.
    """
    own = (("random", "_inst"), ("numpy.random.mtrand", "_rand"))
    modules = ((sys.modules.get(module), name) for module, name in own)
    return any(module is not None and vars(module).get(name) is value for module, name in modules)


class Effects(NamedTuple):
    """Names of what a function changes or draws from, as its code has them.

    Attributes:
        stored: globals and variables of enclosing functions that it assigns.
        changed: what it changes by a method, an index or an attribute.
        drawn: random generators it has captured.
    """

    stored: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()


def effects_of(func: Callable[..., Any]) -> Effects:
    """Return what ``func``, and the functions of its user that it names, do to what they reach.

    Args:
        func: any callable.

    >>> seen = []
    >>> def note(x):
    ...     seen.append(x)
    >>> note.__module__ = "__main__"  # whose functions are the user's
    >>> effects_of(note).changed
    ('seen',)
    """
    found: tuple[dict[str, None], ...] = ({}, {}, {})  # for the order of finding
    with suppress(Exception):  # a Python to come may have bytecode that says other things
        _look_through(func, _Found(*found))
    return Effects(*map(tuple, found))


class _Found(NamedTuple):
    stored: dict[str, None]
    changed: dict[str, None]
    drawn: dict[str, None]


def _look_through(func: Callable[..., Any], found: _Found) -> None:
    """Find what a function does, and the functions it names do."""
    todo: deque[Any] = deque([func])
    known: set[types.CodeType] = set()
    inner: Any = func
    if type(func) is partial:
        inner = inner.func
    if _is_changing_method(inner):
        found.changed[f"the {type(inner.__self__).__name__} it belongs to"] = None
    while todo and len(known) < MOST_FUNCTIONS:
        for function, bound in _functions_in(todo.popleft()):
            if function.__code__ in known:
                continue
            known.add(function.__code__)
            reached = _Reached(function)
            for code in _codes(function.__code__):
                _Scan(code, reached, found, bound if code is function.__code__ else {}).run()
            todo.extend(reached.called)


def _functions_in(value: Any) -> Iterator[tuple[types.FunctionType, dict[str, Any]]]:
    """Yield the user's functions a callable consists of, with what their arguments are bound to."""
    args: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    while type(value) in (partial, _CACHED, types.MethodType):
        if type(value) is partial:
            args, keywords = (*value.args, *args), {**value.keywords, **keywords}
            value = value.func
        elif type(value) is _CACHED:
            value = value.__wrapped__
        else:
            value, args = value.__func__, (value.__self__, *args)
    if type(value) is not types.FunctionType and is_users(type(value).__module__):
        value, args = vars(type(value)).get("__call__"), (value, *args)
    while type(value) is types.FunctionType and is_users(value.__module__):
        yield value, {**_defaults(value), **keywords, **_positional(value, args)}
        value = vars(value).get("__wrapped__")


def _defaults(function: types.FunctionType) -> dict[str, Any]:
    defaults = function.__defaults__ or ()
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    first = len(names) - len(defaults)
    return {**dict(zip(names[first:], defaults, strict=True)), **(function.__kwdefaults__ or {})}


def _positional(function: types.FunctionType, args: tuple[Any, ...]) -> dict[str, Any]:
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return dict(zip(names, args, strict=False))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and those of the functions defined in it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _codes(const)


class _Line(NamedTuple):
    """An instruction.

    Attributes:
        kind: its name, of a pair of loads or stores that of each.
        arg: its argument as a number.
        name: what that stands for.
        given: how many values it leaves on the stack, less those it takes.
    """

    kind: str
    arg: int | None
    name: Any
    given: int


def _lines_of(code: types.CodeType) -> Iterator[_Line]:
    """Yield the instructions that do something; those of two loads or stores as two."""
    for line in dis.get_instructions(code):
        if line.opname in ("CACHE", "NOP", "RESUME", "EXTENDED_ARG"):
            continue
        if isinstance(line.argval, tuple) and line.opname.count("_FAST") == 2:  # 3.13 and later
            verbs = (line.opname.partition("_")[0], "LOAD" if "_LOAD" in line.opname else "STORE")
            for verb, name in zip(verbs, line.argval, strict=True):
                yield _Line(f"{verb}_FAST", None, name, 1 if verb == "LOAD" else -1)
            continue
        given = dis.stack_effect(line.opcode, line.arg, jump=False)
        yield _Line(line.opname, line.arg, line.argval, given)


class _Reached:
    """What the names in a function's code stand for.

    Args:
        function: the function.

    Attributes:
        called: functions found on the way.
    """

    def __init__(self, function: types.FunctionType) -> None:
        self.globals = function.__globals__
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        self._cells = {name: content_of(cell) for name, cell in cells}
        self.called: list[Any] = []

    def load(self, line: _Line) -> Any:
        """Return what an instruction loads that outlives the call, ``MISSING`` for the rest."""
        if line.kind in ("LOAD_GLOBAL", "LOAD_NAME"):
            inbuilt = vars(builtins).get(line.name, MISSING)
            return self._note(self.globals.get(line.name, inbuilt))
        if line.kind == "LOAD_DEREF":
            return self._note(self._cells.get(line.name, MISSING))
        return MISSING

    def attribute(self, value: Any, name: str) -> Any:
        """Return what an attribute holds, without running code: ``MISSING`` where it might."""
        if name == "__class__":
            return type(value)
        found = _state(value).get(name, MISSING)
        method = vars(type(value)).get(name)
        if found is MISSING and type(method) is types.FunctionType:
            found = types.MethodType(method, value)
        return self._note(found)

    def is_free(self, name: str) -> bool:
        """Return whether a name is a variable of an enclosing function."""
        return name in self._cells

    def _note(self, value: Any) -> Any:
        if type(value) in (types.FunctionType, types.MethodType, partial, _CACHED):
            self.called.append(value)
        return value


def _state(value: Any) -> Any:
    """Return the dictionary of an instance, module or class, empty where it has none."""
    try:
        state = object.__getattribute__(value, "__dict__")
    except Exception:  # noqa: BLE001 - an object may raise anything when looked at
        return {}
    return state if type(state) in (dict, types.MappingProxyType) else {}


class _Scan:
    """One pass over the instructions of a code object.

    Args:
        code: the code.
        reached: what its names stand for.
        found: takes the names.
        bound: what its arguments are bound to before it is called.
    """

    def __init__(
        self, code: types.CodeType, reached: _Reached, found: _Found, bound: dict[str, Any]
    ) -> None:
        self._lines = list(_lines_of(code))
        self._consts = code.co_consts
        self._reached = reached
        self._found = found
        self._stores = Counter(line.name for line in self._lines if line.kind == "STORE_FAST")
        # What local names stand for, where that is one thing only: (its name, value).
        self._locals = {n: (n, value) for n, value in bound.items() if not self._stores[n]}

    def run(self) -> None:
        for place, line in enumerate(self._lines):
            verb, _, what = line.kind.partition("_")
            if line.kind == "STORE_FAST":
                if self._stores[line.name] == 1:
                    self._locals[line.name] = self._origin(place - 1)
            elif verb in ("STORE", "DELETE"):
                self._store(place, line, what)
            elif line.kind in ("LOAD_METHOD", "LOAD_ATTR"):
                self._call(place)
            elif verb == "LOAD" or self._is_index(line):
                self._meet(place)
            elif line.kind in ("KW_NAMES", "CALL_KW"):
                self._keywords(place, line)

    def _store(self, place: int, line: _Line, what: str) -> None:
        """Note what a store goes into."""
        if what == "GLOBAL" or (what == "DEREF" and self._reached.is_free(line.name)):
            self._found.stored[line.name] = None
        elif what in ("ATTR", "SUBSCR"):
            name, _ = self._origin(self._stored_into(place, key=what == "SUBSCR"))
            if name:
                self._found.changed[name + (f".{line.name}" if what == "ATTR" else "")] = None

    def _call(self, place: int) -> None:
        """Note a changing method of a container or of a user's object."""
        name, value = self._origin(place - 1)
        kind, method = type(value), self._lines[place].name
        if (kind.__module__, kind.__name__, method) == ("numpy", "ufunc", "at"):
            self._change(self._first_argument(place))
        elif not issubclass(kind, (types.ModuleType, types.FunctionType, type)):
            if name and value is not MISSING and _changes(kind, method):
                self._found.changed[name] = None
            elif type(self._origin(place)[1]) not in _METHODS:  # else its owner was met before
                self._meet(place)
        else:
            self._meet(place)

    def _keywords(self, place: int, line: _Line) -> None:
        """Note the array that a call is told to write into."""
        if line.kind == "KW_NAMES":  # until 3.12
            names, end = self._consts[line.arg or 0], place - 1
        else:
            names, end = self._lines[place - 1].name, place - 2
        for name in reversed(names):
            if name == "out":
                self._change(end)
            end = self._start(end) - 1

    def _change(self, end: int) -> None:
        """Note that what the expression that ends at a place stands for is changed."""
        name, value = self._origin(end)
        if name and value is not MISSING:
            self._found.changed[name] = None

    def _first_argument(self, place: int) -> int:
        """Return where the first argument ends of the call of what a place has loaded; -1 for none.

        From there on more values lie on the stack, until the call takes them all.
        """
        end, given = -1, 0
        for later in range(place + 1, len(self._lines)):
            line = self._lines[later]
            if line.kind == "PUSH_NULL" and given == 0:
                continue
            given += line.given
            if given < 1:
                break
            if given == 1:
                end = later
        return end

    def _meet(self, place: int) -> None:
        """Note what is drawn from, or changed, by the use of what a place has loaded."""
        name, value = self._origin(place)
        self._draw(name, value)
        if _is_changer(value):
            self._change(self._first_argument(place))
        elif _is_changing_method(value):
            self._found.changed[name] = None

    def _draw(self, name: str, value: Any) -> None:
        """Note a captured generator, or a method of one."""
        if type(value) in _METHODS:
            value = value.__self__
        if _is_librarys(value):
            return
        if any((base.__module__, base.__name__) in _GENERATORS for base in type(value).__mro__):
            self._found.drawn[name] = None

    def _origin(self, place: int) -> tuple[str, Any]:
        """Return (name, value) of the expression that ends at a place; "" for what dies with it.

        The value is ``MISSING`` where only running the code could tell.
        """
        if place < 0:
            return "", MISSING
        line = self._lines[place]
        if line.kind in ("LOAD_ATTR", "LOAD_METHOD"):
            name, value = self._origin(place - 1)
            found = self._reached.attribute(value, line.name) if name else MISSING
            return (f"{name}.{line.name}" if name else ""), found
        if self._is_index(line):
            return self._item(place)
        if line.kind == "CALL":
            return self._given_back(place)
        if line.kind.startswith("LOAD_FAST"):
            return self._locals.get(line.name, ("", MISSING))
        value = self._reached.load(line)
        return ("", MISSING) if value is MISSING else (str(line.name), value)

    def _item(self, place: int) -> tuple[str, Any]:
        """Return (name, value) of an item; the name is that of what it is in."""
        name, value = self._origin(self._start(place - 1) - 1)
        key = self._lines[place - 1]
        if type(value) is dict and key.kind == "LOAD_CONST" and type(key.name) in (str, int):
            return name, value.get(key.name, [])
        return name, []  # what it holds is taken for a container

    def _given_back(self, place: int) -> tuple[str, Any]:
        """Return (name, value) of a call that gives something that was there before."""
        first = self._start(place)
        if self._lines[first].kind == "PUSH_NULL":
            first += 1
        asked = self._reached.load(self._lines[first])
        if asked is globals:
            return "globals()", self._reached.globals
        if asked is not type and asked is not vars:
            return "", MISSING
        name, value = self._origin(self._first_argument(first))
        if not name or value is MISSING:
            return "", MISSING
        if asked is type:
            return f"type({name})", type(value)
        return f"vars({name})", _state(value)

    def _is_index(self, line: _Line) -> bool:
        """Return whether an instruction takes an item out of a container."""
        return line.kind == "BINARY_SUBSCR" or (line.kind == "BINARY_OP" and line.arg == _SUBSCRIPT)

    def _stored_into(self, place: int, *, key: bool) -> int:
        """Return where the expression ends that a store goes into.

        ``a[k] += 1`` loads object and key once, copies them, and swaps them up at the end.
        """
        before, depth = place - 1, 2 if key else 1
        if before >= 0 and self._lines[before].kind == "SWAP":
            copies = (i for i in range(before, -1, -1) if self._is_copy(i, depth))
            before = next(copies, 0) - depth
        return self._start(before) - 1 if key else before

    def _is_copy(self, place: int, depth: int) -> bool:
        """Return whether the copies of an augmented assignment end here: one, or two of them."""
        lines = self._lines[max(0, place - depth + 1) : place + 1]
        return len(lines) == depth and all((x.kind, x.arg) == ("COPY", depth) for x in lines)

    def _start(self, place: int) -> int:
        """Return where the expression begins that ends at a place: where it has given one value."""
        given = 0
        while place >= 0:
            given += self._lines[place].given
            if given == 1:
                return place
            place -= 1
        return 0


_SUBSCRIPT = 26  # from 3.14 on an index is a binary operator, NB_SUBSCR
