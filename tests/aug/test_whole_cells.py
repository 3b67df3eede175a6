"""`Boxes(align=)`: every cell is equally likely, and `whole=True` keeps all of them whole; promises 5 and 6 on a grid."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gmml_aug as ga
from tests.helpers import random_images, some_keys

COUNT = 3000


def cells_of(size: tuple[int, ...], step: int) -> list[int]:
    return [-(-length // step) for length in size]


@settings(max_examples=100, deadline=None)
@given(
    size=st.lists(st.integers(3, 20), min_size=1, max_size=3).map(tuple),
    step=st.integers(1, 3),
    ratio=st.floats(0.0, 1.0),
    placement=st.sampled_from(["wrap", "inside", "origin"]),
    seed=st.integers(0, 1000),
)
def test_every_cell_is_whole_and_the_ratio_is_met_to_the_cell(
    size: tuple[int, ...], step: int, ratio: float, placement: Any, seed: int
) -> None:
    boxes = ga.Boxes(ratio=ratio, side=(0.2, 0.6), align=step, whole=True, placement=placement, dims=len(size))
    mask = ga.InBoxes(boxes, ga.Zeros())(torch.ones(3, 1, *size), keys=some_keys(3, seed)).mask
    share = ga.patch_mask(mask, step)
    assert bool(((share == 0) | (share == 1)).all())
    assert share.flatten(1).sum(1).tolist() == [round(ratio * math.prod(cells_of(size, step)))] * 3


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("ratio", "size"), [(0.1, (48, 48)), (0.5, (48, 48)), (0.3, (44, 50)), ((0.0, 0.4), (48, 32))], ids=str)
def test_every_cell_is_equally_likely(ratio: Any, size: tuple[int, int], whole: bool) -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=ratio, align=8, whole=whole), ga.Zeros())
    hit = corrupt(torch.zeros(COUNT, 1, *size, dtype=torch.uint8), keys=some_keys(COUNT)).mask
    share = ga.patch_mask(hit, 8).double().flatten(1)
    if not whole and (size[0] % 8 or size[1] % 8):
        return  # a smaller cell at the border is met by pixels, too
    z = (share.mean(0) - share.mean()) / (share.std(0) / math.sqrt(COUNT))
    assert float(z.abs().max()) < 4.5


def test_cells_are_touched_whole_but_for_the_one_that_the_ratio_cuts() -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.2, align=8, side=(0.1, 0.3)), ga.Zeros())
    share = ga.patch_mask(corrupt(torch.zeros(200, 1, 64, 64), keys=some_keys(200)).mask, 8)
    partly = ((share > 0) & (share < 1)).flatten(1).sum(1)
    assert int(partly.max()) <= 3  # the last box ends in reading order, which is one row of cells
    count = ga.InBoxes(ga.Boxes(count=(1, 4), align=8), ga.Zeros())
    share = ga.patch_mask(count(torch.zeros(200, 1, 64, 64), keys=some_keys(200)).mask, 8)
    assert bool(((share == 0) | (share == 1)).all())


def test_whole_cells_go_with_everything_else() -> None:
    boxes = ga.Boxes(ratio=(0.1, 0.4), align=4, whole=True)
    images, keys = random_images((6, 3, 30, 30)), some_keys(6)
    corrupt = ga.Chain([ga.InBoxes(boxes, ga.Noise()), ga.InBoxes(boxes, ga.Alien())], budget=0.3)
    out = corrupt(images, keys=keys)
    assert int(out.mask.flatten(1).sum(1).max()) <= 270  # a budget cuts to the pixel
    plan = corrupt.sample(images.shape, keys=keys)
    assert torch.equal(corrupt.apply(images, plan).mask, out.mask)
    corrupt.explain(plan, 0, (3, 3))
    given_shares = ga.InBoxes(boxes, ga.Zeros())(images, keys=keys, ratios=[0.25] * 6).mask
    assert ga.patch_mask(given_shares, 4).flatten(1).sum(1).tolist() == [16] * 6
    padded = ga.InBoxes(ga.Boxes(ratio=0.5, align=4, whole=True), ga.Zeros())(
        images, keys=keys, lengths=[30, 16, 12, 8, 20, 28]
    ).mask
    assert not bool(padded[3, ..., 8:].any())
    assert int(ga.patch_mask(padded[3:4, ..., :8], 4).sum()) == 8
    tubes = ga.Boxes(ratio=0.5, align=(1, 4, 4), whole=True, shared=(0,), dims=3)
    mask = ga.InBoxes(tubes, ga.Zeros())(random_images((2, 1, 3, 16, 16)), keys=keys[:2]).mask
    assert bool((mask == mask[:, :, :1]).all())
    assert ga.patch_mask(mask[:, :, 0], 4).flatten(1).sum(1).tolist() == [8, 8]
    outside = ga.InBoxes(ga.Boxes(ratio=0.25, align=4, whole=True, invert=True), ga.Zeros())(images[..., :16, :16], keys=keys).mask
    assert ga.patch_mask(outside, 4).flatten(1).sum(1).tolist() == [12] * 6
    assert eval(repr(boxes), vars(ga)) == boxes


def test_without_whole_nothing_moves() -> None:
    plain, whole = (ga.InBoxes(ga.Boxes(ratio=0.5, align=1, whole=whole), ga.Zeros()) for whole in (False, True))
    found = [one.sample((8, 3, 20, 30), keys=some_keys(8)).boxes[0] for one in (plain, whole)]
    assert torch.equal(*found)  # pixels are cells
