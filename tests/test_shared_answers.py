"""The shared place: what it answers, how long it takes, and what is said of its failures."""

import itertools
import logging
import os
import socket
import stat
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from amorsize import clear_cache, smart_map
from amorsize.measure.machine import this_machine
from amorsize.memory import remote, store
from amorsize.memory.cache import CACHE
from amorsize.memory.records import environment_of
from tests import programs
from tests.conftest import forget
from tests.functions import busy_ms

NAME = "func-00112233445566aa_size-small_time-fast_v-3.json"


def commands(connection):
    """Yield the commands of a Redis client; its protocol has them as arrays of strings."""
    with connection.makefile("rb") as lines:
        while head := lines.readline():
            parts = []
            for _ in range(int(head[1:])):
                lines.readline()
                parts.append(lines.readline().strip())
            yield parts


GREETINGS = {b"HELLO": b"-ERR unknown command\r\n"}


@contextmanager
def server(answer):
    """Run a server that speaks as much of Redis's protocol; yield its URL.

    It greets as an old Redis would, and answers MGET and SET by ``answer(connection, command)``.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    stop, threads = threading.Event(), []

    def serve(connection):
        with connection, suppress(OSError):
            for command in commands(connection):
                kind = command[0].upper()
                if kind in (b"MGET", b"SET"):
                    answer(connection, command, stop)
                else:
                    connection.sendall(GREETINGS.get(kind, b"+OK\r\n"))

    def accept():
        while True:
            try:
                connection = listening.accept()[0]
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0?protocol=2"
    finally:
        stop.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for circuit in remote._circuits.values():
            if circuit.level is not None:
                circuit.level.abandon()
        for thread in threads:
            thread.join(10)
        join_askers()


def join_askers():
    """Wait for the threads that asked a shared place; return those that do not end."""
    askers = [thread for thread in threading.enumerate() if thread.name == "amorsize-remote"]
    for thread in askers:
        thread.join(10)
    return [thread for thread in askers if thread.is_alive()]


@pytest.fixture(autouse=True)
def needs_redis():
    pytest.importorskip("redis", reason="the extra 'redis' is not installed")


ANSWERS = {
    "a status": b"+OK\r\n",
    "a number": b":5\r\n",
    "nothing": b"*-1\r\n",
    "no string": b"$-1\r\n",
    "a string": b"$3\r\nabc\r\n",
    "too little": b"*1\r\n$1\r\na\r\n",
    "too much": b"*7\r\n" + 7 * b"$1\r\na\r\n",
    "numbers": b"*5\r\n" + 5 * b":5\r\n",
    "lists": b"*5\r\n" + 5 * b"*1\r\n:1\r\n",
    "junk": b"*5\r\n" + 5 * b"$4\r\n\xff\xfe[{\r\n",
    "an error": b"-WRONGPASS hunter2 is wrong\r\n",
    "no access": b"-NOAUTH Authentication required.\r\n",
    "not Redis": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "end": b"",
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_whatever_a_server_answers_is_a_miss(kind, monkeypatch, caplog):
    """Numbers, lists, text, errors and what is no Redis: logged once, and the call goes on."""

    def answer(connection, command, stop):
        connection.sendall(ANSWERS[kind])
        if kind == "end":
            connection.shutdown(socket.SHUT_RDWR)

    with server(answer) as url, caplog.at_level(logging.WARNING, "amorsize"):
        monkeypatch.setenv("AMORSIZE_CACHE_URL", url)
        for items in (50, 60):
            assert smart_map(busy_ms, range(items), n_jobs=1) == [2 * x for x in range(items)]
            CACHE.look_up("0" * 16, items, environment_of(this_machine(), "fork"))
    assert len(caplog.records) == 1
    assert "hunter2" not in caplog.text


def test_numbers_in_place_of_text_are_no_records(monkeypatch):
    """A client that decodes gives text, which counts; numbers and lists are refused."""
    level = object.__new__(remote._Redis)
    for found in (5, "OK", b"OK", None, [1], [["a"]], {"a": 1}, [b"a", 2.5]):
        level._client = type("Client", (), {"mget": lambda self, keys, found=found: found})()
        with pytest.raises(remote._RefusedError, match="no Redis"):
            level.get([NAME])
    level._client = type("Client", (), {"mget": lambda self, keys: ["text"]})()
    assert level.get([NAME]) == [b"text"]


def drip(connection, command, stop):
    for byte in itertools.chain(b"*5\r\n$900\r\n", itertools.repeat(ord("x"))):
        if stop.wait(0.03):
            return
        connection.sendall(bytes([byte]))


def test_a_server_that_drips_is_given_up_in_time(monkeypatch):
    """One limit holds for the whole exchange, not for each byte; its thread ends, too."""
    with server(drip) as url:
        monkeypatch.setenv("AMORSIZE_CACHE_URL", url)
        for ask in (lambda: remote.fetch([NAME] * 5), lambda: remote.publish(NAME, b"x", 60)):
            remote._circuits.clear()
            begun = time.monotonic()
            with pytest.raises(OSError, match="no answer in time"):
                ask()
            assert time.monotonic() - begun < 1.5  # 0.1 s, the package's import, a busy machine
        assert not join_askers()


def test_a_server_that_drips_does_not_hold_the_exit(tmp_path):
    """Also where no thread can be started any more."""
    source = """
from amorsize import smart_map
def work(x):
    return x + 1
smart_map(work, range(50))
"""
    with server(drip) as url:
        ended = programs.run_source(source, tmp_path, AMORSIZE_CACHE_URL=url, deadline=20)
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err


def test_a_name_that_takes_long_to_look_up_is_given_up(monkeypatch):
    """Looking up a host's name has no limit of its own."""
    asked, release = threading.Event(), threading.Event()

    def look_up(*args, **kwargs):
        asked.set()
        release.wait(20)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("AMORSIZE_CACHE_URL", "redis://slow.example:6379/0")
    try:
        with pytest.raises(OSError, match="no answer in time"):
            remote.fetch([NAME])
        assert asked.is_set()
    finally:
        release.set()
        join_askers()


SECRET_URLS = [
    "redis://:s3cret@127.0.0.1:1/0",
    "redis://user:s3cret@127.0.0.1:1/0",
    "redis://127.0.0.1:1/0?password=s3cret",
    "redis://127.0.0.1:1/0?username=u&password=s3cret%21@x",
    "redis://127.0.0.1:s3cret/0",
    "redis://:s3/cret@127.0.0.1:1/0",
    "redis://:s3?s3cret@127.0.0.1:1/0",
    "redis://:a#s3cret@127.0.0.1:1/0",
    "rediss://:s3cret@127.0.0.1:1/0",
    "unix://:s3cret@/not/there.sock?db=0&password=s3cret",
    "redis://127.0.0.1:1/0?socket_timeout=s3cret",
    "http://:s3cret@host/",
    "s3cret",
    "file://user:s3cret@server/share",
    "file:///not/there?password=s3cret",
]


@pytest.mark.parametrize("url", SECRET_URLS)
def test_no_secret_of_the_url_is_logged(url, monkeypatch, caplog):
    """Passwords in any place of the URL, also where the client quotes them in its errors."""
    monkeypatch.setenv("AMORSIZE_CACHE_URL", url)
    with caplog.at_level(logging.DEBUG):
        smart_map(busy_ms, range(50))
        list(CACHE.places.shared(["x"]))
        for ask in (lambda: remote.fetch([NAME]), lambda: remote.publish(NAME, b"x", 60)):
            remote._circuits.clear()
            try:
                ask()
            except OSError as error:
                assert "s3" not in str(error)
                assert error.__cause__ is None
                assert error.__suppress_context__
    assert "s3" not in caplog.text


def test_a_failure_says_which_place_and_why(monkeypatch, caplog):
    """Host and port, and what the system says."""
    monkeypatch.setenv("AMORSIZE_CACHE_URL", "redis://:s3cret@127.0.0.1:1/0")
    smart_map(busy_ms, range(50))
    assert "redis://127.0.0.1:1: ConnectionError (Connection refused)" in caplog.text


IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


class TestFolder:
    """A folder of several users."""

    @pytest.mark.parametrize(("folder", "file"), [(0o777, 0o644), (0o750, 0o640), (0o700, 0o600)])
    def test_who_may_read_the_folder_may_read_its_records(self, folder, file, tmp_path):
        """Whatever the umask of who wrote them."""
        place = tmp_path / "shared"
        place.mkdir()
        place.chmod(folder)
        before = os.umask(0o077)
        try:
            store.write(str(place), NAME, b"record", shared=True)
        finally:
            os.umask(before)
        assert stat.S_IMODE((place / NAME).stat().st_mode) == file

    @pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
    @pytest.mark.parametrize(("mode", "left"), [(0o777, b"other"), (0o1777, b"root")])
    def test_a_second_user_reads_and_replaces(self, mode, left):
        """What one user learned another reads, who writes his own where the folder lets him."""
        source = (
            "import os, sys\n"
            "from urllib import parse\n"
            "from amorsize.memory import remote\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "assert remote.fetch([sys.argv[1]]) == [b'root']\n"
            "remote.publish(sys.argv[1], b'other', 60)\n"
        )
        with tempfile.TemporaryDirectory() as folder:
            shared = Path(folder) / "shared"
            shared.mkdir()
            shared.chmod(mode)
            Path(folder).chmod(0o755)
            store.write(str(shared), NAME, b"root", shared=True)
            ended = programs.run("-c", source, NAME, AMORSIZE_CACHE_URL=f"file://{shared}")
            assert ended.code == 0, ended.err
            assert (shared / NAME).read_bytes() == left

    def test_the_folder_is_kept_within_limits(self, tmp_path, monkeypatch):
        """What is too much, too old or half-written goes; what somebody else put there stays."""
        shared = tmp_path / "shared"
        shared.mkdir(mode=0o777)
        monkeypatch.setenv("AMORSIZE_CACHE_URL", f"file://{shared}")
        monkeypatch.setattr(store, "MOST_FILES", 20)
        (shared / "notes.txt").write_text("mine")
        (shared / f"{NAME}.1-ab.tmp").write_text("half")
        old = time.time() - 700
        os.utime(shared / f"{NAME}.1-ab.tmp", (old, old))
        for number in range(50):
            (shared / NAME.replace("00112233445566aa", f"{number:016x}")).write_text("x")
        smart_map(busy_ms, range(50))
        CACHE.flush()
        CACHE.close()
        left = sorted(path.name for path in shared.iterdir())
        assert len(left) == 21
        assert "notes.txt" in left


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "a week", "1e999", "0x10"])
def test_a_lifetime_that_is_none_is_a_week(text, monkeypatch, caplog):
    """AMORSIZE_CACHE_TTL takes a finite number of seconds of 0 or more; anything else is told."""
    smart_map(busy_ms, range(50))
    forget()
    monkeypatch.setenv("AMORSIZE_CACHE_TTL", text)
    reports = []
    with caplog.at_level(logging.WARNING, "amorsize"):
        smart_map(busy_ms, range(50), report=reports.append)
    assert reports[0].cache_hit
    assert len([r for r in caplog.records if "AMORSIZE_CACHE_TTL" in r.getMessage()]) == 1
    clear_cache()
