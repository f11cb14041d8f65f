"""What the command line reads and writes: lines, JSON records, results as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .targets import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TextIO

__all__ = ["encoded", "opened_input", "opened_output"]


@contextmanager
def opened_input(path: str, form: str) -> Iterator[Iterator[Any]]:
    """Open an input, and give its records, which are read as they are needed.

    Args:
        path: a file, "-" for standard input.
        form: "lines", whose ends are removed, or "jsonl", a JSON value a line.

    Raises:
        UsageError: the file cannot be opened; or later, a line is not JSON.
    """
    with _opened(path, "r", sys.stdin) as file:
        lines = (line.removesuffix("\n") for line in file)
        yield lines if form == "lines" else _values(lines, path)


@contextmanager
def opened_output(path: str) -> Iterator[TextIO]:
    """Open an output.

    Args:
        path: a file, "-" for standard output.

    Raises:
        UsageError: the file cannot be opened.
    """
    with _opened(path, "w", sys.stdout) as file:
        yield file


@contextmanager
def _opened(path: str, mode: Literal["r", "w"], standard: Any) -> Iterator[TextIO]:
    """Open a file in UTF-8; bytes that are no UTF-8 pass through it."""
    if path == "-":
        standard.reconfigure(encoding="utf-8", errors="surrogateescape")
        yield standard
        return
    try:
        file = open(path, mode, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"{path!r} cannot be opened: {error.strerror}") from error
    with file:
        yield file


def _values(lines: Iterator[str], path: str) -> Iterator[Any]:
    """Yield the values of JSON lines; empty lines are left out."""
    where = "standard input" if path == "-" else path
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            raise UsageError(f"line {number} of {where} is not JSON: {error}") from error


def encoded(value: Any) -> str:
    """Return a result as one line of JSON.

    Data classes become objects; what has a ``tolist`` method, such as NumPy's arrays and numbers,
    becomes what that returns.

    Args:
        value: the result.

    Raises:
        TypeError, ValueError: it cannot be written as JSON.

    >>> encoded({"a": (1, None)})
    '{"a": [1, null]}'
    """
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON: {value!r:.60}")
