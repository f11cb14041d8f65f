"""One call, from its first item to what is remembered of it.

A session leads: it runs the first items in the calling process and times them; as soon as that
pays, it asks the adviser what is known and what follows, and hands the rest to the engine, or goes
on here. Afterwards it tells the adviser what happened. docs/design.md follows one call through.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from functools import partial

from .adviser import (
    NEIGHBOURHOOD,
    Adviser,
    count_workers,
    hindrance,
    inherits,
    learn_costs,
    machine_costs,
)
from .decide.fingerprint import is_known, uses
from .decide.machine import resident_bytes, this_machine, usable_cpus
from .decide.model import (
    FRESH_METHODS,
    MOST_CROWDING,
    SHARED_FROM_BYTES,
    Chunking,
    Profile,
    Seen,
    slowdown,
)
from .decide.planner import STREAM_CHUNK_ITEMS, STREAM_CHUNK_SECONDS, Plan, next_chunksize
from .decide.probe import (
    LONGEST_BLOCK_SECONDS,
    Probe,
    Stopwatch,
    Tally,
    peak_memory_bytes,
    pickling,
    profile_of,
)
from .errors import SerializationError, TaskTimeoutError
from .options import Options
from .run.failure import MISSING
from .run.feed import Feed
from .run.transport import dumps, is_smaller
from .units import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .run.crew import Crew, Task
    from .run.engine import Engine, Span
    from .run.worker import Call, Threads
    from .show.report import RunReport

__all__ = ["Session", "contradictions"]

# Work that is over within this is not worth a look at the folder: about two look-ups on disk.
LOOK_UP_SECONDS = 0.0002
# If more is left than that, what this process remembers is asked for (20 us) after this; by then
# the timing of an item of 30 ns is right.
RECALL_SECONDS = 0.00005
WORTH_RECALLING_SECONDS = 0.001
# Without a remembered profile, items are timed for this long before a plan is made of them: about
# what starting one worker costs.
PROBE_SECONDS = 0.001
# If no more work than this is left, no crew could be back in time.
WORTH_SECONDS = 0.0025
# A short run that went as remembered teaches nothing that pays for the learning (30 us).
WORTH_LEARNING_SECONDS = 0.01
AS_EXPECTED = 0.1
# Blocks expected to be shorter than this are timed by the wall clock alone.
SHORT_BLOCK_SECONDS = 50e-6
# Function and item together; more had better be inherited, however dear the fork.
LIGHT_BYTES = 100_000
# What is assumed to be left of an input of unknown length, for choosing a number of workers.
ASSUMED_SECONDS = 1.0
# Workers are considered again when so many times as much work was done as at the last time.
LOOK_AGAIN = 1.3
# A run so many times as long or as short as forecast is worth a word, if it took a while.
NOTEWORTHY = 2.0
NOTEWORTHY_SECONDS = 0.02
# Pickling that takes less for each is measured on more.
LIGHT_PICKLE_SECONDS = 20e-6
# An integer of a long list.
LEAST_PICKLE_SECONDS = 20e-9
# So many items, if they took PROBE_SECONDS, are believed against what is remembered, when they are
# so far out of its range.
SURE_ITEMS = 3
SURPRISE = 1.5
# Items are compared, alone and in workers, when they differ by no more than this share, and those
# that ran alone took so long.
COMPARABLE_SPREAD = 0.2
COMPARABLE_SECONDS = 0.005
# What was measured to be nothing is not what was not measured.
LEAST_MEASURED = 1e-4
# What is kept, each time, of figures that this run could not measure.
FORGETTING = 0.7
# A run that memory has settled to be serial looks up after so many times as many items as before.
SETTLED_GROWTH = 16
# The time between two chunks of up to so many bytes is that of dispatching one.
LIGHT_CHUNK_BYTES = 4_096
# In a lazy run, one of so many seconds' worth of tiny items is timed.
TIMED_EVERY_SECONDS = 20e-6


class Session:
    """One call of one of the four forms.

    Args:
        func: the function as it is to be called.
        shipped: what stands for it in workers that cannot inherit it.
        feed: its items.
        options: checked options.

    Raises:
        ValueError: the environment variable ``AMORSIZE_N_JOBS`` is no number of workers.
    """

    def __init__(
        self, func: Callable[..., Any], shipped: Callable[..., Any], feed: Feed, options: Options
    ) -> None:
        self.begun = time.perf_counter()
        self.func = func
        self.shipped = shipped
        self.feed = feed
        self.options = options
        self.total = feed.hint
        self.jobs = count_workers(options.n_jobs)
        self.probe = Probe()
        self.plan: Plan | None = None  # of what was handed to workers
        self._serial_plan: Plan | None = None  # the last that said to go on here
        self.engine: Engine | None = None
        self.warnings: list[str] = []
        self.produced = 0
        self._reason = "it was over before anything else could have been quicker"
        self._adviser: Adviser | None = None
        self._looked_up = False  # whether the adviser has seen all there is
        self._alone = self.jobs == 1 or options.backend == "serial"
        self._travel: Profile | None = None
        self._confined = ""  # why results or items cannot leave this process
        self._peak = 0
        self._growth: int | None = None
        self._decided = 0.0
        self._forecast: float | None = None
        self._progress = None
        if options.progress is not False:
            from .show.progress import make_progress  # few calls want to see it

            name = getattr(func, "__name__", type(func).__name__)
            self._progress = make_progress(options.progress, feed.hint, name)
        self._gave_up = False  # whether workers were wanted and could not be had
        self._settled = False  # whether memory says that all of it is best run here
        self._next_look = LOOK_UP_SECONDS  # when to consider workers next, in seconds of own work
        self._set_deadline()

    def _set_deadline(self) -> None:
        timeout = self.options.timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self.feed.deadline = self._deadline

    # The forms ------------------------------------------------------------------------------

    def map(self) -> list[Any]:
        """Return all results in order."""
        out: list[Any] = []
        done = False
        try:
            plan = self._enter()
            if plan is None:
                plan = self._lead(out)
            if plan is not None:
                with closing(self._crowd(plan, ordered=True, lazy=False)) as chunks:
                    for _, results in chunks:
                        out += results
            self.produced = len(out)
            done = True
        finally:
            self._leave(done=done)
        return out

    def stream(self, *, ordered: bool) -> Iterator[Any]:
        """Yield results as the consumer asks for them."""
        self.begun = time.perf_counter()
        self._set_deadline()
        done = False
        try:
            plan = self._enter()
            if plan is None:
                plan = yield from self._lead_lazily()
            if plan is not None:
                with closing(self._crowd(plan, ordered=ordered, lazy=True)) as chunks:
                    for _, results in chunks:
                        for result in results:
                            self.produced += 1
                            yield result
            done = True
        finally:
            self._leave(done=done)

    # Where the first items run --------------------------------------------------------------

    def _enter(self) -> Plan | None:
        """Return a plan when the items must run in workers from the first on."""
        options = self.options
        if self.feed.remaining == 0:
            return None
        if not options.workers_only(self.jobs) or self._is_hindered():
            if options.initializer is not None:
                options.initializer(*options.initargs)
            if self._alone and not self.warnings:
                self._reason = "one job was asked for"
            return None
        adviser = self._advised()
        profile = adviser.remembered()
        left = self.feed.likely_remaining or max(2, self.jobs or 2)
        # One worker's timing decides about more of them when nothing is known.
        jobs = 1 if profile is None and self.jobs is None else None
        plan = adviser.plan(profile, left, sliceable=self.feed.sliceable, must_run=True, jobs=jobs)
        self._commit(plan, known=profile is not None)
        return plan

    def _is_hindered(self) -> bool:
        """Return whether workers cannot be had although they were asked for."""
        reason = hindrance()
        if reason:
            self._give_up_workers(reason)
        return bool(reason)

    def _give_up_workers(self, reason: str) -> None:
        """Note that the items run here although workers were wanted."""
        self._alone = self._gave_up = True
        self._reason = reason
        self.warnings.append(f"the items run in the calling process: {reason}")

    def _advised(self) -> Adviser:
        """Return the adviser; the first call looks up what is known."""
        adviser = self._adviser or self._call_adviser()
        if not self._looked_up:
            adviser.look_up()
            self._looked_up = True
        return adviser

    def _recalls(self) -> bool:
        """Return whether this process remembers the function; asked once, if it could matter."""
        left, probe = self.feed.remaining, self.probe
        if self._adviser is not None or left is None or probe.seconds < RECALL_SECONDS:
            return False
        if probe.items < 2 or left * probe.mean < WORTH_RECALLING_SECONDS:
            return False
        adviser = self._call_adviser()
        adviser.look_up(only_memory=True)
        self._looked_up = adviser.hit
        return adviser.hit

    def _call_adviser(self) -> Adviser:
        options = self.options
        self._peak = peak_memory_bytes()
        self._adviser = Adviser.of_call(
            self.func,
            self.total,
            jobs=self.jobs,
            backend=options.backend,
            mp_context=options.mp_context,
            use_cache=options.use_cache,
        )
        return self._adviser

    def _lead(self, out: list[Any]) -> Plan | None:
        """Run items here until none are left or a plan says that workers pay."""
        feed, probe = self.feed, self.probe
        if self._alone and self._deadline is None and self._progress is None:
            watch = Stopwatch()
            feed.run_all(out)
            if out:
                probe.add(watch.block(len(out)))
            return None
        while self._run_block(out):
            if not self._alone and (probe.seconds >= self._next_look or self._recalls()):
                self._next_look = LOOK_AGAIN * probe.seconds
                plan = self._consider(out)
                if plan is not None:
                    return plan
        return None

    def _run_block(self, out: list[Any]) -> bool:
        """Run and time the next block here; return whether there may be more items."""
        feed, probe = self.feed, self.probe
        size = probe.next_size(feed.remaining)
        if self._settled and feed.remaining is not None:
            fitting = int(LONGEST_BLOCK_SECONDS / max(probe.mean, 1e-9))
            size = max(size, min(feed.remaining, fitting, SETTLED_GROWTH * probe.items))
        short = probe.first is not None and size * probe.mean < SHORT_BLOCK_SECONDS
        watch = Stopwatch(wall_only=short)
        done = feed.run(size, out)
        if done:
            probe.add(watch.block(done))
            if self._progress is not None:
                self._progress.add(done)
        if feed.ended or feed.remaining == 0:
            return False
        self._check_deadline()
        return True

    def _lead_lazily(self) -> Generator[Any, None, Plan | None]:
        """Yield results of items run here, one at a time; return a plan once workers pay."""
        feed, probe = self.feed, self.probe
        result: list[Any] = []
        while True:
            watch = Stopwatch()
            if not feed.run(1, result):
                return None
            probe.add(watch.block(1))
            plan, worked = None, probe.mean * feed.position
            if not self._alone and worked >= self._next_look:
                self._next_look = LOOK_AGAIN * worked
                plan = self._consider(result)
            self._pass(1)
            yield result.pop()
            self._check_deadline()
            if plan is not None:
                return plan
            # Timing a tiny item costs more than running it: most of those run untimed.
            untimed = min(int(TIMED_EVERY_SECONDS / max(probe.mean, 1e-9)), 4 * probe.items)
            before = feed.position
            if untimed:
                for value in feed.pass_through(untimed):
                    self.produced += 1
                    yield value
                    if self._deadline is not None:
                        self._check_deadline()
                self._pass(feed.position - before, counted=True)

    def _pass(self, items: int, *, counted: bool = False) -> None:
        if not counted:
            self.produced += items
        if self._progress is not None:
            self._progress.add(items)

    # The decision ---------------------------------------------------------------------------

    def _consider(self, out: list[Any]) -> Plan | None:
        """Return a plan for workers if what is known by now makes them pay, else None."""
        feed, probe, adviser = self.feed, self.probe, self._advised()
        self._measure_growth()
        reason = self._confined or hindrance()
        remembered = adviser.remembered(probe.mean)
        if remembered is None and (probe.seconds < PROBE_SECONDS or probe.items < 2):
            return None
        profile = self._profile(remembered)
        # Of unknown length, as much is assumed to be left as was done: the doubling of ski rental.
        left = feed.likely_remaining
        known, left = left is not None, max(2, feed.position) if left is None else left
        if not reason and left * profile.item_seconds < WORTH_SECONDS:
            reason = "what was left would have been over before workers could start"
        if not reason and self._travel is None:
            reason = self._measure_travel(out, remembered)
            profile = self._profile(remembered)
        if not reason:
            plan = adviser.plan(profile, left, sliceable=feed.sliceable, is_light=self._is_light)
            if plan.executor != "serial":
                adviser.adopt(plan)
                self._commit(plan, known=known)
                return plan
            reason = plan.reason
            if self._forecast is None:
                self._serial_plan = plan
        # What was said with the forecast stands: less and less is left at later looks.
        if self._forecast is None or self._confined:
            self._reason = reason
        if remembered is not None and known:
            # Nothing to be learned from looking again, unless it takes longer than remembered.
            whole = probe.seconds + left * profile.item_seconds
            self._next_look = max(self._next_look, LOOK_AGAIN * whole)
            self._settled = True
        if self._forecast is None and known:
            self._decided = self._elapsed()
            self._forecast = self._decided + left * profile.item_seconds
        return None

    def _commit(self, plan: Plan, *, known: bool) -> None:
        """Take a plan for workers as decided."""
        self.plan = plan
        self._reason = plan.reason
        self._decided = self._elapsed()
        if known:
            self._forecast = self._decided + plan.seconds

    def _profile(self, remembered: Profile | None) -> Profile:
        """Return what is known of an item: remembered, unless this run says otherwise."""
        if remembered is not None and not self._surprises(remembered):
            if self._travel is None:
                return remembered
            sent, sending = self._travel.arg_bytes, self._travel.send_seconds
            return remembered._replace(arg_bytes=sent, send_seconds=sending)
        probe, grown = self.probe, self._measure_growth()
        travel = self._travel or remembered
        return profile_of(probe.tally, probe.mean, memory_bytes=grown, travel=travel)

    def _surprises(self, remembered: Profile) -> bool:
        """Return whether today's items are outside the range of those that are remembered."""
        probe = self.probe
        low, high = remembered.least_seconds / SURPRISE, remembered.most_seconds * SURPRISE
        if low <= probe.mean <= high:
            return False
        if probe.mean >= NEIGHBOURHOOD * remembered.item_seconds:
            return True
        return probe.items >= SURE_ITEMS and probe.seconds >= PROBE_SECONDS

    def _measure_growth(self) -> int:
        """Return by how much the peak of memory has grown until workers were first considered.

        Later there would be the results in it, which are no worker's need.
        """
        if self._growth is None:
            self._growth = max(0, peak_memory_bytes() - self._peak) if self._peak else 0
        return self._growth

    def _measure_travel(self, out: list[Any], remembered: Profile | None) -> str:
        """Measure what sending items and results costs; return why they cannot be sent, or ""."""
        item = MISSING if self._inherits() else self.feed.sample
        sent = sending = 0.0
        if remembered is not None:  # the items of that time may have been inherited
            sent, sending = remembered.arg_bytes, remembered.send_seconds
        try:
            size, seconds = pickling(out[-16:] if remembered is None else out[-1:], dumps)
            if remembered is not None:
                size, seconds = remembered.result_bytes, remembered.pickle_seconds
            elif seconds < LIGHT_PICKLE_SECONDS and len(out) > 16:
                # Of so few small results the time is that of beginning to pickle.
                size, seconds = pickling(out[-512:], dumps)
            if item is not MISSING:
                sent, sending = pickling([item], dumps)
                if sending < LIGHT_PICKLE_SECONDS:  # most of which was beginning to pickle
                    sending = max(sending - pickling([None], dumps)[1], LEAST_PICKLE_SECONDS)
        except SerializationError as error:
            self._confined = f"items or results cannot be pickled ({error})"
            return self._confined
        self._travel = Profile(
            item_seconds=1.0,
            arg_bytes=sent,
            result_bytes=size,
            pickle_seconds=seconds,
            send_seconds=sending,
            crowding=remembered.crowding if remembered else 0.0,
            import_seconds=remembered.import_seconds if remembered else 0.0,
        )
        return ""

    def _inherits(self) -> bool:
        """Return whether workers reach the input without its being sent."""
        return self.feed.sliceable and inherits(self._advised().method)

    def _is_light(self) -> bool:
        """Return whether function and items are small enough to be sent rather than inherited."""
        item = self.feed.sample
        sent = self.shipped if item is MISSING else (self.shipped, item)
        return is_smaller(sent, LIGHT_BYTES)

    # Workers --------------------------------------------------------------------------------

    def _crowd(self, plan: Plan, *, ordered: bool, lazy: bool) -> Generator[tuple[int, list[Any]]]:
        """Yield (start, results) of the items left, run by a crew; or here, if none can be had."""
        from .run.engine import Engine, Policy  # heavy, and only workers need it

        options, adviser = self.options, self._advised()
        adviser.look_again(options.mp_context)
        must_run = options.workers_only(self.jobs)
        profile = adviser.remembered() or (self._profile(None) if self.probe.first else None)
        self.engine = Engine(
            self.feed,
            Policy(
                workers=plan.n_jobs,
                size=self._sizes(plan.chunking, lazy=lazy),
                ahead_seconds=plan.chunking.ramp_seconds,
                ordered=ordered,
                bounded=lazy,
                buffersize=options.buffersize,
                retries=options.retries,
                task_timeout=options.task_timeout,
                deadline=self._deadline,
                timeout=options.timeout,
                return_exceptions=options.return_exceptions,
                help=not must_run and adviser.method in ("spawn", "forkserver"),
                retreat=not must_run and not lazy and adviser.method != "thread",
                rethink=self._rethink if self.jobs is None and profile is None else None,
            ),
            self._make_crew,
            item_seconds=profile.item_seconds if profile else 0.0,
            result_bytes=profile.result_bytes if profile else 0.0,
            cpu_share=profile.cpu_share if profile else 0.0,
            progress=None if self._progress is None else self._progress.add,
        )
        yield from self.engine.run()

    def _sizes(self, chunking: Chunking, *, lazy: bool) -> Callable[..., int]:
        """Return the chunk policy."""
        fixed = self.options.chunksize
        if self.options.task_timeout is not None and (fixed is None or not self.options.retries):
            fixed = 1  # so that a late item takes no other with it, which would have to run again
        if fixed is not None:
            size: int = fixed
            return lambda left, **_: size
        if lazy or self.feed.remaining is None:
            return partial(
                next_chunksize,
                chunking=chunking,
                longest_seconds=STREAM_CHUNK_SECONDS,
                most_items=STREAM_CHUNK_ITEMS,
            )
        return partial(next_chunksize, chunking=chunking)

    def _rethink(self, left: int | None, item_seconds: float, cpu_share: float) -> int:
        """Return how many workers to go on with, now that one has shown what an item costs."""
        profile = Profile(item_seconds=item_seconds, cpu_share=cpu_share)
        # Of unknown length, work for a while is assumed to be left.
        likely = max(2, int(ASSUMED_SECONDS / item_seconds)) if left is None else left
        if likely == 0:
            return 1
        plan = self._advised().plan(profile, likely, sliceable=self.feed.sliceable, must_run=True)
        self._commit(plan, known=left is not None)
        return plan.n_jobs

    def _make_crew(self, workers: int, first: Callable[[bool], Iterator[Task]] | None) -> Crew:
        from .run.inline import InlineCrew  # now: later there may be no descriptor to open it with
        from .run.worker import BUSY_SHARE, Call, Setup, Threads

        options, feed, method = self.options, self.feed, self._advised().method
        inherited = inherits(method)
        call = Call(
            func=self.func if inherited else self.shipped,
            star=feed.star,
            columns=feed.columns if self._inherits() else (),
            return_exceptions=options.return_exceptions,
        )
        share = max(1, usable_cpus() // workers)
        known = self.engine.cpu_share if self.engine is not None else 0.0
        threads = None if method == "thread" else Threads.shared(share, busy=known > BUSY_SHARE)
        try:
            return self._start_crew(method, workers, call, threads, first)
        except (OSError, ImportError) as error:
            if isinstance(error, OSError) and workers > 1:
                raise  # the engine asks again for fewer
            reason = f"no worker could be started ({type(error).__name__}: {error})"
        except SerializationError as error:
            if options.workers_only(self.jobs):
                raise
            reason = f"the function cannot be sent to workers ({error})"
        self._give_up_workers(reason)
        # Here the function itself is at hand, and the input as well.
        call = call._replace(func=self.func, columns=feed.columns)
        return InlineCrew(Setup(call, options.initializer, options.initargs))

    def _start_crew(
        self,
        method: str,
        workers: int,
        call: Call,
        threads: Threads | None,
        first: Callable[[bool], Iterator[Task]] | None,
    ) -> Crew:
        """Start workers.

        Raises:
            OSError, ImportError: they cannot be had.
            SerializationError: what they are to run cannot be sent.
        """
        from .run.worker import Setup

        setup = Setup(call, self.options.initializer, self.options.initargs, threads=threads)
        if method == "thread":
            from .run.threads import ThreadCrew

            return ThreadCrew(workers, setup)
        import multiprocessing  # 25 ms: only when a crew really starts

        from .run import kept
        from .run.current import current_values
        from .run.pool import ProcessCrew

        context = self.options.mp_context
        if context is None or isinstance(context, str):
            context = multiprocessing.get_context(method)
        if method != "fork":
            used = uses(call.func)
            if self.options.initializer is None:
                crew = kept.lease(context, workers, call, used, threads)
                if crew is not None:
                    return crew
            setup = setup.of_caller(current_values(used), kept.current_environ(context))
        inherits = self._inherits()
        tasks = first(inherits) if first is not None and method == "fork" else None
        return ProcessCrew(context, workers, setup, inherits=inherits, first=tasks)

    # The end --------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        return time.perf_counter() - self.begun

    def _check_deadline(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            assert self.options.timeout is not None
            raise TaskTimeoutError(
                f"the call took longer than timeout={self.options.timeout:g} s; "
                f"{self.feed.position} items were finished",
                seconds=self.options.timeout,
            )

    def _leave(self, *, done: bool) -> None:
        """Remember and report, however the call ended."""
        elapsed = self._elapsed()
        if self._progress is not None:
            self._progress.close()
        if done and self.produced:
            self._learn(elapsed)
        if self.options.report is not None:
            if done:
                self.options.report(self._report(elapsed))
                return
            # The call's own exception is on its way and must not be replaced.
            with suppress(Exception):
                self.options.report(self._report(elapsed))

    def _learn(self, elapsed: float) -> None:
        """Correct what is known by what happened."""
        if self.total is None or not self.options.use_cache:
            return
        adviser = self._adviser
        if adviser is None:
            # Over at once, before anything was looked up. It is remembered the first time, since
            # advice may be asked for; after that it would only be the work that takes longer.
            if is_known(self.func) and self.options.report is None:
                return
            adviser = self._call_adviser()
            adviser.look_up(only_memory=True)
            if adviser.remembered(self.probe.mean) is not None:
                return
        engine = self.engine
        if engine is None and elapsed < WORTH_LEARNING_SECONDS and self._went_as_remembered():
            return
        if engine is not None and not engine.retried and not self._gave_up:
            learn_costs(self._seen(engine, adviser, elapsed))
        profile = self._observed()
        if profile is not None:
            plan = self.plan
            adviser.remember(
                profile,
                executor="serial" if plan is None else plan.executor,
                n_jobs=1 if plan is None or engine is None else engine.workers,
                chunksize=engine.spans[0].items if engine is not None and engine.spans else 0,
                run_seconds=elapsed,
            )

    def _went_as_remembered(self) -> bool:
        """Return whether the items run here took about what was remembered of them."""
        known = None if self._adviser is None else self._adviser.remembered()
        if known is None:
            return False
        return abs(self.probe.mean - known.item_seconds) < AS_EXPECTED * known.item_seconds

    def _observed(self) -> Profile | None:
        """Return what this run has shown of its items, wherever they ran."""
        tally, adviser, engine = Tally(), self._adviser, self.engine
        grown = self._measure_growth()
        travel = self._travel or (adviser.remembered() if adviser is not None else None)
        if engine is None or adviser is None or not engine.tally.items:
            tally.merge(self.probe.tally)
            if engine is not None:
                tally.merge(engine.own)
            if not tally.items:
                return None
            mean = self.probe.mean if engine is None else tally.seconds / tally.items
            known = profile_of(tally, mean, memory_bytes=grown, travel=travel)
            # What only workers show, and may have shown once too much, is forgotten by and by.
            return known._replace(
                crowding=FORGETTING * known.crowding,
                import_seconds=FORGETTING * known.import_seconds,
            )
        for part in (self.probe.rest, engine.own, engine.tally):
            tally.merge(part)
        # Items that ran in workers took longer than they take alone.
        known = profile_of(tally, tally.seconds / tally.items, memory_bytes=grown, travel=travel)
        crowding = self._crowding(engine) or (travel.crowding if travel is not None else 0.0)
        known = known._replace(crowding=crowding)
        costs = machine_costs(use_cache=self.options.use_cache)
        slow = slowdown(known, costs, engine.workers, adviser.machine.cpus)
        alone = tally.seconds - engine.tally.seconds * (1 - 1 / slow)
        profile = known._replace(item_seconds=max(1e-9, alone / tally.items))
        importing = self._importing(engine, adviser)
        if importing is not None:
            profile = profile._replace(import_seconds=importing)
        if engine.packed and profile.result_bytes < SHARED_FROM_BYTES:
            profile = profile._replace(pickle_seconds=engine.packed / engine.tally.items)
        return profile

    def _importing(self, engine: Engine, adviser: Adviser) -> float | None:
        """Return how long fresh workers took to import what the function uses, None if none did."""
        crew = engine.crew
        begun = [span.begun for span in engine.spans if span.worker]
        if adviser.method not in FRESH_METHODS or crew is None or crew.reused or engine.retried:
            return None
        if crew.ready_at is None or not begun:
            return None
        return max(LEAST_MEASURED, min(begun) - crew.ready_at)

    def _crowding(self, engine: Engine) -> float | None:
        """Return how much longer items took in workers than here, None where nobody can tell.

        Only items that cost the same can be compared: of others those that ran here may have been
        the light ones.
        """
        probe, tally, adviser = self.probe, engine.tally, self._advised()
        if probe.items < 2 or probe.seconds < COMPARABLE_SECONDS or not tally.items:
            return None
        mean = tally.seconds / tally.items
        share = min(1.0, tally.cpu_seconds / tally.seconds)
        busy = min(engine.workers * share, adviser.machine.cpus)
        if tally.spread > COMPARABLE_SPREAD * mean or busy < 2:
            return None
        found = (mean / probe.mean - 1) * (adviser.machine.cpus - 1) / (busy - 1)
        return min(max(found, LEAST_MEASURED), MOST_CROWDING)

    def _seen(self, engine: Engine, adviser: Adviser, elapsed: float) -> Seen:
        """Return what the run showed of the machine."""
        crew, spans = engine.crew, engine.spans
        assert crew is not None
        seen = Seen(adviser.method, crew.workers, resident_bytes())
        if not crew.reused and crew.start_seconds:
            ready = crew.ready_at
            seen = seen._replace(
                started=crew.start_seconds,
                ready=None if ready is None else ready - crew.started_at,
                ended=crew.end_seconds or None,
            )
        # How long those took who consumed the results says nothing of the machine; nor do waiting
        # workers that were given up, or that stood in line for a CPU.
        undisturbed = not engine.policy.bounded and not engine.retreats
        if self._forecast is not None and undisturbed:
            error = abs(elapsed - self._forecast) / max(self._forecast, 1e-9)
            seen = seen._replace(error=error)
        size, gap = chunk_gaps(spans)
        crowded = crew.workers > adviser.machine.cpus
        if gap is not None and undisturbed and not crowded and adviser.method != "thread":
            moving = gap - adviser.costs.chunk_seconds
            if size < LIGHT_CHUNK_BYTES:
                seen = seen._replace(chunk_seconds=gap)
            elif size < SHARED_FROM_BYTES and moving > 0:
                seen = seen._replace(byte_seconds=moving / size)
        moved = sum(span.bytes for span in spans)
        if moved >= SHARED_FROM_BYTES * max(1, engine.tally.items):
            seen = seen._replace(shared_seconds=engine.packed / moved)
        return seen._replace(crowding=self._crowding(engine))

    def _report(self, elapsed: float) -> RunReport:
        from .show.report import RunReport  # few calls want to see it

        engine, adviser, plan = self.engine, self._adviser, self.plan
        profile = self._observed()
        spans = tuple(engine.spans) if engine is not None else ()
        used = plan is not None and engine is not None and not self._gave_up
        worker_items = engine.tally.items if used and engine is not None else 0
        return RunReport(
            function=getattr(self.func, "__qualname__", type(self.func).__qualname__),
            items=self.produced,
            backend=plan.executor if plan is not None and used else "serial",
            n_jobs=engine.workers if engine is not None else 1,
            chunksize=next((span.items for span in spans if span.worker), 0),
            chunks=engine.chunks if engine is not None else 0,
            start_method=adviser.method if used and adviser is not None else "",
            start_reason=adviser.method_reason if used and adviser is not None else "",
            reason=self._reason,
            cache_hit=adviser is not None and adviser.hit,
            plan=plan or self._serial_plan,
            profile=profile,
            forecast_seconds=self._forecast,
            actual_seconds=elapsed,
            decided_seconds=self._decided,
            serial_seconds=None if profile is None else profile.item_seconds * self.produced,
            caller_items=max(0, self.produced - worker_items),
            worker_items=worker_items,
            workers=tuple(sorted({span.worker for span in spans if span.worker})),
            retried=engine.retried if engine is not None else 0,
            warnings=(*self.warnings, *contradictions(self._forecast, elapsed)),
            timeline=spans,
            machine=this_machine(),
            hints=() if profile is None else tuple(self._hints(profile, elapsed, used=used)),
        )

    def _hints(self, profile: Profile, elapsed: float, *, used: bool) -> list[str]:
        """Return what would make the call faster."""
        from .show.hints import hints_for_run

        crew = self.engine.crew if self.engine is not None else None
        started = crew is not None and not crew.reused
        found = hints_for_run(
            profile,
            self.produced,
            machine_costs(use_cache=self.options.use_cache),
            self.plan if used else None,
            jobs=self.jobs,
            chunksize=self.options.chunksize,
            cpus=usable_cpus(),
            seconds=elapsed,
            start_seconds=crew.start_seconds + crew.end_seconds if crew and started else 0.0,
            shipped_bytes=crew.shipped_bytes if crew is not None else 0,
        )
        adviser = self._adviser
        if adviser is not None and self.options.backend is None:
            hint = adviser.threads_hint(profile, self.produced, elapsed)
            found += [hint] if hint else []
        return found


def chunk_gaps(spans: list[Span]) -> tuple[float, float | None]:
    """Return (bytes of results, s) of the median chunk's way home and the next one's there.

    Args:
        spans: chunks in any order; those of the calling process do not count.
    """
    last: dict[int, Span] = {}
    found: list[tuple[float, float]] = []
    for span in sorted(spans[:MOST_GAPS], key=lambda span: span.begun):
        before = last.get(span.worker)
        if before is not None and span.worker:
            found.append((span.begun - before.begun - before.seconds, before.bytes))
        last[span.worker] = span
    if len(found) < LEAST_GAPS:
        return 0.0, None
    gap, size = sorted(found)[len(found) // 2]
    return size, max(gap, 0.0)


# Enough for a median, and no more than a run of some ms can afford.
LEAST_GAPS = 4
MOST_GAPS = 200


def contradictions(forecast: float | None, actual: float) -> list[str]:
    """Return what is to be said of a run that went quite otherwise than forecast.

    >>> contradictions(1.0, 1.2), contradictions(1.0, 2.5)
    ([], ['it took 2.5 s; the forecast was 1 s'])
    """
    if forecast is None or max(forecast, actual) < NOTEWORTHY_SECONDS:
        return []
    if 1 / NOTEWORTHY <= actual / max(forecast, 1e-9) <= NOTEWORTHY:
        return []
    return [f"it took {duration(actual)}; the forecast was {duration(forecast)}"]
