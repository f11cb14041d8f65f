"""A first item that pays for imports, a model or a compiler says nothing of those that follow."""

import os
import tempfile
import time
from pathlib import Path

import pytest

from amorsize import smart_imap, smart_map
from amorsize.call import adviser
from amorsize.call.evidence import Evidence
from amorsize.decide.figures import Profile
from amorsize.measure.probe import Probe, profile_of
from amorsize.measure.timing import Block
from tests.load import first_undisturbed

MARK = Path(tempfile.gettempdir(), f"amorsize-loaded-{os.getpid()}")


def load_once(_):
    """Take 0.3 s the first time, and some microseconds from then on."""
    if not os.path.exists(MARK):
        MARK.touch()
        end = time.perf_counter() + 0.3
        while time.perf_counter() < end:
            pass
    return sum(range(500))


@pytest.fixture(autouse=True)
def unloaded():
    """Leave no mark behind."""
    yield
    MARK.unlink(missing_ok=True)


@pytest.mark.parametrize("form", [smart_map, lambda *args, **kw: list(smart_imap(*args, **kw))])
@pytest.mark.parametrize("items", [100, 1_000])
def test_a_first_slow_item_starts_no_worker(form, items):
    """The others are over before a worker could be there."""

    def attempt():
        reports = []
        for _ in range(2):
            MARK.unlink(missing_ok=True)
            form(load_once, range(items), report=reports.append)
        return [report.worker_items for report in reports]

    assert first_undisturbed(attempt, [0, 0]) == [0, 0]


def test_a_first_slow_item_drops_no_record():
    """As a process has that remembers another one's calls."""
    MARK.touch()
    smart_map(load_once, range(1_000))

    def attempt():
        MARK.unlink(missing_ok=True)
        reports = []
        smart_map(load_once, range(1_000), report=reports.append)
        (report,) = reports
        return report.cache_hit, report.worker_items, report.profile.item_seconds < 0.001

    for _ in range(2):
        assert first_undisturbed(attempt, (True, 0, True)) == (True, 0, True)


def test_a_first_slow_item_is_in_no_figure_of_the_profile():
    """Spread and longest come from the same blocks as the mean."""
    probe = Probe()
    probe.add(Block(1, 0.3, 0.3))
    for size in (1, 4, 16, 64):
        probe.add(Block(size, size * 20e-6, size * 20e-6))
    profile = profile_of(probe.usual, probe.mean)
    assert profile.item_seconds == pytest.approx(20e-6)
    assert profile.most_seconds == pytest.approx(20e-6)
    assert profile.spread < 1e-6


def test_the_first_block_alone_can_only_be_too_short():
    """A record is dropped by it where items are much quicker than ever, not where they are slow."""
    smart_map(load_once, range(1_000))
    found = adviser.Adviser.of_call(
        load_once, 1_000, jobs=None, backend=None, mp_context=None, use_cache=True
    )
    found.recall.look_up()
    assert found.recall.confirm(10.0, first=True) is not None
    assert found.recall.confirm(1e-9, first=True) is None


def test_a_slow_first_block_is_no_surprise():
    """What is remembered stands until a second block contradicts it, too."""
    known = Profile(20e-6, least_seconds=15e-6, most_seconds=30e-6)
    evidence = Evidence()
    evidence.probe.add(Block(1, 0.3, 0.3))
    assert evidence.profile(known) == known
    evidence.probe.add(Block(1, 0.3, 0.3))
    assert evidence.profile(known).item_seconds == pytest.approx(0.3)
