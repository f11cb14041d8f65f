"""``smart_map_async`` and ``smart_imap_async``: the forms of ``map`` for programs on asyncio.

A call runs in a thread of its own, so that the event loop goes on. Its items run in workers, also
the first ones: a function that does not let go of the interpreter would stop the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from functools import partial
from queue import SimpleQueue

from .api import checked, make_session, refuse_unfit
from .call.latest import LATEST
from .options import Options, documented
from .run.arrivals import Arrivals, Together
from .run.feed import SLICEABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from .call.latest import Finished
    from .call.resumed import ResumedSession
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
        self._iterables = iterables
        self._worker = _Worker(self._loop, func, options)
        self._readers: list[asyncio.Task[None]] = []
        # A loop that was closed finalizes no iterators: then the garbage collector ends the call.
        self._finalizer = weakref.finalize(self, self._worker.stop)
        self._finalizer.atexit = False

    async def __aenter__(self) -> Self:
        self._worker.start()
        self._worker.iterables = tuple(
            self._read(data) if hasattr(data, "__aiter__") else data for data in self._iterables
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the call, whatever it does, and wait until it has ended."""
        self._finalizer()
        if self._loop.is_closed():  # an iterator is collected that was left suspended
            return
        for reader in self._readers:
            reader.cancel()
        waiting = {self._loop.create_task(self._worker.ended.wait()), *self._readers}
        until, is_cancelled = self._loop.time() + CANCEL_SECONDS, False
        while waiting and (left := until - self._loop.time()) > 0:
            try:
                await asyncio.wait(waiting, timeout=left)
            except asyncio.CancelledError:  # once more: the end is waited for all the same
                is_cancelled = True
            waiting = {task for task in waiting if not task.done()}
        for task in waiting:
            task.cancel()
        finished = self._worker.finished()
        if finished is not None:
            LATEST.call = finished
        if is_cancelled:
            raise asyncio.CancelledError

    async def all(self) -> list[Any]:
        """Return all results."""
        results: list[Any] = await self._do(self._worker.run_all)
        return results

    async def some(self) -> list[Any] | None:
        """Return some more results, None at the end."""
        results: list[Any] | None = await self._do(self._worker.run_some)
        return results

    def _read(self, source: AsyncIterable[Any]) -> Arrivals:
        """Return an iterable for the thread that gives the items of an asynchronous one."""
        wanted = asyncio.Event()
        arrivals = Arrivals(partial(self._worker.tell, wanted.set), self._worker.check)
        reading = self._loop.create_task(_deliver(source, arrivals, wanted))
        self._readers.append(reading)
        return arrivals

    async def _do(self, step: Callable[[], Any]) -> Any:
        """Return what a function returns that is called in the thread."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._worker.steps.put((step, future))
        result, error = await future
        if error is not None:
            raise error
        return result


class _Worker:
    """The thread of a call.

    Args:
        loop: the event loop.
        func: the function to call.
        options: checked options.

    Attributes:
        iterables: the inputs, for the thread.
        steps: what the thread is to do next, and what to tell the outcome; None to end.
        ended: is set, in the loop, when the thread has nothing more to do.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, func: Callable[..., Any], options: Options
    ) -> None:
        self.iterables: tuple[Any, ...] = ()
        self.steps: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None]
        self.steps = SimpleQueue()
        self.ended = asyncio.Event()
        self._loop = loop
        self._func = func
        self._options = options
        self._session: Session | ResumedSession | None = None
        self._stream: Generator[tuple[int, list[Any]]] | None = None
        self._cancelled = False
        run = partial(contextvars.copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name="amorsize-async", daemon=True)

    # In the loop's thread -------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Have the thread end, whatever it does."""
        self._cancelled = True
        self.steps.put(None)

    def finished(self) -> Finished | None:
        """Return the finished call, if the thread has ended in time."""
        if not self.ended.is_set():
            return None
        self._thread.join()  # it has nothing more to do
        return None if self._session is None else self._session.finished

    # In the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        """Take steps until there are no more."""
        try:
            for step, future in iter(self.steps.get, None):
                result = error = None
                try:
                    result = step()
                except BaseException as raised:  # noqa: BLE001 - raised again in the loop
                    error = raised
                self.tell(_settle, future, (result, error))
                del step, future, result, error
                if self._cancelled:
                    break
            if self._stream is not None:
                self._stream.close()
        finally:
            self.tell(self.ended.set)

    def run_all(self) -> list[Any]:
        """Return all results."""
        return self._opened().map()

    def run_some(self) -> list[Any] | None:
        """Return some more results, None at the end."""
        if self._stream is None:
            self._stream = self._opened().stream(ordered=True, whole=True)
        _, results = next(self._stream, (0, None))
        return results

    def check(self) -> None:
        """End the call if nobody waits for it any more."""
        if self._cancelled or self._loop.is_closed():
            raise _Cancelled

    def tell(self, call: Callable[..., object], *args: Any) -> None:
        """Have the loop call a function; end the call if the loop was closed."""
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            self._cancelled = True

    def _opened(self) -> Session | ResumedSession:
        """Return the session; made here, because to load its modules takes 30 ms."""
        iterables = self.iterables
        session = self._session = make_session(self._func, iterables, self._options)
        arrivals = tuple(data for data in iterables if isinstance(data, Arrivals))
        together = None
        if arrivals:
            sizes = (len(data) for data in iterables if type(data) in SLICEABLE)
            together = Together(arrivals, min(sizes, default=None))
        session.run_apart(self.check, together)
        return session


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


def _settle(future: asyncio.Future[Any], outcome: tuple[Any, BaseException | None]) -> None:
    """Give a future its outcome, unless its task was cancelled."""
    if not future.done():
        future.set_result(outcome)  # an exception as a value: a future cannot have StopIteration
