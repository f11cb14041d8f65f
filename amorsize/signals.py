"""Hold back signals while a crew is started or ended."""

from __future__ import annotations

# Not ``signal``: its wrappers make enumeration members, 60 us for all signals, and 1 ms once.
import _signal  # type: ignore[import-not-found]
import contextlib
from _thread import _local
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

__all__ = ["held_signals", "is_from_handler", "restore_signals"]

_SIGNALS = frozenset(map(int, _signal.valid_signals()))
_MASKS = hasattr(_signal, "pthread_sigmask")


class _Held:
    """What is held back at the moment.

    Attributes:
        handlers: the handlers that the main thread has replaced, by signal number.
    """

    handlers: dict[int, Any] = {}  # noqa: RUF012 - replaced, never written to


class _Thread(_local):
    """What a thread holds back; in a forked child, that of the thread that forked.

    Attributes:
        mask: the signals that the thread had blocked before, None where it holds back none.
    """

    mask: frozenset[int] | None = None


_thread = _Thread()


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Hold back every signal that has a Python handler; deliver them at the end.

    A half-started crew cannot be ended, so no handler may raise while one is started. The handler
    of Ctrl-C raises, and so does the usual time limit made with SIGALRM. A mask blocks the signals
    in this thread. But the system may deliver a signal to another thread, and Python still runs the
    handler in the main thread. So the main thread also replaces each handler by one that only
    records the signal.

    A process that is started meanwhile inherits the mask, and needs it: ``exec`` resets handlers,
    so Ctrl-C would end the process until it has set its own. The process lifts the mask when it is
    ready.
    """
    kept: list[tuple[int, FrameType | None]] = []
    outer, outer_mask = _Held.handlers, _thread.mask
    present = zip(_SIGNALS, map(_signal.getsignal, _SIGNALS), strict=True)
    handlers = {number: handler for number, handler in present if callable(handler)}
    replaced = False
    mask = frozenset(_signal.pthread_sigmask(_signal.SIG_BLOCK, ()) if _MASKS else ())
    try:
        if _MASKS:  # inside the try: a handler that was due before runs in this call, and may raise
            _signal.pthread_sigmask(_signal.SIG_BLOCK, handlers)
        _thread.mask = mask if outer_mask is None else outer_mask
        replaced = _replace(handlers, lambda number, frame: kept.append((number, frame)))
        if replaced:  # inside another such block, those of the outermost are the real ones
            _Held.handlers = {**handlers, **outer}
        try:
            yield
        finally:
            if replaced:
                _Held.handlers = outer
                _set(handlers)
    finally:
        _thread.mask = outer_mask
        if _MASKS:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        _deliver(kept, handlers)


def restore_signals(own: dict[int, Any]) -> None:
    """Set the caller's handlers and mask in a worker that was started while signals were held.

    Signals that have arrived meanwhile run the new handlers.

    Args:
        own: the worker's own handlers, by signal number. Each is a function or a plain integer.
    """
    _set({**_Held.handlers, **own})
    if _MASKS:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _SIGNALS - (_thread.mask or frozenset()))
    _Held.handlers, _thread.mask = {}, None


def is_from_handler(error: BaseException) -> bool:
    """Return whether an exception was raised in one of the signal handlers that are set now.

    Args:
        error: an exception that was caught; its traceback begins in the present function.
    """
    codes = set()
    for handler in map(_signal.getsignal, _SIGNALS):
        called = getattr(type(handler), "__call__", None)  # noqa: B004 - its code is wanted
        for function in (handler, called):
            codes.add(getattr(getattr(function, "__func__", function), "__code__", None))
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _replace(handlers: dict[int, Any], note: Any) -> bool:
    """Replace handlers by ``note``; return False outside the main thread, where none can be set."""
    try:
        _set(dict.fromkeys(handlers, note))
    except ValueError:  # not the main thread of the main interpreter
        return False
    except BaseException:  # a handler that was still in place has raised
        _set(handlers)
        raise
    return True


def _set(handlers: dict[int, Any]) -> None:
    """Set all handlers, even if one of them runs and raises as soon as it is set."""
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
    """Run the handlers of all signals that arrived, even if one of them raises."""
    while kept:
        number, frame = kept.pop(0)
        try:
            handlers[number](number, frame)
        finally:
            _deliver(kept, handlers)
