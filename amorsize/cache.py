"""Remembering: one small JSON record for each function, size and time bucket.

A record is advice. It is validated when it is used, and every kind of trouble with it (unreadable,
corrupt, out of range, full disk, read-only home) is a miss: logged once at WARNING on the
``amorsize`` logger, never raised. Loading one can run no code.

Two layers: a dictionary shared by the threads of the process, and the folder. What a run learned
goes into the first at once. It is written to the folder at once when the run was long enough to
pay for the write, and otherwise when the interpreter exits.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

from .decide.machine import Machine
from .decide.model import TIME_BUCKETS, Profile, size_bucket, time_bucket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

__all__ = [
    "FORMAT",
    "TTL_SECONDS",
    "Environment",
    "Record",
    "clear_cache",
    "enabled",
    "environment_of",
    "get_cache_dir",
    "look_up",
    "prune_expired_cache",
    "record_key",
    "remember",
]

FORMAT = 1
TTL_SECONDS = 7 * 24 * 60 * 60
MEMORY_TOLERANCE = 0.2

# A write takes about 0.2 ms (temporary file, rename): a run of ten times that can afford it.
WRITE_AT_ONCE_SECONDS = 0.002
# A remembered profile is written again when it moved by more than this.
DRIFT = 0.25

LARGEST_RECORD_BYTES = 1 << 16  # a record takes 1 kB; more is not one
MOST_REMEMBERED = 2_048  # keys in memory; a record takes about 1 kB

_SIZES = ("tiny", "small", "medium", "large", "xlarge")
_TIMES = tuple(name for name, _ in TIME_BUCKETS)
_FILE_NAME = (  # compiled where it is used: 1 ms, which no hit needs
    rf"func-[0-9a-f]{{16}}_size-(?:{'|'.join(_SIZES)})_time-(?:{'|'.join(_TIMES)})_v-\d+\.json"
)


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a record was measured, as far as its advice depends on it.

    Attributes:
        cores: physical cores.
        cpus: usable CPUs.
        method: start method.
        python: major and minor version, as "3.11".
        memory_bytes: memory the process may have.
    """

    cores: int
    cpus: int
    method: str
    python: str
    memory_bytes: int

    def accepts(self, other: Environment) -> bool:
        """Return whether advice measured in ``other`` holds here."""
        return (
            self.cores == other.cores
            and self.cpus == other.cpus
            and self.method == other.method
            and self.python == other.python
            and abs(self.memory_bytes - other.memory_bytes) <= MEMORY_TOLERANCE * self.memory_bytes
        )


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of one function at one size.

    Attributes:
        func: fingerprint, 16 hexadecimal digits.
        size: size bucket of the data it was measured with.
        items: exact number of items then.
        profile: what was measured.
        executor, n_jobs, chunksize: the plan that was made of it.
        environment: where it was measured.
        updated: when, in seconds since the epoch.
    """

    func: str
    size: str
    items: int
    profile: Profile
    executor: str
    n_jobs: int
    chunksize: int
    environment: Environment
    updated: float

    @property
    def time(self) -> str:
        """The time bucket of its items."""
        return time_bucket(self.profile.item_seconds)

    @property
    def key(self) -> str:
        """The contract's key."""
        return record_key(self.func, self.size, self.time)


def record_key(func: str, size: str, time_: str) -> str:
    """Return the key of a record.

    >>> record_key("00112233445566aa", "small", "fast")
    'func:00112233445566aa_size:small_time:fast_v:1'
    """
    return f"func:{func}_size:{size}_time:{time_}_v:{FORMAT}"


def environment_of(machine: Machine, method: str) -> Environment:
    """Return the environment records made now belong to."""
    return Environment(machine.cores, machine.cpus, method, _PYTHON, machine.memory_bytes)


_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def enabled() -> bool:
    """Return whether the environment leaves the cache on (``AMORSIZE_CACHE=0`` turns it off)."""
    return os.environ.get("AMORSIZE_CACHE", "").strip().lower() not in ("0", "off", "no", "false")


def get_cache_dir() -> Path:
    """Return the folder the records are kept in; it may not exist yet.

    It is ``amorsize/optimization_cache`` in the user's cache folder, or the folder that the
    environment variable ``AMORSIZE_CACHE_DIR`` names.

    Returns:
        An absolute path.
    """
    from pathlib import Path  # 4 ms, which no hit needs

    return Path(_folder())


def look_up(
    func: str, items: int, environment: Environment, *, only_memory: bool = False
) -> Record | None:
    """Return the freshest record of a function and size that is valid here, None on a miss.

    Args:
        func: fingerprint of the function.
        items: number of items of the call.
        environment: what the record must fit.
        only_memory: leave the folder alone.
    """
    size = size_bucket(items)
    slot = (_told_folder(), func, size)
    records = _memory.get(slot)
    if records is None:
        if only_memory:
            return None
        records = {record.time: record for record in _load_all(_folder(), func, size)}
        if records:  # a miss is not kept: another process may write the record meanwhile
            _keep(slot, records)
    now = time.time()
    valid = [r for r in records.values() if _fresh(r, now) and environment.accepts(r.environment)]
    return max(valid, key=lambda record: record.updated, default=None)


def remember(record: Record, *, run_seconds: float, stable: bool) -> None:
    """Keep a record, in memory at once, and in the folder as soon as that is worth it.

    Args:
        record: what to keep.
        run_seconds: how long the run took that taught it.
        stable: False keeps it in this process (see ``Fingerprint.stable``).
    """
    told = _told_folder()
    slot = (told, record.func, record.size)
    records = dict(_memory.get(slot) or {})
    records[record.time] = record
    _keep(slot, records)
    if not stable:
        return
    place = (told, record.key)
    written = _written.get(place)
    if written is not None and not _drifted(written, record):
        return
    if run_seconds >= WRITE_AT_ONCE_SECONDS:
        _pending.pop(place, None)
        _write(told, record)
    else:
        _pending[place] = record


def clear_cache() -> int:
    """Forget everything that was learned, on disk and in this process.

    Returns:
        The number of records removed from the folder.
    """
    _memory.clear()
    _pending.clear()
    _written.clear()
    return sum(_remove(path) for path in _record_files(_folder()))


def prune_expired_cache(ttl_seconds: float = TTL_SECONDS) -> int:
    """Remove records that are too old, and files that are no readable record.

    Args:
        ttl_seconds: age in seconds from which a record is removed.

    Returns:
        The number of records removed from the folder.

    Raises:
        TypeError, ValueError: ``ttl_seconds`` is not a number of 0 or more.
    """
    if isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, (int, float)):
        raise TypeError(f"ttl_seconds={ttl_seconds!r} must be a number of seconds")
    if not ttl_seconds >= 0:
        raise ValueError(f"ttl_seconds={ttl_seconds!r} is out of range: it takes 0 or more seconds")
    now = time.time()
    removed = 0
    for path in _record_files(_folder()):
        record = _load(path)
        if record is None or not _fresh(record, now, ttl_seconds):
            removed += _remove(path)
    _memory.clear()
    _written.clear()
    return removed


# In memory ----------------------------------------------------------------------------------

# Slots are kept apart by what AMORSIZE_CACHE_DIR says: finding the real folder takes longer.
_Slot = tuple[str, str, str]  # told folder, fingerprint, size bucket
_memory: dict[_Slot, dict[str, Record]] = {}  # records by time bucket
_pending: dict[tuple[str, str], Record] = {}  # by told folder and key: to be written at exit
_written: dict[tuple[str, str], Record] = {}  # by told folder and key: as last written


def _keep(slot: _Slot, records: dict[str, Record]) -> None:
    while len(_memory) >= MOST_REMEMBERED:
        _memory.pop(next(iter(_memory)), None)
    _memory[slot] = records


def _fresh(record: Record, now: float, ttl: float = TTL_SECONDS) -> bool:
    # A record from the future was written before the clock was set back: its age is unknown.
    return -60 <= now - record.updated < ttl


def _drifted(old: Record, new: Record) -> bool:
    before, after = old.profile.item_seconds, new.profile.item_seconds
    return (
        abs(after - before) > DRIFT * before
        or old.environment != new.environment
        or new.updated - old.updated > TTL_SECONDS / 14
    )


def _flush() -> None:
    """Write what short runs learned."""
    pending = dict(_pending)
    _pending.clear()
    for (told, _), record in pending.items():
        _write(told, record)


atexit.register(_flush)
# A forked child shares none of the parent's duty to write.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pending.clear)


# On disk ------------------------------------------------------------------------------------


def _told_folder() -> str:
    return os.environ.get("AMORSIZE_CACHE_DIR", "")


def _folder(told: str | None = None) -> str:
    """Return the folder that ``told`` (by default the environment) names."""
    told = _told_folder() if told is None else told
    if told:
        return os.path.abspath(os.path.expanduser(told))
    if not _default_folder:
        from platformdirs import user_cache_dir  # 10 ms, and only the first time

        _default_folder.append(
            os.path.join(user_cache_dir("amorsize", appauthor=False), "optimization_cache")
        )
    return _default_folder[0]


_default_folder: list[str] = []


def _path(folder: str, key: str) -> str:
    """Return the file of a key; a colon is not allowed in names on Windows."""
    return os.path.join(folder, key.replace(":", "-") + ".json")


def _record_files(folder: str) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        _warn("list", f"cannot list {folder}: {error}")
        return
    for name in names:
        if re.fullmatch(_FILE_NAME, name):
            yield os.path.join(folder, name)


def _load_all(folder: str, func: str, size: str) -> Iterator[Record]:
    for bucket in _TIMES:
        record = _load(_path(folder, record_key(func, size, bucket)))
        if record is not None and (record.func, record.size, record.time) == (func, size, bucket):
            _written[_told_folder(), record.key] = record
            yield record


def _load(path: str) -> Record | None:
    """Read one record; None when there is none or it is not to be trusted."""
    try:
        # Without waiting: something odd in the folder (a pipe) must not stop the call.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            text = os.read(descriptor, LARGEST_RECORD_BYTES)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn("read", f"cannot read {path}: {error}")
        return None
    import json  # 1 ms, and only a process that finds a record needs it

    try:
        return _parse(json.loads(text))
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        _warn("damaged", f"{path} is not a record: {type(error).__name__}: {error}")
        return None


def _write(told: str, record: Record) -> None:
    """Write one record under a unique name and rename it: readers see all of it or nothing."""
    import json

    folder = _folder(told)
    path = _path(folder, record.key)
    temporary = f"{path}.{os.getpid()}-{os.urandom(6).hex()}.tmp"
    data = json.dumps({"format": FORMAT, "key": record.key, **asdict(record)}).encode()
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as error:
        _warn("write", f"cannot write {path}: {error}")
    _written[told, record.key] = record


def _remove(path: str) -> int:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return 0
    except OSError as error:
        _warn("remove", f"cannot remove {path}: {error}")
        return 0
    return 1


# Reading what cannot be trusted -------------------------------------------------------------

# The largest value believed for each number; anything beyond is a damaged or hostile record.
_LIMITS = {
    "item_seconds": 1e7,
    "spread": 1e8,
    "least_seconds": 1e7,
    "most_seconds": 1e7,
    "cpu_share": 1e4,
    "arg_bytes": 1e12,
    "result_bytes": 1e12,
    "pickle_seconds": 1e5,
    "memory_bytes": 1 << 50,
    "items": 1 << 62,
    "cores": 1 << 20,
    "cpus": 1 << 20,
    "n_jobs": 1 << 20,
    "chunksize": 1 << 62,
    "updated": 1e12,
}


def _parse(data: dict[str, Any]) -> Record:
    """Build a record of decoded JSON, checking every field's type and range."""
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']!r}, not {FORMAT}")
    profile = Profile(**{f.name: _number(data["profile"], f.name, f.type) for f in _PROFILE})
    environment = data["environment"]
    record = Record(
        func=_fingerprint(data["func"]),
        size=_one_of(data["size"], _SIZES),
        items=_number(data, "items", "int"),
        profile=profile,
        executor=_one_of(data["executor"], ("serial", "thread", "process")),
        n_jobs=_number(data, "n_jobs", "int"),
        chunksize=_number(data, "chunksize", "int"),
        environment=Environment(
            cores=_number(environment, "cores", "int"),
            cpus=_number(environment, "cpus", "int"),
            method=_one_of(environment["method"], ("fork", "spawn", "forkserver", "thread")),
            python=_text(environment["python"]),
            memory_bytes=_number(environment, "memory_bytes", "int"),
        ),
        updated=_number(data, "updated", "float"),
    )
    ordered = 0 < profile.least_seconds <= profile.most_seconds and profile.item_seconds > 0
    if size_bucket(record.items) != record.size or not ordered:
        raise ValueError("its parts contradict each other")
    return record


_PROFILE = fields(Profile)


def _number(data: dict[str, Any], name: str, kind: Any) -> Any:
    value = data[name]
    if isinstance(value, bool) or not isinstance(value, int if kind == "int" else (int, float)):
        raise TypeError(f"{name}={value!r} is not a number")
    if not 0 <= value <= _LIMITS[name]:  # false for NaN, too
        raise ValueError(f"{name}={value!r} is out of range")
    return value


def _one_of(value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return str(value)


def _fingerprint(value: Any) -> str:
    # Without a regular expression: compiling one takes 0.1 ms, a fifth of a first hit.
    if not (isinstance(value, str) and len(value) == 16 and set(value) <= set("0123456789abcdef")):
        raise ValueError(f"{value!r} is no fingerprint")
    return value


def _text(value: Any) -> str:
    if not (isinstance(value, str) and len(value) < 100):
        raise ValueError(f"{value!r} is no short text")
    return value


def _warn(kind: str, message: str) -> None:
    """Log trouble with the cache, each kind of it once."""
    if kind in _warned:
        return
    _warned.add(kind)
    try:
        import logging  # 3 ms, and only trouble needs it
    except OSError:  # no file can be opened, not even that one
        return
    logging.getLogger("amorsize").warning("cache: %s; going on without it", message)


_warned: set[str] = set()
