"""The public names are those of ``tests/public_api.txt``: a change of them is made on purpose."""

import inspect
import subprocess
import sys

import pytest

import amorsize
from amorsize.options import Options
from tests import programs


def names():
    """Yield the public names, the public attributes of classes, and the options."""
    for name in sorted(amorsize.__all__):
        value = getattr(amorsize, name)
        yield name
        if inspect.isclass(value):
            mine = {
                attribute
                for kind in value.__mro__
                if kind.__module__.partition(".")[0] == "amorsize"
                for attribute in vars(kind)
            }
            yield from (f"{name}.{one}" for one in sorted(mine) if not one.startswith("_"))
    yield from (f"option {name}" for name in Options._fields)


def test_the_public_names_are_those_of_the_list():
    """If this fails on purpose, write the new list: python -m tests.test_public_api."""
    assert [*names()] == (programs.ROOT / "tests" / "public_api.txt").read_text().splitlines()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_distribution_is_complete(tmp_path):
    """A wheel and an archive that twine accepts; the wheel installs, and its command runs."""
    pytest.importorskip("build")
    pytest.importorskip("twine")

    def run(*args, **options):
        return subprocess.run([*map(str, args)], check=True, capture_output=True, text=True,
                              timeout=250, **options).stdout  # fmt: skip

    run(sys.executable, "-m", "build", "--outdir", tmp_path, programs.ROOT)
    [wheel] = tmp_path.glob("*.whl")
    [archive] = tmp_path.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, archive)
    assert wheel.name.endswith("-py3-none-any.whl")  # no compiler
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    place = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    run(place / "pip", "install", "--quiet", wheel)
    assert run(place / "amorsize", "--version", cwd=tmp_path).startswith("amorsize ")
    source = "from amorsize import *; smart_map(abs, [-1]); last_run().to_html('r.html')"
    run(place / "python", "-c", source, cwd=tmp_path)
    assert "<canvas" in (tmp_path / "r.html").read_text()


if __name__ == "__main__":
    (programs.ROOT / "tests" / "public_api.txt").write_text("\n".join(names()) + "\n")
