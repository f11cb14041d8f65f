"""Modules that a function imports when it runs: their names, and the source of unloaded ones.

A module that is not loaded yet has no values to encode, and must not be imported just for that. Its
source is encoded instead.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from itertools import accumulate

from .codes import hash_of
from .owners import USER, owner, owner_of_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["places_of", "source_of"]

MOST_SOURCE_BYTES = 1_000_000


def places_of(namespace: dict[str, Any], name: str) -> Iterator[str]:
    """Yield the full names of the modules that an import may mean, and of their packages.

    Args:
        namespace: globals of the module whose code imports.
        name: the name in the code; a relative name without its dots.

    >>> list(places_of({"__package__": "a.b"}, "c.d"))
    ['c', 'c.d', 'a.c', 'a.c.d', 'a.b.c', 'a.b.c.d']
    """
    package = namespace.get("__package__")
    packages = ["", *accumulate(package.split("."), "{}.{}".format)] if package else [""]
    parts = list(accumulate(filter(None, name.split(".")), "{}.{}".format)) or [""]
    for one in packages:
        for part in parts:
            full = f"{one}.{part}".strip(".")
            if full:
                yield full


def source_of(module: str) -> bytes:
    """Return a hash of the source of a user's module, without importing anything.

    Args:
        module: its full name.

    Returns:
        A hash of the file; empty for a module of Python or of an installed package, and for one
        that is not found on ``sys.path``.
    """
    if owner(module) != USER:
        return b""
    file = _file_of(module, tuple(sys.path))
    if not file or owner_of_file(module, file) != USER:
        return b""
    try:
        found = os.stat(file)
        return _hash_of_file(file, found.st_mtime_ns, found.st_size)
    except OSError:
        return b""


@functools.lru_cache(maxsize=256)
def _file_of(module: str, path: tuple[str, ...]) -> str:
    """Return the file of a module's source, "" if it is not found."""
    from importlib.machinery import PathFinder

    places, spec = list(path), None
    for full in accumulate(module.split("."), "{}.{}".format):
        try:
            spec = PathFinder.find_spec(full, places)
        except Exception:  # noqa: BLE001 - finders of other packages may be asked, and raise anything
            return ""
        if spec is None:
            return ""
        places = list(spec.submodule_search_locations or ())
    return str(spec.origin) if spec is not None and spec.has_location else ""


@functools.lru_cache(maxsize=256)
def _hash_of_file(file: str, changed: int, size: int) -> bytes:
    with open(file, "rb") as source:
        return hash_of(source.read(MOST_SOURCE_BYTES))
