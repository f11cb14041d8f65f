"""One walk through everything a function uses: its encoding, and where each part was found.

The walk goes from slot to slot: a global, a closure cell, a default, an attribute of a class. Its
cost is bounded: long containers are sampled at both ends and in strides, and the number of objects
is limited.
"""

from __future__ import annotations

import functools
import itertools
import sys
import types
from collections.abc import Callable
from struct import pack

from .codes import ATOMS, SAMPLE_BYTES, Code, buffer, describe, framed
from .owners import is_users, version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MISSING", "Walk", "content_of"]

MOST_NODES = 2_000  # about 2 ms of walking at the very most
DEEPEST = 100  # levels of nesting; Python's own stack ends at about five times as many
MOST_ITEMS = 64  # of one container; its length always counts
MOST_SET_ITEMS = 512  # sets have no ends to sample from: they are sorted whole, or not at all

MISSING: Any = object()


class Walk:
    """One walk through everything a function uses.

    Args:
        most_nodes: how many objects to look at.
        follow_imports: whether modules count that are imported as the function runs. Not for a
            digest: whether they are loaded yet must make no difference to that.

    Attributes:
        parts: the encoding so far.
        slots, cells, functions, sizes: guards, see ``fingerprint``'s memo.
        classes: of which class a namespace among the slots is, by its id.
        caches: functions that keep results.
        mutable: whether something was met that can change behind every guard.
        stable: False once something could not be pinned down.
        cut: whether there was more than the walk may look at.
    """

    def __init__(self, most_nodes: int = MOST_NODES, *, follow_imports: bool = False) -> None:
        self.parts: list[bytes] = []
        self.slots: list[tuple[Any, str, object]] = []
        self.cells: list[tuple[types.CellType, object]] = []
        self.functions: list[tuple[types.FunctionType, object, object, object, object]] = []
        self.sizes: list[tuple[Any, int]] = []
        self.classes: dict[int, type] = {}
        self.caches: list[Any] = []
        self.mutable = False
        self.stable = True
        self.cut = False
        self._most_nodes = most_nodes
        self._follow_imports = follow_imports
        self._seen: dict[int, int] = {}
        self._expanded: set[tuple[int, tuple[str, ...]]] = set()
        self._depth = 0
        self._alive: list[object] = []  # objects made on the way must not have their ids reused

    def value(self, value: Any) -> None:
        """Encode any value."""
        kind = type(value)
        atom = ATOMS.get(kind)
        if atom is not None:
            self.parts.append(atom(value))
            # The memo would keep what its guards hold alive: not for the sake of a huge string.
            if kind in (str, bytes) and len(value) > 64 * SAMPLE_BYTES:
                self.mutable = True
            return
        known = self._seen.get(id(value))
        if known is not None:
            self.parts.append(b"@" + pack("<q", known))
            return
        if len(self._seen) >= self._most_nodes or self._depth >= DEEPEST:
            self.parts.append(b"#")
            self.mutable = self.cut = True
            return
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        self._depth += 1
        try:
            self._encoder(kind)(self, value)
        except Exception:  # noqa: BLE001 - objects of the user's may raise anything when looked at
            self.parts.append(b"!")
            self.stable, self.mutable = False, True
        self._depth -= 1

    @staticmethod
    def _encoder(kind: type) -> Callable[[Walk, Any], None]:
        """Return how to encode a type: as the nearest base that is known says."""
        for base in kind.__mro__:
            encode = _ENCODERS.get(base) or _NAMED.get((base.__module__, base.__name__))
            if encode is not None:
                return encode
        return Walk.instance

    def tag(self, tag: bytes, text: str = "") -> None:
        """Encode a tag with a name."""
        self.parts.append(framed(tag, text.encode("utf-8", "surrogatepass")))

    # Functions, classes, modules ------------------------------------------------------------

    def function(self, function: types.FunctionType) -> None:
        """Encode code, defaults, closure and the globals it names; a library's by its name."""
        inner = function.__closure__ is not None or "<" in function.__qualname__
        if not inner and not is_users(function.__module__):
            self.library(function)
            return
        described = describe(function.__code__)
        self.parts.append(framed(b"C", described.digest))
        closure = function.__closure__ or ()
        self.functions.append(
            (
                function,
                function.__code__,
                function.__defaults__,
                function.__closure__,
                function.__kwdefaults__,
            )
        )
        self.values(function.__defaults__ or ())
        self.keyword_defaults(function.__kwdefaults__)
        for cell in closure:
            content = content_of(cell)
            self.cells.append((cell, content))
            if content is MISSING:
                self.parts.append(b"?")
            else:
                self.value(content)
        self.globals(function.__globals__, described)
        attributes = {k: v for k, v in vars(function).items() if k != "__wrapped__"}
        if attributes:
            self.mutable = True
            self.attributes_of(attributes)

    def keyword_defaults(self, defaults: dict[str, Any] | None) -> None:
        """Encode the defaults of keyword-only arguments."""
        self.parts.append(pack("<q", len(defaults or ())))
        for name, value in (defaults or {}).items():
            self.slots.append((defaults, name, value))
            self.tag(b"k", name)
            self.value(value)

    def globals(self, namespace: dict[str, Any], described: Code) -> None:
        """Encode the globals the code names; of a user's module only the attributes it names."""
        for name in described.globals:
            value = namespace.get(name, MISSING)
            self.slots.append((namespace, name, value))
            if value is MISSING:  # a builtin, or not defined yet: its name is in the code
                continue
            self.tag(b"g", name)
            self.value(value)
            self.attributes(value, described.names)
        if self._follow_imports:
            for name in described.imports:
                self.imported(namespace, name, described.names)

    def imported(self, namespace: dict[str, Any], name: str, names: tuple[str, ...]) -> None:
        """Look at a module, and those it is in, that the code imports as it runs."""
        packages = ["", *itertools.accumulate(str(namespace.get("__package__") or "").split("."),
                                              "{}.{}".format)]  # fmt: skip
        parts = list(itertools.accumulate(filter(None, name.split(".")), "{}.{}".format))
        for package in packages:
            for part in parts or [""]:
                full = f"{package}.{part}".strip(".")
                self.attributes(sys.modules.get(full), names)

    def attributes(self, module: object, names: tuple[str, ...]) -> None:
        """Encode those attributes of a user's module, and of its submodules, that are named."""
        if type(module) is not types.ModuleType or not is_users(module.__name__):
            return
        if (id(module), names) in self._expanded:
            return
        self._expanded.add((id(module), names))
        namespace = vars(module)
        for name in names:
            value = namespace.get(name, MISSING)
            self.slots.append((namespace, name, value))
            if value is not MISSING:
                self.tag(b"a", name)
                self.value(value)
                self.attributes(value, names)

    def module(self, module: types.ModuleType) -> None:
        """Encode a module by its name: what is used of it, its attributes say."""
        self.tag(b"m", module.__name__)
        if not is_users(module.__name__):
            self.tag(b"v", version(module.__name__))

    def library(self, value: Any) -> None:
        """Encode something that comes with an installed package: by name and version."""
        module = getattr(value, "__module__", None) or "builtins"
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
        self.tag(b"L", f"{module}:{name}")
        self.tag(b"v", version(module))

    def builtin(self, function: types.BuiltinFunctionType) -> None:
        """Encode a function in C, or a method of an object of a C type with that object."""
        self.library(function)
        owner = function.__self__
        if owner is not None and not isinstance(owner, types.ModuleType):
            self.value(owner)

    def method(self, method: types.MethodType) -> None:
        """Encode a bound method by function and instance."""
        self.parts.append(b"M")
        self.value(method.__func__)
        self.value(method.__self__)

    def partial(self, partial: functools.partial[Any]) -> None:
        """Encode a partial by what it binds."""
        self.mutable = True
        self.parts.append(b"P")
        self.value(partial.func)
        self.value(partial.args)
        self.value(partial.keywords)

    def cls(self, cls: type) -> None:
        """Encode a user's class by its bases and attributes."""
        if not is_users(cls.__module__):
            self.library(cls)
            return
        self.tag(b"K", cls.__qualname__)
        self.values(cls.__bases__)
        namespace = vars(cls)
        self.sizes.append((namespace, len(namespace)))
        self.classes[id(namespace)] = cls
        for name, value in namespace.items():
            if name not in _CLASS_NOISE:
                self.slots.append((namespace, name, value))
                self.tag(b"a", name)
                self.value(value)

    def wrapped(self, value: Any) -> None:
        """Encode a descriptor or cache around a function by what it wraps."""
        self.tag(b"W", type(value).__qualname__)
        if type(value) is _CACHE:
            self.caches.append(value)
        for name in ("__func__", "__wrapped__", "fget", "fset", "fdel", "func"):
            inner = getattr(value, name, None)
            if inner is not None:
                self.value(inner)

    def named(self, value: Any) -> None:
        """Encode something whose name says all: slots, loggers, locks, ufuncs."""
        self.library(type(value))
        self.tag(b"n", str(getattr(value, "name", "") or getattr(value, "__name__", "")))

    def pattern(self, value: Any) -> None:
        """Encode a compiled regular expression."""
        self.parts.append(b"X")
        self.values((value.pattern, value.flags))

    # Containers and instances ---------------------------------------------------------------

    def values(self, values: tuple[Any, ...] | list[Any]) -> None:
        """Encode the length and the items, of long sequences a sample."""
        size = len(values)
        self.parts.append(b"(" + pack("<q", size))
        if size > 3 * MOST_ITEMS:
            middle = values[MOST_ITEMS : -MOST_ITEMS : -(-size // MOST_ITEMS)]
            values = [*values[:MOST_ITEMS], *middle, *values[-MOST_ITEMS:]]
        for value in values:
            self.value(value)

    def a_tuple(self, value: tuple[Any, ...]) -> None:
        """Encode a tuple."""
        self.subclass(value, tuple)
        self.values(value)

    def a_list(self, value: list[Any]) -> None:
        """Encode a list, which may change behind every guard."""
        self.mutable = True
        self.subclass(value, list)
        self.parts.append(b"l")
        self.values(value)

    def a_dict(self, value: dict[Any, Any]) -> None:
        """Encode a dictionary in its own order."""
        self.mutable = True
        self.subclass(value, dict)
        self.parts.append(b"d" + pack("<q", len(value)))
        for key, item in itertools.islice(dict.items(value), 2 * MOST_ITEMS):
            self.value(key)
            self.value(item)

    def a_set(self, value: set[Any] | frozenset[Any]) -> None:
        """Encode a set in the order of its members' encodings."""
        self.mutable = self.mutable or isinstance(value, set)
        self.subclass(value, set if isinstance(value, set) else frozenset)
        self.parts.append(b"{" + pack("<q", len(value)))
        if len(value) > MOST_SET_ITEMS:
            self.stable = False
            self.mutable = True
            return
        self.parts.append(b"".join(sorted(self.apart(item) for item in value)))

    def apart(self, value: Any) -> bytes:
        """Encode a member of a set on its own, so that its place in the set leaves no trace."""
        inner = Walk(self._most_nodes, follow_imports=self._follow_imports)
        inner.value(value)
        self.slots += inner.slots
        self.cells += inner.cells
        self.functions += inner.functions
        self.sizes += inner.sizes
        self.classes |= inner.classes
        self.caches += inner.caches
        self.cut = self.cut or inner.cut
        self.mutable = self.mutable or inner.mutable
        self.stable = self.stable and inner.stable
        self._alive += inner._alive
        return b"".join(inner.parts)

    def scalar(self, value: Any) -> None:
        """Encode an instance of a subclass of int, float, complex, str or bytes."""
        for base, plain in _PLAIN.items():
            if isinstance(value, base):
                self.parts.append(b"=" + ATOMS[base](plain(value)))
        self.instance(value)

    def subclass(self, value: Any, base: type) -> None:
        """Encode the type and attributes of an instance of a subclass of a builtin."""
        if type(value) is not base:
            self.instance(value)

    def instance(self, value: Any) -> None:
        """Encode an object by its type and its attributes."""
        self.mutable = True
        kind = type(value)
        self.value(kind)
        if kind.__module__.partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
            # Python's own types know best what they are; their slots may hold mere caches.
            self.opaque(value)
            return
        state = getattr(value, "__dict__", None)
        if type(state) is dict:
            self.attributes_of(state)
        slots = [name for base in kind.__mro__ for name in _slots(base)]
        for name in slots:
            if hasattr(value, name):
                self.tag(b"a", name)
                self.value(getattr(value, name))
        if _hides_state(kind):
            self.opaque(value)

    def attributes_of(self, state: dict[str, Any]) -> None:
        """Encode an instance's dictionary."""
        self.parts.append(b"A" + pack("<q", len(state)))
        for name, item in itertools.islice(state.items(), 2 * MOST_ITEMS):
            self.tag(b"a", str(name))
            self.value(item)

    def opaque(self, value: Any) -> None:
        """Encode an object of a C type: by its reduction when it is Python's own."""
        kind = type(value)
        if kind is object or issubclass(kind, _CONTAINERS):  # their content is encoded already
            return
        if kind.__module__.partition(".")[0] in sys.stdlib_module_names:
            try:
                reduced = value.__reduce_ex__(4)
            except Exception:  # noqa: BLE001 - its type may have any reason not to be taken apart
                self.stable = False
                return
            if isinstance(reduced, str):
                self.tag(b"R", reduced)
                return
            for part in reduced:
                items = (
                    part
                    if not hasattr(part, "__next__")
                    else list(itertools.islice(part, MOST_ITEMS))
                )
                self.value(items)
            return
        self.stable = False

    def raw(self, value: Any) -> None:
        """Encode a bytearray, memoryview or array by a sample of its bytes."""
        self.mutable = True
        view = memoryview(value)
        self.tag(b"B", f"{type(value).__name__} {view.format} {view.shape}")
        if view.c_contiguous:
            self.parts.append(buffer(b"y", view.cast("B")))
        elif view.nbytes <= 64 * SAMPLE_BYTES:
            self.parts.append(buffer(b"y", view.tobytes()))
        else:
            self.stable = False

    def ndarray(self, value: Any) -> None:
        """Encode a NumPy array by type, shape and a sample of its items."""
        self.mutable = True
        self.value(type(value))
        self.tag(b"D", f"{value.dtype.str}{value.dtype.names or ''} {value.shape}")
        size = value.size
        if size == 0:
            return
        flat = value.flat
        step = max(1, size // MOST_ITEMS)
        samples = (flat[:MOST_ITEMS], flat[-MOST_ITEMS:], flat[::step])
        for sample in samples if size > MOST_ITEMS else samples[:1]:
            if value.dtype.hasobject:
                self.values(sample.tolist())
            else:
                self.parts.append(framed(b"y", sample.tobytes()))

    def pandas(self, value: Any) -> None:
        """Encode a data frame, a series or an index by labels, types and a sample of its rows."""
        self.mutable = True
        self.value(type(value))
        size = len(value)
        rows = sorted({*range(min(size, 16)), *range(max(0, size - 16), size),
                       *range(0, size, max(1, size // 32))})  # fmt: skip
        self.parts.append(pack("<q", size))
        sample = value.take(rows)
        columns = [sample]
        if value.ndim == 2:
            self.values([str(name) for name in value.columns])
            columns = [sample.iloc[:, place] for place in range(min(value.shape[1], MOST_ITEMS))]
        if hasattr(sample, "index"):
            columns.append(sample.index)
        for column in columns:
            self.tag(b"D", f"{column.dtype} {getattr(column, 'name', '')}")
            cells = column.to_numpy()
            if cells.dtype.hasobject:
                self.values([c if type(c) in ATOMS else repr(c) for c in cells.tolist()])
            else:
                self.parts.append(framed(b"y", cells.tobytes()))

    def ndarray_scalar(self, value: Any) -> None:
        """Encode a NumPy scalar."""
        self.tag(b"D", value.dtype.str)
        self.parts.append(framed(b"y", value.tobytes()))


def content_of(cell: types.CellType) -> object:
    """Return what a closure cell holds, ``MISSING`` while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _slots(cls: type) -> tuple[str, ...]:
    """Return the attribute names of a class's ``__slots__``, as they are stored."""
    slots = vars(cls).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    owner = cls.__name__.lstrip("_")
    return tuple(
        f"_{owner}{name}" if name.startswith("__") and not name.endswith("__") else name
        for name in names
        if name not in ("__dict__", "__weakref__")
    )


def _hides_state(kind: type) -> bool:
    """Return whether instances hold something beyond their attributes and slots, in C.

    A class statement adds to the size of its base's instances a pointer each for the dictionary,
    the weak references and the slots it names.
    """
    for cls in kind.__mro__[:-1]:
        base = cls.__base__
        assert base is not None
        own = vars(cls)
        named = len(_slots(cls)) + ("__dict__" in own) + ("__weakref__" in own)
        if cls.__basicsize__ - base.__basicsize__ > _POINTER * named:
            return True
    return False


_CACHE: type = type(functools.lru_cache(len))
_POINTER = object.__basicsize__ // 2  # an object is a reference count and a type


# Names every class has, or whose values say nothing about behaviour.
_CLASS_NOISE = frozenset(
    {
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        # What a dataclass is shows in the methods generated for it.
        "__dataclass_fields__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__qualname__",
        "__slotnames__",  # kept there by copyreg once an instance was pickled
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)

# Types whose content is encoded by their own encoders, never by attributes alone.
_CONTAINERS = (tuple, list, dict, set, frozenset, int, float, complex, str, bytes)

# How to get the plain value out of an instance of a subclass, past its own methods.
_PLAIN: dict[type, Callable[[Any], Any]] = {
    int: int.__index__,
    float: float.__float__,
    complex: complex.__complex__,
    str: str.__str__,
    bytes: lambda value: bytes(memoryview(value)),
}

# Looked up along the type's MRO: a subclass is encoded as its nearest known base says.
_ENCODERS: dict[Any, Callable[[Walk, Any], None]] = {
    types.FunctionType: Walk.function,
    types.BuiltinFunctionType: Walk.builtin,
    types.MethodType: Walk.method,
    types.ModuleType: Walk.module,
    types.MethodDescriptorType: Walk.library,
    types.WrapperDescriptorType: Walk.library,
    types.MethodWrapperType: Walk.builtin,
    types.ClassMethodDescriptorType: Walk.library,
    types.GetSetDescriptorType: Walk.named,
    types.MemberDescriptorType: Walk.named,
    functools.partial: Walk.partial,
    functools.cached_property: Walk.wrapped,
    _CACHE: Walk.wrapped,
    staticmethod: Walk.wrapped,
    classmethod: Walk.wrapped,
    property: Walk.wrapped,
    type: Walk.cls,
    int: Walk.scalar,
    float: Walk.scalar,
    complex: Walk.scalar,
    str: Walk.scalar,
    bytes: Walk.scalar,
    tuple: Walk.a_tuple,
    list: Walk.a_list,
    dict: Walk.a_dict,
    set: Walk.a_set,
    frozenset: Walk.a_set,
    types.MappingProxyType: lambda walk, value: walk.a_dict(dict(value)),
    bytearray: Walk.raw,
    memoryview: Walk.raw,
    types.CodeType: lambda walk, code: walk.parts.append(framed(b"C", describe(code).digest)),
}

# Types of modules that may not be imported, by name.
_NAMED: dict[tuple[str, str], Callable[[Walk, Any], None]] = {
    ("numpy", "ndarray"): Walk.ndarray,
    ("numpy", "generic"): lambda walk, value: walk.ndarray_scalar(value),
    ("numpy", "dtype"): lambda walk, value: walk.tag(b"D", str(value)),
    ("numpy", "ufunc"): Walk.named,
    ("pandas.core.frame", "DataFrame"): Walk.pandas,
    ("pandas.core.series", "Series"): Walk.pandas,
    ("pandas.core.indexes.base", "Index"): Walk.pandas,
    # pandas 3 says that its classes live at the top.
    ("pandas", "DataFrame"): Walk.pandas,
    ("pandas", "Series"): Walk.pandas,
    ("pandas", "Index"): Walk.pandas,
    ("array", "array"): Walk.raw,
    ("re", "Pattern"): Walk.pattern,
    ("logging", "Logger"): Walk.named,
    ("_thread", "lock"): Walk.named,
    ("_thread", "RLock"): Walk.named,
    ("amorsize.decorator", "ParallelFunction"): lambda walk, value: walk.value(value.__wrapped__),
}
