"""Classes and functions that two processes have: each under one name that both know.

What can be found by module and name travels by that name. What cannot (a class made in a function,
a class of the main module in a fresh worker) travels by value the first time, under a random token;
from then on the token stands for it on both sides. So an instance that comes back is an instance of
the very class it was sent with, and a class that a process has already is never written to.

A forked worker has all that lived before the fork at the same address. Whether an object did, the
garbage collector says: what is there when the worker begins is frozen (which also keeps memory
pages shared), so whatever it lists is newer.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import threading
import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Places",
    "begin_call",
    "find",
    "find_inherited",
    "function_in",
    "held",
    "inherit",
    "is_forked",
    "is_inherited",
    "is_lasting",
    "is_stale",
    "main_names",
    "named",
    "places",
    "register",
    "token",
    "token_of",
]

# By id, since classes may be compared and hashed in ways of their own: (weak reference, token).
_tokens: dict[int, tuple[weakref.ref[Any], str]] = {}
_objects: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_inherited: dict[int, weakref.ref[Any]] = {}  # by id, what was found to be so
_lasting: set[str] = set()  # tokens of what the caller holds as long as its call runs
_received: set[str] = set()  # tokens of what came from another process during this call
_stale: set[str] = set()  # and during earlier ones


Places = dict[int, tuple[str, str]]  # by id: (module, name)

_naming = threading.local()


@contextmanager
def named(places: Places) -> Iterator[None]:
    """Have what this thread pickles for a worker name what modules hold, in place of a copy.

    Args:
        places: where what is so named is held, in the worker as in the caller.
    """
    _naming.places = places
    try:
        yield
    finally:
        _naming.places = {}


def places() -> Places:
    """Return what is named at the moment."""
    found: Places = vars(_naming).get("places", {})
    return found


class _Process:
    """What this process is.

    Attributes:
        forked: whether it is a worker forked from its caller.
    """

    forked = False


def inherit() -> None:
    """Note, in a forked worker, that all there is now is its caller's, too."""
    gc.freeze()
    _Process.forked = True


def is_forked() -> bool:
    """Return whether this is a worker forked from its caller."""
    return _Process.forked


def is_inherited(value: object) -> bool:
    """Return whether this is a forked worker and its caller has had ``value``, too."""
    if not _Process.forked:
        return False
    known = _inherited.get(id(value))
    if known is None or known() is not value:
        if any(new is value for new in gc.get_objects()):
            return False
        _inherited[id(value)] = weakref.ref(value)
    return True


def token_of(value: object) -> str:
    """Return the token of a class or function, a new one if it has none."""
    return token(value) or _register(value, os.urandom(8).hex())


def token(value: object) -> str:
    """Return the token of a class or function, "" if it has none."""
    known = _tokens.get(id(value))
    return known[1] if known is not None and known[0]() is value else ""


def register(value: object, token: str, *, lasting: bool = False) -> None:
    """Know what came from another process under its token from now on.

    Args:
        value: a class or function.
        token: what stands for it.
        lasting: whether the other side is sure to have it.
    """
    _register(value, token)
    _received.add(token)
    if lasting:
        _lasting.add(token)


def _register(value: object, token: str) -> str:
    key = id(value)

    def forget(_: object) -> None:
        known = _tokens.get(key)
        if known is not None and known[0]() is None:
            del _tokens[key]
            _lasting.discard(token)
            _received.discard(token)
            _stale.discard(token)

    _tokens[key] = (weakref.ref(value, forget), token)
    _objects[token] = value
    return token


def begin_call() -> None:
    """Begin another call in a kept worker: what an earlier one has sent is stale.

    Classes stay what they are, so that objects that modules keep are still their instances; but
    they are written to when they come again.
    """
    _stale.update(_received)
    _received.clear()
    _lasting.clear()
    names = main_names()
    for name in [name for name in names if not (name.startswith("__") and name.endswith("__"))]:
        del names[name]


def is_stale(token: str) -> bool:
    """Return whether what a token stands for came with an earlier call, and not with this."""
    return token in _stale and token not in _received


def is_lasting(value: object) -> bool:
    """Return whether the other side is sure to have a value under its token."""
    return token(value) in _lasting


def find(token: str) -> Any:
    """Return what a token stands for, None if that is not here."""
    return _objects.get(token)


def find_inherited(base: type, address: int, path: str) -> Any:
    """Return the class that had an address before the fork, None if there is none.

    In a forked worker it must not have another name already: its caller may have dropped the one
    that was there, and made another in its place since.

    Args:
        base: its first base.
        address: where it lies.
        path: its qualified name.
    """
    found: type
    for found in type.__subclasses__(base):
        if id(found) == address and found.__qualname__ == path:
            new = _Process.forked and (token(found) or not is_inherited(found))
            return None if new else found
    return None


def function_in(value: Any) -> Any:
    """Return the function in a static or class method, or under a cache; else nothing."""
    if type(value) in (staticmethod, classmethod):
        return value.__func__
    return value.__wrapped__ if type(value) is _CACHE else None


_CACHE = type(functools.lru_cache(len))


def held(names: Any, path: str) -> Any:
    """Return what a namespace holds under a qualified name, None for nothing."""
    first, *rest = path.split(".")
    value = names.get(first)
    for name in rest:
        value = getattr(value, "__dict__", {}).get(name)
    return value


def main_names() -> dict[str, Any]:
    """Return the globals of the main module.

    Those of a fresh worker hold what its caller has sent: there, too, a function of the main module
    finds its globals in the main module.
    """
    main = sys.modules.get("__main__")
    return vars(main) if isinstance(main, types.ModuleType) else {}
