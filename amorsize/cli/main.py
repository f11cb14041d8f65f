"""The parser of the command line, and how it ends.

It ends with 0; with 1 if the function has failed, or something was found wrong; with 2 if it was
used wrongly, with one line that says how; or by the signal of Ctrl-C or of a closed pipe, as a
filter of Unix does.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from contextlib import suppress

from ..errors import AmorsizeError
from ..options import BACKENDS, ENGINES
from ..run.failure import has_item_note
from .targets import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

__all__ = ["main"]

FAILED, MISUSED = 1, 2


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> Any:
        """End the program, and say what is wrong in one line."""
        self.exit(MISUSED, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(args: Sequence[str] | None = None) -> int:
    """Carry out a command; return the exit code.

    Args:
        args: the arguments; None for those of the program.
    """
    given = _parser().parse_args(args)
    try:
        code: int = given.run(given) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
    except UsageError as error:
        _complain(str(error))
        return MISUSED
    except KeyboardInterrupt as error:
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)  # how many results are kept
        ending = signal.SIGINT
    except BaseException as error:  # noqa: BLE001 - of the user's function, or about it
        if not isinstance(error, BrokenPipeError) or has_item_note(error):
            _tell(error)
            return FAILED
        ending = getattr(signal, "SIGPIPE", signal.SIGTERM)
    else:
        return code
    return _end_by(ending)


def _complain(text: str) -> None:
    print(f"amorsize: {' '.join(text.split())}", file=sys.stderr)


def _tell(error: BaseException) -> None:
    """Print what the function has raised: with its traceback, and the index of its item."""
    from .mapping import ResultError

    if isinstance(error, (AmorsizeError, ResultError)):
        _complain(str(error))
    elif isinstance(error, OSError) and not has_item_note(error):
        _complain(f"standard output cannot be written: {error.strerror or error}")
        _drop_output()
    else:
        traceback.print_exception(error)


def _end_by(number: signal.Signals) -> int:
    """End this process as the signal would have done, so that a shell sees it."""
    _drop_output()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _drop_output() -> None:
    """Have what is left in the buffers of standard output go nowhere."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _parser() -> _Parser:
    parser = _Parser(
        prog="amorsize",
        description="The result of list(map(func, data)), on as many processes as make it faster.",
    )
    parser.add_argument("--version", action="version", version=f"amorsize {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    _add_optimize(commands)
    _add_cache(commands)
    machine = _command(
        commands, "machine", "tell_machine", "what this process may use, and what workers cost here"
    )
    machine.add_argument("--json", action="store_true", help="as JSON")
    _command(commands, "doctor", "tell_health", "what works here, and what would surprise")
    _command(commands, "demo", "run_demo", "run an example and show what was decided")
    return parser


def _version() -> str:
    from .. import __version__

    return __version__


def _command(commands: Any, name: str, function: str, text: str) -> argparse.ArgumentParser:
    """Add a command that a function of ``telling`` or ``mapping`` carries out."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=_later(function))
    return parser


def _later(name: str) -> Callable[[argparse.Namespace], int | None]:
    """Return a function that loads a function and calls it."""

    def run(given: argparse.Namespace) -> int | None:
        from . import mapping, telling

        home = mapping if hasattr(mapping, name) else telling
        code: int | None = getattr(home, name)(given)
        return code

    return run


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", metavar="TARGET", help="package.module:function or path/to/file.py:function"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--input", default="-", metavar="FILE", help="records to map over; - is standard input"
    )
    source.add_argument(
        "--range", type=_at_least(0), metavar="N", help="map over the numbers 0 to N-1 instead"
    )
    parser.add_argument(
        "--format", choices=("lines", "jsonl"), default="lines",
        help="what a line of the input is: a text, or a JSON value",
    )  # fmt: skip


def _add_run(commands: Any) -> None:
    parser = _command(
        commands, "run", "run_target",
        "map a function over records; write a JSON result a line, in order, as they come",
    )  # fmt: skip
    _add_inputs(parser)
    parser.add_argument("--output", default="-", metavar="FILE", help="where results go")
    parser.add_argument("--n-jobs", type=int, metavar="N", help="workers; decided if not given")
    parser.add_argument("--chunksize", type=_at_least(1), metavar="N", help="items in a chunk")
    parser.add_argument("--backend", choices=(*BACKENDS, *ENGINES), help="where items run")
    parser.add_argument("--progress", action="store_true", help="show progress on standard error")
    parser.add_argument(
        "--errors", choices=("raise", "keep"), default="raise",
        help="end at the first item that fails, or write errors as results",
    )  # fmt: skip
    parser.add_argument(
        "--resume", metavar="FILE", help="keep results there; the same command computes the rest"
    )
    parser.add_argument(
        "--seed", type=_at_least(0), metavar="N", help="give each item its own random stream"
    )
    parser.add_argument("--report", metavar="FILE.html", help="write a page of what happened")
    parser.add_argument("--trace", metavar="FILE.json", help="write Chrome trace events")


def _add_optimize(commands: Any) -> None:
    parser = _command(
        commands, "optimize", "optimize_target",
        "advice for a pool of your own; runs a sample of the items without keeping results",
    )  # fmt: skip
    _add_inputs(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_cache(commands: Any) -> None:
    parser = _command(commands, "cache", "tell_cache", "what is remembered, managed")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    texts = {
        "dir": "the folder of the records",
        "list": "the records",
        "stats": "number, size and age of the records",
        "clear": "remove all records",
        "prune": "remove records that have expired",
        "check": "look for damaged records",
        "export": "write all records to a file",
        "import": "read records from a file",
    }
    for name, text in texts.items():
        action = actions.add_parser(name, help=text, description=text)
        if name in ("list", "stats"):
            action.add_argument("--json", action="store_true", help="as JSON")
        if name == "check":
            action.add_argument("--fix", action="store_true", help="remove damaged records")
        if name in ("export", "import"):
            action.add_argument("file", metavar="FILE")
        if name == "import":
            action.add_argument(
                "--overwrite", action="store_true", help="replace records of the same key"
            )


def _at_least(least: int) -> Callable[[str], int]:
    """Return a type of arguments: whole numbers from the least on."""

    def whole(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return number

    return whole
