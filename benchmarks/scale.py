"""A client and up to 10,000 workers, simulated: how long a call takes beside the ideal.

python benchmarks/scale.py [--save]

The chunk sizes are those of amorsize; workers, client and network are simulated. The client deals
with one chunk at a time (``dispatch`` seconds each); two chunks are out for each worker. Items take
1 ms on average, and a chunk as many times that as it has items, times a factor of its own (0.8 to
1.2).
"""

from __future__ import annotations

import argparse
import heapq
import random
from typing import Any

from common import table, write

from amorsize.decide.remote import DISPATCH_SECONDS, remote_chunk_sizes

ITEM_SECONDS = 0.001
ROUND_TRIP = 0.005
# Bytes of a chunk as sent: a range is two numbers; a list of floats has 9 bytes an item.
RANGE_BYTES, LIST_BYTES = 300, 9


def simulated(items: int, workers: int, dispatch: float, *, fixed: float | None) -> dict[str, Any]:
    """Return what a call does.

    Args:
        items: number of items.
        workers: number of workers.
        dispatch: what a chunk takes of the client, s.
        fixed: length of all chunks, s; None for amorsize's choice.
    """
    draw = random.Random(1)
    size = remote_chunk_sizes(None, lambda: ROUND_TRIP)
    left, client, chunks, largest = items, 0.0, 0, 0
    free = [(0.0, worker) for worker in range(workers)]  # when each has room for a chunk
    until = [0.0] * workers  # when each has finished what it has
    heapq.heapify(free)
    while left:
        at, worker = heapq.heappop(free)
        wanted = (
            size(left, workers=workers, item_seconds=ITEM_SECONDS)
            if fixed is None
            else int(fixed / ITEM_SECONDS)
        )
        chunk = min(left, wanted)
        left -= chunk
        chunks += 1
        largest = max(largest, chunk)
        client = max(client, at) + dispatch
        begun = max(until[worker], client + ROUND_TRIP / 2)
        before = until[worker]
        until[worker] = begun + chunk * ITEM_SECONDS * draw.uniform(0.8, 1.2)
        # With two chunks out, there is room again when the first of them is back.
        heapq.heappush(free, ((before or client) + ROUND_TRIP / 2, worker))
    ideal = items * ITEM_SECONDS / workers
    took = max(until) + ROUND_TRIP / 2
    return {
        "items": items,
        "workers": workers,
        "dispatch": dispatch,
        "chunk": "amorsize" if fixed is None else fixed,
        "ideal": ideal,
        "took": took,
        "chunks": chunks,
        "chunks_each_second": chunks / took,
        "range_bytes_held": 2 * workers * RANGE_BYTES,
        "list_bytes_held": 2 * workers * largest * LIST_BYTES,
        "busy": chunks * dispatch / took,
    }


def main() -> None:
    """Simulate, and print the table of docs/scale.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write results/scale.json")
    given = parser.parse_args()
    cases = [
        (10**9, 10, None),
        (10**9, 1_000, 0.5),
        (10**9, 1_000, None),
        (10**9, 10_000, 0.5),
        (10**9, 10_000, None),
        (10**7, 1_000, 0.5),
        (10**7, 1_000, None),
        (10**7, 10_000, None),
    ]
    found = [simulated(*case[:2], DISPATCH_SECONDS, fixed=case[2]) for case in cases]
    found.append(simulated(10**7, 10_000, DISPATCH_SECONDS / 20, fixed=0.5))
    rows = [
        [
            f"{one['items']:,}",
            f"{one['workers']:,}",
            f"{one['dispatch'] * 1000:g} ms",
            str(one["chunk"]),
            f"{one['took'] / one['ideal']:.2f}",
            f"{one['chunks']:,}",
            f"{one['chunks_each_second']:,.0f}",
            f"{one['busy']:.0%}",
            f"{one['range_bytes_held'] / 1e6:,.1f} MB",
            f"{one['list_bytes_held'] / 1e6:,.1f} MB",
        ]
        for one in found
    ]
    header = ["items of 1 ms", "workers", "dispatch", "chunks of (s)", "time over ideal", "chunks",
              "chunks/s", "client busy", "held (range)", "held (floats)"]  # fmt: skip
    print(table(header, rows))
    if given.save:
        write("scale", {"cases": found})


if __name__ == "__main__":
    main()
