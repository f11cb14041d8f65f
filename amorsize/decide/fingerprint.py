"""What a function *is*: a structural hash of everything it uses.

The fingerprint names the record a function's measurements are remembered under. It must be equal
in every process that runs the same code, whatever the hash seed, the folder or the line numbers;
and different as soon as anything the function uses differs: its code, constants, defaults, closure
values, the globals and helpers it names, transitively.

So the walk never looks at pickle bytes (they follow the hash seed, the memo and the file's path),
at ``id()`` or at source text (stale after an edit, absent in a REPL). It encodes structure:
type-tagged, length-prefixed parts, objects met again as back-references, sets in the order of
their encodings. Its cost is bounded: long containers and buffers are sampled at both ends and in
strides, and the number of nodes is limited.

A repeated call must be cheap, and a memo keyed by ``id`` is how wrong answers are made. The memo
here keeps, for each function, *guards*: every slot the walk went through (a global, a cell, a
default, a class attribute) with the object it held. The memo answers only while each slot still
holds that very object. Functions that use mutable values (a list, an instance) are walked anew
each time, since no guard can see inside those; only their code objects are remembered.
"""

from __future__ import annotations

import builtins
import functools
import itertools
import sys
import types
from collections.abc import Callable, Iterable
from opcode import hasconst, opmap
from struct import pack
from typing import NamedTuple

try:
    from _blake2 import blake2b  # hashlib gives this very function, after 2 ms of OpenSSL
except ImportError:
    from hashlib import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "MISSING",
    "Fingerprint",
    "Owner",
    "Uses",
    "code_digest",
    "digest_of",
    "fingerprint",
    "is_known",
    "is_users",
    "uses",
]

MOST_NODES = 2_000  # about 2 ms of walking at the very most
# Where the walk is not for a digest but to find all that a function uses.
MOST_USED_NODES = 20_000
DEEPEST = 100  # levels of nesting; Python's own stack ends at about five times as many
MOST_ITEMS = 64  # of one container; its length always counts
MOST_SET_ITEMS = 512  # sets have no ends to sample from: they are sorted whole, or not at all
SAMPLE_BYTES = 1_024  # at each end of a long buffer, and in strides between

MOST_MEMO = 512
MOST_CODES = 4_096


def digest_of(data: bytes) -> str:
    """Return 16 hexadecimal digits that tell bytes apart.

    >>> digest_of(b"amorsize")
    '965a18bf3d068528'
    """
    return blake2b(data, digest_size=8).hexdigest()


class Fingerprint(NamedTuple):
    """A function's identity across processes.

    Attributes:
        digest: 16 hexadecimal digits.
        stable: False when the function uses something whose content cannot be pinned down (an open
            file, an opaque extension object); what is learned about it stays in this process.
    """

    digest: str
    stable: bool


def fingerprint(func: Callable[..., Any]) -> Fingerprint:
    """Return the structural fingerprint of ``func``.

    Args:
        func: any callable: function, lambda, builtin, class, partial, bound method, instance.

    >>> def scale(k):
    ...     return lambda x: x * k
    >>> fingerprint(scale(2)) == fingerprint(scale(2))
    True
    >>> fingerprint(scale(2)) == fingerprint(scale(3))
    False
    """
    memo = _memo.get(func) if type(func) is types.FunctionType else None
    if memo is not None and memo.holds():
        return memo.result
    return _walked(func)


def is_known(func: Callable[..., Any]) -> bool:
    """Return whether the fingerprint of ``func`` is known from before and still holds."""
    memo = _memo.get(func) if type(func) is types.FunctionType else None
    return memo is not None and memo.holds()


Owner = str | type | types.FunctionType  # a module's name, a class, a function


class Uses(NamedTuple):
    """What a function uses of its user's modules, classes and functions.

    Attributes:
        values: (owner, attribute, value) of everything reached by name; ``MISSING`` for a value
            that is looked for and not there.
        codes: digests of the code of each function of a module, by (module, qualified name).
        caches: (module, qualified name) of functions that keep results (``functools.lru_cache``).
        whole: False when there was too much to look through.
    """

    values: tuple[tuple[Owner, str, object], ...]
    codes: dict[tuple[str, str], frozenset[bytes]]
    caches: frozenset[tuple[str, str]]
    whole: bool


def uses(func: Callable[..., Any]) -> Uses:
    """Return what ``func`` uses, transitively, of the modules and classes of its user.

    >>> uses(len)
    Uses(values=(), codes={}, caches=frozenset(), whole=True)
    """
    walk = _Walk(MOST_USED_NODES, follow_imports=True)
    walk.value(func)
    values: dict[tuple[int, str], tuple[Owner, str, object]] = {}
    for namespace, name, value in walk.slots:
        owner = walk.classes.get(id(namespace)) or _module_of(namespace)
        if owner is not None and (value is not MISSING or name not in vars(builtins)):
            values[id(namespace), name] = (owner, name, value)
    codes: dict[tuple[str, str], frozenset[bytes]] = {}
    for function, _, defaults, _, keywords in walk.functions:
        key = (function.__module__, function.__qualname__)
        if "<" in key[1]:
            continue
        codes[key] = codes.get(key, frozenset()) | {_describe(function.__code__).digest}
        for name, value in (("__defaults__", defaults), ("__kwdefaults__", keywords)):
            if value is not None:
                values[id(function), name] = (function, name, value)
    caches = frozenset((str(c.__module__), str(c.__qualname__)) for c in walk.caches)
    return Uses(tuple(values.values()), codes, caches, not walk.cut)


def code_digest(function: types.FunctionType) -> bytes:
    """Return what tells the code of a function, and of those it is wrapped around, from others'.

    Args:
        function: the function.
    """
    digests, todo, seen = [], [function], set()
    while todo:
        found = todo.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        digests.append(_describe(found.__code__).digest)
        for cell in found.__closure__ or ():
            inner = _content(cell)
            if type(inner) is types.FunctionType:
                todo.append(inner)
    return blake2b(b"".join(digests), digest_size=16).digest()


def _module_of(namespace: Any) -> str | None:
    """Return the name of the imported module a namespace belongs to, None for any other."""
    name = namespace.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or vars(module) is not namespace or name == "__main__":
        return None
    return name if namespace.get("__spec__") is not None else None


def _walked(func: Callable[..., Any]) -> Fingerprint:
    walk = _Walk()
    walk.value(func)
    digest = digest_of(_HEADER + b"".join(walk.parts))
    result = Fingerprint(digest, walk.stable)
    if type(func) is types.FunctionType:
        _memo.pop(func, None)
        if not walk.mutable:
            _make_room(_memo, MOST_MEMO)
            _memo[func] = _Memo(result, walk)
    return result


_HEADER = b"amorsize 1 python %d.%d " % sys.version_info[:2]
MISSING: Any = object()


class _Memo:
    """A fingerprint with the guards under which it still holds."""

    __slots__ = ("cells", "functions", "result", "sizes", "slots")

    def __init__(self, result: Fingerprint, walk: _Walk) -> None:
        self.result = result
        self.slots = walk.slots
        self.cells = walk.cells
        self.functions = walk.functions
        self.sizes = walk.sizes

    def holds(self) -> bool:
        for function, code, defaults, closure, keywords in self.functions:
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__closure__ is not closure
                or function.__kwdefaults__ is not keywords
            ):
                return False
        for namespace, name, value in self.slots:
            if namespace.get(name, MISSING) is not value:
                return False
        for cell, value in self.cells:
            if _content(cell) is not value:
                return False
        return not self.sizes or all(len(namespace) == size for namespace, size in self.sizes)


# Keyed by the function itself, not by its id: an entry keeps its function alive, so no other
# object can take over its identity.
_memo: dict[Callable[..., Any], _Memo] = {}


def _make_room(table: dict[Any, Any], most: int) -> None:
    """Drop the oldest entries; two threads may both try, so a missing key is no error."""
    while len(table) >= most:
        try:
            table.pop(next(iter(table)), None)
        except (StopIteration, RuntimeError):  # another thread emptied or changed it
            return


# Code objects -------------------------------------------------------------------------------


class _Code:
    """What the walk needs of a code object; computed once for each.

    Attributes:
        code: the code object, kept so that its id is not reused.
        digest: of all that it does.
        globals: names it loads from the module or the builtins.
        names: all its names, attributes among them.
        imports: names of modules it imports as it runs; relative ones without their dots.
    """

    __slots__ = ("code", "digest", "globals", "imports", "names")

    def __init__(
        self,
        code: types.CodeType,
        digest: bytes,
        globals_: tuple[str, ...],
        names: tuple[str, ...],
        imports: tuple[str, ...],
    ) -> None:
        self.code = code
        self.digest = digest
        self.globals = globals_
        self.names = names
        self.imports = imports


_codes: dict[int, _Code] = {}

_LOADS = {opmap[name] for name in ("LOAD_NAME", "LOAD_GLOBAL") if name in opmap}
_LOADS |= {opmap[n] for n in ("LOAD_FROM_DICT_OR_GLOBALS",) if n in opmap}
_LOAD_GLOBAL = opmap["LOAD_GLOBAL"]
_IMPORT_NAME = opmap["IMPORT_NAME"]
_EXTENDED = opmap["EXTENDED_ARG"]
_CONSTS = frozenset(hasconst)
_OPTIMIZED_FUNCTION = 0x3  # CO_OPTIMIZED | CO_NEWLOCALS: a def or a lambda, not a class body
_HAS_DOCSTRING = 0x4000000  # 3.14 and later say it outright


def _describe(code: types.CodeType) -> _Code:
    """Return the description of ``code``; the table's reference keeps its id from being reused."""
    known = _codes.get(id(code))
    if known is not None:
        return known
    loaded, imports, uses_first_constant = _scan(code)
    consts: tuple[object, ...] = code.co_consts
    if _docstring(code) and not uses_first_constant:
        consts = consts[1:]
    names = list(code.co_names)
    parts = [
        pack(
            "<5q",
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags & ~_HAS_DOCSTRING,
            len(consts),
        )
    ]
    for data in (code.co_code, getattr(code, "co_exceptiontable", b"")):
        parts.append(_framed(b"y", data))
    for group in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
        parts.append(_framed(b"n", "\0".join(group).encode("utf-8", "surrogatepass")))
    for const in consts:
        if isinstance(const, types.CodeType):
            nested = _describe(const)
            parts.append(_framed(b"c", nested.digest))
            loaded += nested.globals
            imports += nested.imports
            names += nested.names
        else:
            parts.append(_constant(const))
    digest = blake2b(b"".join(parts), digest_size=16).digest()
    described = _Code(code, digest, _unique(loaded), _unique(names), _unique(imports))
    _make_room(_codes, MOST_CODES)
    _codes[id(code)] = described
    return described


def _scan(code: types.CodeType) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Return (global names loaded, modules imported, whether the first constant is loaded)."""
    loaded: list[str] = []
    imported: list[str] = []
    first = False
    extended = 0
    raw = code.co_code
    for op, low in zip(raw[::2], raw[1::2], strict=True):
        arg = extended | low
        if op == _EXTENDED:
            extended = arg << 8
            continue
        extended = 0
        if op in _LOADS:
            # The lowest bit of LOAD_GLOBAL says whether to push a NULL for a coming call.
            loaded.append(code.co_names[arg >> 1 if op == _LOAD_GLOBAL else arg])
        elif op == _IMPORT_NAME:
            imported.append(code.co_names[arg])
        elif op in _CONSTS and arg == 0:
            first = True
    return tuple(loaded), tuple(imported), first


def _docstring(code: types.CodeType) -> bool:
    """Return whether the first constant is the docstring (which may also be used as a value)."""
    if sys.version_info >= (3, 14):
        return bool(code.co_flags & _HAS_DOCSTRING)
    return (
        code.co_flags & _OPTIMIZED_FUNCTION == _OPTIMIZED_FUNCTION
        and not code.co_name.startswith("<")
        and bool(code.co_consts)
        and isinstance(code.co_consts[0], str)
    )


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


# Encoding -----------------------------------------------------------------------------------


def _framed(tag: bytes, data: bytes) -> bytes:
    """Encode one part so that no two sequences of parts have the same bytes."""
    return tag + pack("<q", len(data)) + data


def _constant(value: Any) -> bytes:
    """Encode an immutable constant, as it may stand in a code object."""
    kind = type(value)
    if kind in _ATOMS:
        return _ATOMS[kind](value)
    if kind is tuple:
        return _framed(b"(", b"".join(map(_constant, value)))
    if kind is frozenset:
        return _framed(b"{", b"".join(sorted(map(_constant, value))))
    if kind is slice:  # constants since 3.14
        return _framed(b":", b"".join(map(_constant, (value.start, value.stop, value.step))))
    raise TypeError(f"unexpected constant {value!r} in a code object")


def _text(value: str) -> bytes:
    return _buffer(b"s", value.encode("utf-8", "surrogatepass"))


def _buffer(tag: bytes, data: bytes | memoryview) -> bytes:
    """Encode bytes: whole when short, else by length and a sample of both ends and strides."""
    size = len(data)
    if size <= 4 * SAMPLE_BYTES:
        return _framed(tag, bytes(data))
    stride = size // SAMPLE_BYTES
    sample = bytes(data[:SAMPLE_BYTES]) + bytes(data[-SAMPLE_BYTES:]) + bytes(data[::stride])
    return tag + pack("<q", size) + sample


def _integer(value: int) -> bytes:
    return _framed(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


_ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"N",
    type(Ellipsis): lambda _: b"E",
    type(NotImplemented): lambda _: b"I",
    bool: lambda value: b"T" if value else b"F",
    int: _integer,
    float: lambda value: b"f" + pack("<d", value),
    complex: lambda value: b"j" + pack("<2d", value.real, value.imag),
    str: _text,
    bytes: lambda value: _buffer(b"b", value),
}


class _Walk:
    """One walk through everything a function uses.

    Args:
        most_nodes: how many objects to look at.
        follow_imports: whether modules count that are imported as the function runs. Not for a
            digest: whether they are loaded yet must make no difference to that.

    Attributes:
        parts: the encoding so far.
        slots, cells, functions, sizes: guards, see ``_Memo``.
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
        atom = _ATOMS.get(kind)
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
    def _encoder(kind: type) -> Callable[[_Walk, Any], None]:
        """Return how to encode a type: as the nearest base that is known says."""
        for base in kind.__mro__:
            encode = _ENCODERS.get(base) or _NAMED.get((base.__module__, base.__name__))
            if encode is not None:
                return encode
        return _Walk.instance

    def tag(self, tag: bytes, text: str = "") -> None:
        """Encode a tag with a name."""
        self.parts.append(_framed(tag, text.encode("utf-8", "surrogatepass")))

    # Functions, classes, modules ------------------------------------------------------------

    def function(self, function: types.FunctionType) -> None:
        inner = function.__closure__ is not None or "<" in function.__qualname__
        if not inner and not is_users(function.__module__):
            self.library(function)
            return
        described = _describe(function.__code__)
        self.parts.append(_framed(b"C", described.digest))
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
            content = _content(cell)
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
        self.parts.append(pack("<q", len(defaults or ())))
        for name, value in (defaults or {}).items():
            self.slots.append((defaults, name, value))
            self.tag(b"k", name)
            self.value(value)

    def globals(self, namespace: dict[str, Any], described: _Code) -> None:
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
        self.tag(b"m", module.__name__)
        if not is_users(module.__name__):
            self.tag(b"v", _version(module.__name__))

    def library(self, value: Any) -> None:
        """Encode something that comes with an installed package: by name and version."""
        module = getattr(value, "__module__", None) or "builtins"
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
        self.tag(b"L", f"{module}:{name}")
        self.tag(b"v", _version(module))

    def builtin(self, function: types.BuiltinFunctionType) -> None:
        self.library(function)
        owner = function.__self__
        if owner is not None and not isinstance(owner, types.ModuleType):
            self.value(owner)

    def method(self, method: types.MethodType) -> None:
        self.parts.append(b"M")
        self.value(method.__func__)
        self.value(method.__self__)

    def partial(self, partial: functools.partial[Any]) -> None:
        self.mutable = True
        self.parts.append(b"P")
        self.value(partial.func)
        self.value(partial.args)
        self.value(partial.keywords)

    def cls(self, cls: type) -> None:
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
        size = len(values)
        self.parts.append(b"(" + pack("<q", size))
        if size > 3 * MOST_ITEMS:
            middle = values[MOST_ITEMS : -MOST_ITEMS : -(-size // MOST_ITEMS)]
            values = [*values[:MOST_ITEMS], *middle, *values[-MOST_ITEMS:]]
        for value in values:
            self.value(value)

    def a_tuple(self, value: tuple[Any, ...]) -> None:
        self.subclass(value, tuple)
        self.values(value)

    def a_list(self, value: list[Any]) -> None:
        self.mutable = True
        self.subclass(value, list)
        self.parts.append(b"l")
        self.values(value)

    def a_dict(self, value: dict[Any, Any]) -> None:
        self.mutable = True
        self.subclass(value, dict)
        self.parts.append(b"d" + pack("<q", len(value)))
        for key, item in itertools.islice(dict.items(value), 2 * MOST_ITEMS):
            self.value(key)
            self.value(item)

    def a_set(self, value: set[Any] | frozenset[Any]) -> None:
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
        inner = _Walk(self._most_nodes, follow_imports=self._follow_imports)
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
                self.parts.append(b"=" + _ATOMS[base](plain(value)))
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
            self.parts.append(_buffer(b"y", view.cast("B")))
        elif view.nbytes <= 64 * SAMPLE_BYTES:
            self.parts.append(_buffer(b"y", view.tobytes()))
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
                self.parts.append(_framed(b"y", sample.tobytes()))

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
                self.values([c if type(c) in _ATOMS else repr(c) for c in cells.tolist()])
            else:
                self.parts.append(_framed(b"y", cells.tobytes()))

    def ndarray_scalar(self, value: Any) -> None:
        """Encode a NumPy scalar."""
        self.tag(b"D", value.dtype.str)
        self.parts.append(_framed(b"y", value.tobytes()))


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # the cell is still empty
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


# Whose code is it ---------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _is_installed(module: str, file: str | None) -> bool:
    """Return whether a module comes with Python or an installed package, not from the user."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return top != "__main__"
    if file is None:
        return False
    return "site-packages" in file or "dist-packages" in file


def is_users(module: str | None) -> bool:
    """Return whether a module is the user's own: neither Python's nor an installed package's."""
    if module is None:
        return True
    if module in ("__main__", "__mp_main__"):
        return True
    loaded = sys.modules.get(module)
    return not _is_installed(module, getattr(loaded, "__file__", None))


@functools.lru_cache(maxsize=1024)
def _version(module: str) -> str:
    """Return the version of the package a library module belongs to; Python's own have none.

    The interpreter's minor version is part of every fingerprint already.
    """
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return ""
    version = getattr(sys.modules.get(top), "__version__", None)
    if isinstance(version, str):
        return version
    from importlib import metadata  # 10 ms, and few packages lack __version__

    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        return ""


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
_ENCODERS: dict[Any, Callable[[_Walk, Any], None]] = {
    types.FunctionType: _Walk.function,
    types.BuiltinFunctionType: _Walk.builtin,
    types.MethodType: _Walk.method,
    types.ModuleType: _Walk.module,
    types.MethodDescriptorType: _Walk.library,
    types.WrapperDescriptorType: _Walk.library,
    types.MethodWrapperType: _Walk.builtin,
    types.ClassMethodDescriptorType: _Walk.library,
    types.GetSetDescriptorType: _Walk.named,
    types.MemberDescriptorType: _Walk.named,
    functools.partial: _Walk.partial,
    functools.cached_property: _Walk.wrapped,
    _CACHE: _Walk.wrapped,
    staticmethod: _Walk.wrapped,
    classmethod: _Walk.wrapped,
    property: _Walk.wrapped,
    type: _Walk.cls,
    int: _Walk.scalar,
    float: _Walk.scalar,
    complex: _Walk.scalar,
    str: _Walk.scalar,
    bytes: _Walk.scalar,
    tuple: _Walk.a_tuple,
    list: _Walk.a_list,
    dict: _Walk.a_dict,
    set: _Walk.a_set,
    frozenset: _Walk.a_set,
    types.MappingProxyType: lambda walk, value: walk.a_dict(dict(value)),
    bytearray: _Walk.raw,
    memoryview: _Walk.raw,
    types.CodeType: lambda walk, code: walk.parts.append(_framed(b"C", _describe(code).digest)),
}

# Types of modules that may not be imported, by name.
_NAMED: dict[tuple[str, str], Callable[[_Walk, Any], None]] = {
    ("numpy", "ndarray"): _Walk.ndarray,
    ("numpy", "generic"): lambda walk, value: walk.ndarray_scalar(value),
    ("numpy", "dtype"): lambda walk, value: walk.tag(b"D", str(value)),
    ("numpy", "ufunc"): _Walk.named,
    ("pandas.core.frame", "DataFrame"): _Walk.pandas,
    ("pandas.core.series", "Series"): _Walk.pandas,
    ("pandas.core.indexes.base", "Index"): _Walk.pandas,
    # pandas 3 says that its classes live at the top.
    ("pandas", "DataFrame"): _Walk.pandas,
    ("pandas", "Series"): _Walk.pandas,
    ("pandas", "Index"): _Walk.pandas,
    ("array", "array"): _Walk.raw,
    ("re", "Pattern"): _Walk.pattern,
    ("logging", "Logger"): _Walk.named,
    ("_thread", "lock"): _Walk.named,
    ("_thread", "RLock"): _Walk.named,
    ("amorsize.decorator", "ParallelFunction"): lambda walk, value: walk.value(value.__wrapped__),
}
