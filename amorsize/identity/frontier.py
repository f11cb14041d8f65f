"""The objects that a search has met and has yet to go through: code first, up to a limit.

A container that has more items than the limit leaves room for is sampled.
"""

from __future__ import annotations

import types
from collections import deque

from .atoms import ATOMS, atom_of
from .settings import CALLABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MOST_NAME", "Frontier"]

# Objects, atoms not counted: 20,000 take 15 ms (two cores, November 2026), less than one worker.
MOST_OBJECTS = 20_000
# Items at each end, and in strides, of a container with more items than the limit leaves room for.
MOST_SAMPLED = 64
# Characters; a longer text is not a name.
MOST_NAME = 100

_CODE = frozenset(map(id, CALLABLE | {types.ModuleType}))


class Frontier:
    """The objects that a search has met, nearest first.

    Attributes:
        left: how many more objects may be taken.
        whole: False if there were more objects than ``MOST_OBJECTS``.
        texts: short texts that were met; names may be among them.
    """

    def __init__(self) -> None:
        self.left = MOST_OBJECTS
        self.whole = True
        self.texts: set[str] = set()
        self._code: deque[Any] = deque()  # comes first: there may be too much data for the limit
        self._data: deque[Any] = deque()
        self._seen: dict[int, object] = {}  # kept alive, so that no id is reused

    def is_empty(self) -> bool:
        """Return whether everything that was met has been taken."""
        return not (self._code or self._data)

    def take(self) -> Any:
        """Return the next object to go through, which counts towards the limit."""
        self.left -= 1
        return (self._code or self._data).popleft()

    def meet(self, value: Any) -> None:
        """Add an object that the search reaches, unless it is an atom or was met before."""
        kind = type(value)
        if kind is str and len(value) <= MOST_NAME:
            self.texts.add(value)
        if atom_of(kind) is not None or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        # By id: a class may refuse to be hashed.
        is_code = id(kind) in _CODE or issubclass(kind, type)
        (self._code if is_code else self._data).append(value)

    def meet_all(self, value: Any) -> None:
        """Add the items of a container, a sample where there are too many."""
        if set(map(type, value)) <= ATOMS.keys():
            return
        if len(value) > self.left - len(self._data):
            self.whole = False
            items = list(value)
            value = (
                *items[:MOST_SAMPLED],
                *items[:: -(-len(items) // MOST_SAMPLED)],
                *items[-MOST_SAMPLED:],
            )
        for item in value:
            self.meet(item)
