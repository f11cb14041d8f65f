"""Keeping signals out of the moments in which a crew is started or ended."""

from __future__ import annotations

# The wrappers in ``signal`` make enumerations, which takes 60 us for all signals, and 1 ms once.
import _signal  # type: ignore[import-not-found]
import contextlib
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

__all__ = ["held_signals", "restore_signals"]

_SIGNALS = frozenset(map(int, _signal.valid_signals()))
_MASKS = hasattr(_signal, "pthread_sigmask")


class _Held:
    """What is held back at the moment, in the main thread.

    Attributes:
        handlers: those that notes are taken for, by the signal's number.
        mask: the signals that this thread held back before.
    """

    handlers: dict[int, Any] = {}  # noqa: RUF012 - replaced, never written to
    mask: frozenset[int] = frozenset()


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Hold back every signal that has a Python handler; deliver what came at the end.

    Half a crew cannot be ended, so no handler may raise while there is only half of one: Ctrl-C
    does, and so does the usual time limit made of SIGALRM. A mask keeps them from this thread. But
    the system may hand a signal to any other thread, and Python then runs the handler in the main
    thread all the same. So the main thread also replaces the handlers by one that takes a note.

    A process that is started meanwhile inherits the mask. It needs it, since ``exec`` resets
    handlers, and Ctrl-C would end it until it has set its own; it lifts the mask when it is ready.
    """
    kept: list[tuple[int, FrameType | None]] = []
    outer = _Held.handlers, _Held.mask
    present = zip(_SIGNALS, map(_signal.getsignal, _SIGNALS), strict=True)
    handlers = {number: handler for number, handler in present if callable(handler)}
    mask = frozenset(_signal.pthread_sigmask(_signal.SIG_BLOCK, handlers)) if _MASKS else outer[1]
    try:
        _Held.handlers, _Held.mask = {**outer[0], **handlers}, mask
        replaced = _replace(handlers, lambda number, frame: kept.append((number, frame)))
        try:
            yield
        finally:
            if replaced:
                _set(handlers)
            _Held.handlers, _Held.mask = outer
    finally:
        if _MASKS:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        _deliver(kept, handlers)


def restore_signals(own: dict[int, Any]) -> None:
    """Set handlers and mask as the caller has them, in a worker that was started meanwhile.

    Args:
        own: handlers of the worker's own, by the signal's number; plain numbers for what is no
            function. What has come already meets them.
    """
    _set({**_Held.handlers, **own})
    if _MASKS:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _SIGNALS - _Held.mask)
    _Held.handlers = {}


def _replace(handlers: dict[int, Any], note: Any) -> bool:
    """Set ``note`` in the place of some handlers; return whether any Python handler runs here."""
    try:
        _set(dict.fromkeys(handlers, note))
    except ValueError:  # not the main thread of the main interpreter
        return False
    except BaseException:  # a handler that was still in place has raised
        _set(handlers)
        raise
    return True


def _set(handlers: dict[int, Any]) -> None:
    """Set handlers, all of them, even where one that is set again raises at once."""
    left = dict(handlers)
    try:
        while left:
            number = next(iter(left))
            _signal.signal(number, left[number])
            del left[number]
    finally:
        if len(left) not in (0, len(handlers)):
            _set(left)


def _deliver(kept: list[tuple[int, FrameType | None]], handlers: dict[int, Any]) -> None:
    """Run the handlers of the signals that came, all of them, even where one raises."""
    while kept:
        number, frame = kept.pop(0)
        try:
            handlers[number](number, frame)
        finally:
            _deliver(kept, handlers)
