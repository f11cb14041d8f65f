"""``smart_map_async`` and ``smart_imap_async``: the forms of ``map`` for programs on asyncio.

A call runs in a thread of its own, so that the event loop goes on. Its items run in workers, also
the first ones: a function that does not let go of the interpreter would stop the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

from .api import checked, make_session, refuse_unfit
from .call.latest import LATEST
from .options import Options, documented
from .run.arrivals import Arrivals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from .call.session import Session

    R = TypeVar("R")

__all__ = ["smart_imap_async", "smart_map_async"]

# The loop gets a turn at least this often while results are consumed, or items read, that are there
# without waiting, s.
TURN_SECONDS = 0.002
# A cancelled call ends within some ms. Only an input that blocks, or an item in the calling process
# (``n_jobs=1``), can take longer; then it is left to end by itself after this time, s.
CANCEL_SECONDS = 5.0


@documented(lazy=False)
async def smart_map_async(
    func: Callable[..., R], *iterables: Iterable[Any] | AsyncIterable[Any], **options: Any
) -> list[R]:
    """Return ``list(map(func, *iterables))`` while the event loop goes on; see ``smart_map``.

    ``func`` is a plain function. All items run in workers, unless ``n_jobs=1``,
    ``backend="serial"`` or ``backend="thread"`` is given. If the awaiting task is cancelled, so is
    the call, and no worker is left behind.

    Args:
        func: the function to call.
        *iterables: one for each argument of ``func``; each may be an asynchronous iterable. Others
            are read in another thread.
        **options: as listed below. ``progress``, ``report`` and ``initializer`` are called in
            another thread.

    Returns:
        The results in the order of the items.

    Raises:
        asyncio.CancelledError: the task was cancelled.
        Exception: as ``smart_map``.

    >>> import asyncio
    >>> asyncio.run(smart_map_async(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    asked = _checked("smart_map_async", func, iterables, options)
    async with _Call(func, iterables, asked) as call:
        results: list[R] = await call.all()
    return results


@documented(lazy=True)
def smart_imap_async(
    func: Callable[..., R], *iterables: Iterable[Any] | AsyncIterable[Any], **options: Any
) -> AsyncIterator[R]:
    """Return an asynchronous iterator like ``map(func, *iterables)``; see ``smart_imap``.

    The items run as in ``smart_map_async``. Input is read ahead only as far as the workers need.
    Closing the iterator (``aclose``), or cancelling the task that consumes it, ends the call.

    Args:
        func: the function to call.
        *iterables: one for each argument of ``func``; each may be an asynchronous iterable.
        **options: as listed below.

    Returns:
        An asynchronous iterator of the results in the order of the items.

    Raises:
        TypeError, ValueError: bad arguments, at once.
        Exception: as ``smart_map``, when the result is requested.

    >>> async def main():
    ...     return [value async for value in smart_imap_async(abs, [-1, 2, -3])]
    >>> asyncio.run(main())
    [1, 2, 3]
    """
    asked = _checked("smart_imap_async", func, iterables, options, lazy=True)
    return _results(func, iterables, asked)


def _checked(
    name: str,
    func: Callable[..., Any],
    iterables: tuple[Any, ...],
    given: dict[str, Any],
    *,
    lazy: bool = False,
) -> Options:
    options = checked(name, func, iterables, given, lazy=lazy, awaited=True)
    refuse_unfit(name, func)
    return options


async def _results(
    func: Callable[..., Any], iterables: tuple[Any, ...], options: Options
) -> AsyncIterator[Any]:
    """Yield the results of a call one by one."""
    async with _Call(func, iterables, options) as call:
        turn = _Turn()
        while (chunk := await call.some()) is not None:
            for result in chunk:
                yield result
                await turn.give_way()


class _Turn:
    """Lets the event loop have its turn from time to time."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()

    async def give_way(self) -> None:
        """Let the loop go on if that was long ago."""
        if self._clock() - self._began > TURN_SECONDS:
            await asyncio.sleep(0)
            self._began = self._clock()


class _Cancelled(BaseException):
    """Ends a call in its thread; nobody sees it."""


class _Call:
    """A call in a thread of its own, and the tasks that read its asynchronous inputs.

    Args:
        func: the function to call.
        iterables: the inputs.
        options: checked options.
    """

    def __init__(
        self, func: Callable[..., Any], iterables: tuple[Any, ...], options: Options
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._func = func
        self._iterables = iterables
        self._options = options
        self._session: Session | None = None
        self._stream: Generator[list[Any]] | None = None
        self._steps: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None]
        self._steps = SimpleQueue()
        self._cancelled = False
        self._ended = asyncio.Event()
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._iterables = tuple(
            self._read(data) if hasattr(data, "__aiter__") else data for data in self._iterables
        )
        run = partial(contextvars.copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name="amorsize-async", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the call, whatever it does, and wait until it has ended."""
        self._cancelled = True
        self._steps.put(None)
        for reader in self._readers:
            reader.cancel()
        waiting = {self._loop.create_task(self._ended.wait()), *self._readers}
        until, is_cancelled = self._loop.time() + CANCEL_SECONDS, False
        while waiting and (left := until - self._loop.time()) > 0:
            try:
                await asyncio.wait(waiting, timeout=left)
            except asyncio.CancelledError:  # once more: the end is waited for all the same
                is_cancelled = True
            waiting = {task for task in waiting if not task.done()}
        for task in waiting:
            task.cancel()
        if self._ended.is_set():
            self._thread.join()  # it has nothing more to do
        if self._session is not None and self._session.finished is not None:
            LATEST.call = self._session.finished
        if is_cancelled:
            raise asyncio.CancelledError

    async def all(self) -> list[Any]:
        """Return all results."""
        results: list[Any] = await self._do(self._run_all)
        return results

    async def some(self) -> list[Any] | None:
        """Return some more results, None at the end."""
        results: list[Any] | None = await self._do(self._run_some)
        return results

    def _read(self, source: AsyncIterable[Any]) -> Arrivals:
        """Return an iterable for the thread that gives the items of an asynchronous one."""
        wanted = asyncio.Event()
        arrivals = Arrivals(partial(self._tell, wanted.set), self._check)
        reading = self._loop.create_task(_deliver(source, arrivals, wanted))
        self._readers.append(reading)
        return arrivals

    async def _do(self, step: Callable[[], Any]) -> Any:
        """Return what a function returns that is called in the thread."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._steps.put((step, future))
        return await future

    # In the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        """Take steps until there are no more."""
        try:
            for step, future in iter(self._steps.get, None):
                result = error = None
                try:
                    result = step()
                except BaseException as raised:  # noqa: BLE001 - raised again in the loop
                    error = raised
                self._tell(_settle, future, result, error)
                del step, future, result, error
            if self._stream is not None:
                self._stream.close()
        finally:
            self._tell(self._ended.set)

    def _run_all(self) -> list[Any]:
        return self._opened().map()

    def _run_some(self) -> list[Any] | None:
        if self._stream is None:
            self._stream = self._opened().stream(ordered=True, whole=True)
        return next(self._stream, None)

    def _opened(self) -> Session:
        """Return the session; made here, because to load its modules takes 30 ms."""
        session = self._session = make_session(self._func, self._iterables, self._options)
        arrivals = (data for data in self._iterables if isinstance(data, Arrivals))
        session.run_apart(self._check, tuple(arrivals))
        return session

    def _check(self) -> None:
        if self._cancelled:
            raise _Cancelled

    def _tell(self, call: Callable[..., object], *args: Any) -> None:
        """Have the loop call a function."""
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(call, *args)


async def _deliver(source: AsyncIterable[Any], arrivals: Arrivals, wanted: asyncio.Event) -> None:
    """Give the items of an asynchronous iterable as they are wanted.

    Args:
        source: the iterable.
        arrivals: gets the items.
        wanted: is set when it wants more.
    """
    try:
        items, turn = aiter(source), _Turn()
        while True:
            wanted.clear()
            if not arrivals.lacks:
                await wanted.wait()
                continue
            try:
                item = await anext(items)
            except StopAsyncIteration:
                break
            arrivals.give(item)
            await turn.give_way()
    except BaseException as error:
        arrivals.end(error)  # raised where the results are taken
        if not isinstance(error, Exception):
            raise
    else:
        arrivals.end()


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Give a future its outcome, unless its task was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
