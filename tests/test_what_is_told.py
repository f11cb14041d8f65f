"""What a person is told: reasons, plurals, causes, and nothing that nobody knows."""

import os
import pydoc
import re

import pytest

from amorsize import (
    optimize,
    parallelize,
    smart_imap,
    smart_imap_unordered,
    smart_map,
    smart_starmap,
)
from amorsize.call.reporting import contradictions, others
from amorsize.decide.figures import FIRST_COSTS, Profile
from amorsize.decide.planner import Candidate, PlanInput, StartOption, make_plan, plan_for_little
from amorsize.measure.machine import Machine, waiting_programs
from amorsize.options import Options
from amorsize.show.hints import hints_for_run
from amorsize.show.report import RunReport, describe
from amorsize.units import counted, times
from tests import functions as f
from tests import programs

ASKED = {"jobs": None, "chunksize": None, "cpus": 2, "seconds": 1.0, "start_seconds": 0.0,
         "shipped_bytes": 0}  # fmt: skip


def best_of(plan):
    """Return the best of what was considered beside serial."""
    return min(plan.candidates[1:], key=lambda candidate: candidate.seconds)


def report_of(func, data, **options):
    """Return the report of a call."""
    reports = []
    smart_map(func, data, report=reports.append, **options)
    return reports[0]


def test_serial_that_is_forecast_to_be_slower_says_why():
    """The gain is less than forecasts are wrong by; both numbers are named."""
    room = PlanInput(20, 2, FIRST_COSTS._replace(error=0.3), (StartOption("fork"),))
    near = (make_plan(Profile(n * 1e-5, items=100), room) for n in range(1, 300))
    plan = next(p for p in near if p.executor == "serial" and best_of(p).seconds < p.seconds)
    best = best_of(plan)
    gain = 1 - best.seconds / plan.serial_seconds
    assert f"{gain:.1%}" in plan.reason
    assert "wrong by 30%" in plan.reason


def test_serial_that_is_quicker_needs_no_such_reason():
    """What would take longer in workers is said so."""
    profile = Profile(0.001, result_bytes=100, items=100)
    plan = make_plan(profile, PlanInput(4, 2, FIRST_COSTS, (StartOption("spawn"),)))
    assert plan.executor == "serial"
    assert "wrong by" not in plan.reason


def test_nothing_decided_is_not_said_to_be_decided():
    """A call that is over at once decides nothing."""
    text = report_of(f.double, range(5)).explain()
    assert "decided" not in text
    assert "after 0 ns" not in text


def test_no_forecast_is_shown_of_items_that_were_not_measured():
    """Workers that were asked for start with what is assumed, which is no forecast."""
    report = report_of(f.double, range(100), n_jobs=2)
    assert report.forecast_seconds is None
    assert "forecast" not in report.explain()
    assert "from what was" not in report.explain()
    assert "workers were asked for" in report.explain()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_how_workers_were_started_is_said_with_the_reason(method):
    """The start method, and why that one."""
    report = report_of(f.double, range(100), n_jobs=2, mp_context=method)
    (line,) = [line for line in report.explain().splitlines() if "  started " in line]
    assert f"by {method}: " in line
    assert report.start_reason in line


def test_why_fork_was_not_used_is_said(tmp_path):
    """The reason that the choice of the start method gives is printed as it is."""
    report = report_of(f.double, range(100), n_jobs=2)
    assert f"by {report.start_method}: {report.start_reason}" in report.explain()
    threads = report_of(f.double, range(100), n_jobs=2, backend="thread")
    assert "  started   as threads: " in threads.explain()
    assert "  started " not in report_of(f.double, range(100), n_jobs=1).explain()


def test_small_factors_are_fractions():
    """A slow-down is not told as nothing, nor with digits that say nothing."""
    factors = {24_151.7: "24,000", 34.2: "34", 1: "1.00", 0.5: "0.50", 0.001: "1/1,000"}
    assert [times(factor) for factor in factors] == list(factors.values())
    text = repr(optimize(f.double, range(100), n_jobs=8))
    assert "0.00 times" not in text
    assert "0.00 times" not in report_of(f.double, range(3), n_jobs=2).explain()


class TestPlurals:
    """One of a thing is no plural."""

    def test_numbers_are_counted(self):
        """Also large ones, and odd plurals."""
        assert counted(1, "process", "processes") == "1 process"
        assert counted(12_345, "item") == "12,345 items"
        assert counted(0.6, "byte") == "1 byte"
        assert counted(1.6, "byte") == "2 bytes"

    def test_candidates_and_reasons(self):
        """Of processes and threads, new and kept."""
        assert str(Candidate("fork", 1, False, 1.0)) == "1 process (fork)"
        assert str(Candidate("spawn", 1, True, 1.0)) == "1 kept process (spawn)"
        assert str(Candidate("fork", 2, False, 1.0)) == "2 processes (fork)"
        assert str(Candidate("thread", 1, False, 1.0)) == "1 thread"
        waiting = Profile(0.1, cpu_share=0.0)
        plan = make_plan(
            waiting, PlanInput(2, 1, FIRST_COSTS, (StartOption("spawn"),), most_workers=1)
        )
        assert not re.search(r"\b1 processes|1 process \(\w+\) are", plan.reason)
        little = plan_for_little(
            Profile(0.004), PlanInput(1, 1, FIRST_COSTS, (StartOption("fork"),))
        )
        assert "1 CPUs" not in little.reason

    def test_reports_and_advice(self):
        """Everything that is printed of one item, one worker, one chunk."""
        reports = [
            report_of(f.double, range(1), n_jobs=1),
            report_of(f.busy_ms, range(1), backend="process"),
            report_of(f.busy_ms, range(1), n_jobs=2),
            report_of(f.busy_ms, range(2), n_jobs=2, chunksize=2, mp_context="spawn"),
        ]
        told = [str(report) + repr(report) for report in reports]
        told += [str(optimize(f.busy_ms, (x for x in range(1)))), str(Machine(1, 1, 10**9, ""))]
        for text in told:
            assert not re.search(
                r"\b1 (items|processes|threads|chunks|CPUs|usable CPUs|bytes)", text
            )

    def test_a_time_limit(self):
        """The number of finished items."""
        with pytest.raises(TimeoutError, match=r"\d items? (was|were) finished") as caught:
            smart_map(f.wait_5ms, range(10_000), timeout=0.05, n_jobs=1)
        assert "1 items" not in str(caught.value)


class TestBusy:
    """Other programs on the CPUs are a cause, and are named as one."""

    def test_they_are_named_where_they_leave_no_cpu(self):
        """And not where they do."""
        assert others(1, 2) == others(0, 1) == ""
        assert others(2, 2) == "2 threads of other programs want to run on 2 CPUs"
        assert others(1, 1) == "1 thread of other programs wants to run on 1 CPU"

    def test_a_contradicted_forecast_names_them(self):
        """A slow run is no slow-down of the library then."""
        (text,) = contradictions(1.0, 2.5, others(4, 2))
        assert "busy with other programs" in text
        assert contradictions(1.0, 1.1, others(4, 2)) == []

    def test_they_are_no_cause_of_a_run_that_was_faster(self):
        """Nor are they named then."""
        (text,) = contradictions(2.5, 1.0, others(4, 2))
        assert "busy" not in text

    def test_they_are_no_cause_where_workers_cannot_pay(self):
        """Three items of nothing are slower in workers on an idle machine, too."""
        plan = make_plan(
            Profile(1e-3),
            PlanInput(3, 2, FIRST_COSTS, (StartOption("fork"),), n_jobs=2, must_run=True),
        )
        given = {**ASKED, "jobs": 2, "seconds": 0.5, "busy": others(4, 2)}
        (hint,) = hints_for_run(Profile(1e-5), 3, FIRST_COSTS, plan, **given)
        assert hint.startswith("n_jobs=2 took 17,000 times as long")
        assert hint.endswith("leave it out")

    def test_a_hint_does_not_blame_the_number_of_jobs(self):
        """It is to be tried again."""
        profile = Profile(0.01)
        plan = make_plan(profile, PlanInput(100, 2, FIRST_COSTS, (StartOption("fork"),), n_jobs=2))
        given = {"jobs": 2, "chunksize": None, "cpus": 2, "seconds": 3.0, "start_seconds": 0.0,
                 "shipped_bytes": 0}  # fmt: skip
        (idle,) = hints_for_run(profile, 100, FIRST_COSTS, plan, **given)
        (busy,) = hints_for_run(profile, 100, FIRST_COSTS, plan, **given, busy=others(4, 2))
        assert "leave it out" in idle
        assert "leave it out" not in busy
        assert "other programs" in busy

    def test_what_the_system_tells(self, tmp_path):
        """The running threads but for this one; 0 where it tells nothing."""
        (tmp_path / "proc").mkdir()
        for text, found in (("0.1 0.2 0.3 5/312 99\n", 4), ("", 0), ("a b c d e", 0), ("1 1", 0)):
            (tmp_path / "proc" / "loadavg").write_text(text)
            assert waiting_programs(str(tmp_path)) == found
        assert waiting_programs("/not/there") == 0

    @pytest.mark.skipif(not os.path.exists("/proc/loadavg"), reason="needs Linux")
    def test_real_load_is_reported(self):
        """One busy loop for each CPU of the machine, and one more."""
        loops = (os.cpu_count() or 1) + 1
        code = "print('on', flush=True)\nwhile True: pass"
        with programs.started("-c", code) as first:
            others_ = [programs.started("-c", code) for _ in range(loops - 1)]
            processes = [first, *(one.__enter__() for one in others_)]
            try:
                for process in processes:
                    process.stdout.readline()
                text = report_of(f.busy_ms, range(50)).explain()
            finally:
                for one in others_:
                    one.__exit__(None, None, None)
        assert re.search(r"  busy      \d+ threads of other programs want to run", text), text


def raises_at_once(x):
    raise ValueError(x)


def fails_late(x):
    f.busy_ms(x)
    if x == 40:
        raise ValueError(f"no {x}")
    return x


class TestEndedEarly:
    """A call that raised, was too late or was left tells what ran, and judges nothing."""

    def told(self, func=fails_late, error=ValueError, **options):
        """Return the report of a call that raises."""
        reports = []
        with pytest.raises(error):
            smart_map(func, range(60), report=reports.append, **options)
        return reports[0]

    @pytest.mark.parametrize("known", [False, True], ids=["unknown", "remembered"])
    def test_no_results_is_not_no_items(self, known):
        """The headline says that it ended early; neither gain nor forecast error is made of it."""
        if known:
            smart_map(f.busy_ms, range(60))
        text = self.told(n_jobs=2).explain()
        assert "fails_late: ended early, after " in text
        assert ", with 0 results" in text
        assert " 0 items" not in text
        for word in ("times as long", "actual", "it took", "starting and ending"):
            assert word not in text

    def test_items_that_ran_in_the_caller_are_counted(self):
        """Also where no result was given."""
        report = self.told(timeout=0.2, func=f.wait_50ms, error=TimeoutError)
        assert report.ended_early
        assert report.caller_items > 0

    def test_nothing_is_said_to_have_been_quicker(self):
        """Where the time was up, or an item raised, before anything was decided."""
        report = self.told(timeout=0.02, func=f.wait_50ms, error=TimeoutError)
        assert "quicker" not in report.reason
        assert "quicker" not in report_of(f.double, []).reason
        assert "quicker" in report_of(f.double, [1]).reason

    @pytest.mark.parametrize("options", [{"n_jobs": 1}, {}], ids=["one job", "first item"])
    def test_it_is_known_though_nothing_was_decided(self, options):
        """Where no adviser was asked: one job, or the first item raised."""
        report = self.told(f.fail_on_multiples_of_30, **options)
        assert report.ended_early
        first = self.told(raises_at_once, **options)
        assert "ended early" in first.explain()
        assert "quicker" not in first.reason

    def test_a_closed_iterator_ended_early_too(self):
        """With as many results as were asked for."""
        reports = []
        results = smart_imap(f.busy_ms, range(60), n_jobs=2, report=reports.append)
        next(results)
        results.close()
        assert ", with 1 result" in str(reports[0])


class TestOneJob:
    """Who asked for one job is named, and only that."""

    def test_the_environment(self, monkeypatch):
        """By its variable: where it cut n_jobs, and where it alone decided."""
        monkeypatch.setenv("AMORSIZE_N_JOBS", "1")
        report = report_of(f.busy_ms, range(60), n_jobs=4)
        assert report.reason == "AMORSIZE_N_JOBS=1 allows one job"
        assert "n_jobs=4 was cut to 1" in report.warnings[0]
        assert not any("n_jobs=1" in hint for hint in report.hints)

    def test_the_environment_keeps_cpus_idle(self):
        """The hint for who forgot that it is set."""
        (hint,) = hints_for_run(Profile(0.01), 100, FIRST_COSTS, None, **ASKED, allowed=1)
        assert hint == "the environment variable AMORSIZE_N_JOBS keeps 1 of 2 CPUs idle"
        assert hints_for_run(Profile(0.01), 100, FIRST_COSTS, None, **ASKED, allowed=2) == []

    def test_the_backend(self):
        """By its name."""
        assert 'backend="serial"' in report_of(f.double, range(10), backend="serial").reason

    def test_advice_for_one_job_has_no_workers(self):
        """No process that was chosen, no warning of it, no workers that were asked for."""
        for _ in range(2):
            advice = optimize(f.busy_ms, range(100), n_jobs=1)
            assert (advice.reason, advice.warnings) == ("one job was asked for", ())
            assert "process" not in advice.explain()

    def test_advice_names_the_environment_as_well(self, monkeypatch):
        """As the reason."""
        monkeypatch.setenv("AMORSIZE_N_JOBS", "1")
        assert "AMORSIZE_N_JOBS=1" in optimize(f.busy_ms, range(100), n_jobs=4).reason


class TestNotMeasured:
    """What was not measured is not shown as a number."""

    @pytest.mark.parametrize(
        ("profile", "told"),
        [
            (Profile(0.01), "10 ms"),
            (Profile(0.01, spread=1e-12, cpu_share=0.3), "10 ms, 30% CPU"),
            (Profile(0.01, spread=0.003, cpu_share=1.01), "10 ms +- 3 ms, 101% CPU"),
            (Profile(0.01, cpu_share=2.0), "10 ms, 200% CPU"),
            (Profile(1e-5, cpu_share=1.3, items=3), "10 us"),
            (Profile(1e-5, cpu_share=1.3, items=1_000), "10 us, 130% CPU"),
            (Profile(0.01, cpu_share=10.6), "10 ms"),
        ],
        ids=["nothing", "one block", "all", "two threads", "too short", "long enough", "clocks"],
    )
    def test_spread_and_cpu_share(self, profile, told):
        """Of one block there is no spread; of a moment no CPU share, nor one beyond all CPUs."""
        assert describe(profile, 2) == told

    def test_one_item_that_sleeps_does_not_compute(self):
        """Its CPU time is not known."""
        text = report_of(f.wait_5ms, [1]).explain()
        assert "100% CPU" not in text
        assert "+-" not in text


class TestAPlanThatCameOtherwise:
    """The plan is told, but not as what was done."""

    def report(self, backend, method):
        """Return a report of a run that was planned for fork."""
        room = PlanInput(100, 2, FIRST_COSTS, (StartOption("fork"),))
        plan = make_plan(Profile(0.01), room)
        return RunReport(
            "work", 100, backend, 2, 0, 0, method, "", "", False, plan, None, 0.5, 0.6, 0.1, None,
            100, 0, (), 0, (), (),
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("backend", "method", "mark"),
        [("process", "fork", "chosen"), ("process", "forkserver", "planned"),
         ("serial", "", "planned")],
    )  # fmt: skip
    def test_the_mark(self, backend, method, mark):
        """Chosen is what was done."""
        text = self.report(backend, method).explain()
        assert f"2 processes (fork)  <- {mark}" in text


class TestRepr:
    """A value is a line, printed it is a page."""

    def test_a_report(self):
        """repr is one short line, str what explain returns."""
        for report in (report_of(f.busy_ms, range(60), n_jobs=2), report_of(f.double, range(3))):
            assert str(report) == report.explain()
            assert "\n" not in repr(report)
            assert len(repr(report)) < 200
            assert repr(report).startswith(
                f"<RunReport {report.function}: {report.items} items in "
            )

    def test_advice(self):
        """The same; the data is in neither."""
        advice = optimize(f.double, list(range(5_000)))
        assert str(advice) == advice.explain()
        assert "\n" not in repr(advice)
        assert len(repr(advice)) < 200
        assert "n_jobs=" in repr(advice)


FORMS = {
    "smart_map": (smart_map, False),
    "smart_starmap": (smart_starmap, False),
    "smart_imap": (smart_imap, True),
    "smart_imap_unordered": (smart_imap_unordered, True),
    "parallelize": (parallelize, True),
}


@pytest.mark.parametrize("name", FORMS)
def test_help_lists_the_options(name):
    """With type, default and meaning, each; buffersize where it counts."""
    form, lazy = FORMS[name]
    text = pydoc.plain(pydoc.render_doc(form))
    assert "takes fork on Linux if this process can be forked safely" in " ".join(text.split())
    for option, default in Options._field_defaults.items():
        line = re.search(rf"^ +{option}: .+ = {re.escape(repr(default))}\.$", text, re.MULTILINE)
        assert bool(line) is (lazy or option != "buffersize"), option
    assert "n_jobs: int | None = None." in text
    assert "Time limit of one item" in text
    assert max(map(len, text.partition("Options")[2].splitlines())) <= 100


class TestChunksize:
    """The habit of pool.map(f, data, 10)."""

    @pytest.mark.parametrize("form", [smart_map, smart_starmap, smart_imap, smart_imap_unordered])
    @pytest.mark.parametrize("kind", ["int", "numpy"])
    def test_a_number_in_its_place_is_told_as_what_it_is(self, form, kind):
        """At once, with what to write instead."""
        number = 10 if kind == "int" else pytest.importorskip("numpy").int64(10)
        with pytest.raises(TypeError, match=r"chunksize=10\b") as caught:
            form(f.double, [1, 2, 3], number)
        assert form.__name__ in str(caught.value)

    def test_decorated_functions_say_it_too(self):
        """Every form of them."""
        decorated = parallelize(f.double)
        for form in (decorated.map, decorated.starmap, decorated.imap, decorated.imap_unordered):
            with pytest.raises(TypeError, match="chunksize=10"):
                form([1, 2, 3], 10)

    def test_what_is_no_number_is_told_as_before(self):
        """And a second iterable of starmap is one too many."""
        with pytest.raises(TypeError, match="must be iterable"):
            smart_map(f.double, [1], None)
        with pytest.raises(TypeError, match="one iterable"):
            smart_starmap(f.double, [(1,)], [(2,)])
        with pytest.raises(TypeError, match="must be iterable"):
            smart_map(f.double, 10)
