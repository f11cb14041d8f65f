"""The functions with which a person manages the cache."""

from __future__ import annotations

import os
import time

from ..lookup import load
from ..measure.machine import this_machine
from ..tuples import NamedTuple
from . import store
from .cache import CACHE, HIT, as_guess, enabled, is_fresh
from .places import RULES, TTL_SECONDS
from .records import (
    FORMAT,
    costs_from_bytes,
    environment_of,
    file_name,
    from_bytes,
    from_data,
    is_costs_name,
    is_leftover,
    to_data,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from .records import Record

__all__ = [
    "CacheStats",
    "cache_records",
    "cache_stats",
    "check_cache",
    "clear_cache",
    "export_cache",
    "get_cache_dir",
    "import_cache",
    "prune_expired_cache",
]


def get_cache_dir() -> Path:
    """Return the folder of the records; it may not exist yet.

    It is ``amorsize/optimization_cache`` in the user's cache folder, or the folder that the
    environment variable ``AMORSIZE_CACHE_DIR`` names. If that cannot be determined (no home, no
    working directory), it is the user's own folder among the temporary files.

    Returns:
        An absolute path.
    """
    from pathlib import Path  # takes 4 ms, and a hit does not need it

    CACHE.catch_up()
    return Path(CACHE.places.folder())


def clear_cache() -> int:
    """Remove all records and learned costs from the folder, and forget the records in memory.

    Other running processes forget their records, too. Records shared through
    ``AMORSIZE_CACHE_URL`` stay, because they belong to others as well.

    Returns:
        The number of records removed from the folder.
    """
    CACHE.catch_up()
    CACHE.forget_records()
    places, folder = CACHE.places, CACHE.places.folder()
    for entry in places.costs_files(folder):
        places.remove(folder, entry.name)
    return sum(places.remove(folder, entry.name) for entry in places.record_files(folder))


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
    CACHE.catch_up()
    places, folder, now, removed = CACHE.places, CACHE.places.folder(), time.time(), 0
    for entry in places.record_files(folder):
        record = places.load(folder, entry.name)
        if record is None or not is_fresh(record, now, ttl_seconds):
            removed += places.remove(folder, entry.name)
    CACHE.forget_records(pending=False)
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
    CACHE.catch_up()
    places, folder, now = CACHE.places, CACHE.places.folder(), time.time()
    files = list(places.record_files(folder))
    records = [record for record in (places.load(folder, entry.name) for entry in files) if record]
    ages = [max(0.0, now - record.updated) for record in records]
    return CacheStats(
        folder=folder,
        enabled=enabled(),
        entries=len(files),
        bytes=sum(entry.size for entry in files),
        oldest_seconds=max(ages, default=0.0),
        newest_seconds=min(ages, default=0.0),
        hits=CACHE.counts[HIT],
        misses={why: count for why, count in CACHE.counts.items() if why != HIT and count},
    )


def cache_records() -> list[Record]:
    """Return all valid records, the newest first."""
    CACHE.catch_up()
    places, folder = CACHE.places, CACHE.places.folder()
    found = (places.load(folder, entry.name) for entry in places.record_files(folder))
    return sorted(filter(None, found), key=lambda record: -record.updated)


def check_cache(fix: bool = False) -> list[str]:
    """Check every file in the folder.

    Args:
        fix: whether to remove damaged files of the library. Files that somebody else put into the
            folder are reported, but never removed.

    Returns:
        A line for each problem; none when all is well.
    """
    CACHE.catch_up()
    folder, troubles = CACHE.places.folder(), []
    try:
        found = list(store.entries(folder))
    except OSError as error:
        return [f"{folder} cannot be listed: {error}"]
    for entry in found:
        trouble = _trouble(folder, entry)
        if trouble:
            troubles.append(f"{entry.name}: {trouble}")
            if fix and entry.regular and RULES.is_ours(entry.name):
                CACHE.places.remove(folder, entry.name)
    if fix and troubles:
        CACHE.forget_records(pending=False)
    return troubles


def _trouble(folder: str, entry: store.Entry) -> str:
    if not entry.regular:
        return "not a plain file"
    if is_leftover(entry.name):
        stale = store.age(entry.used, time.time()) > store.STALE_SECONDS
        return "left by a writer that was killed" if stale else ""
    if not RULES.is_ours(entry.name):
        return "not a record's name"
    try:
        return _look_into(entry.name, store.read(folder, entry.name))
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

    CACHE.flush()
    places, folder, now = CACHE.places, CACHE.places.folder(), time.time()
    records = [places.load(folder, entry.name) for entry in places.record_files(folder)]
    data = [to_data(one) for one in records if one is not None and CACHE.is_fresh(one, now)]
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
    configured, now, taken = store.configured_dir(), time.time(), 0
    for entry in data["records"]:
        try:
            record = from_data(entry)
        except ValueError as error:
            CACHE.places.warn("import", f"a record of {os.fspath(path)} is not valid: {error}")
            continue
        here = environment_of(this_machine(), record.environment.method)
        if not CACHE.is_fresh(record, now) or here.python != record.environment.python:
            continue
        known = CACHE.places.load(CACHE.places.folder(), file_name(record.key))
        if overwrite or known is None or not CACHE.is_fresh(known, now):
            CACHE.write(configured, as_guess(record, here))
            taken += 1
    CACHE.forget_records(pending=False, written=False)
    return taken
