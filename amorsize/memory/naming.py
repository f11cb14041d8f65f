"""Under which name a function is remembered: by all that it uses, or by its code alone.

Its fingerprint is the better name, as long as it stays. That of a function that changes what it
reaches (a counter, a dictionary of results, a generator) is another one after each call: where the
end of a call finds another than its look-up did, the function goes by its code from there on. A
later process finds that record where it finds none under the fingerprint.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable
from functools import partial

from ..identity.coarse import coarse_digest
from ..identity.codes import make_room
from ..identity.fingerprint import fingerprint, is_known
from ..tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Name", "forget_names", "is_settled", "meet", "name_of", "name_of_code"]

MOST_KEPT = 2_048  # codes, as many as records in memory


class Name(NamedTuple):
    """What a function is remembered under.

    Attributes:
        digest: 16 hexadecimal digits.
        stable: whether another process gives it the same name.
        coarse: whether it is the code's alone.
    """

    digest: str
    stable: bool
    coarse: bool


_changing: dict[Hashable, None] = {}  # codes of functions that change what they reach
_met: dict[Hashable, None] = {}  # codes of functions whose calls were over before any look-up


def name_of(func: Callable[..., Any]) -> Name:
    """Return the name of a function, as it is now."""
    if _changing and _code_of(func) in _changing:
        return Name(coarse_digest(func), stable=True, coarse=True)
    found = fingerprint(func)
    return Name(found.digest, found.stable, coarse=False)


def name_of_code(func: Callable[..., Any]) -> Name:
    """Return the name of a function that changes what it reaches; ``name_of`` will know."""
    make_room(_changing, MOST_KEPT)
    _changing[_code_of(func)] = None
    return name_of(func)


def meet(func: Callable[..., Any]) -> bool:
    """Return whether a function of this code was met before; from here on it was."""
    code = _code_of(func)
    if code in _met:
        return True
    make_room(_met, MOST_KEPT)
    _met[code] = None
    return False


def is_settled(func: Callable[..., Any]) -> bool:
    """Return whether the fingerprint of ``func``, asked for just now, covers nothing mutable."""
    if isinstance(func, types.BuiltinFunctionType):
        return isinstance(func.__self__, types.ModuleType)
    return is_known(func) or isinstance(func, type)


def forget_names() -> None:
    """Know nothing of any function."""
    _changing.clear()
    _met.clear()


def _code_of(func: Any) -> Hashable:
    """Return what stays the same of a function, whatever it reaches."""
    while isinstance(func, partial):
        func = func.func
    inner = func.__func__ if isinstance(func, types.MethodType) else func
    if isinstance(inner, types.FunctionType):
        return inner.__code__
    if isinstance(inner, types.BuiltinFunctionType):
        return type(inner.__self__), inner.__name__
    return inner if isinstance(inner, type) else type(inner)
