"""What the logger ``amorsize`` is told of a call: a line at INFO, the whole report at DEBUG.

Nothing is shown unless the program has set logging up, or ``AMORSIZE_VERBOSE`` is set.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ..lookup import load, loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .report import RunReport

__all__ = ["announce", "log_decision"]

_INFO, _DEBUG = 20, 10


def log_decision(name: str, text: Callable[[], str]) -> None:
    """Log how a call runs, and why.

    Args:
        name: name of the function.
        text: gives the text.
    """
    logger = _logger(_INFO)
    if logger is not None:
        logger.info("%s: %s", name, text())


def announce(report: Callable[[], RunReport], error: BaseException | None) -> None:
    """Tell the logger, and OpenTelemetry where the program uses it, what came of a call.

    Args:
        report: gives the report.
        error: what ended the call; None for nothing.
    """
    logger = _logger(_DEBUG)
    if logger is not None:
        logger.debug("%s", report().explain())
    trace = loaded("opentelemetry.trace")
    if trace is not None:
        from .spans import emit_spans

        emit_spans(trace, report, None if isinstance(error, GeneratorExit) else error)


def _logger(level: int) -> Any:
    """Return the logger if it takes records of a level, else None; ``logging`` takes 5 ms to load.

    Args:
        level: the level.
    """
    verbose = os.environ.get("AMORSIZE_VERBOSE", "0")
    logging = loaded("logging")
    if verbose in ("", "0"):
        if logging is None:
            return None
        logger = logging.getLogger("amorsize")
    else:
        logger = _verbose_logger(load("logging"), verbose)
    return logger if logger.isEnabledFor(level) else None


def _verbose_logger(logging: Any, verbose: str) -> Any:
    """Return the logger, with a handler if the program has none for it."""
    logger = logging.getLogger("amorsize")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("amorsize: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(_INFO if verbose == "1" else _DEBUG)
    return logger
