"""Digests of code objects: equal for equal code, in every process and folder.

Line numbers, file names and docstrings leave no trace.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from opcode import hasconst, opmap
from struct import pack

from ..versions import FLAGS_DOCSTRINGS, IMPORT_SHIFT, KNOWS_BYTECODE
from .atoms import constant, framed

try:
    from _blake2 import blake2b  # hashlib has the same one, but loads OpenSSL: 2 ms
except ImportError:
    from hashlib import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Code", "describe", "digest_of", "hash_of", "make_room"]

MOST_CODES = 4_096
# Constants to encode of one code object, nested code not counted; 60,000 took 0.5 s.
MOST_CONSTANTS = 1_000


def digest_of(data: bytes) -> str:
    """Return a digest of bytes as 16 hexadecimal digits.

    >>> digest_of(b"amorsize")
    '965a18bf3d068528'
    """
    return blake2b(data, digest_size=8).hexdigest()


def hash_of(*parts: bytes) -> bytes:
    """Return a digest of bytes, one part behind the other, as 16 bytes."""
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


def make_room(table: dict[Any, Any], most: int) -> None:
    """Drop the oldest entries until fewer than ``most`` are left.

    Two threads may do so at once, so a missing key is no error.
    """
    while len(table) >= most:
        try:
            table.pop(next(iter(table)), None)
        except (StopIteration, RuntimeError):  # another thread emptied or changed it
            return


class Code:
    """What the walk needs to know of a code object; computed once for each.

    Attributes:
        code: the code object, kept alive so that its id is not reused.
        digest: of everything that it does.
        globals: names it loads from the module or the builtins.
        names: all its names, including those of attributes.
        imports: names of modules it imports when it runs; relative names without their dots.
        asked: short texts in it, which may be names; empty unless it looks up names by text.
        size: bytes of bytecode, including nested functions.
    """

    __slots__ = ("asked", "code", "digest", "globals", "imports", "names", "size")

    def __init__(
        self,
        code: types.CodeType,
        digest: bytes,
        globals_: tuple[str, ...],
        names: tuple[str, ...],
        imports: tuple[str, ...],
        size: int,
        asked: tuple[str, ...],
    ) -> None:
        self.code = code
        self.digest = digest
        self.globals = globals_
        self.names = names
        self.imports = imports
        self.size = size
        self.asked = asked


_codes: dict[int, Code] = {}

_LOADS = {opmap[name] for name in ("LOAD_NAME", "LOAD_GLOBAL") if name in opmap}
_LOADS |= {opmap[n] for n in ("LOAD_FROM_DICT_OR_GLOBALS",) if n in opmap}
_LOAD_GLOBAL = opmap["LOAD_GLOBAL"]
_IMPORT_NAME = opmap["IMPORT_NAME"]
_EXTENDED = opmap["EXTENDED_ARG"]
_CONSTS = frozenset(hasconst)
# Names that code uses to look up other names by text.
_BY_TEXT = frozenset({"getattr", "attrgetter", "vars", "__dict__", "globals", "eval", "exec"})
LONGEST_NAME = 100
_OPTIMIZED_FUNCTION = 0x3  # CO_OPTIMIZED | CO_NEWLOCALS: a def or a lambda, not a class body


def describe(code: types.CodeType) -> Code:
    """Return the description of ``code``; the table keeps ``code`` alive, so no id is reused."""
    known = _codes.get(id(code))
    if known is not None:
        return known
    loaded, imports = _scan(code)
    consts: tuple[object, ...] = code.co_consts
    if _docstring(code) and not _uses_first_constant(code):
        consts = consts[1:]
    names = list(code.co_names)
    size = len(code.co_code)
    parts = [
        pack(
            "<5q",
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags & ~FLAGS_DOCSTRINGS,
            len(consts),
        )
    ]
    for data in (code.co_code, getattr(code, "co_exceptiontable", b"")):
        parts += b"y" + pack("<q", len(data)), data  # large code is not copied once more
    for group in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
        parts.append(framed(b"n", "\0".join(group).encode("utf-8", "surrogatepass")))
    for const in _some(consts):
        if isinstance(const, types.CodeType):
            nested = describe(const)
            parts.append(framed(b"c", nested.digest))
            loaded += nested.globals
            imports += nested.imports
            names += nested.names
            size += nested.size
        else:
            parts.append(constant(const))
    digest = hash_of(*parts)
    asked = () if _BY_TEXT.isdisjoint(names) else _unique(_possible_names(code))
    described = Code(code, digest, _unique(loaded), _unique(names), _unique(imports), size, asked)
    make_room(_codes, MOST_CODES)
    _codes[id(code)] = described
    return described


def _some(constants: tuple[object, ...]) -> Iterable[object]:
    """Return the constants of code; of very many, a sample and all nested code."""
    stride = -(-len(constants) // MOST_CONSTANTS)
    if stride <= 1:
        return constants
    return [
        const
        for place, const in enumerate(constants)
        if place % stride == 0 or isinstance(const, types.CodeType)
    ]


def _scan(code: types.CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (global names loaded, modules imported).

    The scan jumps to the relevant instructions: code may have 100,000 others. Where it does not
    know the instructions, all names count as both.
    """
    if not KNOWS_BYTECODE:
        return code.co_names, code.co_names
    raw, names = code.co_code, code.co_names
    ops, lows = raw[::2], raw[1::2]
    # The lowest bit of LOAD_GLOBAL's argument says whether to push a NULL for a later call.
    loaded = [
        names[_argument(ops, lows, place) >> (ops[place] == _LOAD_GLOBAL)]
        for place in sorted(place for op in _LOADS for place in _places(ops, op))
    ]
    imported = [
        names[_argument(ops, lows, place) >> IMPORT_SHIFT] for place in _places(ops, _IMPORT_NAME)
    ]
    return _unique(loaded), _unique(imported)


def _possible_names(code: types.CodeType) -> Iterator[str]:
    """Yield the texts in code, and in its nested code, that could be names."""
    for const in code.co_consts:
        if type(const) is types.CodeType:
            yield from _possible_names(const)
        elif type(const) is str and len(const) <= LONGEST_NAME and const.isidentifier():
            yield const


def _uses_first_constant(code: types.CodeType) -> bool:
    """Return whether the first constant is loaded as a value."""
    ops, lows = code.co_code[::2], code.co_code[1::2]
    return any(
        lows[place] == 0 and _argument(ops, lows, place) == 0
        for op in _CONSTS
        for place in _places(ops, op)
    )


def _places(ops: bytes, op: int) -> Iterator[int]:
    """Yield the places of an instruction."""
    place = ops.find(op)
    while place >= 0:
        yield place
        place = ops.find(op, place + 1)


def _argument(ops: bytes, lows: bytes, place: int) -> int:
    """Return the argument of an instruction, including its EXTENDED_ARG prefixes."""
    argument, shift = lows[place], 8
    while place and ops[place - 1] == _EXTENDED:
        place -= 1
        argument |= lows[place] << shift
        shift += 8
    return argument


def _docstring(code: types.CodeType) -> bool:
    """Return whether the first constant is the docstring (which may also be used as a value)."""
    if FLAGS_DOCSTRINGS:
        return bool(code.co_flags & FLAGS_DOCSTRINGS)
    return (
        code.co_flags & _OPTIMIZED_FUNCTION == _OPTIMIZED_FUNCTION
        and not code.co_name.startswith("<")
        and bool(code.co_consts)
        and isinstance(code.co_consts[0], str)
    )


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
