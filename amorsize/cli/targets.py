"""The function that a command line names: ``package.module:name`` or ``path/to/file.py:name``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

__all__ = ["UsageError", "load_target"]


class UsageError(Exception):
    """The command cannot be carried out as it was given; the message is one line."""


def load_target(text: str) -> Callable[..., Any]:
    """Return the function that a text names.

    Args:
        text: ``package.module:function`` or ``path/to/file.py:function``; the function may be an
            attribute of a class.

    Raises:
        UsageError: there is no such module, file or function.
        Exception: whatever the module raises as it is imported.

    >>> load_target("math:sqrt")(9)
    3.0
    """
    place, colon, path = text.rpartition(":")
    if not colon or not place or not path:
        raise UsageError(
            f"{text!r} is no target: say package.module:function or path/to/file.py:function"
        )
    if place.endswith(".py") or os.sep in place:
        found: Any = _module_of_file(place)
    else:
        found = _module_named(place)
    for name in path.split("."):
        if not hasattr(found, name):
            raise UsageError(f"{place} has no {path!r}{_meant(name, dir(found))}")
        found = getattr(found, name)
    if not callable(found):
        raise UsageError(f"{text!r} is no function: it is {found!r:.60}")
    function: Callable[..., Any] = found
    return function


def _meant(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _module_named(name: str) -> ModuleType:
    """Return a module, which may be in the working directory."""
    with suppress(FileNotFoundError):  # the working directory was removed
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{name!r} is no name of a module")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that this one needs
        raise UsageError(f"there is no module {error.name!r} here, nor installed") from error


def _module_of_file(path: str) -> ModuleType:
    """Return a file as a module, which may import others of its folder.

    Modules of Python itself come first: the file may have the name of one.
    """
    if not os.path.isfile(path):
        raise UsageError(f"there is no file {path!r}")
    full = os.path.abspath(path)
    libraries = (place for place, one in enumerate(sys.path) if "site-packages" in one)
    sys.path.insert(next(libraries, len(sys.path)), os.path.dirname(full))
    name = os.path.splitext(os.path.basename(full))[0]
    taken = name in sys.modules or name in sys.stdlib_module_names
    name = name if name.isidentifier() and not taken else f"_amorsize_{name}"
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
