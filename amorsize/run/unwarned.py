"""Fork without Python's warning about other threads, which the user could do nothing about."""

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

# The warning of Python 3.12 and later about a fork in a process with other threads.
# ``measure.forking`` has already decided whether the fork is safe.
_WARNING = re.compile("This process .*is multi-threaded, use of fork")


@contextlib.contextmanager
def fork_unwarned() -> Iterator[None]:
    """Suppress the warning about other threads; a worker that is forked here calls ``rewarn``."""
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
    """Remove the filter for the warning about other threads."""
    filters: Any = warnings.filters
    filters[:] = [entry for entry in filters if entry[1] is not _WARNING]
