"""Whose a module is, its file says: never its name, nor an attribute that would load it."""

import json
import os
import sys
import textwrap
import types

import pytest

from amorsize.identity import owners
from tests import programs

PROGRAM = """
import json, sys
from amorsize.identity.fingerprint import fingerprint
from amorsize.identity.owners import owner
import {module} as module
def f(x):
    return x * module.N
found = [owner("{module}"), fingerprint(f).digest]
module.N += 1
print(json.dumps([*found, fingerprint(f).digest, fingerprint(module.g).digest, module.__file__]))
"""

MODULE = "N = 2\ndef g(x): return x * N\nclass A: pass\n"


def found(folder, module, **env):
    """Return what a program in a folder finds of a module: owner, three fingerprints, file."""
    ended = programs.run_source(PROGRAM.format(module=module), folder, **env)
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


@pytest.mark.parametrize("name", ["queue", "profile", "statistics", "calendar", "turtle"])
def test_a_users_module_with_a_standard_name_is_the_users(tmp_path, name):
    """Two values of a global in the user's own queue.py give two fingerprints."""
    (tmp_path / f"{name}.py").write_text(MODULE)
    whose, first, second, _, file = found(tmp_path, name)
    assert file == str(tmp_path / f"{name}.py")
    assert whose == owners.USER
    assert first != second


def test_a_users_package_with_a_standard_name_is_the_users(tmp_path):
    """So is a package with a module in it, and a class of it counts by what it is."""
    (tmp_path / "email").mkdir()
    (tmp_path / "email" / "__init__.py").write_text("")
    (tmp_path / "email" / "parser.py").write_text(MODULE)
    whose, first, second, _, _ = found(tmp_path, "email.parser")
    assert whose == owners.USER
    assert first != second


@pytest.mark.parametrize(
    "name",
    ["os", "sys", "builtins", "json", "json.decoder", "_struct", "zipimport", "posixpath",
     "collections.abc", "importlib._bootstrap", "os.path", "_thread", "marshal", "encodings"],
)  # fmt: skip
def test_what_comes_with_python_is_pythons(name):
    """Built in, frozen, in C or in Python: it has no version but Python's own."""
    __import__(name)
    assert owners.owner(name) == owners.PYTHON
    assert owners.version(name) == ""


def test_what_is_installed_is_a_librarys():
    """An installed package has a version, also its modules in C."""
    numpy = pytest.importorskip("numpy")
    for name in ("numpy", "numpy.linalg", "numpy.random.mtrand", "pytest", "_pytest.fixtures"):
        assert owners.owner(name) == owners.LIBRARY
    assert owners.version("numpy.linalg") == numpy.__version__
    # It does not say its version itself; what its installer left does.
    assert owners.version("_pytest") == getattr(sys.modules["_pytest"], "__version__", "")


def test_amorsize_is_never_the_users():
    """The library's own modules are a library's, wherever they lie."""
    names = [name for name in sys.modules if name.partition(".")[0] == "amorsize"]
    assert len(names) > 5
    assert {owners.owner(name) for name in names} == {owners.LIBRARY}


def test_a_copied_amorsize_is_not_the_users(tmp_path):
    """Copied into a project and reached through a link, it still knows itself."""
    import shutil

    shutil.copytree(programs.ROOT / "amorsize", tmp_path / "vendored" / "amorsize")
    (tmp_path / "link").symlink_to(tmp_path / "vendored", target_is_directory=True)
    source = """
        import sys
        sys.path.insert(0, "link")
        import amorsize.api
        from amorsize.identity import owners
        mine = [m for m in sys.modules if m.partition(".")[0] == "amorsize"]
        print(amorsize.__file__, {owners.owner(m) for m in mine}, owners.owner("__main__"))
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(source))
    old = os.getcwd()
    os.chdir(tmp_path)
    try:
        ended = programs.run(tmp_path / "program.py")
    finally:
        os.chdir(old)
    assert "link" in ended.out, ended.err
    assert ended.out.endswith("{'library'} user\n")


NESTED = """
import sys
sys.path.insert(0, {folder!r})
import amorsize
from amorsize import smart_map
def inner(x):
    return x + 1
def outer(n):
    return sum(smart_map(inner, range(n)))
if __name__ == "__main__":
    assert amorsize.__file__.startswith({folder!r}), amorsize.__file__
    for _ in range(2):
        print(smart_map(outer, range(5), n_jobs=2, mp_context={method!r}))
"""


@pytest.mark.parametrize("method", programs.START_METHODS)
@pytest.mark.parametrize("is_installed", [False, True])
def test_calls_in_workers_of_a_copied_amorsize_are_right(method, is_installed, tmp_path):
    """Vendored, or put there by ``pip install --target``: a worker's own state is left alone."""
    import shutil

    folder = tmp_path / "put"
    shutil.copytree(programs.ROOT / "amorsize", folder / "amorsize")
    if is_installed:
        distribution(folder, "amorsize", [])
    source = NESTED.format(folder=str(folder), method=method)
    ended = programs.run_source(source, tmp_path, PYTHONPATH="")
    assert ended.out == "[0, 1, 3, 6, 10]\n" * 2, ended.err


def distribution(folder, name, files):
    """Lay out what ``pip install --target`` leaves of a distribution."""
    info = folder / f"{name}-2.5.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("".join(f"{file},sha256=abc,7\n" for file in files))
    for file in files:
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(MODULE)


@pytest.mark.parametrize(
    ("package", "files", "module"),
    [
        ("plain", ["plain/__init__.py", "plain/part.py"], "plain.part"),
        ("Some_Other.Name", ["inner/__init__.py"], "inner"),
        ("single", ["lonely.py"], "lonely"),
    ],
)
def test_what_was_installed_beside_the_program_is_a_librarys(tmp_path, package, files, module):
    """``pip install --target`` leaves a list of what it put there; the rest stays the user's."""
    distribution(tmp_path, package, files)
    assert found(tmp_path, module)[0] == owners.LIBRARY
    (tmp_path / "mine.py").write_text(MODULE)
    assert found(tmp_path, "mine")[0] == owners.USER


def test_what_is_installed_to_be_edited_is_the_users(tmp_path):
    """The list of an editable installation lies elsewhere, and names no file of the source."""
    (tmp_path / "src" / "mine").mkdir(parents=True)
    (tmp_path / "src" / "mine" / "__init__.py").write_text(MODULE)
    (tmp_path / "src" / "mine.egg-info").mkdir()
    site = tmp_path / "site-packages"
    distribution(site, "mine", ["__editable__.mine.pth"])
    path = os.pathsep.join(map(str, [programs.ROOT, tmp_path / "src", site]))
    whose, first, second, _, _ = found(tmp_path, "mine", PYTHONPATH=path)
    assert whose == owners.USER
    assert first != second


def test_what_is_in_a_zip_is_whose_the_zip_is(tmp_path):
    """A zip of the user's is the user's; a wheel that is used as it is, and an egg, are not."""
    import zipfile

    for name, whose in (
        ("code.zip", owners.USER),
        ("a-1-py3-none-any.whl", owners.LIBRARY),
        ("a-1.egg", owners.LIBRARY),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("packed.py", MODULE)
        path = os.pathsep.join([str(programs.ROOT), str(tmp_path / name)])
        assert found(tmp_path, "packed", PYTHONPATH=path)[0] == whose


def test_namespace_packages_are_whose_their_folder_is(tmp_path):
    """A package without a file of its own is judged by its folder, its modules by their files."""
    for place in ("here", "site-packages"):
        (tmp_path / place / f"space_{place[:4]}").mkdir(parents=True)
        (tmp_path / place / f"space_{place[:4]}" / "part.py").write_text(MODULE)
    source = """
        import sys
        sys.path += [r"{folder}/here", r"{folder}/site-packages"]
        import space_here.part, space_site.part
        from amorsize.identity.owners import owner
        print(*map(owner, ["space_here", "space_here.part", "space_site", "space_site.part"]))
    """
    ended = programs.run_source(textwrap.dedent(source).format(folder=tmp_path), tmp_path)
    assert ended.out.split() == ["user", "user", "library", "library"], ended.err


def test_pythons_folder_is_known_in_a_venv_behind_a_link(tmp_path):
    """A virtual environment, and a link to it, change nothing of whose the modules are."""
    venv = pytest.importorskip("venv", reason="an embedded Python has no venv")
    venv.create(tmp_path / "env", symlinks=True)
    (tmp_path / "link").symlink_to(tmp_path / "env", target_is_directory=True)
    source = """
        import json, queue
        from amorsize.identity.owners import owner
        print(*map(owner, ["json", "queue", "os", "_struct", "amorsize", "__main__"]))
    """
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(source))
    import subprocess

    for folder in ("env", "link"):
        done = subprocess.run(
            [tmp_path / folder / "bin" / "python", path],
            env={**os.environ, "PYTHONPATH": str(programs.ROOT)},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert done.stdout.split() == ["python"] * 4 + ["library", "user"]


def test_made_up_modules_are_whose_package_they_are_in(monkeypatch):
    """A module made at run time is the user's, unless it is inside a package of somebody else's."""
    cases = {
        "made_up": owners.USER,
        "pytest.made_up": owners.LIBRARY,
        "json.made_up": owners.PYTHON,
        "_cython_3_9": owners.LIBRARY,
    }
    for name, whose in cases.items():
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        assert owners.owner(name) == whose


class Hostile:
    def __getattribute__(self, name):
        raise RuntimeError(f"do not look at {name}")


@pytest.mark.parametrize("make", [lambda: None, Hostile, int, object, str])
def test_anything_may_lie_among_the_modules(monkeypatch, make):
    """What lies in sys.modules and is no module has no file, and is never asked for one."""
    monkeypatch.setitem(sys.modules, "odd_entry", make())
    assert owners.owner("odd_entry") == owners.USER
    assert owners.owner("odd_entry.inner") == owners.USER
    assert owners.version("odd_entry") == ""


@pytest.mark.parametrize("make", [lambda: None, Hostile, int, list])
def test_a_name_that_is_no_text_is_the_users(make):
    """A module's name may be anything: what is no text names no library."""
    assert owners.owner(make()) == owners.USER
    assert owners.is_users(make())
