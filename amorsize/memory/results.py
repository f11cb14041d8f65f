"""A file of finished results (SQLite): what ``resume=`` keeps of a call, and finds again.

A result is kept under the index and the digest of its item. The file says of which function it is.
It is written in transactions, so that whatever ends the process leaves whole results only. One
process at a time may use it.
"""

from __future__ import annotations

import atexit
import errno
import os
import sqlite3
import time
import weakref
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

__all__ = ["OtherCallError", "ResultFile"]

# Results of single items wait at most so long to be written, s: a transaction takes 0.1 ms.
COMMIT_SECONDS = 0.025
_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE used (name TEXT, digest TEXT, PRIMARY KEY (name, digest)) WITHOUT ROWID;
CREATE TABLE results (item INTEGER PRIMARY KEY, digest BLOB NOT NULL, result BLOB NOT NULL);
"""
# What "amorsize" marks a file with, in its header (SQLite's ``application_id``).
_MARK = 0x616D6F72
_MOST_NAMED = 3


class OtherCallError(ValueError):
    """The file is of another call; the message says what differs."""


class ResultFile:
    """A file of finished results, open for one call.

    Args:
        path: the file; made if there is none.
        about: what the results are of, by name. A file with other values is refused.
        used: digests of what the function uses, by name. The file may know several for a name: the
            function itself may change what it uses.

    Raises:
        ValueError: the file is of another call; the message says what differs, or that it is
            something else.
        OSError: it cannot be opened or written, or another process uses it.
    """

    def __init__(
        self, path: str | os.PathLike[str], about: dict[str, str], used: dict[str, str]
    ) -> None:
        self._path = os.path.abspath(path)
        self._owner = os.getpid()
        self._rows: list[tuple[int, bytes, bytes]] = []
        self._written = time.monotonic()
        self._lock = _Lock(self._path)
        try:
            with self._explained():
                # Autocommit, so that transactions are where this class has them.
                self._file = sqlite3.connect(
                    self._path, timeout=0.0, isolation_level=None, check_same_thread=False
                )
                self._open(about, used)
        except BaseException:  # also Ctrl-C: nothing else would release it
            self._release()
            raise
        _open_files.add(self)

    def _open(self, about: dict[str, str], used: dict[str, str]) -> None:
        run = self._file.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        (mark,) = run("PRAGMA application_id").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and mark != _MARK:
            raise ValueError(f"resume={self._path!r} is another database: give another path")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")  # a crash of the system loses the last results at most
        if tables:
            self._check(about, used)
            return
        run("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            run(statement)
        run(f"PRAGMA application_id = {_MARK}")
        self._file.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        self._file.executemany("INSERT INTO used VALUES (?, ?)", used.items())
        run("COMMIT")

    def _check(self, about: dict[str, str], used: dict[str, str]) -> None:
        found = dict(self._file.execute("SELECT name, value FROM about"))
        for name, value in about.items():
            if found.get(name) != value:
                hidden = name.endswith("code") and value != "-"  # a digest tells nobody anything
                told = "has changed" if hidden else f"was {found.get(name)}, and is {value}"
                raise self._refusal(f"{name} {told}")
        known = set(self._file.execute("SELECT name, digest FROM used"))
        changed = [name for name, digest in used.items() if (name, digest) not in known]
        named = [name for name in changed if name]
        if named:
            more = ", ..." if len(named) > _MOST_NAMED else ""
            raise self._refusal(f"the function uses {', '.join(named[:_MOST_NAMED])}{more}, "
                                "which has changed")  # fmt: skip
        if changed:
            raise self._refusal("code or values that the function uses have changed")

    def _refusal(self, what: str) -> OtherCallError:
        return OtherCallError(
            f"resume={self._path!r} keeps results of another call: {what}; give another path, or "
            "delete the file"
        )

    # Reading --------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of results that are kept."""
        return int(self._one("SELECT count(*) FROM results")[0]) + len(self._rows)

    def digests(self) -> Generator[tuple[int, bytes]]:
        """Yield (index, digest) of the items whose results are kept, in order."""
        with self._explained():
            yield from self._file.execute("SELECT item, digest FROM results ORDER BY item")

    def results(self) -> Generator[tuple[int, bytes]]:
        """Yield (index, pickled result) of the items whose results are kept, in order."""
        with self._explained():
            yield from self._file.execute("SELECT item, result FROM results ORDER BY item")

    def digest(self, index: int) -> bytes | None:
        """Return the digest of an item whose result is kept, else None."""
        row = self._one("SELECT digest FROM results WHERE item = ?", index)
        return None if row is None else bytes(row[0])

    def result(self, index: int) -> bytes:
        """Return the pickled result of an item, which is kept."""
        return bytes(self._one("SELECT result FROM results WHERE item = ?", index)[0])

    def _one(self, statement: str, *values: Any) -> Any:
        with self._explained():
            return self._file.execute(statement, values).fetchone()

    # Writing --------------------------------------------------------------------------------

    def keep(self, index: int, digest: bytes, result: bytes) -> None:
        """Keep a result; it is written within ``COMMIT_SECONDS`` if more come, or by ``write``.

        Args:
            index: index of the item.
            digest: the item's digest.
            result: the pickled result.

        Raises:
            OSError: it cannot be written.
        """
        self._rows.append((index, digest, result))
        if time.monotonic() - self._written > COMMIT_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what waits.

        Raises:
            OSError: it cannot be written; what waited is not in the file.
        """
        rows, self._rows = self._rows, []
        if rows and os.getpid() == self._owner:
            self._insert("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", rows)
        self._written = time.monotonic()

    def accept(self, used: dict[str, str]) -> None:
        """Take what the function uses now for the same: it has changed it itself.

        Args:
            used: see ``ResultFile``.
        """
        if os.getpid() == self._owner:
            self._insert("INSERT OR IGNORE INTO used VALUES (?, ?)", [*used.items()])

    def _insert(self, statement: str, rows: list[Any]) -> None:
        with self._explained():
            self._file.execute("BEGIN IMMEDIATE")
            try:
                self._file.executemany(statement, rows)
                self._file.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite has done it itself after most errors
                    self._file.execute("ROLLBACK")
                raise

    # The end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what waits, and close the file.

        Raises:
            OSError: it cannot be written.
        """
        try:
            self.write()
        finally:
            self._release()

    def __del__(self) -> None:
        """Close the file of a call that was dropped before it began."""
        if "_lock" in vars(self):
            self._release()

    def _release(self) -> None:
        """Close what is open, in the process that has opened it."""
        if os.getpid() != self._owner:
            return
        file = vars(self).get("_file")
        if file is not None:
            file.close()
        self._lock.close()

    def leave_to_parent(self) -> None:
        """Never touch the file in this process, which was forked from the one that uses it."""
        _left.append(self._file)
        self._lock.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into those that files raise."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise _as_file_error(self._path, error) from error


class _Lock:
    """A lock on a file that only its owner ends.

    SQLite's own lock is lost as soon as this process opens and closes the file elsewhere (POSIX).

    Args:
        path: the file; made if there is none.

    Raises:
        OSError: it cannot be opened, or another process holds the lock.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = -1
        try:
            import fcntl
        except ImportError:  # Windows, where SQLite's lock is the system's
            return
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES):  # a file system without locks
                return
            raise _busy(path) from error

    def close(self) -> None:
        """End the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _busy(path: str) -> OSError:
    return OSError(errno.EBUSY, "another process keeps its results there (resume=)", path)


_NUMBERS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


def _as_file_error(path: str, error: sqlite3.DatabaseError) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return ValueError(f"resume={path!r} is no file of results: give another path")
    if code == sqlite3.SQLITE_CORRUPT:
        return ValueError(f"resume={path!r} is damaged ({error}): delete it")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return _busy(path)
    number = _NUMBERS.get(code, errno.EIO)
    return OSError(number, f"results cannot be kept (resume=): {error}", path)


# Forked children ------------------------------------------------------------------------------

_open_files: weakref.WeakSet[ResultFile] = weakref.WeakSet()
_left: list[sqlite3.Connection] = []  # connections of the parent, which a child must not close


def _leave_to_parent() -> None:
    """Leave all open files to the parent, in a forked child."""
    for file in list(_open_files):
        file.leave_to_parent()
    _open_files.clear()
    if _left:
        atexit.register(_forget_nothing)


def _forget_nothing() -> None:
    """Keep the parent's connections from being closed as the interpreter ends.

    To close one would remove the log that the parent still writes to.
    """
    import ctypes

    for connection in _left:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
