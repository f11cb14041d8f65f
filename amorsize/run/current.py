"""The caller's current globals, for workers that import their own copies of its modules.

A function of a module is pickled by name. A worker that imports the module has the values that its
source sets. A kept worker has the values of an earlier call. A plain ``map`` in the caller would
use the present values. So the values that a function uses are sent along and set before it runs.

A value that is already equal is left alone: much code tests identity (``x is _MISSING``), and a
copy fails that test. Equal here means that both pickle to the same bytes. For the same reason the
contents of a container are replaced, not the container, and values that share an object are sent
together (``graphs``).

A lock is sent as a new lock, like the one that the worker's own import makes. Other values that
cannot be pickled are listed by name. The caller decides what follows, since a worker would use the
values of its own import.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial

from ..errors import SerializationError
from ..identity.atoms import ATOMS
from ..identity.codes import describe, hash_of
from ..identity.looking import content_of
from ..identity.names import Owner
from ..identity.uses import Uses
from ..identity.walk import ABSENT
from ..lookup import load
from ..tuples import NamedTuple
from . import homes
from .known import begin_call, function_in
from .pickles import dumps_state, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Current",
    "Graph",
    "Value",
    "adopt",
    "adopted",
    "current_values",
    "forget_results",
    "restore",
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


# Calls that put back what places and objects held before; the latest replacement last.
Undo = list[Callable[[], None]]


def adopt(current: Current, undo: Undo) -> None:
    """Set the caller's values in this process.

    Args:
        current: the values.
        undo: takes what ``restore`` needs.

    Values of a module that cannot be imported here are skipped. If the function imports that
    module, it gets the import's own error.
    """
    for home in current.homes:
        with suppress(ImportError):
            homes.module_at(home)
    for owner, name, new in current.atoms:
        if not _is_here(owner):
            continue
        own = _get(owner, name)
        if not _is_same_atom(own, new):
            undo.append(partial(_set, owner, name, own))
            _set(owner, name, new)
    for owner, name in filter(_is_here_at, current.absent):
        own = _get(owner, name)
        # Any import of a submodule makes it an attribute of its package.
        if own is not ABSENT and type(own) is not types.ModuleType:
            undo.append(partial(_set, owner, name, own))
            _set(owner, name, ABSENT)
    _adopt_graphs(current.graphs, undo)
    forget_results(current.caches)


class _Own(NamedTuple):
    """What this process has in place of a graph.

    Attributes:
        graph: the graph.
        places: for each value, its places whose owner is here.
        found: for each value, the objects at these places.
        values: one object for each value, ``ABSENT`` for none.
        equal: whether nothing has to be set, as the objects pickle to the caller's bytes.
        inside: ids of all objects inside the values, without the values themselves.
    """

    graph: Graph
    places: list[tuple[Place, ...]]
    found: list[list[Any]]
    values: list[Any]
    equal: bool
    inside: frozenset[int]


def _adopt_graphs(graphs: tuple[Graph, ...], undo: Undo) -> None:
    """Set the values of all graphs, except where this process has equal ones."""
    if not graphs:
        return
    load("amorsize.run.graphs")
    from . import graphs as mechanism

    # By id: objects already paired with one of the caller's values. None may be paired with two.
    claimed: dict[int, object] = {}
    here = [_own_of(graph, claimed) for graph in graphs]
    # Ids of objects inside some graph here. A value among them is separate from that graph in the
    # caller, so this process needs a new object for the value: a change to one must not change the
    # other.
    joined = frozenset().union(*(own.inside for own in here))
    for own in here:
        if own.equal and joined.isdisjoint(map(id, own.values)):
            continue
        usable = [ABSENT if id(value) in joined else value for value in own.values]
        values, filled = mechanism.load(own.graph.blob, usable)
        undo += [partial(mechanism.fill, *one) for one in filled]
        for value, places, objects in zip(values, own.places, own.found, strict=True):
            for (owner, name), before in zip(places, objects, strict=True):
                if before is not value:
                    undo.append(partial(_set, owner, name, before))
                    _set(owner, name, value)


def _own_of(graph: Graph, claimed: dict[int, object]) -> _Own:
    places = [tuple(filter(_is_here_at, value.places)) for value in graph.values]
    found = [[_get(*place) for place in there] for there in places]
    values: list[Any] = []
    for objects in found:
        one = objects[0] if objects and id(objects[0]) not in claimed else ABSENT
        claimed[id(one)] = one
        values.append(one)
    if not any(found):  # none of the owners is here: nothing can be set
        return _Own(graph, places, found, values, equal=True, inside=frozenset())
    equal = all(one is held for one, objects in zip(values, found, strict=True) for held in objects)
    codes = [value.code for value in graph.values]
    equal = equal and all(
        not code or _code_of(one) == code for one, code in zip(values, codes, strict=True)
    )
    try:
        digest, inside = _digest(values, codes, numbered=graph.numbered)
    except SerializationError:
        return _Own(graph, places, found, values, equal=False, inside=frozenset())
    return _Own(graph, places, found, values, equal and digest == graph.digest, inside)


@contextmanager
def adopted(current: Current, undo: Undo) -> Iterator[None]:
    """Set the caller's values before a call is loaded, and again if loading imports modules.

    Args:
        current: the values.
        undo: takes what ``restore`` needs.

    Raises:
        SerializationError: an imported function differs from the caller's.
    """
    adopt(current, undo)
    before = len(sys.modules)
    yield
    if len(sys.modules) > before:  # a module may change others' values when it is imported
        adopt(current, undo)
    _check(current)


def _check(current: Current) -> None:
    for (module, path), digests in current.codes.items():
        function = _named(module, path)
        if (
            type(function) is types.FunctionType
            and describe(function.__code__).digest not in digests
        ):
            raise SerializationError(
                f"{module}.{path} is another function in a worker: its file was changed after the "
                f"calling process had imported it"
            )


def restore(undo: Undo) -> None:
    """Put back what was there before ``adopt``: the next call need not replace those values."""
    while undo:
        undo.pop()()
    begin_call()


def forget_results(caches: frozenset[tuple[str, str]]) -> None:
    """Clear the caches of functions: they may hold results that were valid only in another call."""
    for module, path in caches:
        cache = _named(module, path)
        if hasattr(cache, "cache_clear"):
            cache.cache_clear()


# The caller's side --------------------------------------------------------------------------


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
        node = graphs.Node(value, _code_of(value))
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
                    digest, _ = _digest(*zip(*chosen, strict=True), numbered=numbered)
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


def _code_of(value: Any) -> bytes:
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


def _is_stateless(value: object) -> bool:
    """Return whether a worker's own import replaces a value that cannot be pickled."""
    return type(value).__module__ in _STATELESS


# Modules of foreign functions, and of context variables, whose values ``surroundings`` carries.
_STATELESS = frozenset({"ctypes", "_ctypes", "_cffi_backend", "_contextvars"})


def _name_of(owner: Owner, name: str) -> str:
    where = owner if isinstance(owner, str) else f"{owner.__module__}.{owner.__qualname__}"
    return f"{where}.{name}"


def _is_importable(value: type | types.FunctionType) -> bool:
    home = value.__module__
    if home == "__main__":
        return False
    held = _named(home, value.__qualname__)
    return held is value or function_in(held) is value


def _named(module: str, path: str) -> Any:
    """Return the object under a qualified name in a loaded module, ``ABSENT`` for none."""
    value: Any = sys.modules.get(module, ABSENT)
    for part in path.split("."):
        value = vars(value).get(part, ABSENT) if hasattr(value, "__dict__") else ABSENT
    return value


# The worker's side --------------------------------------------------------------------------


def _get(owner: Owner, name: str) -> Any:
    if isinstance(owner, types.FunctionType) and name in ("__defaults__", "__kwdefaults__"):
        return getattr(owner, name)
    return _namespace(owner).get(name, ABSENT)


def _set(owner: Owner, name: str, value: object) -> None:
    if isinstance(owner, str):
        namespace = _namespace(owner)
        if value is ABSENT:
            namespace.pop(name, None)
        else:
            namespace[name] = value
    elif isinstance(owner, types.FunctionType):
        if value is ABSENT:
            vars(owner).pop(name, None)
        else:
            setattr(owner, name, value)
    elif value is ABSENT:
        if name in vars(owner):
            type.__delattr__(owner, name)
    else:
        type.__setattr__(owner, name, value)  # bypasses a metaclass's own __setattr__


def _is_here_at(place: Place) -> bool:
    return _is_here(place[0])


def _is_here(owner: Owner) -> bool:
    """Return whether an owner is here: a module if it can be imported, anything else always."""
    if isinstance(owner, str) and owner not in sys.modules:
        try:
            importlib.import_module(owner)
        except Exception:  # noqa: BLE001 - a module of the user's may raise anything as it is loaded
            return False
    return True


def _namespace(owner: Owner) -> Any:
    if not isinstance(owner, str):
        return vars(owner)
    return vars(sys.modules.get(owner) or importlib.import_module(owner))


def _digest(
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


def _is_same_atom(own: object, new: object) -> bool:
    """Return whether two atoms are the same; 0.0 and -0.0 are not."""
    return own is new or (type(own) is type(new) and own == new and repr(own) == repr(new))
