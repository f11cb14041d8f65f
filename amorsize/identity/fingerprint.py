"""What a function *is*: a structural hash of everything it uses.

The fingerprint names the record a function's measurements are remembered under. It must be equal
in every process that runs the same code, whatever the hash seed, the folder or the line numbers;
and different as soon as anything the function uses differs: its code, constants, defaults, closure
values, the globals and helpers it names, transitively.

So the walk never looks at pickle bytes (they follow the hash seed, the memo and the file's path),
at ``id()`` or at source text (stale after an edit, absent in a REPL). It encodes structure:
type-tagged, length-prefixed parts, objects by the number in which they were met, members of sets
without any order. Its cost is bounded: long containers and buffers are sampled at both ends and in
strides, and the steps of a walk are counted.

A repeated call must be cheap, and a memo keyed by ``id`` is how wrong answers are made. The memo
here keeps, for each function, *guards*: every slot the walk went through (a global, a cell, a
default, a class attribute) with the object it held. The memo answers only while each slot still
holds that very object. Functions that use mutable values (a list, an instance) are walked anew
each time, since no guard can see inside those; only their code objects are remembered.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable

from ..tuples import NamedTuple
from .codes import digest_of, make_room
from .looking import bases
from .walk import MISSING, Walk, content_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Fingerprint", "fingerprint", "is_known", "walk_seconds"]

MOST_MEMO = 512
MOST_COSTS = 4_096
# What a step of a walk takes, and looking at one guard: a list of lists of text, and a class of
# 1,200 methods (November 2026, two-core machine). Steps are counted rather than walks timed, since
# the first walk meets new code, and any walk other programs.
STEP_SECONDS = 0.4e-6
GUARD_SECONDS = 0.06e-6


class Fingerprint(NamedTuple):
    """A function's identity across processes.

    Attributes:
        digest: 16 hexadecimal digits.
        stable: False when the function uses something whose content cannot be pinned down (an open
            file, an opaque extension object); what is learned about it stays in this process.
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
    """Return about what another fingerprint of a function with this code takes, s.

    It is asked before a fingerprint is taken, to see whether that would pay. Closures made of one
    code, and objects of one class, count as one: they mostly reach the same kind of things.

    Args:
        func: any callable.

    Returns:
        The seconds; 0 before the first fingerprint.
    """
    known = _costs.get(id(_code_of(func)))
    return 0.0 if known is None else known[1]


def _code_of(func: Any) -> object:
    """Return the code of a function, through partials and methods; of anything else its type."""
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


# By the id of a code object or type, which is kept, so that no other can have that id.
_costs: dict[int, tuple[object, float]] = {}


def is_known(func: Callable[..., Any]) -> bool:
    """Return whether the fingerprint of ``func`` is known from before and still holds."""
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
    """Note what the next fingerprint takes: the same walk, or a look at its guards."""
    code = _code_of(func)
    if id(code) not in _costs:
        make_room(_costs, MOST_COSTS)
    walks = walk.mutable or type(func) is not types.FunctionType
    seconds = walk.steps * STEP_SECONDS if walks else len(walk.slots) * GUARD_SECONDS
    _costs[id(code)] = code, seconds


_HEADER = b"amorsize 2 python %d.%d " % sys.version_info[:2]


class _Memo:
    """A fingerprint with the guards under which it still holds."""

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
            if namespace.get(name, MISSING) is not value:
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
