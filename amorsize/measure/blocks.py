"""What a function holds at the place where it is: read from its code, nothing is run."""

from __future__ import annotations

import dis
import functools
import itertools
import types

__all__ = ["acquires", "holds_block"]


def acquires(code: types.CodeType) -> bool:
    """Return whether a function acquires locks by itself, so that it may hold one anywhere."""
    return "acquire" in code.co_names


def holds_block(code: types.CodeType, place: int) -> bool:
    """Return whether a function is inside a ``with`` block.

    Each ``with`` block has an entry in the exception table, whose handler calls ``__exit__``.

    Args:
        code: of the function.
        place: the instruction it is at, as ``frame.f_lasti`` has it.

    >>> def f(lock):
    ...     with lock:
    ...         pass
    >>> {holds_block(f.__code__, i.offset) for i in dis.Bytecode(f)} == {False, True}
    True
    """
    return any(start <= place < end for start, end in _with_blocks(code))


@functools.lru_cache(maxsize=256)
def _with_blocks(code: types.CodeType) -> tuple[tuple[int, int], ...]:
    """Return (start, end) of the instructions in ``with`` blocks."""
    handlers = set()
    instructions = list(dis.get_instructions(code))
    for before, after in itertools.pairwise(instructions):
        if after.opname == "WITH_EXCEPT_START":
            handlers.add(before.offset)
    entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    return tuple((entry.start, entry.end) for entry in entries if entry.target in handlers)
