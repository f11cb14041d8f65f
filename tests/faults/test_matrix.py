"""The fault matrix: every way to fail, at every moment, in any number of workers of any kind."""

import pytest

from tests import programs
from tests.faults import cells

# Spawned workers start ten times as slowly as others, and are not known to fail in other ways.
CREWS = [(method, workers) for method in ("fork", "forkserver") for workers in (1, 2, 5)]
CREWS += [pytest.param("spawn", n, marks=pytest.mark.slow) for n in (1, 2, 5)]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("method", "workers"), CREWS)
def test_no_cell_hangs_or_ends_otherwise_than_promised(method, workers):
    """Each gives the contract's error, names the item, and the next call works."""
    ended = programs.run("-m", "tests.faults.cells", method, workers, deadline=300)
    lines = ended.out.splitlines()
    assert [line for line in lines if not line.startswith("ok")] == [], ended.err
    moments = len(cells.IN_WORKER) * len(cells.WAYS) + len(cells.IN_CALLER) * 2
    assert (len(lines), ended.code) == (2 * moments, 0), ended.err
