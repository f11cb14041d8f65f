"""The state of the interpreter and of common libraries, which functions depend on.

A forked worker has the caller's state. A fresh worker has the state of a new interpreter. So the
caller's state is read before each call and written in the worker before the function is loaded.
Each kind of state has one carrier (``carriers``). Only state that differs from a new interpreter's
is sent, so that no worker imports a library needlessly. A kept worker resets the state that an
earlier call brought and the present call does not.

Worker threads share most of this state with the caller. State that each thread has separately is
carried to them.
"""

from __future__ import annotations

import codecs
import contextvars
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from ..errors import SerializationError
from ..lookup import load, loaded
from ..tuples import NamedTuple
from .pickles import dumps_by_value, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .carriers import Carrier

__all__ = [
    "State",
    "carry_state",
    "put",
    "put_in_thread",
    "put_last",
    "put_users",
    "take",
    "take_of_thread",
    "take_own",
]


class State(NamedTuple):
    """The caller's state, as it is sent.

    Attributes:
        own: (name of the carrier, pickled value) of each state that amorsize carries; None for
            workers that inherit or share it.
        users: (put, value) of each state that the user carries; pickled for fresh workers.
        kinds: numbers of the user's carriers that had something to carry.
        left_out: names of the state that cannot be sent.
    """

    own: tuple[tuple[str, bytes], ...] | None = None
    users: tuple[bytes | tuple[Callable[[Any], object], Any], ...] = ()
    kinds: frozenset[int] = frozenset()
    left_out: tuple[str, ...] = ()


# The user's carriers -------------------------------------------------------------------------

_users: list[tuple[Callable[[], Any], Callable[[Any], object]]] = []


def carry_state(take: Callable[[], Any], put: Callable[[Any], object]) -> None:
    """Carry some state of the caller to every worker, in all calls from now on.

    amorsize carries the state of the interpreter and of common libraries itself. This function is
    for other state: the configuration of another library, a connection's settings, a thread's own
    values.

    Args:
        take: called in the caller before workers start on a call; returns the state, or None if
            there is nothing to carry.
        put: called with that state in each worker before the call's first item.

    Raises:
        TypeError: ``take`` or ``put`` is not callable.

    >>> import fractions
    >>> carry_state(lambda: None, print)  # nothing to carry, ever
    """
    for name, value in (("take", take), ("put", put)):
        if not callable(value):
            raise TypeError(f"carry_state(take, put): {name} must be callable, not {value!r:.80}")
    if (take, put) not in _users:
        _users.append((take, put))


def take_own() -> State:
    """Return the state that the user carries, for workers that inherit or share all other state."""
    taken = _taken()
    return State(users=tuple(taken.values()), kinds=frozenset(taken))


def _taken() -> dict[int, tuple[Callable[[Any], object], Any]]:
    """Return (put, value) of each state that the user carries now, by the carriers' numbers."""
    values = ((number, put, take()) for number, (take, put) in enumerate(_users))
    return {number: (put, value) for number, put, value in values if value is not None}


# Taking and putting --------------------------------------------------------------------------


def take(texts: frozenset[str], variables: frozenset[contextvars.ContextVar[Any]]) -> State:
    """Return the caller's state for fresh workers, without what cannot be pickled.

    Args:
        texts: strings in the code to be run; some may be names of error handlers.
        variables: context variables that the code reaches; others are not listed as left out.

    Raises:
        SerializationError: state that the user carries cannot be pickled.
        Exception: whatever the user's ``take`` raises.
    """
    load("amorsize.run.carriers")  # forked workers need none of this
    from .carriers import CARRIERS, can_travel

    values = {carrier.name: _different(carrier) for carrier in CARRIERS}
    values["codecs"] = _handlers(texts) or None
    own, left_out = [], []
    for name, value in values.items():
        try:
            if value is not None:
                own.append((name, dumps_by_value(value)))
        except SerializationError:
            left_out.append(f"the setting {name!r}")
    for variable, value in contextvars.copy_context().items():
        if variable in variables and not can_travel((variable, value)):
            left_out.append(f"the context variable {variable.name!r} ({type(value).__name__})")
    taken = _taken()
    users = tuple(map(dumps_by_value, taken.values()))
    return State(tuple(own), users, frozenset(taken), tuple(left_out))


def _handlers(texts: frozenset[str]) -> dict[str, Any]:
    """Return the error handlers of codecs whose names are among ``texts``.

    Python has no list of the registered handlers, only a lookup by name.
    """
    found = {}
    for text in texts - _USUAL_HANDLERS:
        with suppress(LookupError, ValueError):  # no such handler, or not a valid name
            found[text] = codecs.lookup_error(text)
    return found


_USUAL_HANDLERS = frozenset(
    {"strict", "ignore", "replace", "xmlcharrefreplace", "backslashreplace", "namereplace",
     "surrogateescape", "surrogatepass"}
)  # fmt: skip


def _different(carrier: Carrier) -> Any:
    """Return the state of a carrier, None if it equals a fresh interpreter's."""
    if loaded(carrier.library) is None:
        return None
    value = carrier.read()
    return None if carrier.fresh is not None and value == carrier.fresh() else value


def put(state: State) -> None:
    """Set the caller's state in this process, and reset what only an earlier call brought.

    Raises:
        Exception: whatever a library raises.
    """
    if state.own is None:
        return
    from .carriers import CARRIERS  # only fresh workers need it

    wanted = dict(state.own)
    for carrier in CARRIERS:
        blob = wanted.get(carrier.name)
        if blob is not None:
            import_module(carrier.library)
            carrier.write(loads(blob))
        elif _different(carrier) is not None and carrier.fresh is not None:
            carrier.write(carrier.fresh())
    for name, handler in loads(wanted["codecs"]).items() if "codecs" in wanted else ():
        codecs.register_error(name, handler)


def put_last(state: State) -> None:
    """Set the state again once the function is loaded, and then the state that the user carries.

    Modules may change such state when they are imported. They did so in the caller too, but the
    caller may have changed it back since.

    Raises:
        Exception: whatever a library or the user's ``put`` raises.
    """
    put(state)
    put_users(state)


def put_users(state: State) -> None:
    """Set the state that the user carries.

    Raises:
        Exception: whatever the user's ``put`` raises.
    """
    for entry in state.users:
        write, value = loads(entry) if isinstance(entry, bytes) else entry
        write(value)


def put_in_thread(state: list[tuple[Carrier, Any]], users: State) -> None:
    """Set in this thread the per-thread state of the caller's thread.

    Args:
        state: what ``take_of_thread`` returned in the caller's thread.
        users: the state that the user carries.
    """
    for carrier, value in state:
        carrier.write(value)
    put_users(users)


def take_of_thread() -> list[tuple[Carrier, Any]]:
    """Return the per-thread state of the present thread, without its context variables."""
    load("amorsize.run.carriers")  # calls with forked workers do not need it
    from .carriers import CARRIERS

    return [
        (carrier, carrier.read())
        for carrier in CARRIERS
        if carrier.per_thread and loaded(carrier.library) is not None
    ]
