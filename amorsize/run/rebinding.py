"""Functions of multiprocessing with other modules, for amorsize's own processes."""

from __future__ import annotations

import types
from typing import Any

__all__ = ["rebound"]


def rebound(function: Any, **names: object) -> Any:
    """Return a copy of a function, with some of its globals replaced.

    >>> def area(r):
    ...     return PI * r * r
    >>> rebound(area, PI=3)(2)
    12
    """
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
