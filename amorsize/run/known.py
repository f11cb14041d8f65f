"""Classes and functions that two processes share, each under one name that both know.

A class or function that can be found by module and name is pickled by that name. One that cannot (a
class made in a function, a class of the main module in a fresh worker) is sent by value the first
time, under a random token. From then on the token stands for it on both sides. So an instance that
comes back is an instance of the same class that it was sent with. A class that a process already
has is left as it is, except that each call updates the classes in its fresh workers.

In a forked worker, every object from before the fork has the same address as in the caller. The
garbage collector tells which objects are that old: those present when the worker begins are frozen
(which also keeps memory pages shared), so every object that the collector lists is newer. In the
free-threaded build the classes that are present are listed instead.
"""

from __future__ import annotations

import builtins
import functools
import gc
import os
import sys
import threading
import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from ..versions import FREE_THREADED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Places",
    "Scope",
    "begin_call",
    "find",
    "find_inherited",
    "function_in",
    "held",
    "inherit",
    "is_apart",
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
    "within",
]

# By id, since classes may define their own comparison and hash: (weak reference, token).
_tokens: dict[int, tuple[weakref.ref[Any], str]] = {}
_objects: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_inherited: dict[int, weakref.ref[Any]] = {}  # by id: objects found to be inherited
_lasting: set[str] = set()  # tokens of objects that the caller holds as long as its call runs
_received: set[str] = set()  # tokens of objects from another process, sent during this call
_stale: set[str] = set()  # tokens of objects from another process, sent during earlier calls


Places = dict[int, tuple[str, str]]  # by id: (module, name)

_here = threading.local()  # ``places`` and ``scope`` of this thread, see ``named``, ``within``


class Scope:
    """What one call has in a process that serves other programs, too.

    Attributes:
        names: stands for the globals of the main module.
        objects: classes and functions that the call has sent, by token. Another call may have sent
            the same function, with other globals.
    """

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
        self.objects: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


@contextmanager
def named(places: Places) -> Iterator[None]:
    """Make this thread's pickles for a worker name objects that modules hold, and not copy them.

    Args:
        places: where modules hold these objects, in the worker as in the caller.
    """
    _here.places = places
    try:
        yield
    finally:
        _here.places = {}


def places() -> Places:
    """Return the places that ``named`` has set in this thread."""
    found: Places = vars(_here).get("places", {})
    return found


class _Process:
    """The role of this process.

    Attributes:
        forked: whether it is a worker forked from its caller.
    """

    forked = False


def inherit() -> None:
    """Note, in a forked worker, that the caller has all present objects, too."""
    if FREE_THREADED:
        _inherited.update((id(kind), weakref.ref(kind)) for kind in _classes())
    gc.freeze()
    _Process.forked = True


def _classes() -> Iterator[type]:
    """Yield all classes of this process."""
    met: set[int] = set()  # by id: classes may define their own hash
    left: list[type] = [object]
    while left:
        kind = left.pop()
        if id(kind) not in met:
            met.add(id(kind))
            left += type.__subclasses__(kind)
            yield kind


def is_forked() -> bool:
    """Return whether this is a worker forked from its caller."""
    return _Process.forked


def is_inherited(value: object) -> bool:
    """Return whether this is a forked worker that got a class from its caller by the fork."""
    if not _Process.forked:
        return False
    known = _inherited.get(id(value))
    if known is None or known() is not value:
        if FREE_THREADED or any(new is value for new in gc.get_objects()):
            return False
        _inherited[id(value)] = weakref.ref(value)
    return True


def token_of(value: object) -> str:
    """Return the token of a class or function; make one if it has none."""
    return token(value) or _register(value, os.urandom(8).hex())


def token(value: object) -> str:
    """Return the token of a class or function, "" if it has none."""
    known = _tokens.get(id(value))
    return known[1] if known is not None and known[0]() is value else ""


def register(value: object, token: str, *, lasting: bool = False) -> None:
    """Remember the token of a class or function that came from another process.

    Args:
        value: the class or function.
        token: its token.
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
    _present_objects()[token] = value
    return token


def _present_objects() -> weakref.WeakValueDictionary[str, Any]:
    """Return the table of objects by token: that of the thread's scope, or the process's."""
    scope: Scope | None = vars(_here).get("scope")
    return _objects if scope is None else scope.objects


def begin_call() -> None:
    """Begin another call in a kept worker: objects that earlier calls sent become stale.

    The classes stay the same objects, so that instances that modules keep remain their instances.
    Their attributes are set again when the caller sends them again. All names but special ones are
    removed from the main module.
    """
    _stale.update(_received)
    _received.clear()
    _lasting.clear()
    names = main_names()
    for name in [name for name in names if not (name.startswith("__") and name.endswith("__"))]:
        del names[name]


def is_stale(token: str) -> bool:
    """Return whether the object of a token came with an earlier call, and not with this one."""
    return token in _stale and token not in _received


def is_lasting(value: object) -> bool:
    """Return whether the other side is sure to have a value under its token."""
    return token(value) in _lasting


def find(token: str) -> Any:
    """Return the object of a token, None if it is not here."""
    return _present_objects().get(token)


def find_inherited(base: type, address: int, path: str) -> Any:
    """Return the class that had an address before the fork, None if there is none.

    In a forked worker the class must be inherited, and must not have another token: the caller may
    have dropped the class at that address since, and made another one there.

    Args:
        base: its first base.
        address: its address.
        path: its qualified name.
    """
    found: type
    for found in type.__subclasses__(base):
        if id(found) == address and found.__qualname__ == path:
            new = _Process.forked and (token(found) or not is_inherited(found))
            return None if new else found
    return None


def function_in(value: Any) -> Any:
    """Return the function in a static method, class method or ``lru_cache``, else None."""
    if type(value) in (staticmethod, classmethod):
        return value.__func__
    return value.__wrapped__ if type(value) is _CACHE else None


_CACHE = type(functools.lru_cache(len))


def held(names: Any, path: str) -> Any:
    """Return the object under a qualified name in a namespace, None for none."""
    first, *rest = path.split(".")
    value = names.get(first)
    for name in rest:
        value = getattr(value, "__dict__", {}).get(name)
    return value


@contextmanager
def within(scope: Scope) -> Iterator[None]:
    """Have this thread open and pickle what belongs to a call in its scope.

    Args:
        scope: the scope.
    """
    before, _here.scope = vars(_here).get("scope"), scope
    try:
        yield
    finally:
        _here.scope = before


def is_apart() -> bool:
    """Return whether this thread is within a scope."""
    return vars(_here).get("scope") is not None


def main_names() -> dict[str, Any]:
    """Return the globals of the main module.

    In a fresh worker they hold what its caller has sent. So functions of the main module find their
    globals in the main module there, too.
    """
    scope: Scope | None = vars(_here).get("scope")
    if scope is not None:
        return scope.names
    main = sys.modules.get("__main__")
    return vars(main) if isinstance(main, types.ModuleType) else {}
