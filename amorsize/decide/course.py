"""How the time of a run is spread over its items, to cut the next run alike. Pure functions.

A loop that runs again mostly costs the same at the same places. So the times of the chunks of one
run tell where to cut the next one into chunks of equal time (feedback guided loop scheduling: Bull,
Euro-Par 1998). A chunk that was too long is cut finer the next time, until what is dear in it is
found.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate

from ..tuples import NamedTuple

__all__ = ["Course", "course_of", "even_course"]


class Course(NamedTuple):
    """The time that items take, summed up from the first.

    Attributes:
        ends: index behind the last item of each piece; the items of a piece take the same time.
        sums: time of all items up to there, s.
    """

    ends: tuple[int, ...]
    sums: tuple[float, ...]

    @property
    def items(self) -> int:
        """Number of items."""
        return self.ends[-1]

    @property
    def seconds(self) -> float:
        """Time of all items, s."""
        return self.sums[-1]

    def before(self, index: int) -> float:
        """Return the time of the items before one, s.

        >>> Course((10, 20), (1.0, 5.0)).before(15)
        3.0
        """
        place = min(bisect_left(self.ends, index), len(self.ends) - 1)
        start, begun = self._start(place)
        part = (index - start) / (self.ends[place] - start)
        return begun + part * (self.sums[place] - begun)

    def reached(self, seconds: float) -> int:
        """Return the index that is reached after so many seconds.

        >>> Course((10, 20), (1.0, 5.0)).reached(3.0)
        15
        """
        place = min(bisect_right(self.sums, seconds), len(self.sums) - 1)
        start, begun = self._start(place)
        length = self.sums[place] - begun
        part = min(1.0, (seconds - begun) / length) if length > 0 else 1.0
        return start + round(part * (self.ends[place] - start))

    def _start(self, place: int) -> tuple[int, float]:
        """Return the first index of a piece, and the time of the items before it, s."""
        return (self.ends[place - 1], self.sums[place - 1]) if place else (0, 0.0)


def course_of(pieces: Iterable[tuple[int, int, float]]) -> Course:
    """Return the course of a run.

    Args:
        pieces: (index of the first item, number of items, time of all of them, s) of each chunk.
            Items of none, whose time was not seen, take part in that of the piece behind them.

    >>> course_of([(10, 10, 4.0), (0, 10, 1.0)])
    Course(ends=(10, 20), sums=(1.0, 5.0))
    """
    ordered = sorted(pieces)
    ends = tuple(start + size for start, size, _ in ordered)
    return Course(ends, tuple(accumulate(seconds for *_, seconds in ordered)))


def even_course(items: int, item_seconds: float) -> Course:
    """Return the course of a run whose items all take the same time.

    >>> even_course(100, 0.01).before(50)
    0.5
    """
    return Course((items,), (items * item_seconds,))
