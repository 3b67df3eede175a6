"""docs/features.md names tests that exist, for every column of the table."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
PEERS, EVIDENCE = TEXT.split("## The tests behind our row")


def _cells(text: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if set("".join(row)) != {"-"}]


def test_every_named_test_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", EVIDENCE)
    assert len(named) > 30
    for file, name in named:
        module = ast.parse((ROOT / "tests" / "aug" / file).read_text(encoding="utf-8"))
        assert any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.walk(module)), f"{file}::{name}"


def test_every_column_has_its_evidence() -> None:
    columns, ours, *_ = _cells(PEERS)
    assert "gmml_aug" in ours[1]
    assert [row[0] for row in _cells(EVIDENCE)[1:]] == columns[2:]
    assert all("test_" in row[2] for row in _cells(EVIDENCE)[1:] if row[0] != "last")


def test_every_peer_has_every_column() -> None:
    columns, _, *peers = _cells(PEERS)
    assert [row[0] for row in peers] == [str(number) for number in range(1, 32)]
    assert all(len(row) == len(columns) and all(row) for row in peers)


def test_what_a_gpu_is_said_to_have_shown_stands_in_its_report() -> None:
    report = json.loads((ROOT / "benchmarks" / "results" / "gpu_session.json").read_text(encoding="utf-8"))
    gpu = report["about"]["gpu"].removeprefix("NVIDIA ")
    assert not report["about"]["rehearsal"]
    assert set(report["silence"].values()) == {"waits for nothing"}
    assert all(found["differs in"] == 0 for found in report["graphs"].values())
    for name, words, tests in _cells(EVIDENCE)[1:]:
        if "test_gpu" in tests or name == "no sync":
            assert gpu in words, name
    columns, ours, *_ = _cells(PEERS)
    assert gpu in ours[columns.index("no sync")]


def test_the_licence_is_the_one_that_is_stated() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    columns, ours, *_ = _cells(PEERS)
    assert project["license"] == ours[columns.index("licence")]
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
