"""Encoders for functions, classes and modules; ``contents`` has those for other objects.

Each encoder takes the walk and one object. It adds the object's own bytes to ``walk.parts``, and
refers to the objects that this one consists of. Nothing here runs the user's code, see ``looking``.
Attributes are read in the usual way only from objects of Python's own types.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from struct import pack

from ..versions import KNOWS_BYTECODE, global_of
from .atoms import MOST_ITEMS, framed
from .codes import Code, describe
from .contents import CONTAINERS, mapping, sequence, state, subclass
from .imports import places_of, source_of
from .looking import (
    ABSENT,
    bases,
    cells_of,
    fetch,
    module_of,
    mro,
    namespace,
    namespace_of,
    qualname,
)
from .owners import is_users, version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .walk import Walk

__all__ = ["ENCODERS", "named", "named_attributes"]

# Cost of describing a code object, in steps of the walk: 600 functions of the standard library took
# 14 us each, or 60 ns per byte of code (November 2026, two-core machine).
STEPS_OF_FUNCTION = 24
BYTES_A_STEP = 8
STEPS_OF_SLOT = 3
# Cost of finding and reading a source file, in steps: 0.2 ms (November 2026).
STEPS_OF_SOURCE = 500


# Functions, classes, modules ----------------------------------------------------------------


def function(walk: Walk, function: types.FunctionType) -> None:
    """Encode a function by code, defaults, closure and globals used; a library's by its name."""
    inner = function.__closure__ is not None or "<" in function.__qualname__
    if not inner and not is_users(function.__module__):
        library(walk, function)
        return
    code, closure, defaults = function.__code__, function.__closure__, function.__defaults__
    if code.co_filename.startswith(_MADE_BY_ATTRS):
        # This code contains hashes that follow the hash seed. The fields tell what it does.
        walk.tag(b"C", _MADE_BY_ATTRS)
        return
    described = describe(code)
    walk.parts.append(framed(b"C", described.digest))
    if not KNOWS_BYTECODE:  # nor what each instruction means
        walk.stable, walk.mutable = False, True
    if not walk.spend(STEPS_OF_FUNCTION + described.size // BYTES_A_STEP):
        return
    walk.functions.append((function, code, defaults, closure, function.__kwdefaults__))
    if code is _DISPATCHER:
        _registry(walk, function)
        return
    if defaults:
        sequence(walk, defaults)
    _keyword_defaults(walk, function.__kwdefaults__)
    for cell, content in cells_of(function):
        walk.cells.append((cell, content))
        if content is ABSENT:
            walk.parts.append(b"?")
        else:
            walk.refer(content)
    _globals(walk, function.__globals__, described)
    # Attributes that a library's decorator sets (calls, times) do not change what wrappers do.
    if is_users(function.__globals__.get("__name__")):
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
    """Encode the attributes that were set on a function."""
    walk.sizes.append((vars(function), len(vars(function))))
    kept = dict(vars(function))
    kept.pop("__wrapped__", None)
    if kept:
        walk.mutable = True
        state(walk, kept)


def _registry(walk: Walk, function: types.FunctionType) -> None:
    """Encode a ``functools.singledispatch`` by its cases; its cache depends on past calls."""
    walk.mutable = True
    mapping(walk, vars(function)["registry"])


def _globals(walk: Walk, values: dict[str, Any], described: Code) -> None:
    """Encode the globals the code names; of a user's module, only the attributes it names."""
    loaded, names = described.globals, described.names + described.asked
    if not _OF_GLOBALS.isdisjoint(loaded):
        loaded += described.asked
    if not walk.spend(STEPS_OF_SLOT * len(loaded)):
        return
    for name in loaded:
        value = global_of(values, name, ABSENT)
        walk.slots.append((values, name, value))
        if value is ABSENT:  # a builtin, or not defined yet: its name is in the code
            continue
        walk.tag(b"g", name)
        _refer_by_name(walk, value, names)
    for name in described.imports:
        _imported(walk, list(places_of(values, name)), names)


def _imported(walk: Walk, places: list[str], names: tuple[str, ...]) -> None:
    """Encode the user's modules that an import inside a function may mean."""
    if not walk.spend(STEPS_OF_SLOT * len(places)):
        return
    for place in places:
        module = sys.modules.get(place, ABSENT)
        walk.slots.append((sys.modules, place, module))
        if _is_users_module(module):
            walk.tag(b"i", place)
            _refer_by_name(walk, module, names)
        elif module is ABSENT:
            source = source_of(place)
            if source and walk.spend(STEPS_OF_SOURCE):
                walk.mutable = True
                walk.tag(b"I", place)
                walk.parts.append(source)


def _refer_by_name(walk: Walk, value: object, names: tuple[str, ...]) -> None:
    """Refer to a named value; of a user's module, only to the named attributes.

    A lazy module has a type of its own until it is loaded, so its attributes are not looked up.
    """
    if _is_users_module(value):
        walk.refer_as((id(value), names), (value, names), named_attributes)
    else:
        walk.refer(value)


def _is_users_module(value: object) -> bool:
    return type(value) is types.ModuleType and is_users(namespace_of(value).get("__name__"))


def named_attributes(walk: Walk, view: tuple[types.ModuleType, tuple[str, ...]]) -> None:
    """Encode the named attributes of a module and of its submodules."""
    module, names = view
    values = namespace_of(module)
    if not walk.spend(STEPS_OF_SLOT * len(names)):
        return
    walk.tag(b"m", str(values.get("__name__")))
    for name in names:
        value = global_of(values, name, ABSENT)
        walk.slots.append((values, name, value))
        if value is not ABSENT:
            walk.tag(b"a", name)
            _refer_by_name(walk, value, names)


def _module(walk: Walk, module: types.ModuleType) -> None:
    """Encode a module that was met as a value; the walk finds the attributes in use."""
    name = namespace_of(module).get("__name__")
    if type(name) is str:
        walk.tag(b"m", name)
        if is_users(name):
            walk.modules.append(module)
        else:
            walk.tag(b"v", version(name))


def library(walk: Walk, value: Any) -> None:
    """Encode a function of Python or of an installed package by name and version."""
    module = getattr(value, "__module__", None)
    name: Any = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
    _by_name(walk, module if isinstance(module, str) else "builtins", name)


def _by_name(walk: Walk, module: str, name: str) -> None:
    walk.tag(b"L", f"{module}:{name}")
    walk.tag(b"v", version(module))


def _builtin(walk: Walk, function: types.BuiltinFunctionType) -> None:
    """Encode a C function by its name, and a method of a C object also by that object."""
    library(walk, function)
    bound = function.__self__
    if bound is None or issubclass(type(bound), types.ModuleType):
        return
    if type(bound).__name__ != "PyCapsule":  # a capsule has no content that can be read
        walk.refer(bound)


def _method(walk: Walk, method: types.MethodType) -> None:
    walk.parts.append(b"M")
    walk.refer(method.__func__)
    walk.refer(method.__self__)


def _partial(walk: Walk, partial: functools.partial[Any]) -> None:
    walk.mutable = True
    walk.parts.append(b"P")
    for part in ("func", "args", "keywords"):
        walk.refer(fetch(partial, part))
    subclass(walk, partial, functools.partial)


def _class(walk: Walk, cls: type) -> None:
    """Encode a user's class by its bases and attributes; a library's by its name."""
    module = module_of(cls)
    if not is_users(module):
        _by_name(walk, module, qualname(cls))
        return
    walk.tag(b"K", qualname(cls))
    walk.bases.append((cls, bases(cls)))
    sequence(walk, bases(cls))
    if type(cls) is not type:
        _kept_by_metaclass(walk, cls)
    values = namespace(cls)
    walk.sizes.append((values, len(values)))
    for name, value in list(values.items()):
        if name in _CLASS_NOISE or (name.startswith("__pydantic_") and name != _FIELDS):
            continue
        if not walk.spend(STEPS_OF_SLOT):
            return
        walk.slots.append((values, name, value))
        walk.tag(b"a", name)
        encode = _IN_CLASSES.get(name)
        if encode is None:
            walk.refer(value)
        else:
            encode(walk, value)


def _kept_by_metaclass(walk: Walk, cls: type) -> None:
    """Encode the metaclass, and the values that its slots hold for the class."""
    walk.refer(type(cls))
    for base in mro(type(cls)):
        if base is type:
            return
        for name, field in namespace(base).items():
            if type(field) is types.MemberDescriptorType:
                walk.tag(b"a", name)
                walk.refer(fetch(cls, name))


def _annotations(walk: Walk, values: Any) -> None:
    """Encode the annotations of a class: libraries make converters from them."""
    if type(values) is dict:
        for name, value in list(values.items())[:MOST_ITEMS]:
            walk.refer(name)
            walk.refer(value)


def _field_metadata(walk: Walk, fields: Any) -> None:
    """Encode the metadata of a dataclass's fields; its methods show all else."""
    for name, field in list(fields.items())[:MOST_ITEMS]:
        metadata = fetch(field, "metadata")
        if metadata:
            walk.refer(name)
            mapping(walk, metadata)


def _wrapped(walk: Walk, value: Any) -> None:
    """Encode a descriptor or cache around a function by what it wraps."""
    walk.tag(b"W", qualname(type(value)))
    for name in ("__func__", "__wrapped__", "fget", "fset", "fdel", "func", "dispatcher"):
        inner = fetch(value, name)
        if inner is not None:
            walk.refer(inner)


def named(walk: Walk, value: Any) -> None:
    """Encode an object by type and name alone: a slot, logger, lock or ufunc."""
    _by_name(walk, module_of(type(value)), qualname(type(value)))
    walk.tag(b"n", str(getattr(value, "name", "") or getattr(value, "__name__", "")))


# Tables -------------------------------------------------------------------------------------

_CACHE: type = type(functools.lru_cache(len))
_DISPATCHER: Any = vars(types.FunctionType)["__code__"].__get__(functools.singledispatch(len))

# All else that pydantic adds to a class is derived from the fields and the class's methods.
_FIELDS = "__pydantic_fields__"
_MADE_BY_ATTRS = "<attrs generated"
# Names that code uses to look up globals by text.
_OF_GLOBALS = frozenset({"globals", "eval", "exec"})

# Class attributes that are encoded in place, or whose content affects behaviour only in part.
_IN_CLASSES: dict[str, Callable[[Walk, Any], None]] = {
    "__annotations__": _annotations,
    "__dataclass_fields__": _field_metadata,
}

# Names that every class has, or whose values do not affect behaviour.
_CLASS_NOISE = frozenset(
    {
        "__annotations_cache__",  # derived from the annotate function on first use
        # The parameters of a dataclass show in its generated methods.
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__qualname__",
        "__signature__",
        "__slotnames__",  # stored by copyreg once an instance is pickled
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)

# Looked up along the type's MRO: a subclass is encoded like its nearest known base.
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
    **CONTAINERS,
}

# By the id of the type: a metaclass may have a ``__hash__`` that runs the user's code.
ENCODERS = {id(base): encode for base, encode in _ENCODERS.items()}
