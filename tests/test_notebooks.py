"""The notebooks run as they are, and hold what their cells print and draw."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks import notebooks
from gmml_models.errors import UsageError
from tests.document_blocks import missing

LARGEST = 400_000  # bytes; pictures among them


def _code(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in notebooks.read(notebook)["cells"] if cell["cell_type"] == "code"]


def _kinds(outputs: list[dict[str, Any]]) -> list[list[str]]:
    return [sorted(output.get("data", {output["output_type"]: None})) for output in outputs]


def _words(outputs: list[dict[str, Any]]) -> list[str]:
    return ["".join(output.get("text", []) or output["data"]["text/plain"]) for output in outputs]


def test_there_are_three() -> None:
    assert len(notebooks.NOTEBOOKS) == 3


@pytest.mark.parametrize("notebook", notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_what_it_holds(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "\n".join("".join(cell["source"]) for cell in _code(notebook))
    absent = list(missing(code))
    if "albumentations" in code and find_spec("albumentations") is None:  # a peer that gmml bench is asked for by name
        absent.append("albumentations")
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    shutil.copytree(notebooks.FOLDER, tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path / "notebooks")
    for cell, outputs in zip(_code(notebook), notebooks.run(notebook), strict=True):
        assert _kinds(outputs) == _kinds(cell["outputs"]), "".join(cell["source"])
        if not notebooks.varies(cell):
            assert _words(outputs) == _words(cell["outputs"]), "".join(cell["source"])


@pytest.mark.parametrize("notebook", notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_whole(notebook: Path) -> None:
    assert notebook.stat().st_size < LARGEST
    held = notebooks.read(notebook)
    assert (held["nbformat"], held["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in held["cells"]]
    assert len(set(names)) == len(names)
    words = "\n".join("".join(cell["source"]) for cell in held["cells"] if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", words):
        assert (notebook.parent / target).is_file(), f"{target} is not there"
    assert "from a clone" in words.lower()  # says how what it needs is installed


def test_a_cell_that_fails_and_a_command_that_fails_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for source, error, said in [
        ("1 / 0", ZeroDivisionError, "division by zero"),
        ("!gmml stats --data nowhere", UsageError, r"bad.ipynb, cell 1: 'gmml stats --data nowhere' ended with 2"),
        ("!rm nothing", UsageError, "'rm' is not run here"),
    ]:
        cell: dict[str, Any] = {
            "cell_type": "code",
            "id": "one",
            "metadata": {},
            "source": [source],
            "outputs": [],
            "execution_count": None,
        }
        Path("bad.ipynb").write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
        with pytest.raises(error, match=said):
            notebooks.run(Path("bad.ipynb"))


def test_outputs_are_written_where_they_belong(tmp_path: Path) -> None:
    notebook = tmp_path / "one.ipynb"
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["words"]},
        {"cell_type": "code", "id": "b", "metadata": {}, "source": ["print(2)\n", "1 + 2"], "outputs": [], "execution_count": 7},
    ]
    notebook.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    notebooks.write(notebook, notebooks.run(notebook))
    words, code = notebooks.read(notebook)["cells"]
    assert words == cells[0]
    assert _words(code["outputs"]) == ["2\n", "3"]
    assert code["execution_count"] is None
