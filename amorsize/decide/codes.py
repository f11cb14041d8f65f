"""Code objects and constants as bytes: equal for equal code, in every process and folder.

Line numbers, file names and docstrings leave no trace. Parts are type-tagged and length-prefixed,
so that no two sequences of parts have the same bytes; long buffers are sampled.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable
from opcode import hasconst, opmap
from struct import pack

try:
    from _blake2 import blake2b  # hashlib gives this very function, after 2 ms of OpenSSL
except ImportError:
    from hashlib import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "ATOMS",
    "SAMPLE_BYTES",
    "Code",
    "buffer",
    "describe",
    "digest_of",
    "framed",
    "hash_of",
    "make_room",
]

SAMPLE_BYTES = 1_024  # at each end of a long buffer, and in strides between
MOST_CODES = 4_096


def digest_of(data: bytes) -> str:
    """Return 16 hexadecimal digits that tell bytes apart.

    >>> digest_of(b"amorsize")
    '965a18bf3d068528'
    """
    return blake2b(data, digest_size=8).hexdigest()


def hash_of(data: bytes) -> bytes:
    """Return 16 bytes that tell bytes apart."""
    return blake2b(data, digest_size=16).digest()


def make_room(table: dict[Any, Any], most: int) -> None:
    """Drop the oldest entries; two threads may both try, so a missing key is no error."""
    while len(table) >= most:
        try:
            table.pop(next(iter(table)), None)
        except (StopIteration, RuntimeError):  # another thread emptied or changed it
            return


class Code:
    """What the walk needs of a code object; computed once for each.

    Attributes:
        code: the code object, kept so that its id is not reused.
        digest: of all that it does.
        globals: names it loads from the module or the builtins.
        names: all its names, attributes among them.
        imports: names of modules it imports as it runs; relative ones without their dots.
    """

    __slots__ = ("code", "digest", "globals", "imports", "names")

    def __init__(
        self,
        code: types.CodeType,
        digest: bytes,
        globals_: tuple[str, ...],
        names: tuple[str, ...],
        imports: tuple[str, ...],
    ) -> None:
        self.code = code
        self.digest = digest
        self.globals = globals_
        self.names = names
        self.imports = imports


_codes: dict[int, Code] = {}

_LOADS = {opmap[name] for name in ("LOAD_NAME", "LOAD_GLOBAL") if name in opmap}
_LOADS |= {opmap[n] for n in ("LOAD_FROM_DICT_OR_GLOBALS",) if n in opmap}
_LOAD_GLOBAL = opmap["LOAD_GLOBAL"]
_IMPORT_NAME = opmap["IMPORT_NAME"]
_EXTENDED = opmap["EXTENDED_ARG"]
_CONSTS = frozenset(hasconst)
_OPTIMIZED_FUNCTION = 0x3  # CO_OPTIMIZED | CO_NEWLOCALS: a def or a lambda, not a class body
_HAS_DOCSTRING = 0x4000000  # 3.14 and later say it outright


def describe(code: types.CodeType) -> Code:
    """Return the description of ``code``; the table's reference keeps its id from being reused."""
    known = _codes.get(id(code))
    if known is not None:
        return known
    loaded, imports, uses_first_constant = _scan(code)
    consts: tuple[object, ...] = code.co_consts
    if _docstring(code) and not uses_first_constant:
        consts = consts[1:]
    names = list(code.co_names)
    parts = [
        pack(
            "<5q",
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags & ~_HAS_DOCSTRING,
            len(consts),
        )
    ]
    for data in (code.co_code, getattr(code, "co_exceptiontable", b"")):
        parts.append(framed(b"y", data))
    for group in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
        parts.append(framed(b"n", "\0".join(group).encode("utf-8", "surrogatepass")))
    for const in consts:
        if isinstance(const, types.CodeType):
            nested = describe(const)
            parts.append(framed(b"c", nested.digest))
            loaded += nested.globals
            imports += nested.imports
            names += nested.names
        else:
            parts.append(_constant(const))
    digest = hash_of(b"".join(parts))
    described = Code(code, digest, _unique(loaded), _unique(names), _unique(imports))
    make_room(_codes, MOST_CODES)
    _codes[id(code)] = described
    return described


def _scan(code: types.CodeType) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Return (global names loaded, modules imported, whether the first constant is loaded)."""
    loaded: list[str] = []
    imported: list[str] = []
    first = False
    extended = 0
    raw = code.co_code
    for op, low in zip(raw[::2], raw[1::2], strict=True):
        arg = extended | low
        if op == _EXTENDED:
            extended = arg << 8
            continue
        extended = 0
        if op in _LOADS:
            # The lowest bit of LOAD_GLOBAL says whether to push a NULL for a coming call.
            loaded.append(code.co_names[arg >> 1 if op == _LOAD_GLOBAL else arg])
        elif op == _IMPORT_NAME:
            imported.append(code.co_names[arg])
        elif op in _CONSTS and arg == 0:
            first = True
    return tuple(loaded), tuple(imported), first


def _docstring(code: types.CodeType) -> bool:
    """Return whether the first constant is the docstring (which may also be used as a value)."""
    if sys.version_info >= (3, 14):
        return bool(code.co_flags & _HAS_DOCSTRING)
    return (
        code.co_flags & _OPTIMIZED_FUNCTION == _OPTIMIZED_FUNCTION
        and not code.co_name.startswith("<")
        and bool(code.co_consts)
        and isinstance(code.co_consts[0], str)
    )


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


# Encoding -----------------------------------------------------------------------------------


def framed(tag: bytes, data: bytes) -> bytes:
    """Encode one part so that no two sequences of parts have the same bytes."""
    return tag + pack("<q", len(data)) + data


def _constant(value: Any) -> bytes:
    """Encode an immutable constant, as it may stand in a code object."""
    kind = type(value)
    if kind in ATOMS:
        return ATOMS[kind](value)
    if kind is tuple:
        return framed(b"(", b"".join(map(_constant, value)))
    if kind is frozenset:
        return framed(b"{", b"".join(sorted(map(_constant, value))))
    if kind is slice:  # constants since 3.14
        return framed(b":", b"".join(map(_constant, (value.start, value.stop, value.step))))
    raise TypeError(f"unexpected constant {value!r} in a code object")


def _text(value: str) -> bytes:
    return buffer(b"s", value.encode("utf-8", "surrogatepass"))


def buffer(tag: bytes, data: bytes | memoryview) -> bytes:
    """Encode bytes: whole when short, else by length and a sample of both ends and strides."""
    size = len(data)
    if size <= 4 * SAMPLE_BYTES:
        return framed(tag, bytes(data))
    stride = size // SAMPLE_BYTES
    sample = bytes(data[:SAMPLE_BYTES]) + bytes(data[-SAMPLE_BYTES:]) + bytes(data[::stride])
    return tag + pack("<q", size) + sample


def _integer(value: int) -> bytes:
    return framed(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"N",
    type(Ellipsis): lambda _: b"E",
    type(NotImplemented): lambda _: b"I",
    bool: lambda value: b"T" if value else b"F",
    int: _integer,
    float: lambda value: b"f" + pack("<d", value),
    complex: lambda value: b"j" + pack("<2d", value.real, value.imag),
    str: _text,
    bytes: lambda value: buffer(b"b", value),
}
