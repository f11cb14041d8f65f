"""What was learned of the machine: it fades, it is written when it moves, and no clock holds it."""

import json
import os
import sys
import time

import pytest

from amorsize import export_cache, get_cache_dir, import_cache, smart_map
from amorsize.call import adviser, costs
from amorsize.decide.figures import FIRST_COSTS, Profile
from amorsize.decide.learning import Seen, costs_drifted, faded_costs, has_drifted, learned_costs
from amorsize.measure.machine import this_machine
from amorsize.measure.probe import pickling
from amorsize.memory import records, store
from amorsize.memory.cache import CACHE, DRIFT
from tests import programs
from tests.conftest import forget, record_files
from tests.functions import busy_ms

ITEM = Profile(item_seconds=0.001, least_seconds=0.0009, most_seconds=0.0011, items=30)
SLOW = Seen("fork", 2, 2, started=0.2, ready=0.4, ended=0.1)


def plan():
    """Return what a new call of 150 items of 1 ms would do, on a machine of two CPUs."""
    asked = adviser.Adviser(
        busy_ms, 150, jobs=None, method="fork", method_reason="", use_cache=True
    )
    asked.machine = this_machine()._replace(cpus=2)
    return asked.plan(ITEM, 150, sliceable=True).executor


def slow_starts():
    for _ in range(8):
        costs.learn_costs(SLOW)


def test_slow_starts_do_not_keep_work_serial_for_ever():
    """What only learned costs keep from workers is tried again after some such calls."""
    assert plan() == "process"
    slow_starts()
    assert plan() == "serial"
    calls = next(n for n in range(400) if plan() == "process")
    assert 5 < calls < 300  # more in a large process, which is dearer to fork


def test_doubt_is_no_more_than_once_a_call():
    """However often a call looks at it again."""
    slow_starts()
    asked = adviser.Adviser(busy_ms, 30, jobs=None, method="fork", method_reason="", use_cache=True)
    asked.machine = this_machine()._replace(cpus=2)
    asked.plan(ITEM, 30, sliceable=True)
    after = costs.machine_costs()
    asked.plan(ITEM, 29, sliceable=True)
    assert costs.machine_costs() == after


def test_what_would_be_serial_anyhow_doubts_nothing():
    """Little work says nothing of what starts cost."""
    slow_starts()
    learned = costs.machine_costs()
    for items in (1, 3):
        asked = adviser.Adviser(
            busy_ms, items, jobs=None, method="fork", method_reason="", use_cache=True
        )
        assert asked.plan(ITEM, items, sliceable=True).executor == "serial"
    assert costs.machine_costs() == learned


def test_a_process_of_one_call_writes_its_doubt():
    """Else processes of one call each would never come to the end of it."""
    slow_starts()
    before = costs.machine_costs().fork
    for _ in range(3):
        forget()
        plan()
    forget()
    assert costs.machine_costs().fork.base < 0.96 * before.base


def test_what_was_learned_long_ago_is_forgotten(monkeypatch):
    """Half of it a day, whatever was run meanwhile."""
    slow_starts()
    learned = costs.machine_costs()
    now = time.time()
    ratios = []
    for days in (0, 1, 30):
        forget()
        monkeypatch.setattr(time, "time", lambda days=days: now + days * 24 * 3600)
        ratios.append(costs.machine_costs().fork.base / FIRST_COSTS.fork.base)
    full = learned.fork.base / FIRST_COSTS.fork.base
    assert ratios[0] == pytest.approx(full, rel=0.3)
    assert ratios[1] == pytest.approx(ratios[0] ** 0.5, rel=0.01)
    assert ratios[2] == pytest.approx(1, rel=0.01)


def test_fading_goes_both_ways_and_ends_at_the_first_costs():
    """Too cheap fades as too dear does; nothing leaves the way between."""
    for ratio in (0.1, 1.0, 16.0):
        dear = FIRST_COSTS._replace(
            fork=FIRST_COSTS.fork._replace(base=ratio * FIRST_COSTS.fork.base), error=0.3
        )
        assert faded_costs(dear, 0).fork.base == pytest.approx(dear.fork.base)
        assert faded_costs(dear, 1) == FIRST_COSTS
        half = faded_costs(dear, 0.5).fork.base / FIRST_COSTS.fork.base
        assert half == pytest.approx(ratio**0.5)


@pytest.mark.parametrize(
    ("field", "before", "after", "drifted"),
    [
        ("item_seconds", 0.001, 0.0015, True),
        ("item_seconds", 0.001, 0.0011, False),
        ("spread", 0.001, 0.002, True),
        ("spread", 0.0, 1e-6, False),
        ("cpu_share", 1.0, 0.2, True),
        ("cpu_share", 0.01, 0.02, False),
        ("result_bytes", 100, 1e6, True),
        ("result_bytes", 100, 200, False),
        ("arg_bytes", 100, 1e6, True),
        ("pickle_seconds", 1e-6, 0.01, True),
        ("pickle_seconds", 1e-6, 2e-6, False),
        ("send_seconds", 1e-6, 0.01, True),
        ("contention", 0.05, 0.5, True),
        ("contention", 0.001, 0.002, False),
        ("import_seconds", 0.0, 0.5, True),
        ("memory_bytes", 0, 300_000_000, True),
        ("memory_bytes", 0, 1_000_000, False),
        ("most_seconds", 0.0011, 1.0, True),
        ("items", 30, 60, False),
    ],
)
def test_a_record_is_written_when_any_figure_moved_that_plans(field, before, after, drifted):
    """Small figures only when it would show in a forecast."""
    old = ITEM._replace(**{field: before})
    assert has_drifted(old, old._replace(**{field: after}), DRIFT) is drifted


def test_a_record_whose_results_grew_is_written_again():
    """Not only the time of an item plans."""
    environment = records.environment_of(this_machine(), "fork")
    record = records.Record("0" * 16, "small", 30, ITEM, "serial", 1, 0, environment, time.time())
    CACHE.remember(record, run_seconds=1.0, stable=True)
    grown = record._replace(profile=ITEM._replace(result_bytes=8e6, pickle_seconds=0.003))
    CACHE.remember(grown, run_seconds=1.0, stable=True)
    (path,) = record_files()
    assert records.from_bytes(path.read_bytes()).profile.result_bytes == 8e6


def test_costs_are_written_when_any_of_them_moved_that_matters():
    """Error and contention as well; and nothing of small ones that no plan would see."""
    assert not costs_drifted(FIRST_COSTS, FIRST_COSTS, 0.25)
    for name, factor in (("error", 2), ("contention", 5), ("chunk_seconds", 2)):
        moved = FIRST_COSTS._replace(**{name: factor * getattr(FIRST_COSTS, name)})
        assert costs_drifted(FIRST_COSTS, moved, 0.25)
    small = FIRST_COSTS._replace(contention=FIRST_COSTS.contention / 100)
    assert not costs_drifted(small, small._replace(contention=2 * small.contention), 0.25)
    # A run in threads moves no figure from nothing to nearly nothing.
    assert not costs_drifted(FIRST_COSTS, learned_costs(FIRST_COSTS, Seen("thread", 2, 2)), 0.25)


class TestClockAhead:
    """A clock that ran ahead, and was set right."""

    def ahead(self, path, seconds=30 * 24 * 3600):
        """Give a file, and what it says of itself, a time in the future."""
        data = records._unsealed(path.read_bytes())
        data["updated"] = time.time() + seconds
        path.write_bytes(records._sealed(data))
        os.utime(path, (time.time() + seconds,) * 2)
        forget()

    def test_a_record_from_the_future_is_replaced_by_the_next_run(self):
        """It is a miss, once."""
        smart_map(busy_ms, range(50))
        (path,) = record_files()
        self.ahead(path)
        hits = []
        for _ in range(2):
            smart_map(busy_ms, range(50), report=lambda report: hits.append(report.cache_hit))
            forget()
        assert hits == [False, True]
        assert json.loads(path.read_text())["updated"] <= time.time()

    def test_it_does_not_keep_another_from_being_imported(self, tmp_path):
        """What counts for nothing is no reason to leave out what does."""
        smart_map(busy_ms, range(50))
        (path,) = record_files()
        export_cache(tmp_path / "exported.json")
        self.ahead(path)
        assert import_cache(tmp_path / "exported.json") == 1
        assert import_cache(tmp_path / "exported.json") == 0

    def test_costs_from_the_future_are_of_unknown_age(self):
        """They fade as what is as old as they are ahead, and are replaced."""
        slow_starts()
        (path,) = get_cache_dir().glob("costs_*.json")
        self.ahead(path)
        assert costs.machine_costs().fork.base == pytest.approx(FIRST_COSTS.fork.base, rel=0.01)
        costs.learn_costs(SLOW)
        assert json.loads(path.read_text())["updated"] <= time.time()

    def test_files_from_the_future_are_not_the_last_to_go(self, tmp_path, monkeypatch):
        """Else they would fill the folder, and each new record would go at once."""
        monkeypatch.setattr(store, "MOST_FILES", 3)
        names = [f"func-{n:016x}_size-small_time-fast_v-3.json" for n in range(6)]
        for place, name in enumerate(names):
            (tmp_path / name).write_text("x")
            if place < 4:
                os.utime(tmp_path / name, (time.time() + 10_000,) * 2)
        store.limit(str(tmp_path), 1e6, store.Rules(records.is_record_name, records.is_leftover))
        left = {path.name for path in tmp_path.iterdir()}
        assert {names[4], names[5]} < left
        store.limit(str(tmp_path), 5_000, store.Rules(records.is_record_name, records.is_leftover))
        assert {path.name for path in tmp_path.iterdir()} == {names[4], names[5]}

    def test_a_use_is_noted_on_a_file_from_the_future(self):
        """Its time is set right when it is read."""
        smart_map(busy_ms, range(50))
        (path,) = record_files()
        os.utime(path, (time.time() + 10_000,) * 2)
        forget()
        smart_map(busy_ms, range(50))
        assert path.stat().st_mtime <= time.time() + 60


def test_importing_what_pickles_is_not_pickling(monkeypatch):
    """What was imported on the way is loaded when it is measured."""
    calls = []

    def dumps(values):
        calls.append(values)
        if len(calls) == 1:
            monkeypatch.setitem(sys.modules, "amorsize_imported_by_pickling", sys)
            time.sleep(0.05)
        return b"x"

    assert pickling([1], dumps)[1] < 0.04
    assert len(calls) == 2
    pickling([1], dumps)
    assert len(calls) == 3


def test_the_first_lambda_costs_what_the_second_does(tmp_path):
    """cloudpickle is imported when a result first needs it, which takes 15 ms."""
    source = """
import sys
from amorsize.call.evidence import Evidence
results = [lambda: 1 for _ in range(20)]
evidence = Evidence()
assert "cloudpickle" not in sys.modules
evidence.measure_travel(results, None, None)
assert "cloudpickle" in sys.modules
first = evidence.travel.pickle_seconds
evidence.measure_travel(results, None, None)
print(first / evidence.travel.pickle_seconds)
"""
    for _ in range(3):  # on a busy machine a clock may stand for longer than what it measures
        ended = programs.run_source(source, tmp_path)
        assert ended.code == 0, ended.err
        if float(ended.out) < 5:
            return
    pytest.fail(f"{ended.out} times as long")
