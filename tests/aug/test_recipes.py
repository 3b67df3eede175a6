"""The presets of MC-SSL and of GMML's ablations: what they do, and to how many images."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import gmml_aug as ga
from tests.helpers import random_images, some_keys, z_of_mean

KINDS: dict[Any, list[type[ga.Fill]]] = {
    "none": [],
    "zeros": [ga.Zeros],
    "noise": [ga.Noise],
    "replace": [ga.Alien],
    "comb1": [ga.Noise, ga.Alien],
    "comb2": [ga.Zeros, ga.Noise, ga.Alien],
}


def test_mc_ssl_augments_whole_images_by_chance_and_then_drops_or_replaces() -> None:
    corrupt = ga.presets.mc_ssl()
    names = [type(step.fill).__name__ for step in corrupt.program.steps]
    assert names == ["Jitter", "Grey", "Blur", "Noise", "Alien"]
    plan = corrupt.sample((6000, 3, 16, 16), keys=some_keys(6000))
    share = plan.active.double().mean(0)
    for step, wanted in enumerate([0.8, 0.2, 0.5, 0.5, 0.5]):
        assert abs(float(share[step]) - wanted) < 5 * math.sqrt(wanted * (1 - wanted) / 6000)
    assert (plan.active[:, 3] ^ plan.active[:, 4]).all()
    together = torch.corrcoef(plan.active[:, :4].double().T)
    assert float((together - torch.eye(4)).abs().max()) < 0.07
    for step in range(3):
        part = corrupt.kinds(plan.only(step)).flatten(1)
        assert torch.equal((part > 0).all(1), plan.active[:, step])
        assert torch.equal((part > 0).any(1), plan.active[:, step])
    assert float(plan.drawn[2][0].max()) <= 2.0


def test_mc_ssl_drops_and_replaces_in_the_boxes_of_sit() -> None:
    last = ga.presets.mc_ssl().parts[-1]
    (sit,) = ga.presets.sit().parts
    assert isinstance(last, ga.OneOf)
    assert isinstance(sit, ga.OneOf)
    assert [part.boxes for part in last.parts if isinstance(part, ga.InBoxes)] == [
        part.boxes for part in sit.parts if isinstance(part, ga.InBoxes)
    ]
    assert last.parts[1] == sit.parts[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.7, 1.0])
def test_an_ablation_covers_up_to_its_ratio(kind: Any, ratio: float) -> None:
    corrupt = ga.presets.ablation(kind=kind, ratio=ratio)
    images = random_images((300, 1, 40, 40))
    plan = corrupt.sample(images.shape, keys=some_keys(300))
    shares = corrupt.kinds(plan).gt(0).double().flatten(1).mean(1)
    contents = KINDS[kind]
    if not contents:
        assert float(shares.max()) == 0.0
        assert torch.equal(corrupt.apply(images, plan).images, images)
        return
    assert [type(step.fill) for step in corrupt.program.steps] == contents
    assert float(shares.max()) <= ratio
    each = [corrupt.kinds(plan.only(step)).gt(0).double().flatten(1).mean(1) for step in range(len(contents))]
    for share in each:
        assert float(share.max()) > 0.95 * ratio / len(contents)
        assert abs(float(z_of_mean(share, ratio / len(contents) / 2))) < 5


def test_the_combination_of_figure_5_is_the_first_half_of_the_recipe() -> None:
    assert ga.presets.ablation().parts == ga.presets.gmml().parts[:2]
    assert ga.presets.ablation(kind="comb1", ratio=0.7) == ga.presets.ablation()


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_replaces_by_other_images_needs_them(kind: Any) -> None:
    image = random_images((1, 3, 32, 32))
    assert ga.presets.ablation(kind=kind, alone="skip")(image, keys=some_keys(1)).mask.any() == (kind not in ("none", "replace"))
    if ga.Alien in KINDS[kind]:
        with pytest.raises(ValueError, match="drop_last"):
            ga.presets.ablation(kind=kind)(image)


def test_wrong_kinds_and_ratios_are_errors() -> None:
    with pytest.raises(ValueError, match=r"presets.ablation: kind='comb3' is unknown.*'none', 'zeros'.*'comb2'"):
        ga.presets.ablation(kind="comb3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"presets.ablation: ratio=70.0 is out of range.*0.0 to 1.0"):
        ga.presets.ablation(ratio=70)
    with pytest.raises(TypeError, match=r"presets.ablation: ratio='70%' is not a number"):
        ga.presets.ablation(kind="none", ratio="70%")  # type: ignore[arg-type]
