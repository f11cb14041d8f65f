"""A function that is told the index of its item: where some items of an input are left out."""

from __future__ import annotations

from collections.abc import Callable

from .failure import add_item_note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Numbered"]


class Numbered:
    """Calls a function with an item that comes with its index.

    An exception gets a note that names the item by this index.

    Args:
        func: the function.
        star: whether the item is a tuple of arguments.
        seed: seed of the items' random streams; None for none.
    """

    _amorsize_numbered = True

    def __init__(self, func: Callable[..., Any], *, star: bool, seed: int | None) -> None:
        self.__name__ = getattr(func, "__name__", type(func).__name__)
        self.__qualname__ = getattr(func, "__qualname__", type(func).__qualname__)
        self._func = func
        self._star = star
        self._seed = seed

    def __call__(self, index: int, item: Any) -> Any:
        """Return the result of an item.

        Args:
            index: its index.
            item: the item.
        """
        func = self._func
        if self._seed is not None:
            from .seeding import Seeded  # few calls have a seed

            func = seeded = Seeded(func, self._seed)
            seeded.index = index
        try:
            return func(*item) if self._star else func(item)
        except StopIteration:  # it ends the map
            raise
        except BaseException as error:  # whatever it is, it is told which item raised it
            add_item_note(error, index, item)
            raise
