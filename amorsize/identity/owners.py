"""The owner of code: the user, whose code is walked, or a library with a name and a version.

A module's file decides, not its name: a ``queue.py`` of the user is the user's. Nothing here gets
an attribute of a module, since that makes a lazy module load itself. The module's dictionary is
read directly instead. Any other object in ``sys.modules`` counts as a module without a file.
"""

from __future__ import annotations

import functools
import os
import sys

from .looking import namespace_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "LIBRARY",
    "PYTHON",
    "USER",
    "is_users",
    "owner",
    "owner_of_file",
    "version",
]

USER, LIBRARY, PYTHON = "user", "library", "python"

_MAIN = frozenset({"__main__", "__mp_main__"})
_ITS_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_REALLY_ITS_OWN = os.path.realpath(_ITS_OWN) + os.sep
# Folders that only installers write to; wheels and eggs can be imported without installing.
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_ARCHIVES = (".whl", ".egg")
_ZIPPED_PYTHON = "python{}{}.zip".format(*sys.version_info[:2])
_CYTHON = "_cython_"  # prefix of modules that Cython makes; they have no file


def owner(module: object) -> str:
    """Return the owner of a module: ``USER``, ``LIBRARY`` (installed) or ``PYTHON``.

    Args:
        module: its name; anything but a text counts as the user's.
    """
    if type(module) is not str or module in _MAIN:
        return USER
    namespace = namespace_of(sys.modules.get(module))
    return _owner(module, _text(namespace.get("__file__")) or _place(namespace))


def owner_of_file(module: str, file: str) -> str:
    """Return the owner of a module that is not loaded, from the place of its file."""
    return _owner(module, file)


def is_users(module: object) -> bool:
    """Return whether a module is the user's own: neither Python's nor an installed package's."""
    return owner(module) == USER


def _text(value: object) -> str:
    return value if type(value) is str else ""


def _place(namespace: dict[str, Any]) -> str:
    """Return the first folder of a namespace package (it has no file), "" for other modules."""
    path = namespace.get("__path__")
    if path is None:
        return ""
    try:
        return os.path.join(_text(next(iter(path))), "")
    except Exception:  # noqa: BLE001 - anything may call itself a path, and raise when looked at
        return ""


@functools.lru_cache(maxsize=4096)
def _owner(module: str, file: str) -> str:
    if not file:
        return _owner_without_file(module)
    if file.startswith(_ITS_OWN):
        return LIBRARY
    parts = file.replace("\\", "/").split("/")[:-1]
    if not _INSTALLED.isdisjoint(parts) or any(part.endswith(_ARCHIVES) for part in parts):
        return LIBRARY
    top = module.partition(".")[0]
    # An application frozen into one folder has its own modules beside Python's.
    if _is_a_name_of_pythons(top) and _is_in_pythons_folder(file, parts):
        return PYTHON
    if os.path.realpath(file).startswith(_REALLY_ITS_OWN):
        return LIBRARY
    return LIBRARY if _is_put_there(top, file) else USER


def _is_in_pythons_folder(file: str, parts: list[str]) -> bool:
    """Return whether a file belongs to the standard library, directly or through links."""
    if _ZIPPED_PYTHON in parts or file.startswith(_python_folders()):
        return True
    real = os.path.realpath(file)
    return real.startswith(_real_python_folders()) and _INSTALLED.isdisjoint(real.split(os.sep))


def _owner_without_file(module: str) -> str:
    """Return the owner of a module that is built in, frozen, made at run time or not loaded."""
    top, _, rest = module.partition(".")
    if rest and namespace_of(sys.modules.get(top)):
        return owner(module.rpartition(".")[0])
    if top.startswith(_CYTHON):
        return LIBRARY
    return PYTHON if _is_a_name_of_pythons(top) else USER


def _is_a_name_of_pythons(top: str) -> bool:
    return top in sys.stdlib_module_names or top in sys.builtin_module_names


@functools.cache
def _python_folders() -> tuple[str, ...]:
    """Return the standard library's folders.

    ``sysconfig`` knows them, too, but takes 5 ms.
    """
    own = "python{}.{}".format(*sys.version_info[:2])
    folders = {os.path.dirname(_text(namespace_of(os).get("__file__")))}
    for prefix in (sys.base_prefix, sys.base_exec_prefix):
        if os.name == "nt":
            folders |= {os.path.join(prefix, "Lib"), os.path.join(prefix, "DLLs")}
        else:
            folders |= {os.path.join(prefix, lib, own) for lib in ("lib", sys.platlibdir)}
    return tuple(os.path.join(folder, "") for folder in folders if folder)


@functools.cache
def _real_python_folders() -> tuple[str, ...]:
    return tuple({os.path.join(os.path.realpath(folder), "") for folder in _python_folders()})


# Packages outside site-packages -------------------------------------------------------------


def _is_put_there(top: str, file: str) -> bool:
    """Return whether an installer put a package into its folder (``pip install --target``).

    The installer leaves a list of its files beside the package. An editable package lies in another
    folder than its list, and is the user's.
    """
    folder = _folder_of(top, file)
    return any(
        _plain(name.partition("-")[0]) == _plain(top) or _lists(os.path.join(folder, name), top)
        for name in _distributions(folder)
    )


def _folder_of(top: str, file: str) -> str:
    """Return the folder that a top-level package or module lies in."""
    head, mark, _ = file.replace("\\", "/").rpartition(f"/{top}/")
    return head if mark else os.path.dirname(file)


@functools.lru_cache(maxsize=64)
def _distributions(folder: str) -> tuple[str, ...]:
    """Return the names of the ``.dist-info`` folders in a folder."""
    try:
        return tuple(name for name in os.listdir(folder or ".") if name.endswith(".dist-info"))
    except OSError:
        return ()


def _lists(distribution: str, top: str) -> bool:
    """Return whether a distribution's list of files names a package or module."""
    begins = (f"{top}/", f"{top}.", f"{top}\\")
    try:
        with open(os.path.join(distribution, "RECORD"), encoding="utf-8", errors="replace") as file:
            return any(line.startswith(begins) for line in file)
    except OSError:
        return False


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


@functools.lru_cache(maxsize=1024)
def version(module: str) -> str:
    """Return the version of the package a library module belongs to; "" for Python's modules.

    The interpreter's minor version is part of every fingerprint already. A package without a
    ``__version__`` has its version in the name of the ``.dist-info`` folder beside it.
    ``importlib.metadata`` knows it, too, but takes 10 ms to import.
    """
    top = module.partition(".")[0]
    if owner(top) == PYTHON:
        return ""
    namespace = namespace_of(sys.modules.get(top))
    said = _text(namespace.get("__version__"))
    if said:
        return said
    file = _text(namespace.get("__file__"))
    for name in _distributions(_folder_of(top, file)) if file else ():
        distribution, _, rest = name.removesuffix(".dist-info").partition("-")
        if _plain(distribution) == _plain(top):
            return rest
    return ""
