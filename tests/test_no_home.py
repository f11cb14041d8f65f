"""Where there is no folder to remember in: no home, no working directory, no permission."""

import os
from pathlib import Path

import pytest

from tests import programs

EVERYTHING = """
import logging, os, sys
{before}
import amorsize
from amorsize import smart_map, optimize, smart_imap, parallelize
def work(x):
    return sum(range(20_000)) * 0 + x
if __name__ == "__main__":
    for items in (20, 200):
        assert smart_map(work, range(items)) == list(range(items))
    assert list(smart_imap(work, range(20))) == list(range(20))
    optimize(work, range(100))
    parallelize(work).map(range(20))
    assert amorsize.get_cache_dir().is_absolute()
    amorsize.cache_stats(), amorsize.check_cache(), amorsize.prune_expired_cache()
    amorsize.export_cache({out!r})
    amorsize.import_cache({out!r}, overwrite=True)
    amorsize.clear_cache()
    print("done")
"""


def run(tmp_path, before="", **env):
    """Run all that touches the folder, without the tests' own; return how it ended."""
    # "" counts as not set.
    source = EVERYTHING.format(before=before, out=str(tmp_path / "out" / "cache.json"))
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out").chmod(0o777)
    env = {"AMORSIZE_CACHE_DIR": "", "XDG_CACHE_HOME": "", "TMPDIR": str(tmp_path), **env}
    return programs.run_source(source, tmp_path, **env)


def check(ended, warnings):
    """Check that all worked, with so many lines of warning at most, and none of it a traceback."""
    assert (ended.code, ended.out) == (0, "done\n"), ended.err
    assert ended.err.count("\n") <= warnings, ended.err
    assert "Traceback" not in ended.err


ENTRYLESS = """
import pwd
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
"""
HOMELESS = ENTRYLESS + 'del os.environ["HOME"]\n'


def test_a_user_without_home_and_entry_is_served(tmp_path):
    """Everything works, in a folder among the temporary files, which is said once."""
    ended = run(tmp_path, HOMELESS)
    check(ended, 1)
    assert "cannot be found" in ended.err
    assert "is used" in ended.err
    (folder,) = tmp_path.glob("amorsize-*")
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("home", ["relative/home", ".", "~nobody-of-that-name"])
def test_a_home_that_is_not_absolute_is_none(home, tmp_path):
    """It would be another folder after each change of the working directory."""
    check(run(tmp_path, ENTRYLESS, HOME=home), 1)
    assert not (Path.cwd() / home / ".cache").exists()
    assert list(tmp_path.glob("amorsize-*"))


def test_without_home_the_entry_of_the_user_counts(tmp_path):
    """As everywhere else."""
    ended = run(tmp_path, 'del os.environ["HOME"]', AMORSIZE_CACHE="0")
    check(ended, 0)
    assert not list(tmp_path.glob("amorsize-*"))


@pytest.mark.parametrize("home", ["/proc/self", "/dev/null", "/dev/null/below"])
def test_a_home_that_cannot_be_written_is_a_miss(home, tmp_path):
    """One warning a kind of trouble, no error."""
    check(run(tmp_path, HOME=home), 4)


@pytest.mark.parametrize("told", ["relative", "", "~/cache"])
def test_a_working_directory_that_was_removed_is_no_error(told, tmp_path):
    """Neither for a relative folder nor for any other."""
    gone = f"os.mkdir({str(tmp_path / 'gone')!r}); os.chdir({str(tmp_path / 'gone')!r}); "
    gone += "os.rmdir(os.getcwd())"
    check(run(tmp_path, gone, AMORSIZE_CACHE_DIR=told, HOME=str(tmp_path)), 1)


def test_the_spare_folder_of_another_user_is_refused(tmp_path):
    """Somebody may have made one of that name, to have his records believed."""
    trap = tmp_path / f"amorsize-{os.geteuid()}"
    (tmp_path / "elsewhere").mkdir()
    trap.symlink_to(tmp_path / "elsewhere")
    ended = run(tmp_path, HOMELESS)
    check(ended, 4)
    assert not list((tmp_path / "elsewhere").iterdir())
