"""The caller's current globals, for workers that import their own copies of its modules.

A function of a module is pickled by name. A worker that imports the module has the values that its
source sets. A kept worker has the values of an earlier call. A plain ``map`` in the caller would
use the present values. So the values that a function uses are sent along, and set before it runs
(``adopting``).

Values that share an object are sent together (``graphs``). A lock is sent as a new lock, like the
one that the worker's own import makes. Other values that cannot be pickled are listed by name. The
caller decides what follows, since a worker would use the values of its own import.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from functools import cached_property

from ..errors import SerializationError
from ..identity.atoms import ATOMS
from ..identity.codes import describe, hash_of
from ..identity.looking import content_of, namespace
from ..identity.names import Owner
from ..identity.settings import names_of
from ..identity.uses import Uses
from ..identity.walk import ABSENT
from ..lookup import load
from ..tuples import NamedTuple
from . import homes
from .known import function_in
from .pickles import dumps_state, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Current",
    "Graph",
    "Place",
    "Value",
    "code_of",
    "current_values",
    "digest_of",
    "object_at",
]


Place = tuple[Owner, str]  # an owner and the name of its attribute


class Value(NamedTuple):
    """A value as the caller has it.

    Attributes:
        places: all places that hold it.
        code: digest of the definition of a function that its name does not identify, else empty.
    """

    places: tuple[Place, ...]
    code: bytes


class Graph(NamedTuple):
    """Values that hold one another or share an object; often a single value.

    Attributes:
        values: the values.
        numbered: whether the values refer to each other, or to themselves.
        blob: all values, pickled.
        digest: of the same pickle, in which ``Value.code`` represents each function that has one.
    """

    values: tuple[Value, ...]
    numbered: bool
    blob: bytes
    digest: bytes


class Current(NamedTuple):
    """What a worker must know of the caller before it runs a function.

    Attributes:
        graphs: current values that the function uses, except atoms.
        absent: places where the caller has no value.
        atoms: values that are numbers, strings and the like, as (owner, attribute, value).
        caches: (module, qualified name) of functions that cache results; workers clear the caches.
        homes: owner modules that a worker cannot find by name.
        left_out: names of the values that the function uses and that cannot be sent, with types.
        codes: code digests of functions, by (module, qualified name). The functions that a worker
            imports must match them.
    """

    graphs: tuple[Graph, ...] = ()
    absent: tuple[Place, ...] = ()
    atoms: tuple[tuple[Owner, str, object], ...] = ()
    caches: frozenset[tuple[str, str]] = frozenset()
    homes: tuple[homes.Home, ...] = ()
    left_out: tuple[str, ...] = ()
    codes: dict[tuple[str, str], frozenset[bytes]] = {}  # noqa: RUF012 - never written to


def current_values(uses: Uses, *, strict: bool = False) -> Current:
    """Return the values a function uses whose present state an import may not give.

    Args:
        uses: what the function uses.
        strict: whether a worker refuses to run code that differs from the caller's.
    """
    places: dict[int, list[Place]] = {}
    values: dict[int, object] = {}
    atoms, absent = [], []
    for owner, name, value in uses.values:
        if not _may_differ(owner, name, value):
            continue
        if value is ABSENT:
            absent.append((owner, name))
        elif type(value) in ATOMS:
            atoms.append((owner, name, value))
        else:
            places.setdefault(id(value), []).append((owner, name))
            values[id(value)] = value
    held, left_out = _graphs([(value, tuple(places[key])) for key, value in values.items()])
    of_values = [place for graph in held for value in graph.values for place in value.places]
    owners = dict.fromkeys(place[0] for place in (*atoms, *absent, *of_values))
    lost = (homes.home_of(owner) for owner in owners if isinstance(owner, str))
    return Current(
        held,
        tuple(absent),
        tuple(atoms),
        uses.caches,
        tuple(filter(None, lost)),
        left_out,
        uses.codes if strict else {},
    )


# What is sent -------------------------------------------------------------------------------


def _may_differ(owner: Owner, name: str, value: object) -> bool:
    """Return whether a place may hold another value in a process that imports its owner."""
    if not isinstance(owner, str) and not _is_importable(owner):  # the whole owner is sent
        return False
    if isinstance(owner, types.FunctionType) or owner == "__main__":
        return True
    special = name.startswith("__") and name.endswith("__")
    if isinstance(owner, str):
        return not special and _is_other(value, owner, name)
    made = type(value) in (types.GetSetDescriptorType, types.MemberDescriptorType)
    if made or (special and not _functions_of(value)):
        return False
    return _is_other(value, owner.__module__, f"{owner.__qualname__}.{name}")


def _is_other(value: object, home: str, path: str) -> bool:
    """Return whether a value is not the function or class that an import puts in its place."""
    functions = _functions_of(value)
    if functions:
        return not all(
            found.__module__ == home
            and found.__qualname__ == path
            and _defined_as(found) == found.__qualname__
            for found in functions
        )
    if isinstance(value, type):
        return (value.__module__, value.__qualname__) != (home, path)
    return True


def _functions_of(value: Any) -> list[types.FunctionType]:
    """Return a function itself, or the functions inside a class's descriptor."""
    kind = type(value)
    inner: tuple[object, ...] = ()
    if kind is types.FunctionType:
        inner = (value,)
    elif kind in (staticmethod, classmethod):
        inner = (value.__func__,)
    elif kind is property:
        inner = (value.fget, value.fset, value.fdel)
    elif kind is cached_property:
        inner = (value.func,)
    return [found for found in inner if type(found) is types.FunctionType]


def _defined_as(function: types.FunctionType) -> str:
    """Return the qualified name from a function's definition: a wrapper has another's name."""
    return function.__code__.co_qualname


def _graphs(
    values: list[tuple[object, tuple[Place, ...]]],
) -> tuple[tuple[Graph, ...], tuple[str, ...]]:
    """Return values as graphs, and the names of the values that cannot be sent."""
    if not values:
        return (), ()
    load("amorsize.run.graphs")
    from . import graphs

    nodes, alone, met, places_of, left_out = [], [], [], [], []
    for value, places in values:
        node = graphs.Node(value, code_of(value))
        try:
            with refusing(value, "CALL"):
                blob, objects = graphs.dump([node], numbered=False, compared=False)
        except SerializationError:
            left_out += _left_out(value, places)
            continue
        nodes.append(node)
        alone.append(blob)
        met.append(objects)
        places_of.append(places)
    found = []
    for group in graphs.connected(nodes, met):
        chosen = [nodes[index] for index in group]
        numbered = len(group) > 1 or graphs.holds_itself(chosen[0], met[group[0]])
        try:
            with refusing(chosen, "CALL"):
                blob = alone[group[0]]
                if numbered:
                    blob, _ = graphs.dump(chosen, numbered=True, compared=False)
                digest = hash_of(blob)
                if any(node.code for node in chosen):
                    digest, _ = digest_of(*zip(*chosen, strict=True), numbered=numbered)
        except SerializationError:  # a lock was taken meanwhile
            for index in group:
                left_out += _left_out(nodes[index].value, places_of[index])
            continue
        members = tuple(Value(places_of[index], nodes[index].code) for index in group)
        found.append(Graph(members, numbered, blob, digest))
    return tuple(found), tuple(left_out)


def _left_out(value: object, places: tuple[Place, ...]) -> list[str]:
    """Return the names of a value that cannot be sent; none if the worker's own will do."""
    if _is_stateless(value):
        return []
    return [f"{_name_of(*place)} ({type(value).__name__})" for place in places]


def _is_stateless(value: object) -> bool:
    """Return whether a worker's own import replaces a value that cannot be pickled."""
    return type(value).__module__ in _STATELESS


# Modules of foreign functions, and of context variables, whose values ``surroundings`` carries.
_STATELESS = frozenset({"ctypes", "_ctypes", "_cffi_backend", "_contextvars"})


def _name_of(owner: Owner, name: str) -> str:
    where = owner if isinstance(owner, str) else f"{owner.__module__}.{owner.__qualname__}"
    return f"{where}.{name}"


# What both sides compare --------------------------------------------------------------------


def code_of(value: Any) -> bytes:
    """Return the digest of a function that its name does not identify, else empty bytes."""
    if type(value) is not types.FunctionType:
        return b""
    by_name = _is_importable(value) and _defined_as(value) == value.__qualname__
    return b"" if by_name else _definition(value)


def _definition(function: types.FunctionType) -> bytes:
    """Return a digest of a function's code, defaults and closure, with the functions in it."""
    parts, todo, seen = [], [function], set()
    while todo:
        found = todo.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        parts.append(describe(found.__code__).digest)
        contents = map(content_of, found.__closure__ or ())
        for content in (*contents, found.__defaults__, found.__kwdefaults__):
            if type(content) is types.FunctionType:
                todo.append(content)
            else:
                parts.append(_told(content))
    return hash_of(b"".join(parts))


def _told(value: object) -> bytes:
    """Return a pickled value, or the name of its type if it cannot be pickled."""
    try:
        return dumps_state(value)
    except SerializationError:
        return type(value).__qualname__.encode()


def _is_importable(value: type | types.FunctionType) -> bool:
    home = value.__module__
    if home == "__main__":
        return False
    held = object_at(home, value.__qualname__)
    return held is value or function_in(held) is value


def object_at(module: str, path: str) -> Any:
    """Return the object under a qualified name in a loaded module, ``ABSENT`` for none."""
    value: Any = sys.modules.get(module, ABSENT)
    for part in path.split("."):  # by no attribute access: any object may be in the way
        is_class = issubclass(type(value), type)
        value = (namespace(value) if is_class else names_of(value)).get(part, ABSENT)
    return value


def digest_of(
    values: Sequence[Any], codes: Sequence[bytes], *, numbered: bool
) -> tuple[bytes, frozenset[int]]:
    """Return a digest of a graph, and the ids of all objects inside its values.

    Args:
        values: its values; their own ids are not returned.
        codes: ``Value.code`` of each value.
        numbered: as ``Graph.numbered``.
    """
    load("amorsize.run.graphs")
    from . import graphs

    nodes = [graphs.Node(value, code) for value, code in zip(values, codes, strict=True)]
    with refusing(values, "CALL"):
        blob, met = graphs.dump(nodes, numbered=numbered, compared=True)
    return hash_of(blob), frozenset(met.keys() - set(map(id, values)))
