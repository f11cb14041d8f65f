"""``@parallelize``: gives a function the forms of ``map`` as methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import update_wrapper
from sys import modules
from types import FunctionType, MethodType
from typing import Any, Generic, ParamSpec, TypeVar, overload

from .api import refuse_unfit, session_of
from .call.latest import Latest
from .optimizer import OptimizationResult, optimize
from .options import DEFAULTS, Options, documented, make_options

__all__ = ["ParallelFunction", "parallelize"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from .call.resumed import ResumedSession
    from .call.session import Session
    from .show.report import RunReport
    from .typed.options import AnyMapOptions, AnyOptions

P = ParamSpec("P")
R = TypeVar("R")


class ParallelFunction(Generic[P, R]):
    """A function with the forms of ``map`` as methods; calling it calls the function.

    ``parallelize`` creates it. As an attribute of a class it binds like the wrapped function, which
    may be a classmethod or staticmethod (put ``@parallelize`` on top).

    Args:
        func: the function, or a classmethod or staticmethod object.
        options: options of all its calls; options of a single call override them.

    Attributes:
        last_run: report of the last ``map``, ``starmap`` or finished ``imap`` of this thread, None
            before the first.
    """

    _amorsize_parallel = True
    __wrapped__: Callable[P, R]

    def __init__(self, func: Callable[P, R], options: Options = DEFAULTS) -> None:
        # The function's __dict__ is not copied: it could hold any name, even "map".
        update_wrapper(self, func, updated=())
        self.__wrapped__ = func.__wrapped__ if isinstance(func, ParallelFunction) else func
        self._options = options
        self._latest = Latest()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self.__wrapped__(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> ParallelFunction[..., R]:
        """Bind as a method, classmethod or staticmethod does."""
        inner: Any = self.__wrapped__
        bound = inner.__get__(instance, owner) if hasattr(inner, "__get__") else inner
        return self if bound is inner else self._bound_to(bound)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the function, such as ``cache_info`` of a cached one."""
        if name.startswith("__") and name.endswith("__") and name != "__call__":
            if name in _MARKS:
                return getattr(self.__wrapped__, name)
        elif "__wrapped__" in vars(self):
            return getattr(self.__wrapped__, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<ParallelFunction {getattr(self, '__qualname__', self.__wrapped__)}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by name if the name leads to this object in every process, else by content.

        Options are left out: they say how the caller maps, and a worker only calls the function.
        """
        name = getattr(self, "__qualname__", "")
        home = getattr(self, "__module__", "") or ""
        found: Any = modules.get(home)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self and home in ("__main__", "__mp_main__"):
            # pickle finds the function by its name, cloudpickle sends it by value. Its own name
            # leads to this object, so it gets the one under which it can be found.
            inner = self.__wrapped__
            if type(inner) is FunctionType and inner.__qualname__ == name:
                inner.__qualname__ = f"{name}.__wrapped__"
        elif found is self:
            return str(name)
        return ParallelFunction, (self.__wrapped__,)

    @property
    def last_run(self) -> RunReport | None:
        """Report of this thread's last run, None before the first."""
        return self._latest.report

    def map(self, *iterables: Iterable[Any], **options: Unpack[AnyMapOptions]) -> list[R]:
        """Return ``list(map(func, *iterables))``; see ``smart_map``."""
        return self._session("map", iterables, options).map()

    def starmap(
        self, iterable: Iterable[Any], *misplaced: Any, **options: Unpack[AnyMapOptions]
    ) -> list[R]:
        """Return ``list(itertools.starmap(func, iterable))``; see ``smart_starmap``."""
        return self._session("starmap", (iterable, *misplaced), options, star=True).map()

    def imap(self, *iterables: Iterable[Any], **options: Unpack[AnyOptions]) -> Iterator[R]:
        """Return an iterator like ``map(func, *iterables)``; see ``smart_imap``."""
        return self._session("imap", iterables, options, lazy=True).stream(ordered=True)

    def imap_unordered(
        self, *iterables: Iterable[Any], **options: Unpack[AnyOptions]
    ) -> Iterator[R]:
        """Return an iterator of results as they finish; see ``smart_imap_unordered``."""
        return self._session("imap_unordered", iterables, options, lazy=True).stream(ordered=False)

    def optimize(self, data: Iterable[Any], **options: Any) -> OptimizationResult:
        """Return advice for a pool of your own; see ``amorsize.optimize``."""
        return optimize(self._unbound().__wrapped__, data, **options)

    def options(self, **options: Unpack[AnyOptions]) -> ParallelFunction[P, R]:
        """Return the same function with other options; options that are not named stay.

        Raises:
            TypeError, ValueError: a bad option.
        """
        checked = make_options({**options}, base=self._options, lazy=True)
        return ParallelFunction(self.__wrapped__, checked)

    def _bound_to(self, bound: Any) -> ParallelFunction[..., R]:
        """Return the same for a bound method."""
        method = ParallelFunction(bound, self._options)
        method._latest = self._latest  # so that obj.method.last_run shows the run of obj.method.map
        return method

    def _unbound(self) -> ParallelFunction[..., Any]:
        """Return this, or the bound form where a classmethod is around it.

        From Python 3.13 on a classmethod does not bind what is in it: an attribute of the method is
        that of this object, which is not told the class.

        Raises:
            TypeError: the class has subclasses, and it is not known which one is meant.
        """
        inner: Any = self.__wrapped__
        if type(inner) is MethodType:
            return self
        owner: Any = modules.get(getattr(self, "__module__", "") or "")
        *path, name = getattr(self, "__qualname__", "").split(".")
        for part in path:
            owner = getattr(owner, part, None)
        around = vars(owner).get(name) if isinstance(owner, type) else None
        inside: Any = around.__func__ if isinstance(around, classmethod) else None
        if inside is not self:
            return self
        if type.__subclasses__(owner):
            raise TypeError(
                f"{self!r}: put @parallelize above @classmethod, as {owner.__name__} "
                "has subclasses, and Python does not tell which class is meant"
            )
        method: ParallelFunction[..., Any] = self._bound_to(MethodType(inner, owner))
        return method

    def _session(
        self,
        name: str,
        iterables: tuple[Iterable[Any], ...],
        options: Mapping[str, Any],
        *,
        star: bool = False,
        lazy: bool = False,
    ) -> Session | ResumedSession:
        """Return a session whose report is that of ``last_run``."""
        if (bound := self._unbound()) is not self:
            return bound._session(name, iterables, options, star=star, lazy=lazy)
        session = session_of(
            f"{self!r}.{name}",
            self,
            iterables,
            {**options},
            star=star,
            lazy=lazy,
            base=self._options,
        )
        session.latest = self._latest
        return session


@overload
def parallelize(func: Callable[P, R], /) -> ParallelFunction[P, R]: ...
@overload
def parallelize(
    **options: Unpack[AnyOptions],
) -> Callable[[Callable[P, R]], ParallelFunction[P, R]]: ...
@documented(lazy=True)
def parallelize(func: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Give a function the forms of ``map`` as methods; calling it still calls the function.

    Args:
        func: the function, when used without options: ``@parallelize``.
        **options: options of all its calls, as listed below: ``@parallelize(n_jobs=4)``.

    Returns:
        A ``ParallelFunction``, or a decorator that creates one.

    Raises:
        TypeError, ValueError: a bad option, or ``func`` cannot be called, or is asynchronous or a
            generator function.

    >>> @parallelize
    ... def square(x):
    ...     return x * x
    >>> square(3), square.map([1, 2, 3])
    (9, [1, 4, 9])
    """
    checked = make_options(options, lazy=True)

    def decorate(func: Callable[..., Any]) -> ParallelFunction[..., Any]:
        if not (callable(func) or isinstance(func, (classmethod, staticmethod))):
            raise TypeError(f"parallelize: a function is needed, but {func!r:.80} was given")
        refuse_unfit("parallelize", func)
        return ParallelFunction(func, checked)

    return decorate if func is None else decorate(func)


# What special attributes of the function are its own: those that ``inspect`` and others look at.
_MARKS = frozenset({"__code__", "__defaults__", "__kwdefaults__", "__globals__", "__closure__",
                    "__isabstractmethod__", "__func__", "__self__"})  # fmt: skip
