"""A digest of a value that is equal in every process that has an equal value.

Pickles are not: they depend on which parts of a value are the same object, on the order of sets,
and name functions and classes without their code. So every object is taken apart, by the parts that
pickle would write, and each part has a digest of its own. Nothing is sampled.
"""

from __future__ import annotations

import copyreg
import hashlib
import types
import weakref
from functools import partial

from ..identity.fingerprint import fingerprint
from ..identity.looking import cells_of
from ..identity.owners import is_users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["DIGEST_BYTES", "value_digest"]

DIGEST_BYTES = 16


def value_digest(value: Any) -> bytes:
    """Return a digest of a value.

    Args:
        value: any value that can be pickled. Functions may be any.

    Raises:
        Exception: whatever taking it apart raises, as pickling it would.

    >>> value_digest({"a": {1, 2}}) == value_digest({"a": {2, 1}})
    True
    >>> value_digest(1) == value_digest(True)
    False
    """
    return _Digests().of(value)


class _Digests:
    """The digests of the parts of one value."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}  # by id
        self._alive: list[Any] = []  # so that no id is used twice
        self._depth: dict[int, int] = {}  # by id, of what is being taken apart

    def of(self, value: Any) -> bytes:
        """Return the digest of a part."""
        kind = type(value)
        atom = _ATOMS.get(kind)
        if atom is not None:
            return _hashed(kind.__name__.encode(), atom(value))
        key = id(value)
        if key in self._known:
            return self._known[key]
        if key in self._depth:  # it holds itself
            return _hashed(b"outer", str(len(self._depth) - self._depth[key]).encode())
        self._depth[key] = len(self._depth)
        digest = self._taken_apart(value, kind)
        del self._depth[key]
        self._known[key] = digest
        self._alive.append(value)
        return digest

    def _taken_apart(self, value: Any, kind: type) -> bytes:
        parts = _PARTS.get(kind)
        if parts is not None:
            return _hashed(kind.__name__.encode(), *parts(self.of, value))
        if issubclass(kind, type):
            return _class_digest(value)
        if kind is types.FunctionType:
            return self._function(value)
        reduced = _reduced(value, kind)
        if isinstance(reduced, str):
            return _hashed(b"name", reduced.encode())
        make, args, *more = reduced
        name = getattr(make, "__qualname__", "") if callable(make) else ""
        state, items, pairs = (*more, None, None, None)[:3]
        return _hashed(
            b"object",
            _class_digest(kind),
            name.encode(),
            self.of(args),
            self.of(state),
            self.of(None if items is None else [*items]),
            self.of(None if pairs is None else [*pairs]),
        )

    def _function(self, function: types.FunctionType) -> bytes:
        """Return the digest of a function: what it is, and all data that it holds."""
        held = [content for _, content in cells_of(function)]
        given = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        print_of = fingerprint(function).digest.encode()
        return _hashed(b"function", print_of, self.of(held), self.of(given))


def _hashed(*parts: bytes) -> bytes:
    """Return a digest of parts."""
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.digest()


_ATOMS: dict[type, Callable[[Any], bytes]] = {
    int: lambda value: hex(value).encode(),
    float: lambda value: repr(value).encode(),
    complex: lambda value: repr(value).encode(),
    bool: lambda value: repr(value).encode(),
    type(None): lambda _: b"",
    str: lambda value: value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: value,
    bytearray: bytes,
}


def _pairs(of: Callable[[Any], bytes], value: dict[Any, Any]) -> Iterable[bytes]:
    for key, held in value.items():
        yield of(key)
        yield of(held)


_PARTS: dict[type, Callable[[Callable[[Any], bytes], Any], Iterable[bytes]]] = {
    tuple: map,
    list: map,
    dict: _pairs,
    set: lambda of, value: sorted(map(of, value)),
    frozenset: lambda of, value: sorted(map(of, value)),
    types.BuiltinFunctionType: lambda of, value: [
        value.__qualname__.encode(),
        of(None if isinstance(value.__self__, types.ModuleType) else value.__self__),
    ],
    types.MethodType: lambda of, value: [of(value.__func__), of(value.__self__)],
    types.ModuleType: lambda _, value: [value.__name__.encode()],
    partial: lambda of, value: [of(value.func), of(value.args), of(value.keywords)],
}


def _reduced(value: Any, kind: type) -> Any:
    """Return how pickle would take an object apart."""
    reduce = copyreg.dispatch_table.get(kind)
    return value.__reduce_ex__(4) if reduce is None else reduce(value)


_classes: weakref.WeakKeyDictionary[type, bytes] = weakref.WeakKeyDictionary()


def _class_digest(cls: type) -> bytes:
    """Return the digest of a class: its name and, if it is the user's own, what is in it."""
    found = _classes.get(cls)
    if found is None:
        name = f"{cls.__module__}.{cls.__qualname__}".encode()
        content = fingerprint(cls).digest.encode() if is_users(cls.__module__) else b""
        found = _classes[cls] = _hashed(b"class", name, content)
    return found
