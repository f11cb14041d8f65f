"""A chunk visits a process that is not its own: it finds the state of its caller, and leaves none.

The process has its own state again when no chunk of the call runs in it any more. Where chunks of
two calls run in threads of one process at the same time, only one of them can have its state there.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from types import ModuleType

from ..run.adopting import Undo, adopted
from ..run.carriers import CARRIERS, Carrier
from ..run.current import Current, Graph
from ..run.known import Scope, within
from ..run.pickles import loads
from ..run.surroundings import State, put_users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Baggage", "visiting"]

# The engine's loggers are its own (``records``), and context variables are in the chunk's context.
_LEFT_ALONE = ("logging", "context")


class Baggage:
    """What a call brings to the processes of an engine.

    Args:
        name: the call's name.
        state: the caller's state.
        current: the caller's present values of what the call uses. A value of None, or none at
            all, does not replace what the process has: its own initializer may have made it.
        scope: the call's own main module and classes: other programs use the process, too.
    """

    def __init__(self, name: str, state: State, current: Current, scope: Scope) -> None:
        own = dict(state.own or ())
        self.name = name
        self.state = state
        self.scope = scope
        self.carried = [
            (carrier, loads(own[carrier.name]))
            for carrier in CARRIERS
            if carrier.name in own and carrier.name not in _LEFT_ALONE
        ]
        self.current = current._replace(
            graphs=tuple(filter(None, map(_of_modules, current.graphs))),
            atoms=tuple(
                (owner, attribute, value)
                for owner, attribute, value in current.atoms
                if value is not None and owner != "__main__"
            ),
            absent=(),
            caches=frozenset(),
        )


def _of_modules(graph: Graph) -> Graph | None:
    """Return a graph without its places in the main module; None if there is no other."""
    values = tuple(
        value._replace(places=tuple(place for place in value.places if place[0] != "__main__"))
        for value in graph.values
    )
    return graph._replace(values=values) if any(value.places for value in values) else None


class _Guest:
    """The call whose state the process has."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.name = ""
        self.chunks = 0
        self.undo: list[Callable[[], object]] = []


_guest = _Guest()


@contextmanager
def visiting(baggage: Baggage) -> Iterator[None]:
    """Have the state of a call in this thread and, if no other call has its own there, process."""
    mine: list[Callable[[], object]] = []
    is_guest = False
    try:
        with _guest.lock:
            if not _guest.chunks:
                _guest.name = baggage.name
                _bring(baggage, _guest.undo)
            is_guest = _guest.name == baggage.name
            _guest.chunks += is_guest
        _write([pair for pair in baggage.carried if pair[0].per_thread], mine)
        with within(baggage.scope):
            put_users(baggage.state)
            yield
    finally:
        _undo(mine)
        if is_guest:
            with _guest.lock:
                _guest.chunks -= 1
                if not _guest.chunks:
                    _undo(_guest.undo)


def _bring(baggage: Baggage, undo: list[Callable[[], object]]) -> None:
    """Put what a process has once in place of its own."""
    _write([pair for pair in baggage.carried if not pair[0].per_thread], undo)
    values: Undo = []
    undo.append(partial(_undo, values))
    with adopted(baggage.current, values):
        pass
    # Code that looks for a class by its module and name finds it, where that name is free.
    names = vars(sys.modules.get("__main__") or ModuleType("__main__"))
    for name in baggage.scope.names.keys() - names.keys():
        names[name] = baggage.scope.names[name]
        undo.append(partial(names.pop, name, None))


def _write(carried: list[tuple[Carrier, Any]], undo: list[Callable[[], object]]) -> None:
    for carrier, value in carried:
        with suppress(ImportError):  # a library that only the caller has
            import_module(carrier.library)
            before = carrier.read()
            if before is not None:
                undo.append(partial(carrier.write, before))
                carrier.write(value)


def _undo(undo: list[Callable[[], object]] | Undo) -> None:
    while undo:
        undo.pop()()
