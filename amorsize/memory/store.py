"""The folder of records: small files, written whole or not at all, never trusted.

Every function here raises OSError if the operating system refuses something; ``places`` turns that
into a miss and a warning.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from ..lookup import load
from ..tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _Result = TypeVar("_Result")

__all__ = [
    "Entry",
    "Rules",
    "age",
    "cache_dir",
    "configured_dir",
    "entries",
    "exists",
    "limit",
    "read",
    "remove",
    "spare_dir",
    "write",
]

LARGEST_BYTES = 1 << 16  # a record takes 1 kB; a larger file is not a record
MOST_FILES = 1_000
MOST_BYTES = 10_000_000
# The time of last use is written at most once an hour: writing it takes longer than reading it.
USED_LATELY = 3_600
# On Windows a file that another process has open can be neither replaced nor removed, and a file
# that is being replaced cannot be opened. A record is open for less than a millisecond, so these
# pauses (s) are long enough.
HELD_PAUSES = (0.001, 0.004, 0.016) if os.name == "nt" else ()
# A temporary file this old belongs to a writer that was killed.
STALE_SECONDS = 600


class Entry(NamedTuple):
    """A file of the folder.

    Attributes:
        name: file name without the folder.
        size: bytes.
        used: when it was last used, in seconds since the epoch.
        regular: whether it is a plain file (not a link, pipe or folder).
    """

    name: str
    size: int
    used: float
    regular: bool


class Rules(NamedTuple):
    """Which files of a folder are the library's, by their names.

    Attributes:
        is_ours: returns whether a file belongs to the library.
        is_leftover: returns whether a file is a writer's temporary file.
    """

    is_ours: Callable[[str], bool]
    is_leftover: Callable[[str], bool]


def age(when: float, now: float) -> float:
    """Return the age of a file, s; a file from the future counts as old as it is ahead.

    It was written with a wrong clock. Counted so, it is removed in time like any other file.
    """
    return abs(now - when)


def configured_dir() -> str:
    """Return the folder that ``AMORSIZE_CACHE_DIR`` configures, "" for none."""
    return os.environ.get("AMORSIZE_CACHE_DIR", "")


def cache_dir(configured: str) -> str:
    """Return the path of a configured folder, which may not exist.

    Args:
        configured: the folder, "" for the user's own cache folder.

    Raises:
        OSError: the folder cannot be determined: the user has no home, or the path is relative and
            the working directory does not exist.
    """
    if configured:
        return os.path.abspath(os.path.expanduser(configured))
    return _default_dir()


@functools.cache
def _default_dir() -> str:
    return os.path.join(_users_folder(), "optimization_cache")


def _users_folder() -> str:
    usual = _linux_folder()
    if usual:
        return usual
    user_cache_dir = load("platformdirs").user_cache_dir
    try:
        found: str = user_cache_dir("amorsize", appauthor=False)
    except RuntimeError as error:  # neither HOME nor an entry in the user database
        raise FileNotFoundError(str(error)) from error
    if not os.path.isabs(found):  # if HOME is relative; each chdir would change it
        raise FileNotFoundError(f"{found!r} is not an absolute path")
    return found


def _linux_folder() -> str:
    """Return the folder by the XDG base directory specification; "" where platformdirs must decide.

    This is what platformdirs returns on Linux. It takes 10 ms to load, half of the time that the
    first call of a short program spends in the library.
    """
    if sys.platform != "linux" or "ANDROID_ROOT" in os.environ:
        return ""
    base, home = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME", "")
    if os.path.isabs(base):
        return os.path.join(base, "amorsize")
    return os.path.join(home, ".cache", "amorsize") if os.path.isabs(home) else ""


def spare_dir() -> str:
    """Return the folder to use if none can be determined: the user's, among temporary files."""
    configured = (os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP"))
    temporary = next(
        (folder for folder in configured if os.path.isabs(folder)),
        os.path.join(os.path.abspath(os.sep), "tmp"),
    )
    user = os.geteuid() if hasattr(os, "geteuid") else "user"
    return os.path.join(temporary, f"amorsize-{user}")


def exists(path: str) -> bool:
    """Return whether a file of the folder exists; takes 2 us."""
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def read(folder: str, name: str, *, shared: bool = False) -> bytes | None:
    """Return the content of a file and note its use; None when there is no such file.

    Links are not followed, and a pipe in place of the file does not block.

    Args:
        folder: the folder.
        name: the file.
        shared: whether the folder is shared with other users.

    Raises:
        OSError: the file cannot be read, or the folder must not be trusted.
    """
    path = f"{folder}{os.sep}{name}"
    if not os.access(path, os.F_OK):
        return None  # most files do not exist, and an exception takes three times as long
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = _once_free(lambda: os.open(path, flags | getattr(os, "O_BINARY", 0)))
    except FileNotFoundError:
        return None
    try:
        if not shared:
            _check(folder)
        _note_use(descriptor, path)
        return os.read(descriptor, LARGEST_BYTES)
    finally:
        os.close(descriptor)


def write(folder: str, name: str, data: bytes, *, shared: bool = False) -> None:
    """Write a file under a unique name and rename it: readers see all of it or nothing.

    Args:
        folder: the folder.
        name: the file.
        data: its content.
        shared: whether the folder is shared with other users; then it must exist.

    Raises:
        OSError: the file cannot be written, or the folder must not be trusted.
    """
    if shared:
        _write_new(os.path.join(folder, name), data, like=os.stat(folder))
    else:
        _ensure(folder)
        _write_new(os.path.join(folder, name), data)


def remove(folder: str, name: str) -> bool:
    """Remove a file; return whether it existed.

    Raises:
        OSError: the file cannot be removed.
    """
    try:
        _once_free(lambda: os.unlink(os.path.join(folder, name)))
    except FileNotFoundError:
        return False
    return True


def entries(folder: str) -> Iterator[Entry]:
    """Yield the files of the folder; none when there is no folder.

    Raises:
        OSError: the folder cannot be listed.
    """
    try:
        found = os.scandir(folder)
    except FileNotFoundError:
        return
    with found:
        for item in found:
            try:
                status = item.stat(follow_symlinks=False)
            except FileNotFoundError:  # another process has removed it
                continue
            regular = stat.S_ISREG(status.st_mode)
            yield Entry(item.name, status.st_size, status.st_mtime, regular)


def limit(folder: str, ttl: float, rules: Rules) -> int:
    """Remove files that are too old or too many, least recently used first, and leftovers.

    Leftovers are temporary files of killed writers. Files that are not the library's are neither
    counted nor touched. If one file cannot be removed, the others still are.

    Args:
        folder: the folder.
        ttl: age in seconds from which a file is removed.
        rules: which files are the library's.

    Returns:
        The number of files removed.

    Raises:
        OSError: the folder cannot be listed, or a file cannot be removed.
    """
    removed, trouble = 0, None
    for name in list(_too_much(folder, ttl, rules)):
        try:
            removed += remove(folder, name)
        except OSError as error:
            trouble = error
    if trouble is not None:
        raise trouble
    return removed


def _too_much(folder: str, ttl: float, rules: Rules) -> Iterator[str]:
    """Yield the names of the files to remove."""
    now = time.time()
    files = [entry for entry in entries(folder) if entry.regular]
    files.sort(key=lambda entry: age(entry.used, now))
    count = size = 0
    for entry in files:
        old = age(entry.used, now)
        if rules.is_leftover(entry.name):
            if old > STALE_SECONDS:
                yield entry.name
        elif rules.is_ours(entry.name):
            count, size = count + 1, size + entry.size
            if count > MOST_FILES or size > MOST_BYTES or old > ttl:
                yield entry.name


def _ensure(folder: str) -> None:
    """Create the folder if there is none."""
    if not os.path.lexists(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with suppress(FileExistsError):  # another process has created it
            os.mkdir(folder, 0o700)
    _check(folder)


def _check(folder: str) -> None:
    """Refuse a folder that others could have put records into.

    Raises:
        PermissionError: it is a link, it belongs to another user, or others may write to it.
        NotADirectoryError: it is not a folder.
    """
    status = os.lstat(folder)
    if stat.S_ISLNK(status.st_mode):
        raise PermissionError(f"{folder} is a symbolic link")
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{folder} is not a folder")
    if hasattr(os, "getuid"):
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{folder} belongs to another user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"others may write to {folder}")


def _write_new(path: str, data: bytes, *, like: os.stat_result | None = None) -> None:
    """Write a file that only the user may read, or all who may read a shared folder.

    Args:
        path: the file.
        data: its content.
        like: status of the folder if it is shared, else None.
    """
    temporary = f"{path}.{os.getpid()}-{os.urandom(6).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(temporary, flags | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with open(descriptor, "wb") as file:
            if like is not None:
                _open_up(descriptor, like)
            file.write(data)
        _once_free(lambda: os.replace(temporary, path))
    except OSError:
        os.unlink(temporary)
        raise


def _open_up(descriptor: int, like: os.stat_result) -> None:
    """Let all who may read the folder read the file; the umask is for private files."""
    if hasattr(os, "fchown"):
        with suppress(OSError):  # not a member of the folder's group
            os.fchown(descriptor, -1, like.st_gid)
        with suppress(OSError):  # a file system without modes
            os.fchmod(descriptor, 0o600 | like.st_mode & 0o044)


def _once_free(action: Callable[[], _Result]) -> _Result:
    """Do something to a file, again after a pause where another process has it open."""
    for pause in HELD_PAUSES:
        try:
            return action()
        except PermissionError:
            time.sleep(pause)
    return action()


def _note_use(descriptor: int, path: str) -> None:
    if age(os.fstat(descriptor).st_mtime, time.time()) < USED_LATELY:
        return
    try:
        os.utime(descriptor if os.utime in os.supports_fd else path)
    except OSError:  # a read-only home, where nothing is removed either
        return
