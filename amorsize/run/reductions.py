"""How to pickle objects that pickle itself changes: exceptions, and arrays mapped from files.

pickle makes an exception by calling its class with its ``args``. That fails if ``__init__`` takes
other arguments, and the values of slots and of builtin classes' fields are lost unless ``args``
hold them. Here an exception is made without its ``__init__``, and all its values are restored.

pickle copies an array that is mapped from a file: a write to the copy never reaches the file. Here
the array is mapped again.
"""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load
import copyreg
import mmap
import os
import sys
import types
import weakref
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from operator import methodcaller

from ..measure.system import memory_regions
from ..tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "MADE_HERE",
    "PROTOCOL",
    "Parts",
    "attributes_of",
    "dump",
    "fill",
    "make",
    "parts_of",
    "reducer_of",
]

PROTOCOL = 5  # the first with out-of-band buffers

# Py_TPFLAGS_HEAPTYPE: set in the flags of classes made at run time; static types in C lack it.
MADE_HERE = 1 << 9


def dump(value: Any, buffer_callback: Any = None) -> tuple[bytes, set[type]]:
    """Pickle a value as ``pickle.dumps`` does, except objects that ``pickle.dumps`` changes.

    Args:
        value: what to pickle.
        buffer_callback: as in ``pickle.dumps``.

    Returns:
        The pickle, and the types of all objects in it except pickle's own atoms and containers.

    Raises:
        Exception: whatever pickling it raises.
    """
    out = BytesIO()
    pickler = pickle.Pickler(out, PROTOCOL, buffer_callback=buffer_callback)
    pickler.dispatch_table = table = _Reducers()
    pickler.dump(value)
    return out.getvalue(), set(table)


class _Reducers(dict):  # type: ignore[type-arg]
    """How to pickle each type. pickle looks types up in C; Python code runs once per type."""

    def __missing__(self, kind: type) -> Any:
        reduce = copyreg.dispatch_table.get(kind) or reducer_of(kind)
        if reduce is None and issubclass(kind, type):
            raise KeyError(kind)  # pickle then writes the class by its name
        self[kind] = reduce = reduce or _OWN_WAY
        return reduce


_OWN_WAY = methodcaller("__reduce_ex__", PROTOCOL)


def reducer_of(kind: type) -> Callable[[Any], Any] | None:
    """Return the function that reduces a type's instances, None if their own reduction is right."""
    if issubclass(kind, BaseException):
        base: Any = _builtin_base(kind)
        inherited = (
            base.__module__ == "builtins"
            and kind.__reduce__ is base.__reduce__
            and kind.__reduce_ex__ is object.__reduce_ex__
        )
        return _reduced_exception if inherited else None
    if kind.__name__ == "memmap" and kind.__module__.partition(".")[0] == "numpy":
        return _reduced_map
    return None


# Exceptions ---------------------------------------------------------------------------------


class Parts(NamedTuple):
    """What an exception consists of.

    Attributes:
        given: arguments that its builtin base needs to make it.
        fields: values of slots and of builtin classes' fields, with ``args``, by name.
        attributes: its ``__dict__``.
    """

    given: tuple[Any, ...]
    fields: dict[str, Any]
    attributes: dict[str, Any]


def parts_of(error: BaseException) -> Parts:
    """Return what an exception consists of; attribute access that its class defines is bypassed."""
    given: tuple[Any, ...] = ()
    fields = {}
    for name, (owner, field) in _fields_of(type(error)).items():
        try:
            value = field.__get__(error)
        except AttributeError:  # not set
            continue
        if value is not None or owner.__flags__ & MADE_HERE:  # C fields that are not set are None
            fields[name] = value
    if isinstance(error, BaseExceptionGroup):
        given = fields.pop("message"), fields.pop("exceptions")
    return Parts(given, fields, attributes_of(error))


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Return the ``__dict__`` of an exception; its class's attribute access is bypassed."""
    attributes: dict[str, Any] = BaseException.__dict__["__dict__"].__get__(error)
    return attributes


def make(kind: type[BaseException], given: tuple[Any, ...]) -> BaseException:
    """Return an exception without its values; its class's own ``__new__`` is not called.

    Args:
        kind: its class.
        given: see ``Parts``.
    """
    made: BaseException = _builtin_base(kind).__new__(kind, *given)
    return made


def fill(error: BaseException, content: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Set the fields and attributes of an exception.

    Args:
        error: made by ``make``.
        content: fields and attributes, see ``Parts``.
    """
    fields, attributes = content
    known = _fields_of(type(error))
    for name, value in fields.items():
        with suppress(AttributeError, KeyError):  # read-only, or another version's class
            known[name][1].__set__(error, value)
    attributes_of(error).update(attributes)


def _reduced_exception(error: BaseException) -> Any:
    given, fields, attributes = parts_of(error)
    return make, (type(error), given), (fields, attributes), None, None, fill


def _builtin_base(kind: type) -> type:
    """Return the static C class that an exception class has its layout from."""
    while kind.__flags__ & MADE_HERE:
        assert kind.__base__ is not None
        kind = kind.__base__
    return kind


def _fields_of(kind: type) -> dict[str, tuple[type, Any]]:
    """Return the C fields of a class's instances, with slots: {name: (class, field)}."""
    found: dict[str, tuple[type, Any]] = {}
    for owner in kind.__mro__:
        for name, value in vars(owner).items():
            if type(value) in _FIELDS and not name.startswith("__"):
                found.setdefault(name, (owner, value))
    if issubclass(kind, AttributeError):
        del found["obj"]  # may be any object, and pickle leaves it out as well
    return found


_FIELDS = (types.MemberDescriptorType, types.GetSetDescriptorType)


# Arrays that are mapped from files ----------------------------------------------------------


def _reduced_map(array: Any) -> Any:
    place = _place_of_map(array)
    return array.__reduce_ex__(PROTOCOL) if place is None else (_map_again, place)


def _place_of_map(array: Any) -> tuple[Any, ...] | None:
    """Return the file and the position of a mapped array, None if the array must be copied."""
    mapping = array._mmap
    if type(mapping) is not mmap.mmap or array.filename is None or array.mode == "c":
        return None
    if not array.size or not os.path.isfile(array.filename):
        return None
    begin = sys.modules["numpy"].frombuffer(mapping, "u1").ctypes.data
    if not _maps(mapping, begin, array.filename):
        return None
    offset = array.ctypes.data - begin + array.offset // _GRAIN * _GRAIN
    where = (array.filename, array.mode, offset)
    return type(array), *where, array.dtype, array.shape, array.strides


def _maps(mapping: mmap.mmap, address: int, file: Any) -> bool:
    """Return whether the file mapped at an address is the file that has the name now.

    Another file may have replaced it since. Only Linux lists mappings; elsewhere the files are
    assumed to be the same.
    """
    try:
        if mapping not in _inodes:
            regions = memory_regions()
            found = (region.inode for region in regions if region.start <= address < region.end)
            _inodes[mapping] = next(found, 0)
        return os.stat(file).st_ino == _inodes[mapping]
    except OSError:
        return sys.platform != "linux"


# Inodes of mapped files, kept because the look-up is slow and rows of one array share the mapping.
_inodes: weakref.WeakKeyDictionary[mmap.mmap, int] = weakref.WeakKeyDictionary()


def _map_again(
    kind: Any, file: Any, mode: str, offset: int, dtype: Any, shape: Any, strides: Any
) -> Any:
    from numpy.lib.stride_tricks import as_strided  # NumPy is loaded if there are such arrays

    first = _whole(kind, file, mode)[offset : offset + dtype.itemsize].view(dtype)
    return as_strided(first, shape, strides, subok=True)


def _whole(kind: Any, file: Any, mode: str) -> Any:
    """Return the bytes of a file, mapped once for all arrays in it.

    A process may have 65,530 mappings, and an array may have more rows than that.
    """
    status = os.stat(file)
    key = (str(file), mode, status.st_dev, status.st_ino, status.st_size)
    whole = _mapped.get(key)
    if whole is None:
        whole = kind(file, "u1", "r" if mode == "r" else "r+")
        whole.mode = mode
        _mapped[key] = whole
    return whole


_mapped: weakref.WeakValueDictionary[tuple[Any, ...], Any] = weakref.WeakValueDictionary()
_GRAIN = mmap.ALLOCATIONGRANULARITY
