"""Where boxes fall: sides, counts, grids, placements, and stops and trims against a painter of single pixels."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from gmml_aug.backends.reference.masks import boxes_to_mask
from tests.helpers import chi_square_z, kinds_slowly, raw_boxes, sampled_both_ways, some_keys, z_of_mean
from tests.strategies import any_boxes, small_sizes


def target_of(boxes: ga.Boxes, size: tuple[int, ...], count: int, seed: int = 0) -> Tensor:
    """(count,) the number of pixels that each of ``count`` images draws."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(-(1 << 63), (1 << 63) - 1, (count, boxes.words((64,))), generator=generator)
    target = boxes.target(words, size)
    assert target is not None
    return target


@pytest.mark.parametrize("placement", ["wrap", "inside"])
@pytest.mark.parametrize(("size", "side"), [((96, 60), (0.05, 0.25)), ((50,), (0.0, 0.3)), ((30, 20, 24), (0.1, 0.5))], ids=str)
def test_sides_are_uniform_with_both_ends_included(
    size: tuple[int, ...], side: tuple[float, float], placement: Literal["wrap", "inside"]
) -> None:
    dims = len(size)
    boxes = raw_boxes(ga.Boxes(count=10, side=side, placement=placement, dims=dims), size, 4000)
    for axis, length in enumerate(size):
        least, most = max(round(side[0] * length), 1), round(side[1] * length)
        sides = boxes[..., dims + axis].flatten()
        assert (int(sides.min()), int(sides.max())) == (least, most)
        assert chi_square_z(torch.bincount(sides - least)) < 5


def test_side_and_start_are_independent_and_axes_are_too() -> None:
    boxes = raw_boxes(ga.Boxes(count=10, side=(0.1, 0.6)), (16, 16), 8000).flatten(0, 1)
    row, column, height, width = boxes.unbind(1)
    for one, other in [(row, height - 2), (row, column), (height - 2, width - 2), (column, height - 2)]:
        counts = torch.bincount(one * 16 + other, minlength=256).reshape(16, 16)
        assert chi_square_z(counts[counts.sum(1) > 0][:, counts.sum(0) > 0].flatten()) < 5


def test_boxes_of_one_image_are_independent_of_each_other() -> None:
    start = raw_boxes(ga.Boxes(count=12, side=0.2), (12, 12), 20_000)[..., 0]
    for later in range(1, 12):
        assert chi_square_z(torch.bincount(start[:, 0] * 12 + start[:, later], minlength=144)) < 5


@pytest.mark.parametrize(
    ("ratio", "size", "least", "most"),
    [
        ((0.1, 0.2), (10, 13), 13, 26),
        ((0.07, 0.29), (10, 10), 7, 29),  # 0.07 * 100 lies above 7 and 0.29 * 100 below 29 in floats
        ((0.0, 0.35), (9, 9), 0, 28),
        ((0.101, 0.199), (100,), 11, 19),
        ((0.0, 1.0), (3, 4, 5), 0, 60),
    ],
    ids=str,
)
def test_a_ratio_range_draws_whole_pixels_uniformly(
    ratio: tuple[float, float], size: tuple[int, ...], least: int, most: int
) -> None:
    target = target_of(ga.Boxes(ratio=ratio, dims=len(size)), size, 20_000)
    assert (int(target.min()), int(target.max())) == (least, most)
    assert chi_square_z(torch.bincount(target - least)) < 5


def test_a_range_without_a_whole_pixel_takes_the_nearest() -> None:
    assert target_of(ga.Boxes(ratio=(0.31, 0.32)), (2, 5), 50).unique().tolist() == [3]
    assert target_of(ga.Boxes(ratio=(0.36, 0.39)), (2, 5), 50).unique().tolist() == [4]


@pytest.mark.parametrize(
    ("ratio", "pixels"), [(0.29, 29), (0.07, 7), (0.005, 0), (0.016, 2), (1.0, 100), ((0.3, 0.3), 30)], ids=str
)
def test_a_fixed_ratio_is_rounded_to_the_nearest_pixel(ratio: float | tuple[float, float], pixels: int) -> None:
    assert target_of(ga.Boxes(ratio=ratio), (10, 10), 5).unique().tolist() == [pixels]


def test_counts_are_uniform_and_unused_boxes_have_no_size() -> None:
    used = raw_boxes(ga.Boxes(count=(2, 5), side=0.3), (40, 40), 20_000)[..., 2:].prod(-1) > 0
    assert not (used[:, 1:] & ~used[:, :-1]).any()
    numbers = torch.bincount(used.sum(1), minlength=6)
    assert numbers[:2].sum() == 0
    assert chi_square_z(numbers[2:]) < 5
    assert (raw_boxes(ga.Boxes(count=3, side=0.3), (40, 40), 200)[..., 2:] == 12).all()


@pytest.mark.parametrize("placement", ["wrap", "inside", "origin"])
@pytest.mark.parametrize("size", [(37, 50), (48, 48), (21,), (13, 9, 10)], ids=str)
def test_align_keeps_every_edge_on_the_grid(size: tuple[int, ...], placement: Literal["wrap", "inside", "origin"]) -> None:
    align, dims = 4, len(size)
    boxes = ga.Boxes(count=2, side=(0.1, 0.6), align=align, placement=placement, dims=dims)
    drawn = raw_boxes(boxes, size, 500).flatten(0, 1)
    for axis, length in enumerate(size):
        start, extent = drawn[:, axis], drawn[:, dims + axis]
        end = start + extent
        assert (start % align == 0).all()
        assert ((start >= 0) & (start < length) & (extent >= 1) & (extent <= length)).all()
        on_grid = (end % align == 0) & (end <= length) | (end == length) | ((end - length) % align == 0) & (end > length)
        assert on_grid.all()
        assert placement == "wrap" or (end <= length).all()
    mask = boxes_to_mask(drawn[:, None], size)
    share = ga.patch_mask(mask, align)
    assert ((share == 0) | (share == 1)).all()


def test_with_align_only_the_trimmed_last_box_leaves_the_grid() -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.45, side=(0.1, 0.5), align=8), ga.Zeros())
    plan = corrupt.sample((300, 1, 43, 50), keys=some_keys(300))
    for boxes in plan.boxes[0]:
        used = boxes[boxes[:, 2] > 0]
        whole = used[:-2] if len(used) > 2 else used[:0]  # a cut box is two boxes at most
        start, end = whole[:, :2], whole[:, :2] + whole[:, 2:]
        size = torch.tensor([43, 50])
        assert (start % 8 == 0).all()
        assert ((end % 8 == 0) & (end <= size) | (end == size) | ((end - size) % 8 == 0) & (end > size)).all()


def test_wrap_places_starts_uniformly_and_inside_keeps_boxes_whole() -> None:
    boxes = raw_boxes(ga.Boxes(count=5, side=(0.1, 0.5)), (20, 30), 8000)
    assert chi_square_z(torch.bincount(boxes[..., 0].flatten())) < 5
    assert chi_square_z(torch.bincount(boxes[..., 1].flatten())) < 5
    boxes = raw_boxes(ga.Boxes(count=5, side=(0.1, 0.5), placement="inside"), (20, 30), 20_000).flatten(0, 1)
    assert (boxes[:, :2] + boxes[:, 2:] <= torch.tensor([20, 30])).all()
    for height in range(2, 11):
        rows = torch.bincount(boxes[boxes[:, 2] == height, 0])
        assert len(rows) == 20 - height + 1
        assert chi_square_z(rows) < 5


@pytest.mark.parametrize("align", [1, 4])
@pytest.mark.parametrize("side", [(0.0, 0.3), (0.1, 0.55), (0.5, 0.5)], ids=str)
def test_origin_is_the_rule_of_the_release(side: tuple[float, float], align: int) -> None:
    length, count = 32, 20_000
    drawn = raw_boxes(ga.Boxes(count=1, side=side, align=align, placement="origin", dims=1), (length,), count)
    covered = boxes_to_mask(drawn, (length,))[:, 0].double()
    # every corner and every side of the rule, one after the other
    least = max(round(side[0] * length), align)
    sides = range(least, max(round(side[1] * length), least + 1))
    chance = torch.zeros(length, dtype=torch.float64)
    for corner in range(length - align):
        for extent in sides:
            snapped = max((extent + align // 2) // align * align, align)
            low = corner // align * align
            chance[low : min(low + snapped, length)] += 1.0 / ((length - align) * len(sides))
    assert covered[:, chance == 0].sum() == 0
    assert (z_of_mean(covered, chance)[chance > 0].abs() < 5).all()


ORACLE: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((150,), {"ratio": 0.35}),
    ((300,), {"ratio": 0.9, "side": (0.02, 0.06)}),
    ((40, 31), {"ratio": 0.35}),
    ((40, 31), {"ratio": (0.0, 0.35), "side": (0.05, 0.25)}),
    ((20, 23), {"ratio": 0.9}),
    ((140, 9), {"ratio": 0.5, "side": (0.05, 0.25)}),
    ((300, 10), {"ratio": 0.75, "side": (0.05, 0.25)}),
    ((5, 300), {"ratio": 0.35, "side": (0.05, 0.1)}),
    ((24, 24), {"ratio": 0.97, "side": (0.05, 0.15)}),
    ((16, 16), {"ratio": 1.0, "side": (0.1, 0.3)}),
    ((9, 10, 11), {"ratio": 0.35}),
    ((140, 3, 4), {"ratio": 0.3, "side": (0.1, 0.4)}),
    ((8, 8, 8), {"ratio": 0.7, "side": (0.1, 0.3)}),
    ((1, 1), {"ratio": 1.0}),
    ((1, 37), {"ratio": 0.4}),
    ((40, 31), {"ratio": 0.5, "align": 8}),
]


@pytest.mark.parametrize("placement", ["wrap", "inside", "origin"])
@pytest.mark.parametrize("overshoot", [False, True], ids=["trimmed", "overshoot"])
@pytest.mark.parametrize(("size", "options"), ORACLE, ids=str)
def test_stop_and_trim_are_those_of_a_sequential_painter(
    size: tuple[int, ...], options: dict[str, Any], overshoot: bool, placement: Literal["wrap", "inside", "origin"]
) -> None:
    if options.get("align", 1) > min(size):
        pytest.skip("the grid is coarser than the image")
    corrupt = ga.InBoxes(ga.Boxes(dims=len(size), overshoot=overshoot, placement=placement, **options), ga.Zeros())
    plan = sampled_both_ways(corrupt, (6, 1, *size), some_keys(6, 7))
    assert torch.equal(corrupt.kinds(plan), kinds_slowly(corrupt, plan, size))


def test_the_painter_is_followed_beyond_one_and_two_words_of_boxes() -> None:
    numbers = set()
    for size, options in ORACLE:
        numbers.add(ga.Boxes(dims=len(size), **options).most // 63)
    assert {0, 1, 2} <= numbers


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), dims=st.integers(1, 3), seed=st.integers(0, 1 << 20))
def test_any_boxes_in_any_image_are_those_of_a_sequential_painter(data: st.DataObject, dims: int, seed: int) -> None:
    size = data.draw(small_sizes(dims=dims))
    boxes = data.draw(any_boxes(dims=dims, align=min(*size, 4)) if dims > 1 else any_boxes(dims=1, align=min(size[0], 4)))
    corrupt = ga.InBoxes(boxes, ga.Zeros())
    plan = sampled_both_ways(corrupt, (3, 1, *size), some_keys(3, seed))
    assert torch.equal(corrupt.kinds(plan), kinds_slowly(corrupt, plan, size))


@pytest.mark.parametrize("placement", ["wrap", "inside", "origin"])
@pytest.mark.parametrize("size", [(31,), (14, 15), (6, 7, 8)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 30, 70])
def test_counted_boxes_are_painted_whole(count: int, size: tuple[int, ...], placement: Literal["wrap", "inside", "origin"]) -> None:
    corrupt = ga.InBoxes(ga.Boxes(count=count, side=(0.1, 1.0), placement=placement, dims=len(size)), ga.Zeros())
    plan = corrupt.sample((10, 1, *size), keys=some_keys(10))
    wanted = kinds_slowly(corrupt, plan, size)
    assert torch.equal(corrupt.kinds(plan), wanted)
    assert torch.equal(corrupt.apply(torch.ones(10, 1, *size), plan).mask, wanted > 0)


@pytest.mark.parametrize("words", [1, 2, 3])
@pytest.mark.parametrize("dims", [1, 2])
def test_lists_that_fill_their_words_exactly_work_in_large_images(words: int, dims: int) -> None:
    side = (0.01, 0.03) if dims == 1 else (0.05, 0.25)
    fitting = (ga.Boxes(ratio=share / 1000, side=side, dims=dims) for share in range(100, 1000))
    boxes = next(b for b in fitting if b.most + 1 == 63 * words)
    size = (1000,) if dims == 1 else (400, 402)
    plan = ga.InBoxes(boxes, ga.Zeros()).sample((300, 1, *size), keys=some_keys(300))
    assert isinstance(boxes.ratio, float)
    for low in range(0, 300, 50):
        covered = boxes_to_mask(plan.boxes[0][low : low + 50], size).flatten(1).sum(1)
        assert covered.unique().tolist() == [round(boxes.ratio * math.prod(size))]


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((64, 64), {"ratio": 0.02}),
        ((64, 64), {"ratio": 0.35}),
        ((64, 64), {"ratio": 0.7}),
        ((64, 64), {"ratio": 0.95}),
        ((64, 64), {"ratio": 0.35, "side": (0.05, 0.1)}),
        ((64, 64), {"ratio": 0.7, "placement": "inside"}),
        ((64, 64), {"ratio": 0.7, "placement": "origin", "side": (0.0, 0.3)}),
        ((200,), {"ratio": 0.35}),
        ((200,), {"ratio": 0.9}),
        ((16, 16, 16), {"ratio": 0.35}),
    ],
    ids=str,
)
def test_the_list_of_boxes_is_long_enough_for_almost_every_image(size: tuple[int, ...], options: dict[str, Any]) -> None:
    boxes = ga.Boxes(dims=len(size), **options)
    plan = ga.InBoxes(boxes, ga.Zeros()).sample((2000, 1, *size), keys=some_keys(2000))
    ran_out = (plan.boxes[0][:, boxes.most :, len(size)] > 0).any(1)
    assert ran_out.float().mean() < 0.005


def test_overshoot_ends_with_the_whole_box_that_passes_the_ratio() -> None:
    size = (30, 30)
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.4, side=(0.1, 0.4), overshoot=True), ga.Zeros())
    boxes = corrupt.sample((400, 1, *size), keys=some_keys(400)).boxes[0]
    area = boxes_to_mask(boxes, size).flatten(1).sum(1)
    used = (boxes[..., 2] > 0).sum(1)
    shorter = boxes.clone()
    shorter[torch.arange(400), used - 1] = 0
    assert (area >= 360).all()
    assert (boxes_to_mask(shorter, size).flatten(1).sum(1) < 360).all()
    assert area.unique().numel() > 20
    assert (boxes[boxes[..., 2] > 0][:, 2:] >= 3).all()
