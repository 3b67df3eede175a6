"""The published mixtures: their numbers, their printed form, and the release's behaviour as it was recorded."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
from tests.helpers import masks_of, plans_equal, random_images, some_keys, z_of_mean

CONFORMANCE = Path(__file__).resolve().parents[2].parent / "shared" / "conformance"

COMPOSITIONS: dict[str, ga.Corruption] = {
    "gmml": ga.presets.gmml(),
    "gmml, all options": ga.presets.gmml(
        values=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), zeros=0.25, budget=0.6, alone="skip"
    ),
    "gmml of zeros": ga.presets.gmml(values="unit", zeros=1.0),
    "gmml_reference": ga.presets.gmml_reference(),
    "sit": ga.presets.sit(values="unit", alone="skip"),
    "mc_ssl": ga.presets.mc_ssl(),
    "ablation": ga.presets.ablation(kind="comb2", ratio=0.5, values="unit", alone="skip"),
    "ablation of nothing": ga.presets.ablation(kind="none"),
    "a fill": ga.Blur(sigma=1.5, kernel=3),
    "nested": ga.Chain(
        [
            ga.OneOf([ga.Noise(), ga.Chain([ga.Grey(), ga.Constant(value=(-1, 1))], budget=0.25)], weights=[1, 3]),
            ga.InBoxes(ga.Boxes(count=(1, 3), side=0.3, align=2), ga.OneOf([ga.Zeros(), ga.Alien(alone="skip")]), p=0.3),
            ga.InBoxes(ga.Boxes(ratio=1 / 3, placement="origin", overshoot=True), ga.Chain([ga.Noise(), ga.Blur()])),
        ],
        budget=0.1 + 0.2,
        values=((0.1,), (1 / 3,)),
        dims=2,
    ),
    "volume": ga.Chain([ga.InBoxes(ga.Boxes(ratio=(0.3, 0.3), dims=3), ga.Zeros())], dims=3),
    "a chain in boxes": ga.InBoxes(ga.Boxes(ratio=0.1), ga.Chain([ga.Grey()])),
}


def test_gmml_has_the_numbers_of_the_paper() -> None:
    some = ga.Boxes(ratio=(0.0, 0.35), side=(0.05, 0.25))
    one = ga.Boxes(count=1, side=(0.05, 1.0), placement="inside")
    assert ga.presets.gmml() == ga.Chain(
        [
            ga.InBoxes(some, ga.Noise()),
            ga.InBoxes(some, ga.Alien()),
            ga.InBoxes(one, ga.Grey()),
            ga.InBoxes(one, ga.Blur(sigma=(0.1, 1.1), kernel=(3, 15))),
        ]
    )


def test_gmml_draws_what_the_paper_says() -> None:
    corrupt = ga.presets.gmml()
    plan = corrupt.sample((2000, 3, 64, 64), keys=some_keys(2000))
    assert plan.active.all()
    shares = [corrupt.kinds(plan.only(step)).gt(0).float().flatten(1).mean(1) for step in range(4)]
    for share in shares[:2]:
        assert float(share.min()) < 0.005
        assert 0.345 < float(share.max()) <= 0.35
        assert abs(float(z_of_mean(share, 0.175))) < 5
    assert abs(float(torch.corrcoef(torch.stack(shares))[0, 1])) < 0.11
    for place in (2, 3):
        boxes = plan.boxes[place][:, 0]
        assert (plan.boxes[place][:, 1:] == 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= 64).all()
        assert (int(boxes[:, 2:].min()), int(boxes[:, 2:].max())) == (3, 64)
    sigma, kernel = plan.drawn[3]
    assert float(sigma.min()) >= 0.1
    assert float(sigma.max()) <= 1.1
    assert set(kernel.tolist()) == {3, 5, 7, 9, 11, 13, 15}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_zeros_take_the_given_share_of_the_images(share: float) -> None:
    plan = ga.presets.gmml(zeros=share).sample((4000, 3, 16, 16), keys=some_keys(4000))
    zeros, noise = plan.active[:, 0], plan.active[:, 1]
    assert (zeros ^ noise).all()
    assert abs(float(zeros.float().mean()) - share) < 5 * math.sqrt(share * (1 - share) / 4000)


def test_one_of_follows_its_weights_and_p_its_share() -> None:
    corrupt = ga.Chain(
        [
            ga.OneOf([ga.Noise(), ga.Zeros(), ga.Constant(), ga.Grey()], weights=[1, 2, 0, 5]),
            ga.InBoxes(ga.Boxes(count=1), ga.Noise(), p=0.3),
        ]
    )
    active = corrupt.sample((20_000, 3, 8, 8), keys=some_keys(20_000)).active
    assert (active[:, :4].sum(1) == 1).all()
    for step, share in enumerate([1 / 8, 2 / 8, 0.0, 5 / 8, 0.3]):
        assert abs(float(active[:, step].float().mean()) - share) <= 5 * math.sqrt(share * (1 - share) / 20_000)
    together = (active[:, 0] & active[:, 4]).float().mean()
    assert abs(float(together) - 0.3 / 8) < 5 * math.sqrt(0.3 / 8 / 20_000)


@pytest.mark.parametrize("p", [0.0, 0.01, 1.0])
def test_a_place_where_nothing_happens_is_fine(p: float) -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Noise(), p=p)
    masks = corrupt(random_images((3, 1, 16, 16)), keys=some_keys(3)).mask.flatten(1)
    assert masks.sum(1).tolist() == [128 if p == 1.0 else 0] * 3


@pytest.mark.parametrize("name", ["ablation", "gmml", "gmml_reference", "mc_ssl", "sit", "specaugment"])
def test_every_preset_without_a_grid_works_on_small_batches_of_any_channels(name: str) -> None:
    corrupt = getattr(ga.presets, name)()
    for seed in range(12):
        for shape in [(2, 3, 32, 32), (2, 1, 17, 40), (3, 13, 8, 8)]:
            assert corrupt(random_images(shape), keys=some_keys(shape[0], seed)).mask.shape == (shape[0], 1, *shape[2:])


def test_names_lists_the_presets() -> None:
    assert {"ablation", "gmml", "gmml_reference", "mc_ssl", "sit"} <= set(ga.presets.names())
    for name in ga.presets.names():
        assert callable(getattr(ga.presets, name))
        assert "Source:" in (getattr(ga.presets, name).__doc__ or "")


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_what_is_printed_builds_the_same(name: str) -> None:
    corrupt = COMPOSITIONS[name]
    again = eval(repr(corrupt), vars(ga).copy())
    assert again == corrupt
    assert repr(again) == repr(corrupt)
    assert str(corrupt) == repr(corrupt)
    assert max(map(len, repr(corrupt).splitlines())) <= 132


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_corruptions_are_pickled_copied_and_hashed(name: str) -> None:
    corrupt = COMPOSITIONS[name]
    dims = corrupt.program.dims
    shape = (5, 1 if name == "nested" else 3, *[12] * dims)
    for other in (pickle.loads(pickle.dumps(corrupt)), copy.copy(corrupt), copy.deepcopy(corrupt)):
        assert other == corrupt
        assert hash(other) == hash(corrupt)
        assert type(other) is type(corrupt)
        assert plans_equal(other.sample(shape, keys=some_keys(5)), corrupt.sample(shape, keys=some_keys(5)))
    assert len({*COMPOSITIONS.values(), copy.deepcopy(corrupt)}) == len(COMPOSITIONS)


def test_corruptions_are_frozen_and_hold_no_tensors() -> None:
    corrupt = ga.presets.gmml(values=((0.5,) * 3, (0.2,) * 3))
    corrupt(random_images((4, 3, 24, 24)))
    first = corrupt.parts[0]
    assert isinstance(first, ga.InBoxes)
    for part, name in [(corrupt, "budget"), (first, "p"), (first.fill, "value"), (first.boxes, "ratio")]:
        with pytest.raises(AttributeError):
            setattr(part, name, 0.5)
    assert not isinstance(corrupt, torch.nn.Module)
    assert b"torch" not in pickle.dumps(corrupt)


def test_lists_numbers_and_tensors_given_as_options_are_kept_as_plain_values() -> None:
    one = ga.Chain([ga.Noise()], values=(torch.tensor([0.5, 0.25]), [0.5, 0.25]))  # type: ignore[arg-type]
    assert one == ga.Chain((ga.Noise(),), values=((0.5, 0.25), (0.5, 0.25)))
    assert ga.Boxes(ratio=[0.1, 0.3]) == ga.Boxes(ratio=(0.1, 0.3))  # type: ignore[arg-type]
    assert ga.Boxes(count=[2, 2]) == ga.Boxes(count=2)  # type: ignore[arg-type]
    assert ga.Boxes(ratio=1, side=0.5) == ga.Boxes(ratio=1.0, side=(0.5, 0.5))


def recorded(entry: int) -> dict[str, Any]:
    """What 4000 corruptions by the release look like."""
    path = CONFORMANCE / "reference_distribution.json"
    if not path.is_file():
        pytest.skip(f"no recorded statistics at {path}")
    found: dict[str, Any] = json.loads(path.read_text())[entry]
    return found


@pytest.mark.parametrize("entry", [0, 1], ids=["up to 75 %", "up to 30 %"])
def test_the_reference_preset_covers_images_as_the_release_does(entry: int) -> None:
    record = recorded(entry)
    (choice,) = ga.presets.gmml_reference().parts
    assert isinstance(choice, ga.OneOf)
    place = choice.parts[entry]
    assert isinstance(place, ga.InBoxes)
    assert isinstance(place.fill, ga.Noise if entry == 0 else ga.Alien)
    height, width, theirs, ours = record["H"], record["W"], record["N"], 20_000
    masks = torch.cat(list(masks_of(ga.InBoxes(place.boxes, ga.Noise()), (1, height, width), ours, seed=3)))
    share = masks.flatten(1).double().mean(1)
    spread = float(share.std())
    error = math.sqrt(1 / ours + 1 / theirs)  # of the difference of two means, in units of their spread
    assert abs(float(share.mean()) - record["ratio_mean"]) < 5 * spread * error
    # the error of a standard deviation follows from the fourth moment
    fourth = float(((share - share.mean()) ** 4).mean())
    assert abs(spread - record["ratio_std"]) < 5 * math.sqrt(fourth - spread**4) / (2 * spread) * error
    assert_quantiles_agree(share, record["ratio_quantiles"], theirs)
    for name, others in (("row_coverage", 2), ("col_coverage", 1)):
        each = masks.double().mean(others)
        allowed = 5 * each.std(0) * error + 6e-5  # they are recorded to four digits
        apart = (each.mean(0) - torch.tensor(record[name], dtype=torch.float64)).abs()
        assert (apart < allowed).all(), name


def assert_quantiles_agree(share: Tensor, quantiles: list[float], theirs: int) -> None:
    """A recorded quantile must lie where we have about as many below it."""
    at = [0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0]
    for level, value in zip(at[1:-1], quantiles[1:-1], strict=True):
        allowed = 5 * math.sqrt(level * (1 - level) * (1 / theirs + 1 / len(share)))
        below, up_to = float((share < value - 2e-5).double().mean()), float((share <= value + 2e-5).double().mean())
        assert below - allowed <= level <= up_to + allowed, level
    assert abs(float(share.min()) - quantiles[0]) < 0.002
    assert abs(float(share.max()) - quantiles[-1]) < 0.05


@pytest.mark.parametrize("name", ["gmml_reference", "sit"])
def test_the_presets_of_the_releases_replace_by_one_or_the_other_with_equal_chance(name: str) -> None:
    corrupt = getattr(ga.presets, name)()
    active = corrupt.sample((4000, 3, 16, 16), keys=some_keys(4000)).active
    assert (active.sum(1) == 1).all()
    assert abs(float(active[:, 0].float().mean()) - 0.5) < 5 * 0.5 / math.sqrt(4000)


def test_sit_is_half_of_zeros_or_a_third_of_alien_content_in_the_boxes_of_the_release() -> None:
    (choice,) = ga.presets.sit().parts
    (reference,) = ga.presets.gmml_reference().parts
    assert isinstance(choice, ga.OneOf)
    assert isinstance(reference, ga.OneOf)
    assert choice.parts[1] == reference.parts[1]
    images = random_images((400, 3, 64, 64))
    plan = ga.presets.sit().sample(images.shape, keys=some_keys(400))
    found, mask = ga.presets.sit().apply(images, plan)
    zeros, share = plan.active[:, 0], mask.flatten(1).double().mean(1)
    assert (found[zeros] == torch.where(mask, 0.0, images)[zeros]).all()
    assert (found[~zeros] != 0).all()
    for of, target in ((zeros, 0.5), (~zeros, 0.3)):
        assert float(share[of].min()) >= target  # painting ends with the box that passes it
        assert float(share[of].mean()) < target + 0.02
        assert float(share[of].max()) < target + 0.09
    first, middle = mask[:, 0, 0].double().mean(), mask[:, 0, 32].double().mean()
    assert first < 0.4 * middle
