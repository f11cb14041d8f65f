"""The command line, as a user has it: every command in a process of its own, with its failures."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import amorsize
from tests import programs

WORK = '''
"""Functions for the command line."""
import os, signal, sys, time
from dataclasses import dataclass

def length(line): return len(line)
def half(record): return {"half": record["x"] / 2}
def square(x): return x * x
def picky(x):
    if x == 5: raise LookupError("no 5")
    return x
def slow(x):
    time.sleep(0.02)
    return x
def odd(x): return {1, 2}
def dies(x):
    if x == 5: os.kill(os.getpid(), signal.SIGKILL)
    return x
@dataclass
class Point:
    x: int
def point(x): return Point(x)
class Of:
    @staticmethod
    def doubled(x): return 2 * x
answer = 42
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "broken.py").write_text("import not_there_at_all\ndef f(x): return x\n")
    (tmp_path / "words.txt").write_text("a\nbcd\n\nef\n")
    (tmp_path / "records.jsonl").write_text('{"x": 4}\n\n{"x": 6}\n')
    return tmp_path


def environment():
    """Return the environment of this process, where the commands find amorsize."""
    path = os.pathsep.join(filter(None, [str(programs.ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


def command(folder, *args, feed=None, **env):
    """Run ``amorsize ARGS`` in a folder; return how it ended."""
    done = subprocess.run(
        [sys.executable, "-m", "amorsize", *map(str, args)],
        cwd=folder,
        env={**environment(), **env},
        input=feed,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return programs.Ended(done.returncode, done.stdout, done.stderr)


def lines(ended):
    return [json.loads(line) for line in ended.out.splitlines()]


# run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["work:length", "work.py:length", "./work.py:length"])
def test_run_maps_over_lines(folder, target):
    """Of a file or of standard input, in order."""
    ended = command(folder, "run", target, "--input", "words.txt")
    assert (ended.code, lines(ended), ended.err) == (0, [1, 3, 0, 2], "")
    for given in ([], ["--input", "-"]):
        ended = command(folder, "run", target, *given, feed="xy\nz")
        assert (ended.code, lines(ended)) == (0, [2, 1])


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--n-jobs", 2],
        ["--n-jobs", 2, "--chunksize", 3],
        ["--backend", "serial"],
        ["--seed", 1],
    ],
    ids=str,
)
def test_run_maps_over_numbers(folder, options):
    """With the options of every form."""
    ended = command(folder, "run", "work:square", "--range", 200, *options)
    assert (ended.code, ended.err) == (0, "")
    assert lines(ended) == [x * x for x in range(200)]


def test_run_maps_over_json_records(folder):
    """A value a line; empty lines are none."""
    ended = command(folder, "run", "work:half", "--input", "records.jsonl", "--format", "jsonl")
    assert lines(ended) == [{"half": 2.0}, {"half": 3.0}]


def test_run_writes_what_it_is_told_to(folder):
    """Results to a file, a page, a trace; and what is not plain JSON, as JSON."""
    ended = command(
        folder, "run", "work:point", "--range", 5, "--output", "out.jsonl",
        "--report", "report.html", "--trace", "trace.json",
    )  # fmt: skip
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert (folder / "out.jsonl").read_text().splitlines() == [f'{{"x": {x}}}' for x in range(5)]
    assert "<canvas" in (folder / "report.html").read_text()
    assert json.loads((folder / "trace.json").read_text())["traceEvents"]
    ended = command(folder, "run", "work:Of.doubled", "--range", 3, "--progress")
    assert lines(ended) == [0, 2, 4]


def test_run_passes_any_text_through(folder):
    """Other languages, and bytes that are no UTF-8, which JSON has as escapes."""
    (folder / "echo.py").write_text("def echo(line): return line\n")
    data = "né 漢字\n".encode() + b"\xff\xfe\n"
    done = subprocess.run(
        [sys.executable, "-m", "amorsize", "run", "echo:echo"],
        cwd=folder, input=data, capture_output=True, timeout=60, check=True,
        env={**environment(), "LC_ALL": "C"},
    )  # fmt: skip
    assert done.stdout.splitlines()[0] == '"né 漢字"'.encode()
    assert done.stdout.splitlines()[1] == b'"\\udcff\\udcfe"'


@pytest.mark.parametrize("jobs", [1, 2])
def test_run_ends_with_1_where_the_function_fails(folder, jobs):
    """With the traceback and the item's index; what came before it is written."""
    ended = command(folder, "run", "work:picky", "--range", 9, "--n-jobs", jobs)
    assert (ended.code, lines(ended)) == (1, [0, 1, 2, 3, 4])
    assert "LookupError: no 5" in ended.err
    assert "amorsize: raised for item 5: 5" in ended.err


def test_run_can_keep_errors_as_results(folder):
    """Each in the place of its result; the end is told how many."""
    ended = command(folder, "run", "work:picky", "--range", 7, "--errors", "keep")
    assert ended.code == 0
    assert lines(ended) == [
        0, 1, 2, 3, 4, {"error": {"type": "LookupError", "message": "no 5", "item": 5}}, 6,
    ]  # fmt: skip
    assert ended.err == "amorsize: 1 item has failed; the output tells which\n"


def test_run_names_an_item_that_kills_its_worker(folder):
    """In one line."""
    ended = command(folder, "run", "work:dies", "--range", 9, "--n-jobs", 2, "--chunksize", 1)
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "item 5" in ended.err


def test_run_names_a_result_that_is_no_json(folder):
    """In one line, with the index of its item."""
    ended = command(folder, "run", "work:odd", "--range", 3)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("amorsize: the result of item 0 cannot be written as JSON: set is")
    assert ended.err.count("\n") == 1


def test_run_can_be_resumed(folder):
    """The same command computes only what is missing."""
    args = ("run", "work:picky", "--range", 9, "--n-jobs", 1, "--resume", "kept.db")
    ended = command(folder, *args)
    assert (ended.code, "results are kept in kept.db" in ended.err) == (1, True)
    (folder / "work.py").write_text(WORK.replace('if x == 5: raise LookupError("no 5")', "pass"))
    ended = command(folder, *args)
    assert ended.code == 2
    assert "keeps results of another call: the function's code has changed" in ended.err


def test_run_streams(folder):
    """A result is there before the input has ended."""
    with subprocess.Popen(
        [sys.executable, "-m", "amorsize", "run", "work:length"],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment(),
    ) as process:  # fmt: skip
        for text in ("one", "three"):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{len(text)}\n"
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.skipif(os.name != "posix", reason="needs pipes and signals of Unix")
@pytest.mark.parametrize("jobs", [1, 2])
def test_run_ends_when_nobody_reads_on(folder, jobs):
    """As any filter does: by SIGPIPE, without a word, and leaving nothing behind."""
    script = (
        f'"{sys.executable}" -m amorsize run work:square --range 10000000 --n-jobs {jobs} '
        '2>err | head -n 2; echo "${PIPESTATUS[0]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=True,
        env=environment(),
    )  # fmt: skip
    assert done.stdout == "0\n1\n141\n"
    assert (folder / "err").read_text() == ""


@pytest.mark.skipif(os.name != "posix", reason="needs signals of Unix")
@pytest.mark.parametrize("jobs", [1, 2])
def test_run_ends_with_ctrl_c(folder, jobs):
    """By SIGINT, without a traceback; what is finished was written."""
    args = ("-m", "amorsize", "run", f"{folder}/work.py:slow", "--range", 10_000)
    with programs.started(*args, "--n-jobs", jobs) as process:
        assert process.stdout.readline() == "0\n"
        begun = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert time.monotonic() - begun < 5
        assert (process.returncode, err) == (-signal.SIGINT, "")
        assert programs.wait_for_group(process.pid, 5)


HOSTILE = """
import os, sys, time
def quits(x):
    if x == 3: sys.exit(0)
    return x
def stops(x):
    if x == 3: raise StopIteration
    return x
def pipe(x): raise BrokenPipeError("mine")
def nan(x): return float("nan")
def surrogate(x): return "\\ud800"
def says(x):
    print("said", x)
    return x
def reads(x): return [x, sys.stdin.read()]
async def later(x): return x
def slow_after_6(x):
    if x >= 6: time.sleep(30)
    return x
class Mute(Exception):
    def __str__(self): raise TypeError
def mute(x): raise Mute
def deep(x):
    value = []
    for _ in range(100_000): value = [value]
    return value
"""


@pytest.fixture
def hostile(folder):
    (folder / "hostile.py").write_text(HOSTILE)
    return folder


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("name", "told"),
    [("quits", "SystemExit: 0"), ("stops", "item 3 has ended the results"), ("pipe", "mine")],
)
def test_whatever_ends_the_function_is_a_failure(hostile, name, told, jobs):
    """Not the end of the command's own doing: no item is lost without a word."""
    ended = command(hostile, "run", f"hostile:{name}", "--range", 6, "--n-jobs", jobs)
    assert ended.code == 1
    assert told in ended.err
    assert lines(ended) == [x for x in range(3) if name != "pipe"]


@pytest.mark.parametrize("name", ["nan", "deep"])
def test_what_is_no_json_is_refused(hostile, name):
    """In one line; among kept errors it is one."""
    ended = command(hostile, "run", f"hostile:{name}", "--range", 2, "--n-jobs", 1)
    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert "the result of item 0 cannot be written as JSON" in ended.err
    ended = command(hostile, "run", f"hostile:{name}", "--range", 2, "--errors", "keep")
    assert [one["error"]["item"] for one in lines(ended)] == [0, 1]


def test_half_a_surrogate_pair_is_escaped(hostile):
    """And an exception without a text is kept."""
    assert command(hostile, "run", "hostile:surrogate", "--range", 1).out == '"\\ud800"\n'
    [kept] = lines(command(hostile, "run", "hostile:mute", "--range", 1, "--errors", "keep"))
    assert kept["error"]["type"] == "Mute"


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_streams_of_the_pipeline_are_not_the_functions(hostile, jobs):
    """What it prints goes to standard error, and there is nothing for it to read."""
    ended = command(hostile, "run", "hostile:says", "--range", 3, "--n-jobs", jobs)
    assert lines(ended) == [0, 1, 2]
    assert sorted(ended.err.split("\n")) == ["", "said 0", "said 1", "said 2"]
    ended = command(hostile, "run", "hostile:reads", "--n-jobs", jobs, feed="a\nb\nc\n")
    assert lines(ended) == [["a", ""], ["b", ""], ["c", ""]]


@pytest.mark.skipif(os.name != "posix", reason="needs pipes of Unix")
def test_nothing_runs_on_when_nobody_reads_on(hostile):
    """Workers in the middle of long items are ended, and reports are written."""
    script = (
        f'"{sys.executable}" -m amorsize run hostile:slow_after_6 --range 20 --n-jobs 2 '
        "--chunksize 1 --report r.html | head -n 1"
    )
    with subprocess.Popen(
        ["bash", "-c", script], cwd=hostile, stdout=subprocess.PIPE, text=True, env=environment(),
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.communicate(timeout=60)[0] == "0\n"
        assert programs.wait_for_group(process.pid, 5)
    assert "<canvas" in (hostile / "r.html").read_text()


def test_a_module_that_exits_is_a_failure(folder):
    """With what it says."""
    (folder / "exits.py").write_text("import sys\nsys.exit(0)\n")
    ended = command(folder, "run", "exits:f", "--range", 3)
    assert (ended.code, "SystemExit: 0" in ended.err) == (1, True)


@pytest.mark.parametrize("name", ["logging", "multiprocessing", "json"])
def test_a_file_may_have_the_name_of_a_module_of_python(folder, name):
    """Python's own comes first."""
    place = folder / "apart"
    place.mkdir()
    (place / f"{name}.py").write_text("import helper\ndef f(x): return helper.g(x)\n")
    (place / "helper.py").write_text("def g(x): return x + 1\n")
    ended = command(folder, "run", f"apart/{name}.py:f", "--range", 4, "--n-jobs", 2)
    assert lines(ended) == [1, 2, 3, 4], ended.err


def test_lines_are_those_of_unix(folder):
    """A return inside a line stays in it; that of a Windows line's end, and a mark, do not."""
    done = subprocess.run(
        [sys.executable, "-m", "amorsize", "run", "work:length"], cwd=folder, env=environment(),
        input="\ufeffab\rc\r\nd".encode(), capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == b"4\n1\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_in_one_line(folder):
    """Of the results' file, and of standard output."""
    for args in (["run", "work:square", "--range", 3, "--output", "/dev/full"], ["machine"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "amorsize", *map(str, args)], cwd=folder, stdout=full,
                env=environment(), stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "No space left" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a shell of Unix")
def test_closed_streams_are_told_in_one_line(folder):
    """Or are not missed."""
    run = f'"{sys.executable}" -m amorsize run work:square'
    for script, code in ((f"{run} <&-", 2), (f"{run} --range 3 >&-", 2),
                         (f"{run} --range 3 --progress --output o 2>&-", 0)):  # fmt: skip
        done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True,
                              timeout=60, check=False, env=environment())  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


def test_misuse_harms_no_file(folder):
    """An output that is there already is left alone where a command is refused."""
    for name in ("precious", "r.html"):
        (folder / name).write_text("mine")
    for more in (["--n-jobs", 0], ["--seed", 1, "--backend", "thread"], ["--report", "precious"]):
        ended = command(
            folder, "run", "work:square", "--range", 3, "--output", "precious",
            "--report", "r.html", *more,
        )  # fmt: skip
        assert ended.code == 2, ended.err
        assert ended.err.count("\n") == 1
    (folder / "words.txt").write_text("a\n")
    ended = command(folder, "run", "work:length", "--input", "words.txt", "--output", "words.txt")
    assert (ended.code, "the same file" in ended.err) == (2, True)
    assert [(folder / name).read_text() for name in ("precious", "r.html", "words.txt")] == [
        "mine", "mine", "a\n",
    ]  # fmt: skip


# Used wrongly ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["run", "nowhere:f", "--range", 3], "there is no module 'nowhere'"),
        (["run", "work.inner:f", "--range", 3], "there is no module 'work.inner'"),
        (["run", "nowhere.py:f", "--range", 3], "there is no file 'nowhere.py'"),
        (["run", "work:lenght", "--range", 3], "work has no 'lenght' (did you mean length?)"),
        (["run", "work:answer", "--range", 3], "'work:answer' is no function: it is 42"),
        (["run", "work", "--range", 3], "'work' is no target"),
        (["run", "work:length", "--input", "none.txt"], "'none.txt' cannot be opened"),
        (["run", "work:length", "--range", -1], "'-1' is not a whole number of 0 or more"),
        (["run", "work:length", "--range", "x"], "'x' is not a whole number"),
        (["run", "work:length", "--range", 3, "--n-jobs", 0], "n_jobs=0 is not a number of work"),
        (["run", "work:length", "--range", 3, "--input", "a"], "not allowed with argument"),
        (["run", "work:length", "--range", 3, "--output", "no/where"], "'no/where' cannot be op"),
        (["run", "work:half", "--format", "jsonl", "--input", "words.txt"], "line 1 of words.txt"),
        (["run", "work:square", "--range", 3, "--report", "no/r.html"], "'no/r.html' cannot be"),
        (["run", "work:square", "--range", 3, "--seed", 1, "--backend", "thread"], "seed=1"),
        (["run", "work:square", "--range", 3, "--backend", "loky"], "invalid choice: 'loky'"),
        (["run"], "the following arguments are required: TARGET"),
        (["optimize", "work:nothing", "--range", 3], "work has no 'nothing'"),
        (["cache", "export", "no/where"], "'no/where'"),
        (["cache", "import", "words.txt"], "is not a file of export_cache"),
        (["cache"], "required"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "required"),
        (["run", ".t:f", "--range", 3], "'.t' is no name of a module"),
        (["run", "work:square", "--range", 3, "--backend", "dask"], "dask"),
    ],
    ids=str,
)
def test_wrong_use_is_one_line(folder, args, told):
    """And exit code 2, with no traceback."""
    ended = command(folder, *args)
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert told in ended.err
    assert ended.err.count("\n") == 1


def test_a_module_that_fails_is_shown_as_it_fails(folder):
    """Its own traceback, and exit code 1: the command was right."""
    for target in ("broken:f", "broken.py:f"):
        ended = command(folder, "run", target, "--range", 3)
        assert ended.code == 1
        assert "import not_there_at_all" in ended.err
        assert "ModuleNotFoundError" in ended.err


# The other commands ---------------------------------------------------------------------------


def test_version_and_help(folder):
    """Of the program and of each command."""
    assert command(folder, "--version").out == f"amorsize {amorsize.__version__}\n"
    for args in ([], ["run"], ["optimize"], ["machine"], ["cache"], ["doctor"], ["demo"]):
        ended = command(folder, *args, "--help")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("usage: amorsize")


def test_optimize_gives_advice(folder):
    """In words, and as JSON."""
    ended = command(folder, "optimize", "work:slow", "--range", 50)
    assert (ended.code, ended.err) == (0, "")
    assert "n_jobs=" in ended.out
    ended = command(folder, "optimize", "work:length", "--input", "words.txt", "--json")
    advice = json.loads(ended.out)
    assert (advice["n_jobs"], advice["executor_type"]) == (1, "serial")
    assert {"chunksize", "reason", "estimated_speedup", "warnings"} <= advice.keys()


def test_machine_tells_what_may_be_used(folder):
    """In words, and as JSON."""
    ended = command(folder, "machine")
    for name in ("usable_cpus", "physical_cores", "memory_available", "start_method"):
        assert name in ended.out
    found = json.loads(command(folder, "machine", "--json").out)
    assert found["usable_cpus"] >= 1
    assert found["start_method"] in programs.START_METHODS
    assert found["costs"]["chunk_seconds"] > 0


def test_cache_is_managed(folder):
    """Each action, on a cache of its own."""
    env = {"AMORSIZE_CACHE_DIR": str(folder / "cache")}
    assert command(folder, "cache", "dir", **env).out == f"{folder / 'cache'}\n"
    assert json.loads(command(folder, "cache", "list", "--json", **env).out) == []
    command(folder, "run", "work:slow", "--range", 30, "--output", os.devnull, **env)
    [record] = json.loads(command(folder, "cache", "list", "--json", **env).out)
    assert record["items"] == 30
    assert "30 items of" in command(folder, "cache", "list", **env).out
    assert json.loads(command(folder, "cache", "stats", "--json", **env).out)["entries"] == 1
    assert "records  1" in command(folder, "cache", "stats", **env).out
    assert command(folder, "cache", "check", **env).out == "all records are sound\n"
    assert command(folder, "cache", "export", "all.json", **env).out == "1 record written\n"
    assert command(folder, "cache", "prune", **env).out == "0 records removed\n"
    assert command(folder, "cache", "clear", **env).out == "1 record removed\n"
    assert command(folder, "cache", "import", "all.json", **env).out == "1 record imported\n"
    (folder / "cache" / "stray").write_text("mine")
    ended = command(folder, "cache", "check", **env)
    assert (ended.code, ended.out) == (1, "stray: not a record's name\n")


def test_doctor_tells_what_works(folder):
    """Workers of each start method answer; no colours where no terminal is."""
    ended = command(folder, "doctor", AMORSIZE_CACHE_DIR=str(folder / "cache"))
    assert (ended.code, ended.err) == (0, ""), ended.out
    for method in programs.START_METHODS:
        assert f"ok    {method}" in ended.out
    assert "note  environment    AMORSIZE_CACHE_DIR" in ended.out
    assert "\x1b" not in ended.out
    ended = command(folder, "doctor", AMORSIZE_CACHE="0")
    assert "nothing is remembered" in ended.out


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal of Unix")
@pytest.mark.parametrize("plain", [False, True])
def test_colours_are_for_terminals(folder, plain):
    """Unless NO_COLOR is set."""
    ours, theirs = os.openpty()
    env = environment()
    env.pop("NO_COLOR", None)
    if plain:
        env["NO_COLOR"] = "1"
    with subprocess.Popen(
        [sys.executable, "-m", "amorsize", "doctor"], stdout=theirs, cwd=folder, env=env
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            shown += part
            if not part:
                break
        os.close(ours)
        assert process.wait(60) == 0
    assert (b"\x1b[32m" in shown) is not plain


def test_demo_runs_an_example(folder):
    """And gives the same results."""
    ended = command(folder, "demo")
    assert (ended.code, ended.err) == (0, "")
    assert "the same results" in ended.out
    assert "count_primes: 400 items" in ended.out
