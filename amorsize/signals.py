"""Keeping signals out of the moments in which a crew is started or ended."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the wrappers in ``signal`` make enums, which takes 60 us for all of them
import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["held_signals", "restore_handlers"]

_SIGNALS = tuple(int(number) for number in signal.valid_signals())


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Hold back every signal that has a Python handler; deliver what came at the end.

    Half a crew cannot be ended, so no handler may raise while there is only half of one: Ctrl-C
    does, and so does the usual time limit made of SIGALRM. Python runs handlers in the main thread
    only, whichever thread the system gave the signal to. So the main thread replaces the handlers
    by one that takes a note. Other threads need nothing.

    A process that is started meanwhile would die of Ctrl-C until it has set its own handler, as
    ``exec`` resets handlers. It inherits the mask, and lifts it when it is ready.
    """
    kept: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        kept.append((number, frame))

    handlers = _replace(note)
    outer = dict(_replaced)
    _replaced.update(handlers)
    masks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masks else ()
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            _signal.signal(number, handler)
        _replaced.clear()
        _replaced.update(outer)
        _deliver(kept, handlers)


_replaced: dict[int, Any] = {}  # the handlers that notes are taken for at the moment


def restore_handlers() -> None:
    """Set the caller's handlers again, in a worker that was forked while they were held."""
    for number, handler in _replaced.items():
        _signal.signal(number, handler)
    _replaced.clear()


def _replace(note: Any) -> dict[int, Any]:
    """Set ``note`` in place of every Python handler; return those, by the signal's number."""
    handlers: dict[int, Any] = {}
    for number in _SIGNALS:
        handler = _signal.getsignal(number)
        if not callable(handler):
            continue
        try:
            _signal.signal(number, note)
        except ValueError:  # not the main thread of the main interpreter: no handler runs here
            break
        handlers[number] = handler
    return handlers


def _deliver(kept: list[tuple[int, FrameType | None]], handlers: dict[int, Any]) -> None:
    """Run the handlers of the signals that came, all of them, even where one raises."""
    while kept:
        number, frame = kept.pop(0)
        try:
            handlers[number](number, frame)
        finally:
            _deliver(kept, handlers)
