"""Which of several interpreters of a process this is: only the main one can start processes."""

from __future__ import annotations

import functools
import importlib

__all__ = ["ensure_main_interpreter"]


def ensure_main_interpreter() -> None:
    """Fail in a sub-interpreter, in which a forked child dies.

    Raises:
        OSError: this is a sub-interpreter.
    """
    if _is_sub_interpreter():
        raise OSError("a sub-interpreter cannot start processes")


@functools.cache
def _is_sub_interpreter() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):  # since 3.13; before 3.13
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() != interpreters.get_main())
    return False
