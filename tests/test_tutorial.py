"""The tutorial runs in a real kernel, and shows what it says."""

import os

import pytest

from tests import programs

PATH = programs.ROOT / "docs" / "tutorial.ipynb"
RUN = """
import sys, nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        print(output.output_type, *sorted(data), output.get("text", data.get("text/plain", "")))
"""


@pytest.mark.skipif(not programs.HAS_EVENT_LOOPS, reason="needs an event loop")
@pytest.mark.timeout(200)
def test_the_tutorial_runs_in_a_kernel(tmp_path):
    """Functions of cells, progress, the report, the picture, a changed global, resuming."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    ended = programs.run(
        "-c", RUN, PATH, deadline=180, AMORSIZE_CACHE_DIR=str(tmp_path / "cache"),
        JUPYTER_PATH=os.environ.get("JUPYTER_PATH", ""),
    )  # fmt: skip
    assert ended.code == 0, ended.err[-3000:]
    assert "text/html" in ended.out  # the report
    assert "image/png" in ended.out  # the picture
    assert "count_primes: 600 items" in ended.out
    assert "[0, 10000, 20000, 30000, 40000]" in ended.out
    assert "raised for item 50: 50" in ended.out
    assert ended.out.rstrip().endswith("20")
