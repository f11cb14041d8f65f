"""Take classes, functions, locks and context variables apart, for ``making`` to make them again.

``pickler`` decides what is pickled by value; this module says of what such a value consists.
"""

from __future__ import annotations

import abc
import contextvars
import enum
import os
import pickle
import sys
import threading
import types
import typing
from typing import Any

from cloudpickle import cloudpickle

from ..identity.looking import namespace_of
from ..measure.helpers import is_held
from . import homes, known, making

__all__ = [
    "Cell",
    "Namespace",
    "annotations_of",
    "content_of",
    "default_of",
    "dispatched",
    "making_of",
    "place_of_variable",
    "reduced_fresh",
    "state_of",
    "token_of_variable",
    "whereabouts",
]

# Functions ----------------------------------------------------------------------------------


class Cell:
    """A closure's cell, made empty. The function's state fills it: they may form a cycle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return types.CellType, ()


class Namespace:
    """The globals of a function: a module's own, or a dictionary of no module.

    Args:
        names: the globals.
        kin: whether names of the main module mean the same on both sides (``Way.KIN``).
    """

    def __init__(self, names: dict[str, Any], *, kin: bool) -> None:
        name = names.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) else None
        own = getattr(module, "__dict__", None) is names
        own = own or (known.is_apart() and known.main_names() is names)
        by_hand = own and module is not None and not kin and homes.is_dynamic(module)
        self._kin = kin
        self._module = name if own and not by_hand else None
        self._home = homes.home_of(self._module) if self._module and not kin else None
        self._base = {} if self._module else {k: names[k] for k in _BASE if k in names}

    def is_there(self) -> bool:
        """Return whether the other side gets the globals' values in another way."""
        return self._module is not None and (self._kin or self._module != "__main__")

    def __reduce__(self) -> tuple[Any, ...]:
        return making.names_of, (self._module, self._home, self._base)


_BASE = ("__package__", "__name__", "__path__", "__file__")


def content_of(cell: types.CellType) -> Any:
    """Return what a closure's cell holds, ``making.Empty.CELL`` while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return making.Empty.CELL


def dispatched(function: Any) -> tuple[Any, ...]:
    """Return the parts of a ``functools.singledispatch`` function."""
    registry = dict(function.registry)
    own = {"registry", "dispatch", "register", "_clear_cache", "__wrapped__"}
    return registry.pop(object), registry, {k: v for k, v in vars(function).items() if k not in own}


# Classes ------------------------------------------------------------------------------------


def whereabouts(cls: type) -> tuple[type, int, str] | None:
    """Return what finds a class in a process related by a fork: base, address, qualified name."""
    base = cls.__base__
    return None if base is None else (base, id(cls), cls.__qualname__)


def making_of(cls: type) -> tuple[Any, Any]:
    """Return the function that makes a class without its attributes, and its arguments."""
    if issubclass(cls, enum.Enum):
        return cloudpickle._make_skeleton_enum, cloudpickle._enum_getnewargs(cls)
    args = cloudpickle._class_getnewargs(cls)
    args[3]["__qualname__"] = cls.__qualname__
    # ``typing.NamedTuple`` sets ``__slots__`` itself, and refuses to be given any.
    if "__slots__" in vars(cls) and typing.NamedTuple not in vars(cls).get("__orig_bases__", ()):
        args[3]["__slots__"] = vars(cls)["__slots__"]
    return cloudpickle._make_skeleton_class, args


def state_of(cls: type) -> dict[str, Any]:
    """Return a class's attributes, without those that Python derives from the others."""
    state = {
        name: value
        for name, value in cloudpickle._extract_class_dict(cls).items()
        if name not in _MADE_WITH_CLASS and getattr(value, "__objclass__", None) is not cls
    }
    if isinstance(cls, abc.ABCMeta):
        registered = (subclass() for subclass in abc._get_dump(cls)[0])  # type: ignore[attr-defined]
        state["_abc_impl"] = [subclass for subclass in registered if subclass is not None]
    for name in vars(cls).get("_member_map_", ()):  # members of an enumeration
        state.pop(name, None)
    if not _ANNOTATED.isdisjoint(vars(cls)):
        state["__annotations__"] = annotations_of(cls)
    return state


def annotations_of(value: Any) -> dict[str, Any]:
    """Return the annotations of a function or class, as strings if they cannot be evaluated.

    Python 3.14 and later evaluate annotations on access (PEP 649), and names that only type
    checkers import are missing then. A class would cache the result of an access. So
    ``__annotate__`` is called directly, which caches nothing.
    """
    found: dict[str, Any]
    try:
        if isinstance(value, type) and "__annotations_cache__" not in vars(value):
            found = value.__annotate__(_VALUE)  # type: ignore[attr-defined]
        else:
            found = value.__annotations__
    except Exception:  # noqa: BLE001 - expressions of the user's may raise anything
        import annotationlib  # type: ignore[import-not-found] # not before Python 3.14

        found = annotationlib.get_annotations(value, format=annotationlib.Format.STRING)
    return found


# Where classes have their annotations from Python 3.14 on, and ``annotationlib.Format.VALUE``
# (that module is slow to import).
_ANNOTATED = frozenset({"__annotate_func__", "__annotations_cache__"})
_VALUE = 1

# Attributes that Python makes for every class or for an enumeration, or that copyreg adds when
# instances are pickled.
_MADE_WITH_CLASS = frozenset(
    {
        *_ANNOTATED,
        "__dict__",
        "__slotnames__",
        "__weakref__",
        "_abc_impl",
        "_generate_next_value_",
        "_member_map_",
        "_member_names_",
        "_member_type_",
        "_value2member_map_",
    }
)


# Context variables and locks ----------------------------------------------------------------


def token_of_variable(variable: contextvars.ContextVar[Any]) -> str:
    """Return the token of a context variable; make one if it has none."""
    token = making.VARIABLE_TOKENS.setdefault(variable, os.urandom(8).hex())
    making.VARIABLES[token] = variable
    return token


_variable_places: dict[contextvars.ContextVar[Any], tuple[str, str] | None] = {}


def place_of_variable(variable: contextvars.ContextVar[Any]) -> tuple[str, str] | None:
    """Return (module, name) of a module's context variable, None for any other."""
    if variable not in _variable_places:
        modules = [pair for pair in list(sys.modules.items()) if not pair[0].startswith("__m")]
        found = (
            (module, name)
            for module, content in modules
            for name, value in list(namespace_of(content).items())
            if value is variable
        )
        _variable_places[variable] = next(found, None)
    return _variable_places[variable]


def default_of(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    """Return the default of a context variable in a tuple, an empty tuple for no default."""
    try:
        return (contextvars.Context().run(variable.get),)
    except LookupError:
        return ()


def reduced_fresh(value: Any) -> Any:
    """Return how to pickle a lock as a new one or a ``threading.local``, else NotImplemented."""
    if type(value) is threading.local:
        return making.thread_values, (dict(vars(value)),)
    if is_held(value):
        raise pickle.PicklingError("cannot pickle a lock that another thread holds")
    return (_LOCKS[type(value)], ()) if type(value) in _LOCKS else NotImplemented


_LOCKS: dict[type, Any] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
}
