"""Reports as pages, pictures and traces: they show what happened, and open where they should."""

import json
import re
import shutil

import pytest

from amorsize import last_run, smart_map
from amorsize.run.chunks import Span
from amorsize.show.lanes import lanes_of
from tests import functions as f
from tests import programs

WAYS = {
    "serial": {"n_jobs": 1},
    "decided": {},
    "processes": {"n_jobs": 2},
    "small chunks": {"n_jobs": 2, "chunksize": 1},
    "threads": {"backend": "thread", "n_jobs": 2},
}


@pytest.fixture(params=WAYS)
def report(request):
    smart_map(f.wait_5ms, range(60), **WAYS[request.param])
    return last_run()


@pytest.fixture
def long_report():
    """A run of 2,000 chunks."""
    smart_map(f.double, range(2_000), n_jobs=2, chunksize=1)
    return last_run()


def test_lanes_show_each_item_once(report):
    """In bars that follow each other, within the time of the call."""
    lanes = lanes_of(report)
    assert lanes[0].name == "caller"
    found = []
    for lane in lanes:
        ends = [bar.begin + bar.seconds for bar in lane.bars]
        assert all(bar.begin >= end - 1e-4 for bar, end in zip(lane.bars[1:], ends, strict=False))
        assert all(bar.begin >= -1e-3 for bar in lane.bars)
        assert all(end <= report.actual_seconds + 1e-3 for end in ends)
        found += [x for bar in lane.bars for x in range(bar.start, bar.start + bar.items)]
    assert sorted(found) == [*range(60)]


def test_a_failed_and_an_empty_run_have_pictures(tmp_path):
    """Whatever is missing in them."""
    pytest.importorskip("matplotlib")
    smart_map(f.double, [])
    reports = [last_run()]
    with pytest.raises(ValueError, match="no 30"):
        smart_map(f.fail_on_multiples_of_30, range(50), n_jobs=2)
    reports.append(last_run())
    for number, report in enumerate(reports):
        report.to_html(tmp_path / f"{number}.html")
        report.to_trace(tmp_path / f"{number}.json")
        report.plot().savefig(tmp_path / f"{number}.png")
        assert report._repr_html_()


def test_a_page_needs_no_network(report, tmp_path):
    """Nothing in it names an address, and it holds what the text says."""
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert not re.search(r"(https?:)?//[a-z]|@import|src=|url\(", page)
    assert "prefers-color-scheme" in page
    assert 'name="viewport"' in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [lane["name"] for lane in data["lanes"]] == [lane.name for lane in lanes_of(report)]


def test_names_do_not_break_a_page(tmp_path):
    """A function whose name is markup is shown as it is."""

    def work(x):
        return x

    work.__qualname__ = "</script><b>$title & co"
    smart_map(work, range(5))
    last_run().to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "&lt;/script&gt;&lt;b&gt;$title &amp; co" in page
    assert "<b>$title" not in page
    assert "<b>$title" not in last_run()._repr_html_()


def test_a_trace_has_the_events_that_viewers_read(report, tmp_path):
    """Complete events in microseconds, one thread for each worker, each with a name."""
    report.to_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    assert {event["tid"] for event in spans} <= named
    assert sum(event["args"]["items"] for event in spans) == 60
    for event in spans:
        assert event["dur"] >= 0
        assert -1e3 <= event["ts"] <= 1e6 * report.actual_seconds + 1e3


def test_a_plot_shows_lanes_forecast_and_candidates(report, tmp_path):
    """It can be written, and a notebook shows it."""
    pytest.importorskip("matplotlib")
    figure = report.plot()
    assert len(figure.axes) == 3
    assert figure.axes[0].get_yticklabels()[0].get_text() == "caller"
    figure.savefig(tmp_path / "plot.png")
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch):
    """In one line."""
    import sys

    smart_map(f.double, range(3))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"amorsize\[plot\]"):
        last_run().plot()


def test_a_notebook_gets_a_small_page(long_report):
    """Of a run of 2,000 chunks, too."""
    assert len(long_report._repr_html_()) < 200_000
    assert "<svg" in long_report._repr_html_()


@pytest.mark.skipif(not programs.HAS_EVENT_LOOPS, reason="needs an event loop")
@pytest.mark.parametrize("kind", ["wide", "phone", "dark"])
def test_a_browser_shows_a_long_run_at_once(long_report, tmp_path, kind):
    """2,000 chunks in less than a second, without errors; pointer and keys tell of a chunk."""
    pytest.importorskip("playwright")
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("needs Chromium")
    long_report.to_html(tmp_path / "report.html")
    ended = programs.run("-m", "tests.browse", tmp_path / "report.html", kind)
    assert ended.code == 0, ended.err
    seen = json.loads(ended.out)
    assert (seen["troubles"], seen["fits"]) == ([], True)
    assert seen["drawn"] < 1000
    assert re.match(r"worker 1: items? \d+ to \d+, ", seen["hovered"])
    assert seen["chosen"].startswith("worker 1: ")
    assert seen["next"].startswith("worker 1: ")
    assert seen["next"] != seen["chosen"]


def test_a_span_of_another_engine_has_the_name_of_its_node(report):
    """Its lane is that of the node."""
    from dataclasses import replace

    from amorsize.show.report import Node

    there = replace(
        report,
        workers=(1,),
        nodes=(Node("far:12", 1, 5, 0.1),),
        timeline=(Span(1, 0, 5, report.begun, 0.1),),
    )
    assert [lane.name for lane in lanes_of(there)] == ["caller", "far:12"]
