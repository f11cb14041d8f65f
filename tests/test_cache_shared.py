"""The second level: records a fleet shares, through a real server and a real folder."""

import queue
import shutil
import socket
import subprocess
import threading
import time

import pytest

from amorsize import optimize, smart_map
from amorsize.memory import remote
from amorsize.memory.cache import CACHE
from tests import programs
from tests.conftest import forget, record_files
from tests.functions import busy_ms


@pytest.fixture
def redis_url(tmp_path):
    """Start a Redis server of our own; return its URL."""
    redis = pytest.importorskip("redis", reason="the extra 'redis' is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server on this machine (Debian: redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    url = f"redis://127.0.0.1:{port}/0"
    client = redis.Redis.from_url(url)
    for _ in range(500):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.01)
    client.close()
    yield url
    server.kill()
    server.wait()


@pytest.fixture
def folder_url(tmp_path):
    """Return the URL of an empty shared folder."""
    (tmp_path / "shared folder").mkdir(mode=0o777)
    return f"file://{tmp_path}/shared%20folder"


@pytest.fixture(params=["redis_url", "folder_url"])
def url(request):
    """Both kinds of place."""
    return request.getfixturevalue(request.param)


def run(func=busy_ms, items=50):
    """Run; return whether it was a hit."""
    reports = []
    got = smart_map(func, range(items), report=reports.append)
    assert got == list(map(func, range(items)))
    return reports[0].cache_hit


def on_another_machine(monkeypatch, tmp_path, name="machine"):
    """Have an empty local folder and an empty memory, as a fresh container has."""
    monkeypatch.setenv("AMORSIZE_CACHE_DIR", str(tmp_path / name))
    circuits = dict(remote._circuits)
    forget()
    remote._circuits.update(circuits)


def test_what_one_learned_another_knows(url, monkeypatch, tmp_path):
    """A record travels, and is written to the local folder of who asked."""
    monkeypatch.setenv("AMORSIZE_CACHE_URL", url)
    assert not run()
    on_another_machine(monkeypatch, tmp_path)
    assert run()
    CACHE.flush()
    assert len(record_files()) == 1


def test_a_damaged_shared_record_is_a_miss(folder_url, monkeypatch, tmp_path, caplog):
    """It is checked like any other."""
    monkeypatch.setenv("AMORSIZE_CACHE_URL", folder_url)
    run()
    (path,) = (tmp_path / "shared folder").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    on_another_machine(monkeypatch, tmp_path)
    assert not run()
    assert "shared cache" in caplog.text


class Deaf:
    """A server that takes connections and never answers."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.place = self.server.getsockname()
        self.url = f"redis://:secret@127.0.0.1:{self.place[1]}/0"
        self.taken = queue.SimpleQueue()
        self.connections = {}
        # So named, the thread is no hindrance to fork.
        self.thread = threading.Thread(target=self.serve, name="amorsize-idle-test")
        self.thread.start()

    def serve(self):
        while True:
            try:
                self.taken.put(self.server.accept())
            except OSError:
                return

    def asked(self):
        """Return who has connected so far: connections are taken in their order."""
        with socket.create_connection(self.place) as last:
            while last.getsockname() not in self.connections:
                connection, address = self.taken.get(timeout=30)
                self.connections[address] = connection
            self.connections.pop(last.getsockname()).close()
        return set(self.connections)

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join(10)
        while not self.taken.empty():
            self.taken.get()[0].close()
        for connection in self.connections.values():
            connection.close()


@pytest.fixture
def deaf():
    """A server that does not answer."""
    server = Deaf()
    yield server
    server.close()
    for other in threading.enumerate():
        if other.name == "amorsize-remote":
            other.join(10)


def test_a_server_that_does_not_answer_is_left_alone(deaf, monkeypatch, tmp_path, caplog):
    """One warning without the password, one wait; the next calls do not ask again."""
    pytest.importorskip("redis")
    monkeypatch.setenv("AMORSIZE_CACHE_URL", deaf.url)
    assert not run()
    asked = deaf.asked()
    assert asked
    on_another_machine(monkeypatch, tmp_path, "second")
    assert not run()
    assert deaf.asked() == asked
    warnings = [record.getMessage() for record in caplog.records]
    assert any("shared cache is of no use" in text for text in warnings)
    assert "secret" not in caplog.text


def test_a_hit_never_asks(deaf, monkeypatch):
    """What is known here is not asked for elsewhere. (A run may publish what it learned.)"""
    run()
    monkeypatch.setenv("AMORSIZE_CACHE_URL", deaf.url)
    assert optimize(busy_ms, range(50)).cache_hit
    CACHE.forget_records(pending=False, written=False)
    assert optimize(busy_ms, range(50)).cache_hit
    assert not deaf.asked()


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "file:///not/there", "ftp://x", "nonsense"]
)
def test_a_place_that_is_not_there_is_a_warning(url, monkeypatch, caplog):
    """Never an error."""
    monkeypatch.setenv("AMORSIZE_CACHE_URL", url)
    assert not run()
    assert "shared cache" in caplog.text or url.startswith("file")


@pytest.mark.parametrize("junk", [b"[" * 100_000, b"\xff\xfe", b"", b"null"])
def test_junk_in_the_shared_place_is_a_miss(junk, folder_url, monkeypatch, tmp_path):
    """Whatever somebody put there; the call goes on."""
    monkeypatch.setenv("AMORSIZE_CACHE_URL", folder_url)
    run()
    CACHE.flush()
    for path in (tmp_path / "shared folder").iterdir():
        path.write_bytes(junk)
    on_another_machine(monkeypatch, tmp_path)
    assert not run()


def test_a_client_that_decodes_answers_is_served(redis_url, monkeypatch, tmp_path):
    """A URL may ask for text instead of bytes."""
    monkeypatch.setenv("AMORSIZE_CACHE_URL", f"{redis_url}?decode_responses=True")
    run()
    CACHE.flush()
    on_another_machine(monkeypatch, tmp_path)
    assert run()


def test_what_short_runs_learned_is_published_at_the_exit(folder_url, tmp_path):
    """Also where no thread can be started any more."""
    source = """
from amorsize import smart_map
def work(x):
    return x + 1
smart_map(work, range(20_000))
"""
    ended = programs.run_source(source, tmp_path, AMORSIZE_CACHE_URL=folder_url)
    assert (ended.code, ended.err) == (0, "")
    assert len(list((tmp_path / "shared folder").iterdir())) == 1
