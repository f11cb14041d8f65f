"""How objects of known types of the standard library and of installed packages are encoded.

Many of these keep in C what they are, or hold what follows their use: caches, statistics, a state
that moves on. Each is encoded by what identifies it, at a cost that does not depend on its size.
The types are known by name, since their modules may not be imported just to know them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import pack

from .atoms import MOST_ITEMS, SAMPLE_BYTES, atom_of, buffer, framed
from .contents import instance, mapping, own_state, sequence, series
from .encoders import ENCODERS, named
from .looking import fetch, module_of, mro, qualname
from .owners import USER, owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .walk import Walk

__all__ = ["encoder_of"]

# What asking pandas for a sample of a frame takes, in steps of the walk: 0.4 ms (November 2026).
STEPS_OF_FRAME = 1_600
# A seed of more bits was drawn from the system as a rule, and says nothing about who it is.
MOST_SEED_BITS = 64
MOST_TEXT = 200  # characters of the text that stands for a library's own scalar


def encoder_of(kind: type) -> Callable[[Walk, Any], None]:
    """Return how to encode a type: as the nearest base that is known says."""
    for base in mro(kind):
        encode = ENCODERS.get(id(base)) or _KINDS.get((module_of(base), qualname(base)))
        if encode is not None:
            return encode
    return instance


def kind_of(walk: Walk, value: Any) -> None:
    """Encode the type of an object, and its attributes where the type is a subclass of a known one.

    That is all of a lock, of what a thread or a context keeps to itself, and of containers that
    lose what nobody else holds.
    """
    walk.mutable = True
    kind = type(value)
    walk.refer(kind)
    if owner(module_of(kind)) == USER:
        own_state(walk, value)


def _kind_only(walk: Walk, value: Any) -> None:
    walk.mutable = True
    walk.refer(type(value))


def by(*names: str) -> Callable[[Walk, Any], None]:
    """Return an encoder of an object by its type and some of its attributes."""

    def encode(walk: Walk, value: Any) -> None:
        kind_of(walk, value)
        for name in names:
            walk.refer(fetch(value, name))

    return encode


# The standard library -----------------------------------------------------------------------


def _raw(walk: Walk, value: Any) -> None:
    """Encode a bytearray, memoryview or array by a sample of its bytes."""
    kind_of(walk, value)
    # Released at once: while it is open, the owner cannot change its size.
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
    _kind_only(walk, value)
    series(walk, len(value), iter(value))


def _proxy(walk: Walk, value: Any) -> None:
    walk.mutable = True
    mapping(walk, value)


def _defaults(walk: Walk, value: Any) -> None:
    ENCODERS[id(dict)](walk, value)
    walk.refer(value.default_factory)


def _c_array(walk: Walk, value: Any) -> None:
    """Encode an array of ctypes by both ends of its memory; its reduction would copy it whole."""
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
    _kind_only(walk, value)
    walk.refer(value())


def _parallel(walk: Walk, value: Any) -> None:
    """Encode a decorated function as if it were not."""
    inner = value.__wrapped__
    encoder_of(type(inner))(walk, inner)


# NumPy and what is built on it --------------------------------------------------------------


def _ndarray(walk: Walk, value: Any) -> None:
    """Encode a NumPy array by type, shape and a sample of its items."""
    import numpy as np  # is loaded: the value is of one of its types

    walk.mutable = True
    kind = type(value)
    walk.refer(kind)
    if kind is not np.ndarray:  # whose class may have ideas of its own about everything asked below
        if owner(module_of(kind)) == USER or kind.__name__ == "MaskedArray":
            own_state(walk, value)
        value = np.ndarray.view(value, np.ndarray)
    dtype = value.dtype
    walk.tag(b"D", f"{dtype.str if dtype.names is None else str(dtype)[:1_000]} {value.shape}")
    if value.size == 0:
        return
    flat, step = value.flat, max(1, value.size // MOST_ITEMS)
    samples = (flat[:MOST_ITEMS], flat[-MOST_ITEMS:], flat[::step])
    for sample in samples if value.size > MOST_ITEMS else samples[:1]:
        if dtype.hasobject:
            sequence(walk, sample.tolist())
        else:
            walk.parts.append(framed(b"y", sample.tobytes()))
    walk.spend(3 * MOST_ITEMS)


def _scalar(walk: Walk, value: Any) -> None:
    walk.tag(b"D", value.dtype.str)
    walk.parts.append(framed(b"y", value.tobytes()))


def _generator(walk: Walk, value: Any) -> None:
    """Encode a random generator by its kind and seed; its state moves on as it is used."""
    kind_of(walk, value)
    bits = getattr(value, "bit_generator", value)
    walk.refer(type(bits))
    seed = getattr(bits, "seed_seq", None)
    entropy = getattr(seed, "entropy", None)
    if type(entropy) is int and entropy.bit_length() > MOST_SEED_BITS:
        entropy = None
    walk.refer(entropy)
    walk.refer(getattr(seed, "spawn_key", None))


def _tree(walk: Walk, value: Any) -> None:
    """Encode a decision tree of scikit-learn by its size and a sample of its thresholds."""
    by("node_count", "max_depth", "n_features")(walk, value)
    walk.refer(value.threshold)


def _tensor(walk: Walk, value: Any) -> None:
    """Encode a tensor by type and shape, and by a sample where that needs no other device."""
    kind_of(walk, value)
    walk.tag(b"D", f"{value.dtype} {value.device} {tuple(value.shape)} {value.layout}")
    if value.device.type == "cpu" and value.is_contiguous() and value.numel():
        flat = value.detach().view(-1)
        step = max(1, flat.numel() // MOST_ITEMS)
        for sample in (flat[:MOST_ITEMS], flat[-MOST_ITEMS:], flat[::step]):
            sequence(walk, sample[: 2 * MOST_ITEMS].tolist())
    walk.spend(6 * MOST_ITEMS)


# pandas -------------------------------------------------------------------------------------


def _pandas(walk: Walk, value: Any) -> None:
    """Encode a data frame, a series or an index by labels, types and a sample of its rows."""
    if not walk.spend(STEPS_OF_FRAME):
        return
    kind_of(walk, value)
    size = len(value)
    rows = _places(size, 16, 32)
    walk.parts.append(b"p" + pack("<q", size))
    for column in _columns(walk, value, rows):
        walk.tag(b"D", str(column.dtype)[:MOST_TEXT])
        walk.refer(getattr(column, "name", None))
        cells = column.to_numpy()
        if cells.dtype.hasobject:
            sequence(walk, [_cell(cell) for cell in cells.tolist()])
        else:
            walk.parts.append(framed(b"y", cells.tobytes()))


def _columns(walk: Walk, value: Any, rows: list[int]) -> Iterator[Any]:
    """Yield a sample of the rows of some columns, and of the index."""
    if value.ndim == 2:
        width = value.shape[1]
        walk.parts.append(pack("<q", width))
        some = _places(width, MOST_ITEMS // 4, MOST_ITEMS // 4)
        value = value.iloc[:, some] if len(some) < width else value
        sample = value.take(rows)
        for place in range(len(some)):
            yield sample.iloc[:, place]
    else:
        sample = value.take(rows)
        yield sample
    if hasattr(sample, "index"):
        yield sample.index


def _places(size: int, end: int, between: int) -> list[int]:
    """Return the places of a sample: both ends, and some between.

    >>> _places(5, 2, 2), _places(100, 2, 4)
    ([0, 1, 2, 3, 4], [0, 1, 25, 50, 75, 98, 99])
    """
    step = max(1, size // between)
    ends = {*range(min(size, end)), *range(max(0, size - end), size)}
    return sorted(ends | set(range(0, size, step)))


def _cell(cell: Any) -> Any:
    """Return a cell, a library's scalar as its text."""
    kind = type(cell)
    if id(kind) in ENCODERS or atom_of(kind) is not None or owner(module_of(kind)) == USER:
        return cell
    return f"{qualname(kind)} {cell!r:.{MOST_TEXT}}"


# Tables -------------------------------------------------------------------------------------

_KINDS: dict[tuple[str, str], Callable[[Walk, Any], None]] = {
    ("_ctypes", "Array"): _c_array,
    ("_ctypes", "CFuncPtr"): by("__name__"),
    ("ctypes", "CDLL"): by("_name"),
    ("_contextvars", "Context"): kind_of,
    ("_contextvars", "ContextVar"): by("name"),
    ("_io", "BytesIO"): _bytes_io,
    ("_io", "StringIO"): kind_of,
    ("_struct", "Struct"): by("format"),
    ("_thread", "RLock"): named,
    ("_thread", "_local"): kind_of,
    ("_thread", "lock"): named,
    ("_threading_local", "local"): kind_of,
    ("_weakrefset", "WeakSet"): kind_of,
    ("amorsize.decorator", "ParallelFunction"): _parallel,
    ("array", "array"): _raw,
    ("builtins", "bytearray"): _raw,
    ("builtins", "dict_items"): _view,
    ("builtins", "dict_keys"): _view,
    ("builtins", "dict_values"): _view,
    ("builtins", "mappingproxy"): _proxy,
    ("builtins", "memoryview"): _raw,
    ("builtins", "odict_items"): _view,
    ("builtins", "odict_keys"): _view,
    ("builtins", "odict_values"): _view,
    ("collections", "defaultdict"): _defaults,
    ("collections", "deque"): _deque,
    ("logging", "Logger"): named,
    ("loguru._logger", "Logger"): by("_options"),
    ("mmap", "mmap"): lambda walk, value: series(walk, len(value)),
    ("multiprocessing.synchronize", "SemLock"): _kind_only,
    ("numpy", "dtype"): lambda walk, value: walk.tag(b"D", str(value)),
    ("numpy", "generic"): _scalar,
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "ufunc"): named,
    ("numpy.random._generator", "Generator"): _generator,
    ("numpy.random.bit_generator", "BitGenerator"): _generator,
    ("numpy.random.mtrand", "RandomState"): _kind_only,
    ("pandas", "DataFrame"): _pandas,  # pandas 3 says that its classes live at the top
    ("pandas", "Index"): _pandas,
    ("pandas", "Series"): _pandas,
    ("pandas.core.frame", "DataFrame"): _pandas,
    ("pandas.core.indexes.base", "Index"): _pandas,
    ("pandas.core.series", "Series"): _pandas,
    ("re", "Pattern"): _pattern,
    ("sklearn.tree._tree", "Tree"): _tree,
    ("threading", "Thread"): named,
    ("torch", "Tensor"): _tensor,
    ("weakref", "ReferenceType"): _reference,
    ("weakref", "WeakKeyDictionary"): kind_of,
    ("weakref", "WeakValueDictionary"): kind_of,
}
