"""``seed=``: each item has a random stream of its own, whatever the workers and chunks."""

import builtins
import concurrent.futures
import importlib.util
import random
import sys
import threading

import pytest

from amorsize import smart_imap, smart_imap_unordered, smart_map, smart_map_async, smart_starmap
from tests import programs
from tests.seeded import draw, draw_after_import, draw_or_fail

METHODS = programs.MOSTLY_FORKSERVER
WAYS = [
    {"n_jobs": 1},
    {"backend": "serial"},
    {},
    {"n_jobs": 2},
    {"n_jobs": 3, "chunksize": 1},
    {"n_jobs": 2, "chunksize": 7},
]


def wanted():
    return smart_map(draw, range(20), n_jobs=1, seed=7)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_results_do_not_depend_on_workers_or_chunks(way):
    """The same numbers, from Python's generator and from NumPy's."""
    assert smart_map(draw, range(20), seed=7, **way) == wanted()


@pytest.mark.parametrize("method", ["fork", *METHODS])
def test_results_do_not_depend_on_the_start_method(method):
    """Nor on the form of the call."""
    how = {"seed": 7, "n_jobs": 2, "mp_context": method}
    assert smart_map(draw, range(20), **how) == wanted()
    assert smart_starmap(draw, [(x,) for x in range(20)], **how) == wanted()
    assert list(smart_imap(draw, iter(range(20)), **how)) == wanted()
    assert sorted(smart_imap_unordered(draw, range(20), **how)) == sorted(wanted())


def test_items_have_different_streams_and_seeds_different_results():
    """No two items draw the same, and neither do two seeds."""
    found = wanted()
    assert len({number for _, *numbers in found for number in numbers}) == 40
    assert smart_map(draw, range(20), seed=8) != found


def test_the_callers_generators_are_left_as_they_were():
    """Also where items run in the calling process."""
    numpy = pytest.importorskip("numpy")
    random.seed(3)
    numpy.random.seed(3)
    before = random.getstate(), numpy.random.get_state()[2]
    smart_map(draw, range(20), n_jobs=1, seed=7)
    for _ in smart_imap(draw, range(5), seed=7):
        assert (random.getstate(), numpy.random.get_state()[2]) == before


def test_without_a_seed_nothing_is_seeded():
    """Two calls draw different numbers."""
    assert smart_map(draw, range(20)) != smart_map(draw, range(20))


def test_failed_items_do_not_move_the_streams_of_others():
    """With exceptions as results, and after the death of a worker."""
    found = smart_map(draw_or_fail, range(20), seed=7, n_jobs=2, return_exceptions=True)
    assert [x for x in found if isinstance(x, tuple)] == [
        x for number, x in enumerate(wanted()) if number != 5
    ]


@pytest.mark.parametrize("func", ["draw", "draw_after_a_threads_import"])
def test_a_library_that_an_item_loads_is_seeded(func):
    """NumPy, imported by the function, in a process that had not loaded it."""
    pytest.importorskip("numpy")
    source = (
        f"import sys\nfrom amorsize import smart_map\nfrom tests.seeded import {func} as draw\n"
        "assert 'numpy' not in sys.modules\n"
        "print(smart_map(draw, range(6), seed=7, {}))\n"
        "import numpy.random\nprint(numpy.random.__spec__.loader is numpy.random.__loader__,"
        " type(numpy.random.__loader__).__name__)"
    )
    for way in ("n_jobs=1", "n_jobs=2, mp_context='fork'", "n_jobs=2, mp_context='forkserver'"):
        ended = programs.run("-c", source.format(way))
        expected = smart_map(draw, range(6), seed=7, n_jobs=1)
        assert ended.out == f"{expected}\nTrue SourceFileLoader\n", ended.err


MODULES = {
    "drawing": "import random\nrandom.random()",
    "seeding": "import random\nrandom.seed(5)",
    "drawing_numpy": "import numpy\nnumpy.random.random(); numpy.random.seed(3)",
    "package/__init__": "from . import inner\nimport random; random.random()",
    "package/inner": "import random; random.random()",
    "outside": "import drawing, package, random; random.random()",
    "failing": "import random; random.random(); raise ImportError('always')",
    "failing_inside": "import drawing, failing",
    "trying": "import random\ntry:\n    import failing\nexcept ImportError:\n    random.random()",
    "namespace/inner": "import random; random.random()",
}
IMPORTED = ["drawing", "seeding", "drawing_numpy", "package", "package.inner", "outside", "failing"]
IMPORTED += ["failing_inside", "trying", "namespace.inner", "namespace", "not_there", "this"]


@pytest.fixture
def modules(tmp_path):
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text + "\n")
    return str(tmp_path)


@pytest.mark.parametrize("name", IMPORTED)
@pytest.mark.parametrize("way", [{"n_jobs": 1}, {"n_jobs": 2}, {"n_jobs": 2, "chunksize": 3}])
def test_what_an_item_imports_does_not_move_its_stream(modules, name, way):
    """The item that imports a module which draws, first, draws what it would draw later."""
    items = [(modules, name, x) for x in range(8)]
    try:
        found = smart_map(draw_after_import, items, seed=7, **way)
    finally:
        for loaded in {name.replace("/", ".").partition(".")[0] for name in MODULES} & {
            *sys.modules
        }:
            for each in [one for one in sys.modules if one.partition(".")[0] == loaded]:
                del sys.modules[each]
    assert found == smart_map(draw, range(8), seed=7, n_jobs=1)


def looks_at_a_spec(path):
    """Return what is seen of a module that draws, which is loaded by hand."""
    sys.path.insert(0, path)
    try:
        spec = importlib.util.find_spec("drawing")
        seen = spec.origin, spec.loader.get_source("drawing"), spec.loader.is_package("drawing")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return (*seen, module.__loader__ is module.__spec__.loader, random.random())
    finally:
        sys.path.remove(path)


def test_a_module_that_an_item_finds_is_as_it_would_be_found_elsewhere(modules):
    """Its loader can be asked and used by hand."""
    expected = (f"{modules}/drawing.py", MODULES["drawing"] + "\n", False, True)
    *seen, drawn = smart_map(looks_at_a_spec, [modules], seed=7, n_jobs=1)[0]
    assert tuple(seen) == expected
    assert drawn == smart_map(draw, [0], seed=7, n_jobs=1)[0][1]


def imports_in_an_inner_call(path):
    """Return numbers drawn before, in and after a call inside the item, which imports."""
    items = [(path, "outside", x) for x in range(2)]
    inner = [smart_map(draw_after_import, items, n_jobs=1, **how) for how in ({}, {"seed": 3}, {})]
    return inner, random.random()


def test_an_inner_call_that_imports_draws_from_the_items_stream(modules):
    """Whether it has a seed of its own or not; the first time and the next."""
    ways = [{"n_jobs": 1}, {"n_jobs": 1}, {"n_jobs": 2, "chunksize": 1}]
    found = [smart_map(imports_in_an_inner_call, [modules] * 3, seed=7, **way) for way in ways]
    for name in ("drawing", "package", "package.inner", "outside"):
        sys.modules.pop(name, None)
    assert found[0] == found[1] == found[2]


def test_a_library_that_cannot_be_loaded_raises_what_it_raises(tmp_path):
    """An item that does without it goes on; its stream is not moved."""
    (tmp_path / "torch.py").write_text("import random; random.random(); raise ImportError('no')")
    source = (
        "import sys, random\nfrom amorsize import smart_map\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "def drawn(x):\n"
        "    try:\n        import torch\n    except ImportError as error:\n"
        "        return str(error), random.random()\n"
        "print(smart_map(drawn, range(2), seed=7, n_jobs=1))\n"
    )
    ended = programs.run("-c", source)
    expected = [("no", number) for _, number, _ in smart_map(draw, range(2), seed=7, n_jobs=1)]
    assert ended.out == f"{expected}\n", ended.err


class Given:
    """Finds and loads one module, always with the same spec; drawing also as it makes it."""

    def __init__(self):
        self.spec = importlib.util.spec_from_loader("given", self)

    def find_spec(self, name, path=None, target=None):
        return self.spec if name == "given" else None

    def create_module(self, spec):
        random.random()

    def exec_module(self, module):
        module.drawn = random.random()


def test_the_specs_of_other_finders_are_left_as_they_are():
    """They may give one again and again; numbers may be drawn as a module is made, too."""
    given = Given()

    def drawn(again):
        for _ in range(3):
            assert importlib.util.find_spec("given").name == "given"
        if not again:
            sys.modules.pop("given", None)
        module = importlib.import_module("given")
        assert module.__loader__ is module.__spec__.loader is given
        return random.random()

    sys.meta_path.insert(0, given)
    try:
        found = [smart_map(drawn, [again] * 3, seed=7, n_jobs=1) for again in (False, True)]
    finally:
        sys.meta_path.remove(given)
        sys.modules.pop("given", None)
    assert given.spec.loader is given
    assert found[0] == found[1]


def test_an_item_may_change_where_modules_are_found():
    """The generators are put back all the same."""

    def clears(_):
        kept = sys.meta_path[:]
        sys.meta_path.clear()
        sys.meta_path += [one for one in kept if "amorsize" not in type(one).__module__]
        return random.random()

    random.seed(3)
    before = random.getstate()
    assert len(set(smart_map(clears, range(3), seed=7, n_jobs=1))) == 3
    assert random.getstate() == before


def test_another_threads_import_does_not_move_the_stream(modules):
    """An item that draws while another thread imports does not draw the same again."""

    def drawn(_):
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            numbers = []
            sys.modules.pop("meeting", None)
            begun, go_on = threading.Event(), threading.Event()
            builtins.meeting = begun, go_on
            future = executor.submit(importlib.import_module, "meeting")
            begun.wait(60)
            numbers.append(random.random())
            go_on.set()
            future.result(60)
            return [*numbers, random.random(), random.random()]

    text = "import builtins\nbegun, go_on = builtins.meeting\nbegun.set(); go_on.wait(60)\n"
    with open(f"{modules}/meeting.py", "w") as file:
        file.write(text)
    sys.path.insert(0, modules)
    try:
        (found,) = smart_map(drawn, [0], seed=7, n_jobs=1)
    finally:
        sys.path.remove(modules)
        del builtins.meeting
    assert len(set(found)) == 3


def test_torch_draws_from_the_same_stream():
    """Its generator is seeded where it is loaded."""
    torch = pytest.importorskip("torch")

    def drawn(x):
        return x, float(torch.rand(()))

    once = smart_map(drawn, range(12), n_jobs=1, seed=7)
    assert len({number for _, number in once}) == 12
    assert smart_map(drawn, range(12), n_jobs=2, seed=7, mp_context="forkserver") == once


def inner(_):
    return random.random()


def outer(x):
    return smart_map(inner, range(3), n_jobs=2)[-1], random.random()


def across_threads(x):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(smart_map, inner, range(3), seed=x, n_jobs=1).result()


@pytest.mark.parametrize("way", [{"n_jobs": 1}, {"n_jobs": 2}], ids=str)
def test_a_call_inside_an_item_draws_from_its_stream(way):
    """Whatever workers the inner call has; also in another thread, where nothing may wait."""
    assert smart_map(outer, range(4), seed=1, **way) == smart_map(outer, range(4), seed=1, n_jobs=1)
    found = smart_map(across_threads, range(4), seed=1, timeout=60, **way)
    assert found == smart_map(across_threads, range(4), seed=2, n_jobs=1)


def test_a_library_that_an_item_loads_is_left_unseeded():
    """After the item its generator is as if the caller had loaded it."""
    source = (
        "from amorsize import smart_map\nfrom tests.seeded import draw\n"
        "smart_map(draw, range(3), seed=7, n_jobs=1)\n"
        "import numpy; print(numpy.random.rand())"
    )
    assert len({programs.run("-c", source).out for _ in range(2)}) == 2


def test_threads_are_refused():
    """They share the generators; the error names both options."""
    with pytest.raises(ValueError, match="seed=1.*thread"):
        smart_map(draw, range(3), seed=1, backend="thread")
    with (
        concurrent.futures.ThreadPoolExecutor(2) as executor,
        pytest.raises(ValueError, match="seed=1.*backend"),
    ):
        smart_map(draw, range(3), seed=1, backend=executor)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True])
def test_bad_seeds_are_refused(seed):
    """Before any item runs."""
    with pytest.raises((TypeError, ValueError), match="seed"):
        smart_map(sys.exit, range(3), seed=seed)


def test_engines_and_awaited_calls_draw_the_same():
    """The stream is the item's, wherever it runs."""
    import asyncio

    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        assert smart_map(draw, range(20), seed=7, backend=executor) == wanted()
    if programs.HAS_EVENT_LOOPS:
        assert asyncio.run(smart_map_async(draw, range(20), seed=7)) == wanted()
