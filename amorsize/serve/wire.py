"""How orders and outcomes look on their way between a pool and its workers."""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import struct

from ..run.reductions import PROTOCOL
from ..run.transport import Parcel, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "BIG",
    "END",
    "MOST_BYTES",
    "RECORD_BYTES",
    "WHOLE",
    "opened_message",
    "opened_outcome",
    "opened_record",
    "packed_message",
    "packed_record",
]

# Largest message. Larger orders go through a shared segment (``run.shared``).
MOST_BYTES = 200_000
# Size of a record of the board.
RECORD_BYTES = 256
# Kinds of records: an order; one that is the next message; the request to end.
WHOLE, BIG, END = b"o", b"b", b"e"
_HEADER = struct.Struct("<cQH")
# Marks of messages: the pickle of an order follows, or that of the parcel that holds it.
_PLAIN, _PARCEL = b"o", b"p"
_NUMBER = struct.Struct("<cQ")


def packed_record(kind: bytes, number: int, content: bytes) -> bytes | None:
    """Return a record, None if the content does not fit.

    >>> kind, number, content = opened_record(packed_record(WHOLE, 7, b"order"))
    >>> kind, number, bytes(content)
    (b'o', 7, b'order')
    """
    size = len(content)
    if size > RECORD_BYTES - _HEADER.size:
        return None
    return (_HEADER.pack(kind, number, size) + content).ljust(RECORD_BYTES, b"\0")


def opened_record(record: bytes) -> tuple[bytes, int, bytes]:
    """Return (kind, number, content) of a record."""
    kind, number, size = _HEADER.unpack_from(record)
    return kind, number, record[_HEADER.size : _HEADER.size + size]


def packed_message(number: int, order: bytes | Parcel) -> bytes:
    """Return the message for an order: its pickle, or a parcel that holds it in a segment."""
    if isinstance(order, bytes):
        return _NUMBER.pack(_PLAIN, number) + order
    return _NUMBER.pack(_PARCEL, number) + pickle.dumps(order, PROTOCOL)


def opened_message(message: bytes | memoryview) -> tuple[int, Parcel]:
    """Return (number, parcel of the order) of a message."""
    mark, number = _NUMBER.unpack_from(message)
    content = message[_NUMBER.size :]
    if mark == _PARCEL:
        parcel: Parcel = pickle.loads(content)
        return number, parcel
    return number, Parcel(bytes(content))


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
