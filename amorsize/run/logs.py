"""Log records of workers: made under the caller's settings, handled by the caller's handlers.

A fresh worker has no handlers, and the default levels. It gets the caller's levels. If any logger
of the caller has handlers, the worker also gets a handler that sends each record to the caller. The
caller passes the record to the logger of the same name, as if the record had been made there.

A forked worker has the caller's handlers. Handlers that write to a file or stream work in the
worker too. Others keep records in memory, or pass them to a thread, so that copies of these
handlers would lose the records. If there is any such handler, the worker sends its records to the
caller instead.
"""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import copy
from collections.abc import Callable, Iterator
from contextlib import suppress

from ..lookup import loaded
from ..tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any

__all__ = [
    "FRESH",
    "Logs",
    "handle",
    "leave_to_caller",
    "pickled_record",
    "read",
    "relay_to",
    "write",
]


class Logger(NamedTuple):
    """The settings of one logger.

    Attributes:
        level: its own level.
        propagates: whether its records also go to the loggers above it.
        disabled: whether the logger is disabled.
        handled: whether it has handlers.
    """

    level: int
    propagates: bool
    disabled: bool
    handled: bool


class Logs(NamedTuple):
    """The settings of the module ``logging``.

    Attributes:
        loggers: settings by logger name, "" for the root; loggers with default settings are left
            out.
        disabled: the level up to which all logging is disabled.
        levels: names of levels that differ from the default ones.
        captures: whether warnings are logged.
    """

    loggers: dict[str, Logger]
    disabled: int
    levels: dict[int, str]
    captures: bool


_NEW = Logger(0, propagates=True, disabled=False, handled=False)
_NEW_ROOT = Logger(30, propagates=True, disabled=False, handled=False)
_USUAL = {50: "CRITICAL", 40: "ERROR", 30: "WARNING", 20: "INFO", 10: "DEBUG", 0: "NOTSET"}

FRESH = Logs({}, 0, {}, captures=False)


def read() -> Logs:
    """Return the current settings."""
    import logging

    loggers = {name: _settings(logger) for name, logger in _loggers().items()}
    return Logs(
        {name: one for name, one in loggers.items() if one != (_NEW if name else _NEW_ROOT)},
        logging.root.manager.disable,
        {k: v for k, v in logging._levelToName.items() if _USUAL.get(k) != v},
        logging._warnings_showwarning is not None,  # type: ignore[attr-defined]
    )


def _loggers() -> dict[str, logging.Logger]:
    """Return all loggers by name, the root as ""."""
    import logging

    found = {"": logging.root, **logging.root.manager.loggerDict}
    return {name: one for name, one in found.items() if isinstance(one, logging.Logger)}


def _settings(logger: logging.Logger) -> Logger:
    return Logger(logger.level, logger.propagate, logger.disabled, bool(logger.handlers))


def write(logs: Logs) -> None:
    """Apply the caller's settings in this worker."""
    import logging

    for name in read().loggers.keys() - logs.loggers.keys():
        _set(name, _NEW if name else _NEW_ROOT)
    for name, settings in logs.loggers.items():
        _set(name, settings)
    _relay_at_tops({name for name, settings in logs.loggers.items() if settings.handled})
    logging.disable(logs.disabled)
    for level in read().levels.keys() - logs.levels.keys():
        logging._nameToLevel.pop(logging._levelToName.pop(level), None)
    for level, text in {**_USUAL, **logs.levels}.items():
        logging.addLevelName(level, text)
    logging.captureWarnings(logs.captures)


def _set(name: str, settings: Logger) -> None:
    import logging

    logger = logging.getLogger(name or None)
    logger.setLevel(settings.level)
    logger.propagate, logger.disabled = settings.propagates, settings.disabled
    # Handlers that a user's module adds while it is loaded exist in the caller too.
    logger.handlers.clear()


_handled: set[str] = set()  # in a worker: names of the caller's loggers that have handlers


def _relay_at_tops(handled: set[str]) -> None:
    """Send records from the topmost logger they propagate to, so that each is sent once.

    Args:
        handled: names of the caller's loggers that have handlers.
    """
    import logging

    _handled.clear()
    _handled.update(handled)
    for logger in _loggers().values() if handled else ():
        if logger is logging.root or not logger.propagate:
            logger.handlers[:] = [_relay()]


def leave_to_caller() -> None:
    """Send this forked worker's records to the caller, if a handler would lose them here."""
    if loaded("logging") is None:
        return
    loggers = _loggers()
    if all(_writes(handler) for logger in loggers.values() for handler in logger.handlers):
        return
    handled = {name for name, logger in loggers.items() if logger.handlers}
    for logger in loggers.values():
        logger.handlers.clear()
        logger.filters.clear()  # they run in the caller, and must run only once
    _relay_at_tops(handled)


def _writes(handler: logging.Handler) -> bool:
    """Return whether a handler works in a forked worker: it writes to a shared file or nowhere."""
    import logging

    if type(handler) not in (logging.StreamHandler, logging.FileHandler):
        return type(handler) is logging.NullHandler
    try:
        return handler.stream is None or handler.stream.fileno() >= 0  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - a user's stream may raise anything
        return False


_send: list[Callable[[bytes], object]] = []  # the function that sends to the caller
_relays: list[logging.Handler] = []  # this worker's only Relay, once one is needed


def relay_to(send: Callable[[bytes], object]) -> None:
    """Set the function that sends records to the caller.

    Args:
        send: takes a pickled record.
    """
    _send[:] = [send]


def _way_up(name: str) -> Iterator[str]:
    """Yield the names of a logger and of the loggers that its records propagate to."""
    import logging

    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        yield "" if logger is logging.root else logger.name
        logger = logger.parent if logger.propagate else None


def _relay() -> logging.Handler:
    import logging

    class Relay(logging.Handler):
        """Sends records to the caller, if a logger there has handlers for them."""

        def emit(self, record: logging.LogRecord) -> None:
            if _handled.isdisjoint(_way_up(record.name)):
                last = logging.lastResort
                if last is not None and record.levelno >= last.level:
                    last.handle(record)
                return
            try:
                _send[0](pickled_record(self, record))
            except Exception:  # noqa: BLE001 - as in all handlers: logging must not end the program
                self.handleError(record)

    if not _relays:
        _relays.append(Relay())
    return _relays[0]


def pickled_record(handler: logging.Handler, record: logging.LogRecord) -> bytes:
    """Return a record pickled twice: whole, if possible, and as plain numbers and text.

    An exception is sent as the object, with its traceback as text.
    """
    record = copy.copy(record)
    if record.exc_info and not record.exc_text:
        import logging

        formatter = handler.formatter or logging.Formatter()
        record.exc_text = formatter.formatException(record.exc_info)
    if record.exc_info:
        record.exc_info = (record.exc_info[0], record.exc_info[1], None)  # type: ignore[assignment]
    fields = vars(record)
    plain = {name: _plain(value) for name, value in fields.items()}
    plain.update(msg=record.getMessage(), args=None, exc_info=None)
    try:
        whole = pickle.dumps(fields)
    except Exception:  # noqa: BLE001 - pickling the user's objects may raise anything
        whole = b""
    return pickle.dumps((whole, plain))


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, type(None))) else repr(value)


def handle(data: bytes) -> None:
    """Pass a worker's record to the logger of the same name, in the caller."""
    import logging

    whole, fields = pickle.loads(data)
    with suppress(Exception):  # the user's objects may not unpickle here; use the text then
        fields = pickle.loads(whole)
    record = logging.makeLogRecord(fields)
    logging.getLogger(record.name).handle(record)
