"""Reports and progress: what a run decided, how far it is."""

import contextlib
import os
import re
import subprocess
import sys

import pytest

from amorsize import optimize, smart_imap, smart_map
from amorsize.decide.figures import FIRST_COSTS, Profile
from amorsize.decide.planner import PlanInput, StartOption, make_plan
from amorsize.show.hints import hints_for_run
from amorsize.units import duration
from tests import functions as f


def report_of(func, data, **options):
    reports = []
    smart_map(func, data, report=reports.append, **options)
    (report,) = reports
    return report


def test_a_serial_run_says_so():
    """Items, backend and reason of a run in the calling process."""
    report = report_of(f.double, range(10), n_jobs=1)
    assert (report.items, report.backend, report.n_jobs) == (10, "serial", 1)
    assert report.caller_items == 10
    assert report.reason == "one job was asked for"
    assert "in the calling process" in report.explain()


def test_a_run_in_workers_tells_everything():
    """Workers, chunks, start method and timeline; the items add up."""
    report = report_of(f.busy_ms, range(60), n_jobs=2)
    assert (report.backend, report.n_jobs, report.items) == ("process", 2, 60)
    assert report.worker_items == sum(span.items for span in report.timeline) == 60
    assert len(report.workers) <= 2
    assert report.chunks == len(report.timeline)
    assert report.start_method in report.explain()
    assert 0.0005 < report.profile.item_seconds < 0.1


def test_a_second_run_is_a_hit_with_a_forecast():
    """What was remembered gives a forecast, told beside the actual time."""
    report_of(f.busy_ms, range(100))
    report = report_of(f.busy_ms, range(100))
    assert report.cache_hit
    assert report.forecast_seconds > 0
    assert report.decided_seconds < report.actual_seconds
    text = report.explain()
    assert "remembered" in text
    assert "forecast" in text


def test_what_this_process_remembers_is_asked_for_early():
    """A first call goes on timing items, a second one soon runs many at once."""

    def blocks():
        done = []
        smart_map(f.double, range(40_000), progress=lambda so_far, _: done.append(so_far))
        return len(done)

    first = blocks()
    assert first > blocks()


def test_a_serial_run_tells_the_range_of_its_forecast():
    """The range is that of the whole run, not of what was left when it was looked at last."""
    reports = []
    smart_map(f.busy_ms, range(60), backend=None, report=reports.append, n_jobs=None)
    smart_map(f.double, range(300_000), report=reports.append, use_cache=False)
    for report in reports:
        low, high = (report.decided_seconds + part for part in (report.plan.low, report.plan.high))
        assert low <= report.forecast_seconds <= high


def test_a_failed_run_is_reported_too():
    """The report comes also when the call raises."""
    reports = []
    with pytest.raises(ValueError, match="no 30"):
        smart_map(f.fail_on_multiples_of_30, range(50), n_jobs=2, report=reports.append)
    assert len(reports) == 1


def test_imap_reports_when_it_ends_or_is_closed():
    """A lazy run reports what it produced."""
    reports = []
    list(smart_imap(f.double, range(10), report=reports.append))
    results = smart_imap(f.double, range(10), n_jobs=1, report=reports.append)
    next(results)
    results.close()
    assert [report.items for report in reports] == [10, 1]


@pytest.mark.parametrize("options", [{"n_jobs": 2}, {"n_jobs": 1}, {}, {"backend": "thread"}])
def test_a_progress_callable_hears_of_every_item(options):
    """The callable is told (done, total), growing up to the total."""
    heard = []
    smart_map(
        f.double, range(50), progress=lambda done, total: heard.append((done, total)), **options
    )
    assert heard[-1] == (50, 50)
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})


def test_progress_counts_imap_and_unknown_lengths():
    """Lazy runs count, too; the total of a generator is unknown."""
    heard = []
    list(
        smart_imap(
            f.double, iter(range(700)), progress=lambda done, total: heard.append((done, total))
        )
    )
    assert heard[-1] == (700, None)


def test_progress_true_shows_a_bar(capsys):
    """With tqdm there is its bar, with the function's name or the description given."""
    smart_map(f.double, range(50), progress=True)
    assert "double" in capsys.readouterr().err
    smart_map(f.double, range(50), progress="doubling")
    assert "doubling: 100%" in capsys.readouterr().err


PLAIN = """
import sys; sys.modules['tqdm.auto'] = None
import time
from amorsize import smart_map
def work(x): time.sleep(0.01)
smart_map(work, range(50), progress='work', n_jobs=1)
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal of Unix")
def test_progress_without_tqdm_is_a_plain_line_on_a_terminal():
    """It tells the count, the rate and the time left, again and again in the same place."""
    ours, theirs = os.openpty()
    with subprocess.Popen([sys.executable, "-c", PLAIN], stderr=theirs) as program:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 4096):
                shown += part
        os.close(ours)
    assert program.returncode == 0
    lines = shown.decode().split("\r")
    assert any(re.fullmatch(r"work: \d+/50 \(\d+%\) in .*s, [\d.]+/s, .*s left *", one)
               for one in lines)  # fmt: skip
    assert lines[-2].startswith("work: 50/50 (100%) in")
    assert lines[-1] == "\n"


def test_progress_without_tqdm_is_silent_elsewhere():
    """A log file does not get a line for each redrawing."""
    done = subprocess.run(
        [sys.executable, "-c", PLAIN], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("options", [{"n_jobs": 2}, {"n_jobs": 2, "backend": "thread"}, {}])
def test_progress_goes_on_steadily(options):
    """No part of a call is long finished before it is counted."""
    counts = []
    smart_map(f.busy_ms, range(600), progress=lambda done, total: counts.append(done), **options)
    steps = [after - before for before, after in zip([0, *counts], counts, strict=False)]
    assert len(steps) >= 6
    assert max(steps) <= 150


def test_durations_have_suitable_units():
    """From nanoseconds to hours: three digits, in the unit they round to, never an exponent."""
    told = {
        0.0: "0 ns",
        1e-9: "1 ns",
        9.996e-7: "1 us",
        2e-6: "2 us",
        0.0009996: "1 ms",
        0.5: "500 ms",
        0.9994: "999 ms",
        0.9999: "1 s",
        90: "90 s",
        999.6: "1,000 s",
        1_234: "1,234 s",
        100_000: "100,000 s",
    }
    assert [duration(seconds) for seconds in told] == list(told.values())


class TestExplain:
    """One screen: what was measured, considered, chosen, and what happened."""

    def test_a_run_shows_machine_candidates_and_what_happened(self):
        """Forecasts with a range, the chosen one marked, the machine with its reasons."""
        report_of(f.busy_ms, range(200))
        text = report_of(f.busy_ms, range(200)).explain()
        assert "usable CPUs (" in text
        assert "physical cores" in text
        assert " GB (" in text
        assert "serial" in text
        assert " to " in text.partition("forecast  ")[2].partition("\n")[0]
        assert len(text.splitlines()) <= 24
        (chosen,) = [line for line in text.splitlines() if "<- chosen" in line]
        assert "forecast" in chosen

    def test_advice_shows_what_it_rests_on(self):
        """optimize's explain: measurement, machine, candidates."""
        text = optimize(f.busy_ms, range(1_000)).explain()
        for part in ("measured", "an item", "usable CPUs", "<- chosen", "serial"):
            assert part in text

    def test_small_chunks_that_were_asked_for_are_told(self):
        """An explicit option that hurts is named, with what it costs."""
        report = report_of(f.double, range(2_000), n_jobs=2, chunksize=1)
        assert any("chunksize=1" in hint and "leave it out" in hint for hint in report.hints)
        assert any("n_jobs=2" in hint for hint in report.hints)
        assert "hint      " in report.explain()

    def test_a_large_captured_object_is_told(self):
        """What travels with the function of each call."""
        table = bytes(3_000_000)
        report = report_of(lambda x: f.busy_ms(x) + table[0], range(40), n_jobs=2,
                           mp_context="spawn")  # fmt: skip
        assert any("carries 3 MB" in hint for hint in report.hints)

    def test_waiting_functions_are_told_of_threads(self):
        """With the forecast, and the condition."""
        report_of(f.wait_5ms, range(200))
        report = report_of(f.wait_5ms, range(200))
        assert any('backend="thread"' in hint for hint in report.hints)
        busy = report_of(f.busy_ms, range(100))
        # On a machine that is busy with something else, everything waits.
        assert busy.profile.cpu_share < 0.5 or not any("thread" in h for h in busy.hints)


COSTS = FIRST_COSTS
NOTHING = {"jobs": None, "chunksize": None, "cpus": 4, "seconds": 1.0, "start_seconds": 0.0,
           "shipped_bytes": 0}  # fmt: skip


def hints(profile, items, plan, **changes):
    return hints_for_run(profile, items, COSTS, plan, **{**NOTHING, **changes})


def test_every_hint_has_its_condition():
    """Tiny items, large results and arguments, idle CPUs, too many workers; or nothing."""
    fine = Profile(0.01, result_bytes=100, pickle_seconds=1e-6)
    plan = make_plan(fine, PlanInput(1_000, 4, COSTS, (StartOption("fork"),)))
    assert hints(fine, 1_000, plan, seconds=3.0) == []
    for profile, items, changes, word in (
        (Profile(3e-8), 100_000, {}, "many values at a time"),
        (Profile(1e-3, result_bytes=8e6, pickle_seconds=0.003), 100, {}, "return less"),
        (Profile(1.0, arg_bytes=8e6), 100, {}, "pass a path"),
        (fine, 1_000, {"jobs": 64, "seconds": 3.0}, "gain nothing"),
        (fine, 1_000, {"jobs": 2, "seconds": 30.0}, "times as long as the serial loop"),
        (fine, 1_000, {"start_seconds": 0.9, "seconds": 3.0}, "give one call more items"),
        (fine, 1_000, {"chunksize": 900, "seconds": 3.0}, "without work"),
        (fine, 1_000, {"shipped_bytes": 2_000_000, "seconds": 3.0}, "carries 2 MB"),
    ):
        found = hints(profile, items, plan, **changes)
        assert any(word in hint for hint in found), (word, found)
    assert "idle" in hints(fine, 1_000, None, jobs=1)[0]
