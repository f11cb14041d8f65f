"""What the items of functions took lately in a pool."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..decide.course import Course

__all__ = ["Paces"]

# Most functions whose pace is remembered.
MOST_PACES = 128


class Paces:
    """What items of functions took lately, by the code of the function."""

    def __init__(self) -> None:
        self._courses: OrderedDict[object, Course] = OrderedDict()

    def of(self, func: Callable[..., Any]) -> Course | None:
        """Return the course of the last job of a function; None if there was none."""
        return self._courses.get(_code_of(func))

    def note(self, func: Callable[..., Any], course: Course) -> None:
        """Note the course of a job."""
        code = _code_of(func)
        self._courses[code] = course
        self._courses.move_to_end(code)
        if len(self._courses) > MOST_PACES:
            self._courses.popitem(last=False)


def _code_of(func: Any) -> object:
    """Return the code of a function or method, else a name; it must not keep ``func`` alive."""
    while isinstance(func, partial):
        func = func.func
    named = func if hasattr(func, "__qualname__") else type(func)
    name = (named.__module__, named.__qualname__)
    return getattr(getattr(func, "__func__", func), "__code__", name)
