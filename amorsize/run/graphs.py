"""Values that hold one another, or share something: pickled, compared and loaded as one graph.

A module's sentinel may be a default of a function and stand in a registry as well; two objects may
know each other. Pickled one by one each would bring copies of its own, and ``x is y`` would fail
in a worker. So what shares an object with another value goes in one pickle with it.

In such a pickle a container or plain object is an empty shell, which its contents are put into
afterwards: they may lead back to it, and a worker that has such an object keeps it and replaces
the contents alone.

This module is loaded where it is needed: it brings cloudpickle, which takes 15 ms.
"""

from __future__ import annotations

import functools
import pickle
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from io import BytesIO
from typing import Any, NamedTuple

from ..decide.atoms import ATOMS
from ..decide.looking import MISSING
from .pickler import Pickler, Way, held

__all__ = ["Node", "connected", "dump", "held_by", "load"]


class Node(NamedTuple):
    """A value on its way.

    Attributes:
        value: as it is here.
        sent: what is sent in its place; None for itself. For a function, a copy under another name;
            or its digest, where graphs are only compared.
    """

    value: Any
    sent: Any = None


class Shell(NamedTuple):
    """A container or plain object without its contents.

    Attributes:
        kind: its class.
        most: how many items it may have; None for any number.
    """

    kind: type
    most: int | None = None


# What the pickler has met, by id; kept alive, since ids of what has gone are used again.
Met = dict[int, Any]


def dump(nodes: list[Node]) -> bytes:
    """Pickle values as one graph.

    Args:
        nodes: the values, those that others hold before these, as far as that can be.

    Raises:
        Exception: whatever pickling them raises.
    """
    return _dumped(nodes)[0]


def held_by(node: Node) -> tuple[bytes, Met]:
    """Return a value pickled as a graph of its own, and all that is in it, itself included.

    Raises:
        Exception: whatever pickling it raises.
    """
    blob, met = _dumped([node])
    return blob, {**met, id(node.value): node.value}


def connected(nodes: list[Node], met: list[Met]) -> list[list[int]]:
    """Return which values belong together, those that others hold before these.

    Args:
        nodes: the values.
        met: what is in each of them.

    Returns:
        Lists of positions; each position once.
    """
    position = {id(node.value): index for index, node in enumerate(nodes)}
    renamed = {id(node.value) for node in nodes if node.sent is not None}
    leader = list(range(len(nodes)))

    def lead(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    first: dict[int, int] = {}  # by id of an object: the first value that holds it
    holds: list[list[int]] = []  # the other values that each holds
    for index, objects in enumerate(met):
        shared = [
            key
            for key, found in objects.items()
            if key in renamed
            or ((key in position or type(found) not in _TOLD_BY_VALUE) and not _is_named(found))
        ]
        holds.append([position[key] for key in shared if position.get(key, index) != index])
        for key in shared:
            leader[lead(index)] = lead(first.setdefault(key, index))
    groups: dict[int, list[int]] = {}
    for index in _inner_first(holds):
        groups.setdefault(lead(index), []).append(index)
    return list(groups.values())


def load(blob: bytes, own: list[Any]) -> list[Any]:
    """Return the values of a graph: this process's own objects where they can take the contents.

    Args:
        blob: what ``dump`` has given.
        own: what this process has in place of each value, ``MISSING`` for nothing; no other object
            twice.
    """
    reader = _Reader(BytesIO(blob))
    shells: list[Shell | None] = reader.load()
    reader.values = [
        mine if shell is None or _fits(shell, mine) else _made(shell)
        for mine, shell in zip(own, shells, strict=True)
    ]
    for index, shell in enumerate(shells):
        loaded = reader.load()
        if shell is None:
            reader.values[index] = loaded
        else:
            _fill(reader.values[index], loaded)
    return reader.values


# Pickling -----------------------------------------------------------------------------------


def _dumped(nodes: list[Node]) -> tuple[bytes, Met]:
    out = BytesIO()
    shells = [_shell_of(node.value) if node.sent is None else None for node in nodes]
    pickler = _GraphPickler(out, nodes, shells)
    pickler.dump(shells)
    for index, (node, shell) in enumerate(zip(nodes, shells, strict=True)):
        value = node.value if node.sent is None else node.sent
        pickler.dump_node(index, value if shell is None else _contents_of(value))
    return out.getvalue(), {key: found for key, (_, found) in pickler.memo.copy().items()}


class _GraphPickler(Pickler):
    """Pickles the values of a graph one after the other, each under a number for the others."""

    def __init__(self, file: Any, nodes: list[Node], shells: list[Shell | None]) -> None:
        super().__init__(file, Way.CALL, fresh_locks=True)
        self._numbers = {id(node.value): index for index, node in enumerate(nodes)}
        # What a worker has from the start, or by another name than this process gives it.
        self._early = [
            shell is not None or node.sent is not None
            for node, shell in zip(nodes, shells, strict=True)
        ]
        self._done = 0
        self._root: Any = None

    def dump_node(self, index: int, value: Any) -> None:
        self._done, self._root = index, value
        self.dump(value)

    def persistent_id(self, obj: Any) -> int | None:
        """Return the number of a value of the graph, None for what is pickled as usual."""
        if obj is self._root:
            self._root = None
            return None
        number = self._numbers.get(id(obj))
        return number if number is not None and self._is_loaded(number) else None

    def _is_loaded(self, number: int) -> bool:
        """Return whether whoever loads this has a value by now; else pickle's memo serves."""
        return self._early[number] or number < self._done


class _Reader(pickle.Unpickler):
    values: list[Any]

    def persistent_load(self, number: int) -> Any:
        """Return a value of the graph."""
        return self.values[number]


def _is_named(value: Any) -> bool:
    """Return whether a value is pickled as a mere name."""
    if isinstance(value, (type, types.ModuleType)):
        return True
    if type(value) not in _NAMED or value.__module__ == "__main__":
        return False
    module = sys.modules.get(value.__module__)
    return held(getattr(module, "__dict__", {}), value.__qualname__) is value


_NAMED = (types.FunctionType, types.BuiltinFunctionType, type(functools.lru_cache(len)))
# No program asks of these which one a value is, rather than what it is.
_TOLD_BY_VALUE = frozenset({*ATOMS, bytes, tuple, frozenset, types.CodeType})


def _inner_first(holds: list[list[int]]) -> list[int]:
    """Return all positions, what others hold before these; of a circle, in any order."""
    order: list[int] = []
    seen: set[int] = set()
    for start in range(len(holds)):
        path = [(start, iter(holds[start]))] if start not in seen else []
        seen.add(start)
        while path:
            index, inner = path[-1]
            following = next((found for found in inner if found not in seen), None)
            if following is None:
                order.append(index)
                path.pop()
            else:
                seen.add(following)
                path.append((following, iter(holds[following])))
    return order


# Shells and contents ------------------------------------------------------------------------


def _shell_of(value: Any) -> Shell | None:
    """Return the shell of a container or plain object, None for what is pickled whole."""
    kind = type(value)
    if kind is deque:
        return Shell(kind, value.maxlen)
    if kind in _CONTAINERS or kind is object:
        return Shell(kind)
    # What has a hash of its own may need its contents for it before they are there.
    hashed: Any = kind.__hash__  # None where it cannot be hashed
    if (hashed is not None and hashed is not object.__hash__) or not _is_plain(kind):
        return None
    return Shell(kind) if type(getattr(value, "__dict__", None)) is dict else None


def _fits(shell: Shell, value: Any) -> bool:
    """Return whether a value may take the contents of what had a shell."""
    return value is not MISSING and _shell_of(value) == shell


def _contents_of(value: Any) -> Any:
    kind = type(value)
    if kind in (list, deque):
        return list(value)
    if kind is set:
        return set(value)
    if kind is defaultdict:
        return value.default_factory, dict(value)
    if kind in _CONTAINERS:
        return dict(value)
    return None if kind is object else dict(vars(value))


def _made(shell: Shell) -> Any:
    if shell.kind is deque:
        return deque(maxlen=shell.most)
    return shell.kind() if shell.kind in _CONTAINERS else object.__new__(shell.kind)


def _fill(value: Any, contents: Any) -> None:
    """Replace the contents of a container or plain object."""
    kind = type(value)
    if kind is object:
        return
    if kind is defaultdict:
        value.default_factory, contents = contents
    inner = value if kind in _CONTAINERS or kind is deque else vars(value)
    inner.clear()
    if kind in (list, deque):
        inner.extend(contents)
    else:
        inner.update(contents)


_CONTAINERS = frozenset({list, set, dict, OrderedDict, defaultdict, Counter})


def _is_plain(kind: type) -> bool:
    """Return whether instances are nothing but their ``__dict__``."""
    own = any(
        name in vars(base)
        for base in kind.__mro__[:-1]
        for name in ("__reduce_ex__", "__reduce__", "__getstate__", "__setstate__")
    )
    return not own and kind.__basicsize__ == _Plain.__basicsize__


class _Plain:
    """A class whose instances are."""
