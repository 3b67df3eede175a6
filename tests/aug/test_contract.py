"""Shapes, types and the honest mask: what every corruption keeps, whatever the batch looks like (promises 1 and 3)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from tests.helpers import (
    DTYPES,
    LAYOUTS,
    bits,
    channels_last_format,
    lay_out,
    random_bits,
    random_images,
    same_bits,
    some_keys,
)
from tests.strategies import shapes


def everything(dims: int, *, ratio: float = 0.3) -> ga.Chain:
    """All fills of the library in one composition that works on a batch of any size."""
    some = ga.Boxes(ratio=(0.0, ratio), dims=dims)
    one = ga.Boxes(count=(1, 2), side=(0.05, 1.0), placement="inside", dims=dims)
    return ga.Chain(
        [
            ga.InBoxes(some, ga.OneOf([ga.Noise(), ga.Zeros(), ga.Constant(value=(-1.0, 1.0))])),
            ga.InBoxes(ga.Boxes(ratio=ratio, overshoot=True, placement="origin", dims=dims), ga.Alien(alone="skip"), p=0.9),
            ga.InBoxes(one, ga.Chain([ga.Grey(), ga.Blur(sigma=(0.2, 1.1), kernel=(1, 5))])),
        ],
        budget=0.5,
    )


batches = st.tuples(shapes(), st.sampled_from(DTYPES), st.sampled_from(LAYOUTS), st.integers(0, 1 << 20))


@settings(max_examples=60)
@given(batch=batches)
@example(batch=((1, 1, 1), torch.float32, "contiguous", 0))
@example(batch=((3, 2, 300, 7), torch.float16, "channels_last", 1))
@example(batch=((2, 3, 5, 7, 9), torch.bfloat16, "channels_last", 2))
def test_images_outside_the_mask_and_the_input_keep_every_bit(
    batch: tuple[tuple[int, ...], torch.dtype, str, int], device: torch.device
) -> None:
    shape, dtype, layout, seed = batch
    images = lay_out(random_bits(shape, dtype, seed).to(device), layout)
    before = bits(images).clone()
    corrupted, mask = everything(len(shape) - 2)(images, keys=some_keys(shape[0], seed).to(device))
    assert torch.equal(bits(images), before)
    assert (corrupted.shape, corrupted.dtype, corrupted.device) == (images.shape, images.dtype, images.device)
    assert (mask.shape, mask.dtype, mask.device) == ((shape[0], 1, *shape[2:]), torch.bool, images.device)
    kept = ~mask.expand(shape)
    assert torch.equal(bits(corrupted)[kept], before[kept])
    assert corrupted.untyped_storage().data_ptr() != images.untyped_storage().data_ptr()


@settings(max_examples=60)
@given(shape=shapes(), ratio=st.floats(0.0, 1.0), low=st.floats(0.05, 0.5), more=st.floats(0.0, 0.5), seed=st.integers(0, 1 << 20))
@example(shape=(4, 1, 5), ratio=0.5, low=0.05, more=0.2, seed=0)
@example(shape=(4, 1, 10, 10), ratio=1.0, low=0.05, more=0.2, seed=0)
@example(shape=(4, 1, 10, 10), ratio=0.0, low=0.05, more=0.2, seed=0)
def test_the_covered_share_is_the_ratio_to_the_pixel(
    shape: tuple[int, ...], ratio: float, low: float, more: float, seed: int, device: torch.device
) -> None:
    dims = len(shape) - 2
    assume((low + more / 2) ** dims > 0.005)  # else more boxes than the library draws
    boxes = ga.Boxes(ratio=ratio, side=(low, low + more), dims=dims)
    mask = ga.InBoxes(boxes, ga.Noise())(random_images(shape).to(device), keys=some_keys(shape[0], seed).to(device)).mask
    pixels = math.prod(shape[2:])
    wanted = ratio * pixels
    allowed = {round(wanted)} | ({math.floor(wanted), math.ceil(wanted)} if abs(wanted % 1 - 0.5) < 1e-9 else set())
    assert set(mask.flatten(1).sum(1).tolist()) <= allowed


@pytest.mark.parametrize("requires_grad", [False, True], ids=["in groups", "differentiable"])
@pytest.mark.parametrize("shape", [(9, 3, 24, 20), (5, 2, 6, 8, 10)])
def test_channels_last_stays_channels_last(shape: tuple[int, ...], requires_grad: bool, device: torch.device) -> None:
    images = lay_out(random_images(shape).to(device), "channels_last").requires_grad_(requires_grad)
    corrupted = everything(len(shape) - 2)(images).images
    assert corrupted.is_contiguous(memory_format=channels_last_format(images))
    assert corrupted.stride() == images.stride()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_result_does_not_depend_on_where_the_images_lie_in_memory(
    layout: str, dtype: torch.dtype, device: torch.device
) -> None:
    images = lay_out(random_images((6, 3, 20, 20), dtype).to(device), layout)
    keys = some_keys(6).to(device)
    found, wanted = everything(2)(images, keys=keys), everything(2)(images.contiguous(), keys=keys)
    assert torch.equal(found.mask, wanted.mask)
    assert same_bits(found.images, wanted.images)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("where", ["buffer", "the input", "a buffer of another layout"])
def test_out_gets_the_same_images(where: str, dtype: torch.dtype, device: torch.device) -> None:
    images = random_images((12, 3, 32, 32), dtype).to(device)
    keys = some_keys(12).to(device)
    corrupt = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.5), ga.Alien()), everything(2)])
    wanted = corrupt(images.clone(), keys=keys)
    given_images = images.clone()
    out = given_images if where == "the input" else torch.empty_like(images)
    out = out.contiguous(memory_format=torch.channels_last) if "layout" in where else out
    found = corrupt(given_images, keys=keys, out=out)
    assert found.images is out
    assert same_bits(out, wanted.images)
    assert torch.equal(found.mask, wanted.mask)
    assert where == "the input" or same_bits(given_images, images)


def test_out_may_be_the_bank_or_overlap_the_input(device: torch.device) -> None:
    images, bank = random_images((6, 3, 24, 24), seed=1).to(device), random_images((6, 3, 24, 24), seed=2).to(device)
    keys = some_keys(6).to(device)
    corrupt = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.5), ga.Alien()), ga.InBoxes(ga.Boxes(ratio=0.3), ga.Blur(sigma=1.0))])
    wanted = corrupt(images, keys=keys, donors=bank).images
    assert same_bits(corrupt(images, keys=keys, donors=bank, out=bank).images, wanted)
    memory = torch.cat([images, images[:1]])
    wanted = corrupt(images, keys=keys).images
    assert same_bits(corrupt(memory[:6], keys=keys, out=memory[1:]).images, wanted)


def test_every_image_has_its_own_boxes_ratio_donor_and_sigma(generator: torch.Generator) -> None:
    corrupt = ga.presets.gmml()
    plan = corrupt.sample((64, 3, 96, 96), generator=generator)
    covered = corrupt.kinds(plan).gt(0).flatten(1).sum(1)
    assert len(covered.unique()) > 50
    for boxes in plan.boxes:
        assert len({tuple(row) for row in boxes.flatten(1).tolist()}) > 60
    assert len(plan.drawn[1][0].unique()) > 25
    assert len(plan.drawn[3][0].unique()) == 64
    assert len(plan.drawn[3][1].unique()) == 7


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inside_the_mask_is_what_the_fill_says(dtype: torch.dtype, device: torch.device) -> None:
    images = random_images((16, 5, 21, 17), dtype, seed=3).to(device)
    boxes = ga.Boxes(ratio=0.5)
    keys = some_keys(16).to(device)

    def inside(fill: ga.Fill) -> tuple[Tensor, ga.Plan, Tensor]:
        corrupt = ga.InBoxes(boxes, fill)
        plan = corrupt.sample(images.shape, keys=keys)
        done = corrupt.apply(images, plan)
        return done.images, plan, done.mask.expand_as(images)

    found, plan, mask = inside(ga.Alien())
    assert same_bits(found[mask], images[plan.drawn[0][0]][mask])
    found, plan, mask = inside(ga.Zeros())
    assert (bits(found)[mask] == 0).all()
    found, plan, mask = inside(ga.Constant(value=7.0))
    assert (found[mask] == 7).all()
    found, plan, mask = inside(ga.Constant(value=(0.0, 200.0)))
    each = [[found[i, c][mask[i, c]].unique().tolist() for c in range(5)] for i in range(16)]
    assert all(len(values) == 1 for image in each for values in image)
    assert len({values[0] for image in each for values in image}) > 50
    found, plan, mask = inside(ga.Noise())
    changed = (found[mask] != images[mask]).float().mean()
    assert changed > 0.98


@pytest.mark.parametrize("size", [(9,), (9, 8), (5, 6, 7)], ids=str)
def test_a_fill_without_boxes_works_on_the_whole_image(size: tuple[int, ...], device: torch.device) -> None:
    images = random_images((3, 2, *size)).to(device)
    found, mask = ga.Chain([ga.Zeros()], dims=len(size))(images)
    assert mask.all()
    assert not found.any()


def test_torchs_default_device_and_dtype_have_no_say() -> None:
    images, keys = random_images((6, 3, 20, 20)), some_keys(6)
    wanted = everything(2)(images, keys=keys)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = everything(2)(images, keys=keys)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.mask, wanted.mask)
    assert same_bits(found.images, wanted.images)
