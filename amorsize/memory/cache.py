"""The cache: records of functions in memory, in the folder, and in a place shared by machines.

A record is advice. It is validated when it is used. Every kind of trouble with it (unreadable,
corrupt, out of range, full disk, read-only home) is a miss: it is logged once at WARNING on the
``amorsize`` logger, never raised. Loading a record cannot run code.

There are three levels: a dictionary shared by the threads of the process, the folder (``store``),
and, if ``AMORSIZE_CACHE_URL`` is set, a place shared by many machines (``remote``). A new record
goes into the dictionary at once. It goes to the other levels at once if the run was long enough to
pay for the write, otherwise when the interpreter exits.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import isfinite

from ..decide.learning import has_drifted
from ..decide.model import Costs, size_bucket
from ..identity.codes import make_room
from ..lookup import load
from ..measure.machine import this_machine
from ..tuples import NamedTuple
from . import remote, store
from .records import (
    FORMAT,
    TIMES,
    Environment,
    Record,
    costs_from_bytes,
    costs_name,
    costs_to_bytes,
    environment_of,
    file_name,
    from_bytes,
    from_data,
    is_costs_name,
    is_leftover,
    is_record_name,
    record_key,
    to_bytes,
    to_data,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, TypeVar

    _Content = TypeVar("_Content")

__all__ = [
    "TTL_SECONDS",
    "CacheStats",
    "Environment",
    "Record",
    "cache_stats",
    "check_cache",
    "clear_cache",
    "enabled",
    "environment_of",
    "export_cache",
    "get_cache_dir",
    "import_cache",
    "load_costs",
    "look_up",
    "note_contradiction",
    "prune_expired_cache",
    "remember",
    "save_costs",
    "told_folder",
]

TTL_SECONDS = 7 * 24 * 60 * 60

# A write takes about 0.2 ms (temporary file, rename): a run of ten times that can afford it.
WRITE_AT_ONCE_SECONDS = 0.002
# A record is written again when its profile has moved by more than this share.
DRIFT = 0.25
# The folder is trimmed to its limits at exit, and after this many writes. Trimming takes 3 ms.
TIDY_AFTER_WRITES = 200

MOST_REMEMBERED = 2_048  # keys in memory; a record takes about 1 kB


told_folder = store.told_folder


def enabled() -> bool:
    """Return whether the cache is on (``AMORSIZE_CACHE=0`` turns it off)."""
    return os.environ.get("AMORSIZE_CACHE", "").strip().lower() not in ("0", "off", "no", "false")


def look_up(
    func: str,
    items: int,
    environment: Environment,
    *,
    only_memory: bool = False,
    otherwise: Callable[[], str] | None = None,
) -> Record | None:
    """Return the newest record of a function and size that is valid here, None on a miss.

    Args:
        func: name of the function: its fingerprint, or the digest of its code.
        items: number of items of the call.
        environment: the environment that the record must fit.
        only_memory: whether to look in memory only, not in the folder.
        otherwise: returns a second name to look up, if there is nothing under ``func``.
    """
    size = size_bucket(items)
    known = _known_of(func, size, environment, only_memory=only_memory)
    if known is None and otherwise is not None:
        known = _known_of(otherwise(), size, environment, only_memory=only_memory)
    if known is None:
        if not only_memory:
            _counts["nothing remembered"] += 1
        return None
    now = time.time()
    fresh = [record for record in known.records.values() if _fresh(record, now)]
    valid = [record for record in fresh if environment.accepts(record.environment)]
    if not valid:
        _counts["another environment" if fresh else "too old"] += 1
        return None
    _counts["hit"] += 1
    return max(valid, key=_age)


def _known_of(
    func: str, size: str, environment: Environment, *, only_memory: bool
) -> _Known | None:
    """Return the records under a name, None when there are none."""
    told = store.told_folder()
    slot = (told, func, size)
    known = _memory.get(slot)
    if known is not None and not all(map(store.exists, known.paths.values())):
        _memory.pop(slot, None)  # another process has cleared the folder
        for record in known.records.values():
            _written.pop((told, record.key), None)
        known = None
    if known is not None or only_memory:
        return known
    known = _Known()
    _load_all(known, told, func, size, environment)
    if not known.records:
        return None  # the miss is not kept: another process may write the record later
    _put(_memory, slot, known)
    return known


def _age(record: Record) -> float:
    return record.updated


def note_contradiction() -> None:
    """Count a hit as a miss, because the run contradicted the record."""
    _counts["hit"] -= 1
    _counts["contradicted by the run"] += 1


def remember(record: Record, *, run_seconds: float, stable: bool) -> None:
    """Keep a record in memory at once, and write it to the folder when that pays.

    Args:
        record: the record.
        run_seconds: duration of the run that it comes from.
        stable: False keeps it in this process (see ``Fingerprint.stable``).
    """
    told = store.told_folder()
    slot = (told, record.func, record.size)
    known = _memory.get(slot)
    if known is None:
        known = _Known()
        _put(_memory, slot, known)
    # Replaced, not changed: another thread may be reading the dictionary.
    known.records = {**known.records, record.time: record}
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
        _put(_pending, place, record)


def load_costs() -> tuple[Costs, float] | None:
    """Return the learned costs of this machine and their age, s.

    None when there are none, or they cannot be read.
    """
    place = _place(store.told_folder())
    found = _read(place, costs_name(this_machine()), costs_from_bytes, "damaged")
    return None if found is None else (found[0], store.age(found[1], time.time()))


def save_costs(costs: Costs) -> None:
    """Write the learned costs of this machine for other processes."""
    name = costs_name(this_machine())
    try:
        store.write(_place(store.told_folder()), name, costs_to_bytes(costs, time.time()))
    except OSError as error:
        _warn("write", f"cannot write {name}: {error}")


# Managing the cache -------------------------------------------------------------------------


def get_cache_dir() -> Path:
    """Return the folder of the records; it may not exist yet.

    It is ``amorsize/optimization_cache`` in the user's cache folder, or the folder that the
    environment variable ``AMORSIZE_CACHE_DIR`` names. If that cannot be determined (no home, no
    working directory), it is the user's own folder among the temporary files.

    Returns:
        An absolute path.
    """
    from pathlib import Path  # takes 4 ms, and a hit does not need it

    return Path(_place(store.told_folder()))


def clear_cache() -> int:
    """Remove all records and learned costs from the folder, and forget the records in memory.

    Other running processes forget their records, too. Records shared through
    ``AMORSIZE_CACHE_URL`` stay, because they belong to others as well.

    Returns:
        The number of records removed from the folder.
    """
    _memory.clear()
    _pending.clear()
    _written.clear()
    place = _place(store.told_folder())
    for entry in _costs_files(place):
        _remove(place, entry.name)
    return sum(_remove(place, entry.name) for entry in _records(place))


def prune_expired_cache(ttl_seconds: float = TTL_SECONDS) -> int:
    """Remove records that are too old, and records that cannot be read.

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
    now, place, removed = time.time(), _place(store.told_folder()), 0
    for entry in _records(place):
        record = _load(place, entry.name)
        if record is None or not _fresh(record, now, ttl_seconds):
            removed += _remove(place, entry.name)
    _memory.clear()
    _written.clear()
    return removed


class CacheStats(NamedTuple):
    """The content of the cache, and its hits and misses in this process.

    Attributes:
        folder: the folder of the records.
        enabled: whether the cache is on (``AMORSIZE_CACHE``).
        entries: number of records in the folder.
        bytes: size of the records.
        oldest_seconds, newest_seconds: ages of the oldest and of the newest record, 0 when there
            are none.
        hits: look-ups of this process that found a record which the run did not contradict.
        misses: all other look-ups of this process, by reason.
    """

    folder: str
    enabled: bool
    entries: int
    bytes: int
    oldest_seconds: float
    newest_seconds: float
    hits: int
    misses: dict[str, int]


def cache_stats() -> CacheStats:
    """Return the content of the cache, and its hits and misses in this process."""
    place, now = _place(store.told_folder()), time.time()
    files = list(_records(place))
    records = [record for record in (_load(place, entry.name) for entry in files) if record]
    ages = [max(0.0, now - record.updated) for record in records]
    return CacheStats(
        folder=place,
        enabled=enabled(),
        entries=len(files),
        bytes=sum(entry.size for entry in files),
        oldest_seconds=max(ages, default=0.0),
        newest_seconds=min(ages, default=0.0),
        hits=_counts["hit"],
        misses={why: count for why, count in _counts.items() if why != "hit" and count},
    )


def check_cache(fix: bool = False) -> list[str]:
    """Check every file in the folder.

    Args:
        fix: whether to remove damaged files of the library. Files that somebody else put into the
            folder are reported, but never removed.

    Returns:
        A line for each problem; none when all is well.
    """
    place, troubles = _place(store.told_folder()), []
    try:
        found = list(store.entries(place))
    except OSError as error:
        return [f"{place} cannot be listed: {error}"]
    for entry in found:
        trouble = _trouble(place, entry)
        if trouble:
            troubles.append(f"{entry.name}: {trouble}")
            if fix and entry.regular and _is_ours(entry.name):
                _remove(place, entry.name)
    if fix and troubles:
        _memory.clear()
        _written.clear()
    return troubles


def _is_ours(name: str) -> bool:
    return is_record_name(name) or is_costs_name(name) or is_leftover(name)


_RULES = store.Rules(_is_ours, is_leftover)


def _trouble(place: str, entry: store.Entry) -> str:
    if not entry.regular:
        return "not a plain file"
    if is_leftover(entry.name):
        return "left by a writer that was killed" if _is_stale(entry) else ""
    if not _is_ours(entry.name):
        return "not a record's name"
    try:
        return _look_into(entry.name, store.read(place, entry.name))
    except (OSError, ValueError, RecursionError) as error:
        return f"not readable: {error}"


def _look_into(name: str, data: bytes | None) -> str:
    if data is None:  # another process has removed it
        return ""
    if is_costs_name(name):
        costs_from_bytes(data)
        return ""
    key = from_bytes(data).key
    return "" if file_name(key) == name else f"it holds the record of {key}"


def export_cache(path: str | os.PathLike[str]) -> int:
    """Write all valid records to one JSON file, for an image or for other users.

    Args:
        path: the file to write.

    Returns:
        The number of records written.

    Raises:
        OSError: the file cannot be written.
    """
    json = load("json")

    _flush()
    place, now = _place(store.told_folder()), time.time()
    records = [_load(place, entry.name) for entry in _records(place)]
    data = [to_data(record) for record in records if record is not None and _fresh(record, now)]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"amorsize": "cache", "format": FORMAT, "records": data}, file, indent=1)
        file.write("\n")
    return len(data)


def import_cache(path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
    """Import records that ``export_cache`` wrote, here or elsewhere.

    They are validated like any other record. A record from another kind of machine is a first
    guess, until the first real run confirms or replaces it.

    Args:
        path: the file to read.
        overwrite: whether imported records replace valid records of the same key.

    Returns:
        The number of records imported.

    Raises:
        OSError: the file cannot be read.
        ValueError: it was not written by ``export_cache``.
    """
    json = load("json")

    with open(path, encoding="utf-8") as file:
        try:
            data = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{os.fspath(path)} is not a file of export_cache: {error}") from error
    known = isinstance(data, dict) and data.get("amorsize") == "cache"
    if not known or not isinstance(data.get("records"), list):
        raise ValueError(f"{os.fspath(path)} is not a file of export_cache")
    told, now, taken = store.told_folder(), time.time(), 0
    for entry in data["records"]:
        try:
            record = from_data(entry)
        except ValueError as error:
            _warn("import", f"a record of {os.fspath(path)} is not valid: {error}")
            continue
        here = environment_of(this_machine(), record.environment.method)
        if not _fresh(record, now) or here.python != record.environment.python:
            continue
        known = _load(_place(told), file_name(record.key))
        if overwrite or known is None or not _fresh(known, now):
            _write(told, _as_guess(record, here))
            taken += 1
    _memory.clear()
    return taken


def _as_guess(record: Record, here: Environment) -> Record:
    """Return a record from elsewhere, as a guess if it comes from another kind of machine."""
    if here.accepts(record.environment):
        return record
    return record._replace(environment=here, guess=True)


# In memory ----------------------------------------------------------------------------------

# Slots are keyed by the value of AMORSIZE_CACHE_DIR: finding the real folder takes longer.
_Slot = tuple[str, str, str]  # configured folder, fingerprint, size bucket


class _Known:
    """The records in memory of one function at one size.

    Attributes:
        records: the records, by time bucket.
        paths: files of the records that are also in the folder; the records are dropped when one of
            these files is gone.
    """

    __slots__ = ("paths", "records")

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.paths: dict[str, str] = {}


_memory: dict[_Slot, _Known] = {}
_pending: dict[tuple[str, str], Record] = {}  # by configured folder and key: to write at exit
_written: dict[tuple[str, str], Record] = {}  # by configured folder and key: as last written
_counts: Counter[str] = Counter()
_places: dict[str, str] = {}
_writes = [0]


def _place(told: str) -> str:
    """Return the real path of a configured folder; keep it if no chdir can change it."""
    place = _places.get(told)
    if place is None:
        try:
            place = store.folder(told)
        except OSError as error:
            place = store.spare_folder()
            which = repr(told) if told else "of this user"
            _warn("place", f"the folder {which} cannot be found ({error})", f"{place} is used")
        if not told or os.path.isabs(told):
            _places[told] = place
    return place


def _put(table: dict[Any, Any], key: object, value: object) -> None:
    """Store a value; drop the oldest values if there are too many."""
    if key not in table:
        make_room(table, MOST_REMEMBERED)
    table[key] = value


def _fresh(record: Record, now: float, ttl: float | None = None) -> bool:
    # A record from the future was written before the clock was set back: its age is unknown.
    return -60 <= now - record.updated < (_ttl() if ttl is None else ttl)


def _ttl() -> float:
    """Return how long records live, s: a week, or ``AMORSIZE_CACHE_TTL`` as first read."""
    if not _ttls:
        _ttls.append(_told_ttl(os.environ.get("AMORSIZE_CACHE_TTL", "")))
    return _ttls[0]


def _told_ttl(told: str) -> float:
    if not told:
        return TTL_SECONDS
    try:
        seconds = float(told)
    except ValueError:
        seconds = -1.0
    if isfinite(seconds) and seconds >= 0:
        return seconds
    _warn("ttl", f"AMORSIZE_CACHE_TTL={told!r} is no number of seconds", "it is ignored")
    return TTL_SECONDS


_ttls: list[float] = []


def _drifted(old: Record, new: Record) -> bool:
    """Return whether a record is worth writing again."""
    return _is_news(old, new) or has_drifted(old.profile, new.profile, DRIFT)


def _is_news(old: Record, new: Record) -> bool:
    """Return whether a record is worth publishing to other machines again.

    Other machines use it as a first guess, so changes that come and go with the load are ignored.
    """
    before, after = old.profile.item_seconds, new.profile.item_seconds
    return (
        abs(after - before) > DRIFT * before
        or old.environment != new.environment
        or old.guess != new.guess
        # Every half day; at once if the old record is from the future, since that is ignored.
        or not 0 <= new.updated - old.updated <= TTL_SECONDS / 14
    )


def _flush() -> None:
    """Write the records of short runs."""
    pending = dict(_pending)
    _pending.clear()
    for (told, _), record in pending.items():
        _write(told, record)


def _at_exit() -> None:
    _flush()
    if _writes[0]:
        _tidy(store.told_folder())


atexit.register(_at_exit)
# Flushed earlier as well: from Python 3.12 on, no thread can be started once atexit functions run,
# and without a thread nothing limits the time that the shared place takes.
with suppress(AttributeError, RuntimeError):  # not public; and the interpreter may be shutting down
    threading._register_atexit(_flush)  # type: ignore[attr-defined]
# A forked child must not write the pending records of its parent.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pending.clear)


# On disk ------------------------------------------------------------------------------------


def _is_stale(entry: store.Entry) -> bool:
    return store.age(entry.used, time.time()) > store.STALE_SECONDS


def _records(place: str) -> Iterator[store.Entry]:
    try:
        for entry in store.entries(place):
            if entry.regular and is_record_name(entry.name):
                yield entry
    except OSError as error:
        _warn("list", f"cannot list {place}: {error}")


def _costs_files(place: str) -> Iterator[store.Entry]:
    try:
        yield from (e for e in store.entries(place) if e.regular and is_costs_name(e.name))
    except OSError as error:
        _warn("list", f"cannot list {place}: {error}")


def _load_all(known: _Known, told: str, func: str, size: str, here: Environment) -> None:
    """Load the records of a function and size, or the shared ones if the folder has none."""
    place = _place(told)
    keys = {record_key(func, size, bucket): bucket for bucket in TIMES}
    for key, bucket in keys.items():
        name = file_name(key)
        record = _load(place, name)
        if record is not None and record.key == key:
            known.records[bucket] = record
            _put(_written, (told, key), record)
            known.paths[bucket] = os.path.join(place, name)
    if known.records or not os.environ.get("AMORSIZE_CACHE_URL"):
        return
    for found in _shared(list(keys)):
        if found.environment.python == here.python and found.environment.method == here.method:
            record = _as_guess(found, here)
            known.records[record.time] = record
            _put(_pending, (told, record.key), record)  # for the next process on this machine


def _shared(keys: list[str]) -> Iterator[Record]:
    try:
        found = remote.fetch([file_name(key) for key in keys])
    except OSError as error:
        _warn("shared", f"the shared cache is of no use now: {error}")
        return
    for data in found:
        try:
            record = from_bytes(data)
        except (ValueError, RecursionError) as error:
            _warn("shared record", f"the shared cache holds what is not a record: {error}")
            continue
        if record.key in keys:
            yield record


def _load(place: str, name: str) -> Record | None:
    """Read one record; None when there is none or it is not valid."""
    return _read(place, name, from_bytes, "not a record")


def _read(
    place: str, name: str, parse: Callable[[bytes], _Content], otherwise: str
) -> _Content | None:
    """Read one file; None when there is none or it is not valid."""
    try:
        data = store.read(place, name)
        return None if data is None else parse(data)
    except OSError as error:
        _warn("read", f"cannot read {os.path.join(place, name)}: {error}")
    except (ValueError, RecursionError) as error:
        _warn("damaged", f"{os.path.join(place, name)} is {otherwise}: {error}")
    return None


def _write(told: str, record: Record) -> None:
    name, data = file_name(record.key), to_bytes(record)
    try:
        place = _place(told)
        store.write(place, name, data)
    except OSError as error:
        _warn("write", f"cannot write {name}: {error}")
    else:
        known = _memory.get((told, record.func, record.size))
        if known is not None:
            known.paths = {**known.paths, record.time: os.path.join(place, name)}
    before = _written.get((told, record.key))
    shared = not record.guess and bool(os.environ.get("AMORSIZE_CACHE_URL"))
    if shared and (before is None or _is_news(before, record)):
        try:
            remote.publish(name, data, _ttl())
        except OSError as error:
            _warn("shared", f"the shared cache is of no use now: {error}")
    _put(_written, (told, record.key), record)
    _writes[0] += 1
    if _writes[0] % TIDY_AFTER_WRITES == 0:
        _tidy(told)


def _tidy(told: str) -> None:
    try:
        store.limit(_place(told), _ttl(), _RULES)
    except OSError as error:
        _warn("limit", f"cannot keep the folder within its limits: {error}")
    with suppress(OSError):  # another process will remove the rest
        remote.tidy(_ttl(), _RULES)


def _remove(place: str, name: str) -> int:
    try:
        return int(store.remove(place, name))
    except OSError as error:
        _warn("remove", f"cannot remove {os.path.join(place, name)}: {error}")
        return 0


def _warn(kind: str, message: str, remedy: str = "going on without it") -> None:
    """Log a problem with the cache, each kind once."""
    if kind in _warned:
        return
    _warned.add(kind)
    try:
        import logging  # takes 3 ms, and only a problem needs it
    except OSError:  # no file can be opened, not even the module's
        return
    logging.getLogger("amorsize").warning("cache: %s; %s", message, remedy)


_warned: set[str] = set()
