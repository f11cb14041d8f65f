"""``amorsize machine``, ``cache``, ``doctor`` and ``demo``: what there is to know."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator

from ..call.costs import machine_costs
from ..measure.machine import (
    choose_start_method,
    free_memory,
    this_machine,
    waiting_programs,
)
from ..memory import manage
from ..tuples import NamedTuple
from ..units import counted, duration, memory
from .targets import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

__all__ = ["run_demo", "tell_cache", "tell_health", "tell_machine"]


def _say(text: str) -> None:
    print(text)


# The machine --------------------------------------------------------------------------------


def tell_machine(given: Namespace) -> None:
    """Print what this process may use, and what workers cost here.

    Args:
        given: the arguments of ``amorsize machine``.
    """
    machine, (method, why) = this_machine(), choose_start_method(None, about_to=False)
    costs = machine_costs()
    first = costs.of(method).base + costs.of(method).each + costs.of(method).latency
    data: dict[str, Any] = {
        "usable_cpus": machine.cpus,
        "usable_cpus_reason": machine.reason,
        "physical_cores": machine.cores,
        "memory": machine.memory_bytes,
        "memory_available": free_memory(),
        "start_method": method,
        "start_method_reason": why,
        "costs": {
            "first_worker_seconds": first,
            "chunk_seconds": costs.chunk_seconds,
            "byte_seconds": costs.byte_seconds,
            "shared_byte_seconds": costs.shared_seconds,
            "contention": costs.contention,
            "forecast_error": costs.error,
        },
    }
    if given.json:
        _say(json.dumps(data, indent=1))
        return
    _say(f"usable_cpus       {machine.cpus} ({machine.reason})")
    _say(f"physical_cores    {machine.cores}")
    _say(f"memory            {memory(machine.memory_bytes)} ({machine.memory_reason})")
    _say(f"memory_available  {memory(data['memory_available'])}")
    _say(f"start_method      {method} ({why})")
    _say("costs, as measured so far:")
    _say(f"  a first worker  {duration(first)}")
    _say(f"  a chunk         {duration(costs.chunk_seconds)}")
    _say(f"  1 MB, by pipe   {duration(1e6 * costs.byte_seconds)}")
    _say(f"  1 MB, shared    {duration(1e6 * costs.shared_seconds)}")
    _say(f"  contention      {costs.contention:.0%} longer while all CPUs are busy")
    _say(f"  forecasts       off by {costs.error:.0%} lately")


# The cache ----------------------------------------------------------------------------------


def tell_cache(given: Namespace) -> int:
    """Carry out ``amorsize cache ...``; return the exit code.

    Args:
        given: its arguments.

    Raises:
        UsageError: a file cannot be read or written.
    """
    return _CACHE[given.action](given) or 0


def _list_cache(given: Namespace) -> None:
    records = manage.cache_records()
    now = time.time()
    if given.json:
        _say(
            json.dumps(
                [
                    {
                        "key": record.key,
                        "items": record.items,
                        "item_seconds": record.profile.item_seconds,
                        "executor": record.executor,
                        "n_jobs": record.n_jobs,
                        "chunksize": record.chunksize,
                        "age_seconds": max(0.0, now - record.updated),
                    }
                    for record in records
                ],
                indent=1,
            )
        )
        return
    for record in records:
        each = duration(record.profile.item_seconds)
        age = duration(max(0.0, now - record.updated))
        _say(
            f"{record.func}  {counted(record.items, 'item'):>14} of {each:>7}  "
            f"{record.executor:>7} {record.n_jobs:>3}  {age} old"
        )


def _tell_stats(given: Namespace) -> None:
    stats = manage.cache_stats()
    if given.json:
        _say(json.dumps(stats._asdict(), indent=1))
        return
    _say(f"folder   {stats.folder}{'' if stats.enabled else ' (off: AMORSIZE_CACHE=0)'}")
    _say(f"records  {stats.entries}, {stats.bytes:,} bytes")
    if stats.entries:
        _say(f"age      {duration(stats.newest_seconds)} to {duration(stats.oldest_seconds)}")


def _check(given: Namespace) -> int:
    troubles = manage.check_cache(fix=given.fix)
    for trouble in troubles:
        _say(trouble)
    if not troubles:
        _say("all records are sound")
    return 1 if troubles and not given.fix else 0


def _move(given: Namespace) -> None:
    try:
        if given.action == "export":
            _say(f"{counted(manage.export_cache(given.file), 'record')} written")
        else:
            taken = manage.import_cache(given.file, overwrite=given.overwrite)
            _say(f"{counted(taken, 'record')} imported")
    except OSError as error:
        raise UsageError(f"{given.file!r}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error


_CACHE: dict[str, Callable[[Namespace], int | None]] = {
    "dir": lambda _: _say(str(manage.get_cache_dir())),
    "list": _list_cache,
    "stats": _tell_stats,
    "clear": lambda _: _say(f"{counted(manage.clear_cache(), 'record')} removed"),
    "prune": lambda _: _say(f"{counted(manage.prune_expired_cache(), 'record')} removed"),
    "check": _check,
    "export": _move,
    "import": _move,
}


# Health -------------------------------------------------------------------------------------

OK, NOTE, BAD = "ok", "note", "bad"
_COLOURS = {OK: "32", NOTE: "33", BAD: "31"}
_LEAST_FILES = 256
_LEAST_SHARED_BYTES = 64_000_000
_EXTRAS = {
    "dask": "distributed", "joblib": "joblib", "otel": "opentelemetry-api", "plot": "matplotlib",
    "progress": "tqdm", "ray": "ray", "redis": "redis", "threads": "threadpoolctl",
}  # fmt: skip


class Finding(NamedTuple):
    """Something that was looked at.

    Attributes:
        mark: ``OK``, ``NOTE`` for what may surprise, ``BAD`` for what does not work.
        what: what was looked at.
        text: what was found, and what to do.
    """

    mark: str
    what: str
    text: str


def tell_health(given: Namespace) -> int:
    """Print what works here and what would surprise; return 1 if something does not work.

    Args:
        given: the arguments of ``amorsize doctor``.
    """
    del given
    bad = False
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for mark, what, text in _findings():
        bad = bad or mark == BAD
        shown = f"\x1b[{_COLOURS[mark]}m{mark:4}\x1b[0m" if coloured else f"{mark:4}"
        _say(f"{shown}  {what:14} {text}")
    return int(bad)


def _findings() -> Iterator[Finding]:
    yield _of_python()
    machine = this_machine()
    limited = OK if machine.cpus > 1 else NOTE
    alone = "" if machine.cpus > 1 else "; computing functions will run in the calling process"
    yield Finding(limited, "CPUs", f"{machine}{alone}")
    if (waiting := waiting_programs()) >= (os.cpu_count() or 1):
        yield Finding(NOTE, "load", f"{waiting} threads of other programs want to run now")
    yield from _of_start_methods()
    yield from _of_limits()
    yield from _of_cache()
    yield from _of_environment()
    yield _of_extras()


def _of_python() -> Finding:
    from .. import __version__
    from ..versions import KNOWS_BYTECODE, NAME

    text = f"{NAME} on {sys.platform}, amorsize {__version__}"
    if KNOWS_BYTECODE:
        return Finding(OK, "Python", text)
    return Finding(
        NOTE, "Python", f"{text}; newer than the tested ones: what is learned stays in the process"
    )


def _of_start_methods() -> Iterator[Finding]:
    """Start a worker by each method, and have it answer."""
    import multiprocessing

    from ..api import smart_map

    chosen, why = choose_start_method(None, about_to=False)
    yield Finding(OK, "start method", f"{chosen}: {why}")
    for method in multiprocessing.get_all_start_methods():
        begun = time.perf_counter()
        try:
            smart_map(abs, [-1, -2], n_jobs=2, mp_context=method, use_cache=False, timeout=30)
        except Exception as error:  # noqa: BLE001 - what is wrong here is what is asked for
            yield Finding(BAD, method, f"workers do not answer: {type(error).__name__}: {error}")
        else:
            took = duration(time.perf_counter() - begun)
            yield Finding(OK, method, f"two workers were started, answered and ended in {took}")


def _of_limits() -> Iterator[Finding]:
    if sys.platform == "linux":
        try:
            free = shutil.disk_usage("/dev/shm").free
        except OSError as error:
            yield Finding(NOTE, "/dev/shm", f"cannot be used ({error}): large data go by files")
        else:
            mark = OK if free >= _LEAST_SHARED_BYTES else NOTE
            more = "" if mark == OK else ": large data go by pipes; docker run --shm-size=1g"
            yield Finding(mark, "/dev/shm", f"{memory(free)} free{more}")
    try:
        import resource
    except ImportError:
        return
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    mark = OK if files == resource.RLIM_INFINITY or files >= _LEAST_FILES else NOTE
    yield Finding(mark, "open files", "no limit" if files < 0 else f"at most {files:,} (ulimit -n)")


def _of_cache() -> Iterator[Finding]:
    stats = manage.cache_stats()
    if not stats.enabled:
        yield Finding(NOTE, "cache", "off (AMORSIZE_CACHE=0): nothing is remembered")
        return
    folder = stats.folder
    while not os.path.exists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    if not os.access(folder, os.W_OK):
        yield Finding(NOTE, "cache", f"{stats.folder} cannot be written: nothing is remembered")
        return
    yield Finding(OK, "cache", f"{counted(stats.entries, 'record')} in {stats.folder}")
    if troubles := manage.check_cache():
        yield Finding(
            NOTE, "cache", f"{counted(len(troubles), 'problem')}: see amorsize cache check"
        )


def _of_environment() -> Iterator[Finding]:
    names = sorted(name for name in os.environ if name.startswith("AMORSIZE_"))
    threads = [name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ]
    for name in (*names, *threads):
        yield Finding(NOTE, "environment", f"{name}={os.environ[name]}")


def _of_extras() -> Finding:
    found = {extra: _version(package) for extra, package in _EXTRAS.items()}
    have = ", ".join(f"{extra} ({version})" for extra, version in found.items() if version)
    lack = ", ".join(extra for extra, version in found.items() if not version)
    return Finding(OK, "extras", f"installed: {have or 'none'}; not installed: {lack or 'none'}")


def _version(package: str) -> str:
    """Return the version of an installed package, "" for none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


# The demonstration --------------------------------------------------------------------------

_DEMO_ITEMS = 400


def count_primes(number: int) -> int:
    """Return how many primes there are among 200 numbers from a million on."""
    begin = 1_000_000 + 200 * number
    return sum(all(n % k for k in range(2, math.isqrt(n) + 1)) for n in range(begin, begin + 200))


def run_demo(given: Namespace) -> None:
    """Run an example, and show what was decided.

    Args:
        given: the arguments of ``amorsize demo``.
    """
    del given
    from ..api import smart_map
    from ..call.latest import last_run

    _say(f"[count_primes(n) for n in range({_DEMO_ITEMS})], by hand:")
    begun = time.perf_counter()
    expected = [count_primes(number) for number in range(_DEMO_ITEMS)]
    serial = time.perf_counter() - begun
    _say(f"  {duration(serial)}")
    _say(f"smart_map(count_primes, range({_DEMO_ITEMS})):")
    begun = time.perf_counter()
    found = smart_map(count_primes, range(_DEMO_ITEMS))
    took = time.perf_counter() - begun
    same = "the same results" if found == expected else "OTHER RESULTS: please report this"
    _say(f"  {duration(took)}, {serial / took:.2f} times as fast, {same}")
    _say("last_run().explain():")
    _say("\n".join(f"  {line}" for line in str(last_run()).splitlines()))
