"""Workers act as the caller would: the state of interpreter and libraries is the caller's."""

import codecs
import contextlib
import contextvars
import csv
import decimal
import gc
import importlib.util
import locale
import socket
import sys
import tempfile
import threading
import time
import warnings

import pytest

import amorsize
from amorsize import smart_map
from amorsize.run import kept, surroundings
from tests import programs

FRESH = ["spawn", "forkserver"]


class Setting:
    """A state: how to change it and back, and what shows it."""

    def __init__(self, show, change, needs=()):
        self.show, self.change, self.needs = show, change, needs


@contextlib.contextmanager
def attribute(get, put, value):
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


def precision(_):
    return str(decimal.Decimal(1) / 3), decimal.getcontext().rounding


@contextlib.contextmanager
def precise():
    with decimal.localcontext() as context:
        context.prec, context.rounding = 50, "ROUND_UP"
        yield


def new_context(_):
    got = []
    thread = threading.Thread(target=lambda: got.append(decimal.getcontext().prec))
    thread.start()
    thread.join()
    return got


@contextlib.contextmanager
def default_context():
    before = decimal.DefaultContext.prec
    decimal.DefaultContext.prec = 40
    yield
    decimal.DefaultContext.prec = before


def depth(_):
    return sys.getrecursionlimit()


def digits(_):
    return len(str(10**5000))


def collecting(_):
    return gc.isenabled(), gc.get_threshold()


@contextlib.contextmanager
def not_collecting():
    before = gc.get_threshold()
    gc.disable()
    gc.set_threshold(5000, 5, 5)
    yield
    gc.enable()
    gc.set_threshold(*before)


def arguments(_):
    return sys.argv


@contextlib.contextmanager
def other_arguments():
    before = list(sys.argv)
    sys.argv[:] = ["other", "--arguments"]
    yield
    sys.argv[:] = before


def warned(_):
    with pytest.raises(UserWarning):
        warnings.warn("careful", UserWarning, stacklevel=1)
    warnings.warn("quiet", RuntimeWarning, stacklevel=1)
    return True


@contextlib.contextmanager
def filtered():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.filterwarnings("error", "care", UserWarning)
        yield


def formatted(_):
    return locale.setlocale(locale.LC_CTYPE), locale.format_string("%.2f", 1.5)


@contextlib.contextmanager
def other_locale():
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


def fields(_):
    return csv.field_size_limit(), next(csv.reader(["a|b"], dialect="pipes"))


@contextlib.contextmanager
def wide_fields():
    csv.register_dialect("pipes", delimiter="|")
    before = csv.field_size_limit(10**9)
    yield
    csv.field_size_limit(before)
    csv.unregister_dialect("pipes")


def patience(_):
    return socket.getdefaulttimeout()


def folder(_):
    return tempfile.gettempdir()


def floats(_):
    import numpy

    with pytest.raises(FloatingPointError):
        numpy.float64(1) / 0
    return str(numpy.array([1.23456789]))


@contextlib.contextmanager
def strict_floats():
    import numpy

    with numpy.errstate(all="raise"), numpy.printoptions(precision=3):
        yield


def frames(_):
    import pandas

    return pandas.get_option("display.precision"), pandas.get_option("mode.sim_interactive")


@contextlib.contextmanager
def precise_frames():
    import pandas

    with pandas.option_context("display.precision", 2, "mode.sim_interactive", True):
        yield


def estimators(_):
    import sklearn

    return sklearn.get_config()["assume_finite"], sklearn.get_config()["transform_output"]


@contextlib.contextmanager
def finite():
    import sklearn

    with sklearn.config_context(assume_finite=True, transform_output="pandas"):
        yield


def tensors(_):
    import torch

    return str(torch.ones(1).dtype), torch.is_grad_enabled()


@contextlib.contextmanager
def doubles():
    import torch

    torch.set_default_dtype(torch.float64)
    with torch.no_grad():
        yield
    torch.set_default_dtype(torch.float32)


request = contextvars.ContextVar("request", default="none")


def show_request(_):
    return request.get()


@contextlib.contextmanager
def requested():
    token = request.set("mine")
    yield
    request.reset(token)


def encoded(_):
    return "\u00e4".encode("ascii", "question-mark") + codecs_name.encode()


codecs_name = "x"
codecs.register_error("question-mark", lambda error: ("?!", error.end))

SETTINGS = {
    "context variables": Setting(show_request, requested),
    "codec errors": Setting(encoded, contextlib.nullcontext),
    "decimal": Setting(precision, precise),
    "decimal of threads": Setting(new_context, default_context),
    "recursion limit": Setting(
        depth, lambda: attribute(sys.getrecursionlimit, sys.setrecursionlimit, 5000)
    ),
    "digits": Setting(
        digits, lambda: attribute(sys.get_int_max_str_digits, sys.set_int_max_str_digits, 0)
    ),
    "gc": Setting(collecting, not_collecting),
    "argv": Setting(arguments, other_arguments),
    "warnings": Setting(warned, filtered),
    "locale": Setting(formatted, other_locale),
    "csv": Setting(fields, wide_fields),
    "socket": Setting(
        patience, lambda: attribute(socket.getdefaulttimeout, socket.setdefaulttimeout, 7.5)
    ),
    "tempfile": Setting(
        folder,
        lambda: attribute(lambda: tempfile.tempdir, lambda v: setattr(tempfile, "tempdir", v), "/"),
    ),
    "numpy": Setting(floats, strict_floats, ["numpy"]),
    "pandas": Setting(frames, precise_frames, ["pandas"]),
    "sklearn": Setting(estimators, finite, ["sklearn"]),
    "torch": Setting(tensors, doubles, ["torch"]),
}


# Loading these starts threads that no fork survives: not in the process of all other tests.
HEAVY = ("sklearn", "torch")


def apart(check, name, kind):
    """Run a check in a process of its own, if its library is there."""
    for library in SETTINGS[name].needs:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}, of the dependency group 'heavy'")
    if name not in HEAVY:
        check(name, kind)
        return
    code = f"from tests.surroundings import test_state as t; t.{check.__name__}({name!r}, {kind!r})"
    ended = programs.run("-c", code)
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("method", programs.MOSTLY_FORKSERVER)
def test_fresh_workers_have_the_callers_state(name, method):
    """What the caller has changed holds in workers, also in kept ones, and ends with the call."""
    apart(check_workers, name, method)


def check_workers(name, method):
    setting = SETTINGS[name]
    smart_map(abs, range(3), n_jobs=2, mp_context=method)  # workers with nothing changed
    with setting.change():
        here = list(map(setting.show, range(4)))
        assert smart_map(setting.show, range(4), n_jobs=2, mp_context=method) == here
    if name not in ("warnings", "digits", "csv", "numpy"):  # those raise without the change
        here = list(map(setting.show, range(4)))
        assert smart_map(setting.show, range(4), n_jobs=2, mp_context=method) == here


@pytest.mark.parametrize("name", ["decimal", "numpy", "sklearn", "torch"])
def test_threads_have_what_the_callers_thread_has_of_its_own(name):
    """With backend="thread", too, results are the caller's."""
    apart(check_threads, name, "thread")


def check_threads(name, backend):
    setting = SETTINGS[name]
    with setting.change():
        here = list(map(setting.show, range(4)))
        assert smart_map(setting.show, range(4), n_jobs=2, backend=backend) == here


def test_threads_run_in_a_copy_of_the_callers_context():
    """Context variables have the caller's values, and what a thread sets stays in the thread."""

    def change(x):
        found = request.get()
        request.set(x)
        decimal.getcontext().prec = 5
        return found if isinstance(found, str) else "changed by another item"

    before = decimal.getcontext().prec
    token = request.set("mine")
    got = smart_map(change, range(20), n_jobs=2, backend="thread", chunksize=10)
    assert got[0] == "mine"
    assert request.get() == "mine"
    assert decimal.getcontext().prec == before
    request.reset(token)


MIXED = """
import decimal, threading, time
from amorsize import smart_map
def third(x):
    time.sleep(0.004)
    return str(decimal.Decimal(1) / 3)
if __name__ == "__main__":
    lock = threading.Lock()
    def hold():
        with lock:
            time.sleep(60)
    threading.Thread(target=hold, daemon=True).start()
    decimal.getcontext().prec = 50
    reports = []
    got = smart_map(third, range(200), report=reports.append)
    print(reports[0].start_method, {len(x) for x in got})
"""


def test_one_call_never_mixes_two_states(tmp_path):
    """Items that run in the caller and in fresh workers see the same."""
    ended = programs.run_source(MIXED, tmp_path)
    assert ended.out == "forkserver {52}\n", ended.err


LOGGING = """
import logging, sys
from amorsize import smart_map

class Only(logging.Filter):
    def filter(self, record):
        return "secret" not in record.getMessage()

def talk(x):
    logging.getLogger("a.b").info("info %d", x)
    logging.getLogger("a.b").debug("debug %d", x)
    logging.getLogger("quiet").error("quiet %d", x)
    logging.getLogger("own").warning("own %d", x)
    logging.getLogger("a").info("secret %d", x)
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("failed %d", x)
    return x

if __name__ == "__main__":
    form = "%(name)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stdout)
    logging.getLogger("quiet").disabled = True
    own = logging.getLogger("own")
    own.propagate = False
    own.addHandler(logging.StreamHandler(sys.stdout))
    logging.root.handlers[0].addFilter(Only())
    smart_map(talk, range(6), n_jobs=2, mp_context={method!r}, chunksize=2)
    logging.getLogger("a").setLevel(logging.ERROR)
    smart_map(talk, range(6, 8), n_jobs=2, mp_context={method!r})
"""


@pytest.mark.parametrize("method", FRESH)
def test_records_of_workers_reach_the_callers_handlers_once(tmp_path, method):
    """Levels, filters, propagation and handlers of the caller act on what workers log."""
    ended = programs.run_source(LOGGING.replace("{method!r}", repr(method)), tmp_path)
    lines = ended.out.splitlines()
    for x in range(6):
        assert lines.count(f"a.b INFO info {x}") == 1, ended.out + ended.err
    for x in range(8):
        assert lines.count(f"own {x}") == 1
        assert lines.count(f"root ERROR failed {x}") == 1
    assert ended.out.count("ZeroDivisionError: division by zero") == 8
    assert not [line for line in lines if "debug" in line or "quiet" in line or "secret" in line]
    assert "a.b INFO info 6" not in lines
    assert ended.err == ""


@pytest.fixture
def no_carriers():
    """Forget what the test has registered."""
    before = list(surroundings._users)
    yield
    surroundings._users[:] = before
    kept.end_all()


class OtherLibrary:
    """A library whose state each worker needs."""

    setting = another = "unset"


def set_other(value):
    OtherLibrary.setting = value


def show_other(_):
    return sys.modules[OtherLibrary.__module__].OtherLibrary.setting


@pytest.mark.usefixtures("no_carriers")
@pytest.mark.parametrize("method", ["fork", *FRESH])
def test_state_of_other_libraries_is_carried_by_the_user(method):
    """carry_state: take in the caller, put in each worker; None carries nothing."""
    wanted = ["first"]
    amorsize.carry_state(lambda: wanted[0], set_other)
    assert smart_map(show_other, range(3), n_jobs=2, mp_context=method) == ["first"] * 3
    wanted[0] = "second"
    assert smart_map(show_other, range(3), n_jobs=2, mp_context=method) == ["second"] * 3
    wanted[0] = None
    assert smart_map(show_other, range(3), n_jobs=2, mp_context=method) == ["unset"] * 3


@pytest.mark.usefixtures("no_carriers")
def test_a_carrier_that_cannot_be_called_is_refused():
    """Before any call."""
    with pytest.raises(TypeError, match="put must be callable"):
        amorsize.carry_state(lambda: 1, "nothing")


def test_time_zone_is_the_callers(monkeypatch):
    """A time zone chosen in the environment acts in workers of the fork server."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        got = smart_map(zone, range(2), n_jobs=2, mp_context="forkserver")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert got == [-19800] * 2


def zone(_):
    return time.timezone


MEASURED = """
import coverage, sys
measured = coverage.Coverage(config_file={config!r})
measured.start()
import covered
from amorsize import smart_map
if __name__ == "__main__":
    smart_map(covered.work, range(8), n_jobs=2, mp_context={method!r})
    measured.stop()
    measured.save()
    measured.combine()
    print(measured.analysis2(covered)[3])
"""


@pytest.mark.parametrize("method", ["fork", *FRESH])
def test_what_workers_execute_is_measured(method, tmp_path):
    """Before the program ends, which is when pytest-cov puts the parts together."""
    (tmp_path / "covered.py").write_text(
        "def work(x):\n    if x > 3:\n        return 1\n    return 0\n"
    )
    source = MEASURED.replace("{method!r}", repr(method))
    config = tmp_path / "coverage.ini"
    settings = ["concurrency = multiprocessing", "parallel = true", f"source = {tmp_path}"]
    config.write_text("\n".join(["[run]", *settings, f"data_file = {tmp_path / 'data'}"]))
    source = source.replace("{config!r}", repr(str(config)))
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "[]\n", ended.out + ended.err


MAIN_VARIABLE = """
import contextvars, pathlib
from amorsize import smart_map
user = contextvars.ContextVar("user", default="nobody")
hidden = contextvars.ContextVar("hidden")
def make(variable):
    return lambda x: (variable.get("unset"), user.get())
if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        func = make(hidden)
        print(set(smart_map(func, range(3), n_jobs=2, mp_context=method)))
        user.set("ada"), hidden.set(method)
        print(set(smart_map(func, range(3), n_jobs=2, mp_context=method)))
        user.set("nobody"), hidden.set("gone")
"""


def test_context_variables_of_the_main_module_and_of_closures(tmp_path):
    """They are the same variable in the function and in the state that is carried."""
    ended = programs.run_source(MAIN_VARIABLE, tmp_path)
    wanted = [("unset", "nobody"), ("spawn", "ada"), ("gone", "nobody"), ("forkserver", "ada")]
    assert ended.out.splitlines() == [str({pair}) for pair in wanted], ended.err


FILLED = """
import numpy
from amorsize import smart_map
rows = numpy.memmap({path!r}, dtype=float, mode="w+", shape=(40, 5))
part = rows[10:]
def fill(i):
    rows[i] = i + 1
    if i >= 10:
        part[i - 10, 0] = -i
    return i
if __name__ == "__main__":
    smart_map(fill, range(40), n_jobs=2, mp_context={method!r})
    print([int(x) for x in rows[:, 1]] == [*range(1, 41)])
    print([int(x) for x in rows[10:, 0]] == [-i for i in range(10, 40)])
"""


@pytest.mark.parametrize("method", ["fork", *FRESH])
def test_an_array_mapped_for_writing_is_filled_in_its_file(method, tmp_path):
    """Not in copies of it."""
    pytest.importorskip("numpy")
    source = FILLED.replace("{path!r}", repr(str(tmp_path / "rows"))).replace(
        "{method!r}", repr(method)
    )
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "True\nTrue\n", ended.err


CHANGING = {
    "decimal": ("decimal.getcontext().prec = 50", "decimal.getcontext().prec = {}", 10, 28,
                "decimal.getcontext().prec"),
    "warnings": ("warnings.simplefilter('ignore')", "warnings.simplefilter({!r})", "error",
                 "default", "warnings.filters[0][0]"),
    "recursion limit": ("sys.setrecursionlimit(4000)", "sys.setrecursionlimit({})", 3000, 1000,
                        "sys.getrecursionlimit()"),
    "environment": ("os.environ['WHO'] = 'module'", "os.environ['WHO'] = {!r}", "caller", "",
                    "os.environ['WHO']"),
    "numpy": ("numpy.seterr(all='raise')", "numpy.seterr(all={!r})", "ignore", "warn",
              "numpy.geterr()['over']"),
}  # fmt: skip


@pytest.mark.parametrize("back", [False, True], ids=["changed", "changed back"])
@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize("method", programs.MOSTLY_FORKSERVER)
def test_what_modules_change_as_they_are_loaded_does_not_win(tmp_path, method, name, back):
    """The caller's state is what there was at the call, not what an import makes of it."""
    at_import, change, other, usual, shown = CHANGING[name]
    modules = "import decimal, os, sys, warnings" + (", numpy" if name == "numpy" else "")
    (tmp_path / "changing_state.py").write_text(
        f"{modules}\n{at_import}\ndef show(_): return {shown}\n"
    )
    source = (
        f"{modules}\nimport changing_state\nfrom amorsize import smart_map\n"
        f"{change.format(usual if back else other)}\n"
        f"for _ in range(2):\n"
        f"    here = changing_state.show(0)\n"
        f"    print(smart_map(changing_state.show, range(4), n_jobs=2, mp_context={method!r})"
        f" == [here] * 4)\n"
    )
    ended = programs.run_source(source, tmp_path)
    assert ended.out.split() == ["True", "True"], ended.out + ended.err


UMASK = """
import os, sys
from amorsize import smart_map

def mode(x):
    with open(f"{sys.argv[1]}/{x}", "w") as file:
        return oct(os.fstat(file.fileno()).st_mode & 0o777)

os.umask(0o022)
print({*smart_map(mode, range(4), n_jobs=2, mp_context=sys.argv[2])})
os.umask(0o077)
print({*smart_map(mode, range(4, 8), n_jobs=2, mp_context=sys.argv[2])})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it cannot be read")
@pytest.mark.parametrize("method", FRESH)
def test_new_files_have_the_callers_permissions(tmp_path, method):
    """What is private in the caller is in workers that were started before."""
    path = tmp_path / "program.py"
    path.write_text(UMASK)
    ended = programs.run(path, tmp_path, method)
    assert ended.out.split() == ["{'0o644'}", "{'0o600'}"], ended.err


def test_all_categories_of_the_locale_are_carried():
    """Also those without a name in Python."""
    before = locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    try:
        here = locale.setlocale(locale.LC_ALL)
        assert smart_map(all_of_locale, range(2), n_jobs=2, mp_context="spawn") == [here] * 2
    finally:
        locale.setlocale(locale.LC_ALL, before)


def all_of_locale(_):
    return locale.setlocale(locale.LC_ALL)


def raise_question(_):
    return "\u00e4".encode("ascii", handler_name)


handler_name = "question" + "-mark"


@pytest.mark.parametrize("method", FRESH)
def test_error_handlers_of_codecs_are_found_by_the_values_of_globals(method):
    """Not only by what stands in the code."""
    assert smart_map(raise_question, range(2), n_jobs=2, mp_context=method) == [b"?!"] * 2


locked = contextvars.ContextVar("locked")
unused = contextvars.ContextVar("unused")


def show_locked(x):
    time.sleep(0.003)
    return type(locked.get()).__name__, x


def test_a_context_variable_that_cannot_be_sent_keeps_the_call_here(monkeypatch):
    """Where the function reaches it: in the automatic mode; with workers asked for it is said."""
    tokens = [(locked, locked.set(threading.Lock())), (unused, unused.set(threading.Lock()))]
    reports = []
    try:
        got = smart_map(show_locked, range(60), mp_context="spawn", report=reports.append)
        assert got == [("lock", x) for x in range(60)]
        with pytest.raises(LookupError):
            smart_map(show_locked, range(4), n_jobs=2, mp_context="spawn", report=reports.append)
    finally:
        for variable, token in tokens:
            variable.reset(token)
    assert "the context variable 'locked' (lock)" in str(reports[1].warnings)
    assert "unused" not in str(reports[1].warnings)


@pytest.mark.usefixtures("no_carriers")
def test_workers_that_carry_another_state_are_not_used_again():
    """A carrier that had something to carry and has nothing now leaves its workers behind."""
    values = {"one": "A", "other": None}
    amorsize.carry_state(lambda: values["one"], set_other)
    amorsize.carry_state(lambda: values["other"], set_another)
    assert smart_map(show_both, range(2), n_jobs=2, mp_context="spawn") == [("A", "unset")] * 2
    values.update(one=None, other="B")
    assert smart_map(show_both, range(2), n_jobs=2, mp_context="spawn") == [("unset", "B")] * 2


def set_another(value):
    OtherLibrary.another = value


def show_both(_):
    library = sys.modules[OtherLibrary.__module__].OtherLibrary
    return library.setting, library.another


CHAIN = """
import logging, logging.handlers, queue, sys
from amorsize import smart_map

class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []
    def emit(self, record):
        self.records.append(record)

def talk(x):
    logging.getLogger("lib.part").warning("line %d", x, extra={"x": x})
    logging.getLogger("lib").warning({"event": x})
    return x

kept = Kept()
logging.getLogger("lib").addHandler(logging.NullHandler())
logging.getLogger("lib").addHandler(kept)
box = queue.Queue()
logging.root.addHandler(logging.handlers.QueueHandler(box))
logging.root.addHandler(logging.StreamHandler(sys.stdout))
smart_map(talk, range(4), n_jobs=2, mp_context=sys.argv[1])
print(len(kept.records), sorted(r.x for r in kept.records if r.name == "lib.part"))
print(sorted(r.msg["event"] for r in kept.records if r.name == "lib"))
print(box.qsize())
"""


@pytest.mark.parametrize("method", ["fork", *FRESH])
def test_handlers_that_keep_records_get_those_of_workers(tmp_path, method):
    """Once each, however many loggers above have handlers; message and fields as they were."""
    path = tmp_path / "program.py"
    path.write_text(CHAIN)
    ended = programs.run(path, method)
    lines = ended.out.splitlines()
    assert [lines.count(f"line {x}") for x in range(4)] == [1] * 4, ended.out + ended.err
    assert lines[-3:] == ["8 [0, 1, 2, 3]", "[0, 1, 2, 3]", "8"], ended.out


THREADS = """
import logging, sys, time
from concurrent.futures import ThreadPoolExecutor, wait
from amorsize import smart_map

class Counting(logging.Handler):
    count = 0
    def emit(self, record):
        Counting.count += 1
        time.sleep(0.001)  # the pipe fills up meanwhile

log = logging.getLogger("app")
pools = []

def talk(x):
    log.warning("y" * 5000)

def work(x):
    if not pools:
        pools.append(ThreadPoolExecutor(2))
    wait([pools[0].submit(talk, x) for _ in range(20)])
    return bytes(8000)

log.addHandler(Counting())
log.propagate = False
got = smart_map(work, range(60), n_jobs=2, mp_context=sys.argv[1], chunksize=1)
print(got == [bytes(8000)] * 60, Counting.count)
"""


@pytest.mark.parametrize("method", ["fork", *FRESH])
def test_threads_of_a_worker_may_log(tmp_path, method):
    """What they say does not mix with results on the way to the caller."""
    path = tmp_path / "program.py"
    path.write_text(THREADS)
    ended = programs.run(path, method)
    assert ended.out == "True 1200\n", ended.out + ended.err


AGAIN = """
import logging, sys
from amorsize import smart_map

class Kept(logging.Handler):
    said = []
    def emit(self, record):
        Kept.said.append(record.getMessage())

class Mark(logging.Filter):
    def filter(self, record):
        record.msg = "marked " + record.msg
        return True

log = logging.getLogger("app")

def work(x):
    record = log.makeRecord("app", logging.WARNING, "file", 1, "%d", (x,), None)
    log.handle(record)
    log.handle(record)
    logging.getLogger("other").warning("other %d", x)
    return x

log.addHandler(Kept())
logging.getLogger("other").addFilter(Mark())
logging.getLogger("other").addHandler(Kept())
smart_map(work, range(2), n_jobs=2, mp_context=sys.argv[1])
print(sorted(Kept.said))
"""


@pytest.mark.parametrize("method", ["fork", *FRESH])
def test_a_record_that_is_handled_twice_comes_twice_and_is_filtered_once(tmp_path, method):
    """Each call of ``handle`` counts; the caller's filters act, and only those."""
    path = tmp_path / "program.py"
    path.write_text(AGAIN)
    ended = programs.run(path, method)
    assert ended.out == "['0', '0', '1', '1', 'marked other 0', 'marked other 1']\n", ended.err
