"""The instructions of a function's code, and where the expressions among them begin and end.

An expression is found by what its instructions put on the stack, less what they take. Nothing here
knows a value, and nothing is run.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator

from ..tuples import NamedTuple
from ..versions import SUBSCRIPT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Instructions", "Line", "codes_in", "is_index"]


def codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and the code objects nested in it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from codes_in(const)


class Line(NamedTuple):
    """An instruction.

    Attributes:
        kind: its name.
        arg: its argument as a number.
        name: what the argument stands for.
        given: how many values it puts on the stack, less those it takes.
    """

    kind: str
    arg: int | None
    name: Any
    given: int


def _lines_of(code: types.CodeType) -> Iterator[Line]:
    """Yield the instructions that have an effect; a paired load or store as two."""
    for line in dis.get_instructions(code):
        if line.opname in ("CACHE", "NOP", "RESUME", "EXTENDED_ARG"):
            continue
        if isinstance(line.argval, tuple) and line.opname.count("_FAST") == 2:  # 3.13 and later
            verbs = (line.opname.partition("_")[0], "LOAD" if "_LOAD" in line.opname else "STORE")
            for verb, name in zip(verbs, line.argval, strict=True):
                yield Line(f"{verb}_FAST", None, name, 1 if verb == "LOAD" else -1)
            continue
        given = dis.stack_effect(line.opcode, line.arg, jump=False)
        yield Line(line.opname, line.arg, line.argval, given)


def is_index(line: Line) -> bool:
    """Return whether an instruction takes an item, or a slice, out of a container."""
    if line.kind in ("BINARY_SUBSCR", "BINARY_SLICE"):  # the latter since 3.12
        return True
    return line.kind == "BINARY_OP" and line.arg == SUBSCRIPT


class Instructions:
    """The instructions of a code object; a place is the index of one.

    Args:
        code: the code.

    Attributes:
        lines: the instructions that have an effect.
    """

    def __init__(self, code: types.CodeType) -> None:
        self.lines = list(_lines_of(code))

    def start(self, place: int) -> int:
        """Return where the expression that ends at a place begins: it adds one value in all."""
        given = 0
        while place >= 0:
            given += self.lines[place].given
            if given == 1:
                return place
            place -= 1
        return 0

    def first_argument(self, place: int) -> int:
        """Return where the first argument of a call ends, -1 if there is none.

        The function to call is loaded at ``place``. After the first argument more values lie on
        the stack, until the call takes them all.
        """
        end, given = -1, 0
        for later in range(place + 1, len(self.lines)):
            line = self.lines[later]
            if line.kind == "PUSH_NULL" and given == 0:
                continue
            given += line.given
            if given < 1:
                break
            if given == 1:
                end = later
        return end

    def container(self, place: int) -> int:
        """Return where the expression ends whose item or slice an instruction takes."""
        before = place - 1
        for _ in range(1 + (self.lines[place].kind == "BINARY_SLICE")):
            before = self.start(before) - 1
        return before

    def stored_into(self, place: int, *, keys: int) -> int:
        """Return the end of the expression whose object a store changes.

        ``a[k] += 1`` loads object and key once, copies them, and swaps them to the top at the end.

        Args:
            place: the store.
            keys: number of values that say where: 0 for an attribute, 1 for an item, 2 for a slice.
        """
        before, depth = place - 1, keys + 1
        if before >= 0 and self.lines[before].kind == "SWAP":
            copies = (i for i in range(before, -1, -1) if self._is_copy(i, depth))
            before = next(copies, 0) - depth
        for _ in range(keys):
            before = self.start(before) - 1
        return before

    def _is_copy(self, place: int, depth: int) -> bool:
        """Return whether the ``depth`` copies of an augmented assignment end at a place."""
        lines = self.lines[max(0, place - depth + 1) : place + 1]
        return len(lines) == depth and all((x.kind, x.arg) == ("COPY", depth) for x in lines)
