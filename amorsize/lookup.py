"""Look up modules that may not be loaded, and import modules without interruption by signals."""

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
    """Return a module whose import has finished, None for any other; never import it.

    A module is in ``sys.modules`` as soon as its import begins, so another thread may find it half
    imported there. Tests put stand-ins there, and lazy modules are not loaded yet.

    Args:
        name: full name of the module.

    >>> loaded("sys") is sys
    True
    """
    module = sys.modules.get(name)
    # Access no attribute: the entry may be any object, and its attributes may raise.
    spec = vars(module).get("__spec__") if type(module) is types.ModuleType else None
    return None if spec is None or getattr(spec, "_initializing", False) else module


def load(name: str) -> Any:
    """Return a module; import it if needed, with signals held back.

    A signal handler that calls amorsize would otherwise find the module half imported.

    Args:
        name: full name of the module.
    """
    module = loaded(name)
    if module is None:
        with held_signals():
            module = importlib.import_module(name)
    return module
