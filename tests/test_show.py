"""Reports and progress: what a run decided, how far it is."""

import subprocess
import sys

import pytest

from amorsize import smart_imap, smart_map
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
    assert report.profile.item_seconds == pytest.approx(0.001, rel=0.9)


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


def test_progress_without_tqdm_is_a_plain_line():
    """Without tqdm a line on standard error tells the same."""
    code = (
        "import sys; sys.modules['tqdm.auto'] = None\n"
        "from amorsize import smart_map\n"
        "smart_map(abs, range(50), progress='abs')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "abs: 50/50 (100%)" in done.stderr


def test_durations_have_suitable_units():
    """From nanoseconds to seconds."""
    assert [duration(s) for s in (0.0, 1e-9, 2e-6, 0.5, 90)] == [
        "0 ns",
        "1 ns",
        "2 us",
        "500 ms",
        "90 s",
    ]
