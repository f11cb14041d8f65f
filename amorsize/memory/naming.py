"""The name of a function's record: its fingerprint, or a digest of its code alone.

The fingerprint is the better name, as long as it stays the same. A function that changes values it
uses (a counter, a dictionary of results, a generator) has another fingerprint after each call. If
the fingerprint at the end of a call differs from that at the look-up, the function is named by its
code from then on. A later process finds that record if it finds none under the fingerprint.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable
from functools import partial

from ..identity.coarse import coarse_digest
from ..identity.codes import make_room
from ..identity.fingerprint import fingerprint, is_known
from ..tuples import NamedTuple
from ..versions import KNOWS_BYTECODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Name", "forget_names", "is_settled", "meet", "name_of", "name_of_code"]

MOST_KEPT = 2_048  # code objects, as many as records in memory


class Name(NamedTuple):
    """The name of a function's record.

    Attributes:
        digest: 16 hexadecimal digits.
        stable: whether another process gives the function the same name.
        coarse: whether it is a digest of the code alone.
    """

    digest: str
    stable: bool
    coarse: bool


_changing: dict[Hashable, None] = {}  # code of functions that change values they use
_met: dict[Hashable, None] = {}  # code of functions whose calls ended before a look-up


def name_of(func: Callable[..., Any]) -> Name:
    """Return the present name of a function."""
    if _changing and _code_of(func) in _changing:
        return Name(coarse_digest(func), stable=KNOWS_BYTECODE, coarse=True)
    found = fingerprint(func)
    return Name(found.digest, found.stable, coarse=False)


def name_of_code(func: Callable[..., Any]) -> Name:
    """Name a function by its code from now on, as ``name_of`` then does; return the name."""
    make_room(_changing, MOST_KEPT)
    _changing[_code_of(func)] = None
    return name_of(func)


def meet(func: Callable[..., Any]) -> bool:
    """Return whether a function with this code was met before, and note that it was met."""
    code = _code_of(func)
    if code in _met:
        return True
    make_room(_met, MOST_KEPT)
    _met[code] = None
    return False


def is_settled(func: Callable[..., Any]) -> bool:
    """Return whether the fingerprint of ``func``, taken just before, covers nothing mutable."""
    if isinstance(func, types.BuiltinFunctionType):
        return isinstance(func.__self__, types.ModuleType)
    return is_known(func) or isinstance(func, type)


def forget_names() -> None:
    """Forget all functions."""
    _changing.clear()
    _met.clear()


def _code_of(func: Any) -> Hashable:
    """Return the part of a function that stays the same when values that it uses change."""
    while isinstance(func, partial):
        func = func.func
    inner = func.__func__ if isinstance(func, types.MethodType) else func
    if isinstance(inner, types.FunctionType):
        return inner.__code__
    if isinstance(inner, types.BuiltinFunctionType):
        return type(inner.__self__), inner.__name__
    return inner if isinstance(inner, type) else type(inner)
