"""What runs in a worker of another engine: it opens the call once, and runs chunks of it.

The process belongs to the engine. It may run several chunks at the same time, in threads, and
chunks of other calls before and after.
"""

from __future__ import annotations

import contextvars
import os
import socket
import sys
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from types import FunctionType

from ..errors import SerializationError
from ..nesting import as_worker_thread
from ..run.counted import begin_at
from ..run.current import Current
from ..run.failure import Failure, keep, pack, survivor
from ..run.known import Scope, within
from ..run.pickles import loads
from ..run.reply import Ran
from ..run.setup import Call, Setup
from ..run.surroundings import State
from ..run.transport import Parcel, unpack
from ..run.worker import is_worker, run_columns
from ..tuples import NamedTuple
from .held import opening
from .records import collected
from .visiting import Baggage, visiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..run.logs import Logs

__all__ = ["MISSING", "Answer", "SharedShip", "Ship", "Work", "origin", "work", "work_here"]

# Most calls that a worker keeps open; calls from several programs may take turns.
MOST_CALLS = 16
# Most bytes of them, as they were sent: nobody tells a worker that a call has ended.
MOST_BYTES = 64_000_000

MISSING = "missing"


class Ship(NamedTuple):
    """A call, as it goes to the workers of an engine.

    Attributes:
        name: a unique name.
        python: major and minor version of the caller's Python.
        origin: host, process and interpreter of the caller.
        main: file of the caller's main module, "" for none.
        content: pickles of the caller's state, of the present values of what the call uses, and of
            the call with its initializer; None where the worker should have it.
    """

    name: str
    python: tuple[int, int]
    origin: str
    main: str
    content: tuple[bytes, bytes, bytes] | None


class SharedShip(NamedTuple):
    """A call for threads of this process, which share its memory.

    Attributes:
        name: a unique name.
        setup: what they run.
        surround: puts the state of the caller's thread in place.
        context: the caller's context.
        stopped: set when nobody waits for the call any more.
    """

    name: str
    setup: Setup
    surround: Callable[[], None]
    context: contextvars.Context
    stopped: threading.Event


class Work(NamedTuple):
    """A chunk of a call.

    Attributes:
        start: index of its first item.
        size: number of items.
        columns: the items, packed or as they are.
        keys: what stands for arrays in them that the engine holds.
    """

    start: int
    size: int
    columns: Parcel | tuple[Any, ...]
    keys: tuple[int, ...] = ()


class Answer(NamedTuple):
    """What came of a chunk.

    Attributes:
        fields: fields of the ``Reply``, as ``Ran.packed`` gives them.
        node: where it ran: host and process.
        records: pickled log records.
    """

    fields: tuple[Any, ...]
    node: str
    records: list[bytes] = []  # noqa: RUF012 - never written to


class _Opened:
    """A call that was opened here.

    Args:
        ship: the call.
    """

    def __init__(self, ship: Ship) -> None:
        self.failure: Failure | None = None
        self.baggage: Baggage | None = None
        self.logs: Logs | None = None
        # Engines run tasks in contexts of their own; each chunk runs in a copy of this one.
        self.context = contextvars.copy_context()
        self.call: Call | None = None
        self.scope = Scope()
        self._is_program = _is_program(ship)
        assert ship.content is not None
        self.size = sum(map(len, ship.content))
        try:
            self.context.run(self._open, ship.name, *ship.content, is_own=ship.origin == origin())
        except SerializationError as error:
            cause = error.__cause__
            self._fail(cause if isinstance(cause, ImportError) else error)
        except BaseException as error:  # noqa: BLE001 - unpickling may run any code
            self._fail(error)

    def _open(self, name: str, packed: bytes, current: bytes, call: bytes, *, is_own: bool) -> None:
        state: State = loads(packed)
        own = dict(state.own or ())
        for pair in loads(own["context"]) if "context" in own else ():
            with suppress(ImportError, AttributeError):  # a module may exist only in the caller
                variable, value = loads(pair)
                variable.set(value)
        if is_own:  # a thread of the caller's process, which has its state
            self.baggage = Baggage(name, State(), Current(), self.scope)
        else:
            if "logging" in own and not is_worker():  # ours send their records themselves
                self.logs = loads(own["logging"])
            with within(self.scope):
                self.baggage = Baggage(name, state, loads(current), self.scope)
        with visiting(self.baggage):
            self.call, initializer, initargs = unpack(Parcel(call))
            self.take_what_was_made()
            if initializer is not None:
                initializer(*initargs)
        if initializer is not None:  # what it has set must not be set again to the caller's values
            self.baggage.current = Current()

    def take_what_was_made(self) -> None:
        """Take from the main module what an initializer of the engine's has made there.

        It is taken where the caller has None, and where both run the same program.
        """
        if self._is_program:
            own, names = _main_globals(), self.scope.names
            made = (name for name, value in names.items() if value is None and name in own)
            names.update({name: own[name] for name in made})

    def _fail(self, error: BaseException) -> None:
        self.failure = _unrun(error)


_opened: OrderedDict[str, _Opened] = OrderedDict()
_opening = threading.Lock()
_here = threading.local()  # its ``names`` are those of the calls that the thread is set up for


def work(ship: Ship, chunk: Work, *held: Any) -> Answer | str:
    """Run a chunk.

    Args:
        ship: the call.
        chunk: the chunk.
        *held: arrays that the engine holds, one for each of the chunk's keys.

    Returns:
        The answer; ``MISSING`` if the call was never opened here and is not in the ship.
    """
    mine = sys.version_info[:2]
    if mine != ship.python:
        text = (
            f"a worker of the cluster runs Python {_version(mine)}, and the caller Python "
            f"{_version(ship.python)}: functions can only be sent between equal ones"
        )
        return _answer(chunk, [], _unrun(SerializationError(text)))
    opened = _found(ship)
    if opened is None:
        return MISSING
    if opened.failure is not None:
        return _answer(chunk, [], opened.failure)
    with opening(dict(zip(chunk.keys, held, strict=True))), as_worker_thread():
        return opened.context.copy().run(_run_as_caller, opened, chunk)


def _run_as_caller(opened: _Opened, chunk: Work) -> Answer:
    """Run a chunk in the caller's state."""
    assert opened.baggage is not None
    records: list[bytes] = []
    with visiting(opened.baggage), collected(opened.logs, records):
        answer = _run(opened, chunk)
    return answer._replace(records=records) if records else answer


def work_here(ship: SharedShip, chunk: Work) -> Answer:
    """Run a chunk in a thread of the calling process; nothing is packed.

    Args:
        ship: the call.
        chunk: the chunk.
    """
    with as_worker_thread():
        return ship.context.copy().run(_run_here, ship, chunk)


def _run_here(ship: SharedShip, chunk: Work) -> Answer:
    """Run a chunk in a copy of the caller's context."""
    assert isinstance(chunk.columns, tuple)
    names = vars(_here).setdefault("names", set())
    try:
        ship.surround()
        if ship.name not in names:
            ship.setup.prepare()
            names.add(ship.name)
    except BaseException as error:  # noqa: BLE001 - the user's initializer
        return _told(chunk, [], keep(error, None))
    call = ship.setup.call

    def stoppable(*args: Any) -> Any:
        if ship.stopped.is_set():
            raise SystemExit  # nobody waits any more
        return call.func(*args)

    func = call.runner(stoppable)
    begin_at(func, chunk.start)
    out: list[Any] = []
    failure, wall, cpu = run_columns(
        func,
        chunk.columns,
        call.star,
        chunk.start,
        out,
        clock=time.thread_time,
        queue=lambda: 0.0,
        wrap=keep,
    )
    return _told(chunk, out, failure, wall, cpu)


def _told(
    chunk: Work, out: list[Any], failure: Failure | None, wall: float = 0.0, cpu: float = 0.0
) -> Answer:
    fields = 0, out, len(out), failure, threading.get_ident(), time.monotonic(), wall, cpu
    return Answer(fields, threading.current_thread().name)


def _run(opened: _Opened, chunk: Work) -> Answer:
    call = opened.call
    assert call is not None
    assert isinstance(chunk.columns, Parcel)
    try:
        pieces = unpack(chunk.columns)
    except SerializationError as error:
        cause = error.__cause__
        return _answer(chunk, [], _unrun(cause if isinstance(cause, ImportError) else error))
    except BaseException as error:  # noqa: BLE001 - unpickling an item may raise anything
        return _answer(chunk, [], pack(error, chunk.start)._replace(unrun=True))
    opened.take_what_was_made()
    func = call.runner(change=survivor)
    begin_at(func, chunk.start)
    out: list[Any] = []
    failure, wall, cpu = run_columns(
        func, pieces, call.star, chunk.start, out, clock=time.thread_time, queue=lambda: 0.0
    )
    return _answer(chunk, out, failure, wall, cpu)


def _answer(
    chunk: Work, out: list[Any], failure: Failure | None, wall: float = 0.0, cpu: float = 0.0
) -> Answer:
    ran = Ran(0, chunk.start, out, failure, time.monotonic(), wall, cpu)
    return Answer(ran.packed(""), _node())


def _found(ship: Ship) -> _Opened | None:
    """Return the opened call of a ship; None if it is missing."""
    with _opening:
        found = _opened.get(ship.name)
        if found is None and ship.content is not None:
            found = _opened[ship.name] = _Opened(ship)
            while len(_opened) > MOST_CALLS or (
                len(_opened) > 1 and sum(one.size for one in _opened.values()) > MOST_BYTES
            ):
                _opened.popitem(last=False)
        if found is not None:
            _opened.move_to_end(ship.name)
        return found


# Of this interpreter: a process may have several.
_INTERPRETER = os.urandom(4).hex()


def origin() -> str:
    """Return host, process and interpreter of the present code."""
    return f"{_node()}:{_INTERPRETER}"


def _node() -> str:
    """Return host and process of the present code."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_program(ship: Ship) -> bool:
    """Return whether this process runs the caller's program: as its child, or from its file."""
    own = getattr(sys.modules.get("__main__"), "__file__", "")
    is_child = ship.origin.startswith(f"{socket.gethostname()}:{os.getppid()}:")
    return is_worker() or is_child or (own != "" and own == ship.main)


def _main_globals() -> dict[str, Any]:
    """Return the globals that functions of this process's main module have.

    A worker of multiprocessing that was not forked has them beside the module: it copies what the
    program has defined into a new one.
    """
    names = vars(sys.modules["__main__"])
    functions = (value for value in names.values() if isinstance(value, FunctionType))
    own = (one for one in functions if one.__module__ in ("__main__", "__mp_main__"))
    return next((one.__globals__ for one in own), names)


def _version(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _unrun(error: BaseException) -> Failure:
    """Return the failure of a call that cannot be opened here: none of its items has run."""
    return pack(error, None)._replace(unrun=True)
