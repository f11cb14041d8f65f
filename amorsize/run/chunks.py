"""Chunks: on their way through the workers, in the timeline of a run, and cut in two."""

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
        seconds: wall time its items took.
        cpu_seconds: CPU time they took, or stood in line for.
        bytes: that their results took on the way.
    """

    worker: int
    start: int
    items: int
    begun: float
    seconds: float
    cpu_seconds: float = 0.0
    bytes: int = 0


class Chunk:
    """A slice of the input on its way through the workers.

    Attributes:
        number: the name the crew knows it by.
        piece: its items.
        losses: how often a worker died with it.
    """

    __slots__ = ("losses", "number", "piece")

    def __init__(self, number: int, piece: Slice, losses: int = 0) -> None:
        self.number = number
        self.piece = piece
        self.losses = losses


def around(piece: Slice, index: int) -> tuple[Slice, Slice]:
    """Return what is before and after one item of a slice."""
    before, rest = halves(piece, index)
    return before, halves(rest, index + 1)[1]


def halves(piece: Slice, index: int) -> tuple[Slice, Slice]:
    """Return what is before an item of a slice, and the rest."""
    middle = index - piece.start

    def part(first: int, last: int) -> Slice:
        columns = piece.columns
        if columns is not None:
            columns = tuple(column[first:last] for column in columns)
        return Slice(piece.start + first, last - first, columns)

    return part(0, middle), part(middle, piece.size)
