"""The docs as a whole: they name what exists, leave nothing out, and lead nowhere wrong. tests/test_site.py builds them."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

import gmml_aug as ga
from tests.document_blocks import PAGES, ROOT, blocks

DOCS = ROOT / "docs"
ROOTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]


def _text(page: Path) -> str:
    """A page without its code."""
    kept = page.read_text(encoding="utf-8")
    for block in blocks(page):
        kept = kept.replace(block.code, "")
    return kept


@cache
def _tests_of(file: Path) -> frozenset[str]:
    module = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef))


def _anchors(page: Path) -> set[str]:
    """What headings are called in links, on GitHub and in the site alike."""
    titles = re.findall(r"^#+ (.+)$", _text(page), re.M)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


@pytest.mark.parametrize("page", [*ROOTS, *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _text(page)):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.is_file(), f"{target} is not there"
        if DOCS in page.parents:
            assert DOCS in there.parents, f"{target} lies outside the docs, where the site has no page"
        assert not anchor or anchor in _anchors(there), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_test_that_is_named_exists(page: Path) -> None:
    for path, name in re.findall(r"((?:\w+/)*test_\w+\.py)(?:::(test_\w+))?", _text(page)):
        near = [ROOT / "tests" / path, ROOT / path, ROOT / "tests" / "aug" / path]  # features.md counts from tests/aug
        found = [file for file in near if file.is_file()]
        assert found, f"{path} is not there"
        assert not name or name in _tests_of(found[0]), f"{path} has no {name}"


def test_the_questions_are_answered_and_shown() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", (DOCS / "faq.md").read_text(encoding="utf-8"), re.M)
    assert sorted(int(number) for number, *_ in rows) == list(range(1, 44))
    for number, asked, answer, shown in rows:
        assert asked.endswith("?"), number
        assert answer.endswith("."), number
        assert "::test_" in shown or ".md" in shown, number


def test_every_preset_has_rule_source_code_and_picture() -> None:
    _, *sections = re.split(r"^## ", (DOCS / "presets.md").read_text(encoding="utf-8"), flags=re.M)
    assert sorted(section.partition("\n")[0] for section in sections) == ga.presets.names()
    for section in sections:
        name = section.partition("\n")[0]
        assert "**Source:**" in section, name
        assert f"ga.presets.{name}(" in section, name
        assert re.search(rf"!\[[^]]*\]\(gallery/presets-{name}[\w-]*\.jpg\)", section), name


@pytest.mark.parametrize(
    ("package", "page"),
    [
        ("gmml_aug", "gmml_aug"),
        ("gmml_models", "gmml_models"),
        ("gmml_models.recipes", "recipes"),
        ("gmml_models.figures", "figures"),
    ],
)
def test_the_reference_has_every_public_name(package: str, page: str) -> None:
    public = set(importlib.import_module(package).__all__) - {"__version__"}
    named = set(re.findall(rf"^::: {re.escape(package)}\.(\w+)$", (DOCS / "api" / f"{page}.md").read_text(encoding="utf-8"), re.M))
    assert public <= named, public - named
    assert named - public <= {"errors", "kornia_adapter", "torchvision_adapter"}, named - public


def test_every_adapter_has_its_block() -> None:
    titles = re.findall(r"^## (.+)$", (DOCS / "adapters.md").read_text(encoding="utf-8"), re.M)
    hosts = {
        "A loop of your own",
        "DataLoader",
        "torchvision",
        "kornia",
        "timm",
        "MONAI, nnU-Net, stable-pretraining",
        "lerobot",
        "Lightning",
        "Hugging Face Trainer",
        "Several processes",
    }
    assert set(titles) == hosts
    assert sum(block.language == "python" for block in blocks(DOCS / "adapters.md")) > len(hosts)


def test_the_versions_agree() -> None:
    told = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert told is not None
    assert told[1] == ga.__version__


@pytest.mark.parametrize("page", [*ROOTS, *sorted(DOCS.rglob("*.md")), *sorted(DOCS.rglob("*.ipynb"))], ids=lambda page: page.name)
def test_what_a_page_installs_can_be_installed(page: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for told in re.findall(r"pip install ((?:--?[\w-]+ )*(?:'[^']*'|\S+))", page.read_text(encoding="utf-8")):
        if told.startswith("jupyter") or told == "torch":  # torch: from its own index, without CUDA
            continue
        # there is no release on a package index: only a clone can be installed
        found = re.match(r"(?:--no-deps |-e )?'?\.(?:\[([\w,]+)\])?(?!\w)", told)
        assert found, f"pip install {told}: give the folder of a clone, for example '.[train]'"
        assert set((found[1] or "").split(",")) - {""} <= set(extras), told


def test_what_is_needed_to_work_on_gmml_is_a_group_and_no_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups, extras = project["dependency-groups"], project["project"]["optional-dependencies"]
    assert not set(groups) & set(extras)
    assert {"include-group": "docs"} in groups["test"]
    (chosen,) = re.findall(r"install --quiet -e \"\.\[([\w,]+)\]\" --group test", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert set(chosen.split(",")) <= set(extras)
    asked = re.search(r"gmml\[([\w,]+)\]", " ".join(extras["all"]))
    assert asked is not None
    assert set(asked[1].split(",")) == set(extras) - {"all"}
