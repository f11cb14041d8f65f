"""The planner against exhaustive search, in a simulation of workers, dispatch, pipes and costs.

This is a discrete-event model of a run, which shares no formula with the planner. Workers start one
after the other, take chunks from a queue, compute item after item and send their results. The
caller unpickles the results, one chunk at a time. If there are no more jobs than CPUs, the caller
is one of them: it takes chunks from the same queue and runs them in blocks of 20 ms. It unpickles
results between the blocks, and gives the rest of its chunk back when the queue is empty. Workloads
are drawn at random: 30 ns to 10 s an item, 1 to 10 million items, up to 100 MB a result, constant,
random, heavy-tailed, sorted costs and one giant, computing or waiting, on machines of 2 to 1,024
CPUs.

The planner knows what a remembered profile and learned costs would say: means, spread, sizes, the
machine's charges. It does not know the sequence. The search tries the serial run, and numbers of
workers (powers of two, one between each two of them, and all CPUs; for long runs all, three
quarters and half of the CPUs) times ways to cut chunks (the engine's own with two shares, one for
each worker, four, sixteen, chunks of 10 ms). No way puts more than 32 MB of results into a chunk,
which is the limit of the engine. Regret is the time of the planner's choice over that of the best
found, less one. Where the order of the items is random, the search uses the average over several
orders, and both are judged by other orders, which neither has seen. "In hindsight" compares the
plan, in one order, with what is best for that very order.

    python benchmarks/simulate.py [--count 10000] [--seed 1] [--workload NUMBER]
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from common import clock, write

from amorsize import smart_map
from amorsize.decide.cutting import LARGEST_CHUNK_BYTES, Chunking, next_chunksize
from amorsize.decide.figures import SHARED_FROM_BYTES, Costs, Profile, StartCost
from amorsize.decide.planner import PlanInput, StartOption, make_plan

# No workload takes longer than this serially: five hours.
LONGEST_SECONDS = 20_000.0
# From this many items per worker on, fewer workers than CPUs cannot be better by much.
PLENTY = 40

# Extra time for each item, in a worker and in the caller, s: after a fork, the system copies the
# memory pages that hold the reference counts of the items.
TOUCH_SECONDS = 50e-9

# The caller runs its chunks in blocks of BLOCK_SECONDS, as ``run.caller`` does. Blocks are longer
# where a worker's part would be more than MOST_BLOCKS of them, so that the simulation ends in time.
BLOCK_SECONDS = 0.02
MOST_BLOCKS = 1_000

# Chunks in the queue, or two for each worker if these are more.
QUEUED_CHUNKS = 200

# Where the order of the items is random: the number of orders that the search uses, and of the
# other orders that judge the search and the plan.
DRAWS = 4
JUDGED = 8

SHAPES = ("constant", "random", "heavy-tailed", "rising", "falling", "giant", "two kinds")


@dataclass(frozen=True)
class Machine:
    """The charges of a simulated machine, in seconds."""

    cpus: int
    base: float  # before the first worker is started
    each: float  # to start one
    end: float
    end_each: float
    dispatch: float  # of each chunk, half the caller's and half the worker's
    byte_pipe: float
    byte_shared: float
    contention: float


@dataclass(frozen=True)
class Work:
    """A simulated workload: the cost of each item as a running sum, and sizes."""

    shape: str
    sums: np.ndarray  # of item costs, one longer than there are items
    share: float  # of a CPU that an item uses
    pickling: float
    size: float  # bytes of a result


def draw(seed: int) -> tuple[Machine, Work]:
    """Return a random machine and workload."""
    rng = random.Random(seed)
    machine = Machine(
        cpus=round(2 ** rng.uniform(1, 10)),
        base=rng.uniform(0.0005, 0.003),
        each=rng.uniform(0.0004, 0.003),
        end=rng.uniform(0.0005, 0.002),
        end_each=rng.uniform(0.0001, 0.0006),
        dispatch=rng.uniform(0.00005, 0.0003),
        byte_pipe=rng.uniform(0.5e-9, 2e-9),
        byte_shared=rng.uniform(0.2e-9, 0.8e-9),
        contention=rng.uniform(0.0, 0.3),
    )
    items = round(10 ** rng.uniform(0, 7))
    mean = 10 ** rng.uniform(-7.5, 1)
    items = max(1, min(items, int(LONGEST_SECONDS / mean)))
    shape = rng.choice(SHAPES)
    costs = mean * draw_costs(shape, items, np.random.default_rng(seed))
    # All results together fit into the memory of a large machine.
    size = 0.0 if rng.random() < 0.5 else min(10 ** rng.uniform(0, 8), 5e10 / items)
    pickling = 0.0 if size >= SHARED_FROM_BYTES else 3e-8 + 0.4e-9 * size
    share = 0.01 if rng.random() < 0.15 and mean > 1e-4 else 1.0
    return machine, Work(shape, running_sum(costs), share, pickling, size)


def running_sum(costs: np.ndarray) -> np.ndarray:
    return np.concatenate(([0.0], np.cumsum(costs)))


def draw_costs(shape: str, items: int, rng: np.random.Generator) -> np.ndarray:
    """Return item costs with a mean of about one."""
    if shape == "constant":
        return np.ones(items)
    if shape == "random":
        return rng.uniform(0.2, 1.8, items)
    if shape == "heavy-tailed":
        return np.minimum(rng.pareto(1.8, items) * 0.8, 1_000.0) + 1e-3
    if shape == "rising":
        return np.linspace(0.01, 2, items)
    if shape == "falling":
        return np.linspace(2, 0.01, items)
    costs = np.ones(items)
    if shape == "giant":
        costs[rng.integers(items)] = max(1.0, 0.3 * items)
        return costs
    return np.where(rng.random(items) < 0.05, 10.0, 0.5)


# One run -------------------------------------------------------------------------------------


class Queue:
    """The chunks to run, and the rest of the chunk that the caller runs in blocks.

    Args:
        sums: the costs of the items as a running sum, s.
        sizes: sizes of the chunks, one after the other; the last may be too large.
        block: how long a block of the caller takes, s.
    """

    def __init__(self, sums: np.ndarray, sizes: Iterator[int], block: float) -> None:
        self._sums, self._sizes, self._block = sums, sizes, block
        self._total, self._position, self._head = len(sums) - 1, 0, 0
        self._chunks: list[tuple[float, int, int]] = []  # (there at, first, last)
        self._own: tuple[int, int] | None = None  # what the caller has left of its chunk

    def fill(self, count: int) -> None:
        """Cut the first chunks, ``count`` at most."""
        while self._position < self._total and len(self._chunks) < count:
            self.submit(0.0)

    def submit(self, when: float) -> None:
        """Cut one more chunk, if there are items left."""
        if self._position < self._total:
            size = min(next(self._sizes), self._total - self._position)
            self._chunks.append((when, self._position, self._position + size))
            self._position += size

    @property
    def is_empty(self) -> bool:
        return self._head == len(self._chunks)

    @property
    def is_done(self) -> bool:
        return self.is_empty and self._own is None

    def take(self) -> tuple[float, int, int]:
        """Take the next chunk."""
        self._head += 1
        return self._chunks[self._head - 1]

    def take_block(self, when: float) -> tuple[float, int, int]:
        """Take the next block of the caller's chunk, or of the next chunk."""
        there, first, last = (when, *self._own) if self._own else self.take()
        stop = int(np.searchsorted(self._sums, self._sums[first] + self._block, "right")) - 1
        stop = min(last, max(first + 1, stop))
        self._own = (stop, last) if stop < last else None
        return there, first, stop

    def give_back(self, when: float | None) -> None:
        """Give the rest of the caller's chunk back; ``when`` is None in the middle of a block."""
        if self._own and when is not None:
            self._chunks.append((when, *self._own))
            self._own = None


def simulate(machine: Machine, work: Work, workers: int, sizes: Iterator[int]) -> float:
    """Return how long a run takes, s.

    Args:
        machine: its charges.
        work: the items.
        workers: how many run items, the caller included if it shares.
        sizes: sizes of the chunks, one after the other; the last may be too large.
    """
    total = len(work.sums) - 1
    mean = float(work.sums[-1]) / total
    shared = 1 < workers <= machine.cpus
    started = workers - shared
    active = min(workers * work.share, machine.cpus)
    contended = 1 + machine.contention * max(0.0, active - 1) / (machine.cpus - 1)
    byte = machine.byte_shared if work.size >= SHARED_FROM_BYTES else machine.byte_pipe
    out = work.pickling + work.size * byte
    # All CPUs together can compute and pickle only so many items a second. Above that, computing
    # takes longer, and waiting does not.
    back = 0.00005 if work.size >= SHARED_FROM_BYTES else work.pickling
    waits, computes = (1 - work.share) * mean, work.share * mean * contended + out
    most = workers * (computes + back) / machine.cpus
    stretch = 1.0 if shared else max(1.0, (most - waits) / computes)
    slow, out = 1 - work.share + work.share * contended * stretch, out * stretch
    part = mean * total / workers
    ready = machine.base + started * machine.each  # when the caller has started all workers
    free = [(machine.base + (k + 1) * machine.each, k) for k in range(started)]
    caller_id = started if shared else -1
    if shared:
        free.append((ready, caller_id))
    queue = Queue(work.sums, sizes, max(BLOCK_SECONDS, part / MOST_BLOCKS))
    queue.fill(max(QUEUED_CHUNKS, 2 * workers))
    running: list[tuple[float, int, int]] = []  # (done at, worker, items)
    caller, over = ready, 0.0
    debt = 0.0  # work of a caller that shares, for replies that it has not handled yet
    while running or not queue.is_done:
        if queue.is_empty:
            queue.give_back(next((when for when, who in free if who == caller_id), None))
        if free and not queue.is_empty and (not running or free[0][0] <= running[0][0]):
            idle, worker = heapq.heappop(free)
            if worker == caller_id and debt:  # replies come first
                heapq.heappush(free, (idle + debt, worker))
                debt = 0.0
                continue
            taken = queue.take_block(idle) if worker == caller_id else queue.take()
            there, first, last = taken
            seconds = float(work.sums[last] - work.sums[first])
            # Beyond its part of the work no worker is slowed down: others have nothing left then.
            seconds += min(seconds, part) * (slow - 1) + (last - first) * TOUCH_SECONDS
            if worker != caller_id:
                seconds += (last - first) * out + machine.dispatch / 2
            heapq.heappush(running, (max(there, idle) + seconds, worker, last - first))
            continue
        done, worker, items = heapq.heappop(running)
        heapq.heappush(free, (done, worker))
        caller = max(caller, done)
        if worker != caller_id:
            handling = machine.dispatch / 2 + items * back
            debt += handling if shared else 0.0
            caller += 0.0 if shared else handling
        over = max(over, caller)
        queue.submit(caller)
    if shared:  # what the caller still has to handle when it is free for the last time
        over = max(over, next((when for when, who in free if who == caller_id), over) + debt)
    return max(over, ready) + machine.end + started * machine.end_each


# Ways to cut chunks ---------------------------------------------------------------------------


def engines(work: Work, workers: int, chunking: Chunking) -> Iterator[int]:
    """Yield the sizes the engine would choose."""
    total = len(work.sums) - 1
    mean = float(work.sums[-1]) / total + work.pickling
    left = total
    while True:
        size = next_chunksize(
            max(1, left), workers, mean, chunking=chunking, result_bytes=work.size
        )
        left -= size
        yield size


def fixed(size: int) -> Iterator[int]:
    while True:
        yield size


def chunkings(work: Work, workers: int) -> dict[str, Callable[[], Iterator[int]]]:
    """Return ways to cut the items into chunks, by name."""
    total = len(work.sums) - 1
    mean = float(work.sums[-1]) / total
    sizes = {
        "one each": ceil(total / workers),
        "Pool": ceil(total / (4 * workers)),
        "sixteen each": ceil(total / (16 * workers)),
    }
    if total * mean < 2_000 * 0.01:
        sizes["10 ms"] = max(1, int(0.01 / max(mean, 1e-9)))
    # Search and planner have the same memory limit.
    most = max(1, int(LARGEST_CHUNK_BYTES / max(work.size, 1.0)))
    return {
        "engine, halves": partial(engines, work, workers, Chunking(0.5)),
        "engine, more": partial(engines, work, workers, Chunking(0.8)),
    } | {name: partial(fixed, min(size, most)) for name, size in sizes.items()}


# Planner against search -----------------------------------------------------------------------


def costs_of(machine: Machine) -> Costs:
    """Return the costs as they would have been learned of the machine."""
    fork = StartCost(machine.base, machine.each, 0.0, 0.0, machine.end, machine.end_each)
    return Costs(
        fork=fork,
        spawn=fork,
        forkserver=fork,
        thread=fork,
        chunk_seconds=machine.dispatch,
        byte_seconds=machine.byte_pipe,
        shared_seconds=machine.byte_shared,
        contention=max(machine.contention, 1e-9),
        error=0.03,
    )


def room_of(machine: Machine, items: int) -> PlanInput:
    """Return what the planner knows of the machine and of the call."""
    costs = costs_of(machine)
    return PlanInput(items, machine.cpus, costs, (StartOption("fork"),), shares=True)


def profile_of(work: Work) -> Profile:
    """Return the profile as it would be remembered of the function."""
    costs = np.diff(work.sums)
    return Profile(
        item_seconds=max(float(costs.mean()), 1e-9),
        spread=float(costs.std()),
        least_seconds=max(float(costs.min()), 1e-9),
        most_seconds=max(float(costs.max()), 1e-9),
        cpu_share=work.share,
        result_bytes=work.size,
        pickle_seconds=work.pickling,
        items=len(costs) * 1_000,  # as after many runs: the mean is certain
    )


def draws(work: Work, seed: int) -> tuple[list[Work], list[Work]]:
    """Return workloads for the search and for the judgement, with the same profile.

    Where the order of the items is random, they are shuffled; else there is only one workload.
    """
    if work.shape in ("constant", "rising", "falling"):
        return [work], [work]
    costs, rng = np.diff(work.sums), np.random.default_rng(seed)
    orders = (rng.permutation(costs) for _ in range(DRAWS - 1 + JUDGED))
    others = [replace(work, sums=running_sum(order)) for order in orders]
    return [work, *others[: DRAWS - 1]], others[DRAWS - 1 :]


def search(machine: Machine, drawn: list[Work], serial: float) -> tuple[tuple[int, str], float]:
    """Return the workers and chunks that are quickest on average, and the least time of one draw.

    0 workers stand for the serial run. The least time is that of the first draw. A choice that is
    much slower after some of the draws is given up: by half after the first, by less later.
    """
    total = len(drawn[0].sums) - 1
    most = min(total, max(machine.cpus, 256 if drawn[0].share < 0.5 else 1))
    counts = {2**k for k in range(11)} | {3 * 2**k for k in range(9)} | {machine.cpus}
    if total > PLENTY * most and serial > most:
        counts = {most // 2, 3 * most // 4}
    counts = {count for count in counts if 1 <= count <= most} | {most}
    names = [(count, name) for count in sorted(counts) for name in chunkings(drawn[0], count)]
    times: dict[tuple[int, str], list[float]] = {pair: [] for pair in names}
    least = serial
    for draw_number, work in enumerate(drawn):
        for (workers, name), seconds in times.items():
            sizes = chunkings(work, workers)[name]()
            seconds.append(simulate(machine, work, workers, sizes))
        if not draw_number:
            least = min(serial, *(seconds[0] for seconds in times.values()))
        bound = (1 + 0.5 / (draw_number + 1)) * min(map(sum, times.values()))
        times = {pair: seconds for pair, seconds in times.items() if sum(seconds) <= bound}
    best, seconds = min(times.items(), key=lambda item: sum(item[1]))
    return ((0, "serial") if serial * len(drawn) <= sum(seconds) else best), least


def one(seed: int) -> dict[str, Any]:
    """Return the regret of one drawn workload, with the choice and the best."""
    machine, work = draw(seed)
    total, serial = len(work.sums) - 1, float(work.sums[-1])
    profile = profile_of(work)
    plan = make_plan(profile, room_of(machine, total))
    drawn, others = draws(work, seed)
    (workers, name), least = search(machine, drawn, serial)
    best = serial
    if workers:
        best = average(machine, others, workers, lambda w: chunkings(w, workers)[name]())
    chosen = hindsight = serial
    if plan.executor != "serial":
        sizes = partial(engines, workers=plan.n_jobs, chunking=plan.chunking)
        chosen = average(machine, others, plan.n_jobs, sizes)
        hindsight = average(machine, [work], plan.n_jobs, sizes)
    return {
        "seed": seed,
        "regret": max(0.0, chosen / best - 1),
        "hindsight": max(0.0, hindsight / least - 1),
        "forecast": plan.seconds / chosen,
        "shape": work.shape,
        "cpus": machine.cpus,
        "items": total,
        "mean": serial / total,
        "waiting": work.share < 0.5,
        "bytes": work.size,
        "chosen": plan.executor if plan.executor == "serial" else f"{plan.n_jobs} workers",
        "seconds": chosen,
        "best": f"{workers} workers, {name}" if workers else name,
        "best seconds": best,
    }


def average(
    machine: Machine, drawn: list[Work], workers: int, sizes: Callable[[Work], Iterator[int]]
) -> float:
    """Return the average time of the draws with these workers and chunks, s."""
    return statistics.mean(simulate(machine, work, workers, sizes(work)) for work in drawn)


def planning(seeds: range) -> list[float]:
    """Return the time to plan each of these workloads, s: the best of three."""
    found = []
    for seed in seeds:
        machine, work = draw(seed)
        profile = profile_of(work)
        room = room_of(machine, len(work.sums) - 1)
        found.append(min(clock(partial(make_plan, profile, room), 3)))
    return found


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def spread(values: list[float]) -> dict[str, float]:
    """Return the figures that sum up many regrets."""
    return {
        "median": statistics.median(values),
        "mean": statistics.mean(values),
        "P90": quantile(values, 0.9),
        "P99": quantile(values, 0.99),
        "worst": max(values),
    }


def main(count: int, seed: int) -> None:
    planned = planning(range(seed, seed + min(count, 300)))  # while nothing else runs
    found = smart_map(one, range(seed, seed + count))
    worst = sorted(found, key=lambda result: -result["regret"])[:10]
    errors = [abs(result["forecast"] - 1) for result in found]
    told = {
        "workloads": count,
        "first seed": seed,
        "regret": spread([result["regret"] for result in found]),
        "in hindsight": spread([result["hindsight"] for result in found]),
        "forecast error": {"median": statistics.median(errors), "P90": quantile(errors, 0.9)},
        "planning, us": {
            "median": statistics.median(planned) * 1e6,
            "P99": quantile(planned, 0.99) * 1e6,
        },
        "by CPUs": {
            f"{low} to {2 * low - 1 if low < 512 else 1024}": {
                "workloads": len(some),
                "P99": quantile(some, 0.99),
                "worst": max(some),
            }
            for low in (2, 4, 8, 16, 32, 64, 128, 256, 512)
            if (some := [r["regret"] for r in found if low <= r["cpus"] < 2 * low + (low == 512)])
        },
        "worst": worst,
    }
    print(json.dumps(told, indent=1))
    if count >= 1_000:
        print(f"written to {write('simulate', told)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workload", type=int, help="tell all about the workload of one seed")
    given = parser.parse_args()
    if given.workload is not None:
        print(json.dumps(one(given.workload), indent=1))
    else:
        main(given.count, given.seed)
