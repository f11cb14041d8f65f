"""Large values through shared memory: written once by the sender, mapped by the receiver.

A segment is a file in the system's memory file system, named with its crew's prefix. The receiver
maps it and removes the name at once; from then on the memory belongs to the mapping alone, and is
freed when the last object that looks into it is dropped. What nobody received (its receiver died)
is swept by prefix when the crew ends.
"""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import sys
import weakref
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "SHARED_FOLDER",
    "make_prefix",
    "receive",
    "sweep",
    "write",
]

# Where Linux keeps memory that looks like files. Elsewhere everything takes the pipe.
SHARED_FOLDER = "/dev/shm"

_NAME = "amorsize"

# Arrays want their first item on a cache line.
ALIGNMENT = 64

_numbers = itertools.count()


def make_prefix() -> str:
    """Return a prefix for the segments of one crew; "" where there is no place for any.

    What callers left behind that were killed themselves is removed on the occasion.
    """
    if not os.path.isdir(SHARED_FOLDER):
        return ""
    own = f"{_NAME}-{_namespace()}-"
    for name in os.listdir(SHARED_FOLDER):
        if name.startswith(own) and not _is_alive(name[len(own) :].partition("-")[0]):
            with suppress(OSError):  # another user's
                _unlink(os.path.join(SHARED_FOLDER, name))
    return f"{own}{os.getpid()}-{os.urandom(4).hex()}-"


def _namespace() -> int:
    """Return which processes the numbers of this one are about; containers may share a folder."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _is_alive(pid: str) -> bool:
    if not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def write(prefix: str, parts: list[Any]) -> str:
    """Write the parts to a new segment; return its name, "" if there is no room or no place.

    Args:
        prefix: of the crew's segments.
        parts: bytes-like objects.
    """
    name = f"{prefix}{os.getpid()}-{next(_numbers)}"
    path = os.path.join(SHARED_FOLDER, name)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return ""
    try:
        for part in parts:
            _write_all(descriptor, part)
            _write_all(descriptor, bytes(_aligned(len(part)) - len(part)))
    except OSError:  # written, not mapped, so that a full file system is an error, not a signal
        _unlink(path)
        return ""
    finally:
        os.close(descriptor)
    return name


def receive(name: str, sizes: tuple[int, ...], *, others: bool = False) -> list[memoryview]:
    """Map a segment, remove its name, and return its parts, writable.

    The memory is freed when the last of them, and of what looks into them, is dropped.

    Args:
        name: of the segment.
        sizes: bytes of each part.
        others: whether other processes receive it as well: the name stays for its sender to
            remove, and what is written into the parts is seen by this process alone.

    Raises:
        OSError: there is no such segment, or it cannot be mapped.
    """
    path = os.path.join(SHARED_FOLDER, name)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if not others and len(_mappings) >= _most_mappings():
            view = memoryview(_read_all(descriptor))
        else:
            view = memoryview(_map(descriptor, mmap.ACCESS_COPY if others else mmap.ACCESS_WRITE))
    finally:
        os.close(descriptor)
        if not others:
            os.unlink(path)
    starts = itertools.accumulate(map(_aligned, sizes), initial=0)
    return [view[start : start + size] for start, size in zip(starts, sizes, strict=False)]


# Before 3.13 each mapping keeps a descriptor of its file: those alive are counted, and beyond a
# quarter of what the process may have, contents are copied instead.
_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def _map(descriptor: int, access: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, 0, access=access, trackfd=False)
    mapping = mmap.mmap(descriptor, 0, access=access)
    _mappings.add(mapping)
    return mapping


@functools.cache
def _most_mappings() -> int:
    import resource  # not on Windows, where there are no segments either

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most // 4


def _read_all(descriptor: int) -> bytearray:
    data = bytearray(os.fstat(descriptor).st_size)
    view = memoryview(data)
    while view.nbytes:
        view = view[os.readv(descriptor, [view]) :]
    return data


def sweep(prefix: str) -> None:
    """Remove the segments of a crew that nobody received."""
    if not prefix:
        return
    for name in os.listdir(SHARED_FOLDER):
        if name.startswith(prefix):
            _unlink(os.path.join(SHARED_FOLDER, name))


def _write_all(descriptor: int, part: Any) -> None:
    view = memoryview(part)
    while view.nbytes:
        view = view[os.write(descriptor, view) :]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
