"""The worker's side of a pool: answer orders, one at a time, until no more come."""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import os

from ..errors import SerializationError
from ..run import channel
from ..run.ending import flush_streams
from ..run.failure import pack
from ..run.reductions import PROTOCOL
from ..run.reply import REPLY
from ..run.transport import Parcel, pack_forked, pack_plain, unpack
from ..run.worker import serve
from .claims import Claims
from .orders import Functions, Outcomes, Raised, Ran, run
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

    def take(self) -> tuple[bytes, int, Parcel | None] | None:
        """Take the next order: (kind of record, number, parcel); None if there is none yet."""


class _Linked:
    """Orders that come by the worker's own link.

    Args:
        link: the link.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def take(self) -> tuple[bytes, int, Parcel | None] | None:
        """Take the next order, as ``BoardEnd.take``."""
        message = self._link.take(wait=True)
        if message is None:
            return None
        if not message or message == channel.END:
            return END, 0, None
        return WHOLE, *opened_message(message)


def _answer_all(worker: Worker, orders: _Orders, *, plain: bool, most: int | None) -> None:
    """Answer orders until there are no more, or the caller is gone."""
    caller, functions, done = os.getppid(), Functions(), 0
    while done != most:
        taken = orders.take()
        if taken is None:
            if os.getppid() != caller:
                return
            continue
        kind, number, parcel = taken
        if kind == END:
            break
        assert parcel is not None
        outcome, seconds, cpu_seconds = _run(worker, functions, parcel)
        if type(outcome) not in _ATOMS:
            outcome = _packed(outcome, worker.prefix, plain=plain)
        worker.tell(REPLY, pickle.dumps((number, outcome, seconds, cpu_seconds), PROTOCOL))
        done += 1
    worker.say_goodbye()


def _run(worker: Worker, functions: Functions, parcel: Parcel) -> Ran:
    """Run an order."""
    if worker.broken is not None:
        return Ran(Raised(worker.broken, broken=True))
    try:
        order = unpack(parcel)
    except BaseException as error:  # noqa: BLE001 - unpickling an argument may raise anything
        return Ran(Raised(pack(error, None)._replace(unrun=True)))
    ran = run(order, functions)
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
    return parcel if parcel.segment else parcel.head


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
