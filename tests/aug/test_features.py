"""docs/features.md names tests that exist, for every column of the table; what it says of installed packages is run."""

from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
PEERS, EVIDENCE = TEXT.split("## The tests behind our row")
EVIDENCE, OTHERS = EVIDENCE.split("## The tests behind rows of others")


def _cells(text: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if set("".join(row)) != {"-"}]


def test_every_named_test_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", EVIDENCE + OTHERS)
    assert len(named) > 34
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
    assert [row[0] for row in peers] == [str(number) for number in range(1, 35)]
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


def _is_one_box(changed: Tensor) -> bool:
    rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
    height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
    return int(changed.sum()) == height * width


def test_torchvision_erases_one_box_for_the_whole_batch() -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    images = torch.rand(6, 3, 32, 32)
    out = v2.RandomErasing(p=1.0, value="random")(images)
    changed = (out != images).any(1)
    assert _is_one_box(changed[0])
    assert all(torch.equal(changed[0], other) for other in changed[1:])
    assert torch.equal(out[0][:, changed[0]], out[1][:, changed[0]])  # the same noise in each image
    assert "generator" not in inspect.signature(v2.RandomErasing).parameters
    folder = Path(v2.__file__).parent
    assert not [file.name for file in folder.rglob("*.py") if "cvcuda" in file.read_text(encoding="utf-8").lower()]


def test_torchvision_cuts_one_box_from_the_batch_rolled_by_one() -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    images = torch.rand(6, 3, 32, 32)
    torch.manual_seed(0)
    out, _ = v2.CutMix(num_classes=2)(images, torch.zeros(6, dtype=torch.int64))
    changed = (out != images).any(1)
    assert _is_one_box(changed[0])
    assert all(torch.equal(changed[0], other) for other in changed[1:])
    assert torch.equal(out[:, :, changed[0]], images.roll(1, 0)[:, :, changed[0]])


def test_kornia_erases_one_box_per_image_with_one_number() -> None:
    augmentation = pytest.importorskip("kornia.augmentation")
    images = torch.rand(6, 3, 32, 32)
    erase = augmentation.RandomErasing(p=1.0, value=0.25)
    out = erase(images)
    changed = (out != images).any(1)
    assert all(map(_is_one_box, changed))
    assert len({tuple(box.nonzero()[0].tolist()) for box in changed}) > 1
    assert (out.movedim(1, -1)[changed] == 0.25).all()
    assert torch.equal(erase(images, params=erase._params), out)
    assert "generator" not in inspect.signature(augmentation.RandomErasing).parameters


def test_kornia_cuts_boxes_per_image() -> None:
    augmentation = pytest.importorskip("kornia.augmentation")
    images = torch.rand(8, 3, 32, 32)
    torch.manual_seed(0)
    out = augmentation.RandomCutMixV2(p=1.0, data_keys=["input"], use_correct_lambda=True)(images)
    changed = (out != images).any(1)
    assert len({tuple(box.flatten().tolist()) for box in changed}) > 2
