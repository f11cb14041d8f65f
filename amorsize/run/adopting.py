"""The caller's current globals in a worker: set before a call, and put back for the next one.

A value that is already equal is left alone: much code tests identity (``x is _MISSING``), and a
copy fails that test. Equal here means that both pickle to the same bytes. For the same reason the
contents of a container are replaced, not the container.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from ..errors import SerializationError
from ..identity.codes import describe
from ..identity.walk import ABSENT
from ..lookup import load
from ..tuples import NamedTuple
from . import homes
from .current import Current, Graph, Place, code_of, digest_of, object_at
from .known import begin_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..identity.names import Owner

__all__ = ["Undo", "adopted", "restore"]


# Calls that put back what places and objects held before; the latest replacement last.
Undo = list[Callable[[], None]]


def _adopt(current: Current, undo: Undo) -> None:
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
    _forget_results(current.caches)


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
        not code or code_of(one) == code for one, code in zip(values, codes, strict=True)
    )
    try:
        digest, inside = digest_of(values, codes, numbered=graph.numbered)
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
    _adopt(current, undo)
    before = len(sys.modules)
    yield
    if len(sys.modules) > before:  # a module may change others' values when it is imported
        _adopt(current, undo)
    _check(current)


def _check(current: Current) -> None:
    for (module, path), digests in current.codes.items():
        function = object_at(module, path)
        if (
            type(function) is types.FunctionType
            and describe(function.__code__).digest not in digests
        ):
            raise SerializationError(
                f"{module}.{path} is another function in a worker: its file was changed after the "
                f"calling process had imported it"
            )


def restore(undo: Undo) -> None:
    """Put back what was there before ``adopted``: the next call need not replace those values."""
    while undo:
        undo.pop()()
    begin_call()


def _forget_results(caches: frozenset[tuple[str, str]]) -> None:
    """Clear the caches of functions: they may hold results that were valid only in another call."""
    for module, path in caches:
        cache = object_at(module, path)
        if hasattr(cache, "cache_clear"):
            cache.cache_clear()


# Places -------------------------------------------------------------------------------------


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


def _is_same_atom(own: object, new: object) -> bool:
    """Return whether two atoms are the same; 0.0 and -0.0 are not."""
    return own is new or (type(own) is type(new) and own == new and repr(own) == repr(new))
