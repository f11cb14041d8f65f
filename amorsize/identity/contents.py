"""Encoders for containers and instances, see ``encoders``."""

from __future__ import annotations

import copyreg
import itertools
import sys
import types
from collections.abc import Callable, Iterable
from struct import pack

from .atoms import ATOMS, MOST_ITEMS, atom_of, sampled, set_of_atoms
from .codes import make_room
from .looking import (
    attributes,
    fetch,
    hides_state,
    module_of,
    mro,
    namespace,
    namespace_of,
    slots,
)
from .owners import PYTHON, USER, is_users, owner, version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .walk import Walk

__all__ = [
    "CONTAINERS",
    "by",
    "by_global_name",
    "instance",
    "kind_of",
    "mapping",
    "own_state",
    "reduced_by_library",
    "sequence",
    "series",
    "state",
    "subclass",
]

MOST_SET_ITEMS = 512  # members to walk; of a larger set only the size counts
MOST_NAMESPACES = 256

# Containers ---------------------------------------------------------------------------------


def sequence(walk: Walk, values: tuple[Any, ...] | list[Any]) -> None:
    """Encode the length and the items of a tuple or list; a long one is sampled."""
    size, few = sampled(values)
    walk.parts.append(b"(" + pack("<q", size))
    for value in few:
        walk.refer(value)


def series(walk: Walk, size: int, *ends: Iterable[Any]) -> None:
    """Encode a length, and the same number of first items from each iterable."""
    walk.parts.append(b"<" + pack("<q", size))
    for end in ends:
        sequence(walk, list(itertools.islice(end, 2 * MOST_ITEMS // len(ends))))


def mapping(walk: Walk, value: Any) -> None:
    """Encode a mapping in its own order; of a long one only the beginning."""
    walk.parts.append(b"d" + pack("<q", len(value)))
    _pairs(walk, value.items())


def _pairs(walk: Walk, items: Iterable[tuple[Any, Any]]) -> None:
    # Copied at once: another thread may be changing it.
    for key, item in list(itertools.islice(items, 2 * MOST_ITEMS)):
        walk.refer(key)
        walk.refer(item)


def _tuple(walk: Walk, value: tuple[Any, ...]) -> None:
    subclass(walk, value, tuple)
    sequence(walk, value)


def _list(walk: Walk, value: list[Any]) -> None:
    walk.mutable = True
    subclass(walk, value, list)
    walk.parts.append(b"l")
    sequence(walk, value)


def _dict(walk: Walk, value: dict[Any, Any]) -> None:
    walk.mutable = True
    subclass(walk, value, dict)
    walk.parts.append(b"d" + pack("<q", dict.__len__(value)))
    _pairs(walk, dict.items(value))


def _set(walk: Walk, value: Any) -> None:
    """Encode a set so that the order of its members leaves no trace."""
    base: Any = set if issubclass(type(value), set) else frozenset
    walk.mutable = walk.mutable or base is set
    subclass(walk, value, base)
    size = base.__len__(value)
    known = set_of_atoms(base.__iter__(value), size)
    if known is not None:
        walk.parts.append(known)
        walk.spend(size)
        return
    walk.parts.append(b"{" + pack("<q", size))
    if size <= MOST_SET_ITEMS:
        _members(walk, list(base.__iter__(value)))


def _members(walk: Walk, values: list[Any]) -> None:
    """Encode members of a set: sorted atoms, and the others as objects without an order."""
    encoders = [atom_of(type(value)) for value in values]
    pairs = list(zip(encoders, values, strict=True))
    atoms = sorted([encode(value) for encode, value in pairs if encode is not None])
    walk.parts += atoms
    if walk.spend(len(atoms) + sum(map(len, atoms)) // 128):
        walk.members([value for encode, value in pairs if encode is None])


def _scalar(base: type) -> Callable[[Walk, Any], None]:
    """Return the encoder for instances of subclasses of an atom's type."""

    def encode(walk: Walk, value: Any) -> None:
        walk.parts.append(b"=" + ATOMS[base](value))
        instance(walk, value)

    return encode


# Instances ----------------------------------------------------------------------------------


def subclass(walk: Walk, value: Any, base: type) -> None:
    """Encode the type and attributes of an instance of a subclass of a builtin."""
    if type(value) is not base:
        instance(walk, value)


def instance(walk: Walk, value: Any) -> None:
    """Encode an object by its type and its attributes."""
    walk.mutable = True
    kind = type(value)
    walk.refer(kind)
    whose = owner(module_of(kind))
    if whose != USER:
        if by_global_name(walk, value):
            return
        name = _own_name(value)
        if name:
            walk.tag(b"G", name)
            return
    if whose == PYTHON:
        # Python's own types reduce themselves correctly; their slots may hold only caches.
        _reduced(walk, value)
        return
    if whose != USER and callable(value):
        wrapped = fetch(value, "__wrapped__")
        if wrapped is not None:
            # The wrapper's other attributes (calls, times, locks) do not change what it does.
            walk.refer(wrapped)
            return
    own_state(walk, value)
    if hides_state(kind) and not issubclass(kind, _WITH_CONTENT):
        _hidden(walk, value)


def kind_of(walk: Walk, value: Any) -> None:
    """Encode the type of an object, and its attributes where the type is the user's.

    Nothing else is encoded of a lock, of thread-local and context values, and of weak containers.
    """
    walk.mutable = True
    kind = type(value)
    walk.refer(kind)
    if owner(module_of(kind)) == USER:
        own_state(walk, value)


def by(*names: str) -> Callable[[Walk, Any], None]:
    """Return an encoder that uses the type and the named attributes of an object."""

    def encode(walk: Walk, value: Any) -> None:
        kind_of(walk, value)
        for name in names:
            walk.refer(fetch(value, name))

    return encode


def own_state(walk: Walk, value: Any) -> None:
    """Encode an instance's dictionary and slots."""
    found = attributes(value)
    if found is not None:
        state(walk, found)
    for name, content in slots(value):
        if not _is_own_hash(name, content):
            walk.tag(b"a", name)
            walk.refer(content)


def state(walk: Walk, values: dict[str, Any]) -> None:
    """Encode a dictionary of attributes."""
    walk.parts.append(b"A" + pack("<q", max(len(values), 2 * MOST_ITEMS)))
    # Copied at once: another thread may be changing it.
    for name, value in list(itertools.islice(dict.items(values), 2 * MOST_ITEMS)):
        if not _is_own_hash(name, value):
            walk.refer(name)
            walk.refer(value)


def _is_own_hash(name: object, value: object) -> bool:
    """Return whether an attribute is the object's cached hash, or None until that is computed.

    A cached hash depends on the hash seed, and on whether it was used yet.
    """
    kind = type(value)
    return type(name) is str and name.endswith("hash") and (value is None or issubclass(kind, int))


def by_global_name(walk: Walk, value: Any) -> bool:
    """Encode an object of a library by its name if it is a global there; return whether it is.

    The name identifies such an object (``os.environ``, the generator behind ``random.random``,
    ``pandas.NA``), whatever it holds in this process.
    """
    module = module_of(type(value))
    whose = owner(module)
    places = [module, module.partition(".")[0]] if whose != USER else []
    for place in places + (["sys"] if whose == PYTHON else []):
        values = namespace_of(sys.modules.get(place))
        name = _names_in(place, values).get(id(value), "")
        if name and values.get(name) is value:
            walk.tag(b"G", f"{place}:{name}")
            return True
    return False


def _names_in(place: str, values: dict[str, Any]) -> dict[int, str]:
    """Return the names of a module's globals by id; an id may belong to another object by now."""
    known = _names.get(place)
    if known is None or known[0] != len(values):
        make_room(_names, MOST_NAMESPACES)
        found = {id(value): name for name, value in list(values.items())}
        known = _names[place] = (len(values), found)
    return known[1]


_names: dict[str, tuple[int, dict[int, str]]] = {}


def _own_name(value: Any) -> str:
    """Return module, qualified name and version of a library's callable, "" if it has no name.

    Examples: NumPy's array functions, functions compiled by Cython, kernels.
    """
    if not callable(value):
        return ""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    module = getattr(value, "__module__", None)
    if type(name) is not str or type(module) is not str or _named(module, name) is not value:
        return ""
    if not is_users(module):
        return f"{module}:{name} {version(module)}"
    # A wrapper may carry the name of the user's function that it wraps.
    return "" if attributes(value) else f"{module}:{name}"


def _named(module: str, name: str) -> object:
    """Return the object with a qualified name in a module, None if there is none."""
    first, *rest = name.split(".")
    found: Any = namespace_of(sys.modules.get(module)).get(first)
    for part in rest:
        found = namespace(found).get(part) if issubclass(type(found), type) else None
    return found


def _hidden(walk: Walk, value: Any) -> None:
    """Encode what an object keeps in C by the reduction of its nearest base of Python's."""
    for base in mro(type(value)):
        if owner(module_of(base)) == PYTHON:
            reduce = namespace(base).get("__reduce_ex__") or namespace(base).get("__reduce__")
            # A reduction in C calls no method that the object's class may have overridden.
            if base is not object and type(reduce) is types.MethodDescriptorType:
                _parts(walk, reduce(value, 4) if "ex" in reduce.__name__ else reduce(value))
                return
    walk.stable = False


def reduced_by_library(walk: Walk, value: Any) -> None:
    """Encode an object by the reduction of its nearest base that is not the user's."""
    walk.mutable = True
    base: Any = next(
        base
        for base in mro(type(value))
        if owner(module_of(base)) != USER and "__reduce__" in namespace(base)
    )
    _parts(walk, base.__reduce__(value))


def _reduced(walk: Walk, value: Any) -> None:
    """Encode an object of Python's own by its reduction."""
    kind = type(value)
    if issubclass(kind, _WITH_CONTENT) or kind is object:
        return
    registered = copyreg.dispatch_table.get(kind)
    try:
        reduced = value.__reduce_ex__(4) if registered is None else registered(value)
    except Exception:  # noqa: BLE001 - its type may have any reason not to be taken apart
        walk.stable = False
        return
    if isinstance(reduced, str):
        walk.tag(b"R", reduced)
    else:
        _parts(walk, reduced)


def _parts(walk: Walk, reduced: tuple[Any, ...]) -> None:
    for part in reduced:
        if hasattr(type(part), "__next__"):
            sequence(walk, list(itertools.islice(part, MOST_ITEMS)))
        else:
            walk.refer(part)


CONTAINERS: dict[type, Callable[[Walk, Any], None]] = {
    tuple: _tuple,
    list: _list,
    dict: _dict,
    set: _set,
    frozenset: _set,
    **{base: _scalar(base) for base in (int, float, complex, str, bytes)},
}
_WITH_CONTENT = tuple(CONTAINERS)  # never encoded by attributes alone
