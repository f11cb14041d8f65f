"""The figures that plans are made from: of a function's items, and of the machine.

Times are in seconds, sizes in bytes, rates per item. docs/model.md says where each constant was
measured.
"""

from __future__ import annotations

from ..tuples import NamedTuple

__all__ = [
    "FIRST_COSTS",
    "FRESH_METHODS",
    "MOST_WAITING_WORKERS",
    "SHARED_FROM_BYTES",
    "TIME_BUCKETS",
    "UNKNOWN_SIZE",
    "WAITING_SHARE",
    "Costs",
    "Profile",
    "StartCost",
    "size_bucket",
    "time_bucket",
]

# More workers than this do not pay even for waiting items: each costs 1 ms to start.
MOST_WAITING_WORKERS = 256

# An item that uses less than this share of a CPU counts as waiting.
WAITING_SHARE = 0.5


class Profile(NamedTuple):
    """What was measured of a function's items.

    Attributes:
        item_seconds: mean wall time of an item that runs alone, s.
        spread: standard deviation of item times (of block means, for tiny items), s.
        least_seconds, most_seconds: item time in the fastest and the slowest block, s: the range
            in which the first timings of a later call confirm the profile.
        cpu_share: CPU time over wall time; near 0 for waiting, above 1 for threads inside.
        arg_bytes: pickled size of an argument; 0 if not measured.
        result_bytes: pickled size of a result; 0 if not measured.
        pickle_seconds: time to pickle one result, s; unpickling takes about the same.
        send_seconds: time to pickle one argument, s; unpickling takes about the same.
        contention: how much longer an item takes while all CPUs are busy, as a share of its time;
            0 if not measured.
        import_seconds: time a fresh interpreter needs, beyond its own start, to import what the
            function uses, s; 0 if not measured.
        memory_bytes: growth of the peak resident memory while items ran.
        items: number of items measured.
        waiting_workers: number of workers known to wait as well as one; 0 if waiting is only
            claimed.
    """

    item_seconds: float
    spread: float = 0.0
    least_seconds: float = 0.0
    most_seconds: float = 0.0
    cpu_share: float = 1.0
    arg_bytes: float = 0.0
    result_bytes: float = 0.0
    pickle_seconds: float = 0.0
    send_seconds: float = 0.0
    contention: float = 0.0
    import_seconds: float = 0.0
    memory_bytes: int = 0
    items: int = 1
    waiting_workers: int = MOST_WAITING_WORKERS


class StartCost(NamedTuple):
    """The cost of starting and ending a crew with one start method, in seconds.

    Attributes:
        base: once, while the caller waits.
        each: for each worker, while the caller waits.
        per_gb: for each worker and each GB resident in the caller, while the caller waits (page
            tables).
        latency: from a worker's start until it runs its first item. Fresh interpreters compute all
            that time, so more of them than CPUs take that many times as long.
        end: once, to end the crew.
        end_each: for each worker, to end it.
    """

    base: float
    each: float
    per_gb: float
    latency: float
    end: float
    end_each: float


class Costs(NamedTuple):
    """What running workers costs on this machine, as far as known.

    Attributes:
        fork, spawn, forkserver, thread: start-up costs of each start method, and of threads.
        chunk_seconds: CPU time of dispatching one chunk and collecting its result.
        byte_seconds: time to move one byte through a pipe.
        shared_seconds: time to move one byte through shared memory.
        contention: how much longer an item takes while all CPUs are busy, as a share of its time;
            for functions whose contention is not known.
        error: the recent relative error of forecasts.
    """

    fork: StartCost
    spawn: StartCost
    forkserver: StartCost
    thread: StartCost
    chunk_seconds: float
    byte_seconds: float
    shared_seconds: float
    contention: float
    error: float

    def of(self, method: str) -> StartCost:
        """Return the start-up cost of a start method."""
        cost: StartCost = getattr(self, method)
        return cost


# Measured in November 2026 on a quiet two-core x86-64 machine, Linux 6, Python 3.11. Every real run
# corrects them (learned_costs), so they matter on the first day only.
FIRST_COSTS = Costs(
    fork=StartCost(0.0008, 0.0010, 0.025, 0.0015, 0.0005, 0.0010),
    spawn=StartCost(0.0010, 0.0030, 0.0, 0.0900, 0.0020, 0.0030),
    forkserver=StartCost(0.0200, 0.0020, 0.0, 0.0900, 0.0010, 0.0020),
    thread=StartCost(0.0002, 0.0001, 0.0, 0.0, 0.0001, 0.0000),
    chunk_seconds=0.000_20,
    byte_seconds=1.5e-9,
    shared_seconds=0.5e-9,
    contention=0.05,
    error=0.1,
)

# Start methods whose workers are fresh interpreters, which import what they need.
FRESH_METHODS = ("spawn", "forkserver")

# Buffers from this size on go through shared memory (``run.shared``). Small buffers are quicker
# through the pipe: 16 kB took 64 us through the pipe and 90 us shared; 64 kB took 75 and 42 us;
# 8 MB took 17 and 3 ms (November 2026, two-core machine).
SHARED_FROM_BYTES = 1 << 17

# The buckets of item times, with their upper bounds in seconds.
TIME_BUCKETS = (
    ("instant", 0.0001),
    ("fast", 0.001),
    ("moderate", 0.01),
    ("slow", 0.1),
    ("very_slow", float("inf")),
)

_SIZE_BUCKETS = (("tiny", 10), ("small", 100), ("medium", 1_000), ("large", 10_000))

# The size of an input of unknown length, in place of a bucket.
UNKNOWN_SIZE = "unknown"


def time_bucket(item_seconds: float) -> str:
    """Return the name of the bucket for an item time.

    >>> [time_bucket(t) for t in (3e-8, 0.0005, 0.005, 0.05, 5.0)]
    ['instant', 'fast', 'moderate', 'slow', 'very_slow']
    """
    return next(name for name, bound in TIME_BUCKETS if item_seconds < bound)


def size_bucket(items: int) -> str:
    """Return the name of the bucket for a number of items.

    >>> [size_bucket(n) for n in (9, 10, 999, 9_999, 10_000)]
    ['tiny', 'small', 'medium', 'large', 'xlarge']
    """
    return next((name for name, bound in _SIZE_BUCKETS if items < bound), "xlarge")
