"""What a function *is*: a structural hash of everything it uses.

The fingerprint names the record a function's measurements are remembered under. It must be equal
in every process that runs the same code, whatever the hash seed, the folder or the line numbers;
and different as soon as anything the function uses differs: its code, constants, defaults, closure
values, the globals and helpers it names, transitively.

So the walk never looks at pickle bytes (they follow the hash seed, the memo and the file's path),
at ``id()`` or at source text (stale after an edit, absent in a REPL). It encodes structure:
type-tagged, length-prefixed parts, objects met again as back-references, sets in the order of
their encodings. Its cost is bounded: long containers and buffers are sampled at both ends and in
strides, and the number of nodes is limited.

A repeated call must be cheap, and a memo keyed by ``id`` is how wrong answers are made. The memo
here keeps, for each function, *guards*: every slot the walk went through (a global, a cell, a
default, a class attribute) with the object it held. The memo answers only while each slot still
holds that very object. Functions that use mutable values (a list, an instance) are walked anew
each time, since no guard can see inside those; only their code objects are remembered.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import NamedTuple

from .codes import digest_of, make_room
from .walk import MISSING, Walk, content_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Fingerprint", "fingerprint", "is_known"]

MOST_MEMO = 512


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


def is_known(func: Callable[..., Any]) -> bool:
    """Return whether the fingerprint of ``func`` is known from before and still holds."""
    memo = _memo.get(func) if type(func) is types.FunctionType else None
    return memo is not None and memo.holds()


def _walked(func: Callable[..., Any]) -> Fingerprint:
    walk = Walk()
    walk.value(func)
    digest = digest_of(_HEADER + b"".join(walk.parts))
    result = Fingerprint(digest, walk.stable)
    if type(func) is types.FunctionType:
        _memo.pop(func, None)
        if not walk.mutable:
            make_room(_memo, MOST_MEMO)
            _memo[func] = _Memo(result, walk)
    return result


_HEADER = b"amorsize 1 python %d.%d " % sys.version_info[:2]


class _Memo:
    """A fingerprint with the guards under which it still holds."""

    __slots__ = ("cells", "functions", "result", "sizes", "slots")

    def __init__(self, result: Fingerprint, walk: Walk) -> None:
        self.result = result
        self.slots = walk.slots
        self.cells = walk.cells
        self.functions = walk.functions
        self.sizes = walk.sizes

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
        return not self.sizes or all(len(namespace) == size for namespace, size in self.sizes)


# Keyed by the function itself, not by its id: an entry keeps its function alive, so no other
# object can take over its identity.
_memo: dict[Callable[..., Any], _Memo] = {}
