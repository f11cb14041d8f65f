"""The options of a call: one frozen value, checked once, before any item runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import isfinite
from operator import index

from .lookup import load
from .tuples import NamedTuple
from .versions import DEDENTS_DOCSTRINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from os import PathLike
    from typing import Any, TypeVar

    _Function = TypeVar("_Function", bound=Callable[..., Any])

__all__ = [
    "BACKENDS",
    "DEFAULTS",
    "Options",
    "count_jobs",
    "documented",
    "environment_cap",
    "make_options",
]

BACKENDS = ("process", "thread", "serial")
# Engines that are meant by name: the current Dask client, Ray, and whatever is best.
ENGINES = ("dask", "ray", "auto")


class Options(NamedTuple):
    """The options of a call; their names are the same everywhere in amorsize.

    Attributes:
        n_jobs: number of workers. None lets amorsize decide; 1 is serial; k > 0 is k; -1 is all
            usable CPUs, -2 all but one, and so on.
        chunksize: items in one chunk. None lets amorsize decide, and vary the size during the run.
        backend: "process", "thread" or "serial"; or what runs the items elsewhere: any
            ``concurrent.futures.Executor``, a Dask client, "dask" for the current one, or "ray".
            "auto" also considers the current Dask client or Ray. None lets amorsize decide between
            this process and processes of its own.
        mp_context: name of a start method, or a multiprocessing context. None takes the start
            method that the program has set, if any. Otherwise, on every version of Python, it takes
            fork on Linux if this process can be forked safely, else forkserver; on other platforms
            spawn.
        progress: True, a description, or ``callable(done, total)`` (total None when unknown).
        timeout: time limit of the whole call, s.
        task_timeout: time limit of one item, s.
        retries: how often the items of a lost worker are run again.
        return_exceptions: whether an item's exception is its result, instead of being raised.
        initializer: called once in each worker with ``initargs`` before its first item.
        initargs: arguments of ``initializer``.
        use_cache: False neither reads nor writes the cache.
        report: called with the ``RunReport`` when the call ends.
        buffersize: most items in flight (the ``imap`` forms only).
        total: number of items of an input without a length, for progress and planning. It is a
            hint: all items are run, however many there are.
        resume: path of a file that keeps results as they finish. The same call after a crash
            computes only what is missing. Loading the file can run code, as with any pickle.
        seed: a whole number of 0 or more. Each item then has a random stream of its own (of
            ``random``, and of NumPy and torch), whatever the workers and chunks.
    """

    n_jobs: int | None = None
    chunksize: int | None = None
    backend: str | Any | None = None
    mp_context: str | BaseContext | None = None
    progress: bool | str | Callable[[int, int | None], object] = False
    timeout: float | None = None
    task_timeout: float | None = None
    retries: int = 1
    return_exceptions: bool = False
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    use_cache: bool = True
    report: Callable[..., object] | None = None
    buffersize: int | None = None
    total: int | None = None
    resume: str | PathLike[str] | None = None
    seed: int | None = None

    def workers_only(self, jobs: int | None) -> bool:
        """Return whether the calling process must not run any item.

        An item must run in a worker if it may kill its process, must be killed when late, or needs
        what the initializer sets up.

        Args:
            jobs: ``n_jobs`` as a number of workers (see ``count_jobs``), None when not given.
        """
        if self.backend == "serial":
            return False
        if self.is_remote or self.backend == "process" or self.task_timeout is not None:
            return True
        return jobs != 1 and (jobs is not None or self.initializer is not None)

    @property
    def is_remote(self) -> bool:
        """Whether the items are to run on an engine that the caller named."""
        return self.backend is not None and self.backend not in (*BACKENDS, "auto")

    def without_callables(self) -> Options:
        """Return the options without what belongs to the caller: callables and their arguments."""
        if self is DEFAULTS:
            return self
        return self._replace(
            backend=self.backend if isinstance(self.backend, str) else None,
            progress=False,
            initializer=None,
            initargs=(),
            report=None,
            mp_context=None,
        )


DEFAULTS = Options()
_NAMES = frozenset(Options._fields)


def documented(*, lazy: bool) -> Callable[[_Function], _Function]:
    """Return a decorator that lists the options in a function's docstring, for ``help``.

    The options are described once, in the docstring of ``Options``. Its fields give the types and
    defaults.

    Args:
        lazy: whether to list ``buffersize``, which only the ``imap`` forms take.
    """

    def decorate(function: _Function) -> _Function:
        if function.__doc__:  # None under -OO
            function.__doc__ += _listed(lazy=lazy)
        return function

    return decorate


def _listed(*, lazy: bool) -> str:
    """Return the options as a section of a docstring: name, type, default and meaning."""
    left_out = () if lazy else ("buffersize",)
    found: dict[str, list[str]] = {}
    meaning: list[str] = []
    for line in (Options.__doc__ or "").splitlines():
        name, colon, text = line.strip().partition(": ")
        if colon and name in _NAMES:
            meaning = found[name] = [
                f"        {name}: {Options.__annotations__[name]} = {getattr(DEFAULTS, name)!r}."
            ]
            meaning.append(f"            {text[:1].upper()}{text[1:]}")
        elif line.strip():  # a continuation line, or text before the first option
            meaning.append(f"            {line.strip()}")
    lines = (line for name, part in found.items() if name not in left_out for line in part)
    text = "\n".join(["", "    Options, by keyword only:", *lines, "    "])
    return text.replace("\n    ", "\n") if DEDENTS_DOCSTRINGS else text


def make_options(given: dict[str, Any], *, base: Options = DEFAULTS, lazy: bool = False) -> Options:
    """Check ``given`` and return it as Options on top of ``base``.

    Args:
        given: keyword arguments of a call.
        base: values of the options that ``given`` does not name.
        lazy: whether the call is one of the ``imap`` forms; only they take ``buffersize``.

    Raises:
        TypeError: an unknown option, or a value of the wrong type.
        ValueError: a value out of range, or two options that contradict each other.

    >>> make_options({"n_jobs": 2, "timeout": 1.5}).n_jobs
    2
    >>> make_options({"n_jobs": 0})
    Traceback (most recent call last):
    ...
    ValueError: n_jobs=0 is not a number of workers: it takes None, 1 or more, or -1 (all usable \
CPUs), -2 (all but one) and so on
    """
    if not lazy and base.buffersize is not None:
        base = base._replace(buffersize=None)
    if not given:
        return base
    unknown = given.keys() - _NAMES
    if unknown:
        raise TypeError(_unknown(min(unknown)))
    if "buffersize" in given and not lazy:
        raise TypeError(
            "buffersize belongs to smart_imap and smart_imap_unordered: the other forms return "
            "all results at once"
        )
    given = {name: _plain(value) for name, value in given.items()}
    for name, value in given.items():
        _CHECKS[name](name, value)
    if "initargs" in given:
        given = {**given, "initargs": tuple(given["initargs"])}
    options = base._replace(**given)
    _check_together(options)
    return options


# What other libraries call it, and what to say here.
_ELSEWHERE = {
    "n_jobs": ("max_workers", "workers", "num_workers", "n_workers", "processes", "num_processes",
               "nprocesses", "nb_workers", "ncpus", "nodes", "pm_processes"),
    "chunksize": ("chunk_size", "chunk", "batch_size", "pm_chunksize"),
    "progress": ("verbose", "progress_bar", "show_progress", "pbar", "desc", "pm_pbar"),
    "initargs": ("init_args", "initializer_args"),
    "initializer": ("init", "worker_init", "init_func"),
    "mp_context": ("context", "start_method", "ctx"),
    "timeout": ("wait", "time_limit"),
    "task_timeout": ("worker_timeout",),
    "total": ("iterable_len", "length"),
    "buffersize": ("pre_dispatch", "prefetch", "max_tasks_active"),
    "backend": ("prefer", "require", "executor"),
}  # fmt: skip
_BACKENDS_ELSEWHERE = {
    **dict.fromkeys(("threading", "threads", "thread_pool"), "thread"),
    **dict.fromkeys(("loky", "multiprocessing", "processes", "process_pool"), "process"),
    **dict.fromkeys(("sequential", "sync"), "serial"),
}
_OURS = {other: name for name, others in _ELSEWHERE.items() for other in others}
_PARTIAL = ("kwargs", "kwds", "args", "fn_kwargs", "extra_args", "pm_args")


def _unknown(name: str) -> str:
    """Return the message for an option that there is not."""
    text = f"unknown option {name!r}"
    if name in _OURS:
        return f"{text}: here it is {_OURS[name]}"
    if name in _PARTIAL:
        return f"{text}: further arguments of the function go into functools.partial(func, ...)"
    from difflib import get_close_matches  # takes 5 ms to load

    close = get_close_matches(name, _NAMES, 1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"{text}{meant}: the options are {', '.join(sorted(_NAMES))}"


def _plain(value: Any) -> object:
    """Return an integer of another type, such as NumPy's, as an int; anything else unchanged."""
    if isinstance(value, (int, str, float, type)) or not hasattr(value, "__index__"):
        return value
    return index(value)


def count_jobs(n_jobs: int, cpus: int) -> int:
    """Convert ``n_jobs`` into a number of workers, as joblib does.

    Args:
        n_jobs: a number other than 0; -1 means all CPUs, -2 all but one.
        cpus: usable CPUs.

    >>> [count_jobs(n, 8) for n in (3, -1, -2, -100)]
    [3, 8, 7, 1]
    """
    return n_jobs if n_jobs > 0 else max(1, cpus + 1 + n_jobs)


def environment_cap(cpus: int) -> int | None:
    """Return the most workers ``AMORSIZE_N_JOBS`` allows, None when it is not set.

    Args:
        cpus: usable CPUs, for counts below zero.

    Raises:
        ValueError: the variable is not a whole number, or is 0.
    """
    text = os.environ.get("AMORSIZE_N_JOBS")
    if not text:
        return None
    try:
        wanted = int(text)
    except ValueError:
        wanted = 0
    if wanted == 0:
        raise ValueError(
            f"the environment variable AMORSIZE_N_JOBS={text!r} is not a number of workers: it "
            "takes a whole number of 1 or more, or -1 (all usable CPUs), -2 and so on"
        )
    return count_jobs(wanted, cpus)


def check_whole(name: str, value: object, least: int) -> None:
    """Raise unless ``value`` is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r} must be a whole number of {least} or more")
    if value < least:
        raise ValueError(f"{name}={value!r} is too small: it takes a whole number of {least} up")


def check_seconds(name: str, value: object) -> None:
    """Raise unless ``value`` is a finite number of seconds above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}={value!r} must be a number of seconds")
    if not (isfinite(value) and value > 0):
        raise ValueError(f"{name}={value!r} is out of range: it takes seconds above 0")


def check_jobs(name: str, value: object) -> None:
    """Raise unless ``value`` is None or a whole number other than 0."""
    if value is None:
        return
    takes = "None, 1 or more, or -1 (all usable CPUs), -2 (all but one) and so on"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r} is not a number of workers: it takes {takes}")
    if value == 0:
        raise ValueError(f"{name}=0 is not a number of workers: it takes {takes}")


def check_flag(name: str, value: object) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be True or False")


def check_context(name: str, value: object) -> None:
    """Raise unless ``value`` is None, a start method of this platform, or a context."""
    if value is None:
        return
    multiprocessing = load("multiprocessing")  # takes 20 ms, so only when a context is given
    methods = multiprocessing.get_all_start_methods()
    if isinstance(value, str):
        if value not in methods:
            raise ValueError(
                f"{name}={value!r} is not a start method here: it takes {', '.join(methods)}, "
                "or a multiprocessing context"
            )
    elif not isinstance(value, multiprocessing.context.BaseContext):
        raise TypeError(
            f"{name}={value!r} must be the name of a start method ({', '.join(methods)}) or a "
            "multiprocessing context"
        )


def _check_chunksize(name: str, value: object) -> None:
    if value is not None:
        check_whole(name, value, 1)


def _check_total(name: str, value: object) -> None:
    if value is not None:
        check_whole(name, value, 0)


def _check_optional_seconds(name: str, value: object) -> None:
    if value is not None:
        check_seconds(name, value)


def _check_retries(name: str, value: object) -> None:
    check_whole(name, value, 0)


def _check_backend(name: str, value: object) -> None:
    if value is None or (isinstance(value, str) and value in (*BACKENDS, *ENGINES)):
        return
    if not isinstance(value, (str, type)) and callable(getattr(value, "submit", None)):
        return  # an executor, or a Dask client
    kind = ValueError if isinstance(value, str) else TypeError
    ours = _BACKENDS_ELSEWHERE.get(value) if isinstance(value, str) else None
    meant = f"; say {ours!r} for what {value!r} is elsewhere" if ours else ""
    raise kind(
        f"{name}={value!r} is not a backend: it takes None, "
        f"{', '.join(map(repr, (*BACKENDS, *ENGINES)))}, an executor or a Dask client{meant}"
    )


def _check_progress(name: str, value: object) -> None:
    if not (isinstance(value, (bool, str)) or callable(value)):
        raise TypeError(
            f"{name}={value!r} must be True, a description, or a callable taking (done, total)"
        )


def _check_callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name}={value!r} must be a callable or None")


def _check_path(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name}={value!r} must be the path of a file")
    if os.fspath(value) in ("", ":memory:"):
        raise ValueError(f"{name}={value!r} keeps nothing: it takes the path of a file")
    if os.path.isdir(value):
        raise ValueError(f"{name}={value!r} is a folder: it takes the path of a file")


def _check_initargs(name: str, value: object) -> None:
    if not hasattr(value, "__iter__"):
        raise TypeError(f"{name}={value!r} must be a tuple of arguments for the initializer")


_CHECKS: dict[str, Callable[[str, object], None]] = {
    "n_jobs": check_jobs,
    "chunksize": _check_chunksize,
    "backend": _check_backend,
    "mp_context": check_context,
    "progress": _check_progress,
    "timeout": _check_optional_seconds,
    "task_timeout": _check_optional_seconds,
    "retries": _check_retries,
    "return_exceptions": check_flag,
    "initializer": _check_callable,
    "initargs": _check_initargs,
    "use_cache": check_flag,
    "report": _check_callable,
    "buffersize": _check_chunksize,
    "total": _check_total,
    "resume": _check_path,
    "seed": _check_total,
}


def _check_together(options: Options) -> None:
    """Refuse options that contradict each other."""
    if options.initargs and options.initializer is None:
        raise ValueError(f"initargs={options.initargs!r} were given without an initializer")
    if options.task_timeout is not None and options.backend in ("thread", "serial"):
        raise ValueError(
            f"task_timeout needs backend='process' (or None): a late item can only be stopped by "
            f"ending its process, and backend={options.backend!r} has none to end"
        )
    for name in ("task_timeout", "mp_context"):
        if options.is_remote and getattr(options, name) is not None:
            raise ValueError(
                f"{name} is for processes of this machine, and backend={options.backend!r:.80} "
                "starts and ends its workers itself"
            )
    if options.seed is not None and options.backend == "thread":
        raise ValueError(
            f"seed={options.seed} cannot be kept with backend='thread': all threads draw from the "
            "same generators"
        )
