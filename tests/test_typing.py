"""mypy and pyright understand the public names, and report what is wrong."""

import json
import re
import sys

import pytest

from tests import programs

FOLDER = programs.ROOT / "tests" / "typing"
MISTAKES = {
    number
    for number, line in enumerate((FOLDER / "mistakes.py").read_text().splitlines(), 1)
    if line.endswith("# error")
}


def mypy(path):
    """Return the lines in which mypy finds errors, and what it said."""
    pytest.importorskip("mypy")
    ended = programs.run("-m", "mypy", "--strict", path, deadline=200)
    return {int(line) for line in re.findall(r":(\d+): error:", ended.out)}, ended.out


def pyright(path):
    """Return the lines in which pyright finds errors, and what it said."""
    pytest.importorskip("pyright")
    ended = programs.run(
        "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, path, deadline=200
    )
    found = json.loads(ended.out[ended.out.index("{") :])["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}, found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("check", [mypy, pyright])
def test_right_code_is_right(check):
    """Types of elements and results are kept."""
    lines, said = check(FOLDER / "usage.py")
    assert not lines, said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("check", [mypy, pyright])
def test_each_mistake_is_reported(check):
    """And nothing else."""
    lines, said = check(FOLDER / "mistakes.py")
    assert lines == MISTAKES, said


def test_the_options_for_type_checkers_are_those_that_are_taken():
    """Each once, whatever form takes it."""
    from amorsize.options import Options
    from amorsize.typed.options import AnyOptions

    assert AnyOptions.__optional_keys__ == set(Options._fields)
