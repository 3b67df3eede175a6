"""One blur: every image by its own Gaussian, alone as in any batch, whole as in a window, and nothing from beyond its kernel."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from gmml_aug.functional import blur_window, gaussian_blur, gaussian_taps
from tests.aug.test_compile import dense
from tests.helpers import DTYPES, random_images, same_bits, some_keys

sizes = st.lists(st.integers(1, 24), min_size=1, max_size=3)


def drawn(batch: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + 3.0 * torch.rand(batch, generator=generator), 1 + 2 * torch.randint(0, 10, (batch,), generator=generator)


def slowly(image: Tensor, sigma: float, kernel: int) -> Tensor:
    """(C, *S) in float64, tap by tap at every pixel of an axis."""
    radius = kernel // 2
    weights = torch.tensor([math.exp(-0.5 * (t / sigma) ** 2) for t in range(-radius, radius + 1)], dtype=torch.float64)
    weights /= weights.sum()
    out = image.double()
    for axis in range(1, image.ndim):
        length = image.shape[axis]
        period = max(2 * (length - 1), 1)
        lines = []
        for at in range(length):
            places = [(at + t) % period for t in range(-radius, radius + 1)]
            folded = [0 if length == 1 else min(place, 2 * (length - 1) - place) for place in places]
            lines.append(sum(out.select(axis, place) * weight for place, weight in zip(folded, weights, strict=True)))
        out = torch.stack(lines, dim=axis)
    return out


@settings(max_examples=60)
@given(size=sizes, batch=st.integers(1, 4), seed=st.integers(0, 999))
def test_it_is_a_gaussian_with_reflected_borders(size: list[int], batch: int, seed: int) -> None:
    images, (sigma, kernel) = random_images((batch, 2, *size), seed=seed), drawn(batch, seed)
    wanted = torch.stack([slowly(image, float(s), int(k)) for image, s, k in zip(images, sigma, kernel, strict=True)])
    torch.testing.assert_close(gaussian_blur(images, sigma, kernel, 21).double(), wanted, rtol=0, atol=1e-5)
    with dense():
        torch.testing.assert_close(gaussian_blur(images, sigma, kernel, 21).double(), wanted, rtol=0, atol=1e-5)


@settings(max_examples=60)
@given(size=sizes, seed=st.integers(0, 999), dtype=st.sampled_from(DTYPES), together=st.booleans())
def test_an_image_comes_out_the_same_in_any_batch(size: list[int], seed: int, dtype: torch.dtype, together: bool) -> None:
    images, (sigma, kernel) = random_images((7, 3, *size), dtype, seed), drawn(7, seed)
    with pytest.MonkeyPatch.context() as patch:
        if together:  # all images in one go, as compiled code has them
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
        whole = gaussian_blur(images, sigma, kernel, 21)
        for part in (slice(0, 1), slice(6, 7), slice(2, 5)):
            assert same_bits(gaussian_blur(images[part], sigma[part], kernel[part], 21), whole[part])


@settings(max_examples=60)
@given(data=st.data(), size=sizes, seed=st.integers(0, 999))
def test_a_window_holds_what_the_whole_image_has_there(data: st.DataObject, size: list[int], seed: int) -> None:
    images, (sigma, kernel) = random_images((1, 2, *size), seed=seed), drawn(1, seed)
    window = []
    for length in size:
        start = data.draw(st.integers(0, length - 1))
        window.append(slice(start, data.draw(st.integers(start + 1, length))))
    taps = [weight for weight in gaussian_taps(sigma, kernel, 21)[0].tolist() if weight > 0]
    wanted = gaussian_blur(images, sigma, kernel, 21)[(slice(None), slice(None), *window)]
    torch.testing.assert_close(blur_window(images, window, taps), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", ["in groups", "dense"])
def test_nothing_comes_from_beyond_an_images_own_kernel(way: str) -> None:
    images = torch.zeros(3, 1, 20, 20)
    images[:, :, 10, 10] = torch.tensor([math.inf, math.nan, 1.0]).reshape(3, 1)
    sigma, kernel = torch.full((3,), 2.0), torch.tensor([3, 5, 15])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: way == "dense")
        found = gaussian_blur(images, sigma, kernel, 15)
    far = (torch.arange(20) - 10).abs()
    near = torch.maximum(far[:, None], far)
    for image, taps in enumerate(kernel.tolist()):
        assert torch.isfinite(found[image, 0][near > taps // 2]).all()
        assert image == 2 or not torch.isfinite(found[image, 0][near <= taps // 2]).any()


def test_it_agrees_with_a_convolution_where_no_border_is_near() -> None:
    images = random_images((2, 3, 40, 40))
    sigma, kernel = torch.tensor([0.7, 1.1]), torch.tensor([5, 15])
    found = gaussian_blur(images, sigma, kernel, 15)
    for image in range(2):
        taps = gaussian_taps(sigma, kernel, 15)[image]
        plane = F.conv2d(images[image][:, None], torch.outer(taps, taps)[None, None])[:, 0]
        torch.testing.assert_close(found[image, :, 7:-7, 7:-7], plane, rtol=0, atol=1e-5)


def test_gradients_pass_through_it() -> None:
    images = torch.rand(3, 2, 7, 6, dtype=torch.float64, requires_grad=True)
    sigma, kernel = drawn(3, 5)
    assert torch.autograd.gradcheck(lambda images: gaussian_blur(images, sigma, kernel, 21), (images,))
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Blur())
    assert torch.autograd.gradcheck(lambda images: corrupt(images, keys=some_keys(3)).images, (images,))
