"""Starting a crew: threads, kept workers, or fresh processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import SerializationError
from ..lookup import load, loaded
from ..signals import held_signals
from ..tuples import NamedTuple
from .crew import starting
from .pickles import dumps_by_value
from .setup import Setup
from .surroundings import take_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from ..identity.uses import Uses
    from .crew import Crew, Starts, Task
    from .current import Current
    from .known import Places
    from .surroundings import State

__all__ = ["Recipe", "packed_call", "recipe_for", "start_crew"]

MOST_NAMES = 5  # most names in a message about state that cannot be sent


def start_crew(
    method: str,
    workers: int,
    setup: Setup,
    *,
    context: str | BaseContext | None,
    inherits: bool,
    sample: object,
    first: Callable[[bool], Iterator[Task]] | None,
    lenient: Callable[[str], None] | None = None,
) -> Crew:
    """Start workers, or reuse kept workers.

    Args:
        method: start method, or "thread".
        workers: how many.
        setup: what they run, and what they begin with.
        context: the user's choice: a start method's name or a context; None for none. Only a
            context takes the place of ``method``.
        inherits: whether workers have the input without receiving it.
        sample: an item; what it refers to counts as used, too.
        first: returns the first tasks, which are queued before forked workers start; None for none.
        lenient: called with a warning about state that cannot be sent; workers then use the state
            that their own imports give. None raises SerializationError instead.

    Raises:
        CannotStart: the system refuses.
        SerializationError: something that workers run or use cannot be sent.
    """
    if method == "thread":
        with starting():
            from .threads import ThreadCrew
        return ThreadCrew(workers, setup)
    own = None if context is None or isinstance(context, str) else context
    if method != "fork":
        return _start_fresh(_context(method, own), workers, setup, inherits, sample, lenient)
    with starting():
        from .processes import ProcessCrew

        starts = _forks(own)
    setup.state = take_own()
    tasks = first(inherits) if first is not None else None
    return ProcessCrew(starts, workers, setup, inherits=inherits, first=tasks)


class Recipe(NamedTuple):
    """How to start workers of one kind, one at a time and at any time.

    Attributes:
        starts: the way to start them.
        setup: what each is started with.
        places: what the pickle of the setup names instead of copying it (``known.named``).
        condition: what workers begin with, if they may serve later calls that begin with the same;
            empty if not.
    """

    starts: Starts
    setup: Setup
    places: Places
    condition: bytes = b""


def recipe_for(
    method: str, setup: Setup, context: BaseContext | None, *, sample: object = None
) -> Recipe:
    """Return how to start workers that run what they are sent later.

    Args:
        method: start method.
        setup: what they begin with; it has no call yet.
        context: the user's own multiprocessing context, None for none.
        sample: something that is sent later; what it refers to counts as used, too.

    Raises:
        CannotStart: the system refuses.
        SerializationError: the initializer or what it uses cannot be sent.
    """
    if method == "fork":
        with starting():
            starts = _forks(context)
        setup.state = take_own()
        return Recipe(starts, setup, {})
    used, current, state = _taken(setup, sample, None)
    recipe = _fresh_recipe(_context(method, context), setup, used, current, state)
    # Code of the user's may change between calls, and with it what its workers must be told.
    if sample is None or used.codes or not (used.whole and setup.is_plain):
        return recipe
    return recipe._replace(condition=dumps_by_value((current, state)))


def packed_call(
    setup: Setup, sample: object, lenient: Callable[[str], None] | None
) -> tuple[bytes, bytes, bytes]:
    """Return what a process that has nothing of the caller's needs to run a call.

    Args:
        setup: what workers run.
        sample: an item; what it refers to counts as used, too.
        lenient: see ``start_crew``.

    Returns:
        Pickles of the caller's state, of the present values of what the call uses, and of the call
        with its initializer and the initializer's arguments.

    Raises:
        SerializationError: some of it cannot be sent.
    """
    used, current, state = _taken(setup, sample, lenient)
    from .known import named

    with named(used.places()):
        return dumps_by_value(state), dumps_by_value(current), dumps_by_value(setup.content)


def _fresh_recipe(
    context: BaseContext, setup: Setup, used: Uses, current: Current, state: State
) -> Recipe:
    """Return how to start workers that inherit nothing, with what ``_taken`` has returned."""
    from .kept import current_environ
    from .launch import Starts as MultiprocessingStarts

    starts = MultiprocessingStarts(context, used.libraries, setup.threads)
    ready = setup.of_caller(current, current_environ(context), state)
    return Recipe(starts, ready, used.places())


def _context(method: str, own: BaseContext | None) -> BaseContext:
    """Return the user's own context, or multiprocessing's for a start method."""
    with starting():
        import multiprocessing  # takes 15 ms

    return own or multiprocessing.get_context(method)


def _forks(context: BaseContext | None) -> Starts:
    """Return the way to fork workers: by multiprocessing where other code has hooks in it.

    Args:
        context: the user's own multiprocessing context, None for none.
    """
    if context is None and not _is_hooked():
        from .forks import ForkStarts

        return ForkStarts()
    import multiprocessing

    from .launch import Starts as MultiprocessingStarts

    return MultiprocessingStarts(context or multiprocessing.get_context("fork"))


def _is_hooked() -> bool:
    """Return whether other code has replaced how multiprocessing forks, as coverage.py does."""
    context = loaded("multiprocessing.context")
    if context is None:
        return False
    kind = context.ForkContext.Process
    parts = (kind, kind.start, kind.run, kind._bootstrap, kind._Popen)
    return any(part.__module__.partition(".")[0] != "multiprocessing" for part in parts)


def _start_fresh(
    context: BaseContext,
    workers: int,
    setup: Setup,
    inherits: bool,
    sample: object,
    lenient: Callable[[str], None] | None,
) -> Crew:
    """Start workers that inherit nothing, or reuse kept workers; see ``start_crew``."""
    used, current, state = _taken(setup, sample, lenient)
    from . import kept
    from .known import named
    from .processes import ProcessCrew

    with named(used.places()):
        if setup.is_plain:
            crew = kept.lease(context, workers, setup.call, used, current, setup.threads, state)
            if crew is not None:
                return crew
        recipe = _fresh_recipe(context, setup, used, current, state)
        return ProcessCrew(recipe.starts, workers, recipe.setup, inherits=inherits)


def _taken(
    setup: Setup, sample: object, lenient: Callable[[str], None] | None
) -> tuple[Uses, Current, State]:
    """Return what the code of a setup uses, and the caller's present values and state of that.

    Args:
        setup: what workers run.
        sample: an item; what it refers to counts as used, too.
        lenient: see ``start_crew``.

    Raises:
        SerializationError: some of it cannot be sent.
    """
    load("amorsize.run.kept")  # forked workers need none of this
    from ..identity.uses import uses
    from .current import current_values
    from .surroundings import take

    with held_signals():  # a handler's exception must not be taken for an object's refusal
        used = uses((*setup.code, sample))
        # Unless the items must run in workers, workers that import other code must refuse to run.
        current = current_values(used, strict=lenient is None)
        state = take(used.texts, used.variables)
    _check(current.left_out + state.left_out, lenient)
    return used, current, state


def _check(left_out: tuple[str, ...], lenient: Callable[[str], None] | None) -> None:
    """Warn that workers lack some of the caller's state, or raise an error instead."""
    if not left_out:
        return
    names = ", ".join(left_out[:MOST_NAMES]) + (", ..." if len(left_out) > MOST_NAMES else "")
    if lenient is None:
        raise SerializationError(f"it uses {names}, whose state cannot be sent")
    lenient(
        f"workers use {names} as their own imports make it, not as it is in the caller: its "
        f"state cannot be sent; set it up in an initializer, or use mp_context='fork'"
    )
