"""The cache folder under many writers at once, killed ones among them."""

import os

import pytest

from tests import programs

SEED = int(os.environ.get("AMORSIZE_CHAOS_SEED", "20261120"))


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("processes", "threads", "operations"),
    [(4, 2, 100), pytest.param(8, 4, 2_000, marks=pytest.mark.slow)],
)
def test_a_storm_leaves_a_sound_folder(own_cache, processes, threads, operations):
    """No operation raises, and afterwards nothing is wrong with any file."""
    ended = programs.run("-m", "tests.stress.storm", SEED, processes, threads, operations,
                         deadline=300)  # fmt: skip
    assert ended.out.endswith("wrong: []\n"), ended.err
    assert ended.code == 0, ended.out + ended.err
