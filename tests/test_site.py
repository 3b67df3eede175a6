"""The site: built as `make docs` builds it, then read as a browser would read it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import site
from tests.document_blocks import ROOT

pytest.importorskip("zensical", reason="Zensical builds the pages")
pytest.importorskip("mkdocstrings")

FORGE = "https://github.com/somebody/gmml"
READ = ("mkdocs.yml", "CHANGELOG.md", "docs", "gmml_aug", "gmml_models")
# How the library is made, not how it is used; those who write a place or a fill are told on Place and on Fill.
INSIDES = {"build", "write", "put", "check_size", "small", "windows", "program", "most", "steps", "target", "cells", "in_cells"}

SMALL = """
site_name: small
strict: true
use_directory_urls: false
theme: {font: false}
plugins:
  - mkdocstrings: {handlers: {python: {paths: [.]}}}
"""


def _copy(folder: Path) -> None:
    for name in READ:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "weights", "*.so"))
        else:
            shutil.copy(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, committed, with its site."""
    folder = tmp_path_factory.mktemp("repository")
    _copy(folder)
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b.c commit -q -m all"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    assert site.build(folder, FORGE) == []
    return folder


def test_the_site_builds_and_every_link_in_it_leads_somewhere(root: Path) -> None:
    assert list(site.check(root)) == []
    assert len(list((root / "site").rglob("*.html"))) > 40


def test_pages_can_be_edited_and_the_reference_links_to_the_source(root: Path) -> None:
    assert f'href="{FORGE}/edit/main/docs/how-to/README.md"' in (root / "site/how-to/index.html").read_text(encoding="utf-8")
    reference = (root / "site/api/gmml_aug.html").read_text(encoding="utf-8")
    linked = re.findall(rf'href="{FORGE}/blob/[0-9a-f]{{40}}/(gmml_aug/[\w/]+\.py)#L(\d+)-L(\d+)"', reference)
    assert len(linked) > 50
    for path, first, _ in linked:
        line = (root / path).read_text(encoding="utf-8").splitlines()[int(first) - 1]
        assert re.match(r"\s*(@|class |def )", line), (path, first, line)


@pytest.mark.slow
def test_where_no_repository_is_known_the_source_itself_is_shown(tmp_path: Path) -> None:
    _copy(tmp_path)
    assert site.build(tmp_path, "") == []
    assert list(site.check(tmp_path)) == []
    reference = (tmp_path / "site/api/gmml_aug.html").read_text(encoding="utf-8")
    assert reference.count('class="mkdocstrings-source"') > 50


def test_the_reference_shows_what_is_used_and_not_how_it_is_made(root: Path) -> None:
    shown = {}
    for page in sorted((root / "site" / "api").glob("gmml_*.html")):
        shown[page.stem] = set(re.findall(r'<h[2-6] id="(gmml_[\w.]+)"', page.read_text(encoding="utf-8")))
    assert not {name for names in shown.values() for name in names if name.rpartition(".")[2] in INSIDES}
    aug = shown["gmml_aug"]
    assert {"gmml_aug.Corruption.__call__", "gmml_aug.Corruption.sample", "gmml_aug.presets.gmml.gmml"} <= aug
    # what a place or a fill of one's own is made of is told once, on the base
    assert {name for name in aug if name.endswith((".words", ".order", ".draw", ".pixels", ".lower"))} == {
        f"gmml_aug.{name}" for name in ("Place.words", "Place.order", "Place.draw", "Fill.draw", "Fill.pixels", "Fill.lower")
    }


def test_the_search_knows_every_page(root: Path) -> None:
    for page in (root / "site").rglob("*.html"):
        assert "md-search" in page.read_text(encoding="utf-8"), page
    known = json.dumps(json.loads((root / "site/search.json").read_text(encoding="utf-8")))
    for page in (root / "site").rglob("*.html"):
        name = page.relative_to(root / "site").as_posix()
        assert name in known or name in ("404.html", "index.html"), name


def test_the_changelog_is_a_page(root: Path) -> None:
    page = (root / "site/changelog.html").read_text(encoding="utf-8")
    newest = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert newest is not None
    assert re.search(rf"<h2[^>]*>{re.escape(newest[1])}", page)


def test_llms_txt_lists_every_page_with_a_sentence(root: Path) -> None:
    site.write_llms(root)
    listed = (root / "site" / "llms.txt").read_text(encoding="utf-8")
    assert listed.startswith("# gmml\n\n> ")
    links = dict(re.findall(r"^- \[[^]]+\]\(([^)]+)\): (.+)$", listed, re.M))
    assert all((root / "site" / link).is_file() for link in links), links
    pages = {page.relative_to(root / "docs") for page in (root / "docs").rglob("*.md")} - {Path("index.md")}
    assert {Path(link).with_suffix(".md") for link in links} == pages
    assert all(len(sentence.split()) > 3 for sentence in links.values()), links


def _small(folder: Path, index: str) -> list[str]:
    (folder / "docs").mkdir()
    (folder / "mkdocs.yml").write_text(SMALL, encoding="utf-8")
    (folder / "docs" / "index.md").write_text(f"# Home\n\n{index}\n", encoding="utf-8")
    (folder / "measured.py").write_text(
        'def area(side):\n    """Square.\n\n    Args:\n        width: of it.\n    """\n', encoding="utf-8"
    )
    return site.build(folder, "") or list(site.check(folder))


@pytest.mark.parametrize(
    ("index", "told"),
    [("[x](#home)", None), ("[x](nowhere.md)", "nowhere.md"), ("::: measured.volume", "volume"), ("::: measured.area", "width")],
)
def test_what_is_wrong_with_a_page_ends_the_build(index: str, told: str | None, tmp_path: Path) -> None:
    wrong = _small(tmp_path, index)
    assert bool(wrong) == (told is not None), wrong
    assert told is None or told in "\n".join(wrong)


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ('<a href="other.html#a">x</a> <a href="https://example.com/#any">x</a>', []),
        ('<a href="nowhere.html">x</a>', ["index.html: nowhere.html: is not there"]),
        ('<a href="other.html#b">x</a>', ["index.html: other.html#b: no such heading"]),
        ('<a href="http://example.com">x</a>', ["index.html: http://example.com: is not encrypted; write https"]),
        ('<img src="none.png">', ["index.html: none.png: is not there"]),
        ('<script src="//example.com/x.js"></script>', ["index.html: fetches //example.com/x.js; keep what a page needs in docs/"]),
    ],
)
def test_what_is_wrong_with_a_built_page_is_told(index: str, told: list[str], tmp_path: Path) -> None:
    for file, text in (("index.html", f'<a href="other.html">Other</a>{index}'), ("other.html", '<h2 id="a">A</h2>')):
        (tmp_path / "site").mkdir(exist_ok=True)
        (tmp_path / "site" / file).write_text(text, encoding="utf-8")
    assert list(site.check(tmp_path)) == told


def test_a_page_that_is_missing_or_that_the_navigation_leaves_out_is_told(tmp_path: Path) -> None:
    for file in ("docs/index.md", "docs/a.md", "docs/b.md", "site/index.html", "site/a.html"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text('<a href=".">Home</a>', encoding="utf-8")
    told = ["a.md: the navigation does not name it; add it to nav in mkdocs.yml", "b.md: has no page"]
    assert list(site.check(tmp_path)) == told


def test_the_repository_is_known_from_the_workflow_or_the_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert site.find_repository(tmp_path) == ""
    for remote in ("git@github.com:somebody/gmml.git", "https://github.com/somebody/gmml"):
        subprocess.run(["git", "config", "remote.origin.url", remote], cwd=tmp_path, check=True)
        assert site.find_repository(tmp_path) == FORGE
    monkeypatch.setenv("GITHUB_REPOSITORY", "another/gmml")
    assert site.find_repository(tmp_path) == "https://github.com/another/gmml"
