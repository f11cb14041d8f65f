"""A digest of a value that is equal in every process that has an equal value.

Pickles alone are not: they depend on which parts of a value are the same object, and on the order
of sets. So containers are encoded here, and only what is in them is pickled.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["DIGEST_BYTES", "value_digest"]

DIGEST_BYTES = 16


def value_digest(value: Any) -> bytes:
    """Return a digest of a value.

    Args:
        value: any value that can be pickled.

    Raises:
        Exception: whatever pickling it raises.

    >>> value_digest({"a": [1, 2]}) == value_digest({"a": [1, 2]})
    True
    >>> value_digest(1) == value_digest(True)
    False
    """
    try:
        encoded = _encoded(value)
    except RecursionError:  # it holds itself, or is very deep
        encoded = b"p" + _pickled(value, fast=False)
    return hashlib.blake2b(encoded, digest_size=DIGEST_BYTES).digest()


def _encoded(value: Any) -> bytes:
    kind = type(value)
    if kind in _PLAIN:
        return kind.__name__.encode() + b" " + repr(value).encode("utf-8", "surrogatepass")
    if kind in _PARTS:
        return _joined(kind.__name__, _PARTS[kind](value))
    with suppress(ValueError, RecursionError):  # it holds itself: a fast pickle has no references
        return b"f" + _pickled(value, fast=True)
    return b"p" + _pickled(value, fast=False)


_PLAIN = frozenset({int, float, complex, str, bool, type(None)})
_PARTS: dict[type, Callable[[Any], Iterable[bytes]]] = {
    bytes: lambda value: [value],
    bytearray: lambda value: [bytes(value)],
    tuple: lambda value: map(_encoded, value),
    list: lambda value: map(_encoded, value),
    dict: lambda value: (_joined("", map(_encoded, pair)) for pair in value.items()),
    set: lambda value: sorted(map(_encoded, value)),
    frozenset: lambda value: sorted(map(_encoded, value)),
}


def _joined(name: str, parts: Iterable[bytes]) -> bytes:
    found = [*parts]
    sizes = ",".join(map(str, map(len, found)))
    return f"{name}[{sizes}]".encode() + b"".join(found)


def _pickled(value: Any, *, fast: bool) -> bytes:
    out = io.BytesIO()
    pickler = pickle.Pickler(out, 5)
    pickler.fast = fast
    try:
        pickler.dump(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        from cloudpickle import cloudpickle  # takes 15 ms to load

        return bytes(cloudpickle.dumps(value))
    return out.getvalue()
