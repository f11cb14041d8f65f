"""The four forms of ``map``: check the arguments, create a session and run it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from operator import index

from .lookup import load, loaded
from .options import DEFAULTS, Options, documented, make_options

__all__ = [
    "checked",
    "make_session",
    "plain_function",
    "refuse_unfit",
    "session_of",
    "smart_imap",
    "smart_imap_unordered",
    "smart_map",
    "smart_starmap",
]

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes 5 ms, and annotations are not evaluated
    from typing import Any, TypeVar

    from .call.resumed import ResumedSession
    from .call.session import Session
    from .run.feed import Feed

    R = TypeVar("R")


@documented(lazy=False)
def smart_map(func: Callable[..., R], *iterables: Iterable[Any], **options: Any) -> list[R]:
    """Return ``list(map(func, *iterables))``, in parallel where that is faster.

    The first items run in the calling process and are timed. Their results count: ``func`` is
    called exactly once for each item, whatever is decided. The measurements are recorded, so that
    the next call decides at once.

    Args:
        func: the function to call. Closures, lambdas, functions of ``__main__``, partials, bound
            methods and callable instances all work.
        *iterables: one for each argument of ``func``; the shortest ends the call.
        **options: as listed below. ``n_jobs=1`` runs everything in the calling process,
            ``n_jobs=4`` runs everything in four workers.

    Returns:
        The results in the order of the items.

    Raises:
        TypeError, ValueError: bad arguments, before any item runs.
        Exception: the exception that ``func`` raised for the earliest failing item, with a note
            that names the item.
        WorkerLostError: workers died with the same item more than ``retries`` times.
        TaskTimeoutError: ``timeout`` or ``task_timeout`` was exceeded.

    >>> smart_map(abs, [-1, 2, -3])
    [1, 2, 3]
    >>> smart_map(pow, [2, 3], [5, 2])
    [32, 9]
    """
    return session_of("smart_map", func, iterables, options, star=False).map()


@documented(lazy=False)
def smart_starmap(
    func: Callable[..., R], iterable: Iterable[Any], *misplaced: Any, **options: Any
) -> list[R]:
    """Return ``list(itertools.starmap(func, iterable))``, in parallel where that is faster.

    Args:
        func: the function to call.
        iterable: tuples of arguments.
        *misplaced: must be empty; a chunk size goes into ``chunksize``.
        **options: as listed below.

    Returns:
        The results in the order of the items.

    Raises:
        Exception: as ``smart_map``.

    >>> smart_starmap(pow, [(2, 5), (3, 2)])
    [32, 9]
    """
    return session_of("smart_starmap", func, (iterable, *misplaced), options, star=True).map()


@documented(lazy=True)
def smart_imap(func: Callable[..., R], *iterables: Iterable[Any], **options: Any) -> Iterator[R]:
    """Return an iterator like ``map(func, *iterables)``, in parallel where that is faster.

    Nothing runs until the first result is requested. Input is read ahead, and results are buffered,
    only as far as the workers need (at most ``buffersize`` items, if given). So the input may be
    infinite, and the results need not fit into memory. Closing the iterator ends the workers.

    Args:
        func: the function to call.
        *iterables: one for each argument of ``func``; the shortest ends the call.
        **options: as listed below.

    Returns:
        An iterator of the results in the order of the items.

    Raises:
        TypeError, ValueError: bad arguments, at once.
        Exception: as ``smart_map``, when the result is requested.

    >>> from itertools import count, islice
    >>> list(islice(smart_imap(abs, count(-3)), 4))
    [3, 2, 1, 0]
    """
    return session_of("smart_imap", func, iterables, options, star=False, lazy=True).stream(
        ordered=True
    )


@documented(lazy=True)
def smart_imap_unordered(
    func: Callable[..., R], *iterables: Iterable[Any], **options: Any
) -> Iterator[R]:
    """Return an iterator of the results in any order, as they are finished.

    Args:
        func: the function to call.
        *iterables: one for each argument of ``func``; the shortest ends the call.
        **options: as listed below.

    Returns:
        An iterator of the results.

    Raises:
        Exception: as ``smart_imap``.

    >>> sorted(smart_imap_unordered(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    return session_of(
        "smart_imap_unordered", func, iterables, options, star=False, lazy=True
    ).stream(ordered=False)


def session_of(
    name: str,
    func: Callable[..., Any],
    iterables: tuple[Any, ...],
    given: dict[str, Any],
    *,
    star: bool,
    lazy: bool = False,
    base: Options = DEFAULTS,
) -> Session | ResumedSession:
    """Check the arguments of one of the forms and create its session."""
    options = checked(name, func, iterables, given, star=star, lazy=lazy, base=base)
    return make_session(func, iterables, options, star=star)


def checked(
    name: str,
    func: Callable[..., Any],
    iterables: tuple[Any, ...],
    given: dict[str, Any],
    *,
    star: bool = False,
    lazy: bool = False,
    base: Options = DEFAULTS,
    awaited: bool = False,
) -> Options:
    """Check the arguments of one of the forms, and return its options.

    Args:
        name: name of the form, for messages.
        func: the function to call.
        iterables: the inputs.
        given: options of the call.
        star: whether each item is a tuple of arguments.
        lazy: whether results are consumed one by one.
        base: values of the options that ``given`` does not name.
        awaited: whether an input may be an asynchronous iterable.

    Raises:
        TypeError, ValueError: a bad argument.
    """
    if not callable(func):
        raise TypeError(f"{name}(func, data): func must be callable, but {func!r:.80} was given")
    if not iterables:
        raise TypeError(f"{name}(func, data): there is no data to map over")
    options = make_options(given, base=base, lazy=lazy)
    for place, data in enumerate(iterables):
        # NumPy numbers have a __getitem__, although they have no items.
        is_number = hasattr(data, "__index__") and not hasattr(data, "__len__")
        is_iterable = hasattr(data, "__iter__") or hasattr(data, "__getitem__")
        is_iterable = is_iterable or (awaited and hasattr(data, "__aiter__"))
        if is_number or not is_iterable or (star and place):
            raise TypeError(_not_iterable(name, place, data, star=star))
    return options


def make_session(
    func: Callable[..., Any], iterables: tuple[Any, ...], options: Options, *, star: bool = False
) -> Session | ResumedSession:
    """Create the session of a call whose arguments were checked.

    Raises:
        ValueError: ``resume`` is the file of another call.
        OSError: ``resume`` cannot be opened.
    """
    if options.resume is None:
        return _plain_session(func, iterables, options, star=star)
    load("amorsize.call.resumed")
    from .call.resumed import ResumedSession

    plain = plain_function(func)
    return ResumedSession(func, plain, iterables, options, star=star, make=_plain_session)


def _plain_session(
    func: Callable[..., Any], iterables: tuple[Any, ...], options: Options, *, star: bool
) -> Session:
    """Create the session of a call that computes all of its results."""
    session, feed, surrounded = _parts()
    if options.seed is None and options.backend != "thread":
        seeding = loaded("amorsize.run.seeding")
        if seeding is not None and (seed := seeding.inner_seed()) is not None:
            options = options._replace(seed=seed)
    plain = called = plain_function(func)
    if options.return_exceptions or options.seed is not None:
        called = surrounded(plain, return_exceptions=options.return_exceptions, seed=options.seed)
    items = feed(called, iterables, star=star)
    items.numbered = getattr(type(plain), "_amorsize_numbered", False)
    return session(plain, func, items, options)


@functools.cache
def _parts() -> tuple[type[Session], type[Feed], Callable[..., Callable[..., Any]]]:
    """Return what a call needs, loaded by the first one before any item runs.

    The import of this module would take three times as long with it.
    """
    load("amorsize.call.session")
    from .call.session import Session
    from .run.feed import Feed
    from .run.guard import surrounded

    return Session, Feed, surrounded


def plain_function(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside a ParallelFunction, or any other function itself.

    ``ParallelFunction`` belongs to a higher layer, so it is recognised by an attribute.
    """
    if getattr(type(func), "_amorsize_parallel", False):
        inner: Callable[..., Any] = func.__wrapped__  # type: ignore[attr-defined]
        return inner
    return func


def refuse_unfit(name: str, func: Any) -> None:
    """Refuse functions whose calls return before their work is done.

    Args:
        name: what was called, for the message.
        func: the function.

    Raises:
        TypeError: it is asynchronous, or a generator function.
    """
    inner = getattr(func, "__func__", func)
    while hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    flags = getattr(getattr(inner, "__code__", None), "co_flags", 0)
    if flags & (_COROUTINE | _ASYNC_GENERATOR):
        raise TypeError(
            f"{name}: {func!r:.80} is asynchronous: await asyncio.gather(...) runs its calls "
            "at the same time; smart_map_async awaits a plain function"
        )
    if flags & _GENERATOR:
        raise TypeError(
            f"{name}: {func!r:.80} is a generator function, and generators stay in their "
            "process: return a list instead"
        )


# Flags of code objects (``inspect.CO_GENERATOR`` and so on; ``inspect`` takes 10 ms to load).
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200


def _not_iterable(name: str, place: int, data: Any, *, star: bool) -> str:
    if place and hasattr(data, "__index__") and not hasattr(data, "__len__"):
        number = index(data)
        further = (
            "no further argument is taken"
            if star
            else ("a further positional argument is another iterable, as in map()")
        )
        return (
            f"{name}(func, data, {number}): {further}; if {number} is a chunk size, say "
            f"chunksize={number}"
        )
    if place and star:
        return (
            f"{name}(func, data): it takes one iterable, of tuples, but {data!r:.80} was given too"
        )
    if hasattr(data, "__aiter__"):
        return (
            f"{name}(func, data): {data!r:.80} is an asynchronous iterable, which smart_map_async "
            "and smart_imap_async take"
        )
    return f"{name}(func, data): the data must be iterable, but {data!r:.80} was given"
