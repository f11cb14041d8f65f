"""The second level: records shared by a fleet, behind the local files.

Short-lived containers start with an empty folder. ``AMORSIZE_CACHE_URL`` names a place they share:
``redis://host:port/0`` (extra ``redis``) or ``file:///shared/folder``. It is asked on a local miss
only, never on a hit's way, with a short limit of time; and after a failure not at all for a while.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from . import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Level(Protocol):
        """A place that keeps bytes by name."""

        def get(self, names: list[str]) -> list[bytes | None]: ...

        def put(self, name: str, data: bytes, seconds: float) -> None: ...


__all__ = ["fetch", "publish"]

# A round trip within a data centre takes less than 1 ms; who has to wait longer had better measure.
LIMIT_SECONDS = 0.1
# How long a place that failed is left alone: at first, and at most.
COOL_SECONDS = 5.0
MOST_COOL_SECONDS = 300.0


class _Circuit:
    """A level, and whether it is to be asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.level: Level | None = None
        self.left_alone_until = 0.0  # on the monotonic clock
        self.cool = COOL_SECONDS

    def ask(self, call: Callable[[Level], Any]) -> Any:
        """Return what a call of the level gives; None where it fails or is left alone.

        Raises:
            OSError: it failed; it will be left alone for a while.
        """
        if time.monotonic() < self.left_alone_until:
            return None
        try:
            found = _within(LIMIT_SECONDS, lambda: call(self._open()))
        except Exception as error:
            self.left_alone_until = time.monotonic() + self.cool
            self.cool = min(2 * self.cool, MOST_COOL_SECONDS)
            raise OSError(
                f"{_without_password(self.url)}: {error or type(error).__name__}"
            ) from error
        self.cool = COOL_SECONDS
        return found

    def _open(self) -> Level:
        if self.level is None:
            self.level = _open(self.url)
        return self.level


_circuits: dict[str, _Circuit] = {}


def fetch(names: list[str]) -> list[bytes]:
    """Return the contents of those names that the shared place has.

    Raises:
        OSError: it failed; it will be left alone for a while.
    """
    circuit = _circuit()
    found = circuit.ask(lambda level: level.get(names)) if circuit is not None else None
    return [data for data in found or () if data is not None]


def publish(name: str, data: bytes, seconds: float) -> None:
    """Put something into the shared place, for so many seconds.

    Raises:
        OSError: it failed; it will be left alone for a while.
    """
    circuit = _circuit()
    if circuit is not None:
        circuit.ask(lambda level: level.put(name, data, seconds))


def _circuit() -> _Circuit | None:
    url = os.environ.get("AMORSIZE_CACHE_URL", "")
    if not url:
        return None
    if url not in _circuits:
        _circuits[url] = _Circuit(url)
    return _circuits[url]


def _open(url: str) -> Level:
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        from urllib.parse import unquote  # 3 ms

        return _Folder(unquote(rest))
    if scheme in ("redis", "rediss", "unix"):
        return _Redis(url)
    raise ValueError("AMORSIZE_CACHE_URL takes redis://... or file:///...")


class _Folder:
    """A folder on a shared file system."""

    def __init__(self, place: str) -> None:
        self._place = place

    def get(self, names: list[str]) -> list[bytes | None]:
        return [store.read(self._place, name, shared=True) for name in names]

    def put(self, name: str, data: bytes, seconds: float) -> None:
        store.write(self._place, name, data, shared=True)


class _Redis:
    """A Redis server, or one that speaks its protocol."""

    def __init__(self, url: str) -> None:
        import redis.backoff  # an extra
        import redis.retry

        self._client = redis.Redis.from_url(
            url,
            socket_timeout=LIMIT_SECONDS,
            socket_connect_timeout=LIMIT_SECONDS,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),  # the next call is the retry
        )

    def get(self, names: list[str]) -> list[bytes | None]:
        found: Any = self._client.mget([self._key(name) for name in names])
        # Text where the URL asks for decode_responses.
        return [data.encode() if isinstance(data, str) else data for data in found]

    def put(self, name: str, data: bytes, seconds: float) -> None:
        self._client.set(self._key(name), data, ex=max(1, int(seconds)))

    @staticmethod
    def _key(name: str) -> str:
        return f"amorsize:{name}"


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return what a call gives within so many seconds; a file system may hang without end.

    Raises:
        TimeoutError: it took longer.
        Exception: whatever it raises.
    """
    box: list[Any] = []

    def run() -> None:
        try:
            box.append((call(), None))
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            box.append((None, error))

    thread = threading.Thread(target=run, name="amorsize-remote", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending; from 3.12 on no thread can be started then
        run()
    else:
        # The first call also loads the client's package.
        thread.join(seconds + 2.0 if not _loaded else seconds)
    _loaded.append(True)
    if not box:
        raise TimeoutError(f"no answer within {seconds:g} s")
    value, error = box[0]
    if error is not None:
        raise error
    return value


_loaded: list[bool] = []


def _without_password(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return scheme + mark + rest.rpartition("@")[2]
