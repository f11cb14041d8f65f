"""What the documents show works: every block of Python runs, every link leads somewhere."""

import re

import pytest

from tests import programs

DOCUMENTS = [
    programs.ROOT / "README.md",
    programs.ROOT / "CONTRIBUTING.md",
    *sorted((programs.ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)|!\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.skipif(not programs.HAS_EVENT_LOOPS, reason="needs an event loop")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_of_a_document_runs(path, tmp_path):
    """In order, as one program, with a cache of its own; the outputs shown are right."""
    pytest.importorskip("sybil")
    text = path.read_text()
    if "```python" not in text:
        pytest.skip("no block of Python in it")
    ended = programs.run(
        "-m", "tests.docs", path, deadline=280, AMORSIZE_CACHE_DIR=str(tmp_path / "cache"),
        DOCS_FOLDER=str(tmp_path),
    )  # fmt: skip
    assert ended.code == 0, ended.err[-3000:]
    assert re.search(r"^ran [1-9]", ended.out, re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_inside_the_project_lead_somewhere(path):
    """A renamed page must not leave dead links."""
    for found in LINK.findall(path.read_text()):
        target = found[0] or found[1]
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), target


@pytest.mark.timeout(200)
def test_the_site_builds_without_a_warning(tmp_path, monkeypatch):
    """Strictly: a dead link, or a name that is not there, fails."""
    for name in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"):
        pytest.importorskip(name)
    monkeypatch.chdir(programs.ROOT)
    ended = programs.run(
        "-m", "mkdocs", "build", "--strict", "--config-file", "tools/mkdocs.yml",
        "--site-dir", tmp_path / "site", deadline=180,
    )  # fmt: skip
    assert ended.code == 0, ended.err[-3000:]
    page = (tmp_path / "site" / "reference" / "index.html").read_text()
    assert "smart_map" in page
    assert "return_exceptions" in page
