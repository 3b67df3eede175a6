"""Places of somebody's own: boxes, or any other shape, with exact ratios, budgets, replay, saved plans; what is wrong is said."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from gmml_aug.backends.reference.coverage import Limit
from gmml_aug.backends.reference.masks import boxes_to_mask, cover_in_order
from tests.aug.test_compile import dense
from tests.helpers import random_images, same_bits, some_keys
from tests.own_places import Balls, Left


@dataclass(frozen=True, kw_only=True)
class Corner(ga.Place):
    """A box in a corner of each image."""

    side: int = 3

    def words(self, size: Sequence[int]) -> int:
        return 1

    def draw(self, words: Tensor, size: Sequence[int], ratios: Tensor | None = None) -> Tensor:
        right = (words[:, 0] & 1) * (size[1] - self.side)
        zero = torch.zeros_like(right)
        return torch.stack([zero, right, zero + self.side, zero + self.side], dim=1)[:, None]


def touched(corrupt: ga.Corruption, size: Sequence[int], batch: int = 6) -> Tensor:
    return corrupt(random_images((batch, 3, *size)), keys=some_keys(batch)).mask[:, 0]


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.777, 1.0])
@pytest.mark.parametrize("place", [Balls, Left])
def test_the_ratio_is_exact_to_the_pixel(place: Any, ratio: float) -> None:
    counts = touched(ga.InBoxes(place(ratio=ratio), ga.Noise()), (37, 41)).flatten(1).sum(1)
    assert set(counts.tolist()) == {round(ratio * 37 * 41)}
    drawn = ga.InBoxes(place(ratio=(0.2, 0.6)), ga.Noise())(random_images((400, 1, 20, 20)), keys=some_keys(400)).mask
    shares = drawn.double().flatten(1).mean(1)
    assert 0.2 <= float(shares.min()) < 0.22
    assert 0.58 < float(shares.max()) <= 0.6
    assert abs(float(shares.mean()) - 0.4) < 5 * 0.4 / math.sqrt(12 * 400)


def test_discs_are_round_and_fall_anywhere() -> None:
    place = Balls(ratio=0.02, radius=(0.1, 0.1), most=60)
    mask = touched(ga.InBoxes(place, ga.Zeros()), (100, 100), batch=200)
    rows, columns = mask.any(2).sum(1), mask.any(1).sum(1)
    assert 10 < int(rows.median()) <= 21  # one disc in reading order, cut to the pixel
    assert int(columns.median()) <= 21
    heat = mask.double().mean(0)
    middle, edge = float(heat[40:60, 40:60].mean()), float(heat[:, :5].mean())
    assert middle > edge > 0  # discs are cut at the border


@pytest.mark.parametrize("place", [Balls(ratio=0.3), Balls(ratio=0.3, invert=True), Left(ratio=(0.1, 0.5)), Corner()], ids=repr)
def test_a_plan_says_everything(place: ga.Place, tmp_path: Path) -> None:
    corrupt = ga.Chain([ga.InBoxes(place, ga.OneOf([ga.Noise(), ga.Alien()])), ga.InBoxes(place, ga.Blur(), p=0.5)])
    images, keys = random_images((7, 3, 30, 28)), some_keys(7)
    plan, wanted = corrupt.sample(images.shape, keys=keys), corrupt(images, keys=keys)
    assert same_bits(corrupt.apply(images, plan).images, wanted.images)
    part = corrupt.apply(images[2:5], plan[2:5], donors=images)
    assert same_bits(part.images, wanted.images[2:5])
    assert torch.equal(corrupt.kinds(plan) > 0, wanted.mask)
    assert torch.equal(corrupt.apply(images, pickle.loads(pickle.dumps(plan))).mask, wanted.mask)
    pytest.importorskip("safetensors")
    plan.save(tmp_path / "plan.safetensors")
    again = ga.Plan.load(tmp_path / "plan.safetensors")
    assert again.resolved == plan.resolved
    assert same_bits(corrupt.apply(images, again).images, wanted.images)
    alone = corrupt.sample((1, 3, 30, 28), keys=keys[3:4], bank=7)
    assert all(torch.equal(one, other[3:4]) for one, other in zip(alone.boxes, plan.boxes, strict=True))
    with dense():
        assert torch.equal(corrupt(images, keys=keys).mask, wanted.mask)


def test_a_place_compiles_in_one_graph() -> None:
    corrupt = ga.Chain([ga.InBoxes(Balls(ratio=0.3, most=8), ga.Noise()), ga.InBoxes(ga.Boxes(ratio=0.2), ga.Alien())], budget=0.4)
    images, keys = random_images((4, 3, 20, 20)), some_keys(4)
    try:
        run = torch.compile(lambda images, keys: corrupt(images, keys=keys), fullgraph=True, backend="aot_eager")
        assert torch.equal(run(images, keys).mask, corrupt(images, keys=keys).mask)
    finally:
        torch.compiler.reset()


def test_along_shared_axes_it_is_the_same() -> None:
    clip = ga.InBoxes(Left(ratio=0.4, dims=3, shared=(0,)), ga.Noise())
    mask = clip(random_images((3, 2, 5, 8, 10)), keys=some_keys(3)).mask[:, 0]
    assert torch.equal(mask, mask[:, :1].expand_as(mask))
    assert set(mask[:, 0].flatten(1).sum(1).tolist()) == {round(0.4 * 80)}
    assert mask[:, :, :, :4].all()
    outside = ga.InBoxes(Left(ratio=0.4, dims=3, shared=(0,), invert=True), ga.Noise())
    assert torch.equal(outside(random_images((3, 2, 5, 8, 10)), keys=some_keys(3)).mask[:, 0], ~mask)


@settings(max_examples=60)
@given(
    order=st.lists(st.integers(-1, 4), min_size=1, max_size=40),
    target=st.none() | st.integers(0, 45),
    limit=st.integers(0, 40),
    taken=st.lists(st.booleans(), min_size=40, max_size=40),
    binds=st.booleans(),
)
def test_pixels_are_painted_in_their_order(
    order: list[int], target: int | None, limit: int, taken: list[bool], binds: bool
) -> None:
    """Against one pixel after the other."""
    count = len(order)
    before = torch.tensor(taken[:count])
    found = cover_in_order(
        torch.tensor([order]),
        5,
        None if target is None else torch.tensor([target]),
        [Limit(torch.zeros(1, 0, 2, dtype=torch.int64), before[None], limit, torch.tensor([binds]))],
    )[0]
    wanted, union = torch.zeros(count, dtype=torch.bool), before.clone()
    for pixel in sorted((pixel for pixel in range(count) if order[pixel] >= 0), key=lambda pixel: (order[pixel], pixel)):
        if (target is not None and int(wanted.sum()) >= target) or (binds and int(union.sum()) >= limit):
            break
        wanted[pixel] = union[pixel] = True
    assert torch.equal(found, wanted)


@settings(max_examples=40)
@given(budget=st.floats(0.0, 1.0), seed=st.integers(0, 999), first=st.booleans(), discs=st.floats(0, 0.7), boxes=st.floats(0, 0.7))
def test_a_budget_is_over_shapes_and_boxes_alike(budget: float, seed: int, first: bool, discs: float, boxes: float) -> None:
    parts = [ga.InBoxes(Balls(ratio=discs, most=20), ga.Noise()), ga.InBoxes(ga.Boxes(ratio=boxes, side=(0.1, 0.4)), ga.Zeros())]
    corrupt = ga.Chain(parts if first else parts[::-1], budget=budget)
    images, keys = random_images((5, 1, 17, 19)), some_keys(5, seed)
    plan = corrupt.sample(images.shape, keys=keys)
    union = corrupt.apply(images, plan).mask.flatten(1).sum(1)
    pixels, limit = 17 * 19, math.floor(budget * 17 * 19 + 1e-6)
    assert int(union.max()) <= limit
    alone = [corrupt.apply(images, plan.only(n)).mask[:, 0] for n in (0, 1)]
    share = round((discs if first else boxes) * pixels)
    assert set(alone[0].flatten(1).sum(1).tolist()) == {min(share, limit)}  # the first one is cut by the budget alone
    wanted = round((boxes if first else discs) * pixels)
    for image in range(5):
        area = int(alone[1][image].sum())
        assert area <= wanted
        assert area == wanted or int(union[image]) == limit
    with dense():
        again = corrupt.sample(images.shape, keys=keys)
    assert all(torch.equal(one, other) for one, other in zip(again.boxes, plan.boxes, strict=True))


@pytest.mark.parametrize("size", [(2, 8, 4), (3, 5, 7)], ids=str)
def test_cells_have_an_edge_along_each_axis(size: tuple[int, int, int]) -> None:
    corrupt = ga.InBoxes(ga.Cells(size=size, ratio=0.5, dims=3), ga.Zeros())
    shape = (6, 16, 12)
    mask = touched(corrupt, shape, batch=4)
    grid = [math.ceil(length / edge) for length, edge in zip(shape, size, strict=True)]
    for image in mask:
        seen = 0
        for d in range(grid[0]):
            for r in range(grid[1]):
                for c in range(grid[2]):
                    at = tuple(slice(n * edge, (n + 1) * edge) for n, edge in zip((d, r, c), size, strict=True))
                    assert image[at].all() or not image[at].any()
                    seen += int(image[at].any())
        assert seen == math.ceil(0.5 * math.prod(grid))


def test_blocks_and_boxes_have_an_edge_along_each_axis() -> None:
    blocks = touched(ga.InBoxes(ga.Blocks(size=(8, 2), ratio=0.4, least=2), ga.Zeros()), (64, 32), batch=8)
    cells = blocks.unflatten(1, (8, 8)).unflatten(3, (16, 2)).transpose(2, 3)
    assert torch.equal(cells.all(4).all(3), cells.any(4).any(3))
    assert int(cells.any(4).any(3).flatten(1).sum(1).max()) <= math.floor(0.4 * 8 * 16)
    plan = ga.InBoxes(ga.Boxes(count=3, align=(8, 4), side=(0.2, 0.6)), ga.Zeros()).sample((50, 1, 64, 32), keys=some_keys(50))
    assert (plan.boxes[0][..., ::2] % 8 == 0).all()
    assert (plan.boxes[0][..., 1::2] % 4 == 0).all()
    same = ga.Boxes(count=3, align=(8, 8))
    assert same == ga.Boxes(count=3, align=8)
    assert eval(repr(ga.Cells(size=(2, 16, 16), ratio=0.5, dims=3)), vars(ga)) == ga.Cells(size=(2, 16, 16), ratio=0.5, dims=3)


WRONG: dict[str, Any] = {
    "floats": torch.zeros(4, 2, 4),
    "another batch": torch.zeros(3, 2, 4, dtype=torch.int64),
    "no list": torch.zeros(4, 4, dtype=torch.int64),
    "too narrow": torch.zeros(4, 2, 2, dtype=torch.int64),
    "empty": torch.zeros(4, 0, 4, dtype=torch.int64),
    "a list": [[0, 0, 1, 1]],
    "nothing": None,
}


@dataclass(frozen=True)
class Says(ga.Place):
    """Returns what it is told to."""

    key: str
    shape: bool = False

    def words(self, size: Sequence[int]) -> int:
        return 1


class Boxed(Says):
    def draw(self, words: Tensor, size: Sequence[int], ratios: Tensor | None = None) -> Any:
        return WRONG[self.key]


class Shaped(Says):
    def order(self, words: Tensor, size: Sequence[int]) -> Any:
        return WRONG[self.key]


@pytest.mark.parametrize("key", WRONG)
@pytest.mark.parametrize("kind", [Boxed, Shaped])
def test_a_place_that_returns_something_else_is_an_error(kind: Any, key: str) -> None:
    corrupt = ga.InBoxes(kind(key), ga.Noise())
    with pytest.raises(ValueError, match=rf"{kind.__name__}: (draw|order) returned .*Return int64 of shape \(B, "):
        corrupt(random_images((4, 3, 9, 9)), keys=some_keys(4))


def test_a_place_needs_something_to_draw() -> None:
    with pytest.raises(TypeError, match=r"Says: a place needs draw \(boxes\) or order"):
        ga.InBoxes(Says("x"), ga.Noise())(random_images((4, 3, 9, 9)))
    with pytest.raises(TypeError, match=r"InBoxes: boxes='left' is not a place. Give Boxes"):
        ga.InBoxes("left", ga.Noise())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="abstract"):
        ga.Place()  # type: ignore[abstract]


def test_masks_of_boxes_are_what_the_plan_says() -> None:
    plan = ga.InBoxes(Corner(), ga.Zeros()).sample((8, 1, 9, 9), keys=some_keys(8))
    mask = boxes_to_mask(plan.boxes[0], (9, 9))[:, 0]
    assert set(mask.flatten(1).sum(1).tolist()) == {9}
    assert mask[:, 0, 0].any()
    assert mask[:, 0, 8].any()
