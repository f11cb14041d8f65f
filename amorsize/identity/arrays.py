"""Encoders for the arrays, tables and other types of NumPy, pandas and similar packages.

Each value is encoded by its type, its shape and a sample. The cost depends neither on its length
nor on the size of one item. Types are looked up by name, see ``kinds``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from struct import pack

from .atoms import MOST_ITEMS, framed, sampled
from .contents import by, kind_of, own_state, reduced_by_library, sequence
from .encoders import named
from .looking import module_of
from .owners import USER, owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .walk import Walk

__all__ = ["ARRAYS"]

# Cost of sampling a data frame with pandas, in steps of the walk: 0.4 ms (November 2026). The
# second figure is for an index or a series, which have one column.
STEPS_OF_FRAME = 1_600
STEPS_OF_COLUMN = 200
# An item longer than four pieces is sampled in four places, one piece in each.
PIECE_BYTES = 64
# A longer seed usually came from the operating system, so it does not identify the generator.
MOST_SEED_BITS = 64
MOST_TEXT = 200  # characters of the text that encodes a column type of pandas

# NumPy and what is built on it --------------------------------------------------------------


def _ndarray(walk: Walk, value: Any) -> None:
    """Encode a NumPy array by type, shape and a sample of its items."""
    import numpy as np  # already loaded: the value has one of its types

    walk.mutable = True
    kind = type(value)
    walk.refer(kind)
    if kind is not np.ndarray:  # a subclass may override everything used below
        if owner(module_of(kind)) == USER or kind.__name__ == "MaskedArray":
            own_state(walk, value)
        value = np.ndarray.view(value, np.ndarray)
    walk.tag(b"D", str(value.shape))
    _items(walk, value)


def _void(walk: Walk, value: Any) -> None:
    """Encode a NumPy scalar that has fields or is raw bytes."""
    import numpy as np  # already loaded: the value has one of its types

    walk.mutable = True
    walk.refer(type(value))
    _items(walk, np.asarray(value))


def _items(walk: Walk, value: Any) -> None:
    """Encode the dtype of an array and a sample of its items."""
    dtype = value.dtype
    walk.refer(dtype)
    if value.size == 0:
        return
    if dtype.hasobject:
        most = max(1, MOST_ITEMS * 4 * PIECE_BYTES // max(dtype.itemsize, 4 * PIECE_BYTES))
        for sample in _samples(value, most):
            sequence(walk, sample.tolist())
        return
    for piece in _pieces(value, dtype.itemsize):
        for sample in _samples(piece, MOST_ITEMS):
            data = sample.tobytes()
            walk.parts.append(framed(b"y", data))
            walk.spend(MOST_ITEMS + len(data) // 128)


def _pieces(value: Any, size: int) -> Iterator[Any]:
    """Yield an array of the items; for long items four such arrays, each with one part of each."""
    if size <= 4 * PIECE_BYTES:
        yield value
        return
    for place in (0, size // 3, 2 * size // 3, size - PIECE_BYTES):
        yield value.getfield(f"V{PIECE_BYTES}", place)


def _samples(value: Any, most: int) -> tuple[Any, ...]:
    """Return all items of an array; of a long one both ends and strides between."""
    flat, step = value.flat, max(1, value.size // most)
    ends = flat[:most], flat[-most:], flat[::step]
    return ends if value.size > most else ends[:1]


def _dtype(walk: Walk, value: Any) -> None:
    """Encode a dtype by its fields; many fields are sampled."""
    walk.tag(b"D", value.str)
    walk.refer(value.type)
    if value.names is not None:
        size, names = sampled(value.names)
        walk.parts.append(b"(" + pack("<q", size))
        for name in names:
            walk.refer(name)
            for part in value.fields[name]:  # type, offset, title
                walk.refer(part)
    elif value.subdtype is not None:
        sequence(walk, value.subdtype)


def _scalar(walk: Walk, value: Any) -> None:
    walk.tag(b"D", value.dtype.str)
    walk.parts.append(framed(b"y", value.tobytes()))


def _ufunc(walk: Walk, value: Any) -> None:
    """Encode a ufunc by its name, and by the Python function it calls, if any.

    Only the garbage collector can find that Python function.
    """
    named(walk, value)
    for inner in gc.get_referents(value):
        if callable(inner):
            walk.refer(inner)


def _generator(walk: Walk, value: Any) -> None:
    """Encode a random generator by type and seed; its state changes with each draw."""
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
    """Encode a tensor by type and shape; sample it only where that uses no device but the CPU."""
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
    if not walk.spend(STEPS_OF_FRAME if value.ndim == 2 else STEPS_OF_COLUMN):
        return
    kind_of(walk, value)
    size = len(value)
    walk.parts.append(b"p" + pack("<q", size))
    walk.refer(getattr(value, "attrs", None))
    for column in _columns(walk, value, _places(size, 16, 32)):
        walk.refer(column.dtype)
        walk.refer(column.name)
        _items(walk, column.to_numpy())


def _columns(walk: Walk, value: Any, rows: list[int]) -> Iterator[Any]:
    """Yield the sampled rows of some columns, and of the index."""
    sample = value
    if value.ndim == 2:
        width = value.shape[1]
        walk.parts.append(pack("<q", width))
        sequence(walk, list(value.columns.names))
        some = _places(width, MOST_ITEMS // 4, MOST_ITEMS // 4)
        value = value.iloc[:, some] if len(some) < width else value
        sample = value.take(rows)
        for place in range(len(some)):
            yield sample.iloc[:, place]
        yield from _levels(sample.index)
    elif hasattr(value, "index"):
        sample = value.take(rows)
        yield sample
        yield from _levels(sample.index)
    else:
        yield from _levels(value.take(rows))


def _levels(index: Any) -> Iterator[Any]:
    """Yield the levels of an index one by one: the whole index would build all values of each."""
    for level in range(index.nlevels):
        yield index.get_level_values(level)


def _places(size: int, end: int, between: int) -> list[int]:
    """Return the places of a sample: both ends, and strides between.

    >>> _places(5, 2, 2), _places(100, 2, 4)
    ([0, 1, 2, 3, 4], [0, 1, 25, 50, 75, 98, 99])
    """
    step = max(1, size // between)
    ends = {*range(min(size, end)), *range(max(0, size - end), size)}
    return sorted(ends | set(range(0, size, step)))


def _column_type(walk: Walk, value: Any) -> None:
    """Encode a pandas column type; the text of a categorical type omits its categories."""
    walk.refer(type(value))
    walk.tag(b"D", str(value)[:MOST_TEXT])
    for name in ("categories", "ordered"):
        walk.refer(getattr(value, name, None))


ARRAYS: dict[tuple[str, str], Callable[[Walk, Any], None]] = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "generic"): _scalar,
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "ufunc"): _ufunc,
    ("numpy", "vectorize"): by("pyfunc", "signature", "otypes", "excluded"),
    ("numpy", "void"): _void,
    ("numpy.random._generator", "Generator"): _generator,
    ("numpy.random.bit_generator", "BitGenerator"): _generator,
    ("numpy.random.mtrand", "RandomState"): kind_of,
    ("pandas", "DataFrame"): _pandas,  # pandas 3 names the top package as the module
    ("pandas", "Index"): _pandas,
    ("pandas", "Interval"): reduced_by_library,
    ("pandas", "Series"): _pandas,
    ("pandas._libs.arrays", "NDArrayBacked"): by("_dtype", "_ndarray"),
    ("pandas._libs.interval", "Interval"): reduced_by_library,
    ("pandas._libs.tslibs.offsets", "BaseOffset"): reduced_by_library,
    ("pandas._libs.tslibs.period", "_Period"): reduced_by_library,
    ("pandas._libs.tslibs.timedeltas", "_Timedelta"): reduced_by_library,
    ("pandas._libs.tslibs.timestamps", "_Timestamp"): reduced_by_library,
    ("pandas.core.dtypes.base", "ExtensionDtype"): _column_type,
    ("pandas.api.extensions", "ExtensionDtype"): _column_type,
    ("pandas.core.frame", "DataFrame"): _pandas,
    ("pandas.core.indexes.base", "Index"): _pandas,
    ("pandas.core.series", "Series"): _pandas,
    ("sklearn.tree._tree", "Tree"): _tree,
    ("torch", "Tensor"): _tensor,
}
