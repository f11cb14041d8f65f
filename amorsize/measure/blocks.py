"""Whether a function may hold a lock at a given instruction, read from its bytecode."""

from __future__ import annotations

import dis
import functools
import itertools
import types

__all__ = ["acquires", "holds_block"]


def acquires(code: types.CodeType) -> bool:
    """Return whether a function calls ``acquire``; it may then hold a lock at any instruction."""
    return "acquire" in code.co_names


def holds_block(code: types.CodeType, place: int) -> bool:
    """Return whether an instruction of a function is inside a ``with`` block.

    Each ``with`` block has an entry in the exception table. The entry's handler calls ``__exit__``.

    Args:
        code: the function's code object.
        place: offset of the instruction, as in ``frame.f_lasti``.

    >>> def f(lock):
    ...     with lock:
    ...         pass
    >>> {holds_block(f.__code__, i.offset) for i in dis.Bytecode(f)} == {False, True}
    True
    """
    return any(start <= place < end for start, end in _with_blocks(code))


@functools.lru_cache(maxsize=256)
def _with_blocks(code: types.CodeType) -> tuple[tuple[int, int], ...]:
    """Return the (start, end) offsets of all ``with`` blocks."""
    handlers = set()
    instructions = list(dis.get_instructions(code))
    for before, after in itertools.pairwise(instructions):
        if after.opname == "WITH_EXCEPT_START":
            handlers.add(before.offset)
    entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    return tuple((entry.start, entry.end) for entry in entries if entry.target in handlers)
