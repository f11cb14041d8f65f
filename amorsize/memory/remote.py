"""The third level of the cache: a place for records that many machines share.

Short-lived containers start with an empty folder. ``AMORSIZE_CACHE_URL`` names a place they share:
``redis://host:port/0`` (extra ``redis``) or ``file:///shared/folder``. It is read on a local miss
only, so it never delays a hit. One short time limit covers the whole exchange. After a failure the
place is not used for a while. Its answers are checked before use. Messages about its failures
contain neither a password nor any other part of the URL that could contain one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from . import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Level(Protocol):
        """A place that keeps bytes by name.

        Attributes:
            local: whether its calls may run without a time limit where no thread can be started.
        """

        local: bool

        def get(self, names: list[str]) -> list[bytes | None]: ...

        def put(self, name: str, data: bytes, seconds: float) -> None: ...

        def tidy(self, seconds: float, rules: store.Rules) -> None: ...

        def abandon(self) -> None: ...


__all__ = ["fetch", "publish", "tidy"]

# A round trip within a data centre takes less than 1 ms. Rather than wait longer than this, a call
# measures its items.
LIMIT_SECONDS = 0.1
# Listing and removing 1,000 files takes 3 ms on a local disk, and longer on a network file system.
TIDY_LIMIT_SECONDS = 0.5
# How long a place is not used after a failure: at first, and at most.
COOL_SECONDS = 5.0
MOST_COOL_SECONDS = 300.0
# The longest expiry given to a server, since none takes an unlimited one. By default records are
# dropped when they are a week old.
MOST_KEPT_SECONDS = 366 * 24 * 3600


class _RefusedError(Exception):
    """What is wrong with a place, in a message of this module without any part of the URL."""


class _Circuit:
    """A level, and whether it may be used."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.level: Level | None = None
        self.left_alone_until = 0.0  # on the monotonic clock
        self.cool = COOL_SECONDS

    def ask(self, call: Callable[[Level], Any], limit: float = LIMIT_SECONDS) -> Any:
        """Return the result of a call of the level; None while the level is not used.

        Raises:
            OSError: the call failed; the level will not be used for a while.
        """
        if time.monotonic() < self.left_alone_until:
            return None
        try:
            found = self._ask(call, limit)
        except Exception as error:  # noqa: BLE001 - a client's package may raise anything
            self.left_alone_until = time.monotonic() + self.cool
            self.cool = min(2 * self.cool, MOST_COOL_SECONDS)
            # Not "from error": its text may contain the password.
            raise OSError(f"{_without_secrets(self.url)}: {_why(error)}") from None
        self.cool = COOL_SECONDS
        return found

    def _ask(self, call: Callable[[Level], Any], limit: float) -> Any:
        # Outside the time limit: this may load the client's package, but uses no network.
        level = self.level = self.level or _open(self.url)
        try:
            return _within(limit, lambda: call(level), or_here=level.local)
        except TimeoutError:
            self.level = None
            level.abandon()
            raise


_circuits: dict[str, _Circuit] = {}


def fetch(names: list[str]) -> list[bytes]:
    """Return the contents of the named files that the shared place has.

    Raises:
        OSError: the place failed; it will not be used for a while.
    """
    circuit = _circuit()
    found = circuit.ask(lambda level: level.get(names)) if circuit is not None else None
    return [data for data in found or () if data is not None]


def publish(name: str, data: bytes, seconds: float) -> None:
    """Put a file into the shared place, for a number of seconds.

    Raises:
        OSError: the place failed; it will not be used for a while.
    """
    circuit = _circuit()
    if circuit is not None:
        circuit.ask(lambda level: level.put(name, data, seconds))


def tidy(seconds: float, rules: store.Rules) -> None:
    """Trim the shared place to the limits of a local folder.

    Args:
        seconds: age from which a file is removed.
        rules: which files are the library's.

    Raises:
        OSError: the place failed; it will not be used for a while.
    """
    circuit = _circuit()
    if circuit is not None:
        circuit.ask(lambda level: level.tidy(seconds, rules), TIDY_LIMIT_SECONDS)


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
        from urllib.parse import unquote  # takes 3 ms

        return _Folder(unquote(rest))
    if scheme in ("redis", "rediss", "unix"):
        return _Redis(url)
    raise _RefusedError("AMORSIZE_CACHE_URL takes redis://... or file:///...")


class _Folder:
    """A folder on a shared file system."""

    local = True  # it hangs no longer than the local folder would

    def __init__(self, place: str) -> None:
        self._place = place

    def get(self, names: list[str]) -> list[bytes | None]:
        return [store.read(self._place, name, shared=True) for name in names]

    def put(self, name: str, data: bytes, seconds: float) -> None:
        try:
            store.write(self._place, name, data, shared=True)
        except PermissionError:
            # In a folder like /tmp another user's record cannot be replaced. It is as good.
            if not store.exists(os.path.join(self._place, name)):
                raise

    def tidy(self, seconds: float, rules: store.Rules) -> None:
        with suppress(PermissionError):  # another user's file, which its owner will remove
            store.limit(self._place, seconds, rules)

    def abandon(self) -> None:
        """Do nothing: the thread ends when the file system answers."""


class _Redis:
    """A Redis server, or one that speaks its protocol."""

    local = False

    def __init__(self, url: str) -> None:
        try:
            import redis.backoff  # an extra
            import redis.retry
        except ImportError:
            raise _RefusedError("the package redis is not installed (extra 'redis')") from None

        self._client = redis.Redis.from_url(
            url,
            socket_timeout=LIMIT_SECONDS,
            socket_connect_timeout=LIMIT_SECONDS,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),  # the next call is the retry
        )

    def get(self, names: list[str]) -> list[bytes | None]:
        found: Any = self._client.mget([self._key(name) for name in names])
        if not isinstance(found, list) or len(found) != len(names):
            raise _RefusedError("it answers as no Redis does")
        return [_as_bytes(data) for data in found]

    def put(self, name: str, data: bytes, seconds: float) -> None:
        kept = min(max(1, int(seconds)), MOST_KEPT_SECONDS)
        self._client.set(self._key(name), data, ex=kept)

    def tidy(self, seconds: float, rules: store.Rules) -> None:
        """Do nothing: the server drops expired records."""

    def abandon(self) -> None:
        """Close the connections, so that a thread ends that still reads from one."""
        with suppress(Exception):  # they are not used again
            self._client.connection_pool.disconnect(inuse_connections=True)

    @staticmethod
    def _key(name: str) -> str:
        return f"amorsize:{name}"


def _as_bytes(data: object) -> bytes | None:
    """Return an answer as bytes; it is text if the URL sets ``decode_responses``."""
    if isinstance(data, str):
        return data.encode()
    if data is None or isinstance(data, bytes):
        return data
    raise _RefusedError("it answers as no Redis does")


def _within(seconds: float, call: Callable[[], Any], *, or_here: bool) -> Any:
    """Return the result of a call, within a time limit, since a file system may hang for ever.

    A limit for each read or write is not enough: a server that sends one byte at a time never
    exceeds it, and resolving its host name has no limit at all.

    Args:
        seconds: the time limit.
        call: the function to call in a thread.
        or_here: whether to call it in the current thread if no thread can be started (from Python
            3.12 on while the interpreter shuts down). If not, None is returned then.

    Raises:
        TimeoutError: the call took longer.
        Exception: any exception that the call raises.
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
    except RuntimeError:
        return call() if or_here else None
    thread.join(seconds)
    if not box:
        raise TimeoutError
    value, error = box[0]
    if error is not None:
        raise error
    return value


# Messages about failures --------------------------------------------------------------------


def _why(error: BaseException) -> str:
    """Return why a place failed, without the text of exceptions from other packages.

    Such a text may quote the URL: "Port could not be cast to integer value as 'secret'".
    """
    if isinstance(error, _RefusedError):
        return str(error)
    if type(error) is TimeoutError and not error.args:
        return "no answer in time"
    name, seen = type(error).__name__, 0
    cause: BaseException | None = error
    while cause is not None and seen < 10:
        if isinstance(cause, OSError) and isinstance(cause.strerror, str):
            return f"{name} ({cause.strerror})"
        cause, seen = cause.__cause__ or cause.__context__, seen + 1
    return name


def _without_secrets(url: str) -> str:
    """Return the part of a URL that may be shown: scheme, host and port, or the folder.

    >>> _without_secrets("redis://:secret@db.example:6379/0?password=secret")
    'redis://db.example:6379'
    >>> _without_secrets("redis://db:secret/0"), _without_secrets("redis://:se?cr@et@db:1/0")
    ('redis://db', 'redis://')
    >>> _without_secrets("file:///srv/records"), _without_secrets("secret")
    ('file:///srv/records', 'AMORSIZE_CACHE_URL')
    """
    scheme, mark, rest = url.partition("://")
    if not mark or scheme not in ("file", "redis", "rediss", "unix"):
        return "AMORSIZE_CACHE_URL"
    plain, query, options = rest.replace("#", "?").partition("?")
    if scheme == "file":
        return f"file://{plain}" if plain.startswith("/") else "file://"
    if scheme == "unix" or (query and "@" in options):  # the end of its password is not known
        return f"{scheme}://"
    host, _, port = plain.rpartition("@")[2].partition("/")[0].partition(":")
    is_port = port.isdecimal() and int(port) < 1 << 16
    return f"{scheme}://{host}:{port}" if is_port else f"{scheme}://{host}"
