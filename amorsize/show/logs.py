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
    logger = _logger()
    if logger is not None:
        logger.info("%s: %s", name, text())


def announce(
    name: str, report: Callable[[], RunReport], error: BaseException | None, *, decided: bool
) -> None:
    """Tell the logger, and OpenTelemetry where the program uses it, what came of a call.

    Args:
        name: name of the function.
        report: gives the report.
        error: what ended the call; None for nothing.
        decided: whether the decision was logged.
    """
    logger = _logger()
    if logger is not None:
        if not decided:
            logger.info("%s: in the calling process: %s", name, report().reason)
        if logger.isEnabledFor(_DEBUG):
            logger.debug("%s", report().explain())
    trace = loaded("opentelemetry.trace")
    if trace is not None:
        from .spans import emit_spans

        emit_spans(trace, report, None if isinstance(error, GeneratorExit) else error)


_known: list[Any] = []  # the logger, once ``logging`` is loaded: to look it up takes 0.5 us


def _logger() -> Any:
    """Return the logger if it takes records at INFO, else None; ``logging`` takes 5 ms to load."""
    verbose = os.environ.get("AMORSIZE_VERBOSE", "0")
    if verbose not in ("", "0"):
        _set_up(load("logging"), verbose)
    if not _known:
        logging = loaded("logging")
        if logging is None:
            return None
        _known.append(logging.getLogger("amorsize"))
    return _known[0] if _known[0].isEnabledFor(_INFO) else None


def _set_up(logging: Any, verbose: str) -> None:
    """Give the logger a handler if the program has none for it."""
    logger = logging.getLogger("amorsize")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("amorsize: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(_INFO if verbose == "1" else _DEBUG)
