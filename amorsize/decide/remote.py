"""Plans for calls on another engine: what they would take there. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, sqrt

from ..tuples import NamedTuple
from .cutting import Chunking, next_chunksize
from .figures import Profile
from .planner import Candidate, Plan

__all__ = ["FIRST_LINK", "Link", "plan_remote", "remote_chunk_sizes", "remote_seconds"]

# A chunk takes at least this many times what its way to a worker and back takes. Two chunks for
# each worker are out at any time, so that the way is hidden behind the chunk before.
TRIPS = 5
# The shortest chunk on another engine, s: the engine's own books take about 1 ms for a task (Dask
# 2026, 200 us to 1 ms by its documentation).
LEAST_SECONDS = 0.01
# What a chunk takes of the client and of the engine's scheduler, s: 0.2 ms (an executor) to 3 ms
# (Dask, scheduler and workers on two CPUs; November 2026). They deal with one chunk at a time, so
# chunks are so long that all workers together need no more than that (docs/scale.md).
DISPATCH_SECONDS = 0.001
# A plan for another engine may be wrong by this much.
WRONG = 0.3
LONGEST_SECONDS = 0.5


class Link(NamedTuple):
    """The way to the workers of an engine.

    Attributes:
        round_trip: time of a task that does nothing, s.
        byte_seconds: time for one byte there and back, s.
    """

    round_trip: float
    byte_seconds: float


# Before anything was measured: Dask on one machine, November 2026.
FIRST_LINK = Link(0.005, 1e-8)


def remote_seconds(profile: Profile, items: int, workers: int, link: Link) -> float:
    """Return how long the items are forecast to take on an engine, s.

    The workers share the work; the client sends and receives all bytes itself.

    >>> remote_seconds(Profile(0.01), 1_000, 10, Link(0.002, 0.0))
    1.004
    """
    work = items * profile.item_seconds / min(workers, max(items, 1))
    moved = items * (profile.arg_bytes + profile.result_bytes) * link.byte_seconds
    return 2 * link.round_trip + max(work, moved)


def plan_remote(
    kind: str, workers: int, link: Link, profile: Profile | None, items: int, reason: str
) -> Plan:
    """Return the plan to run all items left on an engine.

    Args:
        kind: name of the engine.
        workers: how many chunks it runs at the same time.
        link: the way to its workers.
        profile: what an item costs, None when not known yet.
        items: number of items left, an assumption when unknown.
        reason: why there, in words.
    """
    known = profile or Profile(item_seconds=1e-3)
    seconds = remote_seconds(known, items, workers, link)
    serial = items * known.item_seconds
    candidates = (
        Candidate("serial", 1, kept=False, seconds=serial),
        Candidate(kind, workers, kept=True, seconds=seconds),
    )
    return Plan(
        executor="remote",
        method=kind,
        n_jobs=workers,
        seconds=seconds,
        low=seconds * (1 - WRONG),
        high=seconds * (1 + WRONG),
        serial_seconds=serial,
        reason=reason,
        candidates=candidates,
    )


def remote_chunk_sizes(fixed: int | None, round_trip: Callable[[], float]) -> Callable[..., int]:
    """Return the function that gives the size of each next chunk, called as ``next_chunksize``.

    One chunk after the other is dealt with in c = ``DISPATCH_SECONDS``. With w workers and work W
    left, chunks of s seconds keep the workers busy if ``(W / s) c <= W / w``, so ``s >= w c``. Near
    the end, where not all workers get a chunk, what is left takes ``(W / s) c + s``, which is least
    at ``s = sqrt(W c)``.

    Args:
        fixed: the chunk size the caller asked for, None for none.
        round_trip: returns what a chunk takes beside its items, as known by now, s.

    >>> size = remote_chunk_sizes(None, lambda: 0.01)
    >>> size(10**6, workers=100, item_seconds=0.001)
    500
    >>> size(10**4, workers=10_000, item_seconds=0.001)
    100
    """

    def size(left: int | None, *, workers: int, item_seconds: float, **figures: float) -> int:
        if fixed is not None:
            return fixed
        busy = DISPATCH_SECONDS * workers
        if left is not None:
            busy = min(busy, sqrt(left * item_seconds * DISPATCH_SECONDS))
        least = max(LEAST_SECONDS, TRIPS * round_trip(), busy)
        given: dict[str, object] = dict(figures)
        return next_chunksize(
            left,
            workers,
            item_seconds,
            chunking=Chunking(
                least_seconds=least, least_items=ceil(busy / max(item_seconds, 1e-9))
            ),
            longest_seconds=max(LONGEST_SECONDS, least),
            **given,  # type: ignore[arg-type]
        )

    return size
