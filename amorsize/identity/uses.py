"""What a function uses of modules and classes: the values a worker must share with its caller.

A worker that imports a module has the values its source gives. The caller may have set other values
since. The search here finds them: it goes from the function through closures, defaults, globals,
attributes and containers to every named value of a module or class on the way.

The owner of a module decides how far the search goes:

- the user: every name the code may look up; where code computes names (``getattr``,
  ``globals()``), also all simple values;
- an installed package: values that are simple, or that hold something of the user's (a function
  that replaces another, a list of hooks); and plain data that is named by the user's own code, or
  by a function that this code names. Code is followed for ``names.MOST_LIBRARY_FUNCTIONS``
  functions, the nearest first;
- Python: nothing.

``walk.py`` walks for a digest, and samples. Here nothing may be left out, but nothing is encoded.
"""

from __future__ import annotations

import functools
import operator
import types
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from itertools import chain

from ..tuples import NamedTuple
from .atoms import atom_of
from .frontier import Frontier
from .looking import ABSENT, bases, cells_of, fetch, module_of, mro, namespace, slots
from .names import Names, Owner
from .owners import LIBRARY, PYTHON
from .settings import CACHE, PLAIN, SEQUENCES, names_of, whose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Uses", "uses"]


class Uses(NamedTuple):
    """What a function uses of modules, classes and functions.

    Attributes:
        values: (owner, attribute, value) of everything reached by name; the value is ``ABSENT``
            where the owner has no such attribute.
        codes: digests of the code of each function of a module, by (module, qualified name).
        caches: (module, qualified name) of functions that keep results (``functools.lru_cache``).
        whole: False if there were more objects than a search takes (``frontier.MOST_OBJECTS``).
        texts: short texts in the user's code, or reached by it.
        variables: context variables that it reaches.
        libraries: names of the installed modules that hold what it reaches, the nearest first.
    """

    values: tuple[tuple[Owner, str, object], ...]
    codes: dict[tuple[str, str], frozenset[bytes]]
    caches: frozenset[tuple[str, str]]
    whole: bool
    texts: frozenset[str] = frozenset()
    variables: frozenset[ContextVar[Any]] = frozenset()
    libraries: tuple[str, ...] = ()

    def places(self) -> dict[int, tuple[str, str]]:
        """Return (module, name) of the values in modules that have an identity, by their ids."""
        return {
            id(value): (owner, name)
            for owner, name, value in self.values
            if type(owner) is str and owner != "__main__" and _has_identity(value)
        }


def uses(func: object) -> Uses:
    """Return what ``func`` uses, transitively, of modules and classes.

    Args:
        func: any callable; or a tuple of callables and the values to call them with.

    >>> uses(len).values
    ()
    """
    reach = _Reach()
    reach.follow(func)
    names, frontier = reach.names, reach.frontier
    values, caches = tuple(names.values.values()), frozenset(reach.caches)
    texts, variables = frozenset(frontier.texts), frozenset(reach.variables)
    libraries = tuple(names.libraries)
    return Uses(values, names.codes, caches, frontier.whole, texts, variables, libraries)


class _Reach:
    """One search through everything that a function reaches, nearest first."""

    def __init__(self) -> None:
        self.caches: set[tuple[str, str]] = set()
        self.variables: set[ContextVar[Any]] = set()
        self.frontier = Frontier()
        self.names = Names(self.frontier)
        self._meet, self._meet_all = self.frontier.meet, self.frontier.meet_all

    def follow(self, value: Any) -> None:
        """Go from a value to everything that it reaches."""
        self._meet(value)
        while not self.frontier.is_empty() or self.names.ask():
            if self.frontier.is_empty():
                continue
            if not self.frontier.left:
                self.frontier.whole = False
                return
            value = self.frontier.take()
            try:
                _handler(type(value))(self, value)
            except Exception:  # noqa: BLE001 - objects of the user's may raise when looked at
                continue

    # Functions and modules ------------------------------------------------------------------

    def function(self, function: types.FunctionType) -> None:
        """Go through code, closure, defaults and the globals the code names."""
        for _, content in cells_of(function):
            self._meet(content)
        for part in chain(vars(function).values(), function.__defaults__ or ()):
            self._meet(part)
        for part in (function.__kwdefaults__ or {}).values():
            self._meet(part)
        self.names.function(function)

    def method(self, method: types.MethodType) -> None:
        """Go on to what a bound method is made of."""
        self._meet(method.__func__)
        self._meet(method.__self__)

    def builtin(self, function: Any) -> None:
        """Go on to the object of a method in C."""
        self.names.asking(function.__name__)
        self._meet(function.__self__)

    def wrapped(self, value: Any) -> None:
        """Go on to what a descriptor, cache or partial wraps."""
        if type(value) is CACHE:
            self.caches.add((str(value.__module__), str(value.__qualname__)))
        for name in ("__func__", "__wrapped__", "fget", "fset", "fdel", "func", "args", "keywords"):
            self._meet(fetch(value, name))
        self._attributes(value)

    def variable(self, value: Any) -> None:
        """Note a context variable."""
        self.variables.add(value)

    def getter(self, value: Any) -> None:
        """Note the names that an ``operator.attrgetter`` looks up."""
        for path in value.__reduce__()[1]:
            self.names.add(path.split("."))

    def module(self, module: types.ModuleType) -> None:
        """Note a module."""
        self.names.add_module(module)

    # Classes, instances and containers ------------------------------------------------------

    def cls(self, cls: type) -> None:
        """Go through a class's bases and attributes."""
        of = whose(module_of(cls))
        if of == PYTHON:
            return
        for base in (*bases(cls), type(cls)):
            self._meet(base)
        if of == LIBRARY:
            self.names.add_class(cls)
            return
        names = namespace(cls)
        for name, value in list(names.items()):
            if name not in _CLASS_NOISE:
                self.names.record(names, cls, name, value)
                self._meet(value)

    def instance(self, value: Any) -> None:
        """Go on to the type and the attributes of an object."""
        self._meet(type(value))
        self._attributes(value)

    def _attributes(self, value: Any) -> None:
        self._meet_all(names_of(value).values())
        for _, content in slots(value):
            self._meet(content)

    def mapping(self, value: Any) -> None:
        """Go on to keys and values."""
        of_dict = issubclass(type(value), dict)
        self._meet_all(dict.keys(value) if of_dict else value.keys())
        self._meet_all(dict.values(value) if of_dict else value.values())
        if of_dict and type(value) is not dict:
            self.instance_beside(value)

    def sequence(self, value: Any) -> None:
        """Go on to the items, and to the attributes of an instance of a subclass."""
        if type(value) in PLAIN:
            self._meet_all(value)
            return
        base: Any = next(base for base in mro(type(value)) if base in SEQUENCES)
        self._meet_all([*base.__iter__(value)])  # not by overridden methods
        self.instance_beside(value)

    def instance_beside(self, value: Any) -> None:
        """Go on to the type and the attributes of a container."""
        self._meet(type(value))
        self._meet_all(names_of(value).values())


def _has_identity(value: Any) -> bool:
    """Return whether a copy of a value would be another object.

    Functions, modules and classes are not copied: they travel by name.
    """
    kind = type(value)
    by_name = kind in (types.FunctionType, types.ModuleType) or issubclass(kind, type)
    shared = kind in (tuple, frozenset) and not value
    return value is not ABSENT and not (by_name or shared or atom_of(kind) is not None)


# Names that every class has, or whose values an import gives.
_CLASS_NOISE = frozenset(
    {
        "__annotations__",
        "__dict__",
        "__doc__",
        "__module__",
        "__qualname__",
        "__slotnames__",
        "__weakref__",
        "_abc_impl",
    }
)

_HANDLERS: dict[Any, Callable[[_Reach, Any], None]] = {
    types.FunctionType: _Reach.function,
    types.BuiltinFunctionType: _Reach.builtin,
    types.MethodType: _Reach.method,
    types.ModuleType: _Reach.module,
    operator.attrgetter: _Reach.getter,
    ContextVar: _Reach.variable,
    functools.partial: _Reach.wrapped,
    functools.partialmethod: _Reach.wrapped,
    functools.cached_property: _Reach.wrapped,
    CACHE: _Reach.wrapped,
    staticmethod: _Reach.wrapped,
    classmethod: _Reach.wrapped,
    property: _Reach.wrapped,
    type: _Reach.cls,
    types.MappingProxyType: _Reach.mapping,
    dict: _Reach.mapping,
    tuple: _Reach.sequence,
    list: _Reach.sequence,
    set: _Reach.sequence,
    frozenset: _Reach.sequence,
    deque: _Reach.sequence,
}
# By id: a class may refuse to be hashed.
_HANDLERS_BY_ID = {id(kind): handler for kind, handler in _HANDLERS.items()}


def _handler(kind: type) -> Callable[[_Reach, Any], None]:
    """Return the handler for objects of a type: that of its nearest known base."""
    found = (_HANDLERS_BY_ID.get(id(base)) for base in mro(kind))
    return next(filter(None, found), _Reach.instance)
