"""What a function *is*: a structural hash of everything it uses.

The fingerprint names the record of a function's measurements. It must be equal in every process
that runs the same code, whatever the hash seed, the folder or the line numbers. It must differ as
soon as anything the function uses differs: its code, constants, defaults, closure values, and the
globals and helpers it names, transitively.

So the walk never uses pickle bytes (they depend on the hash seed, the memo and the file's path),
``id()`` or source text (stale after an edit, absent in a REPL). It encodes structure: type-tagged,
length-prefixed parts. Objects are numbered in the order in which the walk meets them; members of
sets have no order. The cost is bounded: long containers and buffers are sampled at both ends and in
strides, and the steps of a walk are counted.

A repeated call must be cheap, but a memo keyed by ``id`` gives wrong answers. The memo here keeps
*guards* for each function: every slot the walk read (a global, a cell, a default, a class
attribute) with the object it held. The memo answers only while each slot still holds the same
object. A function that uses mutable values (a list, an instance) is walked again each time, since
no guard can see inside these values. Only its code objects are remembered.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable

from ..tuples import NamedTuple
from ..versions import NAME
from .codes import digest_of, make_room
from .looking import bases
from .walk import ABSENT, Walk, content_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Fingerprint", "fingerprint", "is_known", "walk_seconds"]

MOST_MEMO = 512
MOST_COSTS = 4_096
# Time of one step of a walk, and of checking one guard; measured on a list of lists of text, and on
# a class of 1,200 methods (November 2026, two-core machine). Steps are counted because timings
# mislead: the first walk must describe new code, and other programs slow down any walk.
STEP_SECONDS = 0.4e-6
GUARD_SECONDS = 0.06e-6


class Fingerprint(NamedTuple):
    """A function's identity across processes.

    Attributes:
        digest: 16 hexadecimal digits.
        stable: False if the function uses an object whose content cannot be read (an open file, an
            opaque extension object); its record then stays in this process.
    """

    digest: str
    stable: bool


def fingerprint(func: Callable[..., Any]) -> Fingerprint:
    """Return the structural fingerprint of ``func``.

    Args:
        func: any callable: function, lambda, builtin, class, partial, bound method, instance.

    >>> def scale(k):
    ...     return lambda x: x * k
    >>> fingerprint(scale(2)) == fingerprint(scale(2))
    True
    >>> fingerprint(scale(2)) == fingerprint(scale(3))
    False
    """
    memo = _memo.get(func) if type(func) is types.FunctionType else None
    if memo is not None and memo.holds():
        return memo.result
    return _walked(func)


def walk_seconds(func: Callable[..., Any]) -> float:
    """Return the expected time of another fingerprint of a function with this code, s.

    The caller uses it to see whether a fingerprint would pay. Closures with the same code, and
    objects of the same class, share one figure: they mostly reach the same kinds of objects.

    Args:
        func: any callable.

    Returns:
        The seconds; 0 before the first fingerprint.
    """
    known = _costs.get(id(_code_of(func)))
    return 0.0 if known is None else known[1]


def _code_of(func: Any) -> object:
    """Return the code of a function, partial or method; of anything else the type."""
    while True:
        kind = type(func)
        if kind is types.FunctionType:
            return func.__code__
        if kind is types.MethodType:
            func = func.__func__
        elif kind is functools.partial:
            func = func.func
        else:
            return kind


# By the id of a code object or type; the entry keeps that alive, so no other can have the id.
_costs: dict[int, tuple[object, float]] = {}


def is_known(func: Callable[..., Any]) -> bool:
    """Return whether the memo has a fingerprint of ``func`` that still holds."""
    memo = _memo.get(func) if type(func) is types.FunctionType else None
    return memo is not None and memo.holds()


def _walked(func: Callable[..., Any]) -> Fingerprint:
    walk = Walk()
    walk.value(func)
    digest = digest_of(_HEADER + walk.encoding())
    result = Fingerprint(digest, walk.stable)
    _note_cost(func, walk)
    if type(func) is types.FunctionType:
        _memo.pop(func, None)
        if not walk.mutable:
            make_room(_memo, MOST_MEMO)
            _memo[func] = _Memo(result, walk)
    return result


def _note_cost(func: Callable[..., Any], walk: Walk) -> None:
    """Note the cost of the next fingerprint: the same walk, or a check of the guards."""
    code = _code_of(func)
    if id(code) not in _costs:
        make_room(_costs, MOST_COSTS)
    walks = walk.mutable or type(func) is not types.FunctionType
    seconds = walk.steps * STEP_SECONDS if walks else len(walk.slots) * GUARD_SECONDS
    _costs[id(code)] = code, seconds


_HEADER = f"amorsize 2 python {NAME} ".encode()


class _Memo:
    """A fingerprint, and the guards that show whether it still holds."""

    __slots__ = ("bases", "cells", "functions", "result", "sizes", "slots")

    def __init__(self, result: Fingerprint, walk: Walk) -> None:
        self.result = result
        self.slots = walk.slots
        self.cells = walk.cells
        self.functions = walk.functions
        self.sizes = walk.sizes
        self.bases = walk.bases

    def holds(self) -> bool:
        for function, code, defaults, closure, keywords in self.functions:
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__closure__ is not closure
                or function.__kwdefaults__ is not keywords
            ):
                return False
        for namespace, name, value in self.slots:
            if namespace.get(name, ABSENT) is not value:
                return False
        for cell, value in self.cells:
            if content_of(cell) is not value:
                return False
        for namespace, size in self.sizes:
            if len(namespace) != size:
                return False
        return not self.bases or all(bases(cls) is before for cls, before in self.bases)


# Keyed by the function itself, not by its id: an entry keeps its function alive, so no other
# object can take over its identity.
_memo: dict[Callable[..., Any], _Memo] = {}
