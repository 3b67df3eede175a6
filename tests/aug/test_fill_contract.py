"""What every fill keeps, one after the other: both paths, one graph, replay, any batch, dtype, honest masks, any dimensions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gmml_aug as ga
from gmml_aug.values import Values
from tests.aug.test_compile import assert_alike, compiled, dense
from tests.helpers import DTYPES, LAYOUTS, bits, lay_out, plans_equal, random_bits, random_images, same_bits, some_keys

KNOWN = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
KINDS: list[Any] = [None, "normal", "uniform", "matched"]
PER: list[Any] = ["channel", "pixel"]
FILLS: list[ga.Fill] = [
    *(ga.Noise(distribution=kind, per=per) for kind in KINDS for per in PER),
    ga.Zeros(),
    ga.Constant(value=(-1.0, 1.0)),
    ga.Mean(),
    ga.Shuffle(),
    ga.Alien(),
    ga.Alien(same_place=False),
    ga.Grey(),
    ga.Jitter(hue=0.5),
    ga.Blur(),
]
each_fill = pytest.mark.parametrize("fill", FILLS, ids=repr)


def somewhere(fill: ga.Fill, dims: int = 2, values: Values | None = None) -> ga.Chain:
    """The fill in a few boxes, after another one that makes the current images differ from the clean ones."""
    before = ga.InBoxes(ga.Boxes(ratio=0.2, dims=dims), ga.Constant(value=0.5))
    return ga.Chain([before, ga.InBoxes(ga.Boxes(ratio=0.4, side=(0.2, 0.4), dims=dims), fill, p=0.9)], values=values)


@each_fill
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_dense_path_gives_what_the_compact_path_gives(fill: ga.Fill, dtype: torch.dtype) -> None:
    for channels, size in ((3, (19, 22)), (5, (40,)), (1, (12, 10)), (3, (7, 6, 8))):
        images, keys = random_images((7, channels, *size), dtype), some_keys(7)
        ranges: list[Values] = [
            "normalised",
            "unit",
            (KNOWN[0][:channels], KNOWN[1][:channels]) if channels < 4 else ((0.5,), (0.2,)),
        ]
        for values in ranges:
            corrupt = somewhere(fill, len(size), values)
            plan, wanted = corrupt.sample(images.shape, keys=keys), corrupt(images, keys=keys)
            with dense():
                assert plans_equal(corrupt.sample(images.shape, keys=keys), plan)
                assert_alike(corrupt(images, keys=keys), wanted)
            assert torch.equal(corrupt.kinds(plan) > 0, wanted.mask)


@pytest.mark.parametrize(
    "fills",
    [pytest.param(FILLS[n::3], id=f"{n + 1} of 3") for n in range(3)]
    + [pytest.param([fill], id=repr(fill), marks=pytest.mark.slow) for fill in FILLS],
)
def test_they_compile_in_one_graph(fills: list[ga.Fill]) -> None:
    try:
        one = ga.Boxes(count=1, side=(0.3, 0.8))  # boxes up to a ratio are compiled in test_compile, and take twice as long
        parts = [ga.InBoxes(one, ga.Chain([ga.Constant(value=0.5), fill]), p=0.9) for fill in fills]
        corrupt, images, keys = ga.Chain(parts, values=KNOWN), random_images((5, 3, 20, 24)), some_keys(5)
        found = compiled(lambda images, keys: corrupt(images, keys=keys), "aot_eager")(images, keys)
        assert_alike(found, corrupt(images, keys=keys))
    finally:
        torch.compiler.reset()


@each_fill
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_input_and_what_lies_outside_the_mask_keep_every_bit(fill: ga.Fill, dims: int, device: torch.device) -> None:
    shape = (6, 3, *{1: (50,), 2: (14, 11), 3: (6, 7, 5)}[dims])
    for number, dtype in enumerate(DTYPES):
        images = random_bits(shape, dtype, number).to(device)
        before = bits(images).clone()
        corrupt = somewhere(fill, dims)
        found, mask = corrupt(images, keys=some_keys(6, number).to(device))
        assert (found.shape, found.dtype, found.device) == (images.shape, dtype, images.device)
        assert torch.equal(bits(images), before)
        kept = ~mask.expand(shape)
        assert torch.equal(bits(found)[kept], before[kept])


@each_fill
def test_a_plan_is_replayed_to_the_bit_wherever_the_images_lie_in_memory(fill: ga.Fill, device: torch.device) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.uint8):
        images, keys = random_images((6, 3, 20, 20), dtype).to(device), some_keys(6).to(device)
        corrupt = somewhere(fill)
        plan, wanted = corrupt.sample(images.shape, keys=keys), corrupt(images, keys=keys).images
        assert same_bits(corrupt.apply(images, plan).images, wanted)
        for layout in LAYOUTS[1:-1]:
            assert same_bits(corrupt.apply(lay_out(images, layout), plan).images.contiguous(), wanted.contiguous()), (dtype, layout)
        written = images.clone()
        assert same_bits(corrupt(written, keys=keys, out=written).images, wanted)


@pytest.mark.parametrize("fill", [fill for fill in FILLS if not fill.reads_donors], ids=repr)
def test_equal_keys_do_the_same_in_whatever_batch(fill: ga.Fill, device: torch.device) -> None:
    images, keys = random_images((30, 3, 18, 21)).to(device), some_keys(30).to(device)
    corrupt = somewhere(fill)
    whole = corrupt(images, keys=keys)
    for part in (slice(0, 1), slice(11, 12), slice(7, 20)):
        found = corrupt(images[part], keys=keys[part])
        assert torch.equal(found.mask, whole.mask[part])
        torch.testing.assert_close(found.images, whole.images[part], rtol=0, atol=1e-6)


@each_fill
def test_what_is_printed_builds_the_same(fill: ga.Fill) -> None:
    corrupt = somewhere(fill, values="unit")
    assert eval(repr(corrupt), vars(ga).copy()) == corrupt
    assert len({*FILLS}) == len(FILLS)


@pytest.mark.parametrize("option", [0.5, (0.5, 0.5), (0.2, 0.7)], ids=repr)
def test_a_number_is_not_a_pair_for_jitter(option: Any) -> None:
    jitter = ga.Jitter(brightness=option)
    assert eval(repr(jitter), vars(ga).copy()) == jitter
    assert (jitter == ga.Jitter(brightness=0.5)) == (option == 0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@each_fill
def test_nothing_waits_for_the_device(fill: ga.Fill) -> None:
    corrupt = somewhere(fill, values=KNOWN)
    for dtype in DTYPES:
        images, keys = torch.zeros(8, 3, 64, 64, dtype=dtype, device="cuda"), torch.arange(8, device="cuda")
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            corrupt(images, keys=keys)
        finally:
            torch.cuda.set_sync_debug_mode("default")
