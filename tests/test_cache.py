"""What is remembered: by the contract's key, checked at use, and never an error."""

import json
import logging
import os
import re
import shutil
import time
from pathlib import Path

import platformdirs
import pytest

from amorsize import (
    clear_cache,
    get_cache_dir,
    optimize,
    prune_expired_cache,
    smart_map,
)
from amorsize.measure.machine import this_machine
from amorsize.memory import records, store
from amorsize.memory.places import RULES
from tests import programs
from tests.conftest import forget, record_files
from tests.functions import busy_ms, double


def learn(func=busy_ms, items=50, **options):
    """Run once so that a record is written; return its file."""
    smart_map(func, range(items), **options)
    (path,) = record_files()
    return path


def hit(func=busy_ms, items=50, **options):
    """Return whether a run in a fresh process would use what is remembered."""
    forget()
    reports = []
    smart_map(func, range(items), report=reports.append, **options)
    return reports[0].cache_hit


def edit(path, **changes):
    """Change fields of a record's JSON; a dotted name reaches inside."""
    data = json.loads(path.read_text())
    for name, value in changes.items():
        *folders, last = name.split("__")
        inner = data
        for folder in folders:
            inner = inner[folder]
        inner[last] = value
    del data["checksum"]
    body = json.dumps(data).encode()[:-1]
    path.write_bytes(body + records._seal(body))  # as somebody would who means harm


def test_a_record_has_the_contracts_key_and_a_legal_file_name():
    """One JSON file a key, whose name is legal on every platform."""
    path = learn()
    data = json.loads(path.read_text())
    assert re.fullmatch(r"func:[0-9a-f]{16}_size:small_time:(fast|moderate)_v:\d+", data["key"])
    assert not set(path.name) & set('<>:"/\\|?*')
    assert 0.0005 < data["profile"]["item_seconds"] < 0.1
    assert data["items"] == 50


def test_the_second_run_of_another_process_is_a_hit():
    """What one process learned, the next one uses."""
    learn()
    assert hit()


def test_another_size_in_the_same_bucket_is_planned_exactly():
    """A record serves its whole size bucket, but not the next one."""
    learn(items=50)
    assert hit(items=60)
    assert not hit(items=5)


@pytest.mark.parametrize(
    "changes",
    [
        {"updated": time.time() - 8 * 24 * 3600},
        {"updated": time.time() + 3600},
        {"environment__cores": 63},
        {"environment__cpus": 63},
        {"environment__method": "thread"},
        {"environment__python": "2.7"},
        {"environment__memory_bytes": 1000},
        {"format": 0},
        {"format": "one"},
        {"profile__item_seconds": -1},
        {"profile__item_seconds": "fast"},
        {"profile__item_seconds": 1e300},
        {"profile__item_seconds": 0},
        {"profile__item_seconds": 5.0},
        {"profile__least_seconds": 5.0},
        {"profile__least_seconds": 5.0, "profile__most_seconds": 9.0},
        {"profile": None},
        {"n_jobs": True},
        {"n_jobs": 1.5},
        {"executor": "rm -rf"},
        {"size": "tiny"},
        {"func": "0123456789abcdef"},
        {"environment": []},
    ],
    ids=str,
)
def test_a_record_that_does_not_fit_is_a_miss(changes):
    """Too old, from another machine, out of range or contradicted by live timings: a miss."""
    path = learn()
    edit(path, **changes)
    assert not hit()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "\0" * 100, "[" * 100_000])
def test_a_damaged_record_is_a_miss_logged_once(text, caplog):
    """Every kind of damage is a miss, told once at WARNING, and the next run repairs it."""
    path = learn()
    path.write_text(text)
    with caplog.at_level(logging.WARNING, "amorsize"):
        assert not hit()
    assert len([r for r in caplog.records if "not a record" in r.message]) == 1
    assert hit()


def test_a_constant_changed_in_the_function_is_a_miss():
    """The record belongs to the function as it was."""

    def make(k):
        def work(x):
            return busy_ms(x) + k

        return work

    learn(make(1))
    assert hit(make(1))
    assert not hit(make(2))


def test_use_cache_false_neither_reads_nor_writes():
    """use_cache=False leaves the folder alone."""
    smart_map(busy_ms, range(50), use_cache=False)
    assert not get_cache_dir().exists()
    learn()
    assert not hit(use_cache=False)


def test_the_environment_turns_the_cache_off(monkeypatch):
    """AMORSIZE_CACHE=0 is use_cache=False for everybody."""
    monkeypatch.setenv("AMORSIZE_CACHE", "0")
    smart_map(busy_ms, range(50))
    optimize(double, range(100))
    assert not get_cache_dir().exists()


def test_generators_bypass_the_cache():
    """Without a length nothing is remembered."""
    smart_map(busy_ms, (x for x in range(50)))
    assert not get_cache_dir().exists()


def test_the_folder_is_private():
    """The folder is 0700 and its files 0600."""
    path = learn()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_no_temporary_file_stays():
    """After a write there is nothing but the record."""
    path = learn()
    assert record_files() == [path]
    assert all(RULES.is_ours(p.name) for p in path.parent.iterdir())


@pytest.mark.parametrize("kind", ["file in its place", "folder in a file"])
def test_an_unusable_folder_is_a_miss(tmp_path, monkeypatch, caplog, kind):
    """A folder that cannot be made costs a warning, no error."""
    obstacle = tmp_path / "obstacle"
    obstacle.write_text("not a folder")
    place = obstacle if kind.startswith("file") else obstacle / "below"
    monkeypatch.setenv("AMORSIZE_CACHE_DIR", str(place))
    with caplog.at_level(logging.WARNING, "amorsize"):
        assert smart_map(busy_ms, range(50)) == [2 * x for x in range(50)]
        assert clear_cache() == 0
    assert caplog.records


def test_a_folder_that_cannot_be_written_is_a_miss(tmp_path, monkeypatch, caplog):
    """A read-only home costs a warning, told once, and no error."""
    folder = tmp_path / "readonly"
    folder.mkdir(mode=0o500)
    # Root may write anywhere but below /proc.
    place = folder if os.geteuid() else Path("/proc/self/fd")
    monkeypatch.setenv("AMORSIZE_CACHE_DIR", str(place))
    with caplog.at_level(logging.WARNING, "amorsize"):
        for items in (50, 500):
            assert smart_map(busy_ms, range(items)) == [2 * x for x in range(items)]
    assert len([r for r in caplog.records if "cannot write" in r.message]) == 1


def test_clear_cache_forgets_everything_and_counts():
    """clear_cache removes the records, and nothing else, and the next run is a miss."""
    path = learn()
    other = path.parent / "notes.txt"
    other.write_text("mine")
    assert clear_cache() == 1
    assert clear_cache() == 0
    assert other.exists()
    reports = []
    smart_map(busy_ms, range(50), report=reports.append)
    assert not reports[0].cache_hit


def test_prune_removes_what_is_too_old_or_unreadable():
    """prune_expired_cache keeps what is fresh."""
    path = learn()
    assert prune_expired_cache() == 0
    edit(path, updated=time.time() - 3600)
    assert prune_expired_cache(7200) == 0
    assert prune_expired_cache(60) == 1
    path.write_text("damaged")
    assert prune_expired_cache() == 1
    with pytest.raises(ValueError, match="ttl_seconds=-1"):
        prune_expired_cache(-1)
    with pytest.raises(TypeError, match="ttl_seconds='week'"):
        prune_expired_cache("week")


def test_the_folder_is_the_users_unless_told(monkeypatch):
    """The default is platformdirs' user cache folder, below amorsize/optimization_cache."""
    assert str(get_cache_dir()) == os.environ["AMORSIZE_CACHE_DIR"]
    monkeypatch.delenv("AMORSIZE_CACHE_DIR")
    users = platformdirs.user_cache_dir("amorsize", appauthor=False)
    assert get_cache_dir() == Path(users, "optimization_cache")
    assert "amorsize" in get_cache_dir().parts
    assert get_cache_dir().is_absolute()


@pytest.mark.parametrize("home", [None, "", "here", "/", "/home/me", "/home/me/"])
@pytest.mark.parametrize("base", [None, "", "here", "~/caches", "/caches", "/caches/"])
def test_the_users_folder_is_that_of_platformdirs(home, base, monkeypatch):
    """Also where the library does not load platformdirs to find it."""
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", base)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    expected = platformdirs.user_cache_dir("amorsize", appauthor=False)
    assert store._users_folder() == expected


def test_what_short_runs_learned_is_written_at_exit(own_cache):
    """A run of microseconds does not pay for a write; the interpreter's exit does."""
    code = (
        "from amorsize import smart_map, get_cache_dir; smart_map(abs, range(8_000)); "
        "print(get_cache_dir().exists())"
    )
    for _ in range(20):  # on a busy machine a hundred items may take long, which is written at once
        shutil.rmtree(own_cache, ignore_errors=True)
        if programs.run("-c", code).out.strip() == "False":
            break
    else:
        pytest.fail("it was written before the exit, twenty times")
    assert len(list(own_cache.iterdir())) == 1


def test_records_survive_another_hash_seed(tmp_path):
    """A process with another hash seed finds the record of the first."""
    source = (
        "from amorsize import optimize\n"
        "K = {'a', 'b'}\n"
        "def f(x): return x in K or x in {'c', 'd'}\n"
        "print(optimize(f, range(1000)).cache_hit)\n"
    )
    answers = [
        programs.run_source(source, tmp_path, PYTHONHASHSEED=seed).out.strip()
        for seed in ("1", "2")
    ]
    assert answers == ["False", "True"]


def test_a_fingerprint_that_is_not_stable_stays_in_memory(tmp_path):
    """What cannot be pinned down across processes is not written."""
    with open(tmp_path / "file", "w") as file:

        def work(x):
            busy_ms(x)
            return file.closed

        smart_map(work, range(50))
    assert record_files() == []


def test_memory_tolerance():
    """Memory may differ by 20 %."""
    here = records.environment_of(this_machine(), "fork")
    assert here.accepts(here._replace(memory_bytes=int(here.memory_bytes * 1.15)))
    assert not here.accepts(here._replace(memory_bytes=int(here.memory_bytes * 0.7)))


def test_a_file_that_is_open_elsewhere_is_waited_for_on_windows(tmp_path, monkeypatch):
    """There it can be neither replaced nor removed for that time; later it is."""
    monkeypatch.setattr(store, "HELD_PAUSES", (0.001, 0.001))
    refused = []

    def held(action):
        def tried(*args):
            if len(refused) % 3 < 2:
                refused.append(action.__name__)
                raise PermissionError(13, "the file is open in another process")
            refused.append("")
            return action(*args)

        return tried

    folder = tmp_path / "records"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", held(os.replace))
        store.write(str(folder), "one", b"1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", held(os.unlink))
        assert store.remove(str(folder), "one")
    assert refused == ["replace", "replace", "", "unlink", "unlink", ""]
    assert not list(folder.iterdir())


def test_use_is_noted_where_only_paths_have_times(own_cache, monkeypatch):
    """A record that is read lives on, also where an open file's time cannot be set."""
    store.write(str(own_cache), "one", b"1")
    os.utime(own_cache / "one", (1, 1))
    monkeypatch.setattr(os, "supports_fd", os.supports_fd - {os.utime})
    assert store.read(str(own_cache), "one") == b"1"
    assert (own_cache / "one").stat().st_mtime > 1
