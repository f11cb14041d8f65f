"""Looking at modules that may or may not be loaded, without loading or disturbing them."""

from __future__ import annotations

import importlib
import sys
import types

from .signals import held_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["load", "loaded"]


def loaded(name: str) -> Any:
    """Return a module that has been imported to its end, None for any other.

    A module is in ``sys.modules`` from the moment its import begins; another thread that takes it
    from there sees half of it. Tests put stand-ins there, and lazy modules are not loaded yet.

    Args:
        name: full name of the module.

    >>> loaded("sys") is sys
    True
    """
    module = sys.modules.get(name)
    # No more than looked at: what stands there may be anything, and raise when it is asked.
    spec = vars(module).get("__spec__") if type(module) is types.ModuleType else None
    return None if spec is None or getattr(spec, "_initializing", False) else module


def load(name: str) -> Any:
    """Return a module, importing it if need be, without a signal's handler cutting in.

    A handler that maps would find the module half imported by its own thread.

    Args:
        name: full name of the module.
    """
    module = loaded(name)
    if module is None:
        with held_signals():
            module = importlib.import_module(name)
    return module
