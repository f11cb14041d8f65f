"""What the results of a call are of: the function, and everything that it uses, exactly.

A fingerprint looks at samples of large data. That does for advice, and not for results. So the data
that a function reaches by name has exact digests, too.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from ..identity.codes import describe
from ..identity.fingerprint import fingerprint
from ..identity.looking import cells_of
from ..identity.uses import uses
from ..memory.digests import value_digest
from ..versions import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["about", "used_by"]

# What is compared by the fingerprint, which has its code.
_BY_CODE = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)


def about(func: Callable[..., Any], path: str, *, seed: int | None, star: bool) -> dict[str, str]:
    """Return what must be the same in a later call, by name.

    Args:
        func: the function.
        path: the file, for the message.
        seed: the option.
        star: whether each item is a tuple of arguments.

    Raises:
        ValueError: the function uses something that cannot be compared.
    """
    if not fingerprint(func).stable:
        raise ValueError(
            f"resume={path!r}: {func!r:.80} uses something that cannot be compared with what a "
            "later call uses (an open file, an opaque object), so its results cannot be kept"
        )
    code = getattr(getattr(func, "__func__", func), "__code__", None)
    return {
        "the Python version": NAME,
        "the function": getattr(func, "__qualname__", type(func).__qualname__),
        "the function's code": "-" if code is None else describe(code).digest.hex(),
        "the way of the arguments": "starmap" if star else "map",
        "seed": str(seed),
    }


def used_by(func: Callable[..., Any]) -> dict[str, str]:
    """Return digests of what a function uses, by name; that of all code has the name "".

    Args:
        func: the function.
    """
    found = {"": fingerprint(func).digest}
    for name, value in _data_of(func):
        # What cannot be pickled is compared by the fingerprint only.
        with suppress(Exception):
            found[name] = value_digest(value).hex()
    return found


def _data_of(func: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of the data that a function reaches."""
    for owner, name, value in uses(func).values:
        if not isinstance(value, _BY_CODE):
            home = owner if isinstance(owner, str) else getattr(owner, "__qualname__", "")
            yield f"{home}.{name}", value
    inner = getattr(func, "__func__", func)
    if type(inner) is types.FunctionType:
        for number, (_, content) in enumerate(cells_of(inner)):
            yield f"the captured {inner.__code__.co_freevars[number]}", content
        defaults = (*(inner.__defaults__ or ()), *(inner.__kwdefaults__ or {}).values())
        if defaults:
            yield "its defaults", defaults
    if type(func) is partial:
        yield "its arguments", (func.func, func.args, func.keywords)
    elif inner is not func:
        yield "its object", func.__self__
    elif type(func) not in _BY_CODE:
        yield "its object", func
