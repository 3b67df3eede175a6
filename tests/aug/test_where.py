"""Bands and tubes, cells and blocks, outside instead of inside, and what a caller allows and forces."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from gmml_aug.presets import masked as masking

SOME = ga.keys(7, 1, torch.arange(64))


def mask_of(where: Any, *size: int, count: int = 64, fill: ga.Fill | None = None) -> Tensor:
    """(B, *S) bool."""
    corrupt = ga.InBoxes(where, fill or ga.Zeros())
    return corrupt(torch.ones(count, 1, *size), keys=ga.keys(7, 1, torch.arange(count))).mask[:, 0]


@pytest.mark.parametrize("axis", [0, 1])
def test_bands_run_over_the_whole_shared_axis(axis: int) -> None:
    mask = mask_of(ga.Boxes(ratio=0.3, side=(0.02, 0.1), shared=(axis,)), 30, 50)
    line = mask.select(axis + 1, 0)
    assert (mask == line.unsqueeze(axis + 1)).all()
    length = (50, 30)[axis]
    assert (line.sum(1) == round(0.3 * length)).all()  # exact, on the axis that is left
    assert len(line.unique(dim=0)) > 30


def test_tubes_are_the_same_in_every_frame_and_exact() -> None:
    mask = mask_of(ga.Boxes(ratio=0.5, dims=3, shared=(0,)), 4, 17, 23)
    assert (mask == mask[:, :1]).all()
    assert (mask[:, 0].flatten(1).sum(1) == round(0.5 * 17 * 23)).all()
    two = mask_of(ga.Boxes(ratio=0.25, dims=3, shared=(0, 2), side=(0.05, 0.2)), 4, 40, 5)
    assert (two == two[:, :1, :, :1]).all()
    assert (two[:, 0, :, 0].sum(1) == 10).all()


def test_what_is_shared_makes_no_difference_to_what_is_drawn() -> None:
    flat = mask_of(ga.Boxes(ratio=0.4), 20, 31)
    tube = mask_of(ga.Boxes(ratio=0.4, dims=3, shared=(1,)), 20, 6, 31)
    assert torch.equal(tube[:, :, 0], flat)


@pytest.mark.parametrize(
    "where",
    [
        ga.Boxes(ratio=0.3),
        ga.Boxes(count=(1, 4), side=(0.1, 0.6), placement="inside"),
        ga.Cells(size=5, ratio=0.4),
        ga.Blocks(size=4, ratio=0.4, least=4),
    ],
    ids=lambda where: type(where).__name__,
)
def test_outside_is_the_complement(where: Any) -> None:
    from dataclasses import replace

    inside, outside = mask_of(where, 30, 33), mask_of(replace(where, invert=True), 30, 33)
    assert torch.equal(outside, ~inside)


def test_outside_of_no_box_at_all_is_everything() -> None:
    assert mask_of(ga.Boxes(ratio=0.0, invert=True), 9, 11).all()
    dense = ga.InBoxes(ga.Boxes(ratio=0.0, invert=True), ga.Zeros())(torch.ones(2, 1, 9, 11, requires_grad=True), keys=SOME[:2])
    assert dense.mask.all()


@given(
    size=st.integers(1, 9),
    height=st.integers(9, 40),
    width=st.integers(9, 40),
    ratio=st.floats(0.0, 1.0),
)
def test_cells_are_whole_and_exactly_as_many_as_asked(size: int, height: int, width: int, ratio: float) -> None:
    mask = mask_of(ga.Cells(size=size, ratio=ratio), height, width, count=8)
    rows, columns = math.ceil(height / size), math.ceil(width / size)
    share = ga.patch_mask(mask[:, None], patch_size=size)
    assert share.shape[1:] == (rows, columns)
    assert ((share == 0) | (share == 1)).all()
    assert (share.flatten(1).sum(1) == math.ceil(ratio * rows * columns - 1e-6)).all()


def test_a_range_of_cells_is_uniform_over_the_whole_numbers() -> None:
    mask = mask_of(ga.Cells(size=4, ratio=(0.25, 0.5)), 16, 16, count=9000)
    counts = torch.bincount(mask.flatten(1).sum(1) // 16, minlength=17)
    assert counts[:4].sum() == counts[9:].sum() == 0
    assert chi_square(counts[4:9], torch.full((5,), 1800.0)) < 4 + 5 * math.sqrt(8)


def chi_square(found: Tensor, wanted: Tensor) -> float:
    """Its mean is the degrees of freedom n, its standard deviation the root of 2 n."""
    return float(((found - wanted).square() / wanted.clamp(min=1e-9)).sum())


@pytest.mark.parametrize(("rows", "columns"), [(14, 14), (6, 11)])
def test_mae_takes_every_set_of_patches_with_equal_chance(rows: int, columns: int) -> None:
    count = 6000
    out = masking.mae(patch=4)(torch.ones(count, 3, 4 * rows, 4 * columns), keys=ga.keys(3, 0, torch.arange(count)))
    tokens = ga.patch_mask(out.mask, patch_size=4, form="flat").double()
    number = math.ceil(0.75 * rows * columns)
    assert (tokens.sum(1) == number).all()
    share = number / (rows * columns)
    each = (tokens.mean(0) - share) / math.sqrt(share * (1 - share) / count)
    assert each.abs().max() < 5
    assert 0.5 < float(each.square().mean()) < 1.5
    pair = (tokens[:, 0] * tokens[:, 1]).mean()  # a plain draw without replacement
    assert float(pair) == pytest.approx(share * (number - 1) / (rows * columns - 1), abs=5 * 0.5 / math.sqrt(count))


def test_simmim_takes_cells_of_several_patches() -> None:
    out = masking.simmim(cell=8)(torch.ones(500, 3, 48, 40), keys=ga.keys(3, 0, torch.arange(500)))
    share = ga.patch_mask(out.mask, patch_size=4)  # (B, 12, 10) patches
    assert ((share == 0) | (share == 1)).all()
    assert (share.unflatten(1, (6, 2)).unflatten(3, (5, 2)).amax((2, 4)) == ga.patch_mask(out.mask, patch_size=8)).all()
    assert (share.flatten(1).sum(1) == 4 * math.ceil(0.6 * 30)).all()


def blocks_by_hand(rows: int, columns: int, target: int, least: int, chance: random.Random) -> tuple[list[list[bool]], int]:
    """BEiT's rule as a plain loop: the mask, and how many blocks it took."""
    mask = [[False] * columns for _ in range(rows)]
    covered = taken = misses = 0
    while misses < 10:
        left = target - covered
        cells = least + chance.random() * (left - least)
        aspect = math.exp(chance.uniform(math.log(0.3), -math.log(0.3)))
        height, width = round(math.sqrt(max(cells * aspect, 0.25))), round(math.sqrt(max(cells / aspect, 0.25)))
        fits = 1 <= height < rows and 1 <= width < columns
        inside: list[tuple[int, int]] = []
        if fits:
            top, start = chance.randint(0, rows - height), chance.randint(0, columns - width)
            inside = [(r, c) for r in range(top, top + height) for c in range(start, start + width) if not mask[r][c]]
        if not 0 < len(inside) <= left:
            misses += 1
            continue
        misses, covered, taken = 0, covered + len(inside), taken + 1
        for r, c in inside:
            mask[r][c] = True
    return mask, taken


@pytest.mark.parametrize(("rows", "columns", "least"), [(14, 14, 16), (8, 20, 6)])
def test_blocks_are_distributed_as_those_of_a_plain_loop(rows: int, columns: int, least: int) -> None:
    count, chance = 3000, random.Random(5)
    target = math.floor(0.4 * rows * columns + 1e-6)
    plain = [blocks_by_hand(rows, columns, target, least, chance) for _ in range(count)]
    by_hand = torch.tensor([mask for mask, _ in plain])
    corrupt = masking.beit(patch=2, least=least)
    plan = corrupt.sample((count, 3, 2 * rows, 2 * columns), keys=ga.keys(9, 0, torch.arange(count)))
    ours = ga.patch_mask(corrupt.apply(torch.ones(count, 3, 2 * rows, 2 * columns), plan).mask, patch_size=2) == 1
    assert int(ours.flatten(1).sum(1).max()) <= target
    for name, theirs, mine in (
        ("covered", by_hand.flatten(1).sum(1), ours.flatten(1).sum(1)),
        ("rows", by_hand.any(2).sum(1), ours.any(2).sum(1)),
        ("columns", by_hand.any(1).sum(1), ours.any(1).sum(1)),
        ("blocks", torch.tensor([taken for _, taken in plain]), (plan.boxes[0][..., 2] > 0).sum(1)),
    ):
        low = int(min(theirs.min(), mine.min()))
        one, other = torch.bincount(theirs - low).double(), torch.bincount(mine - low).double()
        width = max(len(one), len(other))
        one, other = (torch.nn.functional.pad(some, (0, width - len(some))) for some in (one, other))
        often = one + other >= 20
        degrees = int(often.sum())
        value = float(((one - other).square() / (one + other).clamp(min=1))[often].sum())
        assert value < degrees + 5 * math.sqrt(2 * degrees), name
    gap = (by_hand.double().mean(0) - ours.double().mean(0)).abs().max()
    assert gap < 5 * math.sqrt(2 * 0.25 / count)  # where on the grid


def test_blocks_keep_to_size_and_shape() -> None:
    plan = masking.beit(patch=1).sample((2000, 1, 14, 14), keys=ga.keys(9, 0, torch.arange(2000)))
    height, width = plan.boxes[0][..., 2].flatten(), plan.boxes[0][..., 3].flatten()
    first = plan.boxes[0][:, 0]
    assert ((first[:, 2] == 0) | (first[:, 2] * first[:, 3] >= 12)).all()  # 16 cells, both sides rounded
    real = height > 0
    assert ((height + 0.5) / (width - 0.5))[real].min() >= 0.3  # before both sides were rounded
    assert ((height - 0.5) / (width + 0.5))[real].max() <= 1 / 0.3


def test_ibot_leaves_half_of_the_images_whole_and_draws_the_share() -> None:
    count = 4000
    out = masking.ibot(patch=2)(torch.ones(count, 3, 28, 28), keys=ga.keys(2, 0, torch.arange(count)))
    share = out.mask.double().flatten(1).mean(1)
    touched = share > 0
    assert float(touched.double().mean()) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(count))
    assert float(share.max()) <= 0.5 + 1e-9
    assert float(share[touched].mean()) == pytest.approx(0.29, abs=0.02)
    assert float(share[touched].std()) > 0.08


def test_specaugment_takes_bands_of_both_kinds() -> None:
    out = masking.specaugment(bands=1, frequency=0.2, time=0.1)(torch.ones(400, 1, 80, 200), keys=ga.keys(2, 0, torch.arange(400)))
    mask = out.mask[:, 0]
    lines, columns = mask.all(2), mask.all(1)
    assert torch.equal(mask, lines[:, :, None] | columns[:, None, :])
    assert set(lines.sum(1).tolist()) == set(range(1, 17))
    assert set(columns.sum(1).tolist()) == set(range(1, 21))


def test_tubes_mask_the_same_patches_in_all_frames() -> None:
    mask = masking.tubes(patch=4)(torch.ones(16, 3, 5, 24, 20), keys=SOME[:16]).mask[:, 0]
    assert (mask == mask[:, :1]).all()
    assert (mask[:, 0].flatten(1).sum(1) == 16 * math.ceil(0.9 * 30)).all()


NEW = {
    "cells": ga.InBoxes(ga.Cells(size=3, ratio=(0.2, 0.6)), ga.Noise()),
    "blocks": ga.InBoxes(ga.Blocks(size=3, ratio=0.4, least=3), ga.Alien()),
    "bands": ga.InBoxes(ga.Boxes(ratio=(0.1, 0.5), shared=(0,)), ga.Noise()),
    "outside": ga.InBoxes(ga.Boxes(ratio=0.5, invert=True), ga.Constant(value=(-1.0, 1.0))),
    "budget": ga.Chain(
        [ga.InBoxes(ga.Cells(size=3, ratio=0.5), ga.Noise()), ga.InBoxes(ga.Boxes(ratio=0.4), ga.Zeros())], budget=0.6
    ),
}


@pytest.mark.parametrize("name", NEW)
def test_the_new_places_keep_the_old_promises(name: str) -> None:
    corrupt, images = NEW[name], torch.randn(12, 3, 25, 31)
    keys = SOME[:12]
    before = images.clone()
    out = corrupt(images, keys=keys)
    assert torch.equal(images, before)
    kept = ~out.mask.expand_as(images)
    assert torch.equal(out.images[kept], images[kept])
    dense = corrupt(images.clone().requires_grad_(), keys=keys)  # the other path
    assert torch.equal(dense.mask, out.mask)
    torch.testing.assert_close(dense.images.detach(), out.images, rtol=0, atol=1e-5)
    plan = corrupt.sample(images.shape, keys=keys)
    again = corrupt.apply(images[3:7], plan[3:7], donors=images)
    assert torch.equal(again.images, out.images[3:7])
    assert torch.equal(corrupt.kinds(plan) > 0, out.mask)
    assert eval(repr(corrupt), vars(ga)) == corrupt
    if name == "budget":
        assert (out.mask.flatten(1).sum(1) <= math.floor(0.6 * 25 * 31)).all()


@pytest.mark.parametrize("name", NEW)
def test_the_new_places_compile_in_one_graph(name: str) -> None:
    corrupt, images = NEW[name], torch.randn(4, 3, 25, 31)
    torch._dynamo.reset()
    compiled = torch.compile(lambda images, keys: corrupt(images, keys=keys), fullgraph=True, backend="aot_eager")
    out, eager = compiled(images, SOME[:4]), corrupt(images, keys=SOME[:4])
    assert torch.equal(out.mask, eager.mask)
    torch.testing.assert_close(out.images, eager.images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_nothing_happens_where_it_is_not_allowed(requires_grad: bool) -> None:
    images = torch.randn(8, 3, 20, 20)
    allowed = torch.zeros(8, 1, 20, 20, dtype=torch.bool)
    allowed[:, :, 5:15, 2:18] = True
    corrupt = ga.presets.gmml()
    free = corrupt(images, keys=SOME[:8])
    bound = corrupt(images.clone().requires_grad_(requires_grad), keys=SOME[:8], allowed=allowed)
    assert torch.equal(bound.mask, free.mask & allowed)
    assert torch.equal(bound.images.detach()[:, :, :5], images[:, :, :5])
    one_map = corrupt(images, keys=SOME[:8], allowed=allowed[:1])
    assert torch.equal(one_map.mask, bound.mask)


def test_a_fill_alone_takes_a_mask_of_ones_own() -> None:
    images, mine = torch.randn(5, 3, 12, 14), torch.rand(5, 1, 12, 14) > 0.7
    out = ga.Zeros()(images, allowed=mine)
    assert torch.equal(out.mask, mine)
    assert torch.equal(out.images, images * ~mine)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_the_first_step_that_works_on_an_image_does_what_is_forced(requires_grad: bool) -> None:
    images = torch.randn(64, 3, 20, 20)
    forced = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    forced[..., 3:6, 4:9] = True
    some = ga.Boxes(ratio=0.1)
    corrupt = ga.Chain([ga.InBoxes(some, ga.Constant(value=5.0), p=0.5), ga.InBoxes(some, ga.Constant(value=7.0))])
    plan = corrupt.sample(images.shape, keys=SOME)
    out = corrupt.apply(images.clone().requires_grad_(requires_grad), plan, forced=forced)
    assert out.mask[..., 3:6, 4:9].all()
    free = corrupt.apply(images, plan)
    assert torch.equal(out.mask, free.mask | forced)
    inside = out.images.detach()[:, 0, 3:6, 4:9]
    alone = corrupt.kinds(plan)[:, 0, 3:6, 4:9] == 0  # where no box lies
    wanted = torch.where(plan.active[:, 0], 5.0, 7.0)[:, None, None].expand_as(inside)
    assert torch.equal(inside[alone], wanted[alone])
    kinds = corrupt.kinds(plan, forced=forced)
    assert torch.equal(kinds > 0, out.mask)


def test_what_is_not_allowed_cannot_be_forced() -> None:
    forced, allowed = torch.ones(1, 1, 8, 8, dtype=torch.bool), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    assert not ga.Noise()(torch.randn(3, 1, 8, 8), forced=forced, allowed=allowed).mask.any()


IMAGES = torch.randn(2, 3, 16, 16)
WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "all axes shared": (lambda: ga.Boxes(ratio=0.5, shared=(0, 1)), ValueError, "leave at least one of the 2 free"),
    "an axis twice": (lambda: ga.Boxes(ratio=0.5, dims=3, shared=(0, 0)), ValueError, "distinct axes"),
    "an axis that is not there": (lambda: ga.Cells(size=4, ratio=0.5, shared=(2,)), ValueError, "shared"),
    "shared is no tuple": (lambda: ga.Boxes(ratio=0.5, shared="time"), TypeError, "not a tuple of axes"),  # type: ignore[arg-type]
    "invert is no bool": (lambda: ga.Boxes(ratio=0.5, invert=1), TypeError, "invert=1"),  # type: ignore[arg-type]
    "cells of nothing": (lambda: ga.Cells(size=0, ratio=0.5), ValueError, "size"),
    "more than all cells": (lambda: ga.Cells(size=4, ratio=1.5), ValueError, "ratio"),
    "cells larger than images": (lambda: ga.InBoxes(ga.Cells(size=32, ratio=0.5), ga.Zeros())(IMAGES), ValueError, "too large"),
    "blocks without two cells": (lambda: ga.InBoxes(ga.Blocks(size=16, ratio=0.5), ga.Zeros())(IMAGES), ValueError, "too large"),
    "blocks in a line": (lambda: ga.Blocks(size=4, ratio=0.5, dims=1), ValueError, "a block has two"),
    "blocks in a volume": (lambda: ga.Blocks(size=4, ratio=0.5, dims=3), ValueError, "one shared axis"),
    "an aspect of zero": (lambda: ga.Blocks(size=4, ratio=0.5, aspect=(0.0, 1.0)), ValueError, "aspect"),
    "a budget over outside": (
        lambda: ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.5, invert=True), ga.Noise())], budget=0.5),
        ValueError,
        "corrupts outside its boxes",
    ),
    "a budget over bands and boxes": (
        lambda: ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.5, shared=(0,)), ga.Noise()), ga.Zeros()], budget=0.5),
        ValueError,
        "separate budgets",
    ),
    "ibot beyond nothing": (lambda: masking.ibot(ratio=0.1, spread=0.2), ValueError, "spread"),
    "allowed is no mask": (lambda: ga.Noise()(IMAGES, allowed=IMAGES), TypeError, "allowed must be a bool tensor"),
    "allowed of another size": (
        lambda: ga.Noise()(IMAGES, allowed=torch.ones(2, 1, 8, 8, dtype=torch.bool)),
        ValueError,
        "allowed has shape",
    ),
    "forced per channel": (
        lambda: ga.Noise()(IMAGES, forced=torch.ones(2, 3, 16, 16, dtype=torch.bool)),
        ValueError,
        "forced has shape",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_named(name: str) -> None:
    call, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_the_number_of_cells_says_nothing_about_which_they_are(backend: Any) -> None:
    """They have words of chance of their own."""
    place = ga.Cells(size=4, ratio=(0.2, 0.8))
    corrupt = ga.InBoxes(place, ga.Zeros())
    plan = corrupt.sample((4000, 1, 16, 16), keys=ga.keys(4, 0, range(4000)), backend=backend)
    mask = corrupt.apply(torch.ones(4000, 1, 16, 16), plan, backend=backend).mask[:, 0, ::4, ::4].flatten(1).double()
    count = mask.sum(1)
    for number in count.unique():
        shares = mask[count == number].mean(0)  # of each cell, among images with as many
        images = int((count == number).sum())
        assert float((shares - number / 16).abs().max()) < 5 * 0.5 / math.sqrt(images)
