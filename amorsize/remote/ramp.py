"""How many chunks to have out where an engine does not tell how many it runs at the same time.

It has no clock and no I/O: it is told when chunks come back, and answers how many workers to
assume.
"""

from __future__ import annotations

__all__ = ["Ramp"]

# The number is doubled as long as that makes chunks come back faster by at least this factor.
WORTH = 1.25
# Most workers that are assumed.
MOST_WORKERS = 4096
# A rate is measured over this many chunks for each worker assumed.
ROUNDS = 2


class Ramp:
    """Finds how many workers an engine has, by handing it more and more chunks.

    Args:
        first: number of workers to begin with.

    Attributes:
        workers: number of workers to assume.

    >>> ramp, now = Ramp(1), 0.0
    >>> while not ramp.is_settled:  # an engine that runs four chunks of 1 s at the same time
    ...     now += 1.0 / min(4, ramp.workers)
    ...     ramp.came(now, 1.0)
    >>> ramp.workers
    4
    """

    def __init__(self, first: int) -> None:
        self.workers = first
        self._before = 0  # the number before the last doubling
        self._rate = 0.0  # work that came back in a second then
        self._since: float | None = None
        self._came = 0
        self._work = 0.0
        self._settled = False

    @property
    def is_settled(self) -> bool:
        """Whether the number will not change any more."""
        return self._settled

    def came(self, now: float, seconds: float) -> None:
        """Note that a chunk came back.

        Args:
            now: when, s.
            seconds: how long its items took.
        """
        if self._settled:
            return
        if self._since is None:  # the first one may have waited for workers to start
            self._since = now
            return
        self._came += 1
        self._work += seconds
        if self._came < ROUNDS * self.workers:
            return
        rate = self._work / max(now - self._since, 1e-9)
        if self._before and rate < WORTH * self._rate:
            self.workers, self._settled = self._before, True
            return
        self._before, self._rate = self.workers, rate
        self.workers = min(2 * self.workers, MOST_WORKERS)
        self._settled = self.workers == self._before
        self._since, self._came, self._work = None, 0, 0.0
