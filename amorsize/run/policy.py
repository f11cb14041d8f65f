"""What the engine is told: it decides nothing about workers or sizes itself."""

from __future__ import annotations

from collections.abc import Callable

from ..tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..decide.steps import Stage, Step

__all__ = ["Policy"]


class Policy(NamedTuple):
    """How the engine is to run the items.

    Attributes:
        workers: number of workers to start with.
        rethink: called when each worker has run a chunk, with what the crew has shown; returns how
            many workers to go on with, and whether to ask again. None keeps the number.
        size: called with (items left or None, done=, workers=, item_seconds=, result_bytes=);
            returns the size of the next chunk.
        ordered: whether results are yielded in the order of the items.
        bounded: whether to stop handing out chunks while results wait to be consumed.
        buffersize: items handed out but not consumed at most, None for no such limit.
        retries: how often the items a lost worker held are tried again.
        task_timeout: seconds for one item, None for no limit.
        deadline: when the call must end, on the monotonic clock, None for no limit.
        timeout: the limit that made the deadline, for the message.
        return_exceptions: whether an exception is a result.
        ahead_seconds: work of so many seconds waits for each worker as they start, because the
            caller is busy starting others.
        help: whether the caller computes items while workers start.
        withdraw: whether the caller runs what workers cannot: what cannot be sent to them, or not
            be opened there.
        retreat: whether the caller computes what is left when workers turn out slower than it.
    """

    workers: int
    size: Callable[..., int]
    ordered: bool = True
    bounded: bool = False
    buffersize: int | None = None
    retries: int = 1
    task_timeout: float | None = None
    deadline: float | None = None
    timeout: float | None = None
    return_exceptions: bool = False
    ahead_seconds: float = 0.0
    help: bool = False
    withdraw: bool = False
    retreat: bool = False
    rethink: Callable[[Stage], Step] | None = None

    def patience(self, now: float, longest: float) -> float:
        """Return how long to wait for a reply before looking at deaths and limits again, s.

        Args:
            now: on the monotonic clock, s.
            longest: where no limit is near, s.
        """
        limits = [longest]
        if self.deadline is not None:
            limits.append(max(0.0, self.deadline - now))
        if self.task_timeout is not None:
            limits.append(self.task_timeout / 4)
        return min(limits)
