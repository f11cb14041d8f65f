"""Encoders for values without identity: numbers, texts, constants, and sets of them.

Parts are type-tagged and length-prefixed, so that no two sequences of parts have the same bytes.
A long value is sampled before it is copied or encoded, so that its size does not decide the cost.
"""

from __future__ import annotations

import marshal
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from struct import pack

from .looking import module_of, qualname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "ATOMS",
    "MOST_ITEMS",
    "SAMPLE_BYTES",
    "atom_of",
    "buffer",
    "constant",
    "framed",
    "sampled",
    "set_of_atoms",
]

SAMPLE_BYTES = 1_024  # at each end of a long buffer, and in strides between
MOST_ITEMS = 64  # at each end of a long sequence, and in strides between
# A larger integer is encoded by sign and length, and a positive one also by both ends. Taking a
# part of a negative integer would copy it whole.
MOST_BITS = 64 * SAMPLE_BYTES
# Sets have no ends to sample, and their order follows the hash seed. Within these limits a set is
# encoded by a sum over its members, at 0.3 us each (3 ms on the machine of docs/model.md, November
# 2026). Of a set with more members only the length counts: large sets rarely have equal lengths.
MOST_SUMMED = 10_000
MOST_SUMMED_BYTES = 2_000_000
# Containers in one constant, and their nesting. The compiler stays within both limits; other
# programs that make code might not.
MOST_CONSTANTS, DEEPEST_CONSTANT = 1_000, 50


def framed(tag: bytes, data: bytes) -> bytes:
    """Encode one part so that no two sequences of parts have the same bytes."""
    return tag + pack("<q", len(data)) + data


def buffer(tag: bytes, data: bytes | memoryview) -> bytes:
    """Encode bytes: whole when short, else by length and a sample of both ends and strides."""
    size = len(data)
    if size <= 4 * SAMPLE_BYTES:
        return framed(tag, bytes(data))
    return tag + pack("<q", size) + b"".join(bytes(data[part]) for part in _parts(size))


def _parts(size: int) -> tuple[slice, slice, slice]:
    """Return the slices to take of a long value."""
    ends = slice(SAMPLE_BYTES), slice(-SAMPLE_BYTES, None)
    return (*ends, slice(None, None, size // SAMPLE_BYTES))


def _bytes(value: bytes) -> bytes:
    size, part = bytes.__len__(value), bytes.__getitem__
    if size <= 4 * SAMPLE_BYTES:
        return framed(b"b", part(value, slice(None)))
    return b"b" + pack("<q", size) + b"".join(part(value, where) for where in _parts(size))


def _text(value: str) -> bytes:
    size, part = str.__len__(value), str.__getitem__
    if size <= 4 * SAMPLE_BYTES:
        return framed(b"s", str.encode(value, "utf-8", "surrogatepass"))
    sample = "".join([part(value, where) for where in _parts(size)])
    return framed(b"S" + pack("<q", size), sample.encode("utf-8", "surrogatepass"))


def _integer(value: int) -> bytes:
    bits = int.bit_length(value)
    if bits <= MOST_BITS:
        return framed(b"i", int.to_bytes(value, bits // 8 + 1, "little", signed=True))
    if int.__lt__(value, 0):
        return b"i" + pack("<q", -bits)
    low, high = (1 << 8 * SAMPLE_BYTES) - 1, bits - 8 * SAMPLE_BYTES
    ends = int.__and__(value, low), int.__rshift__(value, high)
    return b"I" + pack("<q", bits) + b"".join(end.to_bytes(SAMPLE_BYTES, "little") for end in ends)


def _complex(value: complex) -> bytes:
    plain = complex.__complex__(value)
    return b"j" + pack("<2d", plain.real, plain.imag)


# The encoders call no method that a subclass could override.
ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"N",
    type(Ellipsis): lambda _: b"E",
    type(NotImplemented): lambda _: b"O",
    bool: lambda value: b"T" if value else b"F",
    int: _integer,
    float: lambda value: b"f" + pack("<d", float.__float__(value)),
    complex: _complex,
    str: _text,
    bytes: _bytes,
}


def sampled(values: Sequence[Any]) -> tuple[int, Sequence[Any]]:
    """Return the length and the items of a tuple or list; of a long one both ends and strides.

    Args:
        values: a tuple or list; no method that a subclass could override is called.
    """
    base: Any = list if issubclass(type(values), list) else tuple
    size, part = base.__len__(values), base.__getitem__
    if size <= 3 * MOST_ITEMS:
        return size, part(values, slice(None))
    stride = -(-size // MOST_ITEMS)
    ends = part(values, slice(MOST_ITEMS)), part(values, slice(-MOST_ITEMS, None))
    return size, [*ends[0], *part(values, slice(MOST_ITEMS, -MOST_ITEMS, stride)), *ends[1]]


def atom_of(kind: type) -> Callable[[Any], bytes] | None:
    """Return the encoder for a type whose values have no identity, None for any other type.

    It is looked up by the type's id: a metaclass may have a ``__hash__`` that runs the user's code.
    """
    return _BY_ID.get(id(kind))


_BY_ID = {id(kind): encode for kind, encode in ATOMS.items()}


# Sets ---------------------------------------------------------------------------------------

_ALONE = frozenset(map(id, ATOMS))  # ids of the types of members that can be encoded here


def set_of_atoms(values: Iterable[Any], size: int) -> bytes | None:
    """Encode a set of atoms, or of tuples of them, independently of hash seed and history.

    Args:
        values: its members.
        size: their number.

    Returns:
        The encoding; None where the members must be walked.

    >>> set_of_atoms([1, "a"], 2) == set_of_atoms(["a", 1], 2)
    True
    """
    head = b"{" + pack("<q", size)
    if size > MOST_SUMMED:
        return head
    members = list(values)
    if size <= MOST_ITEMS and _ALONE.issuperset(map(id, map(type, members))):
        return head + b"".join(sorted([ATOMS[type(member)](member) for member in members]))
    if size > MOST_ITEMS and _is_light(members):
        return head + b"+" + pack("<Q", _sum_of(members))
    return None


def _is_light(values: list[Any]) -> bool:
    """Return whether members are atoms, or tuples of atoms, and their total size is small."""
    kinds = set(map(id, map(type, values)))
    if id(tuple) in kinds:
        if len(kinds) > 1 or sum(map(len, values)) > MOST_SUMMED:
            return False
        values = list(chain.from_iterable(values))
        kinds = set(map(id, map(type, values)))
    if not _ALONE.issuperset(kinds):
        return False
    return sum(map(sys.getsizeof, values)) <= MOST_SUMMED_BYTES


def _sum_of(values: list[Any]) -> int:
    """Return a sum over the members, whatever their order; no Python code runs for a member."""
    from zlib import crc32  # imported late: few functions use a large set

    # Version 0 of the format: later versions mark interned strings and repeated objects.
    return sum(map(crc32, map(marshal.dumps, values, repeat(0))))


# Constants ----------------------------------------------------------------------------------


def constant(value: Any, room: list[int] | None = None) -> bytes:
    """Encode an immutable constant of a code object, other than nested code.

    Args:
        value: the constant.
        room: how many more containers to look at, and how many levels deeper; counted down.
    """
    room = room or [MOST_CONSTANTS, DEEPEST_CONSTANT]
    kind = type(value)
    atom = atom_of(kind)
    if atom is not None:
        return atom(value)
    if room[0] <= 0 or room[1] <= 0:
        return b"#"
    room[0] -= 1
    room[1] -= 1
    try:
        return _compound(value, kind, room)
    finally:
        room[1] += 1


def _compound(value: Any, kind: type, room: list[int]) -> bytes:
    if kind is tuple:
        size, few = sampled(value)
        parts = b"".join(constant(inner, room) for inner in few)
        return b"(" + pack("<q", size) + framed(b"", parts)
    if kind is frozenset:
        known = set_of_atoms(value, len(value))
        if known is not None:
            return known
        members = value if len(value) <= MOST_ITEMS else ()
        parts = b"".join(sorted(constant(inner, room) for inner in members))
        return b"{" + pack("<q", len(value)) + framed(b"", parts)
    if kind is slice:  # constants since 3.14
        inner = (value.start, value.stop, value.step)
        return framed(b":", b"".join(constant(part, room) for part in inner))
    # The compiler makes no other constants; other programs that make code may.
    return framed(b"?", f"{module_of(kind)}.{qualname(kind)}".encode())
