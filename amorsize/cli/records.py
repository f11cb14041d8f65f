"""What the command line reads and writes: lines, JSON records, results as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .targets import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

__all__ = ["Streams", "drop", "encoded", "opened_input", "opened_output"]

# Files of Windows may begin with a mark. Bytes that are no UTF-8 pass through a function.
_READ: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": "\n"}


class Streams:
    """Standard input and output, kept from the function.

    What the function prints goes to standard error, and it finds nothing to read: the records and
    the results are not its own.
    """

    def __init__(self) -> None:
        # Python has None for a stream that is closed; its number may be another file's by now.
        self.input: TextIO | None = None
        self.output: TextIO | None = None
        if sys.stdin is not None:
            self.input = os.fdopen(_taken(0, os.devnull), **_READ)
        if sys.stdout is not None:
            self.output = os.fdopen(_taken(1, ""), "w", encoding="utf-8", newline="\n")


def _taken(number: int, instead: str) -> int:
    """Return a new descriptor of a standard stream, and put another file in its place.

    Args:
        number: descriptor of the stream.
        instead: path of what takes its place, "" for standard error.
    """
    mine = os.dup(number)
    if instead or sys.stderr is not None:
        other = os.open(instead, os.O_RDONLY) if instead else os.dup(2)
        os.dup2(other, number)
        os.close(other)
    return mine


def drop(file: TextIO) -> None:
    """Have what is left in the buffer of a file go nowhere: it cannot be written.

    Args:
        file: the file.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)


@contextmanager
def opened_input(path: str, form: str, standard: TextIO | None) -> Iterator[Iterator[Any]]:
    """Open an input, and give its records, which are read as they are needed.

    Args:
        path: a file, "-" for standard input.
        form: "lines", whose ends are removed, or "jsonl", a JSON value a line.
        standard: standard input.

    Raises:
        UsageError: the file cannot be opened; or later, a line is not JSON.
    """
    with _opened(path, "r", standard) as file:
        lines = (line.removesuffix("\n").removesuffix("\r") for line in file)
        yield lines if form == "lines" else _values(lines, path)


@contextmanager
def opened_output(path: str, standard: TextIO | None) -> Iterator[TextIO]:
    """Open an output.

    Args:
        path: a file, "-" for standard output.
        standard: standard output.

    Raises:
        UsageError: the file cannot be opened.
    """
    with _opened(path, "w", standard) as file:
        yield file


@contextmanager
def _opened(path: str, mode: str, standard: TextIO | None) -> Iterator[TextIO]:
    if path == "-":
        if standard is None:
            raise UsageError(f"standard {'input' if mode == 'r' else 'output'} is closed")
        yield standard
        return
    how: Any = _READ if mode == "r" else {"encoding": "utf-8", "newline": "\n"}
    try:
        file: TextIO = open(path, mode, **how)  # type: ignore[assignment] # noqa: SIM115
    except OSError as error:
        raise UsageError(f"{path!r} cannot be opened: {error.strerror}") from error
    try:
        yield file
    finally:
        with suppress(OSError):  # a full disk was told when a line was written
            file.close()


def _values(lines: Iterator[str], path: str) -> Iterator[Any]:
    """Yield the values of JSON lines; empty lines are left out."""
    where = "standard input" if path == "-" else path
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"line {number} of {where} is not JSON: {error}") from error


def encoded(value: Any) -> str:
    """Return a result as one line of JSON.

    Data classes become objects; what has a ``tolist`` method, such as NumPy's arrays and numbers,
    becomes what that returns. Half of a surrogate pair, which no UTF-8 can have, is escaped.

    Args:
        value: the result.

    Raises:
        TypeError, ValueError: it cannot be written as JSON, which has no NaN and no infinity.

    >>> encoded({"a": (1, None)})
    '{"a": [1, null]}'
    """
    try:
        text = json.dumps(value, ensure_ascii=False, default=_plain, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=_plain, allow_nan=False)
    except RecursionError as error:
        raise ValueError("it is nested too deeply, or holds itself") from error
    return text


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    as_list = getattr(value, "tolist", None)
    if as_list is not None:
        return as_list()
    raise TypeError(f"{type(value).__name__} is no JSON: {value!r:.60}")
