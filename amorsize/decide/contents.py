"""How containers and instances are encoded for a walk, see ``encoders``."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable
from struct import pack

from .atoms import ATOMS, MOST_ITEMS, atom_of, sampled, set_of_atoms
from .codes import make_room
from .looking import attributes, hides_state, module_of, namespace_of, slots
from .owners import PYTHON, USER, is_users, owner, version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .walk import Walk

__all__ = [
    "CONTAINERS",
    "instance",
    "mapping",
    "own_state",
    "sequence",
    "series",
    "state",
    "subclass",
]

MOST_SET_ITEMS = 512  # members that are objects; of more of them only the number counts
MOST_NAMESPACES = 256

# Containers ---------------------------------------------------------------------------------


def sequence(walk: Walk, values: tuple[Any, ...] | list[Any]) -> None:
    """Encode the length and the items of a tuple or list, of a long one a sample."""
    size, few = sampled(values)
    walk.parts.append(b"(" + pack("<q", size))
    for value in few:
        walk.refer(value)


def series(walk: Walk, size: int, *ends: Iterable[Any]) -> None:
    """Encode a length, and the first items that each of some iterables gives."""
    walk.parts.append(b"<" + pack("<q", size))
    for end in ends:
        sequence(walk, list(itertools.islice(end, 2 * MOST_ITEMS)))


def mapping(walk: Walk, value: Any) -> None:
    """Encode a mapping in its own order, of a long one the beginning."""
    walk.parts.append(b"d" + pack("<q", len(value)))
    _pairs(walk, value.items())


def _pairs(walk: Walk, items: Iterable[tuple[Any, Any]]) -> None:
    # In one go, as another thread may be changing it.
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
    """Encode members: atoms sorted, the others as objects whose order means nothing."""
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
    module = module_of(kind)
    whose = owner(module)
    if whose != USER:
        name = _global_name(value, module, whose) or _own_name(value)
        if name:
            walk.tag(b"G", name)
            return
    if whose == PYTHON:
        # Python's own types know best what they are; their slots may hold mere caches.
        _reduced(walk, value)
        return
    own_state(walk, value)
    if hides_state(kind) and not issubclass(kind, _WITH_CONTENT):
        _hidden(walk, value, whose)


def own_state(walk: Walk, value: Any) -> None:
    """Encode an instance's dictionary and slots."""
    found = attributes(value)
    if found is not None:
        state(walk, found)
    for name, content in slots(value):
        walk.tag(b"a", name)
        walk.refer(content)


def state(walk: Walk, values: dict[str, Any]) -> None:
    """Encode a dictionary of attributes."""
    walk.parts.append(b"A" + pack("<q", len(values)))
    _pairs(walk, dict.items(values))


def _global_name(value: Any, module: str, whose: str) -> str:
    """Return under which name the library that a type is from has a value as a global, or "".

    Such an object (``os.environ``, the generator behind ``random.random``, ``pandas.NA``) is who it
    is, whatever it holds in this process.
    """
    places = [module, module.partition(".")[0]] + (["sys"] if whose == PYTHON else [])
    for place in places:
        values = namespace_of(sys.modules.get(place))
        name = _names_in(place, values).get(id(value), "")
        if name and values.get(name) is value:
            return f"{place}:{name}"
    return ""


def _names_in(place: str, values: dict[str, Any]) -> dict[int, str]:
    """Return the names of a module's globals by their ids; the ids may be others' by now."""
    known = _names.get(place)
    if known is None or known[0] != len(values):
        make_room(_names, MOST_NAMESPACES)
        found = {id(value): name for name, value in list(values.items())}
        known = _names[place] = (len(values), found)
    return known[1]


_names: dict[str, tuple[int, dict[int, str]]] = {}


def _own_name(value: Any) -> str:
    """Return module and qualified name of a library's callable that has them, or "".

    Array functions of NumPy, functions compiled by Cython, kernels.
    """
    if not callable(value):
        return ""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    module = getattr(value, "__module__", None)
    if type(name) is not str or type(module) is not str or "<" in name:
        return ""
    return f"{module}:{name} {'' if is_users(module) else version(module)}"


def _hidden(walk: Walk, value: Any, whose: str) -> None:
    """Encode what an object keeps in C, if anything is known of that."""
    wrapped = None if whose == USER else (attributes(value) or {}).get("__wrapped__")
    if wrapped is None:
        walk.stable = False


def _reduced(walk: Walk, value: Any) -> None:
    """Encode an object of Python's own by its reduction."""
    if issubclass(type(value), _WITH_CONTENT) or type(value) is object:
        return
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # noqa: BLE001 - its type may have any reason not to be taken apart
        walk.stable = False
        return
    if isinstance(reduced, str):
        walk.tag(b"R", reduced)
        return
    for part in reduced:
        if hasattr(part, "__next__"):
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
