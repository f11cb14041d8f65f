"""The adviser: plans a call, from what is remembered of the function and what the machine is like.

It connects the pure modules to the rest, and gives the planner its input. ``Decision`` uses it
during a call, ``optimize`` before one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from threading import active_count

from ..decide.figures import (
    FIRST_COSTS,
    MOST_WAITING_WORKERS,
    WAITING_SHARE,
    Costs,
    Profile,
)
from ..decide.learning import is_dearer
from ..decide.model import start_seconds
from ..decide.planner import (
    SPAWNED_WORKER_BYTES,
    Plan,
    PlanInput,
    StartOption,
    make_plan,
    plan_for_little,
)
from ..decide.remote import plan_remote
from ..lookup import load, loaded
from ..measure.forking import got_stuck, remember_stuck
from ..measure.machine import (
    ASKED,
    choose_start_method,
    free_memory,
    most_children,
    resident_bytes,
    this_machine,
)
from ..options import count_jobs, environment_cap
from ..remote.links import link_of
from ..units import duration, memory
from .costs import doubt_costs, machine_costs
from .recall import Recall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from typing import Any

    from ..remote.clusters import Cluster

__all__ = [
    "Adviser",
    "assumed_items",
    "count_workers",
    "cut_by",
    "inherits",
]

# The work that a plan assumes to be left of an input of unknown length.
ASSUMED_SECONDS = 1.0

# If forking two workers takes this long, the plan considers another start method. A process of 1 GB
# reaches it.
LARGE_FORK_SECONDS = 0.05

# A fork stops all threads of the process: an event loop is stopped for no longer than this, s.
MOST_STOP_SECONDS = 0.008

# Free memory is read only if the workers could take more than this share of all memory.
PLENTY = 0.1

# A call that is like the one before gets the same plan, without a search (0.3 ms). Its resident
# memory counts in steps of this many bytes. The number of items left counts to this many binary
# digits, since how many have run when a plan is made depends on their times.
RESIDENT_STEP = 1 << 23
ITEMS_DIGITS = 7
_planned = lru_cache(maxsize=64)(make_plan)

# Read when this module is loaded, since every process that loads it needs the machine. The first
# read takes 0.2 ms, mostly for the kernel to create /proc/self; loading the package takes a hundred
# times as long.
this_machine()


def assumed_items(item_seconds: float) -> int:
    """Return how many items to assume for an input of unknown length, to choose workers.

    >>> assumed_items(0.01), assumed_items(60.0)
    (100, 2)
    """
    return max(2, int(ASSUMED_SECONDS / item_seconds))


def count_workers(n_jobs: int | None) -> int | None:
    """Return how many workers ``n_jobs`` asks for here, None when amorsize is to decide.

    Raises:
        ValueError: the environment variable ``AMORSIZE_N_JOBS`` is not a number of workers.
    """
    cap = _cap()
    if n_jobs is None:
        return None
    cpus = this_machine().cpus if n_jobs < 0 else 1
    jobs = count_jobs(n_jobs, cpus)
    return jobs if cap is None else min(jobs, cap)


def cut_by(n_jobs: int | None) -> str:
    """Return the environment variable that allows fewer workers than asked for, or "".

    Args:
        n_jobs: the option.
    """
    if n_jobs is None or count_workers(n_jobs) == count_jobs(n_jobs, this_machine().cpus):
        return ""
    return f"AMORSIZE_N_JOBS={os.environ.get('AMORSIZE_N_JOBS')}"


def _kept_workers(method: str) -> tuple[int, ...]:
    """Return the number of workers of each kept crew of this start method."""
    kept = loaded("amorsize.run.kept")
    if kept is None:  # not loaded, so there are none; loading it takes 20 ms
        return ()
    found: tuple[int, ...] = kept.idle_workers(method)
    return found


def inherits(method: str) -> bool:
    """Return whether workers of this start method have the caller's objects without pickling."""
    return method in ("fork", "thread")


def _threads_run_at_once(profile: Profile) -> bool:
    """Return whether threads would run items at the same time, as far as known."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return profile.cpu_share < WAITING_SHARE or not has_gil


def _rounded(items: int) -> int:
    """Return a number of items, rounded down to ``ITEMS_DIGITS``."""
    digits = max(0, items.bit_length() - ITEMS_DIGITS)
    return items >> digits << digits


def _cap() -> int | None:
    """Return the most workers the environment allows, None for no limit."""
    cap = environment_cap(1)
    if cap is None:
        return None
    return environment_cap(this_machine().cpus)


class Adviser:
    """The plans of one call.

    Args:
        func: the function.
        items: number of items of the call, None when unknown; then records stay in this process.
        jobs: workers asked for, None to decide.
        method: start method, or "thread".
        method_reason: why that start method.
        use_cache: whether to use the cache.

    Attributes:
        machine: the machine as it was when the call began.
        recall: what is remembered of the function.
        cluster: the engine that the items are to run on; None for this machine.
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
        self.machine = this_machine()
        self.recall = Recall(func, items, self.machine, method, use_cache=use_cache)
        self._first_method = method
        self.use_cache = use_cache
        self.cluster: Cluster | None = None
        self._costs: Costs | None = None
        self._has_doubted = not use_cache  # without the cache no learned costs are used

    @property
    def costs(self) -> Costs:
        """The machine's costs, as known when this call first needed them."""
        if self._costs is None:
            self._costs = machine_costs(use_cache=self.use_cache)
        return self._costs

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
            method, why = choose_start_method(mp_context, about_to=False)
        return cls(func, items, jobs=jobs, method=method, method_reason=why, use_cache=use_cache)

    @classmethod
    def of_remote_call(
        cls,
        func: Callable[..., Any],
        items: int | None,
        *,
        jobs: int | None,
        cluster: Cluster,
        use_cache: bool,
    ) -> Adviser:
        """Return the adviser for a call on an engine.

        Args:
            func: the function.
            items: number of items of the call, None when unknown.
            jobs: most workers to use, None for all.
            cluster: the engine.
            use_cache: whether to use the cache.
        """
        workers = cluster.capacity() or jobs or 1
        method = f"{cluster.kind}:{workers}"
        why = "it was given as backend"
        adviser = cls(func, items, jobs=jobs, method=method, method_reason=why, use_cache=use_cache)
        adviser.cluster = cluster
        return adviser

    def plan_remote(self, left: int, reason: str, profile: Profile | None = None) -> Plan:
        """Return the plan to run the items left on the engine.

        Args:
            left: number of items left, an assumption when the length is unknown.
            reason: why there, in words.
            profile: cost of an item; None for what is remembered of it.
        """
        profile = profile or self.recall.profile
        assert self.cluster is not None
        workers = self.cluster.capacity() or self.jobs or 1
        workers = min(workers, self.jobs or workers)
        return plan_remote(self.method, workers, link_of(self.method), profile, left, reason)

    def look_again(self, mp_context: str | BaseContext | None) -> bool:
        """Choose the start method again, because the first items may have started threads.

        Args:
            mp_context: the option.

        Returns:
            Whether the start method has changed.
        """
        before = self.method
        if self.cluster is None and before == self._first_method and before != "thread":
            self.method, self.method_reason = choose_start_method(mp_context)
            if self.method == "fork" and self.method_reason != ASKED:
                self._avoid_lack()
        return self.method != before

    def _avoid_lack(self) -> None:
        """Give up fork if a forked worker would lack what the function needs."""
        # Who asks for workers gets them. With a stable fingerprint there are no streams.
        streams = self.jobs is None and not self.recall.is_stable
        if got_stuck(self.func):
            self.leave_fork()
        elif streams or active_count() > 1:
            load("amorsize.measure.helpers")
            from ..measure.helpers import lack_of  # for few programs

            if reason := lack_of(self.func, streams=streams):
                self.method, self.method_reason = "forkserver", reason

    def leave_fork(self) -> None:
        """Stop forking workers, in this and in later calls of the function."""
        remember_stuck(self.func)
        self.method = "forkserver"
        self.method_reason = (
            "forked workers waited for a thread they lack, or for a lock that nothing could release"
        )

    def spare(self, is_light: Callable[[], bool]) -> None:
        """Start workers otherwise if a fork would stop this process for long.

        Args:
            is_light: returns whether function and items are small enough to be sent instead of
                inherited.
        """
        if self.method != "fork" or self.method_reason == ASKED:
            return
        stop = start_seconds(self.costs.fork, 1, resident_bytes())
        if stop > MOST_STOP_SECONDS and is_light():
            self.method = "forkserver"
            self.method_reason = f"a fork would stop this process for {duration(stop)}"

    def plan(
        self,
        profile: Profile | None,
        left: int,
        *,
        sliceable: bool,
        must_run: bool = False,
        jobs: int | None = None,
        shares: bool = False,
        input_seconds: float = 0.0,
        is_light: Callable[[], bool] | None = None,
    ) -> Plan:
        """Return the plan for the items left.

        Args:
            profile: cost of an item, None when not known yet.
            left: number of items left, 1 or more; an assumption when the length is unknown.
            sliceable: whether workers that inherit the input need no items sent.
            must_run: whether the items must run in workers.
            jobs: workers to plan for; by default the number the caller asked for.
            shares: whether the calling process may run items like a worker.
            input_seconds: time to read an item of the input, s.
            is_light: returns whether function and items are small enough to be sent instead of
                inherited; called only if the process is so large that a fork is costly. None
                stands for no.
        """
        n_jobs = jobs or self.jobs
        costs = self.costs
        given = PlanInput(
            items=left,
            cpus=self.machine.cpus,
            costs=costs,
            options=(self._option(self.method, sliceable=sliceable),),
            n_jobs=None if n_jobs is None else min(n_jobs, left),
            must_run=must_run,
            shares=shares and not must_run and n_jobs is None,
            input_seconds=input_seconds,
        )
        if profile is not None:
            plan = plan_for_little(profile, given)
            if plan is not None:
                return self._doubting(plan, profile, given)
        profile = profile or Profile(item_seconds=1e-3)
        resident = resident_bytes() // RESIDENT_STEP * RESIDENT_STEP
        options = given.options
        if self._is_dear_to_fork(costs, resident) and is_light is not None and is_light():
            options = (*options, self._option("forkserver", sliceable=sliceable))
        given = given._replace(
            items=left if n_jobs is not None else _rounded(left),
            options=options,
            most_workers=self._most_workers(),
            resident_bytes=resident,
            free_bytes=self._scarce_memory(profile) if n_jobs is None else None,
        )
        return self._doubting(_planned(profile, given), profile, given)

    def _doubting(self, plan: Plan, profile: Profile, given: PlanInput) -> Plan:
        """Return the plan; if learned costs alone made it serial, doubt them, once per call."""
        if plan.executor != "serial" or self._has_doubted:
            return plan
        if not any(is_dearer(given.costs, option.method) for option in given.options):
            return plan
        # Only one number of workers is tried, that of the CPUs.
        jobs = min(given.cpus, given.items, given.most_workers or given.cpus)
        first = given._replace(costs=FIRST_COSTS, n_jobs=jobs)
        other = plan_for_little(profile, first) or _planned(profile, first)
        if other.executor != "serial":
            self._has_doubted = True
            doubt_costs()
        return plan

    def adopt(self, plan: Plan) -> None:
        """Use the start method of a plan."""
        if plan.method and plan.method != self.method:
            resident = resident_bytes()
            cost = start_seconds(self.costs.fork, 2, resident)
            self.method = plan.method
            self.method_reason = (
                f"forking a process of {memory(resident)} would take {duration(cost)}"
            )

    def let_go(self) -> None:
        """Let go of the function, since the call is over."""
        del self.func
        self.recall.let_go()

    def threads_hint(self, profile: Profile, items: int, seconds: float) -> str:
        """Return a hint if threads are forecast to be faster than the call was, else "".

        Args:
            profile: cost of an item.
            items: number of items of the call.
            seconds: duration of the call.
        """
        if (
            items < 1
            or self.cluster
            or self.method == "thread"
            or not _threads_run_at_once(profile)
        ):
            return ""
        options = (StartOption("thread"),)
        plan = make_plan(profile, PlanInput(items, self.machine.cpus, self.costs, options, _cap()))
        if plan.executor != "thread" or plan.high >= seconds:
            return ""
        why = "the items wait" if profile.cpu_share < WAITING_SHARE else "there is no GIL here"
        return (
            f'backend="thread" is forecast to take {duration(plan.seconds)}, as {why}; it needs a '
            f"function that may run in threads"
        )

    def _most_workers(self) -> int | None:
        """Return the most workers that the environment and the limit of open files allow."""
        caps = [cap for cap in (_cap(), None if self.method == "thread" else most_children())
                if cap is not None]  # fmt: skip
        return min(caps, default=None)

    def _option(self, method: str, *, sliceable: bool) -> StartOption:
        return StartOption(method, sliceable and inherits(method), _kept_workers(method))

    def _is_dear_to_fork(self, costs: Costs, resident: int) -> bool:
        """Return whether a fork is so costly that another start method may be better."""
        if self.method != "fork" or self.method_reason == ASKED:
            return False
        return start_seconds(costs.fork, 2, resident) >= LARGE_FORK_SECONDS

    def _scarce_memory(self, profile: Profile | None) -> int | None:
        """Return the free memory if it could limit the workers; reading it takes 0.2 ms."""
        waiting = profile is not None and profile.cpu_share < WAITING_SHARE
        workers = MOST_WAITING_WORKERS if waiting else self.machine.cpus
        each = SPAWNED_WORKER_BYTES + (profile.memory_bytes if profile is not None else 0)
        if workers * each < PLENTY * self.machine.memory_bytes:
            return None
        return free_memory()
