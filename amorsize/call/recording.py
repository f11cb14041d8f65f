"""Recording a finished call: the machine's costs, and the profile of the function.

Recording costs time as well, so it is done only where the call has shown something new.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

from ..memory.naming import meet
from ..signals import held_signals
from .adviser import Adviser
from .costs import learn_costs
from .outcome import Outcome
from .recall import AS_EXPECTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["LOOK_UP_SECONDS", "learn"]

# The folder is not read for less work than this: about the time of two look-ups on disk.
LOOK_UP_SECONDS = 0.0002
# A serial run went as expected if its items took the recorded time, up to a share of AS_EXPECTED; a
# run with workers, if it took the forecast time, up to the same share.
# Of the calls that went as expected, one in so many is recorded: it takes 0.2 ms, 1 ms after a
# fork, and the plan of the next call must be searched anew (0.3 ms). None is recorded that was
# shorter than WORTH_RECORDING_SECONDS.
RECORDED_CALLS = 8
RECENT_SECONDS = 3600.0
WORTH_RECORDING_SECONDS = 0.01

# Contention, and seconds of importing, that are at most this say nothing against workers any more.
FADED = 0.1

_calls = count(1)  # calls that went as expected


def learn(
    outcome: Outcome,
    func: Callable[..., Any],
    *,
    worth_walking: bool,
    make_adviser: Callable[[], Adviser],
) -> None:
    """Correct the record and the machine's costs by what happened.

    Args:
        outcome: the finished call.
        func: its function.
        worth_walking: whether the function's fingerprint is known, or worth its time.
        make_adviser: makes the adviser of a call that needed none.
    """
    adviser = outcome.adviser
    if adviser is None and worth_walking:
        adviser = _late_adviser(outcome, func, make_adviser)
    if adviser is None or _went_as_expected(outcome, adviser):
        return
    with held_signals():  # a handler must not interrupt the writing of files
        _record(outcome._replace(adviser=adviser), adviser, worth_walking=worth_walking)


def _late_adviser(
    outcome: Outcome, func: Callable[..., Any], make_adviser: Callable[[], Adviser]
) -> Adviser | None:
    """Return an adviser for a call that ended before any look-up; None if nothing is recorded.

    Such a call is recorded the first time, since the caller may ask for advice later.
    """
    if meet(func) and outcome.options.report is None:
        return None
    adviser, probe = make_adviser(), outcome.evidence.probe
    adviser.recall.look_up(only_memory=True, late=True)
    if adviser.recall.confirm(probe.mean, first=not probe.rest.items):
        return None
    return adviser


def _went_as_expected(outcome: Outcome, adviser: Adviser) -> bool:
    """Return whether a call has nothing to teach."""
    known = adviser.recall.profile
    if known is None or adviser.recall.has_guess:  # a guess is replaced by the first real run
        return False
    if outcome.ran is None:
        usual = known.item_seconds
        # These fade by each record, see ``Outcome.profile``.
        if max(known.contention, known.import_seconds) > FADED:
            return False
        if abs(outcome.evidence.probe.mean - usual) >= AS_EXPECTED * usual:
            return False
        return outcome.elapsed < WORTH_RECORDING_SECONDS or _is_skipped(adviser)
    if outcome.forecast is None:
        return False
    # It took the forecast time, within the error that forecasts are known to have. Some such calls
    # are recorded, so that this error is measured.
    error = max(AS_EXPECTED, adviser.costs.error)
    close = abs(outcome.elapsed - outcome.forecast) <= error * outcome.forecast
    return close and _is_skipped(adviser)


def _is_skipped(adviser: Adviser) -> bool:
    """Return whether a call that went as expected is not recorded: all but some are not."""
    record = adviser.recall.record
    assert record is not None
    # The age also counts the calls of processes that make one each, and lets no record expire.
    recent = abs(time.time() - record.updated) < RECENT_SECONDS
    return recent and next(_calls) % RECORDED_CALLS > 0


def _record(outcome: Outcome, adviser: Adviser, *, worth_walking: bool) -> None:
    """Record the machine's costs and, where that pays, the profile of the function."""
    ran, plan = outcome.ran, outcome.plan
    first = ran.course.spans[0] if ran is not None and ran.course.spans else None
    # Costs are written to the folder, and a call over an input of unknown length writes nothing.
    known = outcome.items is not None
    local = adviser.cluster is None
    if local and known and ran is not None and not ran.retried and not outcome.gave_up:
        learn_costs(outcome.seen())
    profile = outcome.profile()
    if profile is not None and worth_walking:
        adviser.recall.remember(
            profile,
            executor="serial" if plan is None else plan.executor,
            n_jobs=1 if plan is None or ran is None else ran.jobs,
            chunksize=first.items if first is not None else 0,
            run_seconds=outcome.elapsed,
            by_pickle=outcome.evidence.by_pickle,
            items=outcome.produced if outcome.items is None else outcome.items,
        )
