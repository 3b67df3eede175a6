"""Colour jitter, held against torchvision's functions for single images and against what must hold anyhow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
from gmml_aug.values import Values
from tests.helpers import DTYPES, FLOATS, random_images, same_bits, some_keys

KNOWN = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
NOTHING: dict[str, Any] = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
RANGES: dict[str, tuple[float, float]] = {
    "brightness": (0.3, 2.0),
    "contrast": (0.3, 2.0),
    "saturation": (0.0, 2.5),
    "hue": (-0.5, 0.5),
}


def unit_images(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Floats uniform in 0 to 1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def by_torchvision(image: Tensor, factors: dict[str, float]) -> Tensor:
    """One image in [0, 1] through torchvision's functions, in our order."""
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    for name, factor in factors.items():
        image = getattr(functional, f"adjust_{name}")(image, factor)
    return image


@pytest.mark.parametrize("names", [["brightness"], ["contrast"], ["saturation"], ["hue"], list(RANGES)], ids="-".join)
@pytest.mark.parametrize("values", ["unit", KNOWN, "uint8"], ids=["unit", "known", "uint8"])
def test_jitter_is_what_torchvision_does_to_single_images(names: list[str], values: Any, device: torch.device) -> None:
    pixels = unit_images((24, 3, 17, 19))
    if values == "uint8":
        images, known, step = (pixels * 255).round().to(torch.uint8), "normalised", 1.0 / 255
        pixels = images.float() / 255
    elif values == "unit":
        images, known, step = pixels, "unit", 0.0
    else:
        mean, std = (torch.tensor(part)[:, None, None] for part in KNOWN)
        images, known, step = (pixels - mean) / std, KNOWN, 0.0  # type: ignore[assignment]
    jitter = ga.Jitter(**{**NOTHING, **{name: RANGES[name] for name in names}})
    corrupt = ga.Chain([jitter], values=known)  # type: ignore[arg-type]
    plan = corrupt.sample(images.shape, keys=some_keys(24).to(device))
    found = corrupt.apply(images.to(device), plan).images.cpu()
    if values == "uint8":
        found = found.float() / 255
    elif values != "unit":
        found = found * std + mean
    for image in range(24):
        drawn = {name: float(factor[image]) for name, factor in zip(RANGES, plan.drawn[0], strict=True)}
        wanted = by_torchvision(pixels[image], {name: drawn[name] for name in names})
        assert float((found[image] - wanted).abs().max()) < 0.51 * step + 5e-4, (
            drawn
        )  # torchvision's luma weights end a digit earlier


def test_numbers_and_pairs_mean_what_they_mean_in_torchvision() -> None:
    shape, keys = (20_000, 3, 2, 2), some_keys(20_000)
    plan = ga.Jitter(brightness=0.4, contrast=1.5, saturation=(0.5, 0.7), hue=0.1).sample(shape, keys=keys)
    for factor, (low, high) in zip(plan.drawn[0], [(0.6, 1.4), (0.0, 2.5), (0.5, 0.7), (-0.1, 0.1)], strict=True):
        assert factor.shape == (20_000,)
        ordered = factor.double().sort().values
        assert float((ordered - torch.linspace(low, high, 20_000)).abs().max()) < 1.9 * (high - low) / math.sqrt(20_000)
    together = torch.corrcoef(torch.stack(plan.drawn[0]))
    assert float((together - torch.eye(4)).abs().max()) < 0.04


def test_contrast_is_about_the_luma_of_the_whole_image_also_outside_the_boxes(device: torch.device) -> None:
    images = unit_images((6, 3, 24, 24)).to(device)
    flat = ga.Jitter(**{**NOTHING, "contrast": (0.0, 0.0)})
    found, mask = ga.Chain([ga.InBoxes(ga.Boxes(count=1, side=(0.2, 0.4)), flat)], values="unit")(images)
    luma = (images * torch.tensor([0.299, 0.587, 0.114], device=device)[:, None, None]).sum(1).mean((1, 2))
    wanted = torch.where(mask, luma[:, None, None, None], images)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channels_than_three_change_in_brightness_and_contrast_alone(channels: int, device: torch.device) -> None:
    images = unit_images((4, channels, 12, 12)).to(device)
    plan_of = ga.Chain([ga.Jitter(saturation=0.9, hue=0.5)], values="unit")
    plan = plan_of.sample(images.shape, keys=some_keys(4).to(device))
    found, mask = plan_of.apply(images, plan)
    brightness, contrast = (factor[:, None, None, None] for factor in plan.drawn[0][:2])
    bright = (images * brightness).clamp(0, 1)
    centre = bright.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(found, (centre + (bright - centre) * contrast).clamp(0, 1), rtol=0, atol=1e-6)
    assert mask.all()
    colours = ga.Jitter(brightness=0.0, contrast=0.0)
    found, mask = colours(images)
    assert same_bits(found, images)
    assert not mask.any()


def test_jitter_that_changes_nothing_marks_nothing() -> None:
    images = random_images((4, 3, 8, 8))
    for nothing in (ga.Jitter(**NOTHING), ga.Jitter(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0))):
        assert not nothing(images).mask.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("values", ["unit", KNOWN], ids=["unit", "known"])
def test_pixels_stay_in_their_range_where_it_is_known(dtype: torch.dtype, values: Values, device: torch.device) -> None:
    images = (random_images((8, 3, 16, 16), dtype, seed=2) if dtype == torch.uint8 else random_images((8, 3, 16, 16)).to(dtype)).to(
        device
    )
    corrupt = ga.Chain([ga.Jitter(brightness=(1.5, 3.0), contrast=(1.5, 3.0), saturation=(1.5, 3.0), hue=0.5)], values=values)
    found = corrupt(images, keys=some_keys(8).to(device)).images
    assert found.dtype == dtype
    if dtype == torch.uint8:
        assert {0, 255} <= set(found.unique().tolist())
        return
    mean, std = values if not isinstance(values, str) else ((0.0,) * 3, (1.0,) * 3)
    for channel in range(3):
        pixels = found[:, channel].double() * std[channel] + mean[channel]
        slack = 4 * torch.finfo(dtype).eps
        assert -slack <= float(pixels.min()) < slack
        assert 1 - slack < float(pixels.max()) <= 1 + slack


def test_unknown_statistics_are_those_of_uniform_pixels_without_a_clamp() -> None:
    pixels = 0.45 + 0.1 * unit_images((6, 3, 10, 10))  # nothing reaches the borders
    images = (pixels - 0.5) * math.sqrt(12)
    found = ga.Jitter()(images, keys=some_keys(6)).images / math.sqrt(12) + 0.5
    wanted = ga.Chain([ga.Jitter()], values="unit")(pixels, keys=some_keys(6)).images
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert float(ga.Jitter(brightness=(3.0, 3.0))(images).images.max()) > 2.5


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_half_precision_is_computed_in_single(dtype: torch.dtype, device: torch.device) -> None:
    images = unit_images((8, 3, 32, 32)).to(dtype).to(device)
    corrupt, keys = ga.Chain([ga.Jitter(hue=0.5)], values="unit"), some_keys(8).to(device)
    found, wanted = corrupt(images, keys=keys).images, corrupt(images.double(), keys=keys).images
    assert float((found.double() - wanted).abs().max()) <= max(torch.finfo(dtype).eps / 2, 1e-5)


def test_gradients_pass_and_are_finite_at_grey_and_black() -> None:
    images = unit_images((4, 3, 8, 8))
    images[0], images[1, :, :4] = 0.0, 0.5
    images.requires_grad_()
    found = ga.Chain([ga.Jitter(brightness=0.1, hue=(0.05, 0.1))], values="unit")(images, keys=some_keys(4)).images
    (gradient,) = torch.autograd.grad(found.square().sum(), images)
    assert gradient.isfinite().all()
    assert (gradient[2:] != 0).float().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"brightness": -0.1}, ValueError, r"Jitter: brightness=-0.1 .*0.0 to 100"),
        ({"contrast": (1.2, 0.8)}, ValueError, r"Jitter: contrast=.*low <= high"),
        ({"saturation": (-0.1, 0.8)}, ValueError, r"Jitter: saturation=-0.1 "),
        ({"saturation": math.nan}, ValueError, r"Jitter: saturation=nan .*finite"),
        ({"hue": 0.6}, ValueError, r"Jitter: hue=0.6 .*0.0 to 0.5"),
        ({"hue": (-0.6, 0.0)}, ValueError, r"Jitter: hue=-0.6 .*-0.5 to 0.5"),
        ({"hue": (0.1, 0.2, 0.3)}, ValueError, r"Jitter: hue=.*3 entries.*pair"),
        ({"hue": "red"}, TypeError, r"Jitter: hue='red' is not a number"),
        ({"contrast": None}, TypeError, r"Jitter: contrast=None is not a number"),
    ],
)
def test_wrong_strengths_are_errors(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ga.Jitter(**options)
