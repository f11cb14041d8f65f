"""What the logger ``amorsize`` is told of a call: a line at INFO, the whole report at DEBUG.

Nothing is shown unless the program has set logging up, or ``AMORSIZE_VERBOSE`` is set.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from ..lookup import load, loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .report import RunReport

__all__ = ["announce", "log_decision"]

_INFO, _DEBUG = 20, 10
_OFF = frozenset({"0", "false", "no", "off"})
_setting_up = threading.Lock()


def _renew() -> None:
    global _setting_up  # noqa: PLW0603 - in a forked child, a thread that is not there may hold it
    _setting_up = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


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

        try:
            emit_spans(trace, report, None if isinstance(error, GeneratorExit) else error)
        except Exception:  # noqa: BLE001 - of an exporter, or the text of a user's exception
            load("logging").getLogger("amorsize").warning(
                "the spans of a call could not be emitted", exc_info=True
            )


_known: list[Any] = []  # the logger, once ``logging`` is loaded: to look it up takes 0.5 us


def _logger() -> Any:
    """Return the logger if it takes records at INFO, else None; ``logging`` takes 5 ms to load."""
    verbose = os.environ.get("AMORSIZE_VERBOSE", "")
    if verbose and verbose.lower() not in _OFF:
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
    with _setting_up:
        if not logger.hasHandlers():
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("amorsize: %(message)s"))
            logger.addHandler(handler)
            logger.setLevel(_DEBUG if verbose.lower() in ("2", "debug") else _INFO)
