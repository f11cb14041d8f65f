"""``optimize``: advice for people who run their own pool."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from time import perf_counter
from typing import Any

from .api import plain_function
from .call.adviser import Adviser, assumed_items, count_workers, cut_by
from .decide.cutting import fixed_chunksize
from .decide.figures import Costs, Profile
from .decide.planner import Plan
from .measure.machine import Machine
from .measure.probe import Probe, peak_memory_bytes, pickling, profile_of
from .options import check_context, check_flag, check_jobs, check_seconds, check_whole
from .units import counted, times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["OptimizationResult", "optimize"]


@dataclass(frozen=True, slots=True, repr=False)
class OptimizationResult:
    """Advice for a pool of the caller's own; printing it prints the text of ``explain``.

    Attributes:
        n_jobs: workers to use; 1 means: do not use a pool.
        chunksize: items in one task of the pool, as ``Pool.map(..., chunksize)`` takes it.
        reason: the reason for the advice, in words.
        estimated_speedup: forecast serial time over forecast time with this advice; 1.0 for serial.
        warnings: what the caller should know.
        data: the data from its first item on, also when a generator was passed.
        cache_hit: whether the advice comes from a record, without a sample.
        executor_type: "process", or "serial" when no pool pays.
        profile: the measurements, when ``profile=True`` was passed; None otherwise.
        basis: the measurements and forecasts behind the advice; ``explain`` shows them.
    """

    n_jobs: int
    chunksize: int
    reason: str
    estimated_speedup: float
    warnings: tuple[str, ...]
    data: Any
    cache_hit: bool = False
    executor_type: str = "process"
    profile: Profile | None = None
    basis: Basis | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return (
            f"<OptimizationResult n_jobs={self.n_jobs}, chunksize={self.chunksize} "
            f"({self.executor_type}, {times(self.estimated_speedup)} times the serial loop)>"
        )

    def __str__(self) -> str:
        return self.explain()

    def explain(self) -> str:
        """Return the advice, its basis and the alternatives as one screen of text.

        >>> print(optimize(abs, [], use_cache=False).explain())
        use n_jobs=1, chunksize=1 (serial)
          because   there is no data
          speed-up  1.00 times the serial loop, by forecast
        """
        from .show.hints import hints_for_items  # imported late: few callers print advice
        from .show.report import describe, describe_candidates

        lines = [
            f"use n_jobs={self.n_jobs}, chunksize={self.chunksize} ({self.executor_type})",
            f"  because   {self.reason}",
            f"  speed-up  {times(self.estimated_speedup)} times the serial loop, by forecast",
        ]
        hints: list[str] = []
        basis = self.basis
        if basis is not None:
            when = "earlier, and remembered" if self.cache_hit else "on a sample, now"
            lines.append(f"  measured  {when}")
            lines.append(f"  an item   {describe(basis.profile, basis.machine.cpus)}")
            lines.append(f"  machine   {basis.machine}")
            if basis.plan is not None:
                lines += describe_candidates(basis.plan)
            hints = hints_for_items(basis.profile, basis.items, basis.costs)
        lines += [f"  warning   {text}" for text in self.warnings]
        return "\n".join(lines + [f"  hint      {text}" for text in hints])


@dataclass(frozen=True, slots=True)
class Basis:
    """The measurements and forecasts behind advice.

    Attributes:
        profile: the measurements of an item, made now or earlier.
        machine: what the process may use, and what limits it.
        costs: costs of running workers on the machine, as far as learned.
        items: number of items.
        plan: the forecasts; None where workers were not considered.
    """

    profile: Profile
    machine: Machine
    costs: Costs
    items: int
    plan: Plan | None


def optimize(
    func: Callable[..., Any],
    data: Iterable[Any],
    *,
    sample_size: int = 5,
    target_chunk_duration: float = 0.2,
    n_jobs: int | None = None,
    mp_context: str | BaseContext | None = None,
    use_cache: bool = True,
    profile: bool = False,
    verbose: bool = False,
) -> OptimizationResult:
    """Return how many workers and what chunk size suit ``func`` over ``data``.

    Unlike ``smart_map``, this runs ``func`` on a sample and discards the results, so those items
    run again in your own pool. If there is a record, nothing runs at all. If items or results
    cannot be pickled, nothing is recorded, because the next call may have others.

    Args:
        func: the function the pool will call.
        data: the items. If it is a generator, give ``result.data`` to the pool: no item is lost.
        sample_size: items to run when there is no record.
        target_chunk_duration: longest duration wanted for a chunk, s.
        n_jobs: number of workers, None to decide; negative numbers as in ``smart_map``.
        mp_context: start method or context your pool will use.
        use_cache: whether to read and write the cache.
        profile: whether to measure now, even if there is a record, and to put the measurements
            into the result.
        verbose: whether to write the advice to standard error.

    Returns:
        The advice.

    Raises:
        TypeError, ValueError: bad arguments, before anything runs.
        Exception: any exception that ``func`` raises for an item of the sample.

    >>> advice = optimize(abs, range(1000))
    >>> advice.n_jobs, advice.executor_type
    (1, 'serial')
    """
    _check(func, data, sample_size, target_chunk_duration, n_jobs, mp_context)
    _check_flags(use_cache=use_cache, profile=profile, verbose=verbose)
    begun = perf_counter()
    func = plain_function(func)
    adviser = _adviser(func, data, n_jobs, mp_context, use_cache=use_cache and not profile)
    measured, data, unsent = _measured(adviser, func, data, sample_size)
    why_serial = _why_serial(adviser, n_jobs, unsent)
    result = _advise(
        adviser, measured, data, target_chunk_duration, why_serial, unsent, keep=profile
    )
    if measured is not None and not adviser.recall.hit and not unsent:
        _remember(adviser, measured, result, perf_counter() - begun)
    if verbose:
        sys.stderr.write(result.explain() + "\n")
    return result


def _check(
    func: object,
    data: object,
    sample_size: object,
    target_chunk_duration: object,
    n_jobs: object,
    mp_context: object,
) -> None:
    if not callable(func):
        raise TypeError(f"optimize(func, data): func must be callable, but {func!r:.80} was given")
    if not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        raise TypeError(f"optimize(func, data): the data must be iterable, not {data!r:.80}")
    check_whole("sample_size", sample_size, 1)
    check_seconds("target_chunk_duration", target_chunk_duration)
    check_jobs("n_jobs", n_jobs)
    check_context("mp_context", mp_context)


def _check_flags(**flags: object) -> None:
    for name, flag in flags.items():
        check_flag(name, flag)


def _adviser(
    func: Callable[..., Any],
    data: Iterable[Any],
    n_jobs: int | None,
    mp_context: str | BaseContext | None,
    *,
    use_cache: bool,
) -> Adviser:
    """Return the adviser for the data, after its look-up."""
    items = _length(data)
    adviser = Adviser.of_call(
        func,
        items,
        jobs=count_workers(n_jobs),
        backend=None,
        mp_context=mp_context,
        use_cache=use_cache and items is not None,
    )
    adviser.recall.look_up(by_pickle=True)
    return adviser


def _length(data: Iterable[Any]) -> int | None:
    """Return the number of items by ``len``, None where that fails."""
    try:
        return len(data)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - no length, one that does not fit, or a user's that raises
        return None


def _measured(
    adviser: Adviser, func: Callable[..., Any], data: Iterable[Any], sample_size: int
) -> tuple[Profile | None, Iterable[Any], str]:
    """Return what is remembered, or what a sample shows; see ``_sample``."""
    measured = adviser.recall.profile
    if measured is None and adviser.items != 0:
        return _sample(func, data, sample_size)
    return measured, data, ""


def _sample(
    func: Callable[..., Any], data: Iterable[Any], size: int
) -> tuple[Profile | None, Iterable[Any], str]:
    """Run ``func`` on the first items.

    Returns:
        (profile, all of the data, why no pool can send items and results or "" if one can).
    """
    source = iter(data)
    items = list(islice(source, size))
    whole = chain(items, source) if source is data else data
    if not items:
        return None, whole, ""
    probe, peak = Probe(), peak_memory_bytes()
    watch = probe.watch(1)
    result = func(items[0])
    probe.add(watch.block(1))
    # Items are timed one by one, to see the spread; tiny items together, since timing each
    # would measure the clock.
    single = probe.seconds > SINGLE_SECONDS
    for group in [[item] for item in items[1:]] if single else [items[1:]]:
        if group:
            watch = probe.watch(len(group))
            for item in group:
                result = func(item)
            probe.add(watch.block(len(group)))
    travel, unsent = None, ""
    try:
        sent = pickling(items[-1:], pickle.dumps)[0]
        received, seconds = pickling([result], pickle.dumps)
        travel = Profile(
            item_seconds=1.0,
            arg_bytes=sent,
            result_bytes=received,
            pickle_seconds=seconds,
            waiting_workers=0,
        )
    except Exception as error:  # noqa: BLE001 - a user's reduction may raise anything
        unsent = (
            f"items or results cannot be pickled, so no pool can run this: "
            f"{type(error).__name__}: {error}"
        )
    grown = max(0, peak_memory_bytes() - peak)
    profile = profile_of(probe.usual, probe.mean, memory_bytes=grown, travel=travel)
    return profile, whole, unsent


# Below this, timing an item alone measures the clock as much as the item.
SINGLE_SECONDS = 20e-6


def _why_serial(adviser: Adviser, n_jobs: int | None, unsent: str) -> str:
    """Return why workers are not considered, "" where they are."""
    if unsent:
        return "items or results cannot be sent between processes"
    if adviser.jobs == 1:
        limit = cut_by(n_jobs)
        return f"{limit} allows one job" if limit else "one job was asked for"
    return ""


def _advise(
    adviser: Adviser,
    profile: Profile | None,
    data: Iterable[Any],
    target_chunk_duration: float,
    why_serial: str,
    unsent: str,
    *,
    keep: bool,
) -> OptimizationResult:
    """Turn the measurements into advice.

    Args:
        adviser: the adviser, after its look-up.
        profile: cost of an item, None when there are no items.
        data: the data to return.
        target_chunk_duration: longest duration wanted for a chunk, s.
        why_serial: why workers are not considered, "" where they are.
        unsent: why no pool can send items and results, "" if one can.
        keep: whether to return the profile.
    """
    if profile is None:
        return OptimizationResult(1, 1, "there is no data", 1.0, (), data, False, "serial")
    notes = [unsent] if unsent else []
    items = adviser.items
    if items is None:
        items = assumed_items(profile.item_seconds)
        notes.append(
            f"the length of the data is unknown; {counted(items, 'item was', 'items were')} assumed"
        )
    plan, reason, speedup, n_jobs = None, why_serial, 1.0, 1
    if not why_serial:
        # Pool.map sends every argument, whatever the start method.
        plan = adviser.plan(profile, items, sliceable=False, must_run=adviser.jobs is not None)
        reason, n_jobs = plan.reason, plan.n_jobs
        speedup = plan.serial_seconds / max(plan.seconds, 1e-9)
        if plan.executor == "process" and speedup < 1:
            notes.append(
                f"n_jobs={n_jobs} is forecast to take {times(1 / speedup)} times the serial time"
            )
    costs = adviser.costs
    size = fixed_chunksize(
        profile,
        items,
        n_jobs,
        chunk_seconds=costs.chunk_seconds,
        longest_seconds=target_chunk_duration,
    )
    return OptimizationResult(
        n_jobs=n_jobs,
        chunksize=size,
        reason=reason,
        estimated_speedup=1.0 if n_jobs == 1 else speedup,
        warnings=tuple(notes),
        data=data,
        cache_hit=adviser.recall.hit,
        executor_type="serial" if n_jobs == 1 else "process",
        profile=profile if keep else None,
        basis=Basis(profile, adviser.machine, costs, items, plan),
    )


def _remember(
    adviser: Adviser, profile: Profile, result: OptimizationResult, seconds: float
) -> None:
    """Record the measurements of a sample.

    Args:
        adviser: the adviser, after its look-up.
        profile: cost of an item.
        result: the advice.
        seconds: duration of the call.
    """
    adviser.recall.remember(
        profile,
        executor=result.executor_type,
        n_jobs=result.n_jobs,
        chunksize=result.chunksize,
        run_seconds=seconds,
        by_pickle=True,
        items=adviser.items or 0,
    )
