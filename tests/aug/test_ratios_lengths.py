"""Shares that the caller gives, and the valid parts of padded batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gmml_aug as ga
from gmml_aug.functional import spread_ratios
from tests.helpers import random_images, same_bits, some_keys
from tests.strategies import every_tree, small_sizes

BOXES = ga.Boxes(ratio=(0.0, 0.9))


def shares_of(corrupt: ga.Corruption, ratios: Any, size: tuple[int, ...] = (30, 40)) -> torch.Tensor:
    batch = len(ratios)
    return corrupt(random_images((batch, 3, *size)), keys=some_keys(batch), ratios=ratios).mask.flatten(1).double().mean(1)


def test_each_image_gets_its_own_share_to_the_pixel() -> None:
    wanted = [0.0, 0.1, 0.5, 0.333, 0.9]
    corrupt = ga.InBoxes(BOXES, ga.Noise())
    for given_as in (wanted, torch.tensor(wanted), torch.tensor(wanted, dtype=torch.float64)):
        found = shares_of(corrupt, given_as)
        assert (found * 1200).round().tolist() == [round(ratio * 1200) for ratio in wanted]
    cells = shares_of(ga.InBoxes(ga.Cells(size=5, ratio=0.2), ga.Noise()), wanted)
    assert (cells * 48).round().tolist() == [math.ceil(ratio * 48 - 1e-6) for ratio in wanted]
    blocks = shares_of(ga.InBoxes(ga.Blocks(size=2, ratio=0.2, least=2), ga.Noise()), wanted)
    assert all(found <= ratio + 1e-9 for found, ratio in zip(blocks.tolist(), wanted, strict=True))
    assert float(blocks[4]) > 0.6


def test_what_is_not_a_ratio_is_drawn_as_without() -> None:
    corrupt = ga.Chain(
        [ga.InBoxes(BOXES, ga.Noise(), p=0.5), ga.InBoxes(ga.Boxes(count=(1, 4)), ga.OneOf([ga.Alien(), ga.Blur()]))]
    )
    plain = corrupt.sample((8, 3, 20, 20), keys=some_keys(8))
    given_them = corrupt.sample((8, 3, 20, 20), keys=some_keys(8), ratios=[0.3] * 8)
    assert torch.equal(plain.active, given_them.active)
    assert torch.equal(plain.boxes[1], given_them.boxes[1])
    assert all(
        torch.equal(a, b) for one, other in zip(plain.drawn, given_them.drawn, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_bytes_and_a_plan_take_them_too() -> None:
    corrupt = ga.Chain([ga.InBoxes(BOXES, ga.Noise())], values="unit")
    stored = random_images((4, 3, 20, 20), torch.uint8)
    found = corrupt.from_bytes(stored, keys=some_keys(4), ratios=[0.1, 0.2, 0.3, 0.4])
    assert found.mask.flatten(1).sum(1).tolist() == [40, 80, 120, 160]


RATIOS: dict[str, tuple[Any, type[Exception], str]] = {
    "too few": ([0.1, 0.2], ValueError, r"ratios are .*\(2,\) for 4 images. Give one float for each"),
    "a table": (torch.zeros(4, 1), ValueError, r"ratios are .*\(4, 1\) for 4 images"),
    "above 1": ([0.1, 0.2, 0.3, 1.1], ValueError, r"Allowed: 0 to 1"),
    "below 0": ([0.1, 0.2, 0.3, -0.1], ValueError, r"Allowed: 0 to 1"),
    "not a number": (torch.tensor([0.1, 0.2, 0.3, math.nan]), ValueError, r"Allowed: 0 to 1"),
    "more than boxes": (
        [0.1, 0.2, 0.3, 0.95],
        ValueError,
        r"ratios reach 0.95, but Boxes\(.*draws only enough boxes for 0.9.*ratio=\(0.9, 0.95\)",
    ),
    "integers": (torch.tensor([1, 0, 1, 0]), ValueError, r"ratios are torch.int64"),
    "words": (["a"] * 4, TypeError, r"ratios='a' is not a number"),
    "one number": (0.5, TypeError, r"ratios=0.5 is neither a tensor nor a list"),
}


@pytest.mark.parametrize("name", RATIOS)
def test_wrong_ratios_are_errors_before_any_work(name: str) -> None:
    ratios, kind, says = RATIOS[name]
    state = torch.get_rng_state()
    for call in (
        lambda: ga.InBoxes(BOXES, ga.Noise())(random_images((4, 3, 9, 9)), ratios=ratios),
        lambda: ga.InBoxes(BOXES, ga.Noise()).sample((4, 3, 9, 9), ratios=ratios),
    ):
        with pytest.raises(kind, match=says):
            call()
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="no place here has a ratio"):
        ga.InBoxes(ga.Boxes(count=1), ga.Noise())(random_images((4, 3, 9, 9)), ratios=[0.1] * 4)


@settings(max_examples=50)
@given(count=st.integers(1, 70), low=st.floats(0, 0.5), more=st.floats(0, 0.5), share=st.floats(0, 1), seed=st.integers(0, 1 << 20))
def test_spread_ratios_lie_one_in_each_part(count: int, low: float, more: float, share: float, seed: int) -> None:
    high = low + more
    found = spread_ratios(count, low, high, share=share, keys=some_keys(count, seed))
    some = int(share * count + 1e-6)
    assert found.shape == (count,)
    masked = found.sort().values[count - some :]
    assert int((found > 0).sum()) <= some
    for number, ratio in enumerate(masked.tolist()):
        edges = [low + (high - low) * (number + side) / some for side in (0, 1)]
        assert edges[0] - 1e-9 <= ratio <= edges[1] + 1e-9
    assert torch.equal(found, spread_ratios(count, low, high, share=share, keys=some_keys(count, seed)))


def test_spread_ratios_are_dealt_out_by_chance() -> None:
    total = torch.zeros(12, dtype=torch.float64)
    for seed in range(400):
        total += spread_ratios(12, 0.1, 0.5, share=0.5, generator=torch.Generator().manual_seed(seed))
    mean = total / 400
    assert float((mean - 0.15).abs().max()) < 5 * 0.17 / math.sqrt(400)  # half get 0.3 on average, the others nothing
    with pytest.raises(ValueError, match="both keys and a generator"):
        spread_ratios(3, 0.1, 0.5, keys=some_keys(3), generator=torch.Generator())
    with pytest.raises(ValueError, match=r"high=0.1 is out of range. Allowed: a finite number, 0.5 to 1.0"):
        spread_ratios(3, 0.5, 0.1)


def test_dinov2_masks_half_of_a_batch_over_a_spread_of_shares() -> None:
    images, corrupt = torch.ones(40, 3, 112, 112), ga.presets.dinov2(patch=4, p=1.0)
    ratios = spread_ratios(40, 0.1, 0.5, share=0.5, keys=some_keys(40))
    share = corrupt(images, keys=some_keys(40), ratios=ratios).mask.double().flatten(1).mean(1)
    assert int((share > 0).sum()) == 20
    assert (share <= ratios + 1e-9).all()
    assert float((ratios - share)[ratios > 0].mean()) < 0.02


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data(), dims=st.integers(1, 3), seed=st.integers(0, 999))
def test_a_padded_image_is_corrupted_as_without_its_padding(data: st.DataObject, dims: int, seed: int) -> None:
    size = data.draw(small_sizes(dims=dims, least=6))
    tree = data.draw(every_tree(dims=dims))
    lengths = [[data.draw(st.integers(4, length)) for length in size] for _ in range(3)]
    keys = some_keys(3, seed)
    whole = tree.sample((3, 3, *size), keys=keys, lengths=lengths)
    mask = tree.kinds(whole)
    for image, valid in enumerate(lengths):
        inside = (slice(None), slice(None), *(slice(length) for length in valid))
        alone = tree.kinds(tree.sample((3, 3, *valid), keys=keys))
        assert torch.equal(mask[image : image + 1][inside], alone[image : image + 1])
        outside = mask[image : image + 1].clone()
        outside[inside] = 0
        assert not outside.any()


def test_lengths_of_the_last_axis_in_a_call() -> None:
    images, keys = random_images((3, 1, 40, 100)), some_keys(3)
    corrupt = ga.presets.specaugment()
    lengths = [100, 61, 20]
    for given_as in (lengths, torch.tensor(lengths), [[40, length] for length in lengths]):
        found = corrupt(images, keys=keys, lengths=given_as)
        for image, length in enumerate(lengths):
            alone = corrupt(images[image : image + 1, :, :, :length], keys=keys[image : image + 1])
            assert same_bits(found.images[image : image + 1, :, :, :length].contiguous(), alone.images.contiguous())
            assert same_bits(found.images[image, :, :, length:].contiguous(), images[image, :, :, length:].contiguous())


LENGTHS: dict[str, tuple[Any, type[Exception], str]] = {
    "too few": ([9, 9], ValueError, r"got 2 lengths for 4 images"),
    "beyond the axis": ([9, 9, 9, 10], ValueError, r"lengths=10 is out of range. Allowed: 1 to 9"),
    "nothing left": ([9, 9, 9, 0], ValueError, r"lengths=0 is out of range"),
    "floats": ([9.0] * 4, TypeError, r"lengths=9.0 is not an integer"),
    "three for two axes": ([[9, 9, 9]] * 4, ValueError, r"lengths=\[9, 9, 9\] for 2 spatial axes. Give one number.*or 2"),
    "shorter than a cell": ([9, 9, 9, 3], ValueError, r"Cells: size=4 is too large.*\(9, 3\)"),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_wrong_lengths_are_errors_before_any_work(name: str) -> None:
    lengths, kind, says = LENGTHS[name]
    state = torch.get_rng_state()
    with pytest.raises(kind, match=says):
        ga.InBoxes(ga.Cells(size=4, ratio=0.5), ga.Noise())(random_images((4, 3, 9, 9)), lengths=lengths)
    assert torch.equal(torch.get_rng_state(), state)


def test_kept_and_masked_patches_are_lists_of_equal_length() -> None:
    mask = ga.presets.mae(patch=4)(random_images((5, 3, 24, 16)), keys=some_keys(5)).mask
    kept, masked = ga.patch_mask(mask, 4, form="index")
    flat = ga.patch_mask(mask, 4, form="flat")
    assert kept.shape == (5, 6)
    assert masked.shape == (5, 18)
    assert not flat.gather(1, kept).any()
    assert flat.gather(1, masked).all()
    for one in (kept, masked):
        assert (one.diff(dim=1) > 0).all()  # reading order
    assert torch.equal(torch.cat([kept, masked], 1).sort().values, torch.arange(24).expand(5, 24))
    with pytest.raises(ValueError, match=r"images have \d+ to \d+ masked patches.*mae, simmim, tubes.*form='flat'"):
        ga.patch_mask(ga.presets.gmml()(random_images((5, 3, 24, 16)), keys=some_keys(5)).mask, 4, form="index")


def test_boxes_that_cross_the_end_of_the_valid_part_continue_at_its_other_end() -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.6, side=(0.3, 0.6)), ga.Zeros())
    lengths, keys = [(7, 30), (20, 11), (13, 17), (20, 30)], some_keys(4)
    for backend in ("auto", "reference"):
        mask = corrupt(random_images((4, 2, 20, 30)), keys=keys, lengths=lengths, backend=backend).mask
        for image, (height, width) in enumerate(lengths):
            alone = corrupt(random_images((1, 2, height, width)), keys=keys[image : image + 1]).mask[0, 0]
            assert torch.equal(mask[image, 0, :height, :width], alone)
            assert int(mask[image].sum()) == int(alone.sum()) == round(0.6 * height * width)


def test_shares_are_of_the_valid_part_of_each_image() -> None:
    corrupt = ga.InBoxes(BOXES, ga.Zeros())
    lengths, ratios = [30, 11, 20, 17], [0.1, 0.9, 0.5, 0.3]
    mask = corrupt(random_images((4, 2, 20, 30)), keys=some_keys(4), lengths=lengths, ratios=ratios).mask
    assert mask.flatten(1).sum(1).tolist() == [round(ratio * 20 * length) for ratio, length in zip(ratios, lengths, strict=True)]
