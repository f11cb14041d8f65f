"""Waiting for the workers of a pool and for other threads at once."""

from __future__ import annotations

import os
import select
import threading
from multiprocessing.connection import Pipe, wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .attendant import Attendant

__all__ = ["Watch"]


class Watch:
    """Waits for several workers at once, and for being woken."""

    def __init__(self) -> None:
        self._wakeup, self._waker = Pipe(duplex=False)
        self._closing = threading.Lock()
        self._sources: dict[Attendant, list[Any]] = {}
        self._owners: dict[Any, Attendant] = {}
        self._poll = None
        if hasattr(select, "poll"):
            os.set_blocking(self._wakeup.fileno(), False)
            self._poll = select.poll()
            self._poll.register(self._wakeup.fileno(), select.POLLIN)

    def wake(self) -> None:
        """Have ``wait`` return; do nothing once it is closed."""
        with self._closing:
            if self._waker.closed:
                return
            if self._poll is not None:  # a message would take longer
                os.write(self._waker.fileno(), b"w")
            else:
                self._waker.send_bytes(b"w")

    def add(self, attendant: Attendant) -> None:
        """Wait for a worker, too."""
        self._sources[attendant] = attendant.sources()
        for source in self._sources[attendant]:
            self._owners[source] = attendant
            if self._poll is not None:
                self._poll.register(source, select.POLLIN)

    def remove(self, attendant: Attendant) -> None:
        """Wait no longer for a worker; call it before its descriptors are closed."""
        for source in self._sources.pop(attendant):
            del self._owners[source]
            if self._poll is not None:
                self._poll.unregister(source)

    def wait(self, timeout: float | None) -> list[Attendant]:
        """Return the workers that have sent something or have ended.

        Args:
            timeout: longest time to wait, s; None for no limit.
        """
        if self._poll is not None:
            events = self._poll.poll(None if timeout is None else timeout * 1000)
            found = [self._owners.get(source) for source, _ in events]
            if None in found:
                os.read(self._wakeup.fileno(), 64)
        else:
            found = [self._owners.get(one) for one in wait([self._wakeup, *self._owners], timeout)]
            if None in found:
                self._wakeup.recv_bytes()
        return list(dict.fromkeys(one for one in found if one is not None))

    def close(self) -> None:
        """Release all descriptors."""
        with self._closing:
            self._wakeup.close()
            self._waker.close()
