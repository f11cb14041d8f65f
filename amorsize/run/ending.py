"""What a process does before it ends or is forked: flush its streams, run its finalizers."""

from __future__ import annotations

import sys
from contextlib import suppress

from ..lookup import loaded

__all__ = ["flush_streams", "run_finalizers"]


def flush_streams() -> None:
    """Flush the standard output and error streams."""
    for stream in (sys.stdout, sys.stderr):
        # The stream may be None, closed, replaced, or no longer read. No item is to blame for that.
        with suppress(AttributeError, ValueError, OSError):
            stream.flush()


def run_finalizers() -> None:
    """Run the finalizers of multiprocessing, if the user's code has loaded it."""
    util = loaded("multiprocessing.util")
    if util is not None:
        util._exit_function()
