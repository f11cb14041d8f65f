"""Find the files of modules that another process cannot import by name.

A module that was loaded from a path, or whose folder is no longer in ``sys.path``, is in
``sys.modules`` here, but a fresh process cannot import it. Its file still exists, so the module is
sent as its name and its file.
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
    """The location of a module that cannot be imported by name.

    Attributes:
        name: its name.
        file: its file.
        folders: the folders of its submodules, if it is a package.
        parent: its package, if the package cannot be imported by name either.
    """

    name: str
    file: str
    folders: tuple[str, ...] = ()
    parent: Home | None = None


def home_of(name: str) -> Home | None:
    """Return the home of a loaded module that cannot be imported by name, else None.

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
    """Return whether a module was made at run time, so that no process can import it."""
    name = module.__name__
    return name != "__main__" and (sys.modules.get(name) is not module or module.__spec__ is None)


def module_at(home: Home) -> types.ModuleType:
    """Return a module; load it from its file if it is not loaded.

    Args:
        home: the module's home.

    Raises:
        ImportError: the module cannot be loaded here.
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
    except BaseException:  # also sys.exit(): a half-loaded module must not stay in sys.modules
        sys.modules.pop(name, None)
        raise
    if package is not None:
        setattr(package, name.rpartition(".")[2], module)
    return module


def value_at(home: Home, path: str) -> Any:
    """Return the value that a module holds under a qualified name.

    Args:
        home: the module's home.
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
