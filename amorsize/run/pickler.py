"""A pickler on top of cloudpickle that keeps the identity of classes and functions.

cloudpickle writes classes and functions of the main module and of function bodies by value, and
overwrites existing ones when it loads them. Here each has a token (``known``): it is made where it
is unknown, and left alone where it is known. Functions find their globals in the module of that
name, not in a copy. Objects that cloudpickle would change are kept as they are, or refused.

The pickle depends on its way, that is, where it comes from and goes to:

- ``Way.CALL``: the function to run and what it uses, from the caller to workers that import modules
  themselves. Classes that a worker already knows get the caller's present attributes.
- ``Way.ITEMS``: items, from the caller to the same workers, later. Classes and functions that a
  worker already knows stay as they are.
- ``Way.KIN``: between a worker and its caller where names of the main module mean the same on both
  sides. These are forked workers in both directions, and the results of all workers.

This module is loaded only when needed: importing cloudpickle takes 15 ms.
"""

from __future__ import annotations

import abc
import contextvars
import enum
import functools
import io
import os
import pickle
import struct
import sys
import threading
import types
import typing
from typing import Any, cast

from cloudpickle import cloudpickle

from ..identity.codes import describe
from ..identity.looking import namespace_of
from ..measure.helpers import is_held
from . import homes, known, making
from .reductions import MADE_HERE, PROTOCOL, reducer_of

__all__ = ["NamingPickler", "Pickler", "Way", "pickled"]


class Way(enum.Enum):
    """Where a value comes from and goes to, see above."""

    CALL = "call"
    ITEMS = "items"
    KIN = "kin"


def pickled(value: Any, way: Way, buffer_callback: Any = None) -> tuple[bytes, set[type]]:
    """Return a value pickled, the types of all objects in it, and the classes in it.

    Args:
        value: what to pickle.
        way: where it comes from and goes to.
        buffer_callback: as in ``pickle.dumps``.

    Raises:
        Exception: whatever pickling it raises.
    """
    out = io.BytesIO()
    kind = NamingPickler if way is Way.CALL and known.places() else Pickler
    pickler = kind(out, way, buffer_callback)
    pickler.dump(value)
    return out.getvalue(), pickler.met


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles for one way.

    Args:
        file: where to write.
        way: where the pickle comes from and goes to.
        buffer_callback: as in ``pickle.Pickler``.
        fresh_locks: whether locks are pickled as new locks. This is for the values of modules,
            whose locks a worker's own import would have made.

    Attributes:
        met: types of all pickled objects, as ``reductions.dump`` returns them, and the classes
            among the objects.
    """

    def __init__(
        self, file: Any, way: Way, buffer_callback: Any = None, *, fresh_locks: bool = False
    ) -> None:
        super().__init__(file, protocol=PROTOCOL, buffer_callback=buffer_callback)
        self._way = way
        self._fresh_locks = fresh_locks
        self.met: set[type] = set()
        # By id of the globals and cells, which the pickled object keeps alive.
        self._namespaces: dict[int, _Namespace] = {}
        self._cells: dict[int, _Cell] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Return how to pickle an object; NotImplemented for pickle's own way."""
        kind = type(obj)
        if isinstance(obj, type):
            self.met.add(obj)
            return self._class(obj)
        self.met.add(kind)
        if kind is types.FunctionType:
            return self._function(obj)
        reduce = _REDUCERS.get(kind)
        if reduce is not None:
            return reduce(self, obj)
        reduce = None if kind in self.dispatch_table else reducer_of(kind)
        return self._other(obj) if reduce is None else reduce(obj)

    def _other(self, obj: Any) -> Any:
        """Return how to pickle a standard stream, or with ``fresh_locks`` a lock."""
        if obj is sys.stdout or obj is sys.stderr:
            return getattr, (sys, "stdout" if obj is sys.stdout else "stderr")
        return _fresh(obj) if self._fresh_locks else NotImplemented

    # By name --------------------------------------------------------------------------------

    def _by_name(self, value: Any, path: str) -> Any:
        """Return how to pickle a value by its name, None if its module has no such value."""
        module = value.__module__
        if module == "__main__":
            kin = self._way is Way.KIN and known.held(known.main_names(), path) is value
            return NotImplemented if kin else None
        loaded = sys.modules.get(module) if isinstance(module, str) else None
        if loaded is None or (self._way is not Way.KIN and homes.is_dynamic(loaded)):
            return None
        found = known.held(getattr(loaded, "__dict__", {}), path)
        home = None if self._way is Way.KIN else homes.home_of(module)
        if found is value:
            return NotImplemented if home is None else (homes.value_at, (home, path))
        inner = self._way is not Way.KIN and known.function_in(found) is value
        return (making.function_at, (module, home, path)) if inner else None

    def module(self, module: types.ModuleType) -> Any:
        """Return how to pickle a module: by name, by its file, or by value."""
        name = module.__name__
        if sys.modules.get(name) is module:
            if self._way is Way.KIN:
                return cloudpickle.subimport, (name,)
            if not homes.is_dynamic(module):
                home = homes.home_of(name)
                by_name = (cloudpickle.subimport, (name,))
                return by_name if home is None else (homes.module_at, (home,))
        content = {key: value for key, value in vars(module).items() if key != "__builtins__"}
        return (
            making.made_module,
            (name, sys.modules.get(name) is module),
            content,
            None,
            None,
            making.fill_module,
        )

    # By value, under a token ----------------------------------------------------------------

    def _class(self, cls: type) -> Any:
        if not cls.__flags__ & MADE_HERE:
            return self._static_class(cls)
        reduced = self._by_name(cls, cls.__qualname__)
        if reduced is not None:
            return reduced
        if self._way is Way.KIN:
            reference = self._reference(cls)
            if reference is not None:
                return reference
        make, args = _making_of(cls)
        return self._by_value(cls, make, args, _state_of(cls), making.set_class)

    def _static_class(self, cls: type) -> Any:
        """Return how to pickle a C class: by a name, since it cannot be made again."""
        reduced = cloudpickle._class_reduce(cls)
        if reduced is NotImplemented or reduced[0] is not cloudpickle._make_skeleton_class:
            return reduced
        raise pickle.PicklingError(f"cannot pickle {cls!r}: its module does not hold it")

    def _function(self, function: types.FunctionType) -> Any:
        reduced = self._by_name(function, function.__qualname__)
        if reduced is not None:
            return reduced
        if function.__code__ is _DISPATCHER:
            return making.made_dispatcher, _dispatched(function)
        if self._way is Way.KIN and known.is_lasting(function):
            return making.found, (known.token_of(function), None)
        code, namespace = function.__code__, self._namespace(function.__globals__)
        cells = function.__closure__ and tuple(map(self._cell, function.__closure__))
        args = (code, namespace, function.__name__, None, cells)
        return self._by_value(
            function, making.function_of, args, self._state(function), making.set_function
        )

    def _reference(self, cls: type) -> Any:
        """Return a reference to a class that the other side is sure to have, else None."""
        if known.is_lasting(cls):
            return making.found, (known.token_of(cls), None)
        if known.is_inherited(cls):
            return making.found, (known.token(cls), _whereabouts(cls))
        return None

    def _by_value(self, value: Any, make: Any, args: Any, state: Any, set_state: Any) -> Any:
        token, place = known.token_of(value), ""
        if known.held(known.main_names(), value.__qualname__) is value:
            place = value.__qualname__
        if self._way is Way.CALL:
            return (
                making.shipped,
                (token, place, make, args),
                (set_state, state),
                None,
                None,
                making.set_state,
            )
        where = _whereabouts(value) if self._way is Way.KIN and isinstance(value, type) else None
        return (
            making.found_or_made, (token, where, place, make, args), (set_state, state), None, None,
            making.set_missing_state,
        )  # fmt: skip

    def _state(self, function: types.FunctionType) -> Any:
        """Return everything of a function except its code."""
        described = {name: getattr(function, name) for name in _DESCRIPTION}
        described["__annotations__"] = _annotations(function)
        if self._namespace(function.__globals__).is_there(self._way):
            names = {}
        else:
            # cloudpickle misses global names that a class body uses.
            found = describe(function.__code__).globals
            wanted = {
                **cloudpickle._extract_code_globals(function.__code__),
                **dict.fromkeys(found),
            }
            own = function.__globals__
            names = {name: own[name] for name in wanted if name in own}
        contents = tuple(map(_content, function.__closure__ or ()))
        modules = cloudpickle._find_imported_submodules(
            function.__code__, [*names.values(), *contents]
        )
        return dict(vars(function)), described, names, contents, modules

    def _namespace(self, names: dict[str, Any]) -> _Namespace:
        if id(names) not in self._namespaces:
            self._namespaces[id(names)] = _Namespace(names, self._way)
        return self._namespaces[id(names)]

    def _cell(self, cell: types.CellType) -> Any:
        return self._cells.setdefault(id(cell), _Cell())

    # What cloudpickle cannot do, or does differently ----------------------------------------

    def cached(self, cached: Any) -> Any:
        """Return how to pickle a function with a ``functools.lru_cache``."""
        reduced = self._by_name(cached, cached.__qualname__)
        if reduced is not None:
            return cached.__qualname__ if reduced is NotImplemented else reduced
        return making.made_cache, (
            cached.__wrapped__,
            cached.cache_parameters(),
            dict(vars(cached)),
        )

    def type_variable(self, variable: Any) -> Any:
        """Return how to pickle a TypeVar or the like: by name or token, as identity matters."""
        name, module = variable.__name__, variable.__module__
        if known.held(getattr(sys.modules.get(module), "__dict__", {}), name) is variable:
            if module != "__main__":
                return name
            if self._way is Way.KIN:
                return getattr, (sys.modules["__main__"], name)
        names = (name, *getattr(variable, "__constraints__", ()))
        options = {
            option: getattr(variable, f"__{option}__")
            for option in ("bound", "covariant", "contravariant", "infer_variance", "default")
            if hasattr(variable, f"__{option}__")
        }
        args = type(variable), names, options, module
        return making.found_or_made, (
            known.token_of(variable),
            None,
            "",
            making.made_type_variable,
            args,
        )

    def context_variable(self, variable: contextvars.ContextVar[Any]) -> Any:
        """Return how to pickle a context variable: by its name in a module, else under a token."""
        place = _place_of_variable(variable)
        if place is not None:
            return making.variable_at, place
        return making.variable_of, (_token_of_variable(variable), variable.name, _default(variable))

    def file(self, file: Any) -> Any:
        """Return how to pickle a standard stream; refuse any other text file."""
        if file is sys.stdout or file is sys.stderr:
            return getattr, (sys, "stdout" if file is sys.stdout else "stderr")
        raise pickle.PicklingError(f"cannot pickle the open file {file!r}")

    def partial_method(self, method: functools.partialmethod[Any]) -> Any:
        """Return how to pickle a partial method: Python 3.14 makes it only with its function."""
        make = functools.partial(functools.partialmethod, method.func, **method.keywords)
        return make, method.args

    def code(self, code: types.CodeType) -> Any:
        """Return how to pickle a code object with its file name, which tracebacks show."""
        make, args = cloudpickle._code_reduce(code)
        place = args.index("<dynamic-code>")
        return make, (*args[:place], code.co_filename, *args[place + 1 :])

    def view(self, view: memoryview) -> Any:
        """Return how to pickle a memoryview, with its format and shape."""
        data = view.tobytes()
        return making.made_view, (
            data if view.readonly else bytearray(data),
            view.format,
            view.shape,
        )


class NamingPickler(Pickler):
    """Names objects that modules hold (``known.named``), so that a worker gets its module's own."""

    def __init__(self, file: Any, way: Way, buffer_callback: Any = None) -> None:
        super().__init__(file, way, buffer_callback)
        self._places = known.places()

    def persistent_id(self, obj: Any) -> Any:
        """Return where a module holds an object, None for an object that is pickled as usual."""
        return self._places.get(id(obj))


def _dispatched(function: Any) -> tuple[Any, ...]:
    """Return the parts of a ``functools.singledispatch`` function."""
    registry = dict(function.registry)
    own = {"registry", "dispatch", "register", "_clear_cache", "__wrapped__"}
    return registry.pop(object), registry, {k: v for k, v in vars(function).items() if k not in own}


_DISPATCHER = cast("types.FunctionType", functools.singledispatch(len)).__code__


def _token_of_variable(variable: contextvars.ContextVar[Any]) -> str:
    token = making.VARIABLE_TOKENS.setdefault(variable, os.urandom(8).hex())
    making.VARIABLES[token] = variable
    return token


_variable_places: dict[contextvars.ContextVar[Any], tuple[str, str] | None] = {}


def _place_of_variable(variable: contextvars.ContextVar[Any]) -> tuple[str, str] | None:
    """Return (module, name) of a module's context variable, None for any other."""
    if variable not in _variable_places:
        modules = [pair for pair in list(sys.modules.items()) if not pair[0].startswith("__m")]
        found = (
            (module, name)
            for module, content in modules
            for name, value in list(namespace_of(content).items())
            if value is variable
        )
        _variable_places[variable] = next(found, None)
    return _variable_places[variable]


def _default(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    """Return the default of a context variable in a tuple, an empty tuple for no default."""
    try:
        return (contextvars.Context().run(variable.get),)
    except LookupError:
        return ()


# Parts --------------------------------------------------------------------------------------


class _Cell:
    """A closure's cell, made empty. The function's state fills it: they may form a cycle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return types.CellType, ()


class _Namespace:
    """The globals of a function: a module's own, or a dictionary of no module.

    Args:
        names: the globals.
        way: where they come from and go to.
    """

    def __init__(self, names: dict[str, Any], way: Way) -> None:
        name = names.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) else None
        own = getattr(module, "__dict__", None) is names
        by_hand = own and module is not None and way is not Way.KIN and homes.is_dynamic(module)
        self._module = name if own and not by_hand else None
        self._home = homes.home_of(self._module) if self._module and way is not Way.KIN else None
        self._base = {} if self._module else {k: names[k] for k in _BASE if k in names}

    def is_there(self, way: Way) -> bool:
        """Return whether the other side gets the globals' values in another way."""
        return self._module is not None and (way is Way.KIN or self._module != "__main__")

    def __reduce__(self) -> tuple[Any, ...]:
        return making.names_of, (self._module, self._home, self._base)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return making.Empty.CELL


def _whereabouts(cls: type) -> tuple[type, int, str] | None:
    """Return what finds a class in a process related by a fork: base, address, qualified name."""
    base = cls.__base__
    return None if base is None else (base, id(cls), cls.__qualname__)


def _making_of(cls: type) -> tuple[Any, Any]:
    """Return the function that makes a class without its attributes, and its arguments."""
    if issubclass(cls, enum.Enum):
        return cloudpickle._make_skeleton_enum, cloudpickle._enum_getnewargs(cls)
    args = cloudpickle._class_getnewargs(cls)
    args[3]["__qualname__"] = cls.__qualname__
    # ``typing.NamedTuple`` sets ``__slots__`` itself, and refuses to be given any.
    if "__slots__" in vars(cls) and typing.NamedTuple not in vars(cls).get("__orig_bases__", ()):
        args[3]["__slots__"] = vars(cls)["__slots__"]
    return cloudpickle._make_skeleton_class, args


def _state_of(cls: type) -> dict[str, Any]:
    """Return a class's attributes, without those that Python derives from the others."""
    state = {
        name: value
        for name, value in cloudpickle._extract_class_dict(cls).items()
        if name not in _MADE_WITH_CLASS and getattr(value, "__objclass__", None) is not cls
    }
    if isinstance(cls, abc.ABCMeta):
        registered = (subclass() for subclass in abc._get_dump(cls)[0])  # type: ignore[attr-defined]
        state["_abc_impl"] = [subclass for subclass in registered if subclass is not None]
    for name in vars(cls).get("_member_map_", ()):  # members of an enumeration
        state.pop(name, None)
    if not _ANNOTATED.isdisjoint(vars(cls)):
        state["__annotations__"] = _annotations(cls)
    return state


def _annotations(value: Any) -> dict[str, Any]:
    """Return the annotations of a function or class, as strings if they cannot be evaluated.

    Python 3.14 and later evaluate annotations on access (PEP 649), and names that only type
    checkers import are missing then. A class would cache the result of an access. So
    ``__annotate__`` is called directly, which caches nothing.
    """
    found: dict[str, Any]
    try:
        if isinstance(value, type) and "__annotations_cache__" not in vars(value):
            found = value.__annotate__(_VALUE)  # type: ignore[attr-defined]
        else:
            found = value.__annotations__
    except Exception:  # noqa: BLE001 - expressions of the user's may raise anything
        import annotationlib  # type: ignore[import-not-found] # not before Python 3.14

        found = annotationlib.get_annotations(value, format=annotationlib.Format.STRING)
    return found


def _fresh(value: Any) -> Any:
    """Return how to pickle a lock as a new one or a ``threading.local``, else NotImplemented."""
    if type(value) is threading.local:
        return making.thread_values, (dict(vars(value)),)
    if is_held(value):
        raise pickle.PicklingError("cannot pickle a lock that another thread holds")
    return (_LOCKS[type(value)], ()) if type(value) in _LOCKS else NotImplemented


_LOCKS: dict[type, Any] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
}

# Where classes have their annotations from Python 3.14 on, and ``annotationlib.Format.VALUE``
# (that module is slow to import).
_ANNOTATED = frozenset({"__annotate_func__", "__annotations_cache__"})
_VALUE = 1

# Attributes that Python makes for every class or for an enumeration, or that copyreg adds when
# instances are pickled.
_MADE_WITH_CLASS = frozenset(
    {
        *_ANNOTATED,
        "__dict__",
        "__slotnames__",
        "__weakref__",
        "_abc_impl",
        "_generate_next_value_",
        "_member_map_",
        "_member_names_",
        "_member_type_",
        "_value2member_map_",
    }
)

_BASE = ("__package__", "__name__", "__path__", "__file__")
_DESCRIPTION = (
    "__qualname__",
    "__module__",
    "__doc__",
    "__defaults__",
    "__kwdefaults__",
)

_REDUCERS: dict[type, Any] = {
    type(functools.lru_cache(len)): Pickler.cached,
    types.ModuleType: Pickler.module,
    types.CodeType: Pickler.code,
    typing.TypeVar: Pickler.type_variable,
    typing.TypeVarTuple: Pickler.type_variable,
    typing.ParamSpec: Pickler.type_variable,
    typing.ParamSpecArgs: lambda _, value: (typing.ParamSpecArgs, (value.__origin__,)),
    typing.ParamSpecKwargs: lambda _, value: (typing.ParamSpecKwargs, (value.__origin__,)),
    struct.Struct: lambda _, value: (struct.Struct, (value.format,)),
    io.TextIOWrapper: Pickler.file,
    memoryview: Pickler.view,
    contextvars.ContextVar: Pickler.context_variable,
    functools.cached_property: lambda _, value: (
        making.made_property,
        (value.func, value.attrname),
    ),
    functools.partialmethod: Pickler.partial_method,
}
