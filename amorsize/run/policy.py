"""Settings of the engine, which decides nothing about workers or chunk sizes itself."""

from __future__ import annotations

from collections.abc import Callable

from ..tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..decide.steps import Stage, Step

__all__ = ["LIMIT_SHARE", "LONGEST_LAZY_SECONDS", "Policy"]

# A caller that shares runs no longer item than this where a consumer waits for results.
LONGEST_LAZY_SECONDS = 0.02
# With a time limit, what it runs must take less than this share of the time left.
LIMIT_SHARE = 0.25


class Policy(NamedTuple):
    """How the engine is to run the items.

    Attributes:
        workers: number of workers to start with, without the caller.
        shares: whether the caller runs items like a worker.
        flexible: whether a worker may run a part of a chunk only.
        check: called while the engine waits; may raise, which ends the call. None for nothing.
        rethink: called with the measurements of a crew when each of its workers has run a chunk;
            returns how many workers to go on with, and whether to ask again. None keeps the number.
        size: called with (items left or None, done=, workers=, item_seconds=, result_bytes=);
            returns the size of the next chunk.
        ordered: whether results are yielded in the order of the items.
        bounded: whether to stop handing out chunks while results wait to be consumed.
        buffersize: most items that are handed out but not consumed, None for no such limit.
        retries: how often the items of a lost worker run again.
        task_timeout: seconds for one item, None for no limit.
        deadline: when the call must end, on the monotonic clock, None for no limit.
        timeout: the limit that the deadline comes from, s, for the message.
        return_exceptions: whether an exception is a result.
        ahead_seconds: seconds of work to queue for each worker at the start, because the caller
            is then busy starting other workers.
        help: whether the caller runs items while workers start.
        withdraw: whether the caller runs the rest if something cannot be sent to workers, or not
            be loaded there.
        retreat: whether the caller takes over when workers turn out slower than the caller.
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
    shares: bool = False
    flexible: bool = False
    check: Callable[[], object] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether a consumer or a time limit waits, so that the caller runs only short items."""
        return self.bounded or self.deadline is not None

    def patience(self, now: float, longest: float) -> float:
        """Return how long to wait for a reply before checking for deaths and limits again, s.

        Args:
            now: present time, on the monotonic clock, s.
            longest: how long to wait when no limit is near, s.
        """
        limits = [longest]
        if self.deadline is not None:
            limits.append(max(0.0, self.deadline - now))
        if self.task_timeout is not None:
            limits.append(self.task_timeout / 4)
        return min(limits)
