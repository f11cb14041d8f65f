"""Whether a function needs what a forked worker does not have for itself.

That is another thread of its process, or a place in a file, a connection or a generator.

Example: ``pool = ThreadPoolExecutor(2)`` and ``def f(x): return pool.submit(g, x).result()``. The
pool's threads are idle, so a fork looks safe. The child lacks those threads, so the result never
comes. Such a thread waits on a queue or an event loop, and the function reaches the same object.
The function may also reach a lock that another thread holds; the child never sees it released.
Other ways to wait for a thread cannot be detected in advance; ``run/stuck.py`` finds them later.
"""

from __future__ import annotations

import gc
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterator

from ..identity.codes import describe
from ..identity.looking import (
    attributes,
    cells_of,
    module_of,
    mro,
    namespace,
    namespace_of,
    qualname,
    slots,
)
from ..identity.owners import is_users
from ..lookup import loaded
from .forking import IDLE_THREAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["is_held", "lack_of", "needs_threads", "uses_stream"]

# Types of objects that threads take work from.
_SERVED = {
    ("queue", "Queue"),
    ("queue", "SimpleQueue"),
    ("_queue", "SimpleQueue"),
    ("asyncio.events", "AbstractEventLoop"),
}
_LOCK: Any = type(threading.Lock())
_OWNED_LOCK: Any = type(threading.RLock())
# Limit on the objects examined, the nearest first; so many take 2 ms.
MOST_OBJECTS = 2_000
# Larger containers are not searched.
MOST_ITEMS = 1_000
_CONTAINERS: tuple[Any, ...] = (dict, list, tuple, set, frozenset, deque)


def lack_of(func: Callable[..., Any], *, streams: bool) -> str:
    """Return what ``func`` needs that a forked worker would not have for itself, "" for nothing.

    Args:
        func: any callable.
        streams: whether to look for files and the like, too.
    """
    return needs_threads(func) or (uses_stream(func) if streams else "")


def needs_threads(func: Callable[..., Any]) -> str:
    """Return why ``func`` would wait for ever in a forked worker, "" if no reason is found.

    Args:
        func: any callable.

    >>> needs_threads(len)
    ''
    """
    current = threading.current_thread()
    threads = [
        thread
        for thread in threading.enumerate()
        if thread is not current and not thread.name.startswith(IDLE_THREAD)
    ]
    if not threads:
        return ""
    frames = sys._current_frames()
    served = {
        id(value): thread.name
        for thread in threads
        for value in _in_hand(frames.get(thread.ident or 0))
        if _is_served(value)
    }
    for value in _Reach(func):
        if id(value) in served:
            return f"the function hands work to the thread {served[id(value)]}, which no fork has"
        if is_held(value):
            return "the function uses a lock that another thread holds"
    return ""


def uses_stream(func: Callable[..., Any]) -> str:
    """Return what ``func`` uses that a forked worker would share or have a copy of, "" for nothing.

    A worker that reads an inherited file moves the caller's place in it, too. A database connection
    breaks. A generator gives the same values in each worker. Loggers are left out: their records
    come to the caller.

    Args:
        func: any callable.

    >>> uses_stream(len)
    ''
    """
    value: Any
    for value in _Reach(func, but_not=_loggers()):
        kind = type(value)
        if kind is types.GeneratorType:
            return "the function uses a generator, of which each forked worker would have a copy"
        home = (module_of(kind), qualname(kind))
        if home in _CONNECTIONS:
            return f"the function uses a {qualname(kind)}, which a forked worker would share"
        if home in _FILES and not value.closed and _descriptor(value) > _LAST_STANDARD:
            name = repr(getattr(value, "name", ""))
            return f"the function uses an open file ({name:.60}), which a forked worker would share"
    return ""


_CONNECTIONS = {
    ("sqlite3", "Connection"), ("sqlite3", "Cursor"), ("socket", "socket"), ("ssl", "SSLSocket"),
}  # fmt: skip
_FILES = {
    ("_io", name)
    for name in ("TextIOWrapper", "BufferedReader", "BufferedWriter", "BufferedRandom", "FileIO")
}
_LAST_STANDARD = 2  # descriptor of standard error


def _descriptor(file: Any) -> int:
    """Return the descriptor of a file; -1 for none, as of one in memory."""
    try:
        number: int = file.fileno()
    except (OSError, ValueError):
        return -1
    return number


def _loggers() -> tuple[Any, ...]:
    """Return the types of loggers and their handlers, if logging is loaded."""
    logging = loaded("logging")
    return () if logging is None else (logging.Filterer,)


def is_held(value: Any) -> bool:
    """Return whether a value is a lock that another thread may hold.

    Args:
        value: any object.
    """
    if type(value) is _LOCK:
        return bool(value.locked())
    # Before Python 3.14 only the repr shows whether an RLock is held.
    return type(value) is _OWNED_LOCK and "unlocked" not in repr(value) and not value._is_owned()


def _in_hand(frame: types.FrameType | None) -> Iterator[object]:
    """Yield the objects a waiting thread uses.

    These are the variables of library frames, from the innermost frame out to the first frame of
    user code. The objects of user code count only if that frame is the innermost.
    """
    innermost = frame
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if is_users(module):
            if frame is innermost:
                values = [*frame.f_locals.values()]
                yield from values
                yield from _named(frame, values)
            return
        # Before Python 3.13 a frame keeps what ``f_locals`` was when it was read. So it is not read
        # of frames of the user's further out, which may run for long.
        names = frame.f_locals
        values = [*names.values()]
        if "self" in names and module != "threading":
            values += _held(names["self"]).values()
        yield from values
        frame = frame.f_back


def _named(frame: types.FrameType, values: list[object]) -> Iterator[object]:
    """Yield the globals that a frame's code names, and named attributes of globals and locals."""
    described = describe(frame.f_code)
    named = [frame.f_globals.get(name) for name in described.globals]
    yield from named
    wanted = set(described.names)
    for value in [*values, *named]:
        if is_users(module_of(type(value))):
            held = _held(value)
            yield from (held[name] for name in held.keys() & wanted)


def _held(value: object) -> dict[str, Any]:
    """Return the attributes and slots of an instance."""
    try:
        return {**dict(slots(value)), **(attributes(value) or {})}
    except TypeError:  # the class hides its attributes
        return {}


def _is_served(value: object) -> bool:
    return any((module_of(cls), qualname(cls)) in _SERVED for cls in mro(type(value)))


def _is_large(value: Any) -> bool:
    """Return whether a value is a container with too many items to search."""
    base = next((base for base in _CONTAINERS if issubclass(type(value), base)), None)
    return base is not None and base.__len__(value) > MOST_ITEMS


class _Reach:
    """Iterates over the objects that a function reaches through user code.

    An attribute of a user's module, class or instance counts only if user code names it: a
    function that reaches an object with a pool does not necessarily use the pool.

    Args:
        func: where to begin.
        but_not: types of objects that are not followed.
    """

    def __init__(self, func: Callable[..., Any], but_not: tuple[Any, ...] = ()) -> None:
        self._but_not = but_not
        self._todo: deque[Any] = deque()
        self._seen: dict[int, object] = {}  # keeps objects alive, so that no id is reused
        self._names: set[str] = set()
        self._holders: list[dict[str, Any]] = []
        self._meet(func)

    def __iter__(self) -> Iterator[object]:
        for _ in range(MOST_OBJECTS):
            if not self._todo:
                self._ask()
            if not self._todo:
                return
            value = self._todo.popleft()
            yield value
            self._follow(value)

    def _meet(self, value: object) -> None:
        if gc.is_tracked(value) and id(value) not in self._seen:
            self._seen[id(value)] = value
            self._todo.append(value)

    def _ask(self) -> None:
        """Add those attributes of the holders found so far that code found so far names."""
        for holder in self._holders:
            for name in self._names & holder.keys():
                self._meet(holder[name])

    def _follow(self, value: Any) -> None:
        """Add the objects that a value refers to."""
        kind = type(value)
        if kind is types.FunctionType:
            self._function(value)
        elif issubclass(kind, types.ModuleType):
            names = namespace_of(value)
            if is_users(names.get("__name__")):
                self._holders.append(names)
        elif issubclass(kind, type):
            if is_users(module_of(value)):
                self._holders += [dict(namespace(cls)) for cls in mro(value)]
        elif is_users(module_of(kind)):
            self._meet(kind)
            self._holders.append(_held(value))
        elif self._but_not and issubclass(kind, self._but_not):
            pass
        elif kind is threading.Condition:
            self._meet(value._lock)  # not the locks of its waiters, which are always held
        elif kind not in (types.FrameType, types.CodeType) and not _is_large(value):
            for inner in gc.get_referents(value):
                self._meet(inner)

    def _function(self, function: types.FunctionType) -> None:
        for _, content in cells_of(function):
            self._meet(content)
        for inner in (*(function.__defaults__ or ()), *vars(function).values()):
            self._meet(inner)
        for inner in (function.__kwdefaults__ or {}).values():
            self._meet(inner)
        if is_users(function.__module__):
            described = describe(function.__code__)
            self._names.update(described.names)
            for name in described.globals:
                self._meet(function.__globals__.get(name))
