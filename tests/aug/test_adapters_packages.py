"""The examples of docs/adapters.md in the packages that they are for: slow, and skipped where these are not installed."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import gmml_aug as ga
from tests.document_blocks import ROOT, blocks

NOISE = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Noise())
pytestmark = pytest.mark.slow


def package(name: str) -> Any:
    """A module of a package that warns while it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            pytest.skip(f"{name} is not installed whole: {error}")


def of_the_page() -> Any:
    """`CorruptBatch` as it is printed."""
    names: dict[str, Any] = {"nn": nn, "torch": torch}
    (block,) = (block for block in blocks(ROOT / "docs" / "adapters.md") if "class CorruptBatch" in block.code)
    exec(block.code, names)
    return names["CorruptBatch"]


def test_monai_composes_it_with_its_own_transforms_on_a_batch_of_volumes() -> None:
    monai, data, meta = package("monai.transforms"), package("monai.data"), package("monai.data.meta_tensor")
    boxes = ga.Boxes(ratio=0.3, dims=3)
    hide = ga.Chain([ga.InBoxes(boxes, ga.Noise()), ga.InBoxes(boxes, ga.Alien())], budget=0.5)
    load = monai.Compose([monai.EnsureTyped(keys=["image", "label"]), monai.RandFlipd(keys=["image", "label"], prob=0.5)])
    samples = [{"image": torch.rand(1, 12, 16, 16), "label": torch.zeros(1, 12, 16, 16)} for _ in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = next(iter(data.DataLoader(data.Dataset(samples, load), batch_size=4)))
    assert isinstance(batch["image"], meta.MetaTensor)
    done = monai.Compose([of_the_page()(hide), monai.Lambdad(keys="label", func=lambda label: label + 1)])(batch)
    assert torch.equal((done["image"] != done["clean"]).any(1, keepdim=True), done["mask"])
    assert 0 < done["mask"].float().mean() <= 0.5
    assert (done["label"] == 1).all()


def test_stable_pretraining_composes_it_with_its_own_transforms() -> None:
    module = package("stable_pretraining.data.gpu_transforms")
    images = torch.rand(4, 3, 16, 16)
    normalise = module.GPUNormalize(mean=[0.5] * 3, std=[0.25] * 3)
    flow = module.GPUCompose([module.ToDevice("cpu"), normalise, of_the_page()(NOISE)])
    done = flow({"image": images.clone(), "label": torch.arange(4)})
    torch.testing.assert_close(done["clean"], (images - 0.5) / 0.25)
    assert torch.equal((done["image"] != done["clean"]).any(1, keepdim=True), done["mask"])
    assert done["mask"].sum().item() == 4 * 128


def test_lerobot_takes_it_among_its_image_transforms() -> None:
    module = package("lerobot.datasets.transforms")
    frame = torch.rand(3, 16, 16)
    hide = ga.torchvision_adapter.Corrupt(NOISE, mask=False)
    one = module.RandomSubsetApply([hide], n_subset=1)(frame)
    assert (one != frame).any(0).sum().item() == 128
    chosen = module.RandomSubsetApply([hide, module.SharpnessJitter(0.5)], n_subset=2, random_order=True)
    assert chosen(frame).shape == frame.shape
    module.ImageTransforms(module.ImageTransformsConfig(enable=True))(hide(frame))  # and before its own
