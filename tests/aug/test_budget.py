"""Promise 4: what replacing steps touch together stays within every budget around them, and `kinds` says who did what."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from tests.helpers import kinds_slowly, random_images, sampled_both_ways, some_keys
from tests.strategies import small_sizes, trees

HALF = ga.Boxes(ratio=0.5)


def layers(tree: ga.Chain, plan: ga.Plan) -> list[Tensor]:
    """(B, *S) bool per step: what it touched on its own."""
    images = torch.zeros(len(plan), *plan.shape, device=plan.keys.device)
    return [tree.apply(images, plan.only(number)).mask[:, 0] for number in range(len(tree.program.steps))]


@pytest.mark.parametrize("size", [(32, 32), (41, 30), (224, 224), (90,), (9, 10, 11)], ids=str)
@pytest.mark.parametrize("budget", [0.0, 0.3, 0.6, 0.619, 1.0])
def test_the_union_of_replacing_steps_stays_within_the_budget(size: tuple[int, ...], budget: float, device: torch.device) -> None:
    boxes = ga.Boxes(ratio=(0.2, 0.5), dims=len(size))
    tree = ga.Chain([ga.InBoxes(boxes, ga.Noise()), ga.InBoxes(boxes, ga.Alien()), ga.InBoxes(boxes, ga.Zeros())], budget=budget)
    count = 8 if size == (224, 224) else 100
    plan = tree.sample((count, 1, *size), keys=some_keys(count).to(device))
    used = tree.kinds(plan).gt(0).flatten(1).sum(1)
    limit = math.floor(budget * math.prod(size) + 1e-6)
    assert int(used.max()) <= limit
    assert 0.3 <= budget <= 0.619 or bool((used <= limit).all())
    assert budget > 0.3 or bool((used == limit).any())


def test_a_budget_is_met_to_the_pixel_and_the_later_step_gives_way(generator: torch.Generator) -> None:
    tree = ga.Chain([ga.InBoxes(HALF, ga.Noise()), ga.InBoxes(HALF, ga.Zeros()), ga.InBoxes(HALF, ga.Constant())], budget=0.6)
    plan = tree.sample((200, 1, 30, 31), generator=generator)
    first, second, third = (layer.flatten(1).sum(1) for layer in layers(tree, plan))
    assert (first == 465).all()
    assert (tree.kinds(plan).gt(0).flatten(1).sum(1) == 558).all()
    assert (second >= 93).all()
    assert (third == 0).all()


def test_a_step_ends_with_the_pixel_that_uses_up_the_room() -> None:
    tree = ga.Chain([ga.InBoxes(HALF, ga.Noise()), ga.InBoxes(HALF, ga.Zeros())], budget=0.6)
    size = (20, 22)
    plan = tree.sample((40, 1, *size), keys=some_keys(40))
    first, second = layers(tree, plan)
    for image, boxes in enumerate(plan.boxes[1].tolist()):
        last = [box for box in boxes if box[2] > 0][-1]
        row, column, height, width = last
        corner = (row + height - 1) % size[0], (column + width - 1) % size[1]
        assert second[image, corner[0], corner[1]]
        assert not first[image, corner[0], corner[1]]


def test_pixels_of_earlier_steps_count_for_the_ratio_of_a_step(generator: torch.Generator) -> None:
    tree = ga.Chain([ga.InBoxes(HALF, ga.Noise()), ga.InBoxes(HALF, ga.Zeros())])
    plan = tree.sample((100, 1, 30, 30), generator=generator)
    first, second = layers(tree, plan)
    assert (first.flatten(1).sum(1) == 450).all()
    assert (second.flatten(1).sum(1) == 450).all()
    assert (first & second).flatten(1).any(1).all()


def test_grey_and_blur_do_not_count_and_are_not_cut() -> None:
    big = ga.Boxes(count=1, side=0.9)
    plain = [ga.InBoxes(big, ga.Grey()), ga.InBoxes(HALF, ga.Noise()), ga.InBoxes(big, ga.Blur(sigma=1.0)), ga.Grey()]
    tree = ga.Chain(plain, budget=0.5)
    plan = tree.sample((50, 3, 20, 20), keys=some_keys(50))
    grey, noise, blur, whole = (layer.flatten(1).sum(1) for layer in layers(tree, plan))
    assert (grey == 18 * 18).all()
    assert (noise == 200).all()
    assert (blur == 18 * 18).all()
    assert (whole == 400).all()


def test_a_budget_reaches_only_the_steps_inside_it() -> None:
    inner = ga.Chain([ga.InBoxes(HALF, ga.Noise()), ga.InBoxes(HALF, ga.Zeros())], budget=0.6)
    tree = ga.Chain([ga.InBoxes(HALF, ga.Constant()), inner, ga.InBoxes(HALF, ga.Alien())])
    plan = tree.sample((60, 1, 24, 25), keys=some_keys(60))
    before, noise, zeros, after = layers(tree, plan)
    assert ((noise | zeros).flatten(1).sum(1) == 360).all()
    assert (before.flatten(1).sum(1) == 300).all()
    assert (after.flatten(1).sum(1) == 300).all()


def test_all_enclosing_budgets_hold() -> None:
    inner = ga.Chain([ga.InBoxes(HALF, ga.Noise()), ga.InBoxes(HALF, ga.Zeros())], budget=0.55)
    tree = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.3), ga.Constant()), inner, ga.InBoxes(HALF, ga.Alien())], budget=0.7)
    plan = tree.sample((100, 1, 24, 25), keys=some_keys(100))
    before, noise, zeros, after = layers(tree, plan)
    assert int((noise | zeros).flatten(1).sum(1).max()) <= 330
    assert ((before | noise | zeros | after).flatten(1).sum(1) == 420).all()
    loose = ga.Chain([inner], budget=0.9)
    plan = loose.sample((50, 1, 24, 25), keys=some_keys(50))
    assert (loose.kinds(plan).gt(0).flatten(1).sum(1) == 330).all()


def test_a_place_counts_where_its_images_chosen_fill_replaces() -> None:
    # OneOf inside the boxes: images that draw grey keep their content and all of the room
    tree = ga.Chain([ga.InBoxes(HALF, ga.OneOf([ga.Grey(), ga.Noise()])), ga.InBoxes(HALF, ga.Zeros())], budget=0.5)
    plan = tree.sample((200, 3, 20, 20), keys=some_keys(200))
    grey, noise, zeros = (layer.flatten(1).sum(1) for layer in layers(tree, plan))
    greyed = plan.active[:, 0]
    assert 60 < int(greyed.sum()) < 140
    assert (grey[greyed] == 200).all()
    assert (zeros[greyed] == 200).all()
    assert (noise[~greyed] == 200).all()
    assert (zeros[~greyed] == 0).all()


def test_steps_that_do_not_happen_leave_the_room_to_others() -> None:
    tree = ga.Chain([ga.InBoxes(HALF, ga.Noise(), p=0.5), ga.InBoxes(HALF, ga.Zeros())], budget=0.5)
    plan = tree.sample((200, 1, 20, 20), keys=some_keys(200))
    noise, zeros = (layer.flatten(1).sum(1) for layer in layers(tree, plan))
    assert set(noise.tolist()) == {0, 200}
    assert torch.equal(noise + zeros, torch.full_like(noise, 200))


def test_a_budget_trims_an_overshoot_and_a_fill_without_boxes() -> None:
    over = ga.Boxes(ratio=0.5, side=(0.3, 0.5), overshoot=True)
    tree = ga.Chain([ga.InBoxes(over, ga.Noise())], budget=0.52)
    plan = tree.sample((100, 1, 20, 20), keys=some_keys(100))
    used = tree.kinds(plan).gt(0).flatten(1).sum(1)
    assert int(used.max()) == 208
    assert int(used.min()) >= 200
    whole = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.1), ga.Zeros()), ga.Noise()], budget=0.3)
    plan = whole.sample((50, 1, 20, 20), keys=some_keys(50))
    assert (whole.kinds(plan).gt(0).flatten(1).sum(1) == 120).all()


def test_counted_boxes_are_cut_by_a_budget_too() -> None:
    tree = ga.Chain([ga.InBoxes(ga.Boxes(count=4, side=0.4), ga.Zeros())], budget=0.25)
    plan = tree.sample((100, 1, 20, 20), keys=some_keys(100))
    used = tree.kinds(plan).gt(0).flatten(1).sum(1)
    assert int(used.max()) == 100
    assert int(used.min()) >= 64


def test_kinds_names_the_last_step_that_touched_a_pixel() -> None:
    tree = ga.presets.gmml(zeros=0.5, budget=0.6)
    images = random_images((40, 3, 32, 32))
    plan = tree.sample(images.shape, keys=some_keys(40))
    kinds = tree.kinds(plan)
    assert kinds.dtype == torch.uint8
    assert torch.equal(kinds > 0, tree.apply(images, plan).mask)
    wanted = torch.zeros_like(kinds)
    for number, layer in enumerate(layers(tree, plan)):
        wanted[layer[:, None]] = number + 1
    assert torch.equal(kinds, wanted)
    assert kinds.unique().tolist() == [0, 1, 2, 3, 4, 5]


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), dims=st.integers(1, 3), batch=st.integers(1, 4), seed=st.integers(0, 1 << 20))
def test_any_tree_does_what_a_painter_of_single_pixels_does(data: st.DataObject, dims: int, batch: int, seed: int) -> None:
    size = data.draw(small_sizes(dims=dims))
    tree = data.draw(trees(dims, min(*size, 4) if dims > 1 else min(size[0], 4)))
    plan = sampled_both_ways(tree, (batch, 3, *size), some_keys(batch, seed))
    wanted = kinds_slowly(tree, plan, size)
    assert torch.equal(tree.kinds(plan), wanted)
    assert torch.equal(tree.apply(random_images((batch, 3, *size)), plan).mask, wanted > 0)


@pytest.mark.parametrize("size", [(140, 139), (300,), (140, 7, 6)], ids=str)
def test_a_tree_in_images_larger_than_its_lists_of_boxes_does_so_too(size: tuple[int, ...]) -> None:
    dims = len(size)
    some = ga.Boxes(ratio=(0.1, 0.4), side=(0.1, 0.4), dims=dims)
    over = ga.Boxes(ratio=0.3, side=(0.1, 0.4), overshoot=True, dims=dims)
    few = ga.Boxes(count=(1, 3), side=(0.1, 0.5), dims=dims)
    inner = ga.Chain([ga.InBoxes(some, ga.Noise()), ga.InBoxes(over, ga.OneOf([ga.Zeros(), ga.Grey()]))], budget=0.35)
    tree = ga.Chain([ga.InBoxes(few, ga.Alien()), inner, ga.InBoxes(some, ga.Constant(), p=0.7), ga.Noise()], budget=0.5)
    plan = sampled_both_ways(tree, (5, 3, *size), some_keys(5))
    assert torch.equal(tree.kinds(plan), kinds_slowly(tree, plan, size))
