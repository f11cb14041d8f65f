"""The examples run as they are, and say what they promise to say."""

import sysconfig
from pathlib import Path

import pytest

from tests import programs

SAYS = {
    "stdlib_census.py": ["First run", "Second run", "speed-up", "from memory", "lines"],
    "word_count.py": ["wizards 151,992", "counting"],
    "mandelbrot.py": ["400 items", "@@@"],
    "rich_progress.py": ["hashing", "400/400", "400 different digests"],
    "slow_service.py": ["thread", "sum of the squares is 2,646,700"],
}


# A part of the standard library says as much as the whole, which takes a minute on a busy machine.
PART = Path(sysconfig.get_path("stdlib"), "asyncio")
ARGUMENTS = {"stdlib_census.py": [PART]}


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_and_says_what_it_promises(name):
    """Each example ends well within its deadline."""
    if name == "stdlib_census.py" and not list(PART.glob("*.py")):
        pytest.skip("this Python has no sources of its library")
    if name == "rich_progress.py":
        pytest.importorskip("rich")
    example = programs.ROOT / "examples" / name
    ended = programs.run(example, *ARGUMENTS.get(name, ()), deadline=110)
    assert ended.code == 0, ended.err
    for text in SAYS[name]:
        assert text in ended.out + ended.err


def test_every_example_is_tested():
    """No example is left out."""
    assert {path.name for path in (programs.ROOT / "examples").glob("*.py")} == SAYS.keys()
