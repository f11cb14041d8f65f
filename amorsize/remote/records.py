"""Log records of chunks on another engine: collected while a chunk runs, and sent with its answer.

The process belongs to the engine, with its own loggers and handlers, which are left alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..run.logs import Logs, pickled_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

__all__ = ["collected"]

# Most records of a chunk; what a function logs for each item must not fill the answer.
MOST_RECORDS = 10_000


@contextmanager
def collected(settings: Logs | None, out: list[bytes]) -> Iterator[None]:
    """Collect what this thread logs, under the caller's levels.

    Args:
        settings: the caller's settings; None where nothing differs from a fresh interpreter's.
        out: takes the pickled records.
    """
    if settings is None:
        yield
        return
    import logging

    me = threading.get_ident()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == me and len(out) < MOST_RECORDS:
                out.append(pickled_record(self, record))

    handler = Collector()
    for name, wanted in settings.loggers.items():
        _raise(logging.getLogger(name or None), wanted.level)
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
        for name in settings.loggers:
            _lower(logging.getLogger(name or None))


_lock = threading.Lock()
_levels: dict[
    str, list[int]
] = {}  # of loggers with a caller's level: how many chunks, level before


def _raise(logger: logging.Logger, level: int) -> None:
    """Give a logger the level of the caller while any chunk needs it."""
    with _lock:
        held = _levels.setdefault(logger.name, [0, logger.level])
        held[0] += 1
        logger.setLevel(level)


def _lower(logger: logging.Logger) -> None:
    """Give a logger its own level back, after the last chunk."""
    with _lock:
        held = _levels[logger.name]
        held[0] -= 1
        if not held[0]:
            logger.setLevel(_levels.pop(logger.name)[1])
