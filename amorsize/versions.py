"""What differs between the versions of Python that amorsize runs on, each line with its reason."""

from __future__ import annotations

import os
import sys
import types
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "CLEARS_ATEXIT",
    "DEDENTS_DOCSTRINGS",
    "DEFAULT_ON_LINUX",
    "FLAGS_DOCSTRINGS",
    "FREE_THREADED",
    "IMPORT_SHIFT",
    "KNOWS_BYTECODE",
    "MAPPING_OPTIONS",
    "NAME",
    "SUBSCRIPT",
    "WARNS_OF_FORKS",
    "global_of",
    "warning_filters",
]

_VERSION = sys.version_info[:2]

NAME = "{}.{}".format(*_VERSION)

# Whether this is the free-threaded build. There ``gc.get_objects`` does not always list all objects
# (seen in forked children, 3.13.5).
FREE_THREADED = "t" in getattr(sys, "abiflags", "")

# Bytecode ------------------------------------------------------------------------------------

# ``identity.codes`` reads bytecode. Its reading is tested against ``dis`` up to this version; what
# the instructions of a later one mean is not known.
KNOWS_BYTECODE = _VERSION <= (3, 15)

# The argument of IMPORT_NAME is the index of a name. From 3.15 on its two lowest bits say whether
# the import is lazy (PEP 810).
IMPORT_SHIFT = 2 if _VERSION >= (3, 15) else 0

# From 3.14 on a code object's flags say whether its first constant is a docstring. 0: they do not.
FLAGS_DOCSTRINGS = 0x4000000 if _VERSION >= (3, 14) else 0

# From 3.14 on an index is a binary operator with this number; before, an instruction of its own.
SUBSCRIPT = 26

# Since 3.13 the compiler removes the indentation of docstrings.
DEDENTS_DOCSTRINGS = _VERSION >= (3, 13)

# Lazy imports (PEP 810, 3.15): until its first use, a global may hold an object of this type in
# place of what was imported.
_LAZY: Any = getattr(types, "LazyImportType", None)


def global_of(names: dict[str, Any], name: str, default: Any = None) -> Any:
    """Return a global; a lazy import is carried out first, and stored as the interpreter does.

    Only for globals that the code to be run uses: it would import them at its first item. An import
    that fails is left to that item, so the lazy object itself is returned.

    Args:
        names: a module's dictionary.
        name: the global.
        default: returned if there is no such global.

    >>> global_of({"k": 3}, "k")
    3
    """
    value = names.get(name, default)
    if _LAZY is not None and type(value) is _LAZY:
        with suppress(Exception):  # modules may raise anything
            value = names[name] = value.resolve()
    return value


# Warnings ------------------------------------------------------------------------------------


def warning_filters() -> Any:
    """Return the list of filters for warnings that is in force here.

    Since 3.14 each context may have its own (``-X context_aware_warnings``).
    """
    import warnings

    found = getattr(warnings, "_get_filters", None)
    return warnings.filters if found is None else found()


# Processes -----------------------------------------------------------------------------------

# The start method of multiprocessing on Linux: fork is no longer the default from 3.14 on.
DEFAULT_ON_LINUX = "fork" if _VERSION < (3, 14) else "forkserver"

# Since 3.12 ``os.fork`` warns if the process has other threads.
WARNS_OF_FORKS = _VERSION >= (3, 12)

# Since 3.13 a process of multiprocessing runs the functions that its code has registered with
# atexit.
CLEARS_ATEXIT = _VERSION >= (3, 13)

# On Unix a mapping of ``mmap`` keeps a file descriptor open; since 3.13 it need not.
_MAY_UNTRACK = _VERSION >= (3, 13) and os.name == "posix"
MAPPING_OPTIONS: dict[str, Any] = {"trackfd": False} if _MAY_UNTRACK else {}
