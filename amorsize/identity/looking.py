"""Looking at objects without running any code of theirs.

An attribute that is asked for may run a property, ``__getattr__`` or a whole lazy import, and raise
anything. What is here reads classes, modules and instances through the descriptors of the
interpreter's own types instead, which only fetch what is there.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "MISSING",
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
_POINTER = object.__basicsize__ // 2  # an object is a reference count and a type
_NOTHING: dict[str, Any] = {}

MISSING: Any = object()  # stands for a value that is not there


def namespace_of(module: object) -> dict[str, Any]:
    """Return the dictionary of a module without waking a lazy one; an empty one for anything else.

    Args:
        module: what ``sys.modules`` holds: a module as a rule, but it may be any object, or None.
    """
    if not issubclass(type(module), types.ModuleType):
        return _NOTHING
    found: dict[str, Any] | None = _dict_of_module(module)
    return _NOTHING if found is None else found


def module_of(cls: type) -> str:
    """Return the name of the module that a class says it is from, "" where that is no name.

    A type in C whose instances have a ``__module__`` each, as Cython's functions do, leaves it to
    its metaclass to say where it is from itself.
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
        TypeError: the class hides it behind something of its own.
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
    """Return an attribute that is a field of a type in C, or in the instance's dictionary.

    Returns:
        The value; None where there is none, or it is empty.
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
    """Yield (name, value) of an instance's slots that are filled; names are as they are stored."""
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
    """Return whether instances hold something beyond their attributes and slots, in C.

    A class statement adds to the size of its base's instances a pointer each for the dictionary,
    the weak references and the slots it names.
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
    """Return what a closure cell holds, ``MISSING`` while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def cells_of(function: types.FunctionType) -> Iterator[tuple[types.CellType, object]]:
    """Yield the cells of a function's closure, each with its content, but for class namespaces."""
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        if name != _CLASS_NAMESPACE:
            yield cell, content_of(cell)


# In it annotations in a class find what its body has set. Line numbers are among that, and all else
# is in the class.
_CLASS_NAMESPACE = "__classdict__"
