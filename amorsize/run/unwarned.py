"""Fork without Python's warning about other threads, which the user could do nothing about."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..versions import WARNS_OF_FORKS, warning_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["fork_unwarned", "rewarn"]


class _Warning:
    """Matches the warning of Python 3.12 and later about a fork in a process with other threads.

    ``measure.forking`` has already decided whether the fork is safe. A filter of warnings usually
    has a regular expression; ``re`` takes 3 ms to load.
    """

    def match(self, text: str) -> bool:
        """Return whether a text is that warning."""
        return text.startswith("This process ") and "is multi-threaded, use of fork" in text


_WARNING = _Warning()


@contextlib.contextmanager
def fork_unwarned() -> Iterator[None]:
    """Suppress the warning about other threads; a worker that is forked here calls ``rewarn``."""
    if not WARNS_OF_FORKS:
        yield
        return
    # From 3.15 on ``os.fork`` raises the warning, where warnings are errors, once the child exists.
    filters = warning_filters()
    filters.insert(0, ("ignore", _WARNING, DeprecationWarning, None, 0))
    try:
        yield
    finally:
        _remove_from(filters)


def rewarn() -> None:
    """Remove the filter for the warning about other threads."""
    _remove_from(warning_filters())


def _remove_from(filters: list[Any]) -> None:
    filters[:] = [entry for entry in filters if entry[1] is not _WARNING]
