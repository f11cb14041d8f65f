"""Read objects without running any of their code.

Attribute access may run a property, ``__getattr__`` or a whole lazy import, and may raise anything.
This module reads classes, modules and instances through the descriptors of the interpreter's own
types instead. These only fetch stored values.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "ABSENT",
    "attributes",
    "bases",
    "cells_of",
    "content_of",
    "fetch",
    "hides_state",
    "module_of",
    "mro",
    "namespace",
    "namespace_of",
    "qualname",
    "slots",
]

mro: Callable[[type], tuple[type, ...]] = vars(type)["__mro__"].__get__
bases: Callable[[type], tuple[type, ...]] = vars(type)["__bases__"].__get__
namespace: Callable[[type], types.MappingProxyType[str, Any]] = vars(type)["__dict__"].__get__
qualname: Callable[[type], str] = vars(type)["__qualname__"].__get__

_size: Callable[[type], int] = vars(type)["__basicsize__"].__get__
_base: Callable[[type], type] = vars(type)["__base__"].__get__
_module: Callable[[type], object] = vars(type)["__module__"].__get__
_dict_of_module: Callable[[object], Any] = vars(types.ModuleType)["__dict__"].__get__
_FETCHERS = (types.GetSetDescriptorType, types.MemberDescriptorType)
_POINTER = object.__basicsize__ // 2  # a plain object is a reference count and a type
_NOTHING: dict[str, Any] = {}

ABSENT: Any = object()  # stands for a value that is not there


def namespace_of(module: object) -> dict[str, Any]:
    """Return a module's dictionary without loading a lazy module; empty for anything else.

    Args:
        module: an entry of ``sys.modules``: usually a module, but maybe any object, or None.
    """
    if not issubclass(type(module), types.ModuleType):
        return _NOTHING
    found: dict[str, Any] | None = _dict_of_module(module)
    return _NOTHING if found is None else found


def module_of(cls: type) -> str:
    """Return the name of the module that a class reports, "" if that is not a text.

    Where each instance of a C type has a ``__module__``, as with Cython's functions, the metaclass
    reports the module of the type itself.
    """
    try:
        found = _module(cls)
    except AttributeError:  # it was deleted
        return ""
    if type(found) is not str:
        getter = namespace(type(cls)).get("__module__")
        found = getter.__get__(cls) if type(getter) in _FETCHERS else ""  # type: ignore[union-attr]
    return found if type(found) is str else ""


def attributes(value: object) -> dict[str, Any] | None:
    """Return an instance's dictionary, None where it has none.

    Raises:
        TypeError: the class has a ``__dict__`` of its own that hides it.
    """
    for cls in mro(type(value)):
        found = namespace(cls).get("__dict__")
        if found is None:
            continue
        if type(found) not in _FETCHERS:
            raise TypeError(f"{cls!r} has a __dict__ of its own")
        state: dict[str, Any] | None = found.__get__(value)
        return state
    return None


def fetch(value: object, name: str) -> Any:
    """Return an attribute that is a field of a C type, or in the instance's dictionary.

    Returns:
        The value; None if there is no such attribute, or the field is empty.
    """
    for cls in mro(type(value)):
        found = namespace(cls).get(name)
        if type(found) in _FETCHERS:
            try:
                return found.__get__(value)  # type: ignore[union-attr]
            except AttributeError:
                return None
    return (attributes(value) or _NOTHING).get(name)


def slots(value: object) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of an instance's filled slots; private names are mangled."""
    for cls in mro(type(value)):
        own = namespace(cls)
        if "__slots__" not in own:
            continue
        for name, slot in own.items():
            if type(slot) is types.MemberDescriptorType:
                try:
                    content = slot.__get__(value)
                except AttributeError:  # it is empty
                    continue
                yield name, content


def hides_state(kind: type) -> bool:
    """Return whether instances hold state in C, beyond their attributes and slots.

    A class statement adds one pointer to the size of its base's instances for the dictionary, one
    for the weak references, and one for each slot it names. State in C adds more.
    """
    for cls in mro(kind)[:-1]:
        own = namespace(cls)
        named = ("__dict__" in own) + ("__weakref__" in own)
        if "__slots__" in own:
            named += sum(type(slot) is types.MemberDescriptorType for slot in own.values())
        if _size(cls) - _size(_base(cls)) > _POINTER * named:
            return True
    return False


def content_of(cell: types.CellType) -> object:
    """Return what a closure cell holds, ``ABSENT`` while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


def cells_of(function: types.FunctionType) -> Iterator[tuple[types.CellType, object]]:
    """Yield the cells of a function's closure with their contents, except class namespaces."""
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        if name != _CLASS_NAMESPACE:
            yield cell, content_of(cell)


# Annotations in a class look up names of the class body in this cell. It also holds line numbers;
# everything else in it is in the class.
_CLASS_NAMESPACE = "__classdict__"
