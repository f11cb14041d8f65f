"""How functions, classes, modules, containers and instances are encoded for a walk.

Each encoder gets the walk and one object, adds the object's own bytes to ``walk.parts``, and refers
to the objects that it consists of. Nothing here runs code of the user's, see ``looking``; only
objects of Python's own types are asked for what they are made of.
"""

from __future__ import annotations

import functools
import itertools
import sys
import types
from collections.abc import Callable, Iterable
from struct import pack

from .atoms import ATOMS, MOST_ITEMS, atom_of, framed, sampled, set_of_atoms
from .codes import Code, describe, make_room
from .looking import (
    MISSING,
    attributes,
    bases,
    content_of,
    hides_state,
    module_of,
    namespace,
    namespace_of,
    qualname,
    slots,
)
from .owners import PYTHON, USER, is_users, owner, version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .walk import Walk

__all__ = ["ENCODERS", "instance", "mapping", "named", "own_state", "sequence", "series"]

MOST_SET_ITEMS = 512  # members that are objects; of more of them only the number counts
MOST_NAMESPACES = 256
# What is taken of a code object, in steps of the walk: describing 600 functions of the standard
# library took 14 us each, or 60 ns a byte of code (November 2026, two-core machine).
STEPS_OF_FUNCTION = 24
BYTES_A_STEP = 8
STEPS_OF_SLOT = 3


# Functions, classes, modules ----------------------------------------------------------------


def function(walk: Walk, function: types.FunctionType) -> None:
    """Encode code, defaults, closure and the globals it names; a library's by its name."""
    inner = function.__closure__ is not None or "<" in function.__qualname__
    if not inner and not is_users(function.__module__):
        library(walk, function)
        return
    code, closure, defaults = function.__code__, function.__closure__, function.__defaults__
    described = describe(code)
    walk.parts.append(framed(b"C", described.digest))
    if not walk.spend(STEPS_OF_FUNCTION + described.size // BYTES_A_STEP):
        return
    walk.functions.append((function, code, defaults, closure, function.__kwdefaults__))
    if code is _DISPATCHER:
        _registry(walk, function)
        return
    if defaults:
        sequence(walk, defaults)
    _keyword_defaults(walk, function.__kwdefaults__)
    for cell in closure or ():
        content = content_of(cell)
        walk.cells.append((cell, content))
        if content is MISSING:
            walk.parts.append(b"?")
        else:
            walk.refer(content)
    _globals(walk, function.__globals__, described)
    # What a library's decorator notes on its wrappers (calls, times) is not what they do.
    if vars(function) and is_users(function.__globals__.get("__name__")):
        _on_function(walk, function)


def _keyword_defaults(walk: Walk, defaults: dict[str, Any] | None) -> None:
    if not defaults:
        return
    walk.parts.append(b"k" + pack("<q", len(defaults)))
    for name, value in list(defaults.items()):
        walk.slots.append((defaults, name, value))
        walk.tag(b"k", name)
        walk.refer(value)


def _on_function(walk: Walk, function: types.FunctionType) -> None:
    """Encode what was put on a function as attributes."""
    kept = dict(vars(function))
    kept.pop("__wrapped__", None)
    if kept:
        walk.mutable = True
        _state(walk, kept)


def _registry(walk: Walk, function: types.FunctionType) -> None:
    """Encode a ``functools.singledispatch`` by its cases; its cache follows its use."""
    walk.mutable = True
    mapping(walk, vars(function)["registry"])


def _globals(walk: Walk, values: dict[str, Any], described: Code) -> None:
    """Encode the globals the code names; of a user's module only the attributes it names."""
    if not walk.spend(STEPS_OF_SLOT * len(described.globals)):
        return
    for name in described.globals:
        value = values.get(name, MISSING)
        walk.slots.append((values, name, value))
        if value is MISSING:  # a builtin, or not defined yet: its name is in the code
            continue
        walk.tag(b"g", name)
        walk.refer(value)
        _attributes(walk, value, described.names)
    if walk.follow_imports:
        for name in described.imports:
            _imported(walk, values, name, described.names)


def _imported(walk: Walk, values: dict[str, Any], name: str, names: tuple[str, ...]) -> None:
    """Look at a module, and those it is in, that the code imports as it runs."""
    home = values.get("__package__")
    around = home.split(".") if type(home) is str else []
    packages = ["", *itertools.accumulate(around, "{}.{}".format)]
    parts = list(itertools.accumulate(filter(None, name.split(".")), "{}.{}".format))
    for package in packages:
        for part in parts or [""]:
            _attributes(walk, sys.modules.get(f"{package}.{part}".strip(".")), names)


def _attributes(walk: Walk, module: object, names: tuple[str, ...]) -> None:
    """Refer to those attributes of a user's module that are named.

    A lazy module is of a type of its own until it is loaded, and is left alone.
    """
    if type(module) is types.ModuleType and is_users(namespace_of(module).get("__name__")):
        walk.refer_as((id(module), names), (module, names), _named_attributes)


def _named_attributes(walk: Walk, view: tuple[types.ModuleType, tuple[str, ...]]) -> None:
    """Encode those attributes of a module, and of its submodules, that are named."""
    module, names = view
    values = namespace_of(module)
    if not walk.spend(STEPS_OF_SLOT * len(names)):
        return
    for name in names:
        value = values.get(name, MISSING)
        walk.slots.append((values, name, value))
        if value is not MISSING:
            walk.tag(b"a", name)
            walk.refer(value)
            _attributes(walk, value, names)


def _module(walk: Walk, module: types.ModuleType) -> None:
    """Encode a module by its name: what is used of it, its attributes say."""
    name = namespace_of(module).get("__name__")
    if type(name) is str:
        walk.tag(b"m", name)
        if not is_users(name):
            walk.tag(b"v", version(name))


def library(walk: Walk, value: Any) -> None:
    """Encode a function that comes with an installed package: by name and version."""
    module = value.__module__ if hasattr(value, "__module__") else None
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
    _by_name(walk, module or "builtins", name)


def _by_name(walk: Walk, module: str, name: str) -> None:
    walk.tag(b"L", f"{module}:{name}")
    walk.tag(b"v", version(module))


def _builtin(walk: Walk, function: types.BuiltinFunctionType) -> None:
    """Encode a function in C, or a method of an object of a C type with that object."""
    library(walk, function)
    bound = function.__self__
    if bound is None or issubclass(type(bound), types.ModuleType):
        return
    if type(bound).__name__ != "PyCapsule":  # what a binding keeps for itself has no content
        walk.refer(bound)


def _method(walk: Walk, method: types.MethodType) -> None:
    walk.parts.append(b"M")
    walk.refer(method.__func__)
    walk.refer(method.__self__)


def _partial(walk: Walk, partial: functools.partial[Any]) -> None:
    walk.mutable = True
    walk.parts.append(b"P")
    for part in (partial.func, partial.args, partial.keywords):
        walk.refer(part)
    _subclass(walk, partial, functools.partial)


def _class(walk: Walk, cls: type) -> None:
    """Encode a user's class by its bases and attributes."""
    module = module_of(cls)
    if not is_users(module):
        _by_name(walk, module, qualname(cls))
        return
    walk.tag(b"K", qualname(cls))
    sequence(walk, bases(cls))
    values = namespace(cls)
    walk.sizes.append((values, len(values)))
    walk.classes[id(values)] = cls
    for name, value in list(values.items()):
        if name in _CLASS_NOISE or name.startswith(_MADE_OF_FIELDS):
            continue
        if not walk.spend(STEPS_OF_SLOT):
            return
        walk.slots.append((values, name, value))
        walk.tag(b"a", name)
        walk.refer(value)


def _wrapped(walk: Walk, value: Any) -> None:
    """Encode a descriptor or cache around a function by what it wraps."""
    walk.tag(b"W", qualname(type(value)))
    if type(value) is _CACHE:
        walk.caches.append(value)
    for name in ("__func__", "__wrapped__", "fget", "fset", "fdel", "func", "dispatcher"):
        inner = getattr(value, name, None)
        if inner is not None:
            walk.refer(inner)


def named(walk: Walk, value: Any) -> None:
    """Encode something whose name says all: slots, loggers, locks, ufuncs."""
    _by_name(walk, module_of(type(value)), qualname(type(value)))
    walk.tag(b"n", str(getattr(value, "name", "") or getattr(value, "__name__", "")))


# Containers ---------------------------------------------------------------------------------


def sequence(walk: Walk, values: tuple[Any, ...] | list[Any]) -> None:
    """Encode the length and the items of a tuple or list, of a long one a sample."""
    size, few = sampled(values)
    walk.parts.append(b"(" + pack("<q", size))
    for value in few:
        walk.refer(value)


def series(walk: Walk, size: int, *ends: Iterable[Any]) -> None:
    """Encode a length, and the first items that each of some iterables gives."""
    walk.parts.append(b"<" + pack("<q", size))
    for end in ends:
        sequence(walk, list(itertools.islice(end, 2 * MOST_ITEMS)))


def mapping(walk: Walk, value: Any) -> None:
    """Encode a mapping in its own order, of a long one the beginning."""
    walk.parts.append(b"d" + pack("<q", len(value)))
    _pairs(walk, value.items())


def _pairs(walk: Walk, items: Iterable[tuple[Any, Any]]) -> None:
    # In one go, as another thread may be changing it.
    for key, item in list(itertools.islice(items, 2 * MOST_ITEMS)):
        walk.refer(key)
        walk.refer(item)


def _tuple(walk: Walk, value: tuple[Any, ...]) -> None:
    _subclass(walk, value, tuple)
    sequence(walk, value)


def _list(walk: Walk, value: list[Any]) -> None:
    walk.mutable = True
    _subclass(walk, value, list)
    walk.parts.append(b"l")
    sequence(walk, value)


def _dict(walk: Walk, value: dict[Any, Any]) -> None:
    walk.mutable = True
    _subclass(walk, value, dict)
    walk.parts.append(b"d" + pack("<q", dict.__len__(value)))
    _pairs(walk, dict.items(value))


def _set(walk: Walk, value: set[Any] | frozenset[Any]) -> None:
    """Encode a set so that the order of its members leaves no trace."""
    base: Any = set if issubclass(type(value), set) else frozenset
    walk.mutable = walk.mutable or base is set
    _subclass(walk, value, base)
    size = base.__len__(value)
    known = set_of_atoms(base.__iter__(value), size)
    if known is not None:
        walk.parts.append(known)
        walk.spend(size)
        return
    walk.parts.append(b"{" + pack("<q", size))
    if size <= MOST_SET_ITEMS:
        _members(walk, list(base.__iter__(value)))


def _members(walk: Walk, values: list[Any]) -> None:
    """Encode members: atoms sorted, the others as objects whose order means nothing."""
    encoders = [atom_of(type(value)) for value in values]
    pairs = list(zip(encoders, values, strict=True))
    atoms = sorted([encode(value) for encode, value in pairs if encode is not None])
    walk.parts += atoms
    if walk.spend(len(atoms) + sum(map(len, atoms)) // 128):
        walk.members([value for encode, value in pairs if encode is None])


def _scalar(base: type) -> Callable[[Walk, Any], None]:
    """Return the encoder for instances of subclasses of an atom's type."""

    def encode(walk: Walk, value: Any) -> None:
        walk.parts.append(b"=" + ATOMS[base](value))
        instance(walk, value)

    return encode


# Instances ----------------------------------------------------------------------------------


def _subclass(walk: Walk, value: Any, base: type) -> None:
    """Encode the type and attributes of an instance of a subclass of a builtin."""
    if type(value) is not base:
        instance(walk, value)


def instance(walk: Walk, value: Any) -> None:
    """Encode an object by its type and its attributes."""
    walk.mutable = True
    kind = type(value)
    walk.refer(kind)
    module = module_of(kind)
    whose = owner(module)
    if whose != USER:
        name = _global_name(value, module, whose) or _own_name(value)
        if name:
            walk.tag(b"G", name)
            return
    if whose == PYTHON:
        # Python's own types know best what they are; their slots may hold mere caches.
        _reduced(walk, value)
        return
    own_state(walk, value)
    if hides_state(kind) and not issubclass(kind, _CONTAINERS):  # whose content is encoded already
        _hidden(walk, value, whose)


def own_state(walk: Walk, value: Any) -> None:
    """Encode an instance's dictionary and slots."""
    found = attributes(value)
    if found is not None:
        _state(walk, found)
    for name, content in slots(value):
        walk.tag(b"a", name)
        walk.refer(content)


def _state(walk: Walk, values: dict[str, Any]) -> None:
    walk.parts.append(b"A" + pack("<q", len(values)))
    _pairs(walk, dict.items(values))


def _global_name(value: Any, module: str, whose: str) -> str:
    """Return under which name the library that a type is from has a value as a global, or "".

    Such an object (``os.environ``, the generator behind ``random.random``, ``pandas.NA``) is who it
    is, whatever it holds in this process.
    """
    places = [module, module.partition(".")[0]] + (["sys"] if whose == PYTHON else [])
    for place in places:
        values = namespace_of(sys.modules.get(place))
        name = _names_in(place, values).get(id(value), "")
        if name and values.get(name) is value:
            return f"{place}:{name}"
    return ""


def _names_in(place: str, values: dict[str, Any]) -> dict[int, str]:
    """Return the names of a module's globals by their ids; the ids may be others' by now."""
    known = _names.get(place)
    if known is None or known[0] != len(values):
        make_room(_names, MOST_NAMESPACES)
        found = {id(value): name for name, value in list(values.items())}
        known = _names[place] = (len(values), found)
    return known[1]


_names: dict[str, tuple[int, dict[int, str]]] = {}


def _own_name(value: Any) -> str:
    """Return module and qualified name of a library's callable that has them, or "".

    Array functions of NumPy, functions compiled by Cython, kernels.
    """
    if not callable(value):
        return ""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    module = getattr(value, "__module__", None)
    if type(name) is not str or type(module) is not str or "<" in name:
        return ""
    return f"{module}:{name} {'' if is_users(module) else version(module)}"


def _hidden(walk: Walk, value: Any, whose: str) -> None:
    """Encode what an object keeps in C, if anything is known of that."""
    wrapped = None if whose == USER else (attributes(value) or {}).get("__wrapped__")
    if wrapped is None:
        walk.stable = False


def _reduced(walk: Walk, value: Any) -> None:
    """Encode an object of Python's own by its reduction."""
    if issubclass(type(value), _CONTAINERS) or type(value) is object:
        return
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # noqa: BLE001 - its type may have any reason not to be taken apart
        walk.stable = False
        return
    if isinstance(reduced, str):
        walk.tag(b"R", reduced)
        return
    for part in reduced:
        if hasattr(part, "__next__"):
            sequence(walk, list(itertools.islice(part, MOST_ITEMS)))
        else:
            walk.refer(part)


# Tables -------------------------------------------------------------------------------------

_CACHE: type = type(functools.lru_cache(len))
_DISPATCHER = functools.singledispatch(len).__code__

# What pydantic makes of the fields and methods that stand beside it.
_MADE_OF_FIELDS = ("__pydantic_",)

# Names every class has, or whose values say nothing about behaviour.
_CLASS_NOISE = frozenset(
    {
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        # What a dataclass is shows in the methods generated for it.
        "__dataclass_fields__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__qualname__",
        "__signature__",
        "__slotnames__",  # kept there by copyreg once an instance was pickled
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)

# Types whose content is encoded by their own encoders, never by attributes alone.
_CONTAINERS = (tuple, list, dict, set, frozenset, int, float, complex, str, bytes)

# Looked up along the type's MRO: a subclass is encoded as its nearest known base says.
_ENCODERS: dict[Any, Callable[[Walk, Any], None]] = {
    types.FunctionType: function,
    types.BuiltinFunctionType: _builtin,
    types.MethodType: _method,
    types.ModuleType: _module,
    types.MethodDescriptorType: library,
    types.WrapperDescriptorType: library,
    types.MethodWrapperType: _builtin,
    types.ClassMethodDescriptorType: library,
    types.GetSetDescriptorType: named,
    types.MemberDescriptorType: named,
    types.CodeType: lambda walk, code: walk.parts.append(framed(b"C", describe(code).digest)),
    functools.partial: _partial,
    functools.cached_property: _wrapped,
    functools.singledispatchmethod: _wrapped,
    _CACHE: _wrapped,
    staticmethod: _wrapped,
    classmethod: _wrapped,
    property: _wrapped,
    type: _class,
    **{base: _scalar(base) for base in (int, float, complex, str, bytes)},
    tuple: _tuple,
    list: _list,
    dict: _dict,
    set: _set,
    frozenset: _set,
}

# By the id of the type, as a metaclass may have a ``__hash__`` that runs code of the user's.
ENCODERS = {id(base): encode for base, encode in _ENCODERS.items()}
