"""What is known of a function, what follows from it for the items at hand, and what was learned.

This is where the pure parts meet the world: it asks the fingerprint, the records and the machine,
and hands the planner a given. ``Session`` asks it while a call runs, ``optimize`` before one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from threading import active_count

from ..decide.learning import (
    Seen,
    bounded_costs,
    costs_drifted,
    faded_costs,
    is_dearer,
    learned_costs,
    merged_profile,
)
from ..decide.model import (
    FIRST_COSTS,
    MOST_WAITING_WORKERS,
    WAITING_SHARE,
    Costs,
    Profile,
    size_bucket,
    start_seconds,
    time_bucket,
)
from ..decide.planner import (
    SPAWNED_WORKER_BYTES,
    Plan,
    PlanInput,
    StartOption,
    make_plan,
    plan_for_little,
)
from ..identity.coarse import coarse_digest
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
from ..memory import cache
from ..memory.naming import Name, is_settled, name_of, name_of_code
from ..options import count_jobs, environment_cap
from ..units import duration, memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from typing import Any

__all__ = [
    "Adviser",
    "assumed_items",
    "count_workers",
    "cut_by",
    "doubt_costs",
    "forget_costs",
    "hindrance",
    "inherits",
    "learn_costs",
    "machine_costs",
]

# A remembered time of the first items is believed while today's is within this factor of it: the
# width of one time bucket to each side.
NEIGHBOURHOOD = 10.0

# What a plan assumes to be left of an input whose length nobody knows: work for a while.
ASSUMED_SECONDS = 1.0

# From here on it is worth asking whether a fork is dear: a process of 1 GB and two workers.
LARGE_FORK_SECONDS = 0.05

# Workers that could take no more than this share of all memory need no look at what is free.
PLENTY = 0.1

# What was learned of the machine is written again when a figure moved by more than this.
COSTS_DRIFT = 0.25
# Half of what was learned of the machine is forgotten after so long without another look: what
# disturbs a machine comes and goes within a day. Pulled out of the air.
COSTS_HALF_LIFE_SECONDS = 24 * 3600
# And so much of it by each call that only what was learned keeps from workers: a start that seems
# to be 20 times as slow as on the first day seems 4 times as slow after 38 such calls; and where
# starts really are that slow, trying one again costs 6 % of the calls between two trials.
DOUBT = 0.02

_costs: dict[str, Costs] = {}  # by told folder: as known now
_saved: dict[str, Costs] = {}  # by told folder: as last read or written
_doubted: set[str] = set()  # told folders: where this process has written of its first doubt

# Read while the package loads, which takes a hundred times as long: every process that comes here
# needs it, and the first look takes 0.2 ms, most of which is the kernel making up /proc/self.
this_machine()


def machine_costs(*, use_cache: bool = True) -> Costs:
    """Return what running workers costs on this machine, as far as known.

    Args:
        use_cache: whether to use what was learned.
    """
    if not use_cache:
        return FIRST_COSTS
    told = cache.told_folder()
    costs = _costs.get(told)
    if costs is None:
        if not cache.enabled():
            return FIRST_COSTS
        costs = FIRST_COSTS
        found = cache.load_costs()
        if found is not None:
            learned, age = found
            costs = faded_costs(bounded_costs(learned), 1 - 0.5 ** (age / COSTS_HALF_LIFE_SECONDS))
        _costs[told] = _saved[told] = costs
    return costs


def learn_costs(seen: Seen) -> None:
    """Correct what is known of the machine by one real run, see ``learned_costs``."""
    _keep_costs(learned_costs(machine_costs(), seen))


def doubt_costs() -> None:
    """Let what is known of the machine fade a little: it alone kept a call from workers."""
    told = cache.told_folder()
    _keep_costs(faded_costs(machine_costs(), DOUBT), always=told not in _doubted)
    _doubted.add(told)


def _keep_costs(costs: Costs, *, always: bool = False) -> None:
    """Take costs as known, and write them if they have moved (or ``always``)."""
    told = cache.told_folder()
    _costs[told] = costs
    moved = always or costs_drifted(_saved.get(told, FIRST_COSTS), costs, COSTS_DRIFT)
    if moved and cache.enabled():
        _saved[told] = costs
        cache.save_costs(costs)


def forget_costs() -> None:
    """Know nothing of the machine."""
    _costs.clear()
    _saved.clear()
    _doubted.clear()


def assumed_items(item_seconds: float) -> int:
    """Return how many items to assume of an input of unknown length, to choose workers by.

    >>> assumed_items(0.01), assumed_items(60.0)
    (100, 2)
    """
    return max(2, int(ASSUMED_SECONDS / item_seconds))


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


def cut_by(n_jobs: int | None) -> str:
    """Return the setting of the environment that allows fewer workers than asked for, or "".

    Args:
        n_jobs: the option.
    """
    if n_jobs is None or count_workers(n_jobs) == count_jobs(n_jobs, this_machine().cpus):
        return ""
    return f"AMORSIZE_N_JOBS={os.environ.get('AMORSIZE_N_JOBS')}"


def hindrance() -> str:
    """Return why no worker process can be started from here, "" when nothing is in the way."""
    threads = loaded("amorsize.run.threads")
    if threads is not None and threads.inside_worker_thread():
        return "this is a worker thread of another call already"
    multiprocessing = loaded("multiprocessing")
    if multiprocessing is not None and multiprocessing.current_process().daemon:
        return "this is a daemonic worker process, which may not start processes"
    return ""


def _kept_workers(method: str) -> tuple[int, ...]:
    """Return the numbers of workers that wait from earlier calls for one with this method."""
    kept = loaded("amorsize.run.kept")
    if kept is None:  # there are none, and loading it takes 20 ms
        return ()
    found: tuple[int, ...] = kept.idle_workers(method)
    return found


def inherits(method: str) -> bool:
    """Return whether workers started so have the caller's objects without their being sent."""
    return method in ("fork", "thread")


def _threads_run_at_once(profile: Profile) -> bool:
    """Return whether threads would run items at the same time, as far as one can tell."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return profile.cpu_share < WAITING_SHARE or not has_gil


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
        self.use_cache = use_cache
        self._cached = use_cache and items is not None and cache.enabled()
        self._name: Name | None = None
        self._late = False  # whether the call was over before it was looked up
        self._costs: Costs | None = None
        self._has_doubted = not use_cache  # then nothing learned is used

    @property
    def costs(self) -> Costs:
        """What the machine charges, as known when the call first asked."""
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

    def look_again(self, mp_context: str | BaseContext | None) -> bool:
        """Choose the start method anew: the first items may have started threads.

        Args:
            mp_context: the option.

        Returns:
            Whether it is another than before.
        """
        before = self.method
        if before == self._remembered_under and before != "thread":
            self.method, self.method_reason = choose_start_method(mp_context)
            if self.method == "fork" and self.method_reason != ASKED:
                self._avoid_lack()
        return self.method != before

    def _avoid_lack(self) -> None:
        """Leave fork where a forked worker would wait for a thread that it lacks."""
        if got_stuck(self.func):
            self.leave_fork()
        elif active_count() > 1:
            load("amorsize.measure.helpers")
            from ..measure.helpers import needs_threads  # few programs have other threads

            if reason := needs_threads(self.func):
                self.method, self.method_reason = "forkserver", reason

    def leave_fork(self) -> None:
        """Start workers in another way than by forking, now and in later calls of the function."""
        remember_stuck(self.func)
        self.method = "forkserver"
        self.method_reason = (
            "forked workers waited for a thread they lack, or for a lock that nothing could release"
        )

    @property
    def hit(self) -> bool:
        """Whether a record was found, and the run has not contradicted it."""
        return self.record is not None

    def look_up(
        self, *, only_memory: bool = False, late: bool = False, by_pickle: bool = False
    ) -> None:
        """Find the freshest valid record of the function at this size.

        Args:
            only_memory: leave the folder alone.
            late: whether the items have run already: then nothing shows whether the function
                changes what it reaches.
            by_pickle: whether to take no record of results that pickle cannot carry.
        """
        if not self._cached:
            return
        assert self.items is not None
        name = self._name = self._name or name_of(self.func)
        self._late = late
        by_code = not (name.coarse or only_memory)
        self.record = cache.look_up(
            name.digest,
            self.items,
            cache.environment_of(self.machine, self._remembered_under),
            only_memory=only_memory,
            otherwise=partial(coarse_digest, self.func) if by_code else None,
        )
        if self.record is not None and self.record.func != name.digest:
            self._name = name_of_code(self.func)
        if by_pickle and self.record is not None and not self.record.by_pickle:
            self.record = None

    def _final_name(self) -> Name:
        """Return the name to remember the function under, now that its items have run."""
        name = self._name or name_of(self.func)
        if name.coarse:
            return name
        if self._late:
            return name._replace(stable=name.stable and is_settled(self.func))
        return name if name_of(self.func).digest == name.digest else name_of_code(self.func)

    def remembered(
        self, item_seconds: float | None = None, *, first: bool = False
    ) -> Profile | None:
        """Return the remembered profile, None when there is none.

        Args:
            item_seconds: time of an item among the first ones of this call; a record whose items
                were all out of its neighbourhood is dropped.
            first: whether it is that of the first block alone. That may have paid for imports, so
                it can only be too short.
        """
        if self.record is not None and item_seconds is not None:
            known = self.record.profile
            low = known.least_seconds / NEIGHBOURHOOD
            high = known.most_seconds * NEIGHBOURHOOD
            if item_seconds < low or (item_seconds > high and not first):
                self.record = None
                cache.note_contradiction()
        return None if self.record is None else self.record.profile

    def plan(
        self,
        profile: Profile | None,
        left: int,
        *,
        sliceable: bool,
        must_run: bool = False,
        jobs: int | None = None,
        is_light: Callable[[], bool] | None = None,
    ) -> Plan:
        """Return the plan for the items left.

        Args:
            profile: what an item costs, None when that is not known yet.
            left: number of items, 1 or more; an assumption when the length is unknown.
            sliceable: whether workers that inherit the input need not be sent the items.
            must_run: whether they must run in workers.
            jobs: workers to plan for; by default those asked for.
            is_light: tells whether function and items are small enough to be sent instead of being
                inherited, where forking so large a process costs more than it saves; None for no.
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
        )
        if profile is not None:
            plan = plan_for_little(profile, given)
            if plan is not None:
                return self._doubting(plan, profile, given)
        profile = profile or Profile(item_seconds=1e-3)
        resident = resident_bytes()
        options = given.options
        if self._is_dear_to_fork(costs, resident) and is_light is not None and is_light():
            options = (*options, self._option("forkserver", sliceable=sliceable))
        given = given._replace(
            options=options,
            most_workers=self._most_workers(),
            resident_bytes=resident,
            free_bytes=self._scarce_memory(profile) if n_jobs is None else None,
        )
        return self._doubting(make_plan(profile, given), profile, given)

    def _doubting(self, plan: Plan, profile: Profile, given: PlanInput) -> Plan:
        """Return the plan; where only learned costs made it serial, doubt those, once a call."""
        if plan.executor != "serial" or self._has_doubted:
            return plan
        if not any(is_dearer(given.costs, option.method) for option in given.options):
            return plan
        # As many workers as CPUs stand for all numbers of them: a search takes 0.1 ms.
        jobs = min(given.cpus, given.items, given.most_workers or given.cpus)
        first = given._replace(costs=FIRST_COSTS, n_jobs=jobs)
        other = plan_for_little(profile, first) or make_plan(profile, first)
        if other.executor != "serial":
            self._has_doubted = True
            doubt_costs()
        return plan

    def adopt(self, plan: Plan) -> None:
        """Run things as a plan has it."""
        if plan.method and plan.method != self.method:
            resident = resident_bytes()
            cost = start_seconds(self.costs.fork, 2, resident)
            self.method = plan.method
            self.method_reason = (
                f"forking a process of {memory(resident)} would take {duration(cost)}"
            )

    def threads_hint(self, profile: Profile, items: int, seconds: float) -> str:
        """Return what is to be said where threads are forecast to be quicker, else "".

        Args:
            profile: what an item costs.
            items: number of items of the call.
            seconds: what the call took.
        """
        if items < 1 or self.method == "thread" or not _threads_run_at_once(profile):
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
        """Return the most workers the environment and the limit of open files allow."""
        caps = [cap for cap in (_cap(), None if self.method == "thread" else most_children())
                if cap is not None]  # fmt: skip
        return min(caps, default=None)

    def _option(self, method: str, *, sliceable: bool) -> StartOption:
        return StartOption(method, sliceable and inherits(method), _kept_workers(method))

    def _is_dear_to_fork(self, costs: Costs, resident: int) -> bool:
        """Return whether to ask if a fork costs more than it saves."""
        if self.method != "fork" or self.method_reason == ASKED:
            return False
        return start_seconds(costs.fork, 2, resident) >= LARGE_FORK_SECONDS

    def _scarce_memory(self, profile: Profile | None) -> int | None:
        """Return the free memory where it could limit the workers; reading it takes 0.2 ms."""
        waiting = profile is not None and profile.cpu_share < WAITING_SHARE
        workers = MOST_WAITING_WORKERS if waiting else self.machine.cpus
        each = SPAWNED_WORKER_BYTES + (profile.memory_bytes if profile is not None else 0)
        if workers * each < PLENTY * self.machine.memory_bytes:
            return None
        return free_memory()

    def remember(
        self,
        profile: Profile,
        *,
        executor: str,
        n_jobs: int,
        chunksize: int,
        run_seconds: float,
        by_pickle: bool | None,
    ) -> None:
        """Keep what a run or a sample has shown, and what plan was made of it.

        Args:
            profile: what was measured.
            executor: "serial", "thread" or "process".
            n_jobs: workers.
            chunksize: first or only chunk size.
            run_seconds: how long that took.
            by_pickle: whether pickle can carry the results, None where that was not seen.
        """
        if not self._cached:
            return
        assert self.items is not None
        name = self._final_name()
        old = self.record
        if (
            old is not None
            and not old.guess
            and time_bucket(old.profile.item_seconds) == time_bucket(profile.item_seconds)
        ):
            profile = merged_profile(old.profile, profile)
        if by_pickle is None:
            by_pickle = old is None or old.by_pickle
        cache.remember(
            cache.Record(
                func=name.digest,
                size=size_bucket(self.items),
                items=self.items,
                profile=profile,
                executor=executor,
                n_jobs=n_jobs,
                chunksize=chunksize,
                environment=cache.environment_of(self.machine, self._remembered_under),
                updated=time.time(),
                by_pickle=by_pickle,
            ),
            run_seconds=run_seconds,
            stable=name.stable,
        )
