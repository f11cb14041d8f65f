"""The cache: records of functions in memory, in the folder, and in a place shared by machines.

A record is advice. It is validated when it is used. Every kind of trouble with it is a miss, never
an error. Loading a record cannot run code.

There are three levels: a dictionary shared by the threads of the process, the folder, and, if
``AMORSIZE_CACHE_URL`` is set, a place shared by many machines (``places`` has both). A new record
goes into the dictionary at once. It goes to the other levels at once if the run was long enough to
pay for the write, otherwise when the interpreter exits.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from ..decide.figures import UNKNOWN_SIZE, Costs, size_bucket
from ..decide.learning import has_drifted
from ..identity.codes import make_room
from ..lookup import loaded
from . import store
from .places import TTL_SECONDS, Places
from .records import TIMES, Environment, Record, file_name, record_key, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CACHE", "HIT", "Cache", "as_guess", "enabled", "is_fresh"]

# A write takes about 0.2 ms (temporary file, rename): a run of ten times that can afford it.
WRITE_AT_ONCE_SECONDS = 0.002
# The first write loads ``json``, which takes 2.5 ms: a run of this length can afford that. After
# shorter runs, records and costs are written at exit.
LOAD_JSON_SECONDS = 0.2
# A record is written again when its profile has moved by more than this share.
DRIFT = 0.25

MOST_REMEMBERED = 2_048  # keys in memory; a record takes about 1 kB

HIT = "hit"  # the entry of ``Cache.counts`` that is not a reason for a miss


def enabled() -> bool:
    """Return whether the cache is on (``AMORSIZE_CACHE=0`` turns it off)."""
    return os.environ.get("AMORSIZE_CACHE", "").strip().lower() not in ("0", "off", "no", "false")


def is_fresh(record: Record, now: float, ttl: float) -> bool:
    """Return whether a record is younger than ``ttl`` seconds.

    A record from the future was written before the clock was set back: its age is unknown.
    """
    return -60 <= now - record.updated < ttl


def as_guess(record: Record, here: Environment) -> Record:
    """Return a record from elsewhere, as a guess if it comes from another kind of machine."""
    if here.accepts(record.environment):
        return record
    return record._replace(environment=here, guess=True)


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


# By configured folder, since finding the real one takes longer.
_Slot = tuple[str, str, str]  # configured folder, name of the function, size bucket
_Key = tuple[str, str]  # configured folder, key of the record


class Cache:
    """The records of one process, and the way to those of others.

    All threads of the process share it. The lock is held for changes in memory, never while a file
    is read or written.

    Attributes:
        places: the folder and the shared place.
        counts: number of look-ups, by ``HIT`` and the reasons for misses.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget everything, as a new process would."""
        self._lock = threading.RLock()  # a signal handler may run in the middle of a change
        self._known: dict[_Slot, _Known] = {}
        self._pending: dict[_Key, Record] = {}  # to write at exit
        # To write once ``json`` is loaded, at exit at the latest; the costs by configured folder.
        self._postponed: dict[_Key, Record] = {}
        self._postponed_costs: dict[str, Costs] = {}
        self._written: dict[_Key, Record] = {}  # as last written
        self.places = Places()
        self.counts: Counter[str] = Counter()

    def forget_records(self, *, pending: bool = True, written: bool = True) -> None:
        """Forget the records in memory, because the folder has changed.

        Args:
            pending: whether to forget the records that are to be written at exit, too.
            written: whether to forget which records have been written, too.
        """
        with self._lock:
            self._known.clear()
            if pending:
                self._pending.clear()
                self._postponed.clear()
                self._postponed_costs.clear()
            if written:
                self._written.clear()

    def leave_to_parent(self) -> None:
        """Leave the pending records to the parent, in a forked child."""
        self._lock = threading.RLock()  # another thread may have held it
        self.places.renew_lock()
        self._pending.clear()
        self._postponed.clear()
        self._postponed_costs.clear()

    # Records --------------------------------------------------------------------------------

    def look_up(
        self,
        func: str,
        items: int | None,
        environment: Environment,
        *,
        only_memory: bool = False,
        otherwise: Callable[[], str] | None = None,
    ) -> Record | None:
        """Return the newest record of a function and size that is valid here, None on a miss.

        Args:
            func: name of the function: its fingerprint, or the digest of its code.
            items: number of items of the call, None when unknown; such records are in memory only.
            environment: the environment that the record must fit.
            only_memory: whether to look in memory only, not in the folder.
            otherwise: returns a second name to look up, if there is nothing under ``func``.
        """
        size = UNKNOWN_SIZE if items is None else size_bucket(items)
        known = self._known_of(func, size, environment, only_memory=only_memory)
        if known is None and otherwise is not None:
            known = self._known_of(otherwise(), size, environment, only_memory=only_memory)
        if known is None:
            if not only_memory:
                self._count("nothing remembered")
            return None
        now = time.time()
        fresh = [record for record in known.records.values() if self.is_fresh(record, now)]
        valid = [record for record in fresh if environment.accepts(record.environment)]
        if not valid:
            self._count("another environment" if fresh else "too old")
            return None
        if items is not None:  # the statistics count look-ups of records that are kept
            self._count(HIT)
        return max(valid, key=_age)

    def note_contradiction(self) -> None:
        """Count a hit as a miss, because the run contradicted the record."""
        self._count(HIT, -1)
        self._count("contradicted by the run")

    def remember(self, record: Record, *, run_seconds: float, stable: bool) -> None:
        """Keep a record in memory at once, and write it to the folder when that pays.

        Args:
            record: the record.
            run_seconds: duration of the run that it comes from.
            stable: False keeps it in this process (see ``Fingerprint.stable``).
        """
        configured = store.configured_dir()
        slot = (configured, record.func, record.size)
        with self._lock:
            known = self._known.get(slot)
            if known is None:
                known = _Known()
                self._put(self._known, slot, known)
            # Replaced, not changed: another thread may be reading the dictionary.
            known.records = {**known.records, record.time: record}
        if not stable:
            return
        key = (configured, record.key)
        written = self._written.get(key)
        if written is not None and not _has_drifted(written, record):
            return
        if run_seconds < WRITE_AT_ONCE_SECONDS:
            self._put(self._pending, key, record)
            return
        with self._lock:
            self._pending.pop(key, None)
        self._put(self._postponed, key, record)
        if run_seconds >= LOAD_JSON_SECONDS or loaded("json"):
            self.catch_up()

    def is_fresh(self, record: Record, now: float) -> bool:
        """Return whether a record is younger than records live."""
        return is_fresh(record, now, self.places.ttl_seconds())

    def _known_of(
        self, func: str, size: str, environment: Environment, *, only_memory: bool
    ) -> _Known | None:
        """Return the records under a name, None when there are none."""
        configured = store.configured_dir()
        slot = (configured, func, size)
        known = self._known.get(slot)
        if known is not None and not all(map(store.exists, known.paths.values())):
            with self._lock:  # another process has cleared the folder
                self._known.pop(slot, None)
                for record in known.records.values():
                    self._written.pop((configured, record.key), None)
            known = None
        if known is not None or only_memory:
            return known
        known = _Known()
        self._load_all(known, configured, func, size, environment)
        if not known.records:
            return None  # the miss is not kept: another process may write the record later
        self._put(self._known, slot, known)
        return known

    def _load_all(
        self, known: _Known, configured: str, func: str, size: str, here: Environment
    ) -> None:
        """Load the records of a function and size, or the shared ones if the folder has none."""
        folder = self.places.folder_of(configured)
        keys = {record_key(func, size, bucket): bucket for bucket in TIMES}
        for key, bucket in keys.items():
            name = file_name(key)
            record = self.places.load(folder, name)
            if record is not None and record.key == key:
                known.records[bucket] = record
                self._put(self._written, (configured, key), record)
                known.paths[bucket] = os.path.join(folder, name)
        if known.records or not os.environ.get("AMORSIZE_CACHE_URL"):
            return
        for found in self.places.shared(list(keys)):
            if found.environment.python == here.python and found.environment.method == here.method:
                record = as_guess(found, here)
                known.records[record.time] = record
                # For the next process on this machine.
                self._put(self._pending, (configured, record.key), record)

    def _put(self, table: dict[Any, Any], key: object, value: object) -> None:
        """Store a value; drop the oldest values if there are too many."""
        with self._lock:
            if key not in table:
                make_room(table, MOST_REMEMBERED)
            table[key] = value

    def _count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self.counts[what] += by

    # Learned costs --------------------------------------------------------------------------

    def load_costs(self) -> tuple[Costs, float] | None:
        """Return the learned costs of this machine and their age, s.

        None when there are none, or they cannot be read.
        """
        found = self.places.load_costs()
        return None if found is None else (found[0], store.age(found[1], time.time()))

    def save_costs(self, costs: Costs) -> None:
        """Write the learned costs of this machine for other processes, now or at exit."""
        with self._lock:
            self._postponed_costs[store.configured_dir()] = costs
        if loaded("json"):
            self.catch_up()

    # Writing --------------------------------------------------------------------------------

    def write(self, configured: str, record: Record) -> None:
        """Write a record to a configured folder, and to the place that machines share."""
        name, data = file_name(record.key), to_bytes(record)
        path = self.places.write(configured, name, data)
        known = self._known.get((configured, record.func, record.size))
        if path is not None and known is not None:
            known.paths = {**known.paths, record.time: path}
        before = self._written.get((configured, record.key))
        shared = not record.guess and bool(os.environ.get("AMORSIZE_CACHE_URL"))
        if shared and (before is None or _is_news(before, record)):
            self.places.publish(name, data)
        self._put(self._written, (configured, record.key), record)
        self.places.count_write(configured)

    def flush(self) -> None:
        """Write all that was not written yet."""
        with self._lock:
            pending = dict(self._pending)
            self._pending.clear()
            self._postponed.update(pending)
        self.catch_up()

    def catch_up(self) -> None:
        """Write what was postponed until ``json`` would be loaded."""
        with self._lock:
            records, costs = dict(self._postponed), dict(self._postponed_costs)
            self._postponed.clear()
            self._postponed_costs.clear()
        for (configured, _), record in records.items():
            self.write(configured, record)
        for configured, learned in costs.items():
            self.places.write_costs(configured, learned)

    def close(self) -> None:
        """Write what is pending and trim the folder, at the exit of the interpreter."""
        self.flush()
        self.places.close()


def _age(record: Record) -> float:
    return record.updated


def _has_drifted(old: Record, new: Record) -> bool:
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


CACHE = Cache()  # that of this process

atexit.register(CACHE.close)
# Flushed earlier as well: from Python 3.12 on, no thread can be started once atexit functions run,
# and without a thread nothing limits the time that the shared place takes.
with suppress(AttributeError, RuntimeError):  # not public; and the interpreter may be shutting down
    threading._register_atexit(CACHE.flush)  # type: ignore[attr-defined]
# A forked child must not write the pending records of its parent.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CACHE.leave_to_parent)
