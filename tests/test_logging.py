"""The logger ``amorsize`` and OpenTelemetry hear of each call."""

import logging
import sys

import pytest

from amorsize import smart_imap, smart_map
from tests import functions as f
from tests import programs


@pytest.mark.parametrize("options", [{}, {"n_jobs": 1}, {"n_jobs": 2}, {"backend": "serial"}])
def test_a_call_is_one_line_at_info(options, caplog):
    """With the function, where it ran and why; the report is at DEBUG."""
    caplog.set_level(logging.INFO, "amorsize")
    smart_map(f.wait_5ms, range(30), **options)
    [record] = caplog.records
    assert record.getMessage().startswith("wait_5ms: ")
    assert "\n" not in record.getMessage()
    caplog.clear()
    caplog.set_level(logging.DEBUG, "amorsize")
    list(smart_imap(f.wait_5ms, range(30), **options))
    assert [record.levelname for record in caplog.records] == ["INFO", "DEBUG"]
    assert "30 items in" in caplog.records[1].getMessage()


def test_nothing_is_logged_by_default():
    """Not even loaded: a process without logging stays without it."""
    source = (
        "import sys; from amorsize import smart_map; smart_map(abs, range(10))\n"
        "print('logging' in sys.modules)"
    )
    ended = programs.run("-c", source, AMORSIZE_VERBOSE="")
    assert (ended.out, ended.err) == ("False\n", "")


@pytest.mark.parametrize(("verbose", "lines"), [("1", 1), ("2", 2)])
def test_verbose_shows_decisions_without_a_setup(verbose, lines):
    """On standard error; a program's own setup is left alone."""
    source = "from amorsize import smart_map\nsmart_map(abs, range(10))"
    ended = programs.run("-c", source, AMORSIZE_VERBOSE=verbose)
    assert ended.err.count("amorsize: abs: ") == lines
    own = "import logging; logging.basicConfig(format='MINE %(message)s', level=20)\n" + source
    ended = programs.run("-c", own, AMORSIZE_VERBOSE=verbose)
    assert ended.err.startswith("MINE abs: in the calling process")
    assert ended.err.count("\n") == 1


@pytest.fixture
def exported():
    """Return the spans that were emitted, once a provider takes them."""
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = provider
    yield trace, exporter
    trace._TRACER_PROVIDER = before


@pytest.mark.parametrize("options", [{"n_jobs": 1}, {"n_jobs": 2, "chunksize": 5}])
def test_a_call_is_a_span_and_so_is_each_chunk(exported, options):
    """Below the span that is current; with times that lie in each other."""
    trace, exporter = exported
    with trace.get_tracer("test").start_as_current_span("outer") as outer:
        smart_map(f.wait_5ms, range(30), **options)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    run = spans["amorsize wait_5ms"]
    chunks = [span for span in exporter.get_finished_spans() if span.name == "amorsize chunk"]
    assert run.parent.span_id == outer.get_span_context().span_id
    assert run.attributes["amorsize.items"] == 30
    assert {chunk.parent.span_id for chunk in chunks} == {run.context.span_id}
    assert sum(chunk.attributes["amorsize.items"] for chunk in chunks) == 30
    slack = 5_000_000
    for chunk in chunks:
        assert run.start_time - slack <= chunk.start_time <= chunk.end_time
        assert chunk.end_time <= run.end_time + slack


def test_a_failed_call_is_a_span_with_its_error(exported):
    """And a call whose consumer stops is none."""
    trace, exporter = exported
    with pytest.raises(ValueError, match="no 30"):
        smart_map(f.fail_on_multiples_of_30, range(50))
    run = exporter.get_finished_spans()[-1]
    assert run.status.status_code is trace.StatusCode.ERROR
    assert run.events[0].attributes["exception.type"] == "ValueError"
    results = smart_imap(f.double, range(50))
    next(results)
    results.close()
    assert exporter.get_finished_spans()[-1].status.is_ok


def test_without_a_provider_there_are_no_spans():
    """Where OpenTelemetry is loaded and not set up, a call makes no report."""
    pytest.importorskip("opentelemetry.trace")
    source = (
        "import sys, opentelemetry.trace; from amorsize import smart_map\n"
        "smart_map(abs, range(10)); print('amorsize.call.reporting' in sys.modules)"
    )
    assert programs.run("-c", source).out == "False\n"
    assert "opentelemetry" in sys.modules
