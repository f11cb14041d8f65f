"""One walk through everything a function uses: its encoding, and where each part was found.

The walk goes breadth first. So a budget that runs out leaves out the farthest objects, which matter
least. Each object is encoded once, on its own: its own bytes, and the numbers of the objects it
refers to. Numbers are given in the order in which objects are met. ``encoders`` and ``kinds``
define how each kind of object is encoded.

**Sets.** The order of a set's members follows the hash seed or addresses, and numbers would follow
that order. So once a set of objects is met, colours identify objects instead of numbers. An
object's first colour is a hash of its own bytes. Then, in a few rounds, each object gets a new
colour from three inputs: its own colour, the colours of the objects it refers to in their order,
and the sorted colours of the members of its sets (the refinement of Weisfeiler and Leman, 1968).
The encoding is the sorted colours of all objects. So one queue, one budget and one table of objects
met serve everything, cycles through sets included, and no order leaves a trace.

**Budget.** The budget is counted in steps of about 0.4 us, never in time: the same function must be
cut at the same place in every process. A budget that ends among the members of sets would show
their order. So the objects of an unfinished level count only by their types.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from struct import pack

from .atoms import SAMPLE_BYTES, atom_of, framed
from .codes import describe, hash_of
from .encoders import named_attributes
from .kinds import encoder_of
from .looking import ABSENT, content_of, module_of, namespace_of, qualname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ABSENT", "Walk", "content_of"]

# Objects to look at; the longest walk takes 6 ms (November 2026, two-core machine).
MOST_NODES = 2_000
# Steps: one for an atom, and one for each 128 bytes of its encoding; these figures for a plain
# object and for another reference to it. Encoders charge more for a function or a slot of a class.
STEPS_OF_NODE = 6
STEPS_OF_REFERENCE = 2
BYTES_A_STEP = 7  # exponent of two
MOST_ROUNDS = 4  # of new colours; structures that need more rounds count as equal

Encoder = Callable[["Walk", "Any"], None]


class Walk:
    """One walk through everything a function uses.

    Args:
        most_nodes: how many plain objects to look at; functions and classes count several times.

    Attributes:
        parts: the encoding of the current object so far.
        slots, cells, functions, sizes, bases: guards, see ``fingerprint``'s memo.
        modules: the user's modules that were met as values.
        mutable: whether something was met that can change without a guard noticing.
        stable: False once something was met whose content cannot be read.
        cut: whether the budget ended before everything was encoded.
    """

    def __init__(self, most_nodes: int = MOST_NODES) -> None:
        self.parts: list[bytes] = []
        self.slots: list[tuple[Any, str, object]] = []
        self.cells: list[tuple[types.CellType, object]] = []
        self.functions: list[tuple[types.FunctionType, Any, object, object, object]] = []
        self.sizes: list[tuple[Any, int]] = []
        self.bases: list[tuple[type, tuple[type, ...]]] = []
        self.modules: list[types.ModuleType] = []
        self.mutable = False
        self.stable = True
        self.cut = False
        self._left = self._budget = most_nodes * STEPS_OF_NODE
        self._places: dict[object, int] = {}
        # Objects met, by their numbers; kept alive, so that their ids are not reused.
        self._met: list[tuple[Any, Encoder | None]] = []
        self._nodes: list[_Node] = []
        self._node = _Node()
        self._level = (0, 0)  # numbers (begin, end) of objects as far away as the current one
        self._knows_members = False

    # For callers ----------------------------------------------------------------------------

    def value(self, value: Any) -> None:
        """Encode a value and everything it uses."""
        self._place(id(value), value)
        while (len(self._nodes) < len(self._met) or self._ask_modules()) and not self.cut:
            _, end = self._level
            if len(self._nodes) == end:
                end = len(self._met)
                self._level = (len(self._nodes), end)
            self._encode(*self._met[len(self._nodes)])
            # Whether a level fits into the budget must not depend on which object came last.
            if len(self._nodes) == end and self._left < 0:
                self._cut()

    @property
    def steps(self) -> int:
        """Steps that the walk has cost."""
        return self._budget - self._left

    def encoding(self) -> bytes:
        """Return the encoding of everything met: the same bytes in every process."""
        return self._colours() if self._knows_members else self._plain()

    # For encoders ---------------------------------------------------------------------------

    def refer(self, value: Any) -> None:
        """Encode a reference to any value, and queue the value for encoding."""
        if self._left < 0:
            self._cut()
            return
        kind = type(value)
        atom = atom_of(kind)
        if atom is None:
            self._child(id(value), value, None)
            return
        part = atom(value)
        self.parts.append(part)
        self._left -= 1 + (len(part) >> BYTES_A_STEP)
        # Guards keep their values alive, so a huge string is kept out of the memo.
        if (kind is str or kind is bytes) and len(value) > 64 * SAMPLE_BYTES:
            self.mutable = True

    def refer_as(self, key: object, value: Any, encode: Encoder) -> None:
        """Refer to a part or an aspect of a value that is not an object itself.

        Args:
            key: identifies it.
            value: what to encode.
            encode: the encoder for it.
        """
        if self._left < 0:
            self._cut()
            return
        self._child(key, value, encode)

    def members(self, values: list[Any]) -> None:
        """Refer to values whose order must leave no trace."""
        self._knows_members = True
        for value in values:
            if self._left < 0:
                self._cut()
                return
            self._node.members.append(self._place(id(value), value))

    def tag(self, tag: bytes, text: str = "") -> None:
        """Encode a tag with a name."""
        self.parts.append(framed(tag, text.encode("utf-8", "surrogatepass")))

    def spend(self, steps: int) -> bool:
        """Charge steps beyond those for references; return whether to go on."""
        self._left -= steps
        if self._left < 0:
            self._cut()
        return not self.cut

    # The mechanism --------------------------------------------------------------------------

    def _child(self, key: object, value: Any, encode: Encoder | None) -> None:
        self.parts.append(b"@")
        self._node.children.append(self._place(key, value, encode))

    def _cut(self) -> None:
        self.cut = self.mutable = True

    def _place(self, key: object, value: Any, encode: Encoder | None = None) -> int:
        """Return the number of an object; a new object is encoded later."""
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self._met)
            self._met.append((value, encode))
            self._left -= STEPS_OF_NODE
        else:
            self._left -= STEPS_OF_REFERENCE
        return place

    def _ask_modules(self) -> bool:
        """Queue the attributes of met modules that met code may name; return whether any is new."""
        if not self.modules:
            return False
        before, names = len(self._met), set[str]()
        for _, code, *_ in self.functions:
            described = describe(code)
            names.update(described.names, described.asked)
        for module in self.modules:
            values = namespace_of(module)
            self.sizes.append((values, len(values)))
            asked = tuple(sorted(names & values.keys()))
            self._place((id(module), asked), (module, asked), named_attributes)
        return len(self._met) > before

    def _encode(self, value: Any, encode: Encoder | None) -> None:
        self.parts = []
        self._node = _Node()
        try:
            (encode or encoder_of(type(value)))(self, value)
        except Exception:  # noqa: BLE001 - what libraries' objects are asked for may raise anything
            self.parts.append(b"!")
            self.stable, self.mutable = False, True
        self._node.own = b"".join(self.parts)
        self._nodes.append(self._node)

    def _plain(self) -> bytes:
        sizes: list[int] = []
        children: list[int] = []
        for node in self._nodes:
            sizes += len(node.own), len(node.children)
            children += node.children
        numbers = pack(f"<{len(sizes) + len(children)}q", *sizes, *children)
        return numbers + b"".join([node.own for node in self._nodes])

    def _colours(self) -> bytes:
        known, owns = self._nodes, []
        if self.cut:
            begin, end = self._level
            known = known[:begin]
            owns = [_name_of(type(value)) for value, _ in self._met[begin:end]]
        owns = [node.own for node in known] + owns
        colours = [int.from_bytes(hash_of(own)[:7], "little") for own in owns]
        for _ in range(MOST_ROUNDS):
            before = len(set(colours))
            fresh = [_mixed(colours, place, node) for place, node in enumerate(known)]
            colours[: len(known)] = fresh
            if len(set(colours)) == before:
                break
        return b"*" + pack(f"<{len(colours) + 1}q", colours[0], *sorted(colours))


class _Node:
    """An encoded object: its own bytes, the objects it refers to, the members of its sets."""

    __slots__ = ("children", "members", "own")

    def __init__(self) -> None:
        self.own = b""
        self.children: list[int] = []
        self.members: list[int] = []


def _mixed(colours: list[int], place: int, node: _Node) -> int:
    """Return an object's next colour; the hash seed does not affect a tuple of integers."""
    children = tuple([colours[child] for child in node.children])
    members = tuple(sorted([colours[member] for member in node.members]))
    return hash((colours[place], children, members))


def _name_of(kind: type) -> bytes:
    return framed(b"T", f"{module_of(kind)}.{qualname(kind)}".encode("utf-8", "surrogatepass"))
