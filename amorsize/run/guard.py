"""What options put around a function while it runs items: exceptions as results, random streams."""

from __future__ import annotations

from collections.abc import Callable

from .counted import Counted
from .failure import add_item_note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Guard", "surrounded"]


class Guard(Counted):
    """A function with its exceptions as results, as in ``asyncio.gather``.

    Each exception gets a note that names its item.

    Args:
        func: what to call.
        change: converts an exception to a result; None leaves it as it is.
    """

    __slots__ = ("_change",)

    def __init__(
        self, func: Callable[..., Any], change: Callable[[Exception], object] | None = None
    ) -> None:
        super().__init__(func)
        self._change = change

    def __call__(self, *args: Any) -> Any:
        """Return the result of an item, or its exception."""
        index = self.index
        self.index = index + 1
        try:
            return self.func(*args)
        except Exception as error:  # noqa: BLE001 - whatever func raises is a result here
            add_item_note(error, index, args[0] if len(args) == 1 else args)
            return error if self._change is None else self._change(error)


def surrounded(
    func: Callable[..., Any],
    *,
    return_exceptions: bool,
    seed: int | None,
    change: Callable[[Exception], object] | None = None,
) -> Callable[..., Any]:
    """Return a function with what two options put around it.

    Args:
        func: the function.
        return_exceptions: whether exceptions are results.
        seed: seed of the items' random streams; None for none.
        change: see ``Guard``.
    """
    if seed is not None:
        from .seeding import Seeded  # few calls have a seed

        func = Seeded(func, seed)
    return Guard(func, change) if return_exceptions else func
