"""Chunks of a run, spans of its timeline, and functions that split a slice."""

from __future__ import annotations

from ..tuples import NamedTuple
from .feed import Slice

__all__ = ["Chunk", "Span", "around", "halves"]


class Span(NamedTuple):
    """One chunk in the timeline of a run.

    Attributes:
        worker: pid of the worker, 0 for the calling process.
        start: index of the first item.
        items: number of items.
        begun: when it began, on the monotonic clock, s.
        seconds: wall time of its items.
        cpu_seconds: CPU time of its items, and time they spent in the run queue.
        bytes: size of its results, as sent.
    """

    worker: int
    start: int
    items: int
    begun: float
    seconds: float
    cpu_seconds: float = 0.0
    bytes: int = 0


class Chunk:
    """A slice of the input that a worker is to run.

    Attributes:
        number: number by which the crew knows it.
        piece: its items.
        losses: how many workers died with it.
    """

    __slots__ = ("losses", "number", "piece")

    def __init__(self, number: int, piece: Slice, losses: int = 0) -> None:
        self.number = number
        self.piece = piece
        self.losses = losses


def around(piece: Slice, index: int) -> tuple[Slice, Slice]:
    """Return the parts of a slice before and after one item."""
    before, rest = halves(piece, index)
    return before, halves(rest, index + 1)[1]


def halves(piece: Slice, index: int) -> tuple[Slice, Slice]:
    """Return the part of a slice before an item, and the rest."""
    middle = index - piece.start

    def part(first: int, last: int) -> Slice:
        columns = piece.columns
        if columns is not None:
            columns = tuple(column[first:last] for column in columns)
        return Slice(piece.start + first, last - first, columns)

    return part(0, middle), part(middle, piece.size)
