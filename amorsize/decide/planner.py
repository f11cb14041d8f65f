"""The planner: searches the cost model for the plan with the shortest forecast. Pure functions.

The plan is serial unless workers are better by more than the forecast error: avoiding a slower call
matters more than a possible gain.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

from ..tuples import NamedTuple
from ..units import counted, duration
from .cutting import DEFAULT_CHUNKING, Chunking
from .figures import FRESH_METHODS, MOST_WAITING_WORKERS, WAITING_SHARE, Costs, Profile
from .model import (
    Workforce,
    chunking,
    parallel_seconds,
    serial_seconds,
    start_seconds,
    travel_seconds,
    uncertainty,
)

__all__ = [
    "Candidate",
    "Plan",
    "PlanInput",
    "StartOption",
    "make_plan",
    "plan_for_little",
    "worker_bytes",
]

# Where waiting is claimed but not proved, the first step has this many workers for each CPU.
FIRST_STEP = 2
# Each further step has this many times the workers that were shown to wait as well as one. Four
# such steps lead from one CPU to MOST_WAITING_WORKERS. Both numbers are guesses.
NEXT_STEP = 4

# Numbers of workers that differ by less than one part in FLAT make no difference.
FLAT = 8

# A worker's own memory under fork (the pages its interpreter touches) and other start methods.
FORKED_WORKER_BYTES = 15_000_000
SPAWNED_WORKER_BYTES = 40_000_000
USABLE_MEMORY = 0.8  # of the free memory; the rest is for other programs


class StartOption(NamedTuple):
    """A way to start workers and run items in them.

    Attributes:
        method: start method, or "thread".
        inherited: whether workers inherit the arguments, which are then not sent.
        kept: numbers of workers of the crews kept from earlier calls.
    """

    method: str
    inherited: bool = True
    kept: tuple[int, ...] = ()


class PlanInput(NamedTuple):
    """What a plan depends on besides the profile.

    Attributes:
        items: items left to do; an assumption if the length is unknown.
        cpus: usable CPUs.
        costs: the machine's costs.
        options: the options to choose from, the preferred one first.
        most_workers: cap on workers (``AMORSIZE_N_JOBS``, limit on open files), None for none.
        n_jobs: workers the caller asked for, None to search.
        resident_bytes: the caller's resident memory.
        free_bytes: free memory of the machine, None if memory does not limit the workers.
        must_run: whether the items must run in workers at any cost.
        shares: whether the caller may run items like a worker.
        input_seconds: time that the caller needs to read an item of the input, s.
    """

    items: int
    cpus: int
    costs: Costs
    options: tuple[StartOption, ...]
    most_workers: int | None = None
    n_jobs: int | None = None
    resident_bytes: int = 0
    free_bytes: int | None = None
    must_run: bool = False
    shares: bool = False
    input_seconds: float = 0.0


class Candidate(NamedTuple):
    """A way to run the items, with its forecast.

    Attributes:
        method: start method, "thread" or "serial".
        workers: number of processes or threads that run items, 1 for serial.
        kept: whether the workers are kept workers.
        seconds: forecast, s.
        shared: whether the calling process is one of them.
    """

    method: str
    workers: int
    kept: bool
    seconds: float
    shared: bool = False

    def __str__(self) -> str:
        if self.method == "serial":
            return "serial"
        if ":" in self.method:
            return f"{counted(self.workers, 'worker')} of {self.method.partition(':')[0]}"
        kept = "kept " if self.kept else ""
        if self.method == "thread":
            return counted(self.workers, f"{kept}thread")
        shown = counted(self.workers, f"{kept}process", f"{kept}processes")
        shown += ", this one included" if self.shared else ""
        return f"{shown} ({self.method})"


class Plan(NamedTuple):
    """What to do with the items left.

    Attributes:
        executor: "serial", "thread", "process", or "remote" for another engine.
        method: start method, "thread", or "" for serial; of another engine its kind and size.
        n_jobs: processes or threads that run items; 1 for serial.
        shared: whether the calling process is one of them.
        seconds: forecast of the time from now on, s.
        low, high: the range in which the time is expected to be, s.
        serial_seconds: forecast for the same items in the calling process, s.
        reason: the reason, as text for the user.
        candidates: all candidates considered.
        chunking: how to cut the items into chunks, see ``cutting.next_chunksize``.
    """

    executor: str
    method: str
    n_jobs: int
    seconds: float
    low: float
    high: float
    serial_seconds: float
    reason: str
    candidates: tuple[Candidate, ...] = ()
    chunking: Chunking = DEFAULT_CHUNKING
    shared: bool = False


def make_plan(profile: Profile, given: PlanInput) -> Plan:
    """Return the plan with the shortest forecast.

    The plan is serial unless workers are forecast to be quicker by more than the forecast error.

    Args:
        profile: what an item costs.
        given: what the plan depends on besides the profile.

    >>> from amorsize.decide.figures import FIRST_COSTS
    >>> room = PlanInput(items=1000, cpus=4, costs=FIRST_COSTS, options=(StartOption("fork"),))
    >>> make_plan(Profile(item_seconds=3e-8), room).executor
    'serial'
    >>> make_plan(Profile(item_seconds=0.01), room).n_jobs
    4
    """
    serial = serial_seconds(profile, given.items)
    found: list[Candidate] = []
    for option in given.options:
        found += _search(profile, given, option)
    # Among equal forecasts, min takes the preferred option and the fewest workers.
    best = min(found, key=_seconds)
    wrong = uncertainty(profile, given.costs)
    considered = (Candidate("serial", 1, False, serial), *found)
    if given.must_run:
        reason = "workers were asked for"
    elif best.seconds * (1 + wrong) <= serial:
        verb = "is" if best.workers == 1 else "are"
        reason = f"{best} {verb} forecast to take {best.seconds / serial:.0%} of the serial time"
    else:
        why = _why_serial(profile, given.costs, serial, best, wrong)
        return _serial_plan(serial, wrong, why, considered)
    option = next(option for option in given.options if option.method == best.method)
    workforce = _workforce(given, option, best.workers)
    return Plan(
        executor="thread" if best.method == "thread" else "process",
        method=best.method,
        n_jobs=best.workers,
        seconds=best.seconds,
        low=best.seconds * (1 - wrong),
        high=best.seconds * (1 + wrong),
        serial_seconds=serial,
        reason=reason,
        candidates=considered,
        chunking=chunking(profile, given.costs, given.items, workforce),
        shared=workforce.shared,
    )


def _workforce(given: PlanInput, option: StartOption, workers: int) -> Workforce:
    # Beyond the CPUs items wait, and the caller is needed elsewhere.
    shared = given.shares and option.method == "fork" and 1 < workers <= given.cpus
    return Workforce(
        option.method,
        workers,
        given.cpus,
        given.resident_bytes,
        option.inherited,
        workers in option.kept,
        shared,
        given.input_seconds,
    )


def plan_for_little(profile: Profile, given: PlanInput) -> Plan | None:
    """Return a serial plan if there is too little work for any other plan; None otherwise.

    Workers must save at least the cost of starting and ending one worker. They can save at most the
    waiting time, and the part of the computing time that the other CPUs can do.

    Args:
        profile: what an item costs.
        given: what the plan depends on besides the profile.

    >>> from amorsize.decide.figures import FIRST_COSTS
    >>> room = PlanInput(items=100, cpus=4, costs=FIRST_COSTS, options=(StartOption("fork"),))
    >>> plan_for_little(Profile(item_seconds=1e-6), room).executor
    'serial'
    """
    if given.must_run:
        return None
    serial = serial_seconds(profile, given.items)
    costs = given.costs
    least = min(
        2 * costs.chunk_seconds if option.kept else _coming_and_going(costs, option)
        for option in given.options
    )
    computing = serial * min(profile.cpu_share, 1.0)
    saved = serial - computing / given.cpus
    if saved >= least:
        return None
    reason = f"the items left take {duration(serial)} in this process"
    if serial < least:
        reason += ", less than starting a worker and gaining by it"
    else:
        cpus = counted(given.cpus, "CPU")
        reason += f"; what {cpus} could save of that is less than starting a worker costs"
    return _serial_plan(
        serial, uncertainty(profile, costs), reason, (Candidate("serial", 1, False, serial),)
    )


def _coming_and_going(costs: Costs, option: StartOption) -> float:
    cost = costs.of(option.method)
    # The caller runs items while fresh interpreters start.
    idle = 0.0 if option.method in FRESH_METHODS else cost.latency
    return start_seconds(cost, 1, 0) + idle + cost.end + cost.end_each


def _serial_plan(
    serial: float, wrong: float, reason: str, considered: tuple[Candidate, ...]
) -> Plan:
    low, high = serial * (1 - wrong), serial * (1 + wrong)
    return Plan("serial", "", 1, serial, low, high, serial, reason, considered)


def _seconds(candidate: Candidate) -> float:
    return candidate.seconds


def _search(profile: Profile, given: PlanInput, option: StartOption) -> list[Candidate]:
    """Return the candidates considered for one option, including the best number of workers.

    The forecast falls with the number of workers until one more worker costs more to start than it
    saves, and then rises. It also has steps where the number of rounds of items changes. Powers of
    two around a guess bracket the best number, bisection narrows the bracket, and the steps next to
    the result are tried.
    """
    known: dict[int, Candidate] = {}

    def seconds(workers: int) -> float:
        if workers not in known:
            workforce = _workforce(given, option, workers)
            forecast = parallel_seconds(profile, given.costs, given.items, workforce)
            known[workers] = Candidate(
                option.method, workers, workforce.kept, forecast, workforce.shared
            )
        return known[workers].seconds

    if given.n_jobs is not None:
        seconds(given.n_jobs)
        return list(known.values())
    most = _most_workers(profile, given, option)
    tried = [1]
    while tried[-1] < most:
        tried.append(min(2 * tried[-1], most))
    if given.cpus < most:
        tried = sorted({*tried, given.cpus})
    best = _lowest(tried, _guess(profile, given, option), seconds)
    rounds = -(-given.items // best)
    for count in (rounds, rounds + 1):
        seconds(min(most, max(1, -(-given.items // count))))
    for workers in option.kept:
        if workers <= most:
            seconds(workers)
    return sorted(known.values(), key=lambda candidate: candidate.workers)


def _lowest(tried: list[int], guess: float, seconds: Callable[[int], float]) -> int:
    """Return the minimum point of a unimodal function, accurate to one part in ``FLAT``.

    Args:
        tried: starting points, in rising order.
        guess: where among them to begin.
        seconds: the function.
    """
    last = len(tried) - 1
    place = next((i for i, number in enumerate(tried) if number >= guess), last)
    while True:
        around = range(max(0, place - 1), min(last, place + 1) + 1)
        better = min(around, key=lambda i: seconds(tried[i]))
        if better == place:
            break
        place = better
    low, best, high = tried[max(0, place - 1)], tried[place], tried[min(last, place + 1)]
    while high - low > max(2, best // FLAT):
        left, right = (low + best) // 2, (best + high + 1) // 2
        better = min((best, left, right), key=seconds)
        if better == best:
            low, high = left, right
        elif better == left:
            high = best
        else:
            low = best
        best = better
    return best


def _guess(profile: Profile, given: PlanInput, option: StartOption) -> float:
    """Return about how many workers are best, where one more worker costs what it saves.

    With work W and cost e of one worker, ``W / w + e w`` is least at ``w = sqrt(W / e)``.
    """
    cost = given.costs.of(option.method)
    each = cost.each + cost.end_each + cost.per_gb * given.resident_bytes / 1e9
    return sqrt(given.items * profile.item_seconds / max(each, 1e-9))


def _most_workers(profile: Profile, given: PlanInput, option: StartOption) -> int:
    """Return the largest number of workers to consider."""
    most = given.cpus
    if profile.cpu_share < WAITING_SHARE:
        most = max(FIRST_STEP * most, NEXT_STEP * profile.waiting_workers)
        most = max(given.cpus, min(most, MOST_WAITING_WORKERS))
    if given.most_workers is not None:
        most = min(most, given.most_workers)
    return max(1, min(most, given.items, _fitting_workers(profile, given, option)))


def _fitting_workers(profile: Profile, given: PlanInput, option: StartOption) -> int:
    """Return how many workers the free memory has room for."""
    if given.free_bytes is None or option.method == "thread":
        return MOST_WAITING_WORKERS + given.cpus
    each = worker_bytes(option.method) + profile.memory_bytes
    return max(1, int(given.free_bytes * USABLE_MEMORY / each))


def worker_bytes(method: str) -> int:
    """Return the memory a worker needs without any item, in bytes."""
    return FORKED_WORKER_BYTES if method == "fork" else SPAWNED_WORKER_BYTES


def _why_serial(
    profile: Profile, costs: Costs, serial: float, best: Candidate, wrong: float
) -> str:
    if best.seconds < serial:
        return (
            f"{best} would save {1 - best.seconds / serial:.1%} of {duration(serial)} by forecast, "
            f"and forecasts here may be wrong by {wrong:.0%}: too little to leave this process for"
        )
    travel = travel_seconds(profile, costs)
    if travel > profile.item_seconds:
        return (
            f"moving a result between processes ({duration(travel)}) costs more than computing it "
            f"({duration(profile.item_seconds)})"
        )
    return (
        f"the items left take {duration(serial)} in this process and were forecast to take "
        f"{duration(best.seconds)} in workers"
    )
