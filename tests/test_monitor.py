"""The monitor: whether workers keep up with what the caller could do alone, on a virtual clock."""

import pytest

from amorsize.measure.timing import Block, Tally
from amorsize.run.monitor import JUDGE_SECONDS, RETREAT_PAUSE, RETREAT_TIMES, KeepUpMonitor

STEP = 1.01 * JUDGE_SECONDS  # whatever the clock rounds


def judged(shares, monitor=None, *, ready=True, begun=100.0):
    """Return a monitor that looked after each step, in which workers did such a share of it.

    A share is what the items would have taken alone, over the time that passed; None stands for a
    step in which no chunk came back.
    """
    monitor, tally, now = monitor or KeepUpMonitor(), Tally(), begun
    monitor.look(now, tally, ready=ready)
    for share in shares:
        now += STEP
        if share is not None:
            tally.add(Block(10, max(share * STEP, 1e-9), 0.0))
        monitor.look(now, tally, ready=ready)
    return monitor


@pytest.mark.parametrize("shares", [[2.0] * 9, [0.8] * 9, [0.1, 1.0] * 9, [None] * 9, []])
def test_workers_that_keep_up_go_on(shares):
    """Nor is once too slow, or a step in which one long item runs, a reason to take over."""
    monitor = judged(shares)
    assert (monitor.retreated, monitor.retreats) == (False, 0)


def test_workers_that_are_too_slow_twice_are_left():
    """Twice in a row below what the caller would do alone: it takes over."""
    assert RETREAT_TIMES == 2
    assert not judged([1.0, 0.5]).retreated
    monitor = judged([1.0, 0.5, 0.5])
    assert (monitor.retreated, monitor.retreats) == (True, 1)


def test_a_retreat_lasts_ten_times_what_it_answers():
    """Then the workers get another chance, and are judged by what they do from there on."""
    monitor = judged([1.0, 0.5, 0.5])
    over = 100.0 + 3 * STEP + RETREAT_PAUSE * 2 * STEP
    monitor.resume(over - 0.001)
    assert monitor.retreated
    monitor.resume(over + 0.001)
    assert not monitor.retreated
    assert not judged([0.5], monitor, begun=over + 1).retreated
    assert judged([0.5, 0.5], monitor, begun=over + 2).retreats == 2


def test_workers_that_are_still_starting_are_not_judged():
    """The time until the last of them is ready does not count."""
    assert not judged([0.0] * 9, ready=False).retreated
