"""Numbers at their edges: NaN, half precision, sizes beyond 32 bits, weights and thresholds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import gmml_aug as ga
from gmml_aug.chance import below, stream, words
from gmml_aug.colours import average, deviation
from tests.helpers import FLOATS, random_images, same_bits, some_keys

NAN = math.nan
KEYS = some_keys(2)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "fill",
    [ga.Mean(), ga.Noise(distribution="matched"), ga.Jitter(contrast=0.4), ga.Grey(), ga.Noise(), ga.Alien(), ga.Shuffle()],
    ids=repr,
)
def test_a_nan_outside_the_boxes_stays_where_it_is(fill: ga.Corruption, dtype: torch.dtype, backend: Any) -> None:
    images = random_images((2, 3, 32, 32)).sigmoid().to(dtype)
    corner = images.clone()
    corner[0, :, 0, 0] = NAN
    allowed = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    allowed[..., :4, :4] = False
    chain = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.4), fill)], values="unit")
    found = chain(corner, keys=KEYS, allowed=allowed, backend=backend)
    own = found.mask[0] & ~found.images[0].isnan().any(0)
    assert torch.equal(own, found.mask[0]) or isinstance(fill, ga.Alien | ga.Shuffle)  # these may take the NaN itself along
    assert int(found.images[0].isnan().any(0).sum()) <= 2
    if isinstance(fill, ga.Mean):
        wanted = corner[0].flatten(1)[:, 1:].float().mean(1).to(dtype).float()
        assert torch.allclose(
            found.images[0][:, found.mask[0, 0]].float(), wanted[:, None], atol=8e-3 if dtype == torch.bfloat16 else 1e-3
        )
    # nor does it move a bit of the other image
    assert same_bits(found.images[1], chain(images, keys=KEYS, allowed=allowed, backend=backend).images[1])


def test_a_nan_is_left_out_of_averages_and_their_derivatives() -> None:
    images = random_images((2, 3, 7, 9)).double()
    mean = average(images)
    assert same_bits(mean, images.flatten(2).mean(2))  # without one nothing moves
    holes = images.clone()
    holes[0, 1, 2, 3] = holes[0, 1, 0, :] = NAN
    kept = ~holes[0, 1].isnan()
    assert torch.allclose(average(holes)[0, 1], holes[0, 1][kept].mean())
    assert torch.allclose(deviation(holes, average(holes))[0, 1], holes[0, 1][kept].std(correction=0))
    assert torch.equal(average(holes)[1], mean[1])
    assert average(torch.full((1, 1, 2, 2), NAN)).isnan().all()
    holes.requires_grad_()
    average(holes)[0, 1].backward()
    assert holes.grad is not None
    assert torch.allclose(holes.grad[0, 1][kept], torch.tensor(1 / int(kept.sum()), dtype=torch.float64))


def test_a_nan_under_a_blur_reaches_as_far_as_its_kernel() -> None:
    images = torch.rand(1, 1, 33, 33)
    images[..., 16, 16] = NAN
    blurred = ga.Blur(sigma=3.0, kernel=9)(images, keys=KEYS[:1]).images.isnan()[0, 0]
    assert int(blurred.sum()) == 81
    assert bool(blurred[12:21, 12:21].all())


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_uniform_noise_stays_between_0_and_1_in_every_precision(dtype: torch.dtype, backend: Any) -> None:
    images = torch.zeros(16, 3, 128, 128, dtype=dtype)
    for noise in (ga.Noise(), ga.Noise(distribution="uniform", per="pixel")):
        found = ga.Chain([noise], values="unit")(images, keys=some_keys(16), backend=backend).images.double()
        assert float(found.min()) > 0.0
        assert float(found.max()) < 1.0
        assert abs(float(found.mean()) - 0.5) < 3e-3


def test_draws_of_64_bits_are_exact() -> None:
    word = words(some_keys(500), 4).flatten()
    for span in (1, 1000, (1 << 31) - 1, 1 << 31, 5**14, (1 << 46) - 1):
        unsigned = [number % (1 << 64) for number in word.tolist()]
        wanted = (
            [(number >> 32) * span >> 32 for number in unsigned] if span < 1 << 31 else [number * span >> 64 for number in unsigned]
        )
        assert below(word, span).tolist() == wanted


@pytest.mark.parametrize("side", [1600, 1900, 2048, 4096])
@pytest.mark.parametrize("high", [0.35, 1.0])
def test_shares_of_images_beyond_32_bits_are_uniform(side: int, high: float) -> None:
    size = (side,) * 3
    boxes = ga.Boxes(ratio=(0.0, high), dims=3, side=(0.2, 0.5))
    target = boxes.target(words(stream(some_keys(20_000), 1), 1), size)
    assert target is not None
    share = target.double() / math.prod(size) / high
    assert 0.0 <= float(share.min()) < 1e-3
    assert 1.0 - 1e-3 < float(share.max()) <= 1.0
    assert abs(float(share.mean()) - 0.5) < 6 / math.sqrt(12 * 20_000)


def test_a_plan_of_images_beyond_32_bits_covers_its_share() -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.25, dims=3, side=(0.2, 0.5)), ga.Shuffle())
    plan = corrupt.sample((4, 1, 2048, 2048, 2048), keys=some_keys(4))
    assert bool((plan.boxes[0][..., 3:].long().prod(-1).sum(1) >= 2048**3 // 4).all())
    assert bool((plan.drawn[0][0] >= 0).all())
    assert bool((plan.drawn[0][0] < 2048).all())


def test_sizes_beyond_what_plans_hold_are_refused_by_name() -> None:
    signal = ga.InBoxes(ga.Boxes(ratio=0.5, dims=1), ga.Noise())
    volume = ga.InBoxes(ga.Boxes(ratio=0.5, dims=3), ga.Noise())
    for corrupt, shape in ((signal, (1, 1, 1 << 31)), (volume, (1, 1, 1 << 16, 1 << 16, 1 << 16))):
        with pytest.raises(ValueError, match=r"gmml_aug: images have shape .*below 2\*\*31.*Cut them into tiles"):
            corrupt.sample(shape)


def test_weights_whose_sum_overflows_keep_their_shares() -> None:
    fills = [ga.Noise(), ga.Zeros(), ga.Mean()]
    for weights in ([1e308, 1e308], [1.7e308, 1.7e308, 1.7e308], [1e-320, 1e-320]):
        choice = ga.OneOf(fills[: len(weights)], weights=weights)
        share = choice.sample((4000, 1, 4, 4), keys=some_keys(4000)).active.double().mean(0)
        assert float((share - 1 / len(weights)).abs().max()) < 0.04
    plain = [ga.OneOf(fills, weights=weights).program.fingerprint for weights in ([1, 2, 3], [1.0, 2.0, 3.0])]
    assert plain[0] == plain[1]


@pytest.mark.parametrize("side", [7, 1024, 3000])
def test_a_threshold_of_patches_is_met_to_the_pixel(side: int) -> None:
    mask = torch.ones(1, 1, side, side, dtype=torch.bool)
    assert bool(ga.patch_mask(mask, side, form="bool", threshold=1.0))
    mask[..., 0, 0] = False
    assert not bool(ga.patch_mask(mask, side, form="bool", threshold=1.0))
    half = side * side // 2 + side * side % 2
    for count, wanted in ((half - 1, False), (half, True)):
        mask = (torch.arange(side * side) < count).view(1, 1, side, side)
        assert bool(ga.patch_mask(mask, side, form="bool")) is wanted
    for tenths in range(1, 11):  # of floats that are a little more or less than what they say
        mask = (torch.arange(10) < tenths).view(1, 1, 10)
        assert bool(ga.patch_mask(mask, 10, form="bool", threshold=tenths / 10))
        assert bool(ga.patch_mask(mask, 10, form="bool", threshold=sum([0.1] * tenths)))
