"""The state of the interpreter and of common libraries that amorsize carries to fresh workers.

Each kind of state has one carrier: a pair of functions that read and write it. Forked workers
inherit all of it, so a call loads this module only for fresh workers and for threads.
"""

from __future__ import annotations

import contextvars
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from ..errors import SerializationError
from ..lookup import loaded
from ..measure.system import read_file
from ..tuples import NamedTuple
from ..versions import warning_filters
from . import logs
from .pickles import dumps_by_value, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CARRIERS", "Carrier", "can_travel"]


class Carrier(NamedTuple):
    """One kind of state.

    Attributes:
        name: its name.
        library: the module that has the state; nothing is carried unless it is loaded.
        read: returns the state; of a large one, only what differs from a fresh interpreter's.
        write: sets the state that ``read`` returned.
        fresh: returns what ``read`` returns in a fresh interpreter; None if the state is always
            sent.
        per_thread: whether each thread has its own state.
    """

    name: str
    library: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    fresh: Callable[[], Any] | None
    per_thread: bool = False


def can_travel(value: object) -> bool:
    """Return whether a value can be sent by value."""
    try:
        dumps_by_value(value)
    except SerializationError:
        return False
    return True


# The interpreter and the standard library --------------------------------------------------


def _read_interpreter() -> tuple[Any, ...]:
    digits = getattr(sys, "get_int_max_str_digits", lambda: None)()
    return (
        sys.getrecursionlimit(),
        digits,
        sys.getswitchinterval(),
        gc.isenabled(),
        gc.get_threshold(),
        list(getattr(sys, "argv", [])),
        sys.dont_write_bytecode,
    )


def _write_interpreter(value: tuple[Any, ...]) -> None:
    limit, digits, interval, collects, threshold, argv, quiet = value
    sys.setrecursionlimit(limit)
    if digits is not None:
        sys.set_int_max_str_digits(digits)
    sys.setswitchinterval(interval)
    (gc.enable if collects else gc.disable)()
    gc.set_threshold(*threshold)
    sys.argv[:] = argv
    sys.dont_write_bytecode = quiet


def _read_decimal() -> tuple[Any, ...]:
    import decimal

    return _described(decimal.getcontext()), _described(decimal.DefaultContext)


def _described(context: Any) -> tuple[Any, ...]:
    traps = tuple(sorted(signal.__name__ for signal, on in context.traps.items() if on))
    return (context.prec, context.rounding, context.Emin, context.Emax, context.capitals,
            context.clamp, traps)  # fmt: skip


def _write_decimal(value: tuple[Any, ...]) -> None:
    import decimal

    own, default = value
    decimal.setcontext(_described_context(own))
    described = _described_context(default)  # kept alive: its traps are read from its own memory
    for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps"):
        setattr(decimal.DefaultContext, name, getattr(described, name))


def _described_context(value: tuple[Any, ...]) -> Any:
    import decimal

    prec, rounding, low, high, capitals, clamp, names = value
    traps = [getattr(decimal, name) for name in names]
    return decimal.Context(prec, rounding, low, high, capitals, clamp, [], traps)


_FRESH_DECIMAL = (28, "ROUND_HALF_EVEN", -999999, 999999, 1, 0,
                  ("DivisionByZero", "InvalidOperation", "Overflow"))  # fmt: skip


def _read_context() -> tuple[bytes, ...]:
    """Return each set context variable, pickled with its value, unless it cannot be pickled."""
    found = []
    for pair in contextvars.copy_context().items():
        with suppress(SerializationError):
            found.append(dumps_by_value(pair))
    return tuple(found)


_tokens: list[tuple[contextvars.ContextVar[Any], Any]] = []  # of what the call set in a worker


def _write_context(blobs: tuple[bytes, ...]) -> None:
    """Set the variables that can be unpickled here; a module may exist only in the caller."""
    while _tokens:
        variable, token = _tokens.pop()
        with suppress(ValueError):  # it was set in another context than this
            variable.reset(token)
    for blob in blobs:
        with suppress(ImportError, AttributeError):
            variable, value = loads(blob)
            _tokens.append((variable, variable.set(value)))


def _read_csv() -> tuple[Any, ...]:
    import csv

    names = ("delimiter", "doublequote", "escapechar", "lineterminator", "quotechar", "quoting",
             "skipinitialspace", "strict")  # fmt: skip
    dialects = {
        dialect: {name: getattr(csv.get_dialect(dialect), name) for name in names}
        for dialect in csv.list_dialects()
        if dialect not in ("excel", "excel-tab", "unix")
    }
    return csv.field_size_limit(), dialects


def _write_csv(value: tuple[Any, ...]) -> None:
    import csv

    csv.field_size_limit(value[0])
    for name in _read_csv()[1].keys() - value[1].keys():
        csv.unregister_dialect(name)
    for name, dialect in value[1].items():
        csv.register_dialect(name, **dialect)


def _read_socket() -> float | None:
    import socket

    return socket.getdefaulttimeout()


def _write_socket(value: float | None) -> None:
    import socket

    socket.setdefaulttimeout(value)


def _read_locale() -> str:
    import locale

    return locale.setlocale(locale.LC_ALL)  # all categories, also those without a constant here


def _write_locale(value: str) -> None:
    import locale

    locale.setlocale(locale.LC_ALL, value)


def _read_umask() -> int | None:
    """Return the umask, None where it cannot be read without changing it."""
    try:
        status = read_file("/proc/self/status")
    except OSError:
        return None
    for line in status.splitlines():
        name, _, found = line.partition(b":")
        if name == b"Umask":
            return int(found, 8)
    return None


def _read_tempfile() -> str | None:
    import tempfile

    return tempfile.tempdir


def _write_tempfile(value: str | None) -> None:
    import tempfile

    tempfile.tempdir = value


def _read_warnings() -> tuple[Any, ...]:
    import warnings

    filters = [entry for entry in warning_filters() if _is_known(entry[2])]
    return filters, warnings.defaultaction  # type: ignore[attr-defined]


def _is_known(category: Any) -> bool:
    """Return whether a fresh worker can get a category: from its module, or by value."""
    home = loaded(category.__module__)
    return getattr(home, category.__qualname__, None) is category or can_travel(category)


def _write_warnings(value: tuple[Any, ...]) -> None:
    import warnings

    warnings.filters[:], warnings.defaultaction = value  # type: ignore[index,attr-defined]
    warnings._filters_mutated()  # type: ignore[attr-defined]


# Libraries ----------------------------------------------------------------------------------


def _read_numpy() -> dict[str, Any]:
    numpy = import_module("numpy")
    errors = {k: v for k, v in numpy.geterr().items() if v != _FRESH_ERRORS.get(k)}
    return {"errors": errors, "buffer": numpy.getbufsize()}


def _read_numpy_print() -> dict[str, Any]:
    options = import_module("numpy").get_printoptions()
    return {k: v for k, v in options.items() if k in _FRESH_PRINT and v != _FRESH_PRINT[k]}


def _read_numpy_call() -> Any:
    return import_module("numpy").geterrcall()


_FRESH_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
_FRESH_PRINT = {"edgeitems": 3, "threshold": 1000, "floatmode": "maxprec", "precision": 8,
                "suppress": False, "linewidth": 75, "nanstr": "nan", "infstr": "inf", "sign": "-",
                "formatter": None, "legacy": False}  # fmt: skip


_FRESH_BUFFER = 8192


def _write_numpy(value: dict[str, Any]) -> None:
    numpy = import_module("numpy")
    numpy.seterr(**{**_FRESH_ERRORS, **value["errors"]})
    numpy.setbufsize(value["buffer"])


def _write_numpy_print(value: dict[str, Any]) -> None:
    import_module("numpy").set_printoptions(**{**_FRESH_PRINT, **value})


def _write_numpy_call(value: Any) -> None:
    import_module("numpy").seterrcall(value)


def _read_scipy() -> dict[str, str]:
    special = import_module("scipy.special")

    return {name: how for name, how in special.geterr().items() if how != "ignore"}


def _write_scipy(value: dict[str, str]) -> None:
    special = import_module("scipy.special")

    special.seterr(**{**dict.fromkeys(special.geterr(), "ignore"), **value})


def _read_pandas() -> dict[str, Any]:
    config = import_module("pandas._config.config")

    found = {}
    for name, option in config._registered_options.items():
        value: Any = config._global_config
        for part in name.split("."):
            value = value[part]
        if value is not option.defval and value != option.defval:
            found[name] = value
    return found


def _write_pandas(value: dict[str, Any]) -> None:
    pandas = import_module("pandas")

    for name in _read_pandas():
        pandas.reset_option(name)
    for name, setting in value.items():
        pandas.set_option(name, setting)


def _read_sklearn() -> dict[str, Any]:
    sklearn = import_module("sklearn")
    fresh = import_module("sklearn._config")._global_config
    return {k: v for k, v in sklearn.get_config().items() if v != fresh.get(k)}


def _write_sklearn(value: dict[str, Any]) -> None:
    sklearn = import_module("sklearn")
    fresh = import_module("sklearn._config")._global_config
    sklearn.set_config(**{**fresh, **value})


def _read_matplotlib() -> dict[str, Any]:
    matplotlib = import_module("matplotlib")

    fresh = matplotlib.rcParamsDefault
    own = dict.items(matplotlib.rcParams)  # avoids the warnings about deprecated names
    return {k: v for k, v in own if k != "backend" and v != dict.get(fresh, k)}


def _write_matplotlib(value: dict[str, Any]) -> None:
    matplotlib = import_module("matplotlib")

    matplotlib.rcParams.update({**{k: dict.get(matplotlib.rcParamsDefault, k)
                                   for k in _read_matplotlib()}, **value})  # fmt: skip


def _read_torch() -> tuple[Any, ...]:
    torch = import_module("torch")

    return (
        str(torch.get_default_dtype()).rpartition(".")[2],
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    )


def _write_torch(value: tuple[Any, ...]) -> None:
    torch = import_module("torch")

    torch.set_default_dtype(getattr(torch, value[0]))
    torch.set_grad_enabled(value[1])
    torch.use_deterministic_algorithms(value[2])


CARRIERS = (
    Carrier("interpreter", "sys", _read_interpreter, _write_interpreter, None),
    Carrier("warnings", "warnings", _read_warnings, _write_warnings, None),
    Carrier("decimal", "decimal", _read_decimal, _write_decimal,
            lambda: (_FRESH_DECIMAL, _FRESH_DECIMAL), per_thread=True),
    Carrier("context", "contextvars", _read_context, _write_context, tuple),
    Carrier("locale", "locale", _read_locale, _write_locale, None),
    Carrier("umask", "os", _read_umask, os.umask, lambda: None),
    Carrier("csv", "csv", _read_csv, _write_csv, lambda: (131072, {})),
    Carrier("socket", "socket", _read_socket, _write_socket, lambda: None),
    Carrier("tempfile", "tempfile", _read_tempfile, _write_tempfile, None),
    Carrier("logging", "logging", logs.read, logs.write, lambda: logs.FRESH),
    Carrier("numpy", "numpy", _read_numpy, _write_numpy,
            lambda: {"errors": {}, "buffer": _FRESH_BUFFER}, per_thread=True),
    Carrier("numpy's printing", "numpy", _read_numpy_print, _write_numpy_print, dict,
            per_thread=True),
    Carrier("numpy.seterrcall", "numpy", _read_numpy_call, _write_numpy_call, lambda: None,
            per_thread=True),
    Carrier("scipy", "scipy.special", _read_scipy, _write_scipy, dict),
    Carrier("pandas", "pandas", _read_pandas, _write_pandas, dict),
    Carrier("sklearn", "sklearn", _read_sklearn, _write_sklearn, dict, per_thread=True),
    Carrier("matplotlib", "matplotlib", _read_matplotlib, _write_matplotlib, dict),
    Carrier("torch", "torch", _read_torch, _write_torch,
            lambda: ("float32", True, False), per_thread=True),
)  # fmt: skip
