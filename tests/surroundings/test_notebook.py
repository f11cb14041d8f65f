"""In a Jupyter kernel: functions of cells, beside the kernel's threads."""

import importlib.util

import pytest

from tests.programs import ROOT

if importlib.util.find_spec("ipykernel") is None:
    pytest.skip("needs ipykernel, of the dependency group 'heavy'", allow_module_level=True)


@pytest.fixture
def kernel():
    """Give a kernel: a function that runs a cell and returns what it printed."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(extra_arguments=["--IPKernelApp.log_level=ERROR"])

    def run(code):
        said = []

        def hear(message):
            content = message["content"]
            said.append(content.get("text", "") or "\n".join(content.get("traceback", ())))

        reply = client.execute_interactive(code, output_hook=hear, timeout=60)
        assert reply["content"]["status"] == "ok", "".join(said)
        return "".join(said)

    run(f"import sys; sys.path.insert(0, {str(ROOT)!r})")
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_functions_of_cells_run_in_forked_workers(kernel):
    """The kernel's threads only wait: workers are forked, and have what the cells made."""
    said = kernel(
        """
import time
from amorsize import smart_map
factor = 3
def work(x):
    time.sleep(0.005)
    return x * factor
reports = []
print(smart_map(work, range(100), report=reports.append) == [3 * x for x in range(100)])
print(reports[0].start_method, reports[0].start_reason)
"""
    )
    assert said == "True\nfork this process can be forked safely\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_functions_of_cells_run_in_workers_of_every_kind(kernel, method):
    """Also after a cell was run again with another definition."""
    said = kernel(
        f"""
def shift(x):
    return x + 1
from amorsize import smart_map
print(smart_map(shift, range(4), n_jobs=2, mp_context={method!r}))
def shift(x):
    return x + 2
print(smart_map(shift, range(4), n_jobs=2, mp_context={method!r}))
"""
    )
    assert said == "[1, 2, 3, 4]\n[2, 3, 4, 5]\n"


def test_what_forked_workers_print_is_seen_in_the_cell(kernel):
    """As it is for a Pool's workers."""
    said = kernel(
        """
from amorsize import smart_map
def talk(x):
    print("item", x, flush=True)
smart_map(talk, range(3), n_jobs=2, mp_context="fork")
import time; time.sleep(0.5)
"""
    )
    assert sorted(said.split("\n")) == ["", "item 0", "item 1", "item 2"]
