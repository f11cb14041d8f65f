"""Values that hold one another or share an object: pickled, compared and loaded as one graph.

A module's sentinel may also be a default of a function and an entry of a registry. Two objects may
refer to each other. If each were pickled alone, each pickle would bring its own copies, and
``x is y`` would fail in a worker. So values that share an object go in one pickle.

In such a pickle a container or plain object is an empty shell. Its contents are filled in
afterwards, for two reasons: the contents may refer back to the object, and a worker that already
has the object keeps it and replaces only the contents.

This module is loaded only when needed: it imports cloudpickle, which takes 15 ms.
"""

from __future__ import annotations

import copyreg
import functools
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from io import BytesIO
from pickle import Unpickler
from typing import Any

from ..identity.atoms import ATOMS
from ..identity.looking import ABSENT
from ..tuples import NamedTuple
from .known import held
from .pickler import Pickler, Way

__all__ = ["Filled", "Met", "Node", "connected", "dump", "fill", "holds_itself", "load"]


class Node(NamedTuple):
    """A value of a graph.

    Attributes:
        value: the value.
        code: digest of the definition if it is a function that is sent by value, else empty.
    """

    value: Any
    code: bytes = b""


class Shell(NamedTuple):
    """A container or plain object without its contents.

    Attributes:
        kind: its class.
        most: maximum number of items; None for any number.
    """

    kind: type
    most: int | None = None


class Filled(NamedTuple):
    """An object whose contents were replaced.

    Attributes:
        value: the object.
        before: its contents before that.
    """

    value: Any
    before: Any


# Objects that the pickler met, by id, except those of types in ``_TOLD_BY_VALUE``. They are kept
# alive, since Python reuses the ids of freed objects.
Met = dict[int, Any]


def dump(nodes: list[Node], *, numbered: bool, compared: bool) -> tuple[bytes, Met]:
    """Pickle values as one graph.

    Args:
        nodes: the values; where possible, a value comes before those that hold it.
        numbered: whether the values may refer to each other, or to themselves.
        compared: whether functions that are sent by value are represented by their digests.

    Returns:
        The pickle, and the objects in the values.

    Raises:
        Exception: whatever pickling them raises.
    """
    out = BytesIO()
    shells = [_shell_of(node.value) for node in nodes]
    kind = _NumberingPickler if numbered else _GraphPickler
    pickler = kind(out, nodes, shells, compared=compared)
    pickler.dump(shells)
    for index, (node, shell) in enumerate(zip(nodes, shells, strict=True)):
        coded = compared and node.code
        value = node.code if coded else node.value
        pickler.dump_node(index, value if shell is None else _contents_of(value))
    own = {id(node.value) for node in nodes}
    met = {
        key: found
        for key, (_, found) in pickler.memo.copy().items()
        if type(found) not in _TOLD_BY_VALUE or key in own
    }
    return out.getvalue(), met


def holds_itself(node: Node, met: Met) -> bool:
    """Return whether a value refers back to itself.

    Args:
        node: the value.
        met: the objects in it, from ``dump`` with ``numbered=False``.
    """
    return _shell_of(node.value) is not None and id(node.value) in met


def connected(nodes: list[Node], met: list[Met]) -> list[list[int]]:
    """Group the values that share objects.

    Args:
        nodes: the values.
        met: the objects in each of them.

    Returns:
        Lists of positions; each position once. A value comes before those that hold it.
    """
    position = {id(node.value): index for index, node in enumerate(nodes)}
    count = Counter(key for objects in met for key in objects.keys() - position.keys())
    several = {key for key, times in count.items() if times > 1}
    leader = list(range(len(nodes)))

    def lead(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    told = {}  # by id: whether an object's identity matters
    for key in several | position.keys():
        found = nodes[position[key]] if key in position else None
        value = next(one[key] for one in met if key in one) if found is None else found.value
        told[key] = bool(found and found.code) or not _is_named(value)
    first: dict[int, int] = {}  # by id of an object: the first value that holds it
    holds: list[list[int]] = []  # the other values that each holds
    for index, (node, objects) in enumerate(zip(nodes, met, strict=True)):
        shared = [key for key in (*objects, id(node.value)) if told.get(key)]
        holds.append([position[key] for key in shared if position.get(key, index) != index])
        for key in shared:
            leader[lead(index)] = lead(first.setdefault(key, index))
    groups: dict[int, list[int]] = {}
    for index in _inner_first(holds):
        groups.setdefault(lead(index), []).append(index)
    return list(groups.values())


def load(blob: bytes, own: list[Any]) -> tuple[list[Any], list[Filled]]:
    """Return the values of a graph: this process's own objects where they can take the contents.

    Args:
        blob: from ``dump`` with ``compared=False``.
        own: the object of this process in place of each value, ``ABSENT`` for none. Only
            ``ABSENT`` may occur twice.

    Returns:
        The values, and the objects whose contents were replaced.
    """
    reader = _Reader(BytesIO(blob))
    shells: list[Shell | None] = reader.load()
    reader.values = [
        mine if shell is None or _fits(shell, mine) else _made(shell)
        for mine, shell in zip(own, shells, strict=True)
    ]
    filled = []
    for index, (mine, shell) in enumerate(zip(own, shells, strict=True)):
        loaded = reader.load()
        if shell is None:
            # An object with its own hash was pickled whole. Its attributes are copied into the
            # object that is here.
            if type(mine) is type(loaded) and mine is not loaded and _is_filled(mine):
                filled.append(Filled(mine, dict(vars(mine))))
                fill(mine, dict(vars(loaded)))
            else:
                reader.values[index] = loaded
            continue
        value = reader.values[index]
        if value is mine:
            filled.append(Filled(mine, _contents_of(mine)))
        fill(value, loaded)
    return reader.values, filled


def fill(value: Any, contents: Any) -> None:
    """Replace the contents of a container or plain object.

    Args:
        value: the object.
        contents: the new contents, in the form of ``Filled.before``.
    """
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


# Pickling -----------------------------------------------------------------------------------


class _GraphPickler(Pickler):
    """Pickles the values of a graph one after the other.

    Args:
        file: where to write.
        nodes: the values.
        shells: the shell of each value, None where it has none.
        compared: as in ``dump``.
    """

    def __init__(
        self, file: Any, nodes: list[Node], shells: list[Shell | None], *, compared: bool
    ) -> None:
        super().__init__(file, Way.CALL, fresh_locks=True)
        self._numbers = {id(node.value): index for index, node in enumerate(nodes)}
        # Functions that are not pickled by name: the name leads a worker to its own function.
        self._coded = {id(node.value) for node in nodes if node.code}
        # Whether each value exists before its own pickle is loaded: as a shell or a digest.
        self._early = [
            shell is not None or bool(compared and node.code)
            for node, shell in zip(nodes, shells, strict=True)
        ]
        self._done = 0
        self._root: Any = None

    def dump_node(self, index: int, value: Any) -> None:
        self._done, self._root = index, value
        self.dump(value)

    def _by_name(self, value: Any, path: str) -> Any:
        return None if id(value) in self._coded else super()._by_name(value, path)


class _NumberingPickler(_GraphPickler):
    """Writes a number for a value that is met inside another, or inside itself.

    Python code runs for every object, so pickling takes five times as long.
    """

    def persistent_id(self, obj: Any) -> int | None:
        """Return the number of a value of the graph, None for objects pickled as usual."""
        if obj is self._root:
            self._root = None
            return None
        number = self._numbers.get(id(obj))
        if number is None or not (self._early[number] or number < self._done):
            return None  # pickle's memo handles it
        return number


class _Reader(Unpickler):
    values: list[Any]

    def persistent_load(self, number: int) -> Any:
        """Return a value of the graph."""
        return self.values[number]


# Which objects' identity matters ------------------------------------------------------------


def _is_named(value: Any) -> bool:
    """Return whether every process finds a value by its name.

    These are classes, functions, modules, members of enumerations, loggers, NumPy dtypes, and
    objects that reduce to a name.
    """
    kind = type(value)
    if isinstance(value, (type, types.ModuleType)):
        return True
    if kind in _NAMED:
        module = sys.modules.get(value.__module__)
        names = getattr(module, "__dict__", {})
        return value.__module__ != "__main__" and held(names, value.__qualname__) is value
    for module_name, name in _FOUND_BY_NAME:
        named = getattr(sys.modules.get(module_name), name, None)
        if isinstance(named, type) and issubclass(kind, named):
            return True
    return _is_reduced(kind) and isinstance(value.__reduce_ex__(4), str)


_NAMED = (types.FunctionType, types.BuiltinFunctionType, type(functools.lru_cache(len)))
_FOUND_BY_NAME = (("enum", "Enum"), ("logging", "Logger"), ("numpy", "dtype"))
# No program compares values of these types by identity.
_TOLD_BY_VALUE = frozenset({*ATOMS, bytes, tuple, frozenset, types.CodeType})


def _inner_first(holds: list[list[int]]) -> list[int]:
    """Return all positions, a value before those that hold it; within a cycle, in any order."""
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
    """Return the shell of a container or plain object, None if the value is pickled whole."""
    kind = type(value)
    if kind is deque:
        return Shell(kind, value.maxlen)
    if kind in _CONTAINERS or kind is object:
        return Shell(kind)
    hashed: Any = kind.__hash__  # None for an unhashable type
    # An object with its own hash may be hashed before its contents are there, and need them.
    if hashed is not None and hashed is not object.__hash__:
        return None
    return Shell(kind) if _is_filled(value) else None


def _fits(shell: Shell, value: Any) -> bool:
    """Return whether a value may take the contents of the object that the shell was made from."""
    return value is not ABSENT and _shell_of(value) == shell


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


_CONTAINERS = frozenset({list, set, dict, OrderedDict, defaultdict, Counter})


def _is_filled(value: Any) -> bool:
    """Return whether a value is nothing but its class and its ``__dict__``."""
    kind = type(value)
    return (
        value is not sys.stdout
        and value is not sys.stderr
        and _is_plain(kind)
        and type(getattr(value, "__dict__", None)) is dict
    )


def _is_reduced(kind: type) -> bool:
    """Return whether a class or one of its bases defines how its instances are pickled."""
    return any(
        name in vars(base) for base in kind.__mro__[:-1] for name in ("__reduce_ex__", "__reduce__")
    )


def _is_plain(kind: type) -> bool:
    """Return whether instances are nothing but their ``__dict__``, and are pickled as such."""
    if kind in copyreg.dispatch_table or kind.__basicsize__ != _Plain.__basicsize__:
        return False
    return not any(name in vars(base) for base in kind.__mro__[:-1] for name in _OF_OTHERS)


# Attributes of a class that make its instances more than their ``__dict__``.
_OF_OTHERS = (
    "__reduce_ex__",
    "__reduce__",
    "__getstate__",
    "__setstate__",
    "__new__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__slots__",
)


class _Plain:
    """A class whose instances are plain; every such class has its ``__basicsize__``."""
