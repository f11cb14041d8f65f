"""The structure: imports point downwards, the pure parts stay pure, the top is light."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import amorsize

PACKAGE = Path(amorsize.__file__).parent

# From the ground to the top. A module imports from its own folder, and from what stands before it.
ORDER = [
    {"errors", "units", "signals", "tuples", "versions"}, {"lookup"}, {"options", "nesting"},
    {"decide", "identity"}, {"measure"}, {"memory", "run"}, {"serve", "remote"}, {"show"}, {"call"},
    {"api"}, {"optimizer"}, {"decorator", "pool", "executor", "asynchronous", "typed"},
    {"joblib_backend"}, {"register"},
    {"cli"}, {"__main__"}, {"__init__"},
]  # fmt: skip
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

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
    """Yield the amorsize modules that a module imports as it runs, be it by a string."""
    folder = name.split(".")[:-1]
    skipped = {id(n) for block in typing_blocks(tree) for n in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and str(node.value).startswith("amorsize."):
            yield node.value.removeprefix("amorsize.")
        if not isinstance(node, ast.ImportFrom) or not node.level or id(node) in skipped:
            continue
        base = folder[: len(folder) - (node.level - 1)]
        target = ".".join([*base, *(node.module.split(".") if node.module else [])])
        if target in modules():
            yield target
        else:
            yield from (f"{target}.{alias.name}".lstrip(".") for alias in node.names)


def room(name):
    """Return the folder of a module, or the module itself where it has none."""
    return name.partition(".")[0]


def typing_blocks(tree):
    return [
        n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)
    ]


def test_imports_point_downwards_only():
    """A module imports only from its own folder and from those before it."""
    for name, tree in modules().items():
        for target in set(imported(name, tree)) & modules().keys():
            below = RANK[room(target)] < RANK[room(name)]
            assert below or room(target) == room(name), f"{name} imports {target}"


def test_no_module_imports_itself_by_way_of_others():
    """Inside a folder, too, there is no circle."""
    graph = {name: set(imported(name, tree)) for name, tree in modules().items()}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "name",
    [
        "decide.figures",
        "decide.cutting",
        "decide.model",
        "decide.planner",
        "decide.learning",
        "decide.steps",
        "decide.remote",
    ],
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
    """There is no print in the library, except in its command line."""
    for name, tree in modules().items():
        if room(name) == "cli":
            continue
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
        assert not [n for n in calls if getattr(n.func, "id", "") == "print"], name


MOST_LINES = {ast.ClassDef: 300, ast.FunctionDef: 60, ast.AsyncFunctionDef: 60}


@pytest.mark.parametrize("name", sorted(modules()))
def test_modules_classes_and_functions_stay_small(name):
    """No module over 450 lines, no class over 300, no function over 60, documentation and all."""
    path = PACKAGE.joinpath(*name.split(".")).with_suffix(".py")
    assert len(path.read_text().splitlines()) <= 450
    for node in ast.walk(modules()[name]):
        if type(node) in MOST_LINES:
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MOST_LINES[type(node)], f"{name}: {node.name} has {lines} lines"


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="platformdirs finds the folder elsewhere")
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
    with pytest.raises(AttributeError, match="no attribute 'pools'"):
        amorsize.pools
