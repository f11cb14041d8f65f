"""The places outside the process that keep records: the folder, and the place of many machines.

Every kind of trouble with them or a record (unreadable, corrupt, out of range, full disk, read-only
home) is a miss: it is logged once at WARNING on the ``amorsize`` logger, never raised.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import isfinite

from ..decide.figures import Costs
from ..measure.machine import this_machine
from . import remote, store
from .records import (
    Record,
    costs_from_bytes,
    costs_name,
    costs_to_bytes,
    file_name,
    from_bytes,
    is_costs_name,
    is_leftover,
    is_record_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _Content = TypeVar("_Content")

__all__ = ["RULES", "TTL_SECONDS", "Places"]

TTL_SECONDS = 7 * 24 * 60 * 60

# The folder is trimmed to its limits at exit, and after this many writes. Trimming takes 3 ms.
TIDY_AFTER_WRITES = 200


def _is_ours(name: str) -> bool:
    return is_record_name(name) or is_costs_name(name) or is_leftover(name)


RULES = store.Rules(_is_ours, is_leftover)


class Places:
    """The folder and the shared place, as one process sees them.

    All threads of the process share it. The lock is held for changes in memory, never while a file
    is read or written.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may run in the middle of a change
        self._folders: dict[str, str] = {}  # real paths, by configured folder
        self._ttl: float | None = None
        self._writes = 0
        self._warned: set[str] = set()

    def renew_lock(self) -> None:
        """Replace the lock, in a forked child: another thread may have held it."""
        self._lock = threading.RLock()

    def folder(self) -> str:
        """Return the real path of the folder that is configured now; it may not exist yet."""
        return self.folder_of(store.configured_dir())

    def folder_of(self, configured: str) -> str:
        """Return the real path of a configured folder; keep it if no chdir can change it."""
        folder = self._folders.get(configured)
        if folder is None:
            try:
                folder = store.cache_dir(configured)
            except OSError as error:
                folder = store.spare_dir()
                which = repr(configured) if configured else "of this user"
                self.warn(
                    "folder", f"the folder {which} cannot be found ({error})", f"{folder} is used"
                )
            if not configured or os.path.isabs(configured):
                self._folders[configured] = folder
        return folder

    def record_files(self, folder: str) -> Iterator[store.Entry]:
        """Yield the files of records in a folder."""
        return self._files(folder, is_record_name)

    def costs_files(self, folder: str) -> Iterator[store.Entry]:
        """Yield the files of learned costs in a folder."""
        return self._files(folder, is_costs_name)

    def _files(self, folder: str, wanted: Callable[[str], bool]) -> Iterator[store.Entry]:
        try:
            yield from (e for e in store.entries(folder) if e.regular and wanted(e.name))
        except OSError as error:
            self.warn("list", f"cannot list {folder}: {error}")

    def load(self, folder: str, name: str) -> Record | None:
        """Read one record; None when there is none or it is not valid."""
        return self._read(folder, name, from_bytes, "not a record")

    def _read(
        self, folder: str, name: str, parse: Callable[[bytes], _Content], otherwise: str
    ) -> _Content | None:
        """Read one file; None when there is none or it is not valid."""
        try:
            data = store.read(folder, name)
            return None if data is None else parse(data)
        except OSError as error:
            self.warn("read", f"cannot read {os.path.join(folder, name)}: {error}")
        except (ValueError, RecursionError) as error:
            self.warn("damaged", f"{os.path.join(folder, name)} is {otherwise}: {error}")
        return None

    def load_costs(self) -> tuple[Costs, float] | None:
        """Return the learned costs of this machine and the time they were written.

        None when there are none, or they cannot be read.
        """
        return self._read(self.folder(), costs_name(this_machine()), costs_from_bytes, "damaged")

    def write(self, configured: str, name: str, data: bytes) -> str | None:
        """Write a record to a configured folder; return the file's path, None on a failure."""
        try:
            folder = self.folder_of(configured)
            store.write(folder, name, data)
        except OSError as error:
            self.warn("write", f"cannot write {name}: {error}")
            return None
        return os.path.join(folder, name)

    def write_costs(self, configured: str, costs: Costs) -> None:
        """Write the learned costs of this machine to a configured folder."""
        name = costs_name(this_machine())
        try:
            store.write(self.folder_of(configured), name, costs_to_bytes(costs, time.time()))
        except OSError as error:
            self.warn("write", f"cannot write {name}: {error}")

    def publish(self, name: str, data: bytes) -> None:
        """Write a record to the place that machines share."""
        try:
            remote.publish(name, data, self.ttl_seconds())
        except OSError as error:
            self.warn("shared", f"the shared cache is of no use now: {error}")

    def remove(self, folder: str, name: str) -> int:
        """Remove a file; return how many were removed."""
        try:
            return int(store.remove(folder, name))
        except OSError as error:
            self.warn("remove", f"cannot remove {os.path.join(folder, name)}: {error}")
            return 0

    def count_write(self, configured: str) -> None:
        """Count a write; trim the places after every ``TIDY_AFTER_WRITES``."""
        with self._lock:
            self._writes += 1
            full = self._writes % TIDY_AFTER_WRITES == 0
        if full:
            self.tidy(configured)

    def tidy(self, configured: str) -> None:
        """Trim a configured folder and the shared place to their limits."""
        ttl = self.ttl_seconds()
        try:
            store.limit(self.folder_of(configured), ttl, RULES)
        except OSError as error:
            self.warn("limit", f"cannot keep the folder within its limits: {error}")
        with suppress(OSError):  # another process will remove the rest
            remote.tidy(ttl, RULES)

    def shared(self, keys: list[str]) -> Iterator[Record]:
        """Yield the records with these keys that other machines share."""
        try:
            found = remote.fetch([file_name(key) for key in keys])
        except OSError as error:
            self.warn("shared", f"the shared cache is of no use now: {error}")
            return
        for data in found:
            try:
                record = from_bytes(data)
            except (ValueError, RecursionError) as error:
                self.warn("shared record", f"the shared cache holds what is not a record: {error}")
                continue
            if record.key in keys:
                yield record

    def close(self) -> None:
        """Trim the places if something was written, at the exit of the interpreter."""
        if self._writes:
            self.tidy(store.configured_dir())

    def ttl_seconds(self) -> float:
        """Return how long records live, s: a week, or ``AMORSIZE_CACHE_TTL`` as first read."""
        if self._ttl is None:
            self._ttl = self._configured_ttl(os.environ.get("AMORSIZE_CACHE_TTL", ""))
        return self._ttl

    def _configured_ttl(self, text: str) -> float:
        if not text:
            return TTL_SECONDS
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if isfinite(seconds) and seconds >= 0:
            return seconds
        self.warn("ttl", f"AMORSIZE_CACHE_TTL={text!r} is no number of seconds", "it is ignored")
        return TTL_SECONDS

    def warn(self, kind: str, message: str, remedy: str = "going on without it") -> None:
        """Log a problem with the cache, each kind once."""
        with self._lock:
            if kind in self._warned:
                return
            self._warned.add(kind)
        try:
            import logging  # takes 3 ms, and only a problem needs it
        except OSError:  # no file can be opened, not even the module's
            return
        logging.getLogger("amorsize").warning("cache: %s; %s", message, remedy)
