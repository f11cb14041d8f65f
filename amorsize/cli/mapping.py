"""``amorsize run`` and ``amorsize optimize``: a function over records."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress

from .records import Streams, drop, encoded, opened_input, opened_output
from .targets import UsageError, load_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable
    from typing import Any, TextIO

    from ..show.report import RunReport

__all__ = ["ResultError", "optimize_target", "run_target"]


class ResultError(Exception):
    """A result cannot be written, or there is none; the message is one line."""


def run_target(given: Namespace) -> None:
    """Map a function over records, and write a JSON result a line, as they come and in order.

    Args:
        given: the arguments of ``amorsize run``.

    Raises:
        UsageError: an argument, or a line of the input.
        ResultError: a result is no JSON, or cannot be written.
        Exception: whatever the function raises.
    """
    from ..api import smart_imap
    from ..memory.results import OtherCallError

    streams = Streams()
    _check_paths(given)
    func = _target(given.target)
    reports: list[RunReport] = []
    keep = given.errors == "keep"
    options: dict[str, Any] = {
        "n_jobs": given.n_jobs,
        "chunksize": given.chunksize,
        "backend": given.backend,
        "resume": given.resume,
        "seed": given.seed,
        "progress": given.progress,
        "return_exceptions": keep,
        "report": reports.append,
    }
    _check_engine(given.backend)
    try:
        with _records(given, streams) as records:
            try:
                source = records if isinstance(records, range) else iter(records)
                results = smart_imap(func, source, **options)
            except (ValueError, TypeError, OSError) as error:  # an option; nothing has run
                raise UsageError(str(error)) from error
            with closing(results), opened_output(given.output, streams.output) as out:  # type: ignore[type-var]
                written = _write(results, out, keep=keep)
        if len(records) > written.results:
            raise ResultError(
                f"item {written.results} has ended the results: the function raised StopIteration"
            )
    except OtherCallError as error:
        raise UsageError(str(error)) from error
    finally:
        # What ends the call is told, whatever becomes of its report.
        with suppress(Exception) if sys.exc_info()[1] else nullcontext():
            for report in reports:
                _save(report, given)
    if written.errors:
        items = "1 item has" if written.errors == 1 else f"{written.errors:,} items have"
        print(f"amorsize: {items} failed; the output tells which", file=sys.stderr)


class _Counted:
    """An iterator that counts what it gives.

    Args:
        items: the items.
    """

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.count += 1
            yield item

    def __len__(self) -> int:
        """Return how many items it has given."""
        return self.count


class _Written:
    """How many results were written, and how many of them are errors."""

    def __init__(self) -> None:
        self.results = self.errors = 0


def _write(results: Iterable[Any], out: TextIO, *, keep: bool) -> _Written:
    """Write results as they come."""
    written = _Written()
    for index, result in enumerate(results):
        try:
            value = result
            if keep and isinstance(result, Exception):
                written.errors += 1
                value = _told(result, index)
            line = encoded(value)
        except (TypeError, ValueError) as error:
            text = f"the result of item {index} cannot be written as JSON: {error}"
            if not keep:
                raise ResultError(text) from error
            written.errors += 1
            line = encoded(_told(ResultError(text), index))
        try:
            out.write(line + "\n")
            out.flush()  # the next program of a pipeline waits for it
        except BrokenPipeError:
            drop(out)
            raise
        except OSError as error:
            drop(out)
            raise ResultError(f"results cannot be written: {error.strerror}") from error
        written.results += 1
    return written


def _told(error: Exception, index: int) -> dict[str, Any]:
    """Return an error as a record."""
    try:
        text = str(error)
    except Exception as refusal:  # noqa: BLE001 - a user's __str__ may raise anything
        text = f"its text raised {type(refusal).__name__}"
    return {"error": {"type": type(error).__name__, "message": text, "item": index}}


@contextmanager
def _records(given: Namespace, streams: Streams) -> Iterator[range | _Counted]:
    """Give the records of a command; their length is that of what was read."""
    if given.range is not None:
        yield range(given.range)
        return
    with opened_input(given.input, given.format, streams.input) as records:
        yield _Counted(records)


# Before anything runs -------------------------------------------------------------------------


def _target(text: str) -> Callable[..., Any]:
    """Return the function, if it is one that can be mapped."""
    from ..api import plain_function, refuse_unfit

    func = load_target(text)
    try:
        refuse_unfit("amorsize", plain_function(func))
    except TypeError as error:
        raise UsageError(str(error)) from error
    return func


def _check_engine(backend: str | None) -> None:
    """Refuse an engine that is not there."""
    if backend in ("dask", "ray"):
        from ..remote.choosing import cluster_of

        try:
            cluster_of(backend)
        except (ImportError, ValueError) as error:
            raise UsageError(str(error)) from error


def _check_paths(given: Namespace) -> None:
    """Refuse paths that cannot be written, and one file in two roles."""
    roles = {"input": "" if given.range is not None else given.input}
    for role in ("output", "report", "trace", "resume"):
        path = getattr(given, role)
        roles[role] = path or ""
        if path and path != "-":
            _check_writable(path)
    met: dict[str, str] = {}
    for role, path in roles.items():
        if path in ("", "-") or (os.path.exists(path) and not os.path.isfile(path)):
            continue
        other = met.setdefault(os.path.realpath(path), role)
        if other != role:
            raise UsageError(f"--{other} and --{role} are the same file: {path!r}")


def _check_writable(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise UsageError(f"{path!r} cannot be opened: it is a folder")
    if not os.path.isdir(folder):
        raise UsageError(f"{path!r} cannot be opened: there is no folder {folder!r}")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise UsageError(f"{path!r} cannot be opened: permission denied")


def _save(report: RunReport, given: Namespace) -> None:
    """Write the files that were asked for."""
    for path, save in ((given.report, report.to_html), (given.trace, report.to_trace)):
        if path is not None:
            try:
                save(path)
            except OSError as error:
                raise ResultError(f"{path!r} cannot be written: {error.strerror}") from error


def optimize_target(given: Namespace) -> None:
    """Print advice on a function over records.

    Args:
        given: the arguments of ``amorsize optimize``.

    Raises:
        UsageError: an argument, or a line of the input.
        Exception: whatever the function raises.
    """
    from ..optimizer import optimize

    streams = Streams()
    func = _target(given.target)
    with _records(given, streams) as records:
        found = optimize(func, records if isinstance(records, range) else [*iter(records)])
    names = ("n_jobs", "chunksize", "executor_type", "estimated_speedup", "reason", "cache_hit")
    data = {name: getattr(found, name) for name in names}
    text = json.dumps({**data, "warnings": [*found.warnings]}) if given.json else found.explain()
    with opened_output("-", streams.output) as out:
        out.write(text + "\n")
        out.flush()
