"""The caller's current globals, for workers that import their own copies of its modules.

A function of a module travels by name. A worker that imports the module sees the values its source
gives, and a worker kept from an earlier call those of that call; ``map`` in the caller would use
what is there now. So the values a function uses are sent along, and set before it runs.
"""

from __future__ import annotations

import importlib
import sys
import types

from ..decide.fingerprint import Uses
from ..errors import SerializationError
from .transport import dumps_by_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Value", "adopt", "current_values", "those_that_travel"]

Value = tuple["str | type", str, object]

# Parts of a class that its statement makes and nobody assigns to.
_MADE = (
    property,
    staticmethod,
    classmethod,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.ModuleType,
)


def current_values(uses: Uses) -> tuple[Value, ...]:
    """Return those values a function uses that an import need not give as they are now.

    Args:
        uses: what the function uses.
    """
    return tuple(value for value in uses.values if _may_differ(*value))


def those_that_travel(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return the values that can be pickled; of a lock or a file a worker keeps its own."""
    found = []
    for value in values:
        try:
            dumps_by_value(value, [])
        except SerializationError:
            continue
        found.append(value)
    return tuple(found)


def adopt(values: tuple[Value, ...]) -> None:
    """Set the values in this process.

    Raises:
        ImportError: a module that is the caller's cannot be imported here.
    """
    for owner, name, value in values:
        if isinstance(owner, type):
            setattr(owner, name, value)
        else:
            vars(sys.modules.get(owner) or importlib.import_module(owner))[name] = value


def _may_differ(owner: str | type, name: str, value: Any) -> bool:
    if isinstance(value, _MADE) or (name.startswith("__") and name.endswith("__")):
        return False
    if isinstance(owner, type):
        # Metaclasses (of enums, say) have their own idea of assigning; other classes travel whole.
        if type(owner) is not type or not _is_importable(owner):
            return False
        home, path = owner.__module__, f"{owner.__qualname__}.{name}"
    else:
        home, path = owner, name
    own = (getattr(value, "__module__", None), getattr(value, "__qualname__", None))
    return own != (home, path)


def _is_importable(cls: type) -> bool:
    value: Any = sys.modules.get(cls.__module__)
    if cls.__module__ == "__main__" or value is None:
        return False
    for part in cls.__qualname__.split("."):
        value = getattr(value, part, None)
    return value is cls
