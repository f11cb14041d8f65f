"""Classify the values that modules hold: settings, data, the user's own; and their owners."""

from __future__ import annotations

import functools
import re
import types
from collections import Counter, OrderedDict, defaultdict, deque
from enum import EnumType

from .atoms import atom_of
from .looking import attributes, module_of, mro, namespace, namespace_of
from .owners import PYTHON, USER
from .owners import owner as owner_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "CACHE",
    "CALLABLE",
    "MOST_SIMPLE_ITEMS",
    "PLAIN",
    "SEQUENCES",
    "holds_users_own",
    "is_data",
    "is_simple",
    "is_users_own",
    "names_of",
    "whose",
]

# Limits of a simple value: settings are small, data is not.
MOST_SIMPLE_ITEMS = 64
DEEPEST_SIMPLE = 3
# Limits of the data of packages that the user's code names: tables and settings.
MOST_DATA_ITEMS = 10_000
MOST_DATA_BYTES = 1 << 20

CACHE: Any = type(functools.lru_cache(len))
PLAIN = frozenset({tuple, list, set, frozenset})
SEQUENCES: tuple[Any, ...] = (tuple, list, set, frozenset, deque)
_DATA = frozenset({dict, OrderedDict, defaultdict, Counter, *SEQUENCES})
_SIMPLE_MODULES = frozenset({"decimal", "fractions", "datetime", "pathlib", "uuid", "zoneinfo"})
CALLABLE = frozenset({types.FunctionType, types.MethodType, functools.partial, CACHE,
                       staticmethod, classmethod, property})  # fmt: skip


def is_simple(value: Any, depth: int = 0) -> bool:
    """Return whether a value is a setting: an atom, or a small container or object of atoms.

    Args:
        value: any value.
        depth: how many containers it lies in.
    """
    kind = type(value)
    if atom_of(kind) is not None:
        return kind not in (str, bytes) or len(value) <= 64 * MOST_SIMPLE_ITEMS
    if module_of(kind) in _SIMPLE_MODULES:
        return True
    parts = _parts_of(value) if depth < DEEPEST_SIMPLE else None
    return parts is not None and all(is_simple(part, depth + 1) for part in parts)


def _parts_of(value: Any) -> list[Any] | None:
    """Return the items of a small container or plain object, None for anything else."""
    kind: Any = type(value)
    if kind in PLAIN:
        return list(value) if len(value) <= MOST_SIMPLE_ITEMS else None
    state = value
    if kind is not dict:  # settings kept as the attributes of an object
        own = any("__reduce_ex__" in namespace(base) for base in mro(kind)[:-1])
        state = None if own or kind is types.ModuleType or callable(value) else names_of(value)
    if not state or len(state) > MOST_SIMPLE_ITEMS:
        return [] if kind is dict and not state else None
    return [*state, *state.values()]


def names_of(value: object) -> dict[str, Any]:
    """Return the dictionary of an object without calling its methods; empty if it has none.

    Attribute access would make a lazy module load itself, and raises for some objects.
    """
    try:
        names = namespace_of(value) or attributes(value)
    except TypeError:  # its class has a ``__dict__`` of its own
        return {}
    return names if type(names) is dict else {}


def is_users_own(value: Any) -> bool:
    """Return whether a value that a package holds comes from the user's code.

    Args:
        value: what the package holds under a name.
    """
    if type(value) is types.FunctionType:
        return whose(value.__globals__.get("__name__")) == USER
    if type(value) is functools.partial:
        return is_users_own(value.func)
    return whose(module_of(value if issubclass(type(value), type) else type(value))) == USER


def holds_users_own(value: Any) -> bool:
    """Return whether a small container or plain object holds a value from the user's code.

    Args:
        value: what a package holds under a name.
    """
    kind: Any = type(value)
    if issubclass(kind, dict):
        parts = [*dict.keys(value), *dict.values(value)] if len(value) <= MOST_SIMPLE_ITEMS else []
    elif issubclass(kind, SEQUENCES):
        parts = [*value] if kind in PLAIN and len(value) <= MOST_SIMPLE_ITEMS else []
    elif issubclass(kind, (type, types.ModuleType)) or kind in CALLABLE:
        return False
    else:
        parts = list(names_of(value).values())[:MOST_SIMPLE_ITEMS]
    return any(is_users_own(part) for part in parts)


def is_data(value: Any, name: str) -> bool:
    """Return whether a value is data, and small enough to be sent with each call.

    A function under a name that is not its own counts, too.

    Args:
        value: what a package holds.
        name: the name under which the package holds it.
    """
    kind: Any = type(value)
    if issubclass(kind, (dict, *SEQUENCES)):
        # Several names may hold a container of another type; a copy would replace it under one.
        return kind in _DATA and len(value) <= MOST_DATA_ITEMS
    if (kind.__module__, kind.__name__) == ("numpy", "ndarray"):
        return bool(value.nbytes <= MOST_DATA_BYTES)
    if kind in (str, bytes, bytearray):
        return len(value) <= MOST_DATA_BYTES
    if kind in (types.FunctionType, types.MethodType):
        return bool(value.__name__ != name)
    if kind in (types.SimpleNamespace, re.Pattern) or issubclass(type(kind), EnumType):
        return True
    return 0 < len(names_of(value)) <= MOST_SIMPLE_ITEMS and _is_plain_class(kind)


def _is_plain_class(kind: type) -> bool:
    """Return whether a class and its bases come from class statements without pickle methods."""
    classes = mro(kind)[:-1]
    own = ("__reduce_ex__", "__reduce__", "__getstate__", "__setstate__")
    return (
        not issubclass(kind, (type, types.ModuleType))
        and "__dict__" in namespace(classes[-1])
        and not any(name in namespace(base) for base in classes for name in own)
    )


def whose(module: object) -> str:
    """Return the owner of a module, see ``owners``; amorsize's own count as Python's.

    Modules of amorsize hold no state of the user.

    Args:
        module: its name.

    >>> whose("json")
    'python'
    """
    if type(module) is str and module.partition(".")[0] == __name__.partition(".")[0]:
        return PYTHON
    return owner_of(module)
