"""The cache, managed: private, limited, checked, exported, and right whatever others do to it."""

import json
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from amorsize import (
    cache_stats,
    check_cache,
    clear_cache,
    export_cache,
    get_cache_dir,
    import_cache,
    prune_expired_cache,
    smart_map,
)
from amorsize.call import costs
from amorsize.decide.figures import FIRST_COSTS
from amorsize.decide.learning import Seen
from amorsize.memory import records, store
from amorsize.memory.cache import CACHE
from tests import programs
from tests.conftest import forget, record_files
from tests.functions import busy_ms


def learn(func=busy_ms, items=50, **options):
    """Run once so that a record is written; return its file."""
    smart_map(func, range(items), **options)
    CACHE.flush()
    return record_files()[0]


def limit(folder, ttl):
    return store.limit(str(folder), ttl, store.Rules(records.is_record_name, records.is_leftover))


def is_hit(func=busy_ms, items=50, **options):
    """Return whether the next run uses what is remembered."""
    reports = []
    smart_map(func, range(items), report=reports.append, **options)
    return reports[0].cache_hit


class TestStats:
    def test_it_tells_what_is_there_and_how_it_served(self):
        """Entries, bytes, ages; hits and misses of this process with their reasons."""
        path = learn()
        assert is_hit()
        stats = cache_stats()
        assert (stats.entries, stats.bytes) == (1, path.stat().st_size)
        assert stats.folder == str(get_cache_dir())
        assert 0 <= stats.newest_seconds <= stats.oldest_seconds < 60
        assert stats.hits == 1
        assert stats.misses == {"nothing remembered": 1}

    def test_a_contradicted_record_is_a_miss(self):
        """A record the first items contradict is counted as such."""
        path = learn()
        known = next(iter(CACHE._known.values()))
        slow = {"least_seconds": 5.0, "most_seconds": 9.0}
        known.records = {
            bucket: record._replace(profile=record.profile._replace(**slow))
            for bucket, record in known.records.items()
        }
        assert path.exists()
        assert not is_hit()
        assert cache_stats().misses["contradicted by the run"] == 1


class TestCheck:
    def test_nothing_is_wrong_with_what_was_written(self):
        """A fresh folder, and one that was used, are well."""
        assert check_cache() == []
        learn()
        assert check_cache() == []

    def test_everything_odd_is_found_and_removed_if_asked(self):
        """Damaged records, others' files, leftovers, links, names that lie."""
        path = learn()
        folder = get_cache_dir()
        good = path.read_bytes()
        (folder / path.name.replace("size-small", "size-large")).write_bytes(good)
        (folder / "notes.txt").write_text("mine")
        (folder / "func-x_size-small_time-fast_v-1.json").write_bytes(good[:-1])
        leftover = folder / f"{path.name}.1-abc.tmp"
        leftover.write_bytes(good[:10])
        os.utime(leftover, (0, 0))
        (folder / "link.json").symlink_to(path)
        assert len(check_cache()) == 5
        assert len(check_cache(fix=True)) == 5
        # What is not the library's own is told, and left alone.
        assert len(check_cache()) == 3
        left = {e.name for e in folder.iterdir() if not e.name.startswith("costs")}
        assert left == {path.name, "notes.txt", "link.json",
                        "func-x_size-small_time-fast_v-1.json"}  # fmt: skip

    def test_nobodys_files_are_removed(self, monkeypatch):
        """A user may have named a folder with other things in it: not one of those ever goes."""
        path = learn()
        folder = get_cache_dir()
        names = ["thesis.json", "func-notes_size-small_time-fast_v-1.json", "draft.tmp",
                 f"{path.name}.bak", f"{path.name}.tmp", ".hidden"]  # fmt: skip
        for name in names:
            (folder / name).write_text("mine")
            os.utime(folder / name, (0, 0))
        (folder / "folder").mkdir()
        monkeypatch.setattr(store, "MOST_FILES", 0)
        os.utime(path, (0, 0))
        CACHE.places.tidy(str(folder))
        check_cache(fix=True)
        prune_expired_cache(0)
        clear_cache()
        assert {entry.name for entry in folder.iterdir()} == {*names, "folder"}


class TestFolder:
    def test_it_is_private(self):
        """0700 and 0600, whatever the umask."""
        before = os.umask(0)
        try:
            path = learn()
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    @pytest.mark.parametrize("mode", [0o777, 0o770])
    def test_one_that_others_may_write_to_is_refused(self, mode, caplog):
        """Neither read nor written, with one warning."""
        path = learn()
        path.parent.chmod(mode)
        forget()
        assert not is_hit()
        assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]  # read, write
        assert "others may write" in caplog.text

    def test_another_users_is_refused(self, caplog, monkeypatch):
        """Whoever owns the folder could have put anything there."""
        learn()
        forget()
        monkeypatch.setattr(os, "geteuid", lambda: 12_345)
        assert not is_hit()
        assert "another user" in caplog.text

    def test_a_link_in_its_place_is_refused(self, tmp_path, monkeypatch, caplog):
        """Links are not followed, neither to a folder nor to a record."""
        path = learn()
        (tmp_path / "link").symlink_to(path.parent)
        monkeypatch.setenv("AMORSIZE_CACHE_DIR", str(tmp_path / "link"))
        forget()
        assert not is_hit()
        assert "symbolic link" in caplog.text

    def test_a_linked_record_is_not_followed(self, tmp_path, caplog):
        """A link in a record's place is a miss."""
        path = learn()
        path.rename(tmp_path / "elsewhere.json")
        path.symlink_to(tmp_path / "elsewhere.json")
        forget()
        assert not is_hit()
        assert "cannot read" in caplog.text

    def test_a_file_in_its_place_is_no_error(self, tmp_path, monkeypatch, caplog):
        """A miss, and a warning."""
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("AMORSIZE_CACHE_DIR", str(tmp_path / "file"))
        assert smart_map(busy_ms, range(5)) == list(map(busy_ms, range(5)))
        assert not list(caplog.records) or "cannot" in caplog.text


class TestLimits:
    def test_the_least_recently_used_go_first(self, monkeypatch):
        """Beyond so many files or bytes; a hit counts as use."""
        monkeypatch.setattr(store, "MOST_FILES", 3)
        path = learn()
        for number in range(5):
            other = path.with_name(f"func-{number:016x}{path.name[21:]}")
            other.write_bytes(path.read_bytes())
            os.utime(other, (time.time() - (100 - number) * 3_600,) * 2)
        os.utime(path, (time.time() - 1_000 * 3_600,) * 2)
        forget()
        assert is_hit()  # which makes it the last used
        assert limit(path.parent, 1e9) == 3
        left = sorted(found.name[:21] for found in record_files())
        assert left == sorted([f"func-{3:016x}", f"func-{4:016x}", path.name[:21]])

    def test_what_is_too_old_goes_with_them(self):
        """Nobody used it for longer than it would be valid."""
        path = learn()
        os.utime(path, (time.time() - 1_000,) * 2)
        assert limit(path.parent, 999) == 1

    def test_the_time_to_live_can_be_set(self, monkeypatch, caplog):
        """AMORSIZE_CACHE_TTL, in seconds."""
        learn()
        monkeypatch.setenv("AMORSIZE_CACHE_TTL", "0")
        forget()
        assert not is_hit()
        assert cache_stats().misses["too old"] == 1
        monkeypatch.setenv("AMORSIZE_CACHE_TTL", "soon")
        forget()
        assert is_hit()
        assert "no number of seconds" in caplog.text


class TestOthers:
    def test_a_folder_cleared_by_another_process_is_empty_at_once(self):
        """What was in memory counts no more."""
        learn()
        assert is_hit()
        source = "import amorsize; print(amorsize.clear_cache())"
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, check=True
        )
        assert done.stdout == "1\n"
        assert not is_hit()
        assert is_hit()
        assert len(record_files()) == 1  # learned and written anew

    def test_threads_share_it(self):
        """One learns, another hits."""
        thread = threading.Thread(target=learn, kwargs={"mp_context": "fork"})
        thread.start()
        thread.join()
        assert is_hit(mp_context="fork")

    def test_a_clock_set_back_is_a_miss_not_an_error(self, monkeypatch):
        """A record from the future has an unknown age."""
        learn()
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 10_000)
        assert not is_hit()


class TestExport:
    def test_what_is_exported_can_be_imported(self, tmp_path):
        """One JSON file; the records hit at once."""
        learn()
        assert export_cache(tmp_path / "wisdom.json") == 1
        clear_cache()
        assert import_cache(tmp_path / "wisdom.json") == 1
        assert is_hit()

    def test_what_is_there_stays_unless_told(self, tmp_path):
        """overwrite=True replaces records of the same key."""
        learn()
        export_cache(tmp_path / "wisdom.json")
        assert import_cache(tmp_path / "wisdom.json") == 0
        assert import_cache(tmp_path / "wisdom.json", overwrite=True) == 1

    def test_another_kind_of_machine_gives_a_first_guess(self, tmp_path):
        """It is used, and replaced, not blended, by the first real run."""
        path = learn()
        export_cache(tmp_path / "wisdom.json")
        data = json.loads((tmp_path / "wisdom.json").read_text())
        data["records"][0]["environment"]["cpus"] += 62
        data["records"][0]["profile"]["item_seconds"] *= 1.5
        (tmp_path / "wisdom.json").write_text(json.dumps(data))
        clear_cache()
        assert import_cache(tmp_path / "wisdom.json") == 1
        assert json.loads(path.read_text())["guess"] is True
        assert is_hit()
        now = json.loads(path.read_text())
        assert now["guess"] is False
        assert now["profile"]["items"] <= 50  # of this run alone

    @pytest.mark.parametrize("text", ["", "[]", '{"records": []}', "no", "[" * 100_000],
                             ids=["empty", "list", "unmarked", "text", "deep"])  # fmt: skip
    def test_another_file_is_refused(self, tmp_path, text):
        """With a word on what was expected."""
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match="export_cache"):
            import_cache(tmp_path / "other.json")

    def test_a_damaged_record_is_left_out_with_a_warning(self, tmp_path, caplog):
        """The others are taken."""
        learn()
        export_cache(tmp_path / "wisdom.json")
        data = json.loads((tmp_path / "wisdom.json").read_text())
        data["records"].append({"func": "rm -rf"})
        (tmp_path / "wisdom.json").write_text(json.dumps(data))
        clear_cache()
        assert import_cache(tmp_path / "wisdom.json") == 1
        assert "not valid" in caplog.text


def test_every_truncation_and_every_flipped_byte_is_a_miss():
    """No damage to a record's file passes for a record."""
    data = learn().read_bytes()
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"."):
            records.from_bytes(data[:length])
    for place in range(len(data)):
        for flip in (1, 0x20, 0x80):
            damaged = bytearray(data)
            damaged[place] ^= flip
            with pytest.raises(ValueError, match=r"."):
                records.from_bytes(bytes(damaged))
    assert records.from_bytes(data).size == "small"


def test_a_full_disk_costs_a_warning_and_no_record(tmp_path):
    """The record that does not fit is not there at all, and the call is right."""
    source = """
import resource
from amorsize import check_cache, get_cache_dir, smart_map
from tests.functions import busy_ms
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
print(smart_map(busy_ms, range(5)) == list(map(busy_ms, range(5))))
print(list(get_cache_dir().iterdir()), check_cache())
"""
    ended = programs.run_source(source, tmp_path)
    assert (ended.out, ended.code) == ("True\n[] []\n", 0), ended.err
    assert "cannot write" in ended.err


def test_a_relative_folder_whose_place_is_gone_is_a_miss(tmp_path):
    """The working directory was removed: a warning, and the right results."""
    source = """
import os
from amorsize import smart_map
def work(x):
    return x + 1
os.mkdir("here")
os.chdir("here")
os.rmdir("../here")
print(smart_map(work, range(50)) == list(range(1, 51)))
"""
    ended = programs.run_source(source, tmp_path, AMORSIZE_CACHE_DIR="relative")
    assert (ended.code, ended.out) == (0, "True\n"), ended.err
    assert ended.err.count("\n") <= 2


class TestCosts:
    """What was learned of the machine lies beside the records."""

    def test_another_process_knows_what_one_learned(self, tmp_path):
        """Start-up and dispatch of this machine, not the constants of the first day."""
        costs.learn_costs(Seen("fork", 2, 2, started=1.0))
        learned = costs.machine_costs()
        assert learned != FIRST_COSTS
        (path,) = get_cache_dir().glob("costs_*.json")
        source = "from amorsize.call import costs; print(costs.machine_costs().fork.base)"
        ended = programs.run_source(source, tmp_path)
        assert float(ended.out) == pytest.approx(learned.fork.base, rel=costs.COSTS_DRIFT + 0.01)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 2}'])
    def test_a_damaged_file_is_none(self, text, caplog):
        """The first day's constants, and a warning."""
        costs.learn_costs(Seen("fork", 2, 2, started=1.0))
        (path,) = get_cache_dir().glob("costs_*.json")
        path.write_text(text)
        forget()
        assert costs.machine_costs() == FIRST_COSTS
        assert "damaged" in caplog.text
        assert len(check_cache()) == 1
        check_cache(fix=True)
        assert check_cache() == []

    @pytest.mark.parametrize("value", [-1.0, 1e9, float("nan"), "1", None, True])
    def test_no_number_is_believed_without_a_look(self, value):
        """Also with a right checksum."""
        data = records._unsealed(records.costs_to_bytes(FIRST_COSTS, 0.0))
        data["fork"] = {**data["fork"], "base": value}
        with pytest.raises(ValueError):
            records.costs_from_bytes(records._sealed(data))

    def test_who_asks_for_no_cache_learns_and_reads_nothing(self):
        """use_cache=False."""
        smart_map(busy_ms, range(200), mp_context="fork", use_cache=False)
        assert not get_cache_dir().exists()
        assert costs.machine_costs() == FIRST_COSTS
