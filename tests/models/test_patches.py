"""Patches that are normalised by themselves: what holds for all of them, another implementation, and the way back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from gmml_models.losses import masked_l2
from gmml_models.models.patches import EPS, PatchStatistics, denormalise_patches, fill_hidden, normalise_patches, patch_statistics


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pieces(images: Tensor, sides: tuple[int, ...]) -> Tensor:
    """(patches, n), one patch after the other, in the plainest way."""
    found = [images]
    for axis, side in enumerate(sides):
        found = [part for one in found for part in one.split(side, dim=axis + 2)]
    return torch.cat([one.flatten(1) for one in found])


@st.composite
def shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    sides = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    grid = [draw(st.integers(1, 3)) for _ in sides]
    return (draw(st.integers(1, 3)), draw(st.integers(2, 4)), *(one * many for one, many in zip(sides, grid, strict=True))), sides


@given(shapes(), st.integers(0, 99))
def test_every_patch_has_mean_0_and_deviation_1_and_comes_back(shape: Any, seed: int) -> None:
    size, sides = shape
    images = 3.0 * noise(*size, seed=seed) + 2.0
    found = normalise_patches(images, sides)
    statistics = patch_statistics(images, sides)
    raw = pieces(images, sides).double()
    each = pieces(found, sides).double()
    assert each.mean(1).abs().max() < 1e-4
    torch.testing.assert_close(each.var(1), raw.var(1) / (raw.var(1) + EPS), rtol=1e-3, atol=1e-4)
    assert statistics.mean.shape == (size[0], 1, *(length // side for length, side in zip(size[2:], sides, strict=True)))
    torch.testing.assert_close(denormalise_patches(found, statistics, sides), images, rtol=1e-4, atol=1e-4)


@given(st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
def test_brightness_and_contrast_of_a_patch_are_gone(factor: float, offset: float) -> None:
    images, changed = noise(2, 3, 8, 8), noise(2, 3, 8, 8)
    changed[0, :, :4, 4:] = factor * changed[0, :, :4, 4:] + offset
    torch.testing.assert_close(normalise_patches(changed, 4), normalise_patches(images, 4), rtol=1e-3, atol=1e-3)


def test_an_even_patch_becomes_zeros_and_comes_back() -> None:
    images = torch.full((1, 3, 8, 8), 2.64)  # white, normalised
    images[:, :, :4] = 0.0
    found = normalise_patches(images, 4)
    assert found.abs().max() < 1e-2
    torch.testing.assert_close(denormalise_patches(found, patch_statistics(images, 4), 4), images)


def test_it_is_what_mae_learns_in_transformers() -> None:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {f"decoder_{name}": number for name, number in sizes.items()}
    torch.manual_seed(0)
    model = ViTMAEForPreTraining(ViTMAEConfig(image_size=32, patch_size=8, norm_pix_loss=True, **sizes))
    images = 2.0 * noise(4, 3, 32, 32) + 1.0
    with torch.no_grad():
        theirs = model(images)
    mask = theirs.mask.reshape(4, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3).bool()
    ours = masked_l2(model.unpatchify(theirs.logits), images, mask, target="normalised", patch=8)
    torch.testing.assert_close(ours, theirs.loss)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    images = (100.0 + noise(2, 3, 8, 8)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = normalise_patches(images, 8)
    assert found.dtype == torch.float32
    assert torch.equal(found, normalise_patches(images.float(), 8))
    assert normalise_patches(images.double(), 8).dtype == torch.float64


# --- where a part is seen only


def test_all_seen_is_the_same_as_nothing_said() -> None:
    images = noise(2, 3, 8, 12) + 3.0
    for one, other in zip(
        patch_statistics(images, 4), patch_statistics(images, 4, seen=torch.ones(2, 1, 8, 12, dtype=torch.bool)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@given(st.integers(0, 99), st.floats(0.0, 1.0))
def test_hidden_pixels_have_no_influence(seed: int, share: float) -> None:
    images = noise(2, 3, 8, 8, seed=seed)
    seen = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) >= share
    spoilt = torch.where(seen, images, math.nan)
    found, other = patch_statistics(images, 4, seen=seen), patch_statistics(spoilt, 4, seen=seen)
    for one, two in zip(found, other, strict=True):
        assert torch.equal(one, two)
        assert bool(one.isfinite().all())
    assert bool((found.std > 0).all())
    assert min(float(images.min()), 0.0) - 1e-4 <= float(found.mean.min())
    assert float(found.mean.max()) <= max(float(images.max()), 0.0) + 1e-4


def test_an_image_of_which_nothing_is_seen_has_mean_0_and_deviation_1() -> None:
    found = patch_statistics(noise(1, 3, 8, 8), 4, seen=torch.zeros(1, 1, 8, 8, dtype=torch.bool))
    assert torch.equal(found.mean, torch.zeros(1, 1, 2, 2))
    assert torch.equal(found.std, torch.ones(1, 1, 2, 2))


@given(shape=st.lists(st.integers(1, 19), min_size=1, max_size=3), seed=st.integers(0, 9_999), share=st.floats(0.0, 1.0))
def test_what_is_hidden_is_filled_in_between_what_is_known(shape: list[int], seed: int, share: float) -> None:
    images = noise(2, 3, *shape, seed=seed)
    seen = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(seed)) >= share
    filled = fill_hidden(torch.where(seen, images, math.nan), seen)
    assert torch.equal(torch.where(seen, filled, 0.0), torch.where(seen, images, 0.0))
    for one, original, known in zip(filled, images, seen, strict=True):
        values = original[known.expand_as(original)] if known.any() else torch.zeros(1)
        assert values.min() - 1e-5 <= one.min()
        assert one.max() <= values.max() + 1e-5


def test_a_ramp_goes_on_through_a_hidden_patch() -> None:
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    seen = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    seen[..., 8:24, 8:24] = False
    assert (fill_hidden(ramp, seen) - ramp).abs().max() < 0.05
    assert (patch_statistics(ramp, 8, seen=seen).mean - patch_statistics(ramp, 8).mean).abs().max() < 0.02


def test_a_hidden_patch_takes_after_its_neighbours_and_a_part_tells_more_than_they() -> None:
    coarse = noise(16, 3, 4, 4, seed=5)
    images = F.interpolate(coarse, size=64, mode="bilinear")  # smooth, as photographs are
    true = patch_statistics(images, 8).mean
    seen = torch.ones(16, 1, 64, 64, dtype=torch.bool)
    seen[:, :, 24:32, 24:32] = False
    whole = patch_statistics(images, 8, seen=seen).mean
    far = (images.mean((1, 2, 3)) - true[:, 0, 3, 3]).abs().mean()
    near = (whole - true)[:, 0, 3, 3].abs().mean()
    seen[:, :, 24:32, 24:28] = True
    part = (patch_statistics(images, 8, seen=seen).mean - true)[:, 0, 3, 3].abs().mean()
    assert part < near < far
    elsewhere = (whole - true).abs()
    elsewhere[:, :, 3, 3] = 0
    assert elsewhere.max() < 1e-4


# --- what is refused


@pytest.mark.parametrize(
    ("images", "patch", "error", "match"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 4, TypeError, "torch.uint8, not a float type"),
        (torch.zeros(1, 3, 8, 8), 3, ValueError, "patch=3 does not divide images of 8 x 8"),
        (torch.zeros(1, 3, 8, 8), 0, ValueError, "whole number above 0"),
        (torch.zeros(1, 3, 8, 8), (4, 4, 4), ValueError, "one number per axis"),
        (torch.zeros(1, 3, 8, 8), True, ValueError, "whole number above 0"),
        (torch.zeros(1, 1, 8, 8), 1, ValueError, "a patch with only one value"),
        (torch.zeros(3, 8), 4, ValueError, "one to three spatial axes"),
    ],
)
def test_what_does_not_fit_is_named(images: Tensor, patch: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        normalise_patches(images, patch)


def test_masks_and_statistics_of_other_shapes_are_named() -> None:
    images = noise(1, 3, 8, 8)
    with pytest.raises(TypeError, match=r"seen is torch\.float32, not bool"):
        patch_statistics(images, 4, seen=torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"allowed: \(1, 1, 8, 8\)"):
        patch_statistics(images, 4, seen=torch.ones(1, 3, 8, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"allowed: \(1, 1, 2, 2\)"):
        denormalise_patches(images, PatchStatistics(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)), 4)
