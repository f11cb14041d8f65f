"""Forking without Python's warning of other threads, which the user could do nothing about."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["fork_unwarned", "rewarn"]

# What Python 3.12 and later say of a fork beside other threads. Whether that is safe is decided
# before (``measure.forking``).
_WARNING = re.compile("This process .*is multi-threaded, use of fork")


@contextlib.contextmanager
def fork_unwarned() -> Iterator[None]:
    """Keep Python from warning of other threads; a worker forked meanwhile calls ``rewarn``."""
    if sys.version_info < (3, 12):
        yield
        return
    filters: Any = warnings.filters
    filters.insert(0, ("ignore", _WARNING, DeprecationWarning, None, 0))
    try:
        yield
    finally:
        rewarn()


def rewarn() -> None:
    """Take the filter for that warning away again."""
    filters: Any = warnings.filters
    filters[:] = [entry for entry in filters if entry[1] is not _WARNING]
