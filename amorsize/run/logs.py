"""Log records of workers: made under the caller's settings, handled by its handlers.

A fresh worker has no handlers, and the levels an interpreter begins with. It gets the caller's
levels; and where a logger of the caller's has handlers, one that sends each record to the caller,
who hands it to the logger of that name, as if it had been made there.

A forked worker has the caller's handlers. Those that write to a file or stream do so from there,
too. Others keep records in memory, or hand them to a thread: copies of those would swallow them, so
where there is any, records are sent to the caller as well.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress

from ..lookup import loaded
from ..tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any

__all__ = ["FRESH", "Logs", "handle", "leave_to_caller", "read", "relay_to", "write"]


class Logger(NamedTuple):
    """The settings of one logger.

    Attributes:
        level: its own level.
        propagates: whether its records also go to the loggers above it.
        disabled: whether it is switched off.
        handled: whether it has handlers.
    """

    level: int
    propagates: bool
    disabled: bool
    handled: bool


class Logs(NamedTuple):
    """The settings of the module logging.

    Attributes:
        loggers: by their names, "" for the root; those that are as a new one would be are left out.
        disabled: the level up to which all logging is switched off.
        levels: names of levels besides the usual ones.
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
    """Return the present settings."""
    import logging

    loggers = {name: _settings(logger) for name, logger in _loggers().items()}
    return Logs(
        {name: one for name, one in loggers.items() if one != (_NEW if name else _NEW_ROOT)},
        logging.root.manager.disable,
        {k: v for k, v in logging._levelToName.items() if _USUAL.get(k) != v},
        logging._warnings_showwarning is not None,  # type: ignore[attr-defined]
    )


def _loggers() -> dict[str, logging.Logger]:
    """Return all loggers by their names, the root as ""."""
    import logging

    found = {"": logging.root, **logging.root.manager.loggerDict}
    return {name: one for name, one in found.items() if isinstance(one, logging.Logger)}


def _settings(logger: logging.Logger) -> Logger:
    return Logger(logger.level, logger.propagate, logger.disabled, bool(logger.handlers))


def write(logs: Logs) -> None:
    """Make the caller's settings those of this worker."""
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
    # Handlers that a module of the user's makes as it is loaded are in the caller, too.
    logger.handlers.clear()


_handled: set[str] = set()  # in a worker: loggers of the caller's that have handlers


def _relay_at_tops(handled: set[str]) -> None:
    """Have records sent where they propagate to at last, so that each is sent once.

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
    """Have records of this forked worker sent to the caller, if its handlers cannot do without."""
    if loaded("logging") is None:
        return
    loggers = _loggers()
    if all(_writes(handler) for logger in loggers.values() for handler in logger.handlers):
        return
    handled = {name for name, logger in loggers.items() if logger.handlers}
    for logger in loggers.values():
        logger.handlers.clear()
        logger.filters.clear()  # the caller's act, once
    _relay_at_tops(handled)


def _writes(handler: logging.Handler) -> bool:
    """Return whether a handler writes straight to a file or stream that workers share."""
    import logging

    if type(handler) not in (logging.StreamHandler, logging.FileHandler):
        return type(handler) is logging.NullHandler
    try:
        return handler.stream is None or handler.stream.fileno() >= 0  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - a stream of the user's own may raise anything
        return False


_send: list[Callable[[bytes], object]] = []  # how this worker sends to the caller
_relays: list[logging.Handler] = []  # the one handler of this worker, once it is needed


def relay_to(send: Callable[[bytes], object]) -> None:
    """Have records sent to the caller so.

    Args:
        send: takes a pickled record.
    """
    _send[:] = [send]


def _way_up(name: str) -> Iterator[str]:
    """Yield the names of the loggers that a record of one propagates to."""
    import logging

    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        yield "" if logger is logging.root else logger.name
        logger = logger.parent if logger.propagate else None


def _relay() -> logging.Handler:
    import logging

    class Relay(logging.Handler):
        """Sends records to the caller, if any logger there has handlers for them."""

        def emit(self, record: logging.LogRecord) -> None:
            if _handled.isdisjoint(_way_up(record.name)):
                last = logging.lastResort
                if last is not None and record.levelno >= last.level:
                    last.handle(record)
                return
            try:
                _send[0](_pickled(self, record))
            except Exception:  # noqa: BLE001 - as all handlers do: logging must not end the program
                self.handleError(record)

    if not _relays:
        _relays.append(Relay())
    return _relays[0]


def _pickled(handler: logging.Handler, record: logging.LogRecord) -> bytes:
    """Return a record pickled twice: as it is, where it can be, and as nothing but text.

    Of an exception there is the object, and the traceback as text.
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
    except Exception:  # noqa: BLE001 - what the user put into the record may refuse in any way
        whole = b""
    return pickle.dumps((whole, plain))


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, type(None))) else repr(value)


def handle(data: bytes) -> None:
    """Hand a record of a worker's to the logger of its name, in the caller."""
    import logging

    whole, fields = pickle.loads(data)
    with suppress(Exception):  # what the user put into it may not open here; its text will do
        fields = pickle.loads(whole)
    record = logging.makeLogRecord(fields)
    logging.getLogger(record.name).handle(record)
