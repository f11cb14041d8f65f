"""How the items of a run are cut into chunks: by factoring, within limits. Pure functions.

``model.chunking`` chooses the share of the remaining items that a chunk of a run gets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil, log, sqrt

from ..tuples import NamedTuple
from .figures import Profile

__all__ = [
    "DEFAULT_CHUNKING",
    "LARGEST_CHUNK_BYTES",
    "LEAST_SHARE",
    "LONGEST_CHUNK_SECONDS",
    "SMALLEST_CHUNK_SECONDS",
    "STREAM_CHUNK_ITEMS",
    "STREAM_CHUNK_SECONDS",
    "Chunking",
    "chunk_count",
    "chunk_share",
    "chunk_sizes",
    "evenness",
    "fixed_chunksize",
    "next_chunksize",
]

# A shorter chunk is not worth its dispatch: 0.2 ms of dispatch is 8 % of this.
SMALLEST_CHUNK_SECONDS = 0.0025
# All results of a chunk arrive together, so during a longer chunk the caller would see no progress,
# worker deaths or changes in cost for too long.
LONGEST_CHUNK_SECONDS = 0.5
# A chunk's results are briefly in memory twice.
LARGEST_CHUNK_BYTES = 32_000_000

# Longest chunk of a stream: an input of unknown length, or results consumed one by one.
STREAM_CHUNK_SECONDS = 0.05
# Largest chunk of a stream of tiny items, which then takes less than 1 MB in memory.
STREAM_CHUNK_ITEMS = 20_000

# Lower bound for ``Chunking.share``.
LEAST_SHARE = 0.05


class Chunking(NamedTuple):
    """How to cut the items into chunks.

    Attributes:
        share: the size of a chunk, as a share of one worker's part of the remaining items.
        least_seconds: the shortest chunk, s.
        least_items: the same in items, at the mean item time: recent items may have been shorter
            than the items to come.
        ramp_seconds: how long the caller is busy starting workers, s. Workers that have started
            need this much queued work each, because the caller cannot send more meanwhile.
    """

    share: float = 0.5
    least_seconds: float = SMALLEST_CHUNK_SECONDS
    least_items: int = 1
    ramp_seconds: float = 0.0


# For calls where nothing is known.
DEFAULT_CHUNKING = Chunking()


def evenness(profile: Profile) -> float:
    """Return how even item times are: 1 without spread, 0 from a spread of a quarter of the mean.

    >>> evenness(Profile(item_seconds=0.01)), evenness(Profile(item_seconds=0.01, spread=0.01))
    (1.0, 0.0)
    """
    return max(0.0, 1.0 - 4 * profile.spread / profile.item_seconds)


def chunk_share(profile: Profile, items: int, workers: int) -> float:
    """Return the size of a chunk, as a share of one worker's part of the remaining items.

    The share is one half as in factoring, and up to four fifths for even items. If items differ
    much and are few for each worker, factoring's own rule limits it to 1 / x, with
    ``x = 1 + b^2 + b sqrt(b^2 + 2)`` and ``b = w s / (2 t sqrt(R))`` (Hummel, Schonberg and Flynn
    1992).

    >>> chunk_share(Profile(0.01, spread=0.01), 1_000, 2), chunk_share(Profile(0.01), 1_000, 2)
    (0.5, 0.8)
    """
    b = workers * profile.spread / (2 * profile.item_seconds * sqrt(max(1, items)))
    return min(0.5 + 0.3 * evenness(profile), 1 / (1 + b * b + b * sqrt(b * b + 2)))


def chunk_count(
    profile: Profile,
    items: int,
    item_seconds: float,
    workers: int,
    least_seconds: float,
    item_bytes: float,
) -> int:
    """Return about how many chunks ``next_chunksize`` makes.

    Each chunk takes the share f / w of the remaining items, down to the smallest size s. From
    ``f R / w`` to ``s`` items these are ``(w / f) ln(f R / (w s))`` chunks, then ``w / f`` chunks
    of the smallest size. The limits on a chunk's time and bytes may require more chunks.
    """
    if items <= workers:
        return items
    share = max(LEAST_SHARE, chunk_share(profile, items, workers))
    least = max(1.0, least_seconds / max(item_seconds, 1e-12))
    first = share * items / workers
    count = workers / share * (1 + max(0.0, log(max(first / least, 1.0))))
    most = LONGEST_CHUNK_SECONDS / max(item_seconds, 1e-12)
    most = min(most, LARGEST_CHUNK_BYTES / max(item_bytes, 1.0))
    return int(min(items, max(workers, count, items / max(1, int(most)))))


def next_chunksize(
    remaining: int | None,
    workers: int,
    item_seconds: float,
    *,
    chunking: Chunking = DEFAULT_CHUNKING,
    done: int = 0,
    result_bytes: float = 0.0,
    longest_seconds: float = LONGEST_CHUNK_SECONDS,
    most_items: int | None = None,
) -> int:
    """Return the size of the next chunk to hand out, by factoring.

    With the default share, a chunk has ``ceil(remaining / 2 workers)`` items (Hummel, Schonberg and
    Flynn 1992). Chunks shrink towards the end, so workers finish together whatever the items cost.
    No estimate of the spread is needed. ``model.chunking`` chooses a larger share for even items,
    and a smaller one for late workers or a busy caller. A chunk is long enough to be worth its
    dispatch. It takes at most ``longest_seconds``, and its results at most ``LARGEST_CHUNK_BYTES``.

    If the length is unknown, as many items are assumed to remain as were handed out. Chunks are
    then a quarter as large, because fewer may remain.

    Args:
        remaining: items not handed out yet, None if unknown.
        workers: number of workers that share the items.
        item_seconds: an item's time, s; 0 if not known yet, which gives chunks of one item.
        chunking: how to cut the items into chunks.
        done: items handed out so far; used if ``remaining`` is unknown.
        result_bytes: a result's size.
        longest_seconds: longest chunk allowed, s.
        most_items: largest chunk allowed, None for no limit.

    >>> next_chunksize(1000, 2, 0.001), next_chunksize(10, 2, 0.001), next_chunksize(10, 2, 1.0)
    (250, 3, 1)
    """
    if item_seconds <= 0:
        return 1
    share = chunking.share
    least = ceil(chunking.least_seconds / item_seconds)
    if remaining is not None:
        # Above the planned number of items, leave as many for each of the other workers.
        least = min(least, max(chunking.least_items, ceil(remaining / workers)))
    most = max(1, int(longest_seconds / item_seconds))
    if result_bytes >= 1:
        most = min(most, max(1, int(LARGEST_CHUNK_BYTES / result_bytes)))
    if most_items is not None:
        most = min(most, most_items)
    if remaining is None:
        remaining, share = max(done, workers * least), share / 4
    return max(1, min(most, max(least, ceil(share * remaining / workers))))


def chunk_sizes(chunking: Chunking, fixed: int | None, *, stream: bool) -> Callable[..., int]:
    """Return the function that gives the size of each next chunk, called as ``next_chunksize``.

    Args:
        chunking: the plan's chunking.
        fixed: the chunk size the caller asked for, None for none.
        stream: whether results are consumed as they arrive, or the number of items is unknown.

    >>> chunk_sizes(DEFAULT_CHUNKING, 7, stream=False)(1_000)
    7
    """
    if fixed is not None:
        size: int = fixed
        return lambda left, **_: size
    if not stream:
        return partial(next_chunksize, chunking=chunking)
    return partial(
        next_chunksize,
        chunking=chunking,
        longest_seconds=STREAM_CHUNK_SECONDS,
        most_items=STREAM_CHUNK_ITEMS,
    )


def fixed_chunksize(
    profile: Profile, items: int, workers: int, *, chunk_seconds: float, longest_seconds: float
) -> int:
    """Return the single chunk size to give to a plain ``Pool.map``.

    ``K = (sqrt(2) N h / (s P sqrt(ln P)))^(2/3)`` balances the dispatch cost h of a chunk against
    the spread s of its items (Kruskal and Weiss 1985). K is limited to ``[1, N / P]``.

    Args:
        profile: what an item costs; has s.
        items: N.
        workers: P.
        chunk_seconds: h, s.
        longest_seconds: longest chunk allowed, s.

    >>> fixed_chunksize(Profile(item_seconds=0.001, spread=0.001), 1000, 2,
    ...                 chunk_seconds=0.0001, longest_seconds=0.2)
    20
    """
    fair = max(1, ceil(items / workers))
    if workers < 2:
        return fair
    # A measured spread of exactly 0 only means that the timings showed no difference. The smallest
    # spread seen otherwise is 5 %.
    spread = max(profile.spread, 0.05 * profile.item_seconds, 1e-9)
    size: float = (sqrt(2) * items * chunk_seconds / (spread * workers * sqrt(log(workers)))) ** (
        2 / 3
    )
    longest = max(1, int(longest_seconds / max(profile.item_seconds, 1e-9)))
    return max(1, min(ceil(size), fair, longest))
