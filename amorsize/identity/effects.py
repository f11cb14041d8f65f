"""Find what a function changes in its surroundings, as far as its bytecode shows.

Worker processes lose such changes: ``def f(x): seen.append(x)`` and ``global count`` change the
worker's copy. This module reads the code of the function and of the helpers it names, and runs none
of it. It looks for

- stores into globals and closures;
- stores into the objects that these hold, and calls of methods that change these objects;
- functions such as ``heapq.heappush`` and ``setattr`` that change their first argument;
- captured random generators: each worker draws the same numbers from its copy.

A local name that is assigned once stands for the value it gets, and so does a default. The module
is used only for the report of a run whose items ran in worker processes: it takes about 1 ms.
"""

from __future__ import annotations

import builtins
import functools
import sys
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from ..tuples import NamedTuple
from ..versions import global_of
from .instructions import Instructions, Line, codes_in, is_index
from .owners import is_users
from .walk import ABSENT, content_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Effects", "effects_of"]

# Stores that change an object, and how many values say where in it; since 3.12 for slices.
_KEYS = {"ATTR": 0, "SUBSCR": 1, "SLICE": 2}

# Functions to look into; a report on more would be too long to read.
MOST_FUNCTIONS = 64

# Methods that change a container; in a user's class these names count as well.
CHANGING = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop",
     "popitem", "popleft", "remove", "reverse", "setdefault", "sort", "update"}
)  # fmt: skip
_CONTAINERS = (list, dict, set, bytearray, deque)
# Changing methods of other types, by (module, name) of the type.
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
    """Return whether a generator is the global one behind a library's own functions.

    Each worker seeds these generators anew.
    """
    own = (("random", "_inst"), ("numpy.random.mtrand", "_rand"))
    modules = ((sys.modules.get(module), name) for module, name in own)
    return any(module is not None and vars(module).get(name) is value for module, name in modules)


class Effects(NamedTuple):
    """Names of what a function changes or draws from, as written in its code.

    Attributes:
        stored: globals and variables of enclosing functions that it assigns.
        changed: what it changes by a method, an index or an attribute.
        drawn: random generators it has captured.
    """

    stored: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()


def effects_of(func: Callable[..., Any]) -> Effects:
    """Return what ``func``, and the user's functions that it names, change or draw from.

    Args:
        func: any callable.

    >>> seen = []
    >>> def note(x):
    ...     seen.append(x)
    >>> note.__module__ = "__main__"  # whose functions are the user's
    >>> effects_of(note).changed
    ('seen',)
    """
    found: tuple[dict[str, None], ...] = ({}, {}, {})  # dictionaries keep the order of finding
    with suppress(Exception):  # the bytecode of a later Python may differ
        _look_through(func, _Found(*found))
    return Effects(*map(tuple, found))


class _Found(NamedTuple):
    stored: dict[str, None]
    changed: dict[str, None]
    drawn: dict[str, None]


def _look_through(func: Callable[..., Any], found: _Found) -> None:
    """Find the effects of a function and of the functions it names."""
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
            for code in codes_in(function.__code__):
                _Scan(code, reached, found, bound if code is function.__code__ else {}).run()
            todo.extend(reached.called)


def _functions_in(value: Any) -> Iterator[tuple[types.FunctionType, dict[str, Any]]]:
    """Yield the user's functions in a callable, each with the values its arguments are bound to."""
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


class _Reached:
    """What the names in a function's code stand for.

    Args:
        function: the function.

    Attributes:
        called: functions and methods found so far.
    """

    def __init__(self, function: types.FunctionType) -> None:
        self.globals = function.__globals__
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        self._cells = {name: content_of(cell) for name, cell in cells}
        self.called: list[Any] = []

    def load(self, line: Line) -> Any:
        """Return the value an instruction loads if it outlives the call, else ``ABSENT``."""
        if line.kind in ("LOAD_GLOBAL", "LOAD_NAME"):
            inbuilt = vars(builtins).get(line.name, ABSENT)
            return self._note(global_of(self.globals, line.name, inbuilt))
        if line.kind == "LOAD_DEREF":
            return self._note(self._cells.get(line.name, ABSENT))
        return ABSENT

    def attribute(self, value: Any, name: str) -> Any:
        """Return the value of an attribute; ``ABSENT`` where code might have to run for it."""
        if name == "__class__":
            return type(value)
        found = _state(value).get(name, ABSENT)
        method = vars(type(value)).get(name)
        if found is ABSENT and type(method) is types.FunctionType:
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
        found: collects the names.
        bound: values that its arguments are bound to before the call.
    """

    def __init__(
        self, code: types.CodeType, reached: _Reached, found: _Found, bound: dict[str, Any]
    ) -> None:
        self._code = Instructions(code)
        self._lines = self._code.lines
        self._consts = code.co_consts
        self._reached = reached
        self._found = found
        self._stores = Counter(line.name for line in self._lines if line.kind == "STORE_FAST")
        # Local names with a single value, each with (expression, value).
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
            elif verb == "LOAD" or is_index(line):
                self._meet(place)
            elif line.kind in ("KW_NAMES", "CALL_KW"):
                self._keywords(place, line)

    def _store(self, place: int, line: Line, what: str) -> None:
        """Note the target of a store."""
        if what == "GLOBAL" or (what == "DEREF" and self._reached.is_free(line.name)):
            self._found.stored[line.name] = None
        elif what in _KEYS:
            name, _ = self._origin(self._code.stored_into(place, keys=_KEYS[what]))
            if name:
                self._found.changed[name + (f".{line.name}" if what == "ATTR" else "")] = None

    def _call(self, place: int) -> None:
        """Note a changing method of a container or of a user's object."""
        name, value = self._origin(place - 1)
        kind, method = type(value), self._lines[place].name
        if (kind.__module__, kind.__name__, method) == ("numpy", "ufunc", "at"):
            self._change(self._code.first_argument(place))
        elif not issubclass(kind, (types.ModuleType, types.FunctionType, type)):
            if name and value is not ABSENT and _changes(kind, method):
                self._found.changed[name] = None
            elif type(self._origin(place)[1]) not in _METHODS:  # else the owner is already noted
                self._meet(place)
        else:
            self._meet(place)

    def _keywords(self, place: int, line: Line) -> None:
        """Note the array that a call writes into by its ``out`` argument."""
        if line.kind == "KW_NAMES":  # until 3.12
            names, end = self._consts[line.arg or 0], place - 1
        else:
            names, end = self._lines[place - 1].name, place - 2
        for name in reversed(names):
            if name == "out":
                self._change(end)
            end = self._code.start(end) - 1

    def _change(self, end: int) -> None:
        """Note a change of the object that the expression ending at a place stands for."""
        name, value = self._origin(end)
        if name and value is not ABSENT:
            self._found.changed[name] = None

    def _meet(self, place: int) -> None:
        """Note what the use of the value loaded at a place draws from or changes."""
        name, value = self._origin(place)
        self._draw(name, value)
        if _is_changer(value):
            self._change(self._code.first_argument(place))
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
        """Return (name, value) of the expression that ends at a place.

        The name is "" for a value that does not outlive the call. The value is ``ABSENT`` where
        the code would have to run to give it.
        """
        if place < 0:
            return "", ABSENT
        line = self._lines[place]
        if line.kind in ("LOAD_ATTR", "LOAD_METHOD"):
            name, value = self._origin(place - 1)
            found = self._reached.attribute(value, line.name) if name else ABSENT
            return (f"{name}.{line.name}" if name else ""), found
        if is_index(line):
            return self._item(place)
        if line.kind == "CALL":
            return self._given_back(place)
        if line.kind.startswith("LOAD_FAST"):
            return self._locals.get(line.name, ("", ABSENT))
        value = self._reached.load(line)
        return ("", ABSENT) if value is ABSENT else (str(line.name), value)

    def _item(self, place: int) -> tuple[str, Any]:
        """Return (name, value) of an item; the name is that of its container."""
        name, value = self._origin(self._code.container(place))
        key = self._lines[place - 1]
        if type(value) is dict and key.kind == "LOAD_CONST" and type(key.name) in (str, int):
            return name, value.get(key.name, [])
        return name, []  # an unknown item is taken for a container

    def _given_back(self, place: int) -> tuple[str, Any]:
        """Return (name, value) of a call of ``globals``, ``type`` or ``vars``."""
        first = self._code.start(place)
        if self._lines[first].kind == "PUSH_NULL":
            first += 1
        asked = self._reached.load(self._lines[first])
        if asked is globals:
            return "globals()", self._reached.globals
        if asked is not type and asked is not vars:
            return "", ABSENT
        name, value = self._origin(self._code.first_argument(first))
        if not name or value is ABSENT:
            return "", ABSENT
        if asked is type:
            return f"type({name})", type(value)
        return f"vars({name})", _state(value)
