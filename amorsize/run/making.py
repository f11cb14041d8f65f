"""Functions that a pickle calls as it is loaded: they make, find and fill the objects in it.

``pickler`` and ``unmaking`` write the names of these functions; nothing else calls them.
"""

from __future__ import annotations

import contextvars
import enum
import functools
import importlib
import sys
import threading
import types
from typing import Any

from cloudpickle import cloudpickle

from . import homes, known

__all__ = [
    "VARIABLES",
    "VARIABLE_TOKENS",
    "Empty",
    "fill_module",
    "found",
    "found_or_made",
    "function_at",
    "function_of",
    "made_cache",
    "made_dispatcher",
    "made_module",
    "made_property",
    "made_type_variable",
    "made_view",
    "names_of",
    "set_class",
    "set_function",
    "set_missing_state",
    "set_state",
    "shipped",
    "thread_values",
    "variable_at",
    "variable_of",
]

# These tables only grow: context variables are never freed (documentation of ``contextvars``), and
# they do not support weak references.
VARIABLES: dict[str, contextvars.ContextVar[Any]] = {}
VARIABLE_TOKENS: dict[contextvars.ContextVar[Any], str] = {}

# Objects that were made and wait for their state, by id; only these may be written to. Per thread.
_unfinished = threading.local()


def found(token: str, where: tuple[type, int, str] | None) -> Any:
    """Return a class or function that the sender got from this process, or inherited from it."""
    value = known.find(token)
    if value is None and where is not None:
        value = known.find_inherited(*where)
    if value is None:
        name = where[2] if where else "a class or function"
        raise LookupError(f"{name} is not alive any more in the process that sent it")
    return value


def found_or_made(
    token: str, where: tuple[type, int, str] | None, place: str, make: Any, args: Any
) -> Any:
    """Return the class or function of a token; make it if it is unknown, renew it if stale."""
    value = known.find(token)
    # Only a forked worker looks at the address: that of a class that a worker made says nothing in
    # the caller.
    if value is None and where is not None and known.is_forked():
        value = known.find_inherited(*where)
        if value is not None:
            known.register(value, token)
    if value is None or known.is_stale(token):
        if value is None or make is function_of:
            value = make(*args)
        known.register(value, token)
        vars(_unfinished)[str(id(value))] = value
        if place:
            known.main_names().setdefault(place, value)
    return value


def shipped(token: str, place: str, make: Any, args: Any) -> Any:
    """Return a class or function of the call: a function is made anew, a known class is reused."""
    value = None if make is function_of else known.find(token)
    if value is None:
        value = make(*args)
    known.register(value, token, lasting=True)
    if place:
        known.main_names()[place] = value
    return value


def set_missing_state(value: Any, state: tuple[Any, Any]) -> None:
    """Set the state of a class or function that was just made; a known one keeps its own."""
    if vars(_unfinished).pop(str(id(value)), None) is not None:
        give, content = state
        give(value, content, counts=False)


def set_state(value: Any, state: tuple[Any, Any]) -> None:
    """Set the state of a class or function of the call, also of a known one."""
    give, content = state
    give(value, content, counts=True)


def set_class(cls: Any, state: dict[str, Any], *, counts: bool) -> None:
    """Set a class's attributes, and remove those that are not in ``state``."""
    del counts
    members = vars(cls).get("_member_map_", {})  # of an enumeration
    for name, value in list(vars(cls).items()):
        special = (name.startswith("_") and name.endswith("_")) or name in members
        if name not in state and not special and type(value) is not types.MemberDescriptorType:
            type.__delattr__(cls, name)
    cloudpickle._class_setstate(cls, (state, {}))


def function_of(code: Any, names: Any, name: str, defaults: Any, cells: Any) -> Any:
    """Return a function without its state; its cells are filled later."""
    names.setdefault("__builtins__", __builtins__)
    return types.FunctionType(code, names, name, defaults, cells)


def set_function(function: Any, state: tuple[Any, ...], *, counts: bool) -> None:
    """Set everything of a function except its code; ``counts`` overwrites globals."""
    attributes, described, names, contents, _ = state
    own = function.__globals__
    for name, value in names.items():
        if counts or name not in own:
            own[name] = value
    for cell, content in zip(function.__closure__ or (), contents, strict=True):
        if content is not Empty.CELL:
            cell.cell_contents = content
    for name, value in described.items():
        setattr(function, name, value)
    vars(function).update(attributes)


def made_cache(function: Any, parameters: dict[str, Any], attributes: dict[str, Any]) -> Any:
    """Return a function with an empty ``functools.lru_cache`` of the same parameters."""
    cached = functools.lru_cache(**parameters)(function)
    vars(cached).update({**attributes, "__wrapped__": function})
    return cached


def made_property(function: Any, name: str | None) -> Any:
    """Return a ``functools.cached_property`` that knows its name."""
    made = functools.cached_property(function)
    if name is not None:
        made.__set_name__(object, name)
    return made


def made_dispatcher(function: Any, registry: dict[Any, Any], attributes: dict[str, Any]) -> Any:
    """Return a ``functools.singledispatch`` function with all registered implementations."""
    made = functools.singledispatch(function)
    for kind, implementation in registry.items():
        made.register(kind, implementation)
    vars(made).update(attributes)
    return made


def made_method_dispatcher(dispatcher: Any, function: Any) -> Any:
    """Return a ``functools.singledispatchmethod`` with a dispatcher."""
    made = functools.singledispatchmethod(function)
    made.dispatcher = dispatcher
    return made


def function_at(module: str, home: homes.Home | None, path: str) -> Any:
    """Return the function in a module's static method, class method or ``lru_cache``."""
    loaded = cloudpickle.subimport(module) if home is None else homes.module_at(home)
    return known.function_in(known.held(vars(loaded), path))


def variable_at(module: str, name: str) -> Any:
    """Return a module's context variable."""
    return getattr(importlib.import_module(module), name)


def variable_of(token: str, name: str, default: tuple[Any, ...]) -> contextvars.ContextVar[Any]:
    """Return the context variable of a token, made the first time."""
    found = VARIABLES.get(token)
    if found is None:
        options = {"default": default[0]} if default else {}
        found = contextvars.ContextVar(name, **options)
        VARIABLES[token] = found
        VARIABLE_TOKENS[found] = token
    return found


def made_view(data: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    """Return a memoryview with its format and shape."""
    return memoryview(data).cast("B").cast(form, shape)  # type: ignore[call-overload, no-any-return]


def made_type_variable(kind: Any, names: Any, options: dict[str, Any], module: str) -> Any:
    """Return a type variable of a module."""
    made = kind(*names, **options)
    made.__module__ = module
    return made


def made_module(name: str, loaded: bool) -> types.ModuleType:
    """Return an empty module; with ``loaded``, the one of this name in ``sys.modules``."""
    module = types.ModuleType(name)
    return sys.modules.setdefault(name, module) if loaded else module


def fill_module(module: types.ModuleType, content: dict[str, Any]) -> None:
    """Set the contents of a module."""
    vars(module).update(content)


class Empty(enum.Enum):
    """Stands for the content of an empty cell; the same object on both sides."""

    CELL = "cell"


def names_of(module: str | None, home: homes.Home | None, base: dict[str, Any]) -> dict[str, Any]:
    """Return the globals of a function: a module's own, or ``base`` for no module."""
    if module is None:
        return base
    if home is not None:
        return vars(homes.module_at(home))
    if module == "__main__":
        return known.main_names()
    names: dict[str, Any] = vars(cloudpickle.subimport(module))
    return names


def thread_values(values: dict[str, Any]) -> threading.local:
    """Return a ``threading.local`` with the values of the sender's thread."""
    made = threading.local()
    vars(made).update(values)
    return made
