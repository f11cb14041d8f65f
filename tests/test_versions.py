"""What differs between versions of Python: bytecode, lazy imports, start methods."""

import dis
import os
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

import cloudpickle
import psutil
import pytest

from amorsize.identity.codes import describe
from amorsize.identity.instructions import codes_in
from amorsize.measure.machine import usable_cpus

from .programs import ROOT, run, run_source

CPUS = usable_cpus()

FOLDER = Path(sysconfig.get_path("stdlib"))
needs_lazy_imports = pytest.mark.skipif(
    sys.version_info < (3, 15), reason="lazy imports (PEP 810) came with Python 3.15"
)

GLOBALS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}


def by_dis(code, known):
    """Return (names of globals, names of imported modules) of code and the code nested in it.

    Args:
        code: a code object.
        known: what was returned for other code, by the code's id.
    """
    if id(code) not in known:
        lines = list(dis.get_instructions(code))
        loaded = {line.argval for line in lines if line.opname in GLOBALS}
        # ``dis`` shows the flags of a lazy import behind the name.
        imported = {line.argval for line in lines if line.opname == "IMPORT_NAME"}
        imported = {name.partition(" ")[0] for name in imported}
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                loaded |= by_dis(inner, known)[0]
                imported |= by_dis(inner, known)[1]
        known[id(code)] = loaded, imported
    return known[id(code)]


def sources():
    """Return the standard library's modules, without their tests."""
    left_out = {"test", "tests", "site-packages", "dist-packages"}
    return [
        path for path in FOLDER.rglob("*.py") if left_out.isdisjoint(path.relative_to(FOLDER).parts)
    ]


def test_bytecode_is_read_as_dis_reads_it():
    """A function loads and imports the names that ``dis`` finds, in the whole library."""
    codes = 0
    if not sources():
        pytest.skip("this Python has no sources of its library")
    for path in sources():
        try:
            whole = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except (SyntaxError, ValueError):  # a template
            continue
        known = {}
        for code in codes_in(whole):
            loaded, imported = by_dis(code, known)
            described = describe(code)
            assert set(described.globals) == loaded, code
            assert set(described.imports) == imported, code
            codes += 1
    assert codes > 4_000


def test_functions_that_import_different_modules_differ():
    """An import inside a function is part of its fingerprint, with what the module holds."""
    made = run(
        "-c",
        """
import sys, types
from amorsize.identity.fingerprint import fingerprint
one, two = types.ModuleType("one"), types.ModuleType("two")
one.K, two.K = 1, 1
sys.modules.update(one=one, two=two)
def f(x):
    import one
    return one.K * x
def g(x):
    import two
    return two.K * x
g.__name__ = g.__qualname__ = "f"
first = fingerprint(f).digest
assert first != fingerprint(g).digest
one.K = 2
assert first != fingerprint(f).digest
""",
    )
    assert made.code == 0, made.err


FUNCTIONS = """
import dataclasses, functools, json, re, sys
from amorsize.identity.fingerprint import fingerprint
K = 3
@dataclasses.dataclass
class Point:
    x: int = 0
    def moved(self, by):
        return dataclasses.replace(self, x=self.x + by)
def plain(x):
    return x + K
def imports(x):
    import textwrap
    return textwrap.wrap(json.dumps(x), 10)
def builds(x):
    return Point(x).moved(K)
@functools.lru_cache
def cached(x):
    return re.sub("a", "b", x)
def raises(x):
    try:
        return f"{x!r:>{K}}"
    except ValueError as error:
        raise KeyError(x) from error
async def waits(x):
    async with x as y:
        match y:
            case {"a": z}:
                return z
print([fingerprint(f).digest for f in (plain, imports, builds, cached, raises, waits)])
"""


def other_releases():
    """Return interpreters at hand of other patch releases of this version."""
    name = "{}.{}".format(*sys.version_info[:2])
    found = [
        Path(f"/usr/bin/python{name}"),
        *Path.home().glob(f".pyenv/versions/{name}.*/bin/python"),
    ]
    ask = "import sys; print('%d.%d %s' % (*sys.version_info[:2], sys.version_info[:3]))"
    for path in filter(Path.exists, found):
        said = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=True).stdout
        if said.strip() == f"{name} {sys.version_info[:3]}" or not said.startswith(f"{name} "):
            continue
        yield path


def test_fingerprints_are_those_of_other_patch_releases():
    """Where the compiler makes the same bytecode."""
    others = list(other_releases())
    if not others:
        pytest.skip("no other patch release of this version is at hand")
    own = run("-c", FUNCTIONS)
    assert own.code == 0, own.err
    packages = {str(Path(module.__file__).parent.parent) for module in (psutil, cloudpickle)}
    for python in others:
        where = os.pathsep.join([str(ROOT), *packages])
        made = subprocess.run(
            [python, "-c", FUNCTIONS],
            env={**os.environ, "PYTHONPATH": where}, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert made.stdout == own.out, (python, made.stderr)


def test_bytecode_of_an_unknown_version_names_no_record_for_other_processes():
    """On a Python newer than the tested ones fingerprints stay in the process, and differ."""
    made = run(
        "-c",
        """
import sys
real = sys.version_info
sys.version_info = (3, 99, 0, "final", 0)
import amorsize.versions
sys.version_info = real
assert not amorsize.versions.KNOWS_BYTECODE
from amorsize.identity.fingerprint import fingerprint
from amorsize.memory.naming import name_of_code
K = 1
def f(x):
    return K * x
first = fingerprint(f)
K = 2
second = fingerprint(f)
assert not first.stable and first.digest != second.digest
assert not name_of_code(f).stable
""",
    )
    assert made.code == 0, made.err


@needs_lazy_imports
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_function_of_the_main_module_uses_lazily_imported_names(tmp_path, method):
    """A lazy import of ``__main__`` is carried out, and reaches the workers."""
    (tmp_path / "helper.py").write_text("K = 5\ndef scale(x): return K * x\n")
    made = run_source(
        f"""
lazy import json
lazy import helper as h
lazy from helper import scale
import sys
from amorsize import smart_map
def f(x):
    return json.dumps(scale(x) + h.K)
if __name__ == "__main__":
    assert "helper" not in sys.modules
    print(smart_map(f, range(3), n_jobs=2, mp_context={method!r}))
""",
        tmp_path,
    )
    assert made.out.strip() == "['5', '10', '15']", made.err


@needs_lazy_imports
def test_globals_of_a_lazily_imported_module_are_seen(tmp_path):
    """The fingerprint covers what a lazily imported module of the user holds."""
    (tmp_path / "helper.py").write_text("K = 5\n")
    (tmp_path / "work.py").write_text("lazy import helper\ndef f(x): return helper.K * x\n")
    made = run_source(
        """
import work
from amorsize import smart_map
from amorsize.identity.fingerprint import fingerprint
if __name__ == "__main__":
    first = fingerprint(work.f)
    assert first.stable
    work.helper.K = 19
    assert fingerprint(work.f) != first
    print(smart_map(work.f, range(3), n_jobs=2, mp_context="spawn"))
""",
        tmp_path,
    )
    assert made.out.strip() == "[0, 19, 38]", made.err


@needs_lazy_imports
def test_lazy_imports_of_unused_names_stay_lazy(tmp_path):
    """A module that the function does not use is not imported for it."""
    (tmp_path / "helper.py").write_text("K = 5\n")
    made = run_source(
        """
lazy import helper
import sys
from amorsize import smart_map
def f(x): return x + 1
def g(x): return helper.K
if __name__ == "__main__":
    print(smart_map(f, range(3), n_jobs=2, mp_context="spawn"), "helper" in sys.modules)
""",
        tmp_path,
    )
    assert made.out.strip() == "[1, 2, 3] False", made.err


@needs_lazy_imports
def test_a_lazy_import_that_fails_is_the_functions_own_affair(tmp_path):
    """A function that expects the failure of a lazy import gets it, as under ``map``."""
    (tmp_path / "broken.py").write_text("raise ImportError('not here')\n")
    made = run_source(
        """
lazy import broken
from amorsize import optimize, smart_map
def f(x):
    try:
        return broken.f(x)
    except ImportError:
        return -x
if __name__ == "__main__":
    optimize(f, range(9))
    print(smart_map(f, range(3)), smart_map(f, range(3), n_jobs=2, mp_context="fork"))
""",
        tmp_path,
    )
    assert made.out.strip() == "[0, -1, -2] [0, -1, -2]", made.err


@pytest.mark.parametrize("method", [None, "fork"])
@pytest.mark.parametrize("flags", [[], ["-X", "context_aware_warnings=1"]], ids=["", "contexts"])
def test_no_worker_is_left_behind_where_warnings_are_errors(flags, method):
    """A fork beside another thread warns of nothing, and all workers end (3.15 warns after it)."""
    made = run(
        "-W",
        "error",
        *flags,
        "-c",
        f"""
import threading, warnings
import psutil
from amorsize import smart_map
ended = threading.Event()
threading.Thread(target=ended.wait, daemon=True).start()
with warnings.catch_warnings():
    warnings.simplefilter("error")
    before = list(warnings.filters)
    assert smart_map(abs, range(4), n_jobs=2, mp_context={method!r}) == [0, 1, 2, 3]
    assert list(warnings.filters) == before
assert not psutil.Process().children()
ended.set()
""",
    )
    assert made.code == 0, made.err
    assert not made.err


@pytest.mark.skipif(CPUS < 2, reason="needs two CPUs to take one away")
@pytest.mark.parametrize(
    ("flags", "variable", "expected"),
    [
        (["-X", "cpu_count=1"], "2", 1),
        (["-X", "cpu_count=default"], "1", CPUS),
        (["-E"], "1", CPUS),
        ([], "1", 1),
    ],
    ids=["option", "default", "-E", "variable"],
)
def test_the_number_of_cpus_that_python_was_told_counts(flags, variable, expected):
    """``-X cpu_count`` comes before PYTHON_CPU_COUNT, and ``-E`` hides the variable."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    code += "from amorsize.measure.machine import read_machine\nprint(read_machine().cpus)"
    made = run(*flags, "-c", code, PYTHON_CPU_COUNT=variable)
    assert made.out.strip() == str(expected), made.err


COARSE = """
import time
for name in ("process_time", "thread_time"):
    def coarse(real=getattr(time, name)):
        return real() // (1 / 64) / 64
    setattr(time, name, coarse)
from amorsize import optimize
def compute(x):
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass
def wait(x):
    time.sleep(0.005)
"""


def test_a_clock_that_ticks_rarely_does_not_make_computing_look_like_waiting():
    """With CPU clocks of 15.6 ms, as on Windows, items of 1 ms get no more workers than CPUs."""
    made = run("-c", COARSE + "print(optimize(compute, range(400)).n_jobs)")
    assert int(made.out) <= CPUS, made.err


def test_a_clock_that_ticks_rarely_still_shows_waiting():
    """A longer block of items shows the share of a CPU that they use."""
    made = run(
        "-c",
        COARSE
        + """
from amorsize.measure.probe import Probe
probe = Probe()
for size in (1, 1, 2, 6):
    watch = probe.watch(size)
    for x in range(size):
        wait(x)
    probe.add(watch.block(size))
print(probe.tally.known_seconds >= 0.03, probe.tally.cpu_share < 0.9)
""",
    )
    assert made.out.split() == ["True", "True"], made.err
