"""No call hangs and no item is lost while workers are killed at random."""

import os

import psutil
import pytest

from amorsize.run import shared
from tests import programs

SEED = int(os.environ.get("AMORSIZE_CHAOS_SEED", "20261120"))


@pytest.mark.timeout(1_000)
@pytest.mark.parametrize("calls", [6, pytest.param(500, marks=pytest.mark.slow)])
def test_every_item_is_accounted_for(calls):
    """Under fire each call returns the right results; the seed is in the output."""
    ended = programs.run("-m", "tests.stress.chaos", SEED, calls, deadline=900)
    assert ended.out.startswith(f"seed {SEED}: {calls} calls"), ended.err
    assert ended.code == 0
    shared.make_prefix()  # removes what killed processes left
    assert [pid for pid in programs.segments() if not psutil.pid_exists(pid)] == []
