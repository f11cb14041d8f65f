"""What a worker is started with: the call, the caller's state, limits for libraries."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..tuples import NamedTuple
from .guard import surrounded
from .pickles import dumps_by_value, dumps_inherited, loads, open_call
from .surroundings import State, put, put_last, put_users
from .transport import Parcel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .current import Current

__all__ = [
    "BUSY_SHARE",
    "Call",
    "Setup",
    "Shipment",
    "Threads",
    "set_environ",
    "state_of_caller",
]


class Call(NamedTuple):
    """What all workers of one call share.

    Attributes:
        func: the function to call.
        star: whether each item is a tuple of arguments.
        columns: the whole input if workers inherit it, else empty.
        return_exceptions: whether an exception is a result.
        seed: seed of the items' random streams; None for none.
    """

    func: Callable[..., Any]
    star: bool
    columns: tuple[Any, ...]
    return_exceptions: bool
    seed: int | None = None

    def runner(
        self,
        func: Callable[..., Any] | None = None,
        change: Callable[[Exception], object] | None = None,
    ) -> Callable[..., Any]:
        """Return what runs an item.

        Args:
            func: in the place of the call's function; None for that.
            change: see ``Guard``.
        """
        return surrounded(
            self.func if func is None else func,
            return_exceptions=self.return_exceptions,
            seed=self.seed,
            change=change,
        )


class Shipment(NamedTuple):
    """A call that is sent to workers that are running already.

    Attributes:
        name: a unique name for the call.
        state: the state that the caller runs in.
        current: the caller's values of the globals that the call uses. They are set before ``call``
            is unpickled, because unpickling looks names up.
        call: the call.
    """

    name: str
    state: Parcel
    current: Parcel
    call: Parcel


# Numerical libraries read these when they are loaded, to choose their number of threads.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class Threads(NamedTuple):
    """How many threads a numerical library may start in a worker.

    Attributes:
        limit: the number of threads, 0 if the user has set it.
        variables: environment variables that set the number for libraries not loaded yet.
        busy: whether items are known to use more than one CPU each.
    """

    limit: int
    variables: dict[str, str]
    busy: bool = False

    @classmethod
    def shared(cls, share: int, *, busy: bool = False) -> Threads:
        """Return the user's own settings if there are any, else the same share for all."""
        told = {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}
        if told:
            return cls(0, told)
        return cls(share, dict.fromkeys(_THREAD_VARIABLES, str(share)), busy)

    def apply(self) -> None:
        """Apply the limits in this worker."""
        for name, value in self.variables.items():  # half of the time that ``update`` takes
            os.environ[name] = value
        if self.busy:
            self.limit_loaded()

    def limit_loaded(self) -> None:
        """Limit libraries that are loaded already, as in a forked worker.

        Only threadpoolctl, an optional extra, can do that. Call this only when needed: when
        OpenBLAS gets a number in a forked worker, it starts its threads, and they spin for 50 ms.
        """
        if self.limit and "numpy" in sys.modules:
            try:
                from threadpoolctl import threadpool_limits  # optional, and takes 5 ms
            except ImportError:
                return
            import warnings

            with warnings.catch_warnings():
                # About mixtures of libraries; where warnings are errors, it would end the worker.
                warnings.simplefilter("ignore")
                threadpool_limits(limits=self.limit)


# An item whose CPU time exceeds this share of its wall time uses threads.
BUSY_SHARE = 1.1


class Setup:
    """What a worker is started with.

    If a setup is pickled, it is pickled while the worker process is started. Locks and queues can
    be arguments of the initializer only then. The function and the initializer go into one pickle,
    so that functions of the main module share one set of globals in the worker too.

    Args:
        call: the call; None when it comes with the tasks.
        initializer: the user's, run once in each worker with ``initargs``; None for none.
        initargs: arguments of the initializer.
        prefix: path prefix of the crew's shared segments, "" for none.
        current: the caller's globals, for workers that import its modules.
        environ: the caller's environment variables, for workers that do not inherit them.
        threads: limits for numerical libraries in the worker; None sets no limits.
        state: the part of the caller's state that the worker does not inherit.
    """

    def __init__(
        self,
        call: Call | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        prefix: str = "",
        current: Current | None = None,
        environ: dict[str, str] | None = None,
        threads: Threads | None = None,
        state: State | None = None,
    ) -> None:
        self.state = state or State()
        self.prefix = prefix
        self.threads = threads
        self.environ = environ
        self._content = (call, initializer, initargs)
        self._current = current

    @property
    def call(self) -> Call:
        """The call."""
        assert self._content[0] is not None
        return self._content[0]

    @property
    def content(self) -> tuple[Call | None, Callable[..., object] | None, tuple[Any, ...]]:
        """The call, the initializer and the initializer's arguments."""
        return self._content

    @property
    def code(self) -> tuple[object, ...]:
        """The function, if there is one yet, the initializer and the initializer's arguments."""
        call, *rest = self._content
        return *(() if call is None else (call.func,)), *rest

    @property
    def is_plain(self) -> bool:
        """Whether there is no initializer."""
        return self._content[1] is None

    def opened(self) -> Setup:
        """Return this setup, ready for use in a process that has the caller's state."""
        put_users(self.state)
        return self

    def prepare(self) -> Call | None:
        """Run the initializer and return the call."""
        call, initializer, initargs = self._content
        if initializer is not None:
            initializer(*initargs)
        return call

    def of_caller(self, current: Current, environ: dict[str, str] | None, state: State) -> Setup:
        """Return the same setup for workers that do not inherit the caller's state."""
        return Setup(*self._content, self.prefix, current, environ, self.threads, state)

    def for_crew(self, prefix: str) -> Setup:
        """Return the same setup with a prefix for shared segments."""
        return Setup(*self._content, prefix, self._current, self.environ, self.threads, self.state)

    def __reduce__(self) -> tuple[object, ...]:
        blob = dumps_inherited(self._content)
        current = None if self._current is None else dumps_by_value(self._current)
        return _Pickled, (blob, self.prefix, current, self.environ, self.threads, self.state)


class _Pickled(Setup):
    """A setup that was sent; ``opened`` unpickles it, so that an error can be reported."""

    def __init__(
        self,
        blob: bytes,
        prefix: str,
        current: bytes | None,
        environ: dict[str, str] | None,
        threads: Threads | None,
        state: State,
    ) -> None:
        self.state = state
        self.prefix = prefix
        self.threads = threads
        self.environ = environ
        self._blobs = (current, blob)

    def opened(self) -> Setup:
        """Return the setup that was sent, and put the caller's state in place.

        The caller's values are set before the call is unpickled, because unpickling looks names up.
        """
        current, blob = self._blobs
        from .adopting import adopted
        from .current import Current

        with state_of_caller(self.state):
            known = Current() if current is None else loads(current)
            with adopted(known, []):
                call, initializer, initargs = open_call(blob)
        return Setup(call, initializer, initargs, state=self.state)


@contextmanager
def state_of_caller(state: State) -> Iterator[None]:
    """Set the caller's state before a call is loaded, and again after, as loading may change it."""
    put(state)
    environ = dict(os.environ)
    yield
    set_environ(environ)
    put_last(state)


def set_environ(environ: dict[str, str]) -> None:
    """Set the environment variables to these; modules may have changed some while loading."""
    if os.environ != environ:
        os.environ.clear()
        os.environ.update(environ)
        if hasattr(time, "tzset"):
            time.tzset()
