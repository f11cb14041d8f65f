"""What a worker of a pool is asked to do, and what comes of it.

An order is run in a worker and gives an outcome: what the user's code returned, or ``Raised``.
A single call is a plain tuple of the function, its positional and its keyword arguments: there may
be very many of them, and nothing is quicker to make and to pickle.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from functools import partial
from itertools import count

from ..measure.timing import COMPUTING_SHARE
from ..measure.usage import cpu_seconds, own_cpu_seconds, queued_seconds
from ..run.failure import Failure, pack
from ..run.transport import Parcel, unpack
from ..run.worker import run_columns
from ..tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "Call",
    "Chunk",
    "Functions",
    "Meter",
    "Order",
    "Outcomes",
    "Raised",
    "Ran",
    "Sendable",
    "Shipped",
    "job_of",
    "run",
]

_names = count()

# Most functions that a worker keeps open for further orders.
MOST_FUNCTIONS = 32
# CPU time is measured in full in one order of each such time, s: that takes 60 us (November 2026,
# two-core machine).
METERED_SECONDS = 0.02


class Raised(NamedTuple):
    """The outcome of user code that raised an exception.

    Attributes:
        failure: the exception.
        offset: which item of the order raised it, from 0; 0 also where an order has one item.
        broken: whether the worker can run nothing, because its initializer failed.
    """

    failure: Failure
    offset: int = 0
    broken: bool = False


class Outcomes(NamedTuple):
    """The outcome of an order whose items have an outcome each.

    Attributes:
        each: what the user's code returned, or ``Raised``, for each item.
    """

    each: list[Any]


class Sendable:
    """A function of several orders, in the caller: it is packed once.

    Args:
        func: the function.
        prefix: path prefix of shared segments.
    """

    def __init__(self, func: Callable[..., Any], prefix: str) -> None:
        self.func = func
        self._prefix = prefix
        self._shipped: dict[Callable[..., Parcel], Shipped] = {}

    def packed(self, pack: Callable[..., Parcel]) -> Shipped:
        """Return it ready to be sent.

        Args:
            pack: makes a parcel of a value.

        Raises:
            SerializationError: it cannot be sent.
        """
        if pack not in self._shipped:
            self._shipped[pack] = next(_names), pack(self.func, self._prefix).smallest
        return self._shipped[pack]


class Functions:
    """The functions that a worker has opened."""

    def __init__(self) -> None:
        self._opened: OrderedDict[int, Callable[..., Any]] = OrderedDict()

    def open(self, shipped: Shipped) -> Callable[..., Any]:
        """Return a function of an order.

        Raises:
            Exception: whatever unpickling it raises.
        """
        name, packed = shipped
        found = self._opened.get(name)
        if found is None:
            parcel = Parcel(packed) if isinstance(packed, bytes) else packed
            found = self._opened[name] = unpack(parcel, common=True)
            if len(self._opened) > MOST_FUNCTIONS:
                self._opened.popitem(last=False)
        return found


class Meter:
    """Measures the CPU time of orders, with the time in run queues and that of children.

    An order that used a CPU all the time needs no more than the clock of this process. Once one has
    looked like waiting, the rest is read, too, but not for each of many short orders.
    """

    def __init__(self) -> None:
        self._doubts = False  # whether an order has looked like waiting
        self._next = 0.0  # when to measure in full again, on the monotonic clock
        self._is_full = False

    def clocks(self) -> tuple[Callable[[], float], Callable[[], float]]:
        """Return the clocks of CPU time and of time in run queues for the next order, s."""
        now = time.monotonic()
        self._is_full = self._doubts and now >= self._next
        if not self._is_full:
            return own_cpu_seconds, _stopped
        self._next = now + METERED_SECONDS
        return cpu_seconds, queued_seconds

    def known(self, seconds: float, used: float) -> float:
        """Return the CPU time of the order that has just run, s; 0 if it is not known.

        Args:
            seconds: its wall time, s.
            used: its CPU time by the clocks, s.
        """
        if self._is_full or used >= COMPUTING_SHARE * seconds:
            return used
        self._doubts = True
        return 0.0


def _stopped() -> float:
    """Return the time of a clock that does not run."""
    return 0.0


class Ran(NamedTuple):
    """An order that has run.

    Attributes:
        outcome: what came of it.
        seconds: wall time of the user's code.
        cpu_seconds: CPU time of the process meanwhile, and its time in run queues; 0 where it is
            not measured.
    """

    outcome: Any
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Chunk(NamedTuple):
    """Call a function with some items.

    Attributes:
        func: the function.
        items: the items.
        star: whether each item is a tuple of arguments.
        apart: whether each item has an outcome of its own; else the first exception is the outcome
            of all of them.
        patience: with how many others of its function the outcome may wait until it is sent, as
            nobody waits for it alone.
    """

    func: Sendable
    items: Any
    star: bool = False
    apart: bool = False
    patience: int = 0

    def packed(self, pack: Callable[..., Parcel], prefix: str) -> Parcel:
        """Return it ready to be sent, as a plain tuple: classes would take half of its pickle.

        Args:
            pack: makes a parcel of a value.
            prefix: path prefix of shared segments.

        Raises:
            SerializationError: it cannot be sent.
        """
        return pack((self.func.packed(pack), *self[1:]), prefix)


def job_of(order: Any) -> tuple[int | None, int]:
    """Return (name of the job, patience) of a chunk as it was sent; (None, 0) for a call."""
    if len(order) == _CALL_FIELDS:
        return None, 0
    (name, _), *_, patience = order
    return name, patience


def run(order: Any, functions: Functions, meter: Meter) -> Ran:
    """Run an order, in the worker.

    Args:
        order: a call, or a chunk as ``Chunk.packed`` sends it.
        functions: the functions that are open.
        meter: measures the CPU time of chunks.

    Returns:
        The outcome of a call is its value, or ``Raised``; that of a chunk is the list of results,
        or ``Raised``; that of a chunk of items apart is ``Outcomes``. If its function cannot be
        opened it is ``Raised``.
    """
    if len(order) != _CALL_FIELDS:
        return _run_chunk(order, functions, meter)
    func, args, kwargs = order
    begun = time.perf_counter()
    try:
        outcome = func(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt as well
        outcome = Raised(pack(error, None))
    return Ran(outcome, time.perf_counter() - begun)


def _run_chunk(order: Any, functions: Functions, meter: Meter) -> Ran:
    shipped, items, star, apart, _ = order
    try:
        func = functions.open(shipped)
    except BaseException as error:  # noqa: BLE001 - unpickling may raise anything
        return Ran(Raised(pack(error, None)._replace(unrun=True)))
    if apart:
        func = partial(_attempted, func)
    out: list[Any] = []
    failure, seconds, used = run_columns(func, (items,), star, 0, out, *meter.clocks())
    cpu = meter.known(seconds, used)
    if failure is not None:
        return Ran(Raised(failure._replace(item=None), len(out)), seconds, cpu)
    return Ran(Outcomes(out) if apart else out, seconds, cpu)


def _attempted(func: Callable[..., Any], item: Any) -> Any:
    """Return what a function returns, or ``Raised``."""
    try:
        return func(item)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt as well
        return Raised(pack(error, None))


# A call has a function, its positional and its keyword arguments; a chunk as it is sent has more.
_CALL_FIELDS = 3

if TYPE_CHECKING:
    Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
    Order = Call | Chunk
    # The name of a function that several orders have in common, which is unique in their process,
    # and its pickle, or a parcel of it. A worker opens it once.
    Shipped = tuple[int, bytes | Parcel]
