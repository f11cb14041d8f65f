"""Encoders for known types of the standard library and of installed packages.

Many such objects keep their content in C, or hold state that changes with use: caches, statistics,
the state of a generator. Each is encoded by what identifies it, at a cost that does not depend on
its size. Types are looked up by name: their modules must not be imported just to know them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from operator import length_hint
from struct import pack

from .arrays import ARRAYS
from .atoms import MOST_ITEMS, SAMPLE_BYTES, buffer, framed
from .contents import (
    by,
    by_global_name,
    instance,
    kind_of,
    mapping,
    reduced_by_library,
    sequence,
    series,
)
from .encoders import ENCODERS, named
from .looking import attributes, fetch, module_of, mro, namespace, qualname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .walk import Walk

__all__ = ["encoder_of"]

# Cost of copying the 625 words of a generator's state, in steps of the walk.
STEPS_OF_RANDOM = 120
MOST_WORDS = 16  # of that state, to encode


def encoder_of(kind: type) -> Callable[[Walk, Any], None]:
    """Return the encoder for a type: that of its nearest known base."""
    for base in mro(kind):
        encode = ENCODERS.get(id(base)) or _KINDS.get((module_of(base), qualname(base)))
        if encode is not None:
            return encode
        if "_amorsize_parallel" in namespace(base):
            return _parallel
    return instance


# The standard library -----------------------------------------------------------------------


def _raw(walk: Walk, value: Any) -> None:
    """Encode a bytearray, memoryview or array by a sample of its bytes."""
    kind_of(walk, value)
    # Released at once: while a view is open, its owner cannot change its size.
    with memoryview(value) as view:
        walk.tag(b"B", f"{view.format} {view.shape}")
        if view.c_contiguous:
            with view.cast("B") as flat:
                walk.parts.append(buffer(b"y", flat))
        elif view.nbytes <= 64 * SAMPLE_BYTES:
            walk.parts.append(buffer(b"y", view.tobytes()))
        elif view.ndim == 1:
            part = len(view) // MOST_ITEMS
            samples = view[:MOST_ITEMS], view[-MOST_ITEMS:], view[::part]
            walk.parts += [framed(b"y", sample.tobytes()) for sample in samples]


def _bytes_io(walk: Walk, value: Any) -> None:
    kind_of(walk, value)
    with value.getbuffer() as view:
        walk.parts.append(buffer(b"y", view))


def _deque(walk: Walk, value: Any) -> None:
    kind_of(walk, value)
    walk.refer(value.maxlen)
    series(walk, len(value), iter(value), reversed(value))


def _view(walk: Walk, value: Any) -> None:
    """Encode a view of a dictionary."""
    kind_of(walk, value)
    series(walk, len(value), iter(value))


def _iterator(walk: Walk, value: Any) -> None:
    """Encode an iterator over a dictionary or set; of many items left, only their number.

    To encode the items themselves, all items left would have to be copied.
    """
    left = length_hint(value)
    if left <= 2 * MOST_ITEMS:
        instance(walk, value)
        return
    kind_of(walk, value)
    walk.refer(left)
    walk.stable = False


def _element(walk: Walk, value: Any) -> None:
    """Encode a node of an XML tree by its own fields and its first children."""
    by("tag", "text", "tail", "attrib")(walk, value)
    base: Any = next(
        base for base in mro(type(value)) if module_of(base) == "xml.etree.ElementTree"
    )
    walk.parts.append(b"<" + pack("<q", base.__len__(value)))
    sequence(walk, base.__getitem__(value, slice(2 * MOST_ITEMS)))


def _random(walk: Walk, value: Any) -> None:
    """Encode a random generator by some words of its state; any one word identifies the state."""
    import _random  # is loaded: the value is of one of its types

    kind_of(walk, value)
    if by_global_name(walk, value) or not walk.spend(STEPS_OF_RANDOM):
        return
    words = _random.Random.getstate(value)
    sequence(walk, (*words[:MOST_WORDS], words[-1], fetch(value, "gauss_next")))


def _path(walk: Walk, value: Any) -> None:
    """Encode a path by its parts; its other slots hold values derived from them."""
    walk.refer(type(value))
    reduced_by_library(walk, value)
    own = attributes(value)
    if own:
        walk.refer(own)


def _referring(*names: str) -> Callable[[Walk, Any], None]:
    """Return an encoder that uses some attributes, and the callables that an object keeps in C.

    Only the garbage collector can find these callables.
    """

    def encode(walk: Walk, value: Any) -> None:
        by(*names)(walk, value)
        for inner in gc.get_referents(value):
            kind = type(inner)
            if callable(inner) and kind is not type(value) and not issubclass(kind, type):
                walk.refer(inner)

    return encode


def _proxy(walk: Walk, value: Any) -> None:
    walk.mutable = True
    mapping(walk, value)


def _defaults(walk: Walk, value: Any) -> None:
    ENCODERS[id(dict)](walk, value)
    walk.refer(value.default_factory)


def _c_array(walk: Walk, value: Any) -> None:
    """Encode a ctypes array by both ends of its memory; its reduction would copy it whole."""
    import ctypes  # is loaded: the value is of one of its types

    kind_of(walk, value)
    size, start = ctypes.sizeof(value), ctypes.addressof(value)
    length = min(size, 2 * SAMPLE_BYTES)
    walk.parts.append(b"y" + pack("<q", size))
    for place in (start, start + size - length):
        walk.parts.append(framed(b"y", ctypes.string_at(place, length)))


def _pattern(walk: Walk, value: Any) -> None:
    walk.parts.append(b"X")
    sequence(walk, (value.pattern, value.flags))


def _reference(walk: Walk, value: Any) -> None:
    kind_of(walk, value)
    walk.refer(value())


def _named_type(*names: str) -> Callable[[Walk, Any], None]:
    """Return an encoder, by some attributes, of immutable objects that stand for a type."""

    def encode(walk: Walk, value: Any) -> None:
        walk.tag(b"t", qualname(type(value)))
        for name in names:
            walk.refer(fetch(value, name))

    return encode


def _variable(walk: Walk, value: Any) -> None:
    """Encode a type variable by its name and its bounds."""
    walk.tag(b"t", qualname(type(value)))
    walk.refer(fetch(value, "__name__"))
    own = attributes(value)
    if own is None:  # 3.12 and later: reading the bound may evaluate it
        kept = [part for part in gc.get_referents(value) if type(part) is not dict]
    else:
        kept = [own.get("__bound__"), own.get("__constraints__")]
    sequence(walk, kept)


def _parallel(walk: Walk, value: Any) -> None:
    """Encode a function decorated with ``parallelize`` like the bare function."""
    inner = value.__wrapped__
    encoder_of(type(inner))(walk, inner)


# Tables -------------------------------------------------------------------------------------

_KINDS: dict[tuple[str, str], Callable[[Walk, Any], None]] = {
    ("_ctypes", "Array"): _c_array,
    ("_ctypes", "CFuncPtr"): _referring("__name__", "restype", "argtypes"),
    ("ctypes", "CDLL"): by("_name"),
    ("_contextvars", "Context"): kind_of,
    ("_contextvars", "ContextVar"): by("name"),
    ("_io", "BytesIO"): _bytes_io,
    ("_io", "StringIO"): kind_of,
    ("_json", "Scanner"): by("strict", "object_hook", "object_pairs_hook", "parse_float",
                             "parse_int", "parse_constant"),
    ("_struct", "Struct"): by("format"),
    ("_thread", "RLock"): named,
    ("_thread", "_local"): kind_of,
    ("_thread", "lock"): named,
    ("_threading_local", "local"): kind_of,
    ("_weakrefset", "WeakSet"): kind_of,
    # Its tuple of options may have the order of a set.
    ("attr.validators", "_InValidator"): by("_original_options"),
    ("array", "array"): _raw,
    ("builtins", "bytearray"): _raw,
    ("builtins", "dict_itemiterator"): _iterator,
    ("builtins", "dict_items"): _view,
    ("builtins", "dict_keyiterator"): _iterator,
    ("builtins", "dict_keys"): _view,
    ("builtins", "dict_valueiterator"): _iterator,
    ("builtins", "dict_values"): _view,
    ("builtins", "mappingproxy"): _proxy,
    ("builtins", "memoryview"): _raw,
    ("builtins", "odict_items"): _view,
    ("builtins", "odict_keys"): _view,
    ("builtins", "odict_values"): _view,
    ("builtins", "odict_iterator"): _iterator,
    ("builtins", "set_iterator"): _iterator,
    ("collections", "defaultdict"): _defaults,
    ("collections", "deque"): _deque,
    ("functools", "KeyWrapper"): _referring("obj"),
    ("joblib.memory", "MemorizedFunc"): by("func"),
    ("logging", "Logger"): named,
    ("loguru._logger", "Logger"): by("_options"),
    ("mmap", "mmap"): lambda walk, value: series(walk, len(value)),
    ("multiprocessing.synchronize", "SemLock"): kind_of,
    ("pathlib", "PurePath"): _path,
    ("pathlib._local", "PurePath"): _path,
    ("random", "Random"): _random,
    ("random", "SystemRandom"): kind_of,
    ("re", "Pattern"): _pattern,
    ("threading", "Thread"): named,
    ("types", "GenericAlias"): _named_type("__origin__", "__args__"),
    ("types", "UnionType"): _named_type("__args__"),
    ("typing", "ForwardRef"): _named_type("__forward_arg__"),
    ("typing", "NoDefaultType"): _named_type(),
    ("typing", "ParamSpec"): _variable,
    ("typing", "TypeVar"): _variable,
    ("typing", "TypeVarTuple"): _variable,
    ("typing", "NewType"): _named_type("__name__", "__supertype__"),
    ("typing", "Union"): _named_type("__args__"),
    ("typing", "_BaseGenericAlias"): _named_type(
        "__origin__", "__args__", "__metadata__", "_name"),
    ("typing", "_SpecialForm"): _named_type("_name"),
    ("weakref", "ReferenceType"): _reference,
    ("weakref", "WeakKeyDictionary"): kind_of,
    ("weakref", "WeakValueDictionary"): kind_of,
    ("xml.etree.ElementTree", "Element"): _element,
    **ARRAYS,
}  # fmt: skip
