"""What a function uses of modules and classes: the values a worker must share with its caller.

A worker that imports a module has the values its source gives. The caller may have set other values
since. The search here finds them: it goes from the function through closures, defaults, globals,
attributes and containers to every named value of a module or class on the way.

The owner of a module decides how far the search goes:

- the user: every name the code may look up; where code computes names (``getattr``,
  ``globals()``), also all simple values;
- an installed package: values that are simple, or that hold something of the user's (a function
  that replaces another, a list of hooks); and plain data that is named by the user's own code, or
  by a function that this code names. Code is followed for ``MOST_LIBRARY_FUNCTIONS`` functions,
  the nearest first;
- Python: nothing.

``walk.py`` walks for a digest, and samples. Here nothing may be left out, but nothing is encoded.
"""

from __future__ import annotations

import builtins
import functools
import operator
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import accumulate, chain
from typing import cast

from ..tuples import NamedTuple
from .atoms import ATOMS, atom_of
from .codes import describe
from .looking import (
    ABSENT,
    bases,
    cells_of,
    fetch,
    module_of,
    mro,
    namespace,
    namespace_of,
    slots,
)
from .owners import LIBRARY, PYTHON, USER
from .settings import (
    CACHE,
    CALLABLE,
    PLAIN,
    SEQUENCES,
    holds_users_own,
    is_data,
    is_simple,
    is_users_own,
    names_of,
    whose,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Owner", "Uses", "uses"]

# Objects, atoms not counted: 20,000 take 15 ms (two cores, November 2026), less than one worker.
MOST_OBJECTS = 20_000
# A function that uses pandas reaches thousands. 150 take 5 to 6 ms of each call with fresh workers,
# 300 took 7 to 16 ms (two cores busy with other work, November 2026).
MOST_LIBRARY_FUNCTIONS = 150
# Items at each end, and in strides, of a container with more items than the limit leaves room for.
MOST_SAMPLED = 64
# Characters; a longer text is not a name.
MOST_NAME = 100


# Names that code uses to look up other names by text: in its own module and the modules it reaches
# (``_COMPUTED``), or in any module (``_ANYWHERE``).
_COMPUTED = frozenset({"getattr", "attrgetter", "vars", "__dict__", "globals", "locals", "dir",
                       "__globals__", "f_globals", "query", "get_type_hints"})  # fmt: skip
_ANYWHERE = frozenset({"import_module", "__import__", "modules", "eval", "exec", "get_attr",
                       "resolve_name", "import_string", "locate"})  # fmt: skip

Owner = str | type | types.FunctionType  # a module's name, a class, a function


class Uses(NamedTuple):
    """What a function uses of modules, classes and functions.

    Attributes:
        values: (owner, attribute, value) of everything reached by name; the value is ``ABSENT``
            where the owner has no such attribute.
        codes: digests of the code of each function of a module, by (module, qualified name).
        caches: (module, qualified name) of functions that keep results (``functools.lru_cache``).
        whole: False if there were more objects than ``MOST_OBJECTS``.
        texts: short texts in the user's code, or reached by it.
        variables: context variables that it reaches.
    """

    values: tuple[tuple[Owner, str, object], ...]
    codes: dict[tuple[str, str], frozenset[bytes]]
    caches: frozenset[tuple[str, str]]
    whole: bool
    texts: frozenset[str] = frozenset()
    variables: frozenset[ContextVar[Any]] = frozenset()

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
    values, caches = tuple(reach.values.values()), frozenset(reach.caches)
    texts, variables = frozenset(reach.texts), frozenset(reach.variables)
    return Uses(values, reach.codes, caches, reach.whole, texts, variables)


class _Reach:
    """One search through everything that a function reaches, nearest first."""

    def __init__(self) -> None:
        self.values: dict[tuple[int, str], tuple[Owner, str, object]] = {}
        self.codes: dict[tuple[str, str], frozenset[bytes]] = {}
        self.caches: set[tuple[str, str]] = set()
        self.whole = True
        self.texts: set[str] = set()
        self.variables: set[ContextVar[Any]] = set()
        self.left = MOST_OBJECTS
        self._library_left = MOST_LIBRARY_FUNCTIONS
        self._code: deque[Any] = deque()  # comes first: there may be too much data for the limit
        self._data: deque[Any] = deque()
        self._seen: dict[int, object] = {}  # kept alive, so that no id is reused
        self._names: set[str] = set()  # that the user's code looks up
        self._modules: dict[int, types.ModuleType] = {}
        self._library_names: set[str] = {"__call__", "__init__"}  # that packages' code looks up
        self._classes: dict[int, type] = {}  # of packages
        self._asked: set[tuple[int, str]] = set()  # (module, name)
        self._scanned: set[int] = set()  # modules all of whose simple values were taken

    def follow(self, value: Any) -> None:
        """Go from a value to everything that it reaches."""
        self._meet(value)
        while self._code or self._data or self._ask_modules():
            todo = self._code or self._data
            if not todo:
                continue
            if not self.left:
                self.whole = False
                return
            self.left -= 1
            value = todo.popleft()
            try:
                _handler(type(value))(self, value)
            except Exception:  # noqa: BLE001 - objects of the user's may raise when looked at
                continue

    def _meet(self, value: Any) -> None:
        kind = type(value)
        if kind is str and len(value) <= MOST_NAME:
            self.texts.add(value)
        if atom_of(kind) is not None or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        # By id: a class may refuse to be hashed.
        is_code = id(kind) in _CODE or issubclass(kind, type)
        (self._code if is_code else self._data).append(value)

    def _record(self, namespace: Any, owner: Any, name: str, value: Any) -> None:
        if owner is not None and (value is not ABSENT or name not in vars(builtins)):
            self.values[id(namespace), name] = (owner, name, value)

    def _of_builtins(self, name: str) -> None:
        """Take a name that was added to the builtins, as gettext adds ``_``."""
        value = vars(builtins).get(name, ABSENT)
        if type(value) in (types.FunctionType, types.MethodType) or is_simple(value):
            self._record(vars(builtins), "builtins", name, value)
            self._meet(value)

    # Functions ------------------------------------------------------------------------------

    def function(self, function: types.FunctionType) -> None:
        """Go through code, closure, defaults and the globals the code names."""
        for _, content in cells_of(function):
            self._meet(content)
        for part in chain(vars(function).values(), function.__defaults__ or ()):
            self._meet(part)
        for part in (function.__kwdefaults__ or {}).values():
            self._meet(part)
        self._asking(function.__name__)
        of = whose(function.__module__)
        if of == USER:
            self._of_user(function)
        elif of == LIBRARY and self._library_left > 0:
            self._library_left -= 1
            self._of_library(function)

    def _of_user(self, function: types.FunctionType) -> None:
        described, names = describe(function.__code__), function.__globals__
        owner = _module_of(names)
        for name in described.globals:
            value = names.get(name, ABSENT)
            if value is ABSENT:
                self._of_builtins(name)
            if owner != "__main__":  # its globals travel with the function
                self._record(names, owner, name, value)
            self._meet(value)
        self._names.update(described.names)
        self.texts.update(_texts(function.__code__))
        for name in described.imports:
            self._imported(names, name)
        if not _COMPUTED.isdisjoint(described.names):
            self._names.update(filter(str.isidentifier, _texts(function.__code__)))
            if owner is not None:
                self._modules[id(sys.modules[owner])] = sys.modules[owner]
        self._definition(function, described.digest)

    def _definition(self, function: types.FunctionType, digest: bytes) -> None:
        """Note code, defaults and attributes of a function that travels by name."""
        key = (function.__module__, function.__qualname__)
        if "<" in key[1] or key[0] == "__main__":
            return
        self.codes[key] = self.codes.get(key, frozenset()) | {digest}
        for name in ("__defaults__", "__kwdefaults__"):
            value = getattr(function, name)
            if value is not None:
                self._record(function, function, name, value)
        for name, value in vars(function).items():
            if name != "__wrapped__" and function.__code__ is not _DISPATCHER:
                self._record(function, function, name, value)

    def _of_library(self, function: types.FunctionType) -> None:
        described, names = describe(function.__code__), function.__globals__
        owner = _module_of(names)
        if owner is None:
            return
        self._library_names.update(described.names)
        near = function.__name__ in self._names
        for name in described.globals:
            value = names.get(name, ABSENT)
            self._of_package(names, owner, name, value, near=near)
            if type(value) is types.ModuleType and whose(_name_of(value)) != PYTHON:
                for inner in described.names:
                    held = vars(value).get(inner, ABSENT)
                    self._of_package(vars(value), _module_of(vars(value)), inner, held)

    def _of_package(
        self, names: Any, owner: Owner | None, name: str, value: Any, *, near: bool = False
    ) -> None:
        """Take a named value of an installed package if a worker may lack it."""
        if value is ABSENT:
            return
        other = type(value) is types.BuiltinFunctionType and value.__name__ != name
        asked = (near or name in self._names) and is_data(value, name)
        if other or asked or is_simple(value) or is_users_own(value) or holds_users_own(value):
            self._record(names, owner, name, value)
        if type(value) in CALLABLE or issubclass(type(value), type):
            self._meet(value)

    def _imported(self, names: dict[str, Any], name: str) -> None:
        """Meet a module that code imports when it runs, and the packages it is in."""
        package = str(names.get("__package__") or "")
        packages = ["", *accumulate(package.split("."), "{}.{}".format)]
        parts = list(accumulate(filter(None, name.split(".")), "{}.{}".format)) or [""]
        for full in (f"{one}.{part}".strip(".") for one in packages for part in parts):
            self._meet(sys.modules.get(full))

    def method(self, method: types.MethodType) -> None:
        """Go on to what a bound method is made of."""
        self._meet(method.__func__)
        self._meet(method.__self__)

    def builtin(self, function: Any) -> None:
        """Go on to the object of a method in C."""
        self._asking(function.__name__)
        self._meet(function.__self__)

    def _asking(self, name: str) -> None:
        """Note a function that looks up names by text, whatever name leads to it."""
        if name in _COMPUTED or name in _ANYWHERE:
            self._names.add(name)

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
            self._names.update(path.split("."))

    # Modules --------------------------------------------------------------------------------

    def module(self, module: types.ModuleType) -> None:
        """Note a module whose attributes code may look up; a lazy module has none yet."""
        if _is_loaded(module) and whose(_name_of(module)) != PYTHON:
            self._modules[id(module)] = module
            # A module may make attributes on demand, or have a class of its own.
            self._meet(namespace_of(module).get("__getattr__"))
            if type(module) is not types.ModuleType:
                self._meet(type(module))

    def _ask_modules(self) -> bool:
        """Look up the names used so far in the modules met so far; return whether any is new."""
        if not _ANYWHERE.isdisjoint(self._names):
            for name, module in list(sys.modules.items()):
                if _is_loaded(module) and whose(name) == USER:
                    self._modules[id(module)] = module
        before = len(self._asked) + len(self._scanned)
        self._ask_classes()
        for module in list(self._modules.values()):
            names = namespace_of(module)
            owner = _module_of(names)
            of_user = whose(_name_of(module)) == USER
            for name in self._names:
                if (id(module), name) not in self._asked:
                    self._asked.add((id(module), name))
                    self._attribute(names, owner, name, of_user=of_user)
            if id(module) not in self._scanned and self._computes():
                self._scanned.add(id(module))
                self._scan(names, owner)
        return len(self._asked) + len(self._scanned) > before

    def _ask_classes(self) -> None:
        """Look up the names used so far in the classes of packages met so far."""
        wanted = self._names | self._library_names
        for cls in list(self._classes.values()):
            names = namespace(cls)
            for name in wanted & names.keys():
                if (id(cls), name) not in self._asked and self._library_left > 0:
                    self._asked.add((id(cls), name))
                    self._of_package(names, cls, name, names[name])

    def _computes(self) -> bool:
        return not (_COMPUTED | _ANYWHERE).isdisjoint(self._names)

    def _attribute(self, names: Any, owner: str | None, name: str, *, of_user: bool) -> None:
        value = names.get(name, ABSENT)
        if of_user or value is ABSENT:
            self._record(names, owner, name, value)
            self._meet(value)
        else:
            self._of_package(names, owner, name, value)
            if type(value) is types.ModuleType:
                self._meet(value)

    def _scan(self, names: dict[str, Any], owner: str | None) -> None:
        """Take the values that code may look up by a computed name."""
        for name, value in list(names.items()):
            own = owner == "__main__" and _is_defined_in_main(value)
            if not name.startswith("__") and (own or is_simple(value)):
                self._record(names, owner, name, value)
                self._meet(value)

    # Classes, instances and containers ------------------------------------------------------

    def cls(self, cls: type) -> None:
        """Go through a class's bases and attributes."""
        of = whose(module_of(cls))
        if of == PYTHON:
            return
        for base in (*bases(cls), type(cls)):
            self._meet(base)
        if of == LIBRARY:
            self._classes[id(cls)] = cls
            return
        names = namespace(cls)
        for name, value in list(names.items()):
            if name not in _CLASS_NOISE:
                self._record(names, cls, name, value)
                self._meet(value)

    def instance(self, value: Any) -> None:
        """Go on to the type and the attributes of an object."""
        self._meet(type(value))
        self._attributes(value)

    def _attributes(self, value: Any) -> None:
        self.items(names_of(value).values())
        for _, content in slots(value):
            self._meet(content)

    def mapping(self, value: Any) -> None:
        """Go on to keys and values."""
        of_dict = issubclass(type(value), dict)
        self.items(dict.keys(value) if of_dict else value.keys())
        self.items(dict.values(value) if of_dict else value.values())
        if of_dict and type(value) is not dict:
            self.instance_beside(value)

    def items(self, value: Any) -> None:
        """Go on to the items, unless all are atoms."""
        if set(map(type, value)) <= ATOMS.keys():
            return
        if len(value) > self.left - len(self._data):
            self.whole = False
            items = list(value)
            value = (
                *items[:MOST_SAMPLED],
                *items[:: -(-len(items) // MOST_SAMPLED)],
                *items[-MOST_SAMPLED:],
            )
        for item in value:
            self._meet(item)

    def sequence(self, value: Any) -> None:
        """Go on to the items, and to the attributes of an instance of a subclass."""
        if type(value) in PLAIN:
            self.items(value)
            return
        base: Any = next(base for base in mro(type(value)) if base in SEQUENCES)
        self.items([*base.__iter__(value)])  # not by overridden methods
        self.instance_beside(value)

    def instance_beside(self, value: Any) -> None:
        """Go on to the type and the attributes of a container."""
        self._meet(type(value))
        self.items(names_of(value).values())


def _has_identity(value: Any) -> bool:
    """Return whether a copy of a value would be another object.

    Functions, modules and classes are not copied: they travel by name.
    """
    kind = type(value)
    by_name = kind in (types.FunctionType, types.ModuleType) or issubclass(kind, type)
    shared = kind in (tuple, frozenset) and not value
    return value is not ABSENT and not (by_name or shared or atom_of(kind) is not None)


def _texts(code: types.CodeType) -> Iterator[str]:
    """Yield the short texts in code, and in its nested code: names may be among them."""
    for const in code.co_consts:
        if type(const) is str and len(const) <= MOST_NAME:
            yield const
        elif type(const) is types.CodeType:
            yield from _texts(const)


def _is_loaded(module: object) -> bool:
    """Return whether an object is a module, and not a lazy one."""
    kind = type(module)
    return issubclass(kind, types.ModuleType) and module_of(kind) != "importlib.util"


def _name_of(module: types.ModuleType) -> object:
    return namespace_of(module).get("__name__")


def _is_defined_in_main(value: Any) -> bool:
    if issubclass(type(value), type):
        return module_of(value) == "__main__"
    return type(value) in (types.FunctionType, CACHE) and value.__module__ == "__main__"


def _module_of(namespace: Any) -> str | None:
    """Return the name of the imported module with this namespace, None if there is none."""
    name = namespace.get("__name__")
    if type(name) is not str or namespace_of(sys.modules.get(name)) is not namespace:
        return None
    return name if name == "__main__" or namespace.get("__spec__") is not None else None


_DISPATCHER = cast("types.FunctionType", functools.singledispatch(len)).__code__
_CODE = frozenset(map(id, CALLABLE | {types.ModuleType}))

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
