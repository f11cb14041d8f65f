"""The lazy forms of ``map``, for type checkers.

Each form has an overload for one to five iterables, which ties their elements to the arguments of
the function, and one for more. ``return_exceptions=True`` changes the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Unpack, overload

from .eager import A, B, C, D, E, R
from .options import LazyOptions

__all__ = ["smart_imap", "smart_imap_unordered"]


@overload
def smart_imap(
    func: Callable[[A], R],
    iterable1: Iterable[A],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> Iterator[R]: ...
@overload
def smart_imap(
    func: Callable[[A, B], R],
    iterable1: Iterable[A],
    iterable2: Iterable[B],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> Iterator[R]: ...
@overload
def smart_imap(
    func: Callable[[A, B, C], R],
    iterable1: Iterable[A],
    iterable2: Iterable[B],
    iterable3: Iterable[C],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> Iterator[R]: ...
@overload
def smart_imap(
    func: Callable[[A, B, C, D], R],
    iterable1: Iterable[A],
    iterable2: Iterable[B],
    iterable3: Iterable[C],
    iterable4: Iterable[D],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> Iterator[R]: ...
@overload
def smart_imap(
    func: Callable[[A, B, C, D, E], R],
    iterable1: Iterable[A],
    iterable2: Iterable[B],
    iterable3: Iterable[C],
    iterable4: Iterable[D],
    iterable5: Iterable[E],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> Iterator[R]: ...
@overload
def smart_imap(
    func: Callable[..., R],
    iterable1: Iterable[Any],
    iterable2: Iterable[Any],
    iterable3: Iterable[Any],
    iterable4: Iterable[Any],
    iterable5: Iterable[Any],
    iterable6: Iterable[Any],
    /,
    *iterables: Iterable[Any],
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> Iterator[R]: ...
@overload
def smart_imap(
    func: Callable[[A], R],
    iterable1: Iterable[A],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> Iterator[R | Exception]: ...
@overload
def smart_imap(
    func: Callable[[A, B], R],
    iterable1: Iterable[A],
    iterable2: Iterable[B],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> Iterator[R | Exception]: ...
@overload
def smart_imap(
    func: Callable[[A, B, C], R],
    iterable1: Iterable[A],
    iterable2: Iterable[B],
    iterable3: Iterable[C],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> Iterator[R | Exception]: ...
@overload
def smart_imap(
    func: Callable[[A, B, C, D], R],
    iterable1: Iterable[A],
    iterable2: Iterable[B],
    iterable3: Iterable[C],
    iterable4: Iterable[D],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> Iterator[R | Exception]: ...
@overload
def smart_imap(
    func: Callable[[A, B, C, D, E], R],
    iterable1: Iterable[A],
    iterable2: Iterable[B],
    iterable3: Iterable[C],
    iterable4: Iterable[D],
    iterable5: Iterable[E],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> Iterator[R | Exception]: ...
@overload
def smart_imap(
    func: Callable[..., R],
    iterable1: Iterable[Any],
    iterable2: Iterable[Any],
    iterable3: Iterable[Any],
    iterable4: Iterable[Any],
    iterable5: Iterable[Any],
    iterable6: Iterable[Any],
    /,
    *iterables: Iterable[Any],
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> Iterator[R | Exception]: ...
def smart_imap(func: Any, *iterables: Any, **options: Any) -> Any:
    """See ``amorsize.api.smart_imap``."""
    raise NotImplementedError


smart_imap_unordered = smart_imap
