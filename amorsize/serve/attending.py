"""The worker's side of a pool: run orders, one at a time, and answer, until no more come."""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import os
import time

from ..errors import SerializationError
from ..run import channel
from ..run.ending import flush_streams
from ..run.failure import pack
from ..run.reductions import PROTOCOL
from ..run.reply import REPLY
from ..run.transport import Parcel, pack_forked, pack_plain, unpack
from ..run.worker import MOST_UNSENT_BYTES, MOST_UNSENT_SECONDS, serve
from .claims import Claims
from .orders import Functions, Meter, Outcomes, Raised, Ran, job_of, run
from .wire import END, WHOLE, opened_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from ..run.channel import Link
    from ..run.setup import Setup
    from ..run.worker import Worker
    from .board import BoardEnd
else:
    Protocol = object  # ``typing`` takes 3 ms to load

__all__ = ["attend"]

# Outcomes of these types are part of the answer; others are pickled first, as they may refuse.
_ATOMS = frozenset({int, float, bool, type(None)})


def attend(
    setup: Setup,
    link: Link,
    *,
    plain: bool,
    most: int | None,
    board: BoardEnd | None,
    page: str,
) -> None:
    """Be a worker of a pool: prepare, and answer orders until there are no more.

    Args:
        setup: the worker's setup.
        link: the way from and to the caller.
        plain: whether results must be such as plain pickle can serialize, as in a Pool.
        most: number of orders after which the worker ends; None for no limit.
        board: where to take orders; None where they come by the link.
        page: path of the page for its claims.
    """
    orders: _Orders = _Linked(link)
    if board is not None:
        board.open(Claims(page))
        orders = board
    serve(setup, link, lambda worker: _answer_all(worker, orders, plain=plain, most=most))


class _Orders(Protocol):
    """Where a worker takes its orders."""

    def take(self, *, wait: bool) -> tuple[bytes, int, Parcel | None] | None:
        """Take the next order: (kind of record, number, parcel); None if there is none yet."""

    def clear(self, running: int = 0) -> None:
        """Say that the outcomes of all orders were sent, except of one that has none yet."""


class _Linked:
    """Orders that come by the worker's own link.

    Args:
        link: the link.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def take(self, *, wait: bool) -> tuple[bytes, int, Parcel | None] | None:
        """Take the next order, as ``BoardEnd.take``."""
        message = self._link.take(wait=wait)
        if message is None:
            return None
        if not message or message == channel.END:
            return END, 0, None
        return WHOLE, *opened_message(message)

    def clear(self, running: int = 0) -> None:
        """Do nothing: the caller knows what it gave."""


def _answer_all(worker: Worker, orders: _Orders, *, plain: bool, most: int | None) -> None:
    """Answer orders until there are no more, or the caller is gone."""
    caller, done = os.getppid(), 0
    functions, meter, answers = Functions(), Meter(), _Answers(worker, orders, plain=plain)
    while done != most:
        taken = orders.take(wait=not answers.unsent)
        if taken is None:
            if not answers.unsent and os.getppid() != caller:
                return
            answers.send()
            continue
        kind, number, parcel = taken
        if kind == END:
            break
        assert parcel is not None
        order = _opened(worker, parcel)
        job, patience = (None, 0) if isinstance(order, Raised) else job_of(order)
        if answers.unsent and job != answers.job:
            answers.send(number)  # who waits for them must not wait for another job's order
        answers.add(number, _run(worker, order, functions, meter), job, patience)
        done += 1
        del taken, parcel, order  # not to keep items alive while the worker waits
    answers.send()
    worker.say_goodbye()


class _Answers:
    """The outcomes that a worker has not sent yet: those of patient chunks of one job.

    Each message wakes the caller, on a CPU that a worker would use.

    Args:
        worker: the worker.
        orders: where it takes its orders.
        plain: whether results must be such as plain pickle can serialize.

    Attributes:
        unsent: (number of the order, packed outcome, wall time, CPU time) of each.
        job: their job.
    """

    def __init__(self, worker: Worker, orders: _Orders, *, plain: bool) -> None:
        self.unsent: list[tuple[int, Any, float, float]] = []
        self.job: object = None
        self._worker = worker
        self._orders = orders
        self._plain = plain
        self._bytes = 0
        self._begun = 0.0

    def add(self, number: int, ran: Ran, job: object, patience: int) -> None:
        """Add the outcome of an order; send all if they must not wait any longer.

        Args:
            number: number of the order.
            ran: what came of it.
            job: the job of the order; None if it has none.
            patience: with how many others of its job the outcome may wait.
        """
        outcome, seconds, cpu_seconds = ran
        if type(outcome) not in _ATOMS:
            outcome = _packed(outcome, self._worker.prefix, plain=self._plain)
        if not self.unsent:
            self._begun = time.monotonic() - seconds
        self.unsent.append((number, outcome, seconds, cpu_seconds))
        self._bytes += len(outcome) if isinstance(outcome, bytes) else 0
        self.job = job
        if (
            len(self.unsent) > patience
            or isinstance(outcome, Parcel)
            or self._bytes > MOST_UNSENT_BYTES
            or time.monotonic() - self._begun > MOST_UNSENT_SECONDS
        ):
            self.send()

    def send(self, running: int = 0) -> None:
        """Send all.

        Args:
            running: number of the order that was taken, and has no outcome yet; 0 for none.
        """
        if self.unsent:
            self._worker.tell(REPLY, pickle.dumps((0, self.unsent), PROTOCOL))
            self._orders.clear(running)  # not before: they run again if this worker dies here
            self.unsent.clear()
            self._bytes = 0


def _opened(worker: Worker, parcel: Parcel) -> Any:
    """Return an order, or ``Raised`` if it cannot be run."""
    if worker.broken is not None:
        return Raised(worker.broken, broken=True)
    try:
        return unpack(parcel)
    except BaseException as error:  # noqa: BLE001 - unpickling an argument may raise anything
        return Raised(pack(error, None)._replace(unrun=True))


def _run(worker: Worker, order: Any, functions: Functions, meter: Meter) -> Ran:
    """Run an order."""
    if isinstance(order, Raised):
        return Ran(order)
    ran = run(order, functions, meter)
    if ran.cpu_seconds:
        worker.mind_threads(ran.seconds, ran.cpu_seconds)
    flush_streams()  # this worker may wait long for its next order, or be killed
    return ran


def _packed(outcome: Any, prefix: str, *, plain: bool) -> bytes | Parcel:
    """Return an outcome ready to be sent; whatever refuses to be sent is replaced by why."""
    pack_one = pack_plain if plain else pack_forked
    try:
        parcel = pack_one(outcome, prefix)
    except BaseException as error:  # noqa: BLE001 - a reduction may also call sys.exit()
        if isinstance(outcome, Outcomes):
            sendable = Outcomes([_sendable(one, plain=plain) for one in outcome.each])
            return _packed(sendable, prefix, plain=plain)
        parcel = pack_forked(_refused(outcome, error, plain=plain), prefix)
    return parcel.smallest


def _sendable(outcome: Any, *, plain: bool) -> Any:
    """Return the outcome of an item, or why it cannot be sent."""
    try:
        (pack_plain if plain else pack_forked)(outcome, "")
    except BaseException as error:  # noqa: BLE001 - a reduction may also call sys.exit()
        return _refused(outcome, error, plain=plain)
    return outcome


def _refused(outcome: Any, error: BaseException, *, plain: bool) -> Raised:
    """Return what stands for an outcome that cannot be sent: what a Pool raises, if ``plain``."""
    if plain:
        from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]

        cause = error.__cause__ if isinstance(error, SerializationError) else None
        error = MaybeEncodingError(cause or error, outcome)
    return Raised(pack(error, None))
