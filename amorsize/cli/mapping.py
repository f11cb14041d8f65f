"""``amorsize run`` and ``amorsize optimize``: a function over records."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .records import encoded, opened_input, opened_output
from .targets import UsageError, load_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable
    from typing import Any, TextIO

    from ..show.report import RunReport

__all__ = ["ResultError", "optimize_target", "run_target"]


class ResultError(Exception):
    """A result cannot be written; the message is one line."""


def run_target(given: Namespace) -> None:
    """Map a function over records, and write a JSON result a line, as they come and in order.

    Args:
        given: the arguments of ``amorsize run``.

    Raises:
        UsageError: an argument, or a line of the input.
        ResultError: a result is no JSON.
        Exception: whatever the function raises.
    """
    from ..api import smart_imap

    func = load_target(given.target)
    for path in filter(None, (given.report, given.trace)):
        _check_writable(path)
    reports: list[RunReport] = []
    options: dict[str, Any] = {
        "n_jobs": given.n_jobs,
        "chunksize": given.chunksize,
        "backend": given.backend,
        "resume": given.resume,
        "seed": given.seed,
        "progress": given.progress,
        "return_exceptions": given.errors == "keep",
        "report": reports.append,
    }
    try:
        with _records(given) as records, opened_output(given.output) as out:
            try:
                results = smart_imap(func, records, **options)
            except (ValueError, TypeError, OSError) as error:  # an option; nothing has run
                raise UsageError(str(error)) from error
            failed = _write(results, out, keep=given.errors == "keep")
    finally:
        for report in reports:
            _save(report, given)
    if failed:
        items = "1 item has failed" if failed == 1 else f"{failed:,} items have failed"
        print(f"amorsize: {items}; the output tells which", file=sys.stderr)


def _write(results: Iterable[Any], out: TextIO, *, keep: bool) -> int:
    """Write results; return how many of them are exceptions."""
    failed = 0
    for index, result in enumerate(results):
        value = result
        if keep and isinstance(result, Exception):
            failed += 1
            kind = type(result).__name__
            value = {"error": {"type": kind, "message": str(result), "item": index}}
        try:
            line = encoded(value)
        except (TypeError, ValueError) as error:
            raise ResultError(
                f"the result of item {index} cannot be written as JSON: {error}"
            ) from error
        out.write(line + "\n")
        out.flush()  # the next program of a pipeline waits for it
    return failed


@contextmanager
def _records(given: Namespace) -> Iterator[Any]:
    """Give the records of a command."""
    if given.range is not None:
        yield range(given.range)
        return
    with opened_input(given.input, given.format) as records:
        yield records


def _check_writable(path: str) -> None:
    """Refuse a path before anything runs whose results could not be written there."""
    try:
        open(path, "a", encoding="utf-8").close()
    except OSError as error:
        raise UsageError(f"{path!r} cannot be written: {error.strerror}") from error


def _save(report: RunReport, given: Namespace) -> None:
    """Write the files that were asked for."""
    for path, save in ((given.report, report.to_html), (given.trace, report.to_trace)):
        if path is not None:
            save(path)


def optimize_target(given: Namespace) -> None:
    """Print advice on a function over records.

    Args:
        given: the arguments of ``amorsize optimize``.

    Raises:
        UsageError: an argument, or a line of the input.
        Exception: whatever the function raises.
    """
    from ..optimizer import optimize

    func = load_target(given.target)
    with _records(given) as records:
        found = optimize(func, records if given.range is not None else [*records])
    if not given.json:
        print(found.explain())
        return
    names = ("n_jobs", "chunksize", "executor_type", "estimated_speedup", "reason", "cache_hit")
    data = {name: getattr(found, name) for name in names}
    print(json.dumps({**data, "warnings": [*found.warnings]}))
