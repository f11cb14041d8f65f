"""The awaited forms of ``map``, for type checkers.

Each form has an overload for one to five iterables, which ties their elements to the arguments of
the function, and one for more. ``return_exceptions=True`` changes the results.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, Literal, TypeAlias, Unpack, overload

from .eager import A, B, C, D, E, R
from .options import LazyOptions, MapOptions

__all__ = ["smart_imap_async", "smart_map_async"]

AnyIterable: TypeAlias = Iterable[A] | AsyncIterable[A]


@overload
async def smart_map_async(
    func: Callable[[A], R],
    iterable1: AnyIterable[A],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[MapOptions],
) -> list[R]: ...
@overload
async def smart_map_async(
    func: Callable[[A, B], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[MapOptions],
) -> list[R]: ...
@overload
async def smart_map_async(
    func: Callable[[A, B, C], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[MapOptions],
) -> list[R]: ...
@overload
async def smart_map_async(
    func: Callable[[A, B, C, D], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    iterable4: AnyIterable[D],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[MapOptions],
) -> list[R]: ...
@overload
async def smart_map_async(
    func: Callable[[A, B, C, D, E], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    iterable4: AnyIterable[D],
    iterable5: AnyIterable[E],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[MapOptions],
) -> list[R]: ...
@overload
async def smart_map_async(
    func: Callable[..., R],
    iterable1: AnyIterable[Any],
    iterable2: AnyIterable[Any],
    iterable3: AnyIterable[Any],
    iterable4: AnyIterable[Any],
    iterable5: AnyIterable[Any],
    iterable6: AnyIterable[Any],
    /,
    *iterables: AnyIterable[Any],
    return_exceptions: Literal[False] = False,
    **options: Unpack[MapOptions],
) -> list[R]: ...
@overload
async def smart_map_async(
    func: Callable[[A], R],
    iterable1: AnyIterable[A],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[MapOptions],
) -> list[R | Exception]: ...
@overload
async def smart_map_async(
    func: Callable[[A, B], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[MapOptions],
) -> list[R | Exception]: ...
@overload
async def smart_map_async(
    func: Callable[[A, B, C], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[MapOptions],
) -> list[R | Exception]: ...
@overload
async def smart_map_async(
    func: Callable[[A, B, C, D], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    iterable4: AnyIterable[D],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[MapOptions],
) -> list[R | Exception]: ...
@overload
async def smart_map_async(
    func: Callable[[A, B, C, D, E], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    iterable4: AnyIterable[D],
    iterable5: AnyIterable[E],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[MapOptions],
) -> list[R | Exception]: ...
@overload
async def smart_map_async(
    func: Callable[..., R],
    iterable1: AnyIterable[Any],
    iterable2: AnyIterable[Any],
    iterable3: AnyIterable[Any],
    iterable4: AnyIterable[Any],
    iterable5: AnyIterable[Any],
    iterable6: AnyIterable[Any],
    /,
    *iterables: AnyIterable[Any],
    return_exceptions: Literal[True],
    **options: Unpack[MapOptions],
) -> list[R | Exception]: ...
async def smart_map_async(func: Any, *iterables: Any, **options: Any) -> Any:
    """See ``amorsize.asynchronous.smart_map_async``."""
    raise NotImplementedError


@overload
def smart_imap_async(
    func: Callable[[A], R],
    iterable1: AnyIterable[A],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R]: ...
@overload
def smart_imap_async(
    func: Callable[[A, B], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R]: ...
@overload
def smart_imap_async(
    func: Callable[[A, B, C], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R]: ...
@overload
def smart_imap_async(
    func: Callable[[A, B, C, D], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    iterable4: AnyIterable[D],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R]: ...
@overload
def smart_imap_async(
    func: Callable[[A, B, C, D, E], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    iterable4: AnyIterable[D],
    iterable5: AnyIterable[E],
    /,
    *,
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R]: ...
@overload
def smart_imap_async(
    func: Callable[..., R],
    iterable1: AnyIterable[Any],
    iterable2: AnyIterable[Any],
    iterable3: AnyIterable[Any],
    iterable4: AnyIterable[Any],
    iterable5: AnyIterable[Any],
    iterable6: AnyIterable[Any],
    /,
    *iterables: AnyIterable[Any],
    return_exceptions: Literal[False] = False,
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R]: ...
@overload
def smart_imap_async(
    func: Callable[[A], R],
    iterable1: AnyIterable[A],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R | Exception]: ...
@overload
def smart_imap_async(
    func: Callable[[A, B], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R | Exception]: ...
@overload
def smart_imap_async(
    func: Callable[[A, B, C], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R | Exception]: ...
@overload
def smart_imap_async(
    func: Callable[[A, B, C, D], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    iterable4: AnyIterable[D],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R | Exception]: ...
@overload
def smart_imap_async(
    func: Callable[[A, B, C, D, E], R],
    iterable1: AnyIterable[A],
    iterable2: AnyIterable[B],
    iterable3: AnyIterable[C],
    iterable4: AnyIterable[D],
    iterable5: AnyIterable[E],
    /,
    *,
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R | Exception]: ...
@overload
def smart_imap_async(
    func: Callable[..., R],
    iterable1: AnyIterable[Any],
    iterable2: AnyIterable[Any],
    iterable3: AnyIterable[Any],
    iterable4: AnyIterable[Any],
    iterable5: AnyIterable[Any],
    iterable6: AnyIterable[Any],
    /,
    *iterables: AnyIterable[Any],
    return_exceptions: Literal[True],
    **options: Unpack[LazyOptions],
) -> AsyncIterator[R | Exception]: ...
def smart_imap_async(func: Any, *iterables: Any, **options: Any) -> Any:
    """See ``amorsize.asynchronous.smart_imap_async``."""
    raise NotImplementedError
