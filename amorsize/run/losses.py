"""Error messages for lost workers, and the text of exceptions."""

from __future__ import annotations

from ..errors import AmorsizeError, TaskTimeoutError, WorkerLostError
from .crew import Lost
from .failure import NO_ITEM, add_item_note, short_repr
from .feed import Feed, Slice

__all__ = [
    "explain_idle",
    "explain_running",
    "explain_stuck",
    "late_error",
    "loss_error",
    "worded",
]


def loss_error(
    lost: Lost, piece: Slice, losses: int, item: int | None, feed: Feed
) -> WorkerLostError:
    """Return the error for a chunk whose retries are used up.

    Args:
        lost: the worker.
        piece: the chunk's items.
        losses: how many workers died with the chunk.
        item: index of the guilty item, None if unknown.
        feed: the input, to show the item.
    """
    index, shown = feed.name(piece.start if item is None else item, piece)
    if item is None and piece.size > 1:
        last, _ = feed.name(piece.start + piece.size - 1, piece)
        what = f"one of the items {index} to {last}"
    else:
        what = f"item {index}" if shown is NO_ITEM else f"item {index} ({short_repr(shown)})"
    times = "" if losses < 2 else f", {losses} times"
    return WorkerLostError(
        f"a worker {lost.cause or _cause(lost.exitcode)} while it ran {what}{times}",
        index=index,
        exitcode=lost.exitcode,
    )


def late_error(limit: float, item: int, piece: Slice, feed: Feed) -> TaskTimeoutError:
    """Return the error for an item that took too long, with a note that names it.

    Args:
        limit: the limit, s.
        item: index of the item.
        piece: the slice that it is in.
        feed: the input, to show the item.
    """
    index, shown = feed.name(item, piece)
    text = f"item {index} took longer than task_timeout={limit:g} s"
    error = TaskTimeoutError(text, index=index, seconds=limit)
    add_item_note(error, index, shown)
    return error


def explain_idle(lost: Lost) -> str:
    """Return the message for a worker that died without a chunk."""
    if lost.ready:
        return f"a worker {_cause(lost.exitcode)} while it was idle"
    return f"a worker {_cause(lost.exitcode)} before it could start; its own output tells why"


def explain_running(lost: Lost, losses: int) -> str:
    """Return the message for workers that died while they ran a task.

    Args:
        lost: the last of them.
        losses: how many died.
    """
    times = "" if losses < 2 else f", {losses} times"
    return f"a worker {_cause(lost.exitcode)} while it ran this task{times}"


def explain_stuck() -> str:
    """Return the message for a worker that waits forever."""
    return (
        "a forked worker waits for ever, for a thread of this process, which a fork does not copy, "
        "or for a lock that was held when it was forked and that nothing can release: say "
        'mp_context="forkserver", or leave mp_context out'
    )


def _cause(exitcode: int | None) -> str:
    if exitcode is None:
        return "ended (its exit code was taken by a SIGCHLD handler, or SIGCHLD is ignored)"
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    import signal

    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    memory = " (the system may be out of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{memory}"


def worded(error: BaseException) -> str:
    """Return the text of an exception, with its type unless it is one of amorsize's own.

    >>> worded(KeyError("k")), worded(NotImplementedError())
    ("KeyError: 'k'", 'NotImplementedError')
    """
    kind = type(error)
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything
        text = ""
    if isinstance(error, AmorsizeError):
        return text
    home = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    return f"{home}{kind.__qualname__}" + (f": {text}" if text else "")
