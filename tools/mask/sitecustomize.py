"""Hides from Python what macOS or Windows lacks.

With this folder on PYTHONPATH, every Python process starts with the mask. It has no ``os.fork``, no
``resource``, no ``fcntl``, no local sockets, no ``poll``, no CPU affinity, nothing under ``/proc``,
``/sys`` and ``/dev/shm``, and its CPU clocks tick every 15.6 ms. The only start method is spawn.
What the standard library itself needs of these (subprocesses, semaphores) goes on working.

    PYTHONPATH=tools/mask python -m pytest
"""

import builtins
import io
import multiprocessing.context
import multiprocessing.util
import os
import select
import socket
import sys
import sysconfig
import time

# Both look for the platform once; psutil may go on reading /proc.
__import__("psutil")
sysconfig.get_config_vars()

HIDDEN = ("/proc/", "/sys/", "/dev/shm")
GONE = ("fork", "forkpty", "register_at_fork", "sched_getaffinity", "sched_setaffinity",
        "pidfd_open", "memfd_create", "eventfd", "posix_fallocate", "pipe2")  # fmt: skip


def _leave_spawn():
    """Hide what only POSIX systems, or only some of them, have."""
    for name in GONE:
        if hasattr(os, name):
            delattr(os, name)
    for module, name in ((socket, "AF_UNIX"), (socket._socket, "AF_UNIX"), (select, "poll")):
        delattr(module, name)
    for name in ("resource", "fcntl"):
        sys.modules[name] = None
    sys.platform = "darwin"
    contexts = multiprocessing.context
    spawn = contexts._concrete_contexts["spawn"]
    contexts._concrete_contexts.clear()
    contexts.DefaultContext.get_all_start_methods = lambda self: ["spawn"]
    multiprocessing.get_all_start_methods = contexts._default_context.get_all_start_methods
    contexts._concrete_contexts["spawn"] = spawn
    multiprocessing._default_context = contexts._default_context
    contexts._default_context._default_context = spawn
    contexts._default_context._actual_context = None


def _is_hidden(path):
    if not isinstance(path, str) or not f"{path}/".startswith(HIDDEN):
        return False
    return not sys._getframe(2).f_globals.get("__name__", "").startswith("psutil")


def _hiding(function):
    def hidden(path, *args, **options):
        if _is_hidden(path):
            raise FileNotFoundError(2, "hidden by the mask", path)
        return function(path, *args, **options)

    return hidden


for name in ("open", "stat", "lstat", "listdir", "scandir", "readlink"):
    setattr(os, name, _hiding(getattr(os, name)))
builtins.open = io.open = _hiding(io.open)


class FileIO(io.FileIO):
    """Files opened without ``open``."""

    def __init__(self, file, *args, **options):
        if _is_hidden(file):
            raise FileNotFoundError(2, "hidden by the mask", file)
        super().__init__(file, *args, **options)


io.FileIO = FileIO
_real_access = os.access
os.access = lambda path, *args, **options: (
    not _is_hidden(path) and _real_access(path, *args, **options)
)


def _coarse(clock):
    return lambda: clock() // TICK * TICK


TICK = 1 / 64

if os.name == "posix":  # else this is Windows' Python in Wine, which shows the folders of Linux
    _leave_spawn()
    time.process_time, time.thread_time = _coarse(time.process_time), _coarse(time.thread_time)
