"""The worker's side of a pool: answer orders, one at a time, until no more come."""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import os

from ..errors import SerializationError
from ..run.channel import END
from ..run.ending import flush_streams
from ..run.failure import pack
from ..run.reductions import PROTOCOL
from ..run.reply import REPLY
from ..run.transport import Parcel, pack_forked, pack_plain, unpack
from ..run.worker import serve
from ..tuples import NamedTuple
from .orders import Functions, Outcomes, Raised, Ran

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..run.channel import Link
    from ..run.setup import Setup
    from ..run.worker import Worker
    from .orders import Order

__all__ = ["Answer", "attend", "opened_order", "packed_order"]

# The mark of an order whose pickle follows, and of one whose parcel follows. The number of the
# order is next to it.
_WHOLE, _PARCEL = b"o", b"p"
_NUMBER_BYTES = 8


class Answer(NamedTuple):
    """What a worker answers to an order.

    Attributes:
        outcome: the outcome: its pickle, or the parcel that holds it.
        seconds: wall time of the user's code.
        cpu_seconds: CPU time of the process meanwhile; 0 where not measured.
    """

    outcome: bytes | Parcel
    seconds: float
    cpu_seconds: float

    def open(self) -> Any:
        """Return the outcome.

        Raises:
            Exception: whatever unpickling it raises.
        """
        if isinstance(self.outcome, Parcel):
            return unpack(self.outcome)
        return unpack(Parcel(self.outcome))


def packed_order(number: int, parcel: Parcel) -> bytes:
    """Return the message for an order."""
    place = number.to_bytes(_NUMBER_BYTES, "little")
    if parcel.segment:
        return _PARCEL + place + pickle.dumps(parcel, PROTOCOL)
    return _WHOLE + place + parcel.head


def opened_order(message: bytes | memoryview) -> tuple[int, Parcel]:
    """Return (number, parcel of the order) of a message."""
    number = int.from_bytes(message[1 : 1 + _NUMBER_BYTES], "little")
    content = message[1 + _NUMBER_BYTES :]
    if message[:1] == _PARCEL:
        parcel: Parcel = pickle.loads(content)
        return number, parcel
    return number, Parcel(bytes(content))


def attend(setup: Setup, link: Link, *, plain: bool = False, most: int | None = None) -> None:
    """Be a worker of a pool: prepare, and answer orders until there are no more.

    Args:
        setup: the worker's setup.
        link: the way from and to the caller.
        plain: whether results must be such as plain pickle can serialize, as in a Pool.
        most: number of orders after which the worker ends; None for no limit.
    """
    serve(setup, link, lambda worker: _answer_orders(worker, plain=plain, most=most))


def _answer_orders(worker: Worker, *, plain: bool, most: int | None) -> None:
    """Answer orders until there are no more, or the caller is gone."""
    caller, functions, done = os.getppid(), Functions(), 0
    while done != most:
        message = worker.link.take(wait=True)
        if message is None:
            if os.getppid() != caller:
                return
            continue
        if not message or message == END:
            break
        number, parcel = opened_order(message)
        ran = _run(worker, functions, parcel)
        outcome = _packed(ran.outcome, worker.prefix, plain=plain)
        answer = (number, outcome, ran.seconds, ran.cpu_seconds)
        worker.tell(REPLY, pickle.dumps(answer, PROTOCOL))
        done += 1
    worker.say_goodbye()


def _run(worker: Worker, functions: Functions, parcel: Parcel) -> Ran:
    """Run an order."""
    if worker.broken is not None:
        return Ran(Raised(worker.broken, broken=True))
    try:
        order: Order = unpack(parcel)
    except BaseException as error:  # noqa: BLE001 - unpickling an argument may raise anything
        return Ran(Raised(pack(error, None)._replace(unrun=True)))
    ran = order.run(functions)
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
        from multiprocessing.pool import MaybeEncodingError

        cause = error.__cause__ if isinstance(error, SerializationError) else None
        error = MaybeEncodingError(cause or error, outcome)
    return Raised(pack(error, None))
