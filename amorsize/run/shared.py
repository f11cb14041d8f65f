"""Large values through shared memory: written once by the sender, mapped by the receiver.

A segment is a file in the system's memory file system, or in its folder for temporary files, named
with its crew's prefix. The receiver maps it and removes the name at once; from then on the memory
belongs to the mapping alone, and is freed when the last object that looks into it is dropped. A
mapping is private, so that processes forked later do not write into each other's copies. What was
not received (its receiver died) is swept by prefix when the crew ends.
"""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import sys
import weakref
from contextlib import suppress

from ..measure.system import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "make_prefix",
    "receive",
    "shared_folder",
    "sweep",
    "write",
]

# Where Linux keeps memory that looks like files.
_MEMORY_FOLDER = "/dev/shm"

_NAME = "amorsize"

# Arrays want their first item on a cache line.
ALIGNMENT = 64

_numbers = itertools.count()


def make_prefix() -> str:
    """Return the beginning of the paths of one crew's segments; "" where there is no place for any.

    What callers left behind that were killed themselves is removed on the occasion.
    """
    folder = shared_folder()
    if not folder:
        return ""
    own = f"{_NAME}-{_namespace()}-"
    for name in _names(folder):
        if name.startswith(own) and not _is_alive(name[len(own) :].partition("-")[0]):
            with suppress(OSError):  # another user's
                _unlink(os.path.join(folder, name))
    return os.path.join(folder, f"{own}{os.getpid()}-{os.urandom(4).hex()}-")


@functools.cache
def shared_folder() -> str:
    """Return the folder where segments lie, "" where there is none this process may use."""
    import tempfile  # loaded already where workers are

    candidates = [_MEMORY_FOLDER]
    with suppress(OSError):  # there is none at all
        candidates.append(tempfile.gettempdir())
    usable = (
        f for f in candidates if os.path.isdir(f) and os.access(f, os.R_OK | os.W_OK | os.X_OK)
    )
    return next(usable, "")


def _names(folder: str) -> list[str]:
    """Return the names in a folder; none where it cannot be read any more."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


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
    """Write the parts to a new segment; return its path, "" if there is no room or no place.

    Args:
        prefix: of the crew's segments.
        parts: bytes-like objects.
    """
    path = f"{prefix}{os.getpid()}-{next(_numbers)}"
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
    return path


def receive(path: str, sizes: tuple[int, ...], *, others: bool = False) -> list[memoryview]:
    """Map a segment, remove its name, and return its parts, writable.

    What is written into them is seen by this process alone. The memory is freed when the last of
    them, and of what looks into them, is dropped.

    Args:
        path: of the segment.
        sizes: bytes of each part.
        others: whether other processes receive it as well: the name stays for its sender to
            remove.

    Raises:
        OSError: there is no such segment, or it cannot be mapped.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        view = memoryview(_mapped(descriptor) or _read_all(descriptor))
    finally:
        os.close(descriptor)
        if not others:
            os.unlink(path)
    starts = itertools.accumulate(map(_aligned, sizes), initial=0)
    return [view[start : start + size] for start, size in zip(starts, sizes, strict=False)]


# A process may have so many mappings (65,530 on Linux), and before 3.13 each keeps a descriptor of
# its file. Those alive are counted, and beyond a quarter of either limit, contents are copied.
_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_USUAL_MAPPINGS = 65_530


def _mapped(descriptor: int) -> mmap.mmap | None:
    """Return a private mapping of a file, None where there are too many already."""
    if len(_mappings) >= _most_mappings():
        return None
    try:
        if sys.version_info >= (3, 13):
            mapping = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY, trackfd=False)
        else:
            mapping = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    except OSError:  # the user has as many, or no descriptor is left
        return None
    _mappings.add(mapping)
    return mapping


@functools.cache
def _most_mappings() -> int:
    import resource  # not on Windows, where there are no segments either

    try:
        most = int(read_file("/proc/sys/vm/max_map_count")) // 4
    except (OSError, ValueError):  # not Linux
        most = _USUAL_MAPPINGS // 4
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if sys.version_info >= (3, 13) or descriptors == resource.RLIM_INFINITY:
        return most
    return min(most, descriptors // 4)


def _read_all(descriptor: int) -> bytearray:
    data = bytearray(os.fstat(descriptor).st_size)
    view = memoryview(data)
    while view.nbytes:
        view = view[os.readv(descriptor, [view]) :]
    return data


def sweep(prefix: str) -> None:
    """Remove the segments of a crew that nobody received."""
    folder, begin = os.path.split(prefix)
    for name in _names(folder) if prefix else ():
        if name.startswith(begin):
            _unlink(os.path.join(folder, name))


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
