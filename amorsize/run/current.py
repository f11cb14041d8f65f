"""The caller's current globals, for workers that import their own copies of its modules.

A function of a module travels by name. A worker that imports the module sees the values its source
gives, and a worker kept from an earlier call those of that call; ``map`` in the caller would use
what is there now. So the values a function uses are sent along, and set before it runs.

What is equal already is left alone: much code asks whether a value *is* some other (``x is
_MISSING``), and a copy is none of them. Equal means here that both are pickled to the same bytes.
For the same reason contents are replaced rather than containers, and what shares anything is sent
together (``graphs``).

A lock goes as a new one, as the worker's own import would make it. What else cannot be pickled is
named, and the caller decides what follows: a worker would use what its own import gives.
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
from ..identity.uses import Owner, Uses
from ..identity.walk import MISSING
from ..lookup import load
from ..tuples import NamedTuple
from . import homes
from .known import begin_call, function_in
from .transport import dumps_state, refusing

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
        places: all that hold it.
        code: digest of what it does where it is a function whose name says too little, else empty.
    """

    places: tuple[Place, ...]
    code: bytes


class Graph(NamedTuple):
    """Values that hold one another, or share something; often one alone.

    Attributes:
        values: the values.
        numbered: whether they lead to each other, or to themselves.
        blob: all of them, pickled.
        digest: of the same pickle, with functions whose name says too little as their digests.
    """

    values: tuple[Value, ...]
    numbered: bool
    blob: bytes
    digest: bytes


class Current(NamedTuple):
    """What a worker must know of the caller before it runs a function.

    Attributes:
        graphs: current values of what the function uses.
        absent: where the caller has nothing.
        atoms: those that are numbers, texts and the like, as (owner, attribute, value).
        caches: (module, qualified name) of functions that keep results, which must be forgotten.
        homes: the modules among the owners that a worker does not find by their names.
        left_out: names of what the function uses and cannot be sent, each with its type.
        codes: digests of functions that must be the same where a worker imports them, by (module,
            qualified name).
    """

    graphs: tuple[Graph, ...] = ()
    absent: tuple[Place, ...] = ()
    atoms: tuple[tuple[Owner, str, object], ...] = ()
    caches: frozenset[tuple[str, str]] = frozenset()
    homes: tuple[homes.Home, ...] = ()
    left_out: tuple[str, ...] = ()
    codes: dict[tuple[str, str], frozenset[bytes]] = {}  # noqa: RUF012 - never written to


def current_values(uses: Uses, *, strict: bool = False) -> Current:
    """Return those values a function uses that an import need not give as they are now.

    Args:
        uses: what the function uses.
        strict: whether a worker refuses to run other code than the caller's.
    """
    places: dict[int, list[Place]] = {}
    values: dict[int, object] = {}
    atoms, absent = [], []
    for owner, name, value in uses.values:
        if not _may_differ(owner, name, value):
            continue
        if value is MISSING:
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


# What puts back what a place or an object held before that was replaced, the latest last.
Undo = list[Callable[[], None]]


def adopt(current: Current, undo: Undo) -> None:
    """Set the caller's values in this process.

    Args:
        current: the values.
        undo: takes what ``restore`` needs.

    What belongs to a module that cannot be imported here is left out: should the function import
    it, that raises what it has to.
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
        # Submodules are attributes as soon as anybody has imported them.
        if own is not MISSING and type(own) is not types.ModuleType:
            undo.append(partial(_set, owner, name, own))
            _set(owner, name, MISSING)
    _adopt_graphs(current.graphs, undo)
    forget_results(current.caches)


class _Own(NamedTuple):
    """What this process has for a graph.

    Attributes:
        graph: the graph.
        places: of each value, those that are here.
        found: what is in them.
        values: one object for each value, ``MISSING`` for none.
        equal: whether they are pickled as the caller's are.
        inside: ids of what is in them, themselves apart.
    """

    graph: Graph
    places: list[tuple[Place, ...]]
    found: list[list[Any]]
    values: list[Any]
    equal: bool
    inside: frozenset[int]


def _adopt_graphs(graphs: tuple[Graph, ...], undo: Undo) -> None:
    """Set the values of all graphs, but for those that this process has as good ones of."""
    if not graphs:
        return
    load("amorsize.run.graphs")
    from . import graphs as mechanism

    # By id, what stands for one of the caller's values already: it cannot stand for two.
    claimed: dict[int, object] = {}
    here = [_own_of(graph, claimed) for graph in graphs]
    # What is joined here and apart in the caller: if one changed, the other would as well.
    joined = frozenset().union(*(own.inside for own in here))
    for own in here:
        if own.equal and joined.isdisjoint(map(id, own.values)):
            continue
        usable = [MISSING if id(value) in joined else value for value in own.values]
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
        one = objects[0] if objects and id(objects[0]) not in claimed else MISSING
        claimed[id(one)] = one
        values.append(one)
    if not any(found):  # none of its modules is here: nothing can be set
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
    """Set the caller's values in this process before a call is loaded, and make sure afterwards.

    Args:
        current: the values.
        undo: takes what ``restore`` needs.

    Raises:
        SerializationError: a function that was imported is not the caller's.
    """
    adopt(current, undo)
    before = len(sys.modules)
    yield
    if len(sys.modules) > before:  # as modules are loaded they may set what is in others
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
    """Put back what was there before ``adopt``: what another call sends need not replace it."""
    while undo:
        undo.pop()()
    begin_call()


def forget_results(caches: frozenset[tuple[str, str]]) -> None:
    """Empty the caches of functions: they may hold what was true in another call."""
    for module, path in caches:
        cache = _named(module, path)
        if hasattr(cache, "cache_clear"):
            cache.cache_clear()


# The caller's side --------------------------------------------------------------------------


def _may_differ(owner: Owner, name: str, value: object) -> bool:
    """Return whether a place need not hold the same in a process that imports its owner."""
    if not isinstance(owner, str) and not _is_importable(owner):  # then it travels whole
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
    """Return whether a value is more than the function or class its place gets at the import."""
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
    """Return the functions that a function, or a class's descriptor around some, consists of."""
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
    """Return the name a function had where it was defined: a wrapper bears another's."""
    return function.__code__.co_qualname


def _graphs(
    values: list[tuple[object, tuple[Place, ...]]],
) -> tuple[tuple[Graph, ...], tuple[str, ...]]:
    """Return values as graphs, and the names of those that cannot be sent."""
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
    """Return the names of what cannot be sent, unless a worker's own is as good."""
    if _is_stateless(value):
        return []
    return [f"{_name_of(*place)} ({type(value).__name__})" for place in places]


def _code_of(value: Any) -> bytes:
    """Return the digest of a function that does not go by its name; else nothing."""
    if type(value) is not types.FunctionType:
        return b""
    by_name = _is_importable(value) and _defined_as(value) == value.__qualname__
    return b"" if by_name else _definition(value)


def _definition(function: types.FunctionType) -> bytes:
    """Return what tells a function from others: code, defaults and closure, those in it as well."""
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
    """Return a value pickled; the name of its type, where it cannot be."""
    try:
        return dumps_state(value)
    except SerializationError:
        return type(value).__qualname__.encode()


def _is_stateless(value: object) -> bool:
    """Return whether a worker's own import gives what is as good, of what cannot be pickled."""
    return type(value).__module__ in _STATELESS


# Foreign functions; context variables, whose values are carried as such.
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
    """Return what a loaded module holds under a qualified name, ``MISSING`` for nothing."""
    value: Any = sys.modules.get(module, MISSING)
    for part in path.split("."):
        value = vars(value).get(part, MISSING) if hasattr(value, "__dict__") else MISSING
    return value


# The worker's side --------------------------------------------------------------------------


def _get(owner: Owner, name: str) -> Any:
    if isinstance(owner, types.FunctionType) and name in ("__defaults__", "__kwdefaults__"):
        return getattr(owner, name)
    return _namespace(owner).get(name, MISSING)


def _set(owner: Owner, name: str, value: object) -> None:
    if isinstance(owner, str):
        namespace = _namespace(owner)
        if value is MISSING:
            namespace.pop(name, None)
        else:
            namespace[name] = value
    elif isinstance(owner, types.FunctionType):
        if value is MISSING:
            vars(owner).pop(name, None)
        else:
            setattr(owner, name, value)
    elif value is MISSING:
        if name in vars(owner):
            type.__delattr__(owner, name)
    else:
        type.__setattr__(owner, name, value)  # past metaclasses with ideas of their own


def _is_here_at(place: Place) -> bool:
    return _is_here(place[0])


def _is_here(owner: Owner) -> bool:
    """Return whether a module can be imported here; classes and functions are here anyway."""
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
    """Return a digest of a graph, and the ids of what is in its values, themselves apart.

    Args:
        values: its values.
        codes: as ``Value.code``, for each.
        numbered: as ``Graph.numbered``.
    """
    load("amorsize.run.graphs")
    from . import graphs

    nodes = [graphs.Node(value, code) for value, code in zip(values, codes, strict=True)]
    with refusing(values, "CALL"):
        blob, met = graphs.dump(nodes, numbered=numbered, compared=True)
    return hash_of(blob), frozenset(met.keys() - set(map(id, values)))


def _is_same_atom(own: object, new: object) -> bool:
    """Return whether two atoms are one; 0.0 is not -0.0."""
    return own is new or (type(own) is type(new) and own == new and repr(own) == repr(new))
