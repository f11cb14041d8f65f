"""Functions that count the items they are called for, so that they know the index of each."""

from __future__ import annotations

from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Counted", "begin_at"]


class Counted:
    """A function that counts the items it is called for. One thread at a time may call it.

    Args:
        func: what to call.

    Attributes:
        func: the same.
        index: index of the next item.
    """

    __slots__ = ("func", "index")

    def __init__(self, func: Callable[..., Any]) -> None:
        self.func = func
        self.index = 0


def begin_at(func: Callable[..., Any], index: int) -> None:
    """Tell a function which item comes next, if it wants to know."""
    while isinstance(func, Counted):
        func.index = index
        func = func.func
