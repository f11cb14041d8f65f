"""What a worker of a pool is asked to do, and what comes of it.

An order is run in a worker and gives an outcome: what the user's code returned, or ``Raised``.
A single call is a plain tuple of the function, its positional and its keyword arguments: there may
be very many of them, and nothing is quicker to make and to pickle.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from functools import partial

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
    "Each",
    "Functions",
    "Order",
    "Outcomes",
    "Raised",
    "Ran",
    "Sendable",
    "Shipped",
    "run",
]

# Most functions that a worker keeps open for further orders.
MOST_FUNCTIONS = 32


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


class Shipped(NamedTuple):
    """A function that several orders have in common: a worker opens it once.

    Attributes:
        name: a unique name.
        parcel: the function.
    """

    name: str
    parcel: Parcel


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
            self._shipped[pack] = Shipped(os.urandom(8).hex(), pack(self.func, self._prefix))
        return self._shipped[pack]


class Functions:
    """The functions that a worker has opened."""

    def __init__(self) -> None:
        self._opened: OrderedDict[str, Callable[..., Any]] = OrderedDict()

    def open(self, func: Sendable | Shipped) -> Callable[..., Any]:
        """Return a function of an order.

        Raises:
            Exception: whatever unpickling it raises.
        """
        assert isinstance(func, Shipped)
        found = self._opened.get(func.name)
        if found is None:
            found = self._opened[func.name] = unpack(func.parcel, common=True)
            if len(self._opened) > MOST_FUNCTIONS:
                self._opened.popitem(last=False)
        return found


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
    """Call a function with some items; the first exception is the outcome of all of them.

    Attributes:
        func: the function.
        items: the items.
        star: whether each item is a tuple of arguments.
    """

    func: Sendable | Shipped
    items: Any
    star: bool

    def run(self, functions: Functions) -> Ran:
        """Run it; the outcome is the list of results, or ``Raised``."""
        out: list[Any] = []
        try:
            func = functions.open(self.func)
        except BaseException as error:  # noqa: BLE001 - unpickling may raise anything
            return Ran(_unopened(error))
        failure, seconds, cpu = run_columns(func, (self.items,), self.star, 0, out)
        if failure is None:
            return Ran(out, seconds, cpu)
        return Ran(Raised(failure._replace(item=None), len(out)), seconds, cpu)


class Each(NamedTuple):
    """Call a function with some items; each of them has an outcome of its own.

    Attributes:
        func: the function.
        items: the items.
    """

    func: Sendable | Shipped
    items: Any

    def run(self, functions: Functions) -> Ran:
        """Run it; the outcome is ``Outcomes``, or ``Raised`` if the function cannot be opened."""
        try:
            func = functions.open(self.func)
        except BaseException as error:  # noqa: BLE001 - unpickling may raise anything
            return Ran(_unopened(error))
        out: list[Any] = []
        attempt = partial(_attempted, func)
        _, seconds, cpu = run_columns(attempt, (self.items,), False, 0, out)
        return Ran(Outcomes(out), seconds, cpu)


def run(order: Order, functions: Functions) -> Ran:
    """Run an order, in the worker."""
    if isinstance(order, (Chunk, Each)):
        return order.run(functions)
    func, args, kwargs = order
    begun = time.perf_counter()
    try:
        outcome = func(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt as well
        outcome = Raised(pack(error, None))
    return Ran(outcome, time.perf_counter() - begun)


def _attempted(func: Callable[..., Any], item: Any) -> Any:
    """Return what a function returns, or ``Raised``."""
    try:
        return func(item)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt as well
        return Raised(pack(error, None))


def _unopened(error: BaseException) -> Raised:
    """Return the outcome of an order that could not be opened in the worker."""
    return Raised(pack(error, None)._replace(unrun=True))


if TYPE_CHECKING:
    Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
    Order = Call | Chunk | Each
