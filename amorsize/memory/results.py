"""A file of finished results (SQLite): what ``resume=`` keeps of a call, and finds again.

A result is kept under the index and the digest of its item. The file says of which function it is.
It is written in transactions, so that whatever ends the process leaves whole results only. One
process at a time may use it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["ResultFile"]

# Results wait at most so long to be written, s. A transaction takes 0.1 ms.
COMMIT_SECONDS = 0.05
_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE results (item INTEGER PRIMARY KEY, digest BLOB NOT NULL, result BLOB NOT NULL);
"""
# What "amorsize" marks a file with, in its header (SQLite's ``application_id``).
_MARK = 0x616D6F72


class ResultFile:
    """A file of finished results, open for one call.

    Args:
        path: the file; made if there is none.
        about: what the results are of, by name. A file with other values is refused.

    Raises:
        ValueError: the file is of another call; the message says what differs, or that it is
            something else.
        OSError: it cannot be opened or written, or another process uses it.
    """

    def __init__(self, path: str | os.PathLike[str], about: dict[str, str]) -> None:
        self._path = os.fspath(path)
        self._rows: list[tuple[int, bytes, bytes]] = []
        self._written = time.monotonic()
        with self._explained():
            # Autocommit, so that transactions are where this class has them.
            self._file = sqlite3.connect(
                self._path, timeout=0.0, isolation_level=None, check_same_thread=False
            )
            try:
                self._open(about)
            except BaseException:
                self._file.close()
                raise

    def _open(self, about: dict[str, str]) -> None:
        run = self._file.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        (mark,) = run("PRAGMA application_id").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and mark != _MARK:
            raise ValueError(f"resume={self._path!r} is another database: give another path")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")  # a crash of the system loses the last results at most
        run("BEGIN IMMEDIATE")
        if not tables:
            for statement in _SCHEMA.split(";"):
                run(statement)
            run(f"PRAGMA application_id = {_MARK}")
            self._file.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        run("COMMIT")
        if tables:
            self._check(about)

    def _check(self, about: dict[str, str]) -> None:
        found = dict(self._file.execute("SELECT name, value FROM about"))
        for name, value in about.items():
            if found.get(name) != value:
                raise ValueError(
                    f"resume={self._path!r} keeps results of another call: {name} was "
                    f"{found.get(name)}, and is {value}; give another path, or delete the file"
                )

    def __del__(self) -> None:
        """Close the file of a call that was dropped before it began."""
        if "_file" in vars(self):
            self._file.close()

    def __len__(self) -> int:
        """Return the number of results that are kept."""
        (count,) = self._file.execute("SELECT count(*) FROM results").fetchone()
        return int(count) + len(self._rows)

    def digests(self) -> Generator[tuple[int, bytes]]:
        """Yield (index, digest) of the items whose results are kept, in order."""
        yield from self._file.execute("SELECT item, digest FROM results ORDER BY item")

    def results(self) -> Iterator[tuple[int, bytes]]:
        """Yield (index, pickled result) of the items whose results are kept, in order."""
        yield from self._file.execute("SELECT item, result FROM results ORDER BY item")

    def digest(self, index: int) -> bytes | None:
        """Return the digest of an item whose result is kept, else None."""
        row = self._file.execute("SELECT digest FROM results WHERE item = ?", (index,)).fetchone()
        return None if row is None else bytes(row[0])

    def result(self, index: int) -> bytes:
        """Return the pickled result of an item, which is kept."""
        row = self._file.execute("SELECT result FROM results WHERE item = ?", (index,)).fetchone()
        return bytes(row[0])

    def keep(self, index: int, digest: bytes, result: bytes) -> None:
        """Keep a result; it is written soon.

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
        if rows:
            with self._explained():
                self._file.execute("BEGIN IMMEDIATE")
                try:
                    self._file.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", rows)
                    self._file.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):  # SQLite has done it itself after most errors
                        self._file.execute("ROLLBACK")
                    raise
        self._written = time.monotonic()

    def close(self) -> None:
        """Write what waits, and close the file.

        Raises:
            OSError: it cannot be written.
        """
        try:
            self.write()
        finally:
            self._file.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into those that files raise."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise _as_file_error(self._path, error) from error


def _as_file_error(path: str, error: sqlite3.DatabaseError) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return ValueError(f"resume={path!r} is no file of results: give another path")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OSError(errno.EBUSY, "another process keeps its results there (resume=)", path)
    number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
    return OSError(number, f"results cannot be kept (resume=): {error}", path)
