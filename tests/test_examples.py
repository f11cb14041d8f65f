"""The examples run as they are, and say what they promise to say."""

import pytest

from tests import programs

SAYS = {
    "stdlib_census.py": ["First run", "Second run", "speed-up", "from memory", "lines"],
    "word_count.py": ["wizards 151,992", "counting"],
    "mandelbrot.py": ["400 items", "@@@"],
    "slow_service.py": ["thread", "sum of the squares is 2,646,700"],
}


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_and_says_what_it_promises(name):
    """Each example ends well within its deadline."""
    ended = programs.run(programs.ROOT / "examples" / name, deadline=110)
    assert ended.code == 0, ended.err
    for text in SAYS[name]:
        assert text in ended.out + ended.err


def test_every_example_is_tested():
    """No example is left out."""
    assert {path.name for path in (programs.ROOT / "examples").glob("*.py")} == SAYS.keys()
