"""The structure: imports point downwards, the pure parts stay pure, the top is light."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import amorsize

PACKAGE = Path(amorsize.__file__).parent

# From the top to the ground; a module may import only from layers below its own, and within a
# folder only what is listed for it.
LAYERS = [
    {"__init__"},
    {"decorator"},
    {"optimizer"},
    {"api"},
    {"session"},
    {"launcher"},
    {"outcome"},
    {"evidence"},
    {"adviser"},
    {"cache", "naming"},
    {"remote"},
    {"records", "store"},
    {"show.report", "show.progress", "show.hints"},
    {"run.engine"},
    {"run.course"},
    {"run.judge", "run.losses", "run.ledger", "run.memory", "run.policy"},
    {"run.chunks", "run.results"},
    {"run.start"},
    {"run.kept"},
    {"run.processes", "run.threads", "run.inline"},
    {"run.launch"},
    {"run.crew"},
    {"run.worker"},
    {"run.current", "run.surroundings"},
    {"run.feed", "run.transport"},
    {"run.failure", "run.shared", "run.logs", "run.blame", "run.graphs"},
    {"run.pickler"},
    {"run.making"},
    {"run.known", "run.homes", "run.reductions"},
    {"run.channel", "run.stuck", "run.tracker", "run.unwarned"},
    {"decide.steps"},
    {"decide.planner", "decide.probe", "decide.learning"},
    {"decide.fingerprint", "decide.uses", "decide.coarse", "decide.effects", "decide.helpers"},
    {"decide.settings", "decide.walk"},
    {"decide.kinds"},
    {"decide.arrays"},
    {"decide.encoders"},
    {"decide.contents", "decide.imports"},
    {"decide.usage"},
    {"decide.machine"},
    {"decide.forking"},
    {"decide.model", "decide.codes", "decide.owners", "decide.natives", "decide.blocks"},
    {"decide.atoms"},
    {"decide.looking"},
    {"options"},
    {"lookup", "system"},
    {"errors", "units", "signals", "tuples"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FOLDERS = {"run", "decide", "show"}  # their __init__ files hold a docstring only

# The pure parts may not even know these.
WORLD = {"os", "time", "psutil", "multiprocessing", "threading", "subprocess", "random"}


@functools.cache
def modules():
    """Return {dotted name: parsed source} of the package."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text())
        for path in PACKAGE.rglob("*.py")
        if path.parent == PACKAGE or path.name != "__init__.py"
    }


def imported(name, tree):
    """Yield the amorsize modules a module imports when it runs."""
    folder = name.split(".")[:-1]
    skipped = {id(n) for block in typing_blocks(tree) for n in ast.walk(block)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level or id(node) in skipped:
            continue
        base = folder[: len(folder) - (node.level - 1)]
        target = ".".join([*base, *(node.module.split(".") if node.module else [])])
        if target in RANK:
            yield target
        else:
            yield from (f"{target}.{alias.name}".lstrip(".") for alias in node.names)


def typing_blocks(tree):
    return [
        n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)
    ]


def test_every_module_has_a_layer():
    """No module is outside the order."""
    assert modules().keys() - FOLDERS == RANK.keys()


@pytest.mark.parametrize("name", sorted(RANK))
def test_imports_point_downwards_only(name):
    """A module imports only from layers below its own."""
    for target in imported(name, modules()[name]):
        assert RANK[target] > RANK[name], f"{name} imports {target}"


@pytest.mark.parametrize(
    "name", ["decide.model", "decide.planner", "decide.learning", "decide.steps"]
)
def test_model_planner_and_learning_are_pure(name):
    """They import nothing that reads clocks, files or the machine."""
    found = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    assert not found & WORLD


def test_the_library_never_prints():
    """There is no print in the library."""
    for name, tree in modules().items():
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
        assert not [n for n in calls if getattr(n.func, "id", "") == "print"], name


def code_lines(name, tree):
    """Return how many lines a module has that are neither empty, comment nor docstring."""
    path = PACKAGE.joinpath(*name.split(".")).with_suffix(".py")
    told = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            told |= {*range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    lines = enumerate(path.read_text().splitlines(), 1)
    return sum(
        n not in told and not line.strip().startswith("#") for n, line in lines if line.strip()
    )


@pytest.mark.parametrize("name", sorted(RANK))
def test_functions_and_files_stay_small(name):
    """No function above 60 lines, no file above 450, neither with its documentation."""
    tree = modules()[name]
    assert code_lines(name, tree) <= 450
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, f"{name}.{node.name} has {lines} lines"


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()


def test_importing_the_names_loads_nothing_heavy():
    """Pools, psutil, platformdirs, cloudpickle and numpy are loaded only when needed."""
    heavy = {"multiprocessing", "psutil", "platformdirs", "cloudpickle", "numpy", "json", "tqdm"}
    code = (
        "import sys; from amorsize import smart_map, optimize, parallelize; "
        "smart_map(abs, range(20)); print(*sys.modules)"
    )
    # A process that lost its CPU in the middle takes its items for dear: not five of five.
    assert any(not heavy & set(run(code)) for _ in range(5))


def test_all_public_names_are_there():
    """Each name of the contract can be imported, and no other is advertised."""
    for name in amorsize.__all__:
        assert getattr(amorsize, name).__doc__
    assert set(amorsize.__all__) <= set(dir(amorsize))
    with pytest.raises(AttributeError, match="no attribute 'Pool'"):
        amorsize.Pool
