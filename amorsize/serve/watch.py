"""Waiting for the workers of a pool and for other threads at once."""

from __future__ import annotations

import os
import selectors
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
        self._selector = None
        if os.name == "posix":
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._wakeup, selectors.EVENT_READ, None)

    def wake(self) -> None:
        """Have ``wait`` return; do nothing once it is closed."""
        with self._closing:
            if not self._waker.closed:
                self._waker.send_bytes(b"w")

    def add(self, attendant: Attendant) -> None:
        """Wait for a worker, too."""
        self._sources[attendant] = attendant.sources()
        if self._selector is not None:
            for source in self._sources[attendant]:
                self._selector.register(source, selectors.EVENT_READ, attendant)

    def remove(self, attendant: Attendant) -> None:
        """Wait no longer for a worker; call it before its descriptors are closed."""
        for source in self._sources.pop(attendant):
            if self._selector is not None:
                self._selector.unregister(source)

    def wait(self, timeout: float | None) -> list[Attendant]:
        """Return the workers that have sent something or have ended.

        Args:
            timeout: longest time to wait, s; None for no limit.
        """
        if self._selector is not None:
            found = [key.data for key, _ in self._selector.select(timeout)]
        else:
            owners = {source: one for one, sources in self._sources.items() for source in sources}
            found = [owners.get(one) for one in wait([self._wakeup, *owners], timeout)]
        if None in found:
            self._wakeup.recv_bytes()
        return [one for one in found if one is not None]

    def close(self) -> None:
        """Release all descriptors."""
        if self._selector is not None:
            self._selector.close()
        with self._closing:
            self._wakeup.close()
            self._waker.close()
