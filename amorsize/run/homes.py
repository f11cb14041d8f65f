"""Where modules come from, so that another process finds those that their names do not lead to.

A module that was loaded from a path, or whose folder has left ``sys.path``, is in ``sys.modules``
here and nowhere in a fresh process. Its file is: so it travels as its name and its file.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import types

from ..tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Home", "home_of", "is_dynamic", "module_at", "value_at"]


class Home(NamedTuple):
    """Where a module lies that its name does not lead to.

    Attributes:
        name: its name.
        file: its file.
        folders: of its submodules, if it is a package.
        parent: the package it is in, where that is not found by its name either.
    """

    name: str
    file: str
    folders: tuple[str, ...] = ()
    parent: Home | None = None


def home_of(name: str) -> Home | None:
    """Return where a loaded module lies if its name does not lead there, else None.

    Args:
        name: the module's name.
    """
    spec = getattr(sys.modules.get(name), "__spec__", None)
    origin = getattr(spec, "origin", None)
    if type(origin) is not str or not getattr(spec, "has_location", False):
        return None
    folders = tuple(getattr(spec, "submodule_search_locations", None) or ())
    if _leads_to(name, origin, tuple(map(str, sys.path))) or not os.path.isfile(origin):
        return None
    return Home(name, origin, folders, home_of(name.rpartition(".")[0]))


def is_dynamic(module: types.ModuleType) -> bool:
    """Return whether a module was made by hand: no import in another process gives it."""
    name = module.__name__
    return name != "__main__" and (sys.modules.get(name) is not module or module.__spec__ is None)


def module_at(home: Home) -> types.ModuleType:
    """Return a module, from its file unless it is loaded.

    Args:
        home: its name, file and folders.

    Raises:
        ImportError: it cannot be loaded here.
    """
    name, file, folders, parent = home
    known = sys.modules.get(name)
    if known is not None:
        return known
    package = None if parent is None else module_at(parent)
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=list(folders) or None
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no module can be loaded from {file}", name=name, path=file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:  # also sys.exit(): a module half loaded must not be found by its name
        sys.modules.pop(name, None)
        raise
    if package is not None:
        setattr(package, name.rpartition(".")[2], module)
    return module


def value_at(home: Home, path: str) -> Any:
    """Return what a module holds under a qualified name.

    Args:
        home: the module.
        path: the qualified name.
    """
    return functools.reduce(getattr, path.split("."), module_at(home))


@functools.lru_cache(maxsize=1024)
def _leads_to(name: str, origin: str, path: tuple[str, ...]) -> bool:
    """Return whether a fresh process with this ``sys.path`` would find the module by its name."""
    parent, _, own = name.rpartition(".")
    if parent:
        if home_of(parent) is not None:
            return False
        folders: tuple[str, ...] | None = tuple(getattr(sys.modules.get(parent), "__path__", ()))
    else:
        folders = None
    folder, file = os.path.split(origin)
    if file.startswith("__init__."):
        folder, file = os.path.split(folder)
    places = path if folders is None else folders
    if file.partition(".")[0] == own and folder in {os.path.abspath(place) for place in places}:
        return True
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = None if find is None else find(name, folders)
        if spec is not None:
            return bool(spec.origin == origin)
    return False
