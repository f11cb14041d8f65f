"""Nothing an object does when it is looked at reaches the call, or happens because of it."""

import importlib.util
import sys
import textwrap
import time
import types
from unittest import mock

import pytest

from amorsize import smart_map
from amorsize.identity.fingerprint import fingerprint
from amorsize.identity.uses import uses
from amorsize.measure.probe import pickling
from amorsize.run import kept
from tests import programs


class LookedAtError(BaseException):
    """Raised by an object whose code was run; no broad except of the library may catch it."""


def refuse(*args, **kwargs):
    raise LookedAtError(args[1:])


class Refuses(type):
    """A metaclass whose classes may not be asked for anything."""

    __getattribute__ = refuse
    __instancecheck__ = refuse
    __subclasscheck__ = refuse
    __hash__ = refuse
    __eq__ = refuse


SPECIAL = ("__class__", "__dict__", "__module__", "__name__", "__wrapped__",
           "__reduce_ex__", "__func__", "dtype", "nbytes", "shape", "columns",
           "name", "k")  # fmt: skip
METHODS = ("__getattr__", "__getattribute__", "__len__", "__iter__", "__eq__", "__hash__",
           "__repr__", "__str__", "__bool__", "__reduce_ex__", "__reduce__", "__getstate__",
           "__index__", "__float__", "__getitem__", "__contains__", "items", "keys",
           "bit_length", "encode")  # fmt: skip


def classes():
    """Yield (name, class) for everything that can be refused, of plain and of derived classes."""
    for name in SPECIAL:
        yield f"property {name}", type("Odd", (), {name: property(refuse)})
    for name in METHODS:
        yield f"method {name}", type("Odd", (), {name: refuse})
    for base in (int, float, complex, str, bytes, list, tuple, dict, set, frozenset, bytearray):
        yield base.__name__, type("Odd", (base,), dict.fromkeys(METHODS, refuse))
    yield "slots", type("Odd", (), {"__slots__": ("a", "k"), "__getattribute__": refuse})
    yield "metaclass", Refuses("Odd", (), {})


ODD = dict(classes())


def made(name):
    cls = ODD[name]
    return type.__call__(cls)


def over(value):
    return lambda x: (x, value)


@pytest.mark.parametrize("name", ODD)
def test_a_fingerprint_runs_no_code_of_what_is_captured(name):
    """An object that refuses to be looked at is captured: the fingerprint is taken past it."""
    value = made(name)
    assert fingerprint(over(value)).digest == fingerprint(over(value)).digest
    assert uses(over(value)).whole
    assert fingerprint(over([{"a": (value,)}])).digest


@pytest.mark.parametrize("name", ODD)
def test_its_class_may_be_captured_as_well(name):
    """So may the class of such an object."""
    assert fingerprint(over(ODD[name])).stable
    assert uses(over(ODD[name])).whole


@pytest.mark.parametrize("name", [name for name in ODD if "reduce" not in name])
def test_sizes_are_found_without_asking(name):
    """Whether a result is a large buffer is seen by its type; no attribute of it is asked for."""
    value = made(name)
    assert pickling([value], lambda values: b"12345678")[0] == 8


def test_a_refusing_object_is_told_by_its_slots_and_attributes():
    """What it holds counts nevertheless."""

    class Odd:
        def __init__(self, value):
            object.__setattr__(self, "value", value)

        __getattribute__ = refuse

    assert fingerprint(over(Odd(1))) == fingerprint(over(Odd(1)))
    assert fingerprint(over(Odd(1))) != fingerprint(over(Odd(2)))


@pytest.mark.parametrize("error", [ValueError, LookedAtError])
def test_a_call_whose_results_refuse_is_the_loop(error):
    """Objects that raise when they are asked for a data type or a size are results like others."""

    class Odd:
        def __init__(self, x):
            self.x = x

        def __getattr__(self, name):
            if name in ("dtype", "nbytes", "shape", "columns"):
                raise error(name)
            raise AttributeError(name)

    def make(x):
        sum(range(20_000))
        return Odd(x)

    assert [odd.x for odd in smart_map(make, range(60))] == list(range(60))


def frames():
    """Return (name, a function that makes a result) for data types that are not NumPy's."""
    pandas = pytest.importorskip("pandas")
    return {
        "category": lambda x: pandas.Series(["a", "b", str(x)], dtype="category"),
        "integers with gaps": lambda x: pandas.Series([1, None, x], dtype="Int64"),
        "text": lambda x: pandas.Series(["a", str(x)], dtype="string"),
        "zone": lambda x: pandas.Series(pandas.date_range("2020", periods=x + 1, tz="UTC")),
        "period": lambda x: pandas.Series(pandas.period_range("2020", periods=x + 1, freq="D")),
        "interval": lambda x: pandas.Series(pandas.interval_range(0, x + 1)),
        "sparse": lambda x: pandas.Series([0, x], dtype="Sparse[int]"),
        "index": lambda x: pandas.CategoricalIndex(["a", str(x)]),
        "array": lambda x: pandas.array([1, x, None]),
    }


@pytest.mark.parametrize("name", [
    "category", "integers with gaps", "text", "zone", "period", "interval", "sparse", "index",
    "array"])  # fmt: skip
def test_results_of_any_data_type_are_the_loops(name):
    """In the plain automatic mode, columns of pandas' own data types are results like others."""
    make = frames()[name]

    def work(x):
        sum(range(20_000))
        return make(x)

    for got, wanted in zip(smart_map(work, range(60)), map(make, range(60)), strict=True):
        assert list(map(str, got)) == list(map(str, wanted))


def test_tensors_are_results_like_others():
    """So are torch's tensors, whose data types are its own."""
    torch = pytest.importorskip("torch")
    assert pickling([torch.zeros(3)], lambda values: b"1234")[0] == 4


def lazy(monkeypatch, tmp_path, name):
    """Put a lazy module among those loaded; it raises once it is really loaded."""
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('it was loaded')")
    spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_a_lazy_module_stays_unloaded(monkeypatch, tmp_path):
    """A lazy module that a function names, captures or gets its class from is not loaded."""
    module = lazy(monkeypatch, tmp_path, "lazily")
    namespace = {"lazily": module, "__name__": "lazily"}
    exec("def f(x): return x if x >= 0 else lazily.helper(x)", namespace)
    Odd = type("Odd", (), {"__module__": "lazily"})
    for func in (namespace["f"], over(module), over(Odd()), over(Odd)):
        assert fingerprint(func).stable
        uses(func)
    assert smart_map(namespace["f"], range(2_000)) == list(range(2_000))
    assert type(module) is not types.ModuleType
    with pytest.raises(RuntimeError, match="it was loaded"):
        module.helper


def test_modules_with_a_getattr_are_not_asked(monkeypatch):
    """A module's own ``__getattr__`` is not run: for a version, for instance."""
    module = types.ModuleType("answers")
    module.__getattr__ = refuse
    monkeypatch.setitem(sys.modules, "answers", module)
    monkeypatch.setitem(sys.modules, "answers.inner", types.ModuleType("answers.inner"))
    namespace = {"answers": module}
    exec("def f(x): return answers.scale(x)", namespace)
    assert fingerprint(namespace["f"]).stable


@pytest.mark.parametrize("method", programs.START_METHODS)
def test_a_program_with_odd_modules_goes_on(method, tmp_path):
    """A call goes on beside entries of sys.modules that raise, are None, or are no modules."""
    source = f"""
        import sys
        class Odd:
            def __getattribute__(self, name): raise RuntimeError(name)
        class Strange(type(sys)):
            def __getattribute__(self, name): raise RuntimeError(name)
        sys.modules.update(odd=Odd(), nothing=None, number=7, strange=Strange("strange"))
        from amorsize import SerializationError, smart_map
        class A: pass
        for name in ("odd", "nothing", "number", "strange", "odd.inner"):
            A.__module__ = name
            a = A()
            def f(x):
                sum(range(10_000))
                return x + (a is None)
            f.__module__ = name
            assert smart_map(f, range(100)) == list(range(100))
            try:
                got = smart_map(f, range(20), n_jobs=2, mp_context={method!r})
            except SerializationError:  # as pickle does, which asks the module for the class
                assert {method!r} != "fork" and name in ("odd", "number", "strange")
            else:
                assert got == list(range(20))
        print("done")
    """
    ended = programs.run_source(textwrap.dedent(source), tmp_path)
    assert ended.out == "done\n", ended.err


def test_an_interrupt_during_a_walk_is_not_swallowed(monkeypatch):
    """Ctrl-C and SystemExit that arrive while an object is looked at end the call."""
    from amorsize.identity import encoders

    for error in (KeyboardInterrupt, SystemExit):

        def interrupted(walk, value, error=error):
            raise error

        monkeypatch.setitem(encoders.ENCODERS, id(list), interrupted)
        with pytest.raises(error):
            fingerprint(over([1]))


STAND_INS = ["torch", "numpy", "numpy.random", "pandas", "decimal", "coverage", "sklearn"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("name", STAND_INS)
def test_a_stand_in_for_a_library_is_not_asked_for_its_state(monkeypatch, name, method):
    """Tests and documentation builds put empty modules in the place of heavy ones."""
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    got = smart_map(slow_negative, range(60), mp_context=method)
    assert got == [-x for x in range(60)]


def slow_negative(x):
    time.sleep(0.003)
    return -x


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_where_python_lies_is_not_known_so_the_items_run_here(monkeypatch, method):
    """As in a program that embeds Python."""
    spawn = pytest.importorskip("multiprocessing.spawn")
    monkeypatch.setattr(sys, "executable", None)
    monkeypatch.setattr(spawn, "_python_exe", None)
    kept.end_all()
    reports = []
    got = smart_map(slow_negative, range(200), mp_context=method, report=reports.append)
    assert got == [-x for x in range(200)]
    assert "where Python's program lies is not known" in str(reports[0].warnings)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_replaced_open_is_not_used(method):
    """Tests replace it around the code that they test; the system is read in another way."""
    opened = mock.mock_open(read_data="text")
    with mock.patch("builtins.open", opened):
        got = smart_map(slow_negative, range(60), mp_context=method)
    opened.reset_mock()  # it holds buffers of files that must be closed first
    assert got == [-x for x in range(60)]
