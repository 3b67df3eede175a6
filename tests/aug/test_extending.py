"""docs/extending.md, to the letter: each file is written as it stands there, and does what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import gmml_aug as ga
from gmml_aug.backends.triton.lower import has_triton
from tests.helpers import random_images, same_bits, some_keys
from tests.own_places import Balls

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
_BLOCK = r"(?<=```python\n)# ([a-z]+\.py)\n.*?(?=```)"
FILES = {match[1]: match[0] for match in re.finditer(_BLOCK, PAGE.read_text(encoding="utf-8"), re.S)}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A file of the page as a module."""

    def loaded(name: str) -> ModuleType:
        (tmp_path / name).write_text(FILES[name], encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        return __import__(name.removesuffix(".py"))

    return loaded


def test_the_page_has_a_file_for_each_of_the_five() -> None:
    assert list(FILES) == ["pixelate.py", "discs.py", "drops.py", "bounded.py", "negative.py"]


def test_a_fill(load: Any) -> None:
    module = load("pixelate.py")
    images, keys, corrupt = random_images((6, 3, 30, 34)), some_keys(6), module.corrupt
    plan, found = corrupt.sample(images.shape, keys=keys), corrupt(images, keys=keys)
    assert same_bits(corrupt.apply(images, plan).images, found.images)
    kept = ~found.mask.expand_as(images)
    assert torch.equal(found.images[kept], images[kept])
    whole = module.Pixelate(sizes=(4,))(torch.arange(64.0).reshape(1, 1, 8, 8)).images
    assert whole.unique().numel() == 4


def test_a_place(load: Any) -> None:
    discs = load("discs.py").Discs
    images, keys = random_images((8, 3, 60, 52)), some_keys(8)
    for ratio in (0.0, 0.3, 0.9):
        found = ga.InBoxes(discs(ratio=ratio), ga.Noise())(images, keys=keys).mask
        assert set(found.flatten(1).sum(1).tolist()) == {round(ratio * 60 * 52)}
        assert torch.equal(found, ga.InBoxes(Balls(ratio=ratio), ga.Noise())(images, keys=keys).mask)  # drawn one by one


def test_discs_cost_no_more_than_three_times_what_boxes_cost(load: Any) -> None:
    images, keys = random_images((16, 3, 224, 224)), some_keys(16)
    ways = [ga.InBoxes(place, ga.Noise()) for place in (ga.Boxes(ratio=0.3), load("discs.py").Discs(ratio=0.3))]
    least = [float("inf")] * 2
    for _ in range(7):
        for number, corrupt in enumerate(ways):
            begin = time.thread_time()
            corrupt(images, keys=keys, backend="reference")
            least[number] = min(least[number], time.thread_time() - begin)
    assert least[1] <= 3 * least[0], least


def test_a_preset(load: Any) -> None:
    drops = load("drops.py").drops
    found = drops(values="unit")(torch.rand(20, 3, 40, 40), keys=some_keys(20))
    assert 0 < float(found.mask.double().flatten(1).mean(1).max()) <= 0.25
    assert float(found.images.max()) <= 1.0


def test_a_rule_for_budgets(load: Any) -> None:
    bounded, some = load("bounded.py").Bounded, ga.Boxes(ratio=0.3)
    parts = [ga.InBoxes(some, ga.Grey()), ga.InBoxes(some, ga.Noise())]
    images, keys = random_images((20, 3, 40, 40)), some_keys(20)
    assert int(bounded(parts, 0.4)(images, keys=keys).mask.flatten(1).sum(1).max()) <= 640
    assert int(ga.Chain(parts, budget=0.4)(images, keys=keys).mask.flatten(1).sum(1).max()) > 640  # grey is not counted there
    assert int(bounded([bounded(parts, 0.4)], 0.1)(images, keys=keys).mask.flatten(1).sum(1).max()) <= 160


USE = """
import torch
import gmml_aug as ga
from negative import Negative, launch, negate
calls = []
ga.register_operation(Negative, "triton", lambda *given: calls.append(1) or launch(*given))
corrupt = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.3), ga.Noise()), ga.InBoxes(ga.Boxes(ratio=0.3), Negative())])
images, keys = torch.randn(3, 3, 20, 21), ga.keys(0, 0, range(3))
found, wanted = (corrupt(images, keys=keys, backend=backend) for backend in ("triton", "reference"))
assert torch.equal(found.mask, wanted.mask) and (found.images - wanted.images).abs().max() < 1e-5
assert calls == [1]
"""


@pytest.mark.skipif(not has_triton(), reason="needs triton")
def test_a_kernel_for_a_fill(tmp_path: Path) -> None:
    (tmp_path / "negative.py").write_text(FILES["negative.py"], encoding="utf-8")
    here = os.pathsep.join([str(PAGE.parents[1]), str(tmp_path)])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": here}
    done = subprocess.run([sys.executable, "-c", USE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
