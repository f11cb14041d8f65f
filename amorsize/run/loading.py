"""Imported by a fork server when it has loaded the libraries: ends it if it must not be forked.

Then the server tells its caller, who waits, that all is loaded.
"""

from __future__ import annotations

import os
import threading

from ..measure.forking import fork_danger
from .descriptors import LOADING

# A thread of Python's may be one that the library hands work to, which workers would lack.
if threading.active_count() > 1 or fork_danger():
    os._exit(1)
_descriptor = int(os.environ.pop(LOADING))
os.write(_descriptor, b"1")
os.close(_descriptor)
