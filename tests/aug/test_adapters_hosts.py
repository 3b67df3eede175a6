"""Our adapters in other people's own test suites and scripts: slow, and skipped where their sources are not at hand.

``GMML_HOSTS`` names a folder of checkouts, each of about the version that is installed: ``kornia``, ``vision`` (torchvision) and
``pytorch-image-models`` (timm). Their wheels and sdists do not hold what is run here.
"""

from __future__ import annotations

import csv
import importlib
import math
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import gmml_aug as ga
from tests.document_blocks import ROOT, blocks, commands, make_world
from tests.hosts import kornia_places

NOISE = ga.InBoxes(ga.Boxes(ratio=0.3), ga.Noise())


def sources(host: str, wanted: str) -> Path:
    """A checkout of a host, or the test is skipped."""
    folder = Path(os.environ.get("GMML_HOSTS", "")) / host
    if "GMML_HOSTS" not in os.environ or not (folder / wanted).exists():
        pytest.skip(f"no {wanted} of {host}: name the folder of its checkout in GMML_HOSTS")
    return folder.resolve()


# kornia's container, auto and base tests, and what else of its augmentation tests names RandomErasing
SUITE = ("container", "test_auto_operation.py", "test_base.py", "test_presets.py", "test_onnx_export.py", "test_backward.py")
# what fails with ours and not with theirs, by a part of the message
NAMED = {"No valid magnitude": "auto-augmentation sets the magnitude of kornia's own operation by name; a corruption has none"}


def run_kornia(folder: Path, places: tuple[str, ...]) -> tuple[dict[str, str], int]:
    """What failed, as test to message, and the number of tests that passed."""
    report = folder / "report.xml"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "kornia_places", "-m", "not slow"]
    path = os.pathsep.join([str(ROOT), str(Path(kornia_places.__file__).parent)])
    told = {**os.environ, "PYTHONPATH": path, "GMML_PLACES": ",".join(places)}
    ended = subprocess.run(
        [*words, f"--junitxml={report}", *(f"tests/augmentation/{part}" for part in SUITE)],
        cwd=folder,
        env=told,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode in (0, 1), ended.stdout[-4000:] + ended.stderr[-4000:]
    failed, passed = {}, 0
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        wrong = [one for one in case if one.tag in ("failure", "error")]
        if wrong:
            failed[f"{case.get('classname')}.{case.get('name')}"] = wrong[0].get("message", "") or ""
        passed += len(case) == 0
    return failed, passed


@pytest.mark.slow
@pytest.mark.parametrize("places", [("RandomErasing",), kornia_places.INTENSITY], ids=["erasing", "intensity"])
def test_kornias_own_tests_pass_with_ours_in_the_place_of_theirs(places: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("kornia")
    folder = sources("kornia", "tests/augmentation/container")
    for name in ("tests", "testing"):
        shutil.copytree(folder / name, tmp_path / name)
    shutil.copy(folder / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    theirs, _ = run_kornia(tmp_path, ())
    ours, passed = run_kornia(tmp_path, places)
    # some of theirs choose augmentations by chance: what fails for them is a test with any of its parameters
    known = {name.partition("[")[0] for name in theirs}
    new = {
        name: message
        for name, message in ours.items()
        if name.partition("[")[0] not in known and not any(part in message for part in NAMED)
    }
    assert not new, f"{len(new)} of {len(ours)} failures are ours ({len(theirs)} are kornia's): {new}"
    assert passed > 500


def torchvision_inputs(make: Any) -> dict[str, Callable[[], Any]]:
    """The 26 inputs, by what makes them: torchvision's own helpers."""
    found: dict[str, Callable[[], Any]] = {}
    for dtype in (torch.uint8, torch.float32):
        for lead in ((), (2,), (2, 3)):
            for maker in (make.make_image_tensor, make.make_image, *((make.make_video,) if len(lead) < 2 else ())):
                found[f"{maker.__name__} {dtype} {lead}"] = partial(maker, dtype=dtype, batch_dims=lead)
    for maker in (make.make_image_tensor, make.make_image, make.make_video):
        found[f"{maker.__name__} GRAY"] = partial(maker, color_space="GRAY")
    for form in ("XYXY", "XYWH", "CXCYWH"):
        found[f"make_bounding_boxes {form}"] = partial(make.make_bounding_boxes, format=form)
    for lead in ((), (2,)):
        found[f"make_segmentation_mask {lead}"] = partial(make.make_segmentation_mask, batch_dims=lead)
    found["make_detection_masks"] = make.make_detection_masks
    found["make_image_pil"] = make.make_image_pil
    return found


@pytest.mark.slow
def test_torchvisions_check_transform_passes(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    pytest.importorskip("torchvision")
    folder = sources("vision", "test/test_transforms_v2.py") / "test"
    monkeypatch.syspath_prepend(str(folder))
    for mark in sorted(set(re.findall(r"pytest\.mark\.(needs_\w+)", (folder / "common_utils.py").read_text()))):
        pytestconfig.addinivalue_line("markers", f"{mark}: one of torchvision's own")  # unknown marks are refused here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        host, make = (importlib.import_module(name) for name in ("test_transforms_v2", "common_utils"))

    def without_pil(transform: Any, sample: dict[str, Any], device: Any) -> dict[str, Any]:
        return {name: value for name, value in sample.items() if "pil" not in name}

    inputs = torchvision_inputs(make)
    assert len(inputs) == 26
    for corrupt in (NOISE, ga.presets.mae(patch=4)):
        transform = ga.torchvision_adapter.Corrupt(corrupt, mask=False)
        for name, maker in inputs.items():
            if name == "make_image_pil":  # the one that is named: PIL images are refused
                with pytest.raises(TypeError, match="PIL image"):
                    host.check_transform(transform, maker())
            else:
                host.check_transform(transform, maker(), check_sample_input=without_pil)


# behind what the page prints, so that it takes seconds
SMALLER = (
    "--img-size 32 --model-kwargs img_size=32 --batch-size 4 --validation-batch-size 4 --epochs 2 --workers 0 --device cpu "
    "--opt adamw --lr 1e-3 --warmup-epochs 0 --output out"
)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["labels", "restoring"])
def test_timms_own_script_trains_on_what_the_page_prints(way: str, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    shutil.copy(sources("pytorch-image-models", "train.py") / "train.py", tmp_path)
    make_world(tmp_path)
    page = list(blocks(ROOT / "docs" / "adapters.md"))
    (script,) = (block for block in page if "import train " in block.code)
    (tmp_path / "train_corrupted.py").write_text(script.code)
    printed = [line for block in page if block.language == "sh" for line in commands(block) if "train_corrupted" in line]
    (line,) = (line for line in printed if line.startswith("RESTORE=1") == (way == "restoring"))
    ended = subprocess.run(
        f"{line.replace('python', sys.executable, 1)} {SMALLER}",
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    (summary,) = tmp_path.glob("out/*/summary.csv")
    with summary.open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train_loss"]) for row in rows]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert ("eval_top1" in rows[0]) == (way == "labels")
