"""Whose code is it: the user's, which is walked, or a library's, which has a name and a version."""

from __future__ import annotations

import functools
import sys

__all__ = ["is_users", "version"]


@functools.lru_cache(maxsize=4096)
def _is_installed(module: str, file: str | None) -> bool:
    """Return whether a module comes with Python or an installed package, not from the user."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return top != "__main__"
    if file is None:
        return False
    return "site-packages" in file or "dist-packages" in file


def is_users(module: str | None) -> bool:
    """Return whether a module is the user's own: neither Python's nor an installed package's."""
    if module is None:
        return True
    if module in ("__main__", "__mp_main__"):
        return True
    loaded = sys.modules.get(module)
    return not _is_installed(module, getattr(loaded, "__file__", None))


@functools.lru_cache(maxsize=1024)
def version(module: str) -> str:
    """Return the version of the package a library module belongs to; Python's own have none.

    The interpreter's minor version is part of every fingerprint already.
    """
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return ""
    version = getattr(sys.modules.get(top), "__version__", None)
    if isinstance(version, str):
        return version
    from importlib import metadata  # 10 ms, and few packages lack __version__

    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        return ""
