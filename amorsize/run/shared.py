"""Send large values through shared segments: the sender writes once, the receiver maps.

A segment is a file in the system's memory file system, or in its folder for temporary files. Its
name begins with the prefix of its crew. The receiver maps the file and removes the name at once.
From then on only the mapping holds the memory, which is freed when the last object that points into
it is dropped. A mapping is private, so that processes forked later do not write into each other's
copies. Segments that were not received (the receiver died) are removed by prefix when the crew
ends.
"""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import weakref
from contextlib import suppress
from io import FileIO

from ..measure.system import read_file
from ..versions import MAPPING_OPTIONS

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

# The memory file system of Linux.
_MEMORY_FOLDER = "/dev/shm"

_NAME = "amorsize"

_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)  # of Unix, of Windows

# Alignment of parts in bytes: arrays should begin at a cache line.
ALIGNMENT = 64

_numbers = itertools.count()


def make_prefix() -> str:
    """Return the path prefix of a new crew's segments; "" if there is no usable folder."""
    folder = shared_folder()
    if not folder:
        return ""
    return os.path.join(folder, f"{_own()}{os.getpid()}-{os.urandom(4).hex()}-")


def _own() -> str:
    """Return how the names of all segments of this pid namespace begin."""
    return f"{_NAME}-{_namespace()}-"


@functools.cache
def shared_folder() -> str:
    """Return the folder for segments, "" if there is none that this process may use."""
    if _is_usable(_MEMORY_FOLDER):
        return _MEMORY_FOLDER
    import tempfile  # takes 5 ms to load

    with suppress(OSError):  # there is no folder for temporary files
        found = tempfile.gettempdir()
        return found if _is_usable(found) else ""
    return ""


def _is_usable(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.R_OK | os.W_OK | os.X_OK)


def _names(folder: str) -> list[str]:
    """Return the names in a folder; none if the folder cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _namespace() -> int:
    """Return the id of this process's pid namespace; containers may share the folder."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _is_alive(pid: str) -> bool:
    if not pid.isdecimal():
        return True
    if os.name == "nt":  # there, signal 0 is Ctrl-C
        import psutil

        return psutil.pid_exists(int(pid))
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:  # belongs to another user
        return True
    return True


def write(prefix: str, parts: list[Any]) -> str:
    """Write the parts to a new segment; return its path, "" if the segment cannot be written.

    Args:
        prefix: path prefix of the crew's segments.
        parts: bytes-like objects.
    """
    path = f"{prefix}{os.getpid()}-{next(_numbers)}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    except OSError:
        return ""
    try:
        for part in parts:
            _write_all(descriptor, part)
            _write_all(descriptor, bytes(_aligned(len(part)) - len(part)))
    except OSError:  # a full file system is an error in write(), a signal in a mapping
        _unlink(path)
        return ""
    finally:
        os.close(descriptor)
    return path


def receive(path: str, sizes: tuple[int, ...], *, others: bool = False) -> list[memoryview]:
    """Map a segment, remove its name, and return its parts, writable.

    Only this process sees what it writes into the parts. The memory is freed when the last part,
    and the last object that points into a part, is dropped.

    Args:
        path: path of the segment.
        sizes: bytes of each part.
        others: whether other processes receive the segment as well. Then the sender removes the
            name.

    Raises:
        OSError: the segment does not exist, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        view = memoryview(_mapped(descriptor) or _read_all(descriptor))
    finally:
        os.close(descriptor)
        if not others:
            _unlink(path)
    starts = itertools.accumulate(map(_aligned, sizes), initial=0)
    return [view[start : start + size] for start, size in zip(starts, sizes, strict=False)]


# The number of mappings of a process is limited (65,530 on Linux), and each mapping may keep a file
# descriptor open. Mappings in use are counted here. Beyond a quarter of either limit, contents are
# copied instead.
_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_USUAL_MAPPINGS = 65_530


def _mapped(descriptor: int) -> mmap.mmap | None:
    """Return a private mapping of a file, None if there are too many mappings already."""
    if len(_mappings) >= _most_mappings():
        return None
    try:
        mapping = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY, **MAPPING_OPTIONS)
    except OSError:  # the process has reached its limit of mappings or of file descriptors
        return None
    _mappings.add(mapping)
    return mapping


@functools.cache
def _most_mappings() -> int:
    try:
        most = int(read_file("/proc/sys/vm/max_map_count")) // 4
    except (OSError, ValueError):  # not Linux
        most = _USUAL_MAPPINGS // 4
    try:
        import resource
    except ImportError:  # Windows has neither limit
        return most
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if MAPPING_OPTIONS or descriptors == resource.RLIM_INFINITY:
        return most
    return min(most, descriptors // 4)


def _read_all(descriptor: int) -> bytearray:
    data = bytearray(os.fstat(descriptor).st_size)
    view = memoryview(data)
    with FileIO(descriptor, closefd=False) as file:
        while view.nbytes:
            view = view[file.readinto(view) :]
    return data


def sweep(prefix: str) -> None:
    """Remove the segments of a crew that were not received, and those of callers that are gone.

    Args:
        prefix: path prefix of the crew's segments, "" for none.
    """
    folder, begin = os.path.split(prefix)
    own = _own()
    for name in _names(folder) if prefix else ():
        if name.startswith(begin):
            _unlink(os.path.join(folder, name))
        elif name.startswith(own) and not _is_alive(name[len(own) :].partition("-")[0]):
            with suppress(OSError):  # belongs to another user
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
    except PermissionError:  # Windows keeps a file that is mapped; a later ``sweep`` removes it
        if os.name != "nt":
            raise
