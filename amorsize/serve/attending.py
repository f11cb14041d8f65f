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
from .claims import Claims
from .orders import Functions, Outcomes, Raised, Ran

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..run.channel import Link
    from ..run.setup import Setup
    from ..run.worker import Worker
    from .orders import Order

__all__ = ["attend", "opened_orders", "opened_outcome", "packed_orders"]

# The mark of a batch whose pickle follows, and of one whose parcel follows. The number of the batch
# is next to it: that of its first order.
_WHOLE, _PARCEL = b"o", b"p"
_NUMBER_BYTES = 8

# Outcomes of these types are part of the answer; others are pickled first, as they may refuse.
_ATOMS = frozenset({int, float, bool, type(None)})


def opened_outcome(packed: Any) -> Any:
    """Return the outcome of an order, as a worker has sent it.

    Args:
        packed: its pickle, a parcel of it, or the outcome itself if it is a small atom.

    Raises:
        Exception: whatever unpickling it raises.
    """
    if isinstance(packed, Parcel):
        return unpack(packed)
    if type(packed) is not bytes:
        return packed
    try:
        return pickle.loads(packed)
    except Exception:  # noqa: BLE001 - tried again, to say what is missing
        return unpack(Parcel(packed))


def packed_orders(batch: int, parcel: Parcel) -> bytes:
    """Return the message for a batch: a parcel of a list of (number, order)."""
    name = batch.to_bytes(_NUMBER_BYTES, "little")
    if parcel.segment:
        return _PARCEL + name + pickle.dumps(parcel, PROTOCOL)
    return _WHOLE + name + parcel.head


def opened_orders(message: bytes | memoryview) -> tuple[int, Parcel]:
    """Return (number of the batch, parcel of its orders) of a message."""
    batch = int.from_bytes(message[1 : 1 + _NUMBER_BYTES], "little")
    content = message[1 + _NUMBER_BYTES :]
    if message[:1] == _PARCEL:
        parcel: Parcel = pickle.loads(content)
        return batch, parcel
    return batch, Parcel(bytes(content))


def attend(
    setup: Setup, link: Link, *, plain: bool = False, most: int | None = None, page: str = ""
) -> None:
    """Be a worker of a pool: prepare, and answer orders until there are no more.

    Args:
        setup: the worker's setup.
        link: the way from and to the caller.
        plain: whether results must be such as plain pickle can serialize, as in a Pool.
        most: number of orders after which the worker ends; None for no limit.
        page: path of the page for its claims, "" for none.
    """
    claims = Claims(page) if page else None
    serve(setup, link, lambda worker: _answer_all(worker, claims, plain=plain, most=most))


def _answer_all(worker: Worker, claims: Claims | None, *, plain: bool, most: int | None) -> None:
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
        done += 1
        batch, parcel = opened_orders(message)
        try:
            orders: list[tuple[int, Order]] = unpack(parcel)
        except BaseException as error:  # noqa: BLE001 - unpickling an argument may raise anything
            unopened = Raised(pack(error, None)._replace(unrun=True))
            _tell(worker, batch, Ran(unopened), plain=plain)
            continue
        for place, (number, order) in enumerate(orders):
            if len(orders) > 1 and claims is not None and not claims.may_begin(batch, place):
                worker.tell(REPLY, pickle.dumps((batch, place), PROTOCOL))
                break
            if worker.broken is not None:
                ran = Ran(Raised(worker.broken, broken=True))
            else:
                ran = order.run(functions)
                worker.mind_threads(ran.seconds, ran.cpu_seconds)
            if place == len(orders) - 1:
                flush_streams()  # this worker may wait long for its next order, or be killed
            # Now, not with those of the next orders: what they wait for may depend on it.
            _tell(worker, number, ran, plain=plain)
    worker.say_goodbye()


def _tell(worker: Worker, number: int, ran: Ran, *, plain: bool) -> None:
    """Send the answer to an order."""
    outcome, seconds, cpu_seconds = ran
    if type(outcome) not in _ATOMS:
        outcome = _packed(outcome, worker.prefix, plain=plain)
    worker.tell(REPLY, pickle.dumps((number, outcome, seconds, cpu_seconds), PROTOCOL))


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
