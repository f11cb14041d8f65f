"""The state of the interpreter and of common libraries, which functions depend on.

A forked worker has the caller's state. A fresh worker has the state of a new interpreter. So the
caller's state is read before each call and written in the worker before the function is loaded.
Each kind of state has one carrier: a pair of functions that read and write it. Only state that
differs from a new interpreter's is sent, so that no worker imports a library needlessly. A kept
worker resets the state that an earlier call brought and the present call does not.

Worker threads share most of this state with the caller. State that each thread has separately is
carried to them.
"""

from __future__ import annotations

import codecs
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
from . import logs
from .pickles import dumps_by_value, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Carrier",
    "State",
    "carry_state",
    "put",
    "put_in_thread",
    "put_last",
    "put_users",
    "take",
    "take_of_thread",
    "take_own",
]


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


class State(NamedTuple):
    """The caller's state, as it is sent.

    Attributes:
        own: (name of the carrier, pickled value) of each state that amorsize carries; None for
            workers that inherit or share it.
        users: (put, value) of each state that the user carries; pickled for fresh workers.
        kinds: numbers of the user's carriers that had something to carry.
        left_out: names of the state that cannot be sent.
    """

    own: tuple[tuple[str, bytes], ...] | None = None
    users: tuple[bytes | tuple[Callable[[Any], object], Any], ...] = ()
    kinds: frozenset[int] = frozenset()
    left_out: tuple[str, ...] = ()


# The user's carriers -------------------------------------------------------------------------

_users: list[tuple[Callable[[], Any], Callable[[Any], object]]] = []


def carry_state(take: Callable[[], Any], put: Callable[[Any], object]) -> None:
    """Carry some state of the caller to every worker, in all calls from now on.

    amorsize carries the state of the interpreter and of common libraries itself. This function is
    for other state: the configuration of another library, a connection's settings, a thread's own
    values.

    Args:
        take: called in the caller before workers start on a call; returns the state, or None if
            there is nothing to carry.
        put: called with that state in each worker before the call's first item.

    Raises:
        TypeError: ``take`` or ``put`` is not callable.

    >>> import fractions
    >>> carry_state(lambda: None, print)  # nothing to carry, ever
    """
    for name, value in (("take", take), ("put", put)):
        if not callable(value):
            raise TypeError(f"carry_state(take, put): {name} must be callable, not {value!r:.80}")
    if (take, put) not in _users:
        _users.append((take, put))


def take_own() -> State:
    """Return the state that the user carries, for workers that inherit or share all other state."""
    taken = _taken()
    return State(users=tuple(taken.values()), kinds=frozenset(taken))


def _taken() -> dict[int, tuple[Callable[[Any], object], Any]]:
    """Return (put, value) of each state that the user carries now, by the carriers' numbers."""
    values = ((number, put, take()) for number, (take, put) in enumerate(_users))
    return {number: (put, value) for number, put, value in values if value is not None}


# Taking and putting --------------------------------------------------------------------------


def take(texts: frozenset[str], variables: frozenset[contextvars.ContextVar[Any]]) -> State:
    """Return the caller's state for fresh workers, without what cannot be pickled.

    Args:
        texts: strings in the code to be run; some may be names of error handlers.
        variables: context variables that the code reaches; others are not listed as left out.

    Raises:
        SerializationError: state that the user carries cannot be pickled.
        Exception: whatever the user's ``take`` raises.
    """
    values = {carrier.name: _different(carrier) for carrier in _CARRIERS}
    values["codecs"] = _handlers(texts) or None
    own, left_out = [], []
    for name, value in values.items():
        try:
            if value is not None:
                own.append((name, dumps_by_value(value)))
        except SerializationError:
            left_out.append(f"the setting {name!r}")
    for variable, value in contextvars.copy_context().items():
        if variable in variables and not _can_travel((variable, value)):
            left_out.append(f"the context variable {variable.name!r} ({type(value).__name__})")
    taken = _taken()
    users = tuple(map(dumps_by_value, taken.values()))
    return State(tuple(own), users, frozenset(taken), tuple(left_out))


def _can_travel(value: object) -> bool:
    try:
        dumps_by_value(value)
    except SerializationError:
        return False
    return True


def _handlers(texts: frozenset[str]) -> dict[str, Any]:
    """Return the error handlers of codecs whose names are among ``texts``.

    Python has no list of the registered handlers, only a lookup by name.
    """
    found = {}
    for text in texts - _USUAL_HANDLERS:
        with suppress(LookupError, ValueError):  # no such handler, or not a valid name
            found[text] = codecs.lookup_error(text)
    return found


_USUAL_HANDLERS = frozenset(
    {"strict", "ignore", "replace", "xmlcharrefreplace", "backslashreplace", "namereplace",
     "surrogateescape", "surrogatepass"}
)  # fmt: skip


def _different(carrier: Carrier) -> Any:
    """Return the state of a carrier, None if it equals a fresh interpreter's."""
    if loaded(carrier.library) is None:
        return None
    value = carrier.read()
    return None if carrier.fresh is not None and value == carrier.fresh() else value


def put(state: State) -> None:
    """Set the caller's state in this process, and reset what only an earlier call brought.

    Raises:
        Exception: whatever a library raises.
    """
    if state.own is None:
        return
    wanted = dict(state.own)
    for carrier in _CARRIERS:
        blob = wanted.get(carrier.name)
        if blob is not None:
            import_module(carrier.library)
            carrier.write(loads(blob))
        elif _different(carrier) is not None and carrier.fresh is not None:
            carrier.write(carrier.fresh())
    for name, handler in loads(wanted["codecs"]).items() if "codecs" in wanted else ():
        codecs.register_error(name, handler)


def put_last(state: State) -> None:
    """Set the state again once the function is loaded, and then the state that the user carries.

    Modules may change such state when they are imported. They did so in the caller too, but the
    caller may have changed it back since.

    Raises:
        Exception: whatever a library or the user's ``put`` raises.
    """
    put(state)
    put_users(state)


def put_users(state: State) -> None:
    """Set the state that the user carries.

    Raises:
        Exception: whatever the user's ``put`` raises.
    """
    for entry in state.users:
        write, value = loads(entry) if isinstance(entry, bytes) else entry
        write(value)


def put_in_thread(state: list[tuple[Carrier, Any]], users: State) -> None:
    """Set in this thread the per-thread state of the caller's thread.

    Args:
        state: what ``take_of_thread`` returned in the caller's thread.
        users: the state that the user carries.
    """
    for carrier, value in state:
        carrier.write(value)
    put_users(users)


def take_of_thread() -> list[tuple[Carrier, Any]]:
    """Return the per-thread state of the present thread, without its context variables."""
    return [
        (carrier, carrier.read())
        for carrier in _CARRIERS
        if carrier.per_thread and loaded(carrier.library) is not None
    ]


# The carriers --------------------------------------------------------------------------------


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

    find = getattr(warnings, "_get_filters", lambda: warnings.filters)  # 3.14: per context
    return [entry for entry in find() if _is_known(entry[2])], warnings.defaultaction  # type: ignore[attr-defined]


def _is_known(category: Any) -> bool:
    """Return whether a fresh worker can get a category: from its module, or by value."""
    home = loaded(category.__module__)
    return getattr(home, category.__qualname__, None) is category or _can_travel(category)


def _write_warnings(value: tuple[Any, ...]) -> None:
    import warnings

    warnings.filters[:], warnings.defaultaction = value  # type: ignore[index,attr-defined]
    warnings._filters_mutated()  # type: ignore[attr-defined]


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


_CARRIERS = (
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
