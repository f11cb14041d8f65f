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

import contextvars
import enum
import functools
import io
import pickle
import struct
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, cast

from cloudpickle import cloudpickle

from ..identity.codes import describe
from ..versions import global_of
from . import homes, known, making
from .reductions import MADE_HERE, PROTOCOL, reducer_of
from .unmaking import (
    Cell,
    Namespace,
    annotations_of,
    content_of,
    default_of,
    dispatched,
    making_of,
    place_of_variable,
    reduced_fresh,
    state_of,
    token_of_variable,
    whereabouts,
)

__all__ = ["NamingPickler", "Pickler", "Way", "pickled"]


class Way(enum.Enum):
    """Where a value comes from and goes to, see above."""

    CALL = "call"
    ITEMS = "items"
    KIN = "kin"


def pickled(
    value: Any,
    way: Way,
    buffer_callback: Any = None,
    *,
    lenient: bool = False,
    replace: Callable[[Any], Any] | None = None,
) -> tuple[bytes, set[type]]:
    """Return a value pickled, the types of all objects in it, and the classes in it.

    Args:
        value: what to pickle.
        way: where it comes from and goes to.
        buffer_callback: as in ``pickle.dumps``.
        lenient: as in ``Pickler``.
        replace: as in ``Pickler``.

    Raises:
        Exception: whatever pickling it raises.
    """
    out = io.BytesIO()
    kind = NamingPickler if way is Way.CALL and known.places() else Pickler
    pickler = kind(out, way, buffer_callback)
    pickler.lenient, pickler.replace = lenient, replace
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
        lenient: whether attributes of classes that cannot be pickled are left out.
        replace: returns how to pickle an object, as a reduction, or None for the usual way; None
            for no such function.
        met: types of all pickled objects, as ``reductions.dump`` returns them, and the classes
            among the objects.
    """

    def __init__(
        self, file: Any, way: Way, buffer_callback: Any = None, *, fresh_locks: bool = False
    ) -> None:
        super().__init__(file, protocol=PROTOCOL, buffer_callback=buffer_callback)
        self._way = way
        self._fresh_locks = fresh_locks
        self.lenient = False
        self.replace: Callable[[Any], Any] | None = None
        self.met: set[type] = set()
        # By id of the globals and cells, which the pickled object keeps alive.
        self._namespaces: dict[int, Namespace] = {}
        self._cells: dict[int, Cell] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Return how to pickle an object; NotImplemented for pickle's own way."""
        kind = type(obj)
        if isinstance(obj, type):
            self.met.add(obj)
            return self._class(obj)
        self.met.add(kind)
        if self.replace is not None and (reduced := self.replace(obj)) is not None:
            return reduced
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
        return reduced_fresh(obj) if self._fresh_locks else NotImplemented

    # By name --------------------------------------------------------------------------------

    def _by_name(self, value: Any, path: str) -> Any:
        """Return how to pickle a value by its name, None if its module has no such value."""
        module = value.__module__
        if module == "__main__":
            if self._way is not Way.KIN or known.is_apart():
                return None
            return NotImplemented if known.held(known.main_names(), path) is value else None
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
        make, args = making_of(cls)
        state = state_of(cls)
        if self.lenient:
            state = {name: value for name, value in state.items() if self._is_sendable(value)}
        return self._by_value(cls, make, args, state, making.set_class)

    def _is_sendable(self, value: Any) -> bool:
        try:
            pickled(value, self._way, lenient=True)
        except Exception:  # noqa: BLE001 - a reduction may be any code, and raise anything
            return False
        return True

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
            return making.made_dispatcher, dispatched(function)
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
            return making.found, (known.token(cls), whereabouts(cls))
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
        where = whereabouts(value) if self._way is Way.KIN and isinstance(value, type) else None
        return (
            making.found_or_made, (token, where, place, make, args), (set_state, state), None, None,
            making.set_missing_state,
        )  # fmt: skip

    def _state(self, function: types.FunctionType) -> Any:
        """Return everything of a function except its code."""
        described = {name: getattr(function, name) for name in _DESCRIPTION}
        described["__annotations__"] = annotations_of(function)
        if self._namespace(function.__globals__).is_there():
            names = {}
        else:
            # cloudpickle misses global names that a class body uses.
            found = describe(function.__code__).globals
            wanted = {
                **cloudpickle._extract_code_globals(function.__code__),
                **dict.fromkeys(found),
            }
            own = function.__globals__
            names = {name: global_of(own, name) for name in wanted if name in own}
        contents = tuple(map(content_of, function.__closure__ or ()))
        modules = cloudpickle._find_imported_submodules(
            function.__code__, [*names.values(), *contents]
        )
        return dict(vars(function)), described, names, contents, modules

    def _namespace(self, names: dict[str, Any]) -> Namespace:
        if id(names) not in self._namespaces:
            self._namespaces[id(names)] = Namespace(names, kin=self._way is Way.KIN)
        return self._namespaces[id(names)]

    def _cell(self, cell: types.CellType) -> Any:
        return self._cells.setdefault(id(cell), Cell())

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
        place = place_of_variable(variable)
        if place is not None:
            return making.variable_at, place
        token, default = token_of_variable(variable), default_of(variable)
        return making.variable_of, (token, variable.name, default)

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


_DISPATCHER = cast("types.FunctionType", functools.singledispatch(len)).__code__

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
    # In 3.13 it has a cache of methods, which cannot be pickled.
    functools.singledispatchmethod: lambda _, value: (
        making.made_method_dispatcher,
        (value.dispatcher, value.func),
    ),
}
