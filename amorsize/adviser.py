"""What is known of a function, what follows from it for the items at hand, and what was learned.

This is where the pure parts meet the world: it asks the fingerprint, the records and the machine,
and hands the planner a situation. ``Session`` asks it while a call runs, ``optimize`` before one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from . import cache
from .decide.fingerprint import Fingerprint, fingerprint
from .decide.machine import (
    ASKED,
    choose_start_method,
    free_memory,
    resident_bytes,
    this_machine,
)
from .decide.model import (
    FIRST_COSTS,
    Costs,
    Profile,
    corrected_costs,
    merged_profile,
    size_bucket,
    start_seconds,
    time_bucket,
)
from .decide.planner import (
    MOST_WAITING_WORKERS,
    SPAWNED_WORKER_BYTES,
    WAITING_SHARE,
    Plan,
    Situation,
    make_plan,
    plan_for_little,
)
from .options import count_jobs, environment_cap
from .units import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from typing import Any

__all__ = ["Adviser", "count_workers", "hindrance", "learn_costs", "machine_costs"]

# A remembered time of the first items is believed while today's is within this factor of it: the
# width of one time bucket to each side.
NEIGHBOURHOOD = 10.0

# From here on it is worth asking whether a fork is dear: a process of 1 GB and two workers.
LARGE_FORK_SECONDS = 0.05

# Workers that could take no more than this share of all memory need no look at what is free.
PLENTY = 0.1

_costs = [FIRST_COSTS]

# Read while the package loads, which takes a hundred times as long: every process that comes here
# needs it, and the first look takes 0.2 ms, most of which is the kernel making up /proc/self.
this_machine()


def machine_costs() -> Costs:
    """Return what starting workers costs on this machine, as far as this process has learned."""
    return _costs[0]


def learn_costs(
    method: str, workers: int, *, resident: int, started: float, latency: float | None, ended: float
) -> None:
    """Correct the start costs by one real start and end of a crew, see ``corrected_costs``."""
    _costs[0] = corrected_costs(
        _costs[0],
        method,
        workers,
        resident_bytes=resident,
        started=started,
        latency=latency,
        ended=ended,
    )


def count_workers(n_jobs: int | None) -> int | None:
    """Return how many workers ``n_jobs`` asks for here, None when that is to be decided.

    Raises:
        ValueError: the environment variable ``AMORSIZE_N_JOBS`` is no number of workers.
    """
    cap = _cap()
    if n_jobs is None:
        return None
    cpus = this_machine().cpus if n_jobs < 0 else 1
    jobs = count_jobs(n_jobs, cpus)
    return jobs if cap is None else min(jobs, cap)


def hindrance() -> str:
    """Return why no worker process can be started from here, "" when nothing is in the way."""
    threads = sys.modules.get("amorsize.run.threads")
    if threads is not None and threads.inside_worker_thread():
        return "this is a worker thread of another call already"
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.current_process().daemon:
        return "this is a daemonic worker process, which may not start processes"
    return ""


def _kept_workers(method: str) -> tuple[int, ...]:
    """Return the numbers of workers that wait from earlier calls for one with this method."""
    kept = sys.modules.get("amorsize.run.kept")
    if kept is None:  # there are none, and loading it takes 20 ms
        return ()
    found: tuple[int, ...] = kept.idle_workers(method)
    return found


def _cap() -> int | None:
    """Return the most workers the environment allows, None for no limit."""
    cap = environment_cap(1)
    if cap is None:
        return None
    return environment_cap(this_machine().cpus)


class Adviser:
    """What is known of one function for one call.

    Args:
        func: the function.
        items: number of items of the call, None when unknown: nothing is remembered then.
        jobs: workers asked for, None to decide.
        method: start method, or "thread".
        method_reason: why that one.
        use_cache: whether to read and write what was learned.

    Attributes:
        machine: the machine as it was when the call began.
        record: the valid record that was found, None on a miss.
        hit: whether a record was found and not contradicted by the run.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        items: int | None,
        *,
        jobs: int | None,
        method: str,
        method_reason: str,
        use_cache: bool,
    ) -> None:
        self.func = func
        self.items = items
        self.jobs = jobs
        self.method = method
        self.method_reason = method_reason
        self.record: cache.Record | None = None
        self.machine = this_machine()
        self._remembered_under = method  # whatever is used instead this time
        self._cached = use_cache and items is not None and cache.enabled()
        self._fingerprint: Fingerprint | None = None

    @classmethod
    def of_call(
        cls,
        func: Callable[..., Any],
        items: int | None,
        *,
        jobs: int | None,
        backend: str | None,
        mp_context: str | BaseContext | None,
        use_cache: bool,
    ) -> Adviser:
        """Return the adviser for a call with these options."""
        if backend == "thread":
            method, why = "thread", ASKED
        else:
            method, why = choose_start_method(mp_context)
        return cls(func, items, jobs=jobs, method=method, method_reason=why, use_cache=use_cache)

    def look_again(self, mp_context: str | BaseContext | None) -> None:
        """Choose the start method anew: the first items may have started threads."""
        if self.method == self._remembered_under and self.method != "thread":
            self.method, self.method_reason = choose_start_method(mp_context)

    @property
    def hit(self) -> bool:
        """Whether a record was found, and the run has not contradicted it."""
        return self.record is not None

    def look_up(self, *, only_memory: bool = False) -> None:
        """Find the freshest valid record of the function at this size."""
        if not self._cached:
            return
        assert self.items is not None
        self._fingerprint = self._fingerprint or fingerprint(self.func)
        environment = cache.environment_of(self.machine, self._remembered_under)
        self.record = cache.look_up(
            self._fingerprint.digest, self.items, environment, only_memory=only_memory
        )

    def remembered(self, item_seconds: float | None = None) -> Profile | None:
        """Return the remembered profile, None when there is none.

        Args:
            item_seconds: time of an item among the first ones of this call; a record whose items
                were all out of its neighbourhood is dropped.
        """
        if self.record is not None and item_seconds is not None:
            known = self.record.profile
            low = known.least_seconds / NEIGHBOURHOOD
            if not low <= item_seconds <= known.most_seconds * NEIGHBOURHOOD:
                self.record = None
                cache.note_contradiction()
        return None if self.record is None else self.record.profile

    def plan(
        self,
        profile: Profile | None,
        left: int,
        *,
        inherited: bool,
        must_run: bool = False,
        jobs: int | None = None,
    ) -> Plan:
        """Return the plan for the items left.

        Args:
            profile: what an item costs, None when that is not known yet.
            left: number of items, 1 or more; an assumption when the length is unknown.
            inherited: whether arguments reach workers without travelling.
            must_run: whether they must run in workers.
            jobs: workers to plan for; by default those asked for.
        """
        n_jobs = jobs or self.jobs
        kept = _kept_workers(self.method)
        if profile is not None and not must_run:
            plan = plan_for_little(profile, left, machine_costs(), self.method, kept=bool(kept))
            if plan is not None:
                return plan
        return make_plan(
            profile or Profile(item_seconds=1e-3),
            Situation(
                items=left,
                cpus=self.machine.cpus,
                costs=machine_costs(),
                method=self.method,
                most_workers=_cap(),
                n_jobs=None if n_jobs is None else min(n_jobs, left),
                resident_bytes=resident_bytes(),
                free_bytes=self._scarce_memory(profile) if n_jobs is None else None,
                inherited=inherited,
                must_run=must_run,
                kept=kept,
            ),
        )

    def spare_the_fork(
        self, plan: Plan, profile: Profile, left: int, is_light: Callable[[], bool]
    ) -> Plan:
        """Return a plan with kept workers if forking so large a process costs more than it saves.

        Args:
            plan: the plan with the start method chosen so far.
            profile: what an item costs.
            left: number of items.
            is_light: tells whether function and items are small enough to be sent instead of being
                inherited.
        """
        if self.method != "fork" or self.method_reason == ASKED:
            return plan
        resident = resident_bytes()
        costs = machine_costs()
        fork = start_seconds(costs.fork, max(2, plan.n_jobs), resident)
        if fork < LARGE_FORK_SECONDS or not is_light():
            return plan
        self.method = "forkserver"
        other = self.plan(profile, left, inherited=False)
        if other.executor == "serial" or other.seconds >= plan.seconds:
            self.method = "fork"
            return plan
        self.method_reason = (
            f"forking a process of {resident / 1e9:.1f} GB would take {duration(fork)} each time"
        )
        return other

    def _scarce_memory(self, profile: Profile | None) -> int | None:
        """Return the free memory where it could limit the workers; reading it takes 0.2 ms."""
        waiting = profile is not None and profile.cpu_share < WAITING_SHARE
        workers = MOST_WAITING_WORKERS if waiting else self.machine.cpus
        each = SPAWNED_WORKER_BYTES + (profile.memory_bytes if profile is not None else 0)
        if workers * each < PLENTY * self.machine.memory_bytes:
            return None
        return free_memory()

    def remember(
        self, profile: Profile, *, executor: str, n_jobs: int, chunksize: int, run_seconds: float
    ) -> None:
        """Keep what a run or a sample has shown, and what plan was made of it.

        Args:
            profile: what was measured.
            executor: "serial", "thread" or "process".
            n_jobs: workers.
            chunksize: first or only chunk size.
            run_seconds: how long that took.
        """
        if not self._cached:
            return
        assert self.items is not None
        self._fingerprint = self._fingerprint or fingerprint(self.func)
        old = self.record
        if (
            old is not None
            and not old.guess
            and time_bucket(old.profile.item_seconds) == time_bucket(profile.item_seconds)
        ):
            profile = merged_profile(old.profile, profile)
        cache.remember(
            cache.Record(
                func=self._fingerprint.digest,
                size=size_bucket(self.items),
                items=self.items,
                profile=profile,
                executor=executor,
                n_jobs=n_jobs,
                chunksize=chunksize,
                environment=cache.environment_of(self.machine, self._remembered_under),
                updated=time.time(),
            ),
            run_seconds=run_seconds,
            stable=self._fingerprint.stable,
        )
