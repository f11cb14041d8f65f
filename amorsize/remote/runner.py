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

from ..errors import SerializationError
from ..run.failure import Failure, keep, pack, survivor
from ..run.guard import Guard, begin_at
from ..run.pickles import loads
from ..run.reply import Ran
from ..run.setup import Call, Setup, state_of_caller
from ..run.surroundings import State, put, put_users
from ..run.transport import Parcel, unpack
from ..run.worker import run_columns
from ..tuples import NamedTuple
from .held import opening
from .records import collected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..run.logs import Logs

__all__ = ["MISSING", "Answer", "SharedShip", "Ship", "Work", "work", "work_here"]

# Most calls that a worker keeps open; calls from several programs may take turns.
MOST_CALLS = 8

MISSING = "missing"


class Ship(NamedTuple):
    """A call, as it goes to the workers of an engine.

    Attributes:
        name: a unique name.
        python: major and minor version of the caller's Python.
        content: pickles of the caller's state, of the present values of what the call uses, and of
            the call with its initializer; None where the worker should have it.
    """

    name: str
    python: tuple[int, int]
    content: tuple[bytes, bytes, bytes] | None


class SharedShip(NamedTuple):
    """A call for threads of this process, which share its memory.

    Attributes:
        name: a unique name.
        setup: what they run.
        surround: puts the state of the caller's thread in place.
    """

    name: str
    setup: Setup
    surround: Callable[[], None]


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
        self.state = State()
        self.logs: Logs | None = None
        # Engines run tasks in contexts of their own; each chunk runs in a copy of this one.
        self.context = contextvars.copy_context()
        self.call: Call | None = None
        assert ship.content is not None
        state, current, call = ship.content
        try:
            self.context.run(self._open, state, current, call)
        except SerializationError as error:
            cause = error.__cause__
            self._fail(cause if isinstance(cause, ImportError) else error)
        except BaseException as error:  # noqa: BLE001 - unpickling may run any code
            self._fail(error)

    def _open(self, state: bytes, current: bytes, call: bytes) -> None:
        from ..run.adopting import adopted

        self.state = loads(state)
        own = dict(self.state.own or ())
        if "logging" in own:  # the engine's loggers are its own
            self.logs = loads(own.pop("logging"))
        for pair in loads(own.pop("context")) if "context" in own else ():
            with suppress(ImportError, AttributeError):  # a module may exist only in the caller
                variable, value = loads(pair)
                variable.set(value)
        self.state = self.state._replace(own=tuple(own.items()))
        with state_of_caller(self.state), adopted(loads(current), []):
            self.call, initializer, initargs = unpack(Parcel(call))
        if initializer is not None:
            initializer(*initargs)

    def _fail(self, error: BaseException) -> None:
        self.failure = _unrun(error)


_opened: OrderedDict[str, _Opened] = OrderedDict()
_opening = threading.Lock()
_here = threading.local()  # its ``name`` is that of the call whose state the thread has


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
    with opening(dict(zip(chunk.keys, held, strict=True))):
        return opened.context.copy().run(_run_as_caller, opened, chunk, ship.name)


def _run_as_caller(opened: _Opened, chunk: Work, name: str) -> Answer:
    """Run a chunk in the caller's state; some of it belongs to the thread."""
    if getattr(_here, "name", "") != name:
        put(opened.state)
        put_users(opened.state)
        _here.name = name
    records: list[bytes] = []
    with collected(opened.logs, records):
        answer = _run(opened, chunk)
    return answer._replace(records=records) if records else answer


def work_here(ship: SharedShip, chunk: Work) -> Answer:
    """Run a chunk in a thread of the calling process; nothing is packed.

    Args:
        ship: the call.
        chunk: the chunk.
    """
    assert isinstance(chunk.columns, tuple)
    try:
        if getattr(_here, "name", "") != ship.name:
            ship.surround()
            ship.setup.prepare()
            _here.name = ship.name
    except BaseException as error:  # noqa: BLE001 - the user's initializer
        return _told(chunk, [], keep(error, None))
    call = ship.setup.call
    func = Guard(call.func) if call.return_exceptions else call.func
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
    func = Guard(call.func, survivor) if call.return_exceptions else call.func
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
    return Answer(ran.packed(""), f"{socket.gethostname()}:{os.getpid()}")


def _found(ship: Ship) -> _Opened | None:
    """Return the opened call of a ship; None if it is missing."""
    with _opening:
        found = _opened.get(ship.name)
        if found is None and ship.content is not None:
            found = _opened[ship.name] = _Opened(ship)
            if len(_opened) > MOST_CALLS:
                _opened.popitem(last=False)
        return found


def _version(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _unrun(error: BaseException) -> Failure:
    """Return the failure of a call that cannot be opened here: none of its items has run."""
    return pack(error, None)._replace(unrun=True)
