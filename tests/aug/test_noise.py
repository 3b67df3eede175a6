"""The kinds of noise: their moments, what channels share, and that the default stays what it was."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
from gmml_aug.values import Values
from tests.helpers import chi_square_z, random_images, same_bits, some_keys

KNOWN = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


def noise_in(images: Tensor, noise: ga.Noise, values: Values = "normalised", seed: int = 0) -> Tensor:
    """Whole images of noise."""
    keys = some_keys(len(images), seed).to(images.device)
    return ga.Chain([noise], values=values)(images, keys=keys).images


def to_pixels(images: Tensor, values: Values) -> Tensor:
    """Float images as pixels in 0 to 1, in float64."""
    wide = images.double()
    if isinstance(values, str):
        return wide if values == "unit" else wide / math.sqrt(12) + 0.5
    mean, std = (torch.tensor(part, dtype=torch.float64, device=images.device)[:, None, None] for part in values)
    return wide * std + mean


# Noise of today: a change here changes what every seed means. Change it knowingly.
GOLDEN = {
    "normalised": ("normalised", torch.float32, "c20aa449a4fda69e"),
    "unit": ("unit", torch.float32, "1efaf20ad8aa84e1"),
    "uint8": ("normalised", torch.uint8, "f6b9ec2f9a99864d"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_default_noise_is_that_recorded(name: str) -> None:
    values, dtype, digest = GOLDEN[name]
    found = noise_in(torch.zeros(3, 6, 20, 15, dtype=dtype), ga.Noise(), values)  # type: ignore[arg-type]
    levels = (found.double() * 1000).round().long()  # not to the bit: erfinv may differ between releases
    assert hashlib.sha256(repr(levels.tolist()).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("per", ["channel", "pixel"])
@pytest.mark.parametrize("values", ["normalised", "unit", KNOWN], ids=["unknown", "unit", "known"])
def test_uniform_noise_is_uniform_over_the_pixels(values: Values, per: str, device: torch.device) -> None:
    images = torch.zeros(8, 3, 60, 60, device=device)
    found = to_pixels(noise_in(images, ga.Noise(distribution="uniform", per=per), values), values)  # type: ignore[arg-type]
    assert -1e-6 < float(found.min()) < 1e-3
    assert 1 - 1e-3 < float(found.max()) < 1 + 1e-6
    for channel in range(3):
        cells = (found[:, channel].flatten() * 64).long().clamp(0, 63).cpu()
        assert abs(chi_square_z(torch.bincount(cells, minlength=64))) < 5


def test_uniform_noise_of_unknown_statistics_has_mean_0_and_variance_1(device: torch.device) -> None:
    found = noise_in(torch.zeros(8, 3, 60, 60, device=device), ga.Noise(distribution="uniform")).double()
    count = found.numel()
    assert abs(float(found.mean())) < 5 / math.sqrt(count)
    assert abs(float(found.var()) - 1.0) < 5 * math.sqrt(0.8 / count)  # the fourth moment of uniform noise is 1.8


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_normal_noise_in_a_bounded_range_has_the_moments_of_uniform_noise_and_stays_in_it(
    dtype: torch.dtype, device: torch.device
) -> None:
    images = torch.zeros(8, 3, 60, 60, dtype=dtype, device=device)
    found = noise_in(images, ga.Noise(distribution="normal"), "unit").double() / (255 if dtype == torch.uint8 else 1)
    assert (float(found.min()), float(found.max())) == (0.0, 1.0)
    inside = torch.special.ndtri(torch.tensor(0.25)).abs() / math.sqrt(12)  # quartiles are not touched by the clamp
    share = ((found - 0.5).abs() < float(inside)).double().mean()
    assert abs(float(share) - 0.5) < 0.01
    assert abs(float(found.mean()) - 0.5) < 0.01
    edges = (found == 0.0).double().mean() * 2
    assert abs(float(edges) - 2 * float(torch.special.ndtr(torch.tensor(-math.sqrt(3))))) < 0.01  # 8 % lie outside


def test_normal_noise_is_the_default_where_images_are_normalised() -> None:
    images = random_images((4, 5, 20, 20))
    for values in ("normalised", ((0.5,), (0.2,))):
        wanted = noise_in(images, ga.Noise(), values)
        assert same_bits(noise_in(images, ga.Noise(distribution="normal"), values), wanted)
    assert same_bits(noise_in(images, ga.Noise(distribution="uniform"), "unit"), noise_in(images, ga.Noise(), "unit"))


@pytest.mark.parametrize("per", ["channel", "pixel"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_matched_noise_has_the_moments_of_each_image_and_channel(channels: int, per: str, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    images = random_images((6, channels, 64, 64)) * torch.rand(6, channels, 1, 1, generator=generator) * 3
    images = (images + torch.randn(6, channels, 1, 1, generator=generator) * 4).to(device)
    found = noise_in(images, ga.Noise(distribution="matched", per=per)).double()  # type: ignore[arg-type]
    mean, std = images.double().mean((2, 3)), images.double().std((2, 3))
    assert ((found.mean((2, 3)) - mean).abs() < 5 * std / 64).all()
    assert ((found.std((2, 3)) / std - 1).abs() < 5 / math.sqrt(2 * 64 * 64)).all()


def test_matched_noise_is_about_the_clean_image_not_what_earlier_steps_left() -> None:
    images = random_images((4, 3, 16, 16))
    matched = ga.Noise(distribution="matched")
    plan = ga.Chain([ga.Constant(value=9.0), matched]).sample(images.shape, keys=some_keys(4))
    found = ga.Chain([ga.Constant(value=9.0), matched]).apply(images, plan).images
    assert abs(float(found.mean())) < 0.2


def test_matched_noise_of_uint8_is_rounded_and_clamped(device: torch.device) -> None:
    images = torch.full((2, 1, 64, 64), 255, dtype=torch.uint8, device=device)
    images[:, :, ::2] = 200
    found = noise_in(images, ga.Noise(distribution="matched")).double()
    assert float(found.max()) == 255
    assert abs(float(found.quantile(0.25)) - (227.5 - 0.6745 * 27.5)) < 2
    constant = noise_in(torch.full_like(images, 77), ga.Noise(distribution="matched"))
    assert (constant == 77).all()


@pytest.mark.parametrize("distribution", [None, "normal", "uniform"])
@pytest.mark.parametrize("values", ["normalised", "unit", KNOWN], ids=["unknown", "unit", "known"])
def test_noise_per_pixel_is_grey(values: Values, distribution: str | None, device: torch.device) -> None:
    noise = ga.Noise(distribution=distribution, per="pixel")  # type: ignore[arg-type]
    found = to_pixels(noise_in(torch.zeros(4, 3, 30, 30, device=device), noise, values), values)
    assert float((found - found[:, :1]).abs().max()) < 1e-6
    assert float(found[:, 0].std()) > 0.2
    assert len(found[:, 0].unique()) > 2000
    whole = noise_in(torch.zeros(4, 3, 30, 30, device=device, dtype=torch.uint8), noise)
    assert (whole == whole[:, :1]).all()


@pytest.mark.parametrize("distribution", [None, "uniform", "matched"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_the_first_channel_is_the_same_whether_channels_share_or_not(distribution: str | None, dtype: torch.dtype) -> None:
    images = random_images((4, 5, 12, 12), dtype)
    shared, own = (noise_in(images, ga.Noise(distribution=distribution, per=per)) for per in ("pixel", "channel"))  # type: ignore[arg-type]
    assert same_bits(shared[:, :1].contiguous(), own[:, :1].contiguous())
    assert not same_bits(shared, own)


def test_gradients_do_not_pass_through_matched_noise() -> None:
    images = torch.full((2, 1, 8, 8), 0.5, requires_grad=True)  # a deviation of 0 has no gradient
    found, mask = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Noise(distribution="matched"))(images)
    found.sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad, (~mask).float())


def test_unknown_kinds_of_noise_are_errors() -> None:
    with pytest.raises(ValueError, match=r"Noise: distribution='gauss' is unknown.*'normal', 'uniform', 'matched', or None"):
        ga.Noise(distribution="gauss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Noise: per='image' is unknown.*'channel' and 'pixel'"):
        ga.Noise(per="image")  # type: ignore[arg-type]
