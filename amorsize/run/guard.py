"""Exceptions as results, each with a note that names its item."""

from __future__ import annotations

from collections.abc import Callable

from .failure import add_item_note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Guard", "begin_at"]


class Guard:
    """A function with its exceptions as results, as in ``asyncio.gather``.

    Each exception gets a note that names its item. The items are counted, so one thread at a time
    may call it.

    Args:
        func: what to call.
        change: converts an exception to a result; None leaves it as it is.

    Attributes:
        index: index of the next item.
    """

    __slots__ = ("_change", "_func", "index")

    def __init__(
        self, func: Callable[..., Any], change: Callable[[Exception], object] | None = None
    ) -> None:
        self._func = func
        self._change = change
        self.index = 0

    def __call__(self, *args: Any) -> Any:
        """Return the result of an item, or its exception."""
        index = self.index
        self.index = index + 1
        try:
            return self._func(*args)
        except Exception as error:  # noqa: BLE001 - whatever func raises is a result here
            add_item_note(error, index, args[0] if len(args) == 1 else args)
            return error if self._change is None else self._change(error)


def begin_at(func: Callable[..., Any], index: int) -> None:
    """Tell a function which item comes next, if it wants to know."""
    if isinstance(func, Guard):
        func.index = index
