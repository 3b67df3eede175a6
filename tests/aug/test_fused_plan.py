"""The plan of the kernels is torch's, every integer of it: by Triton's interpreter, and on a GPU where there is one."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gmml_aug as ga
from gmml_aug.backends.call import Maps
from gmml_aug.backends.reference.paint import step_mask
from gmml_aug.backends.triton import marks as fused_marks
from gmml_aug.backends.triton import plan as fused_plan
from gmml_aug.backends.triton.layout import tiling
from gmml_aug.chance import AHEAD
from gmml_aug.places.boxes import Placement
from gmml_aug.presets import masked as masking
from tests.aug.interpreter import INTERPRETS, by_interpreter, examples, few_or_all, runs_once, volumes_are_meant
from tests.helpers import plans_equal, random_images, some_keys
from tests.strategies import every_tree, small_sizes

pytestmark = volumes_are_meant

KNOWN = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
slowly = examples(15)


def check(corrupt: ga.Corruption, shape: tuple[int, ...], where: torch.device, seed: int = 0, *, taken: bool = True) -> ga.Plan:
    """Both plans; ``taken``: the kernels must know this composition."""
    keys = some_keys(shape[0], seed).to(where)
    if taken:
        assert fused_plan.knows(corrupt.program, shape[2:])
    found = corrupt.sample(shape, keys=keys, backend="fused")
    wanted = corrupt.sample(shape, keys=keys, backend="reference")
    assert found.resolved == wanted.resolved
    assert plans_equal(found, wanted)
    assert [one.dtype for one in found.boxes] == [one.dtype for one in wanted.boxes]
    assert found.active.dtype == torch.bool
    if taken:
        check_bits(corrupt, found)
    return found


def check_bits(corrupt: ga.Corruption, plan: ga.Plan) -> None:
    """The bits that were made with the boxes, and those that are made of them afterwards, are the pixels of the steps."""
    size, resolved = plan.shape[1:], plan.resolved or corrupt.program.resolved
    tiled, column = tiling(size, fused_marks.ROWS), torch.arange(size[1], device=plan.keys.device)
    again = fused_marks.marks_of(corrupt.program, plan[:], resolved, size, tiled)  # of another plan, that no kernel made
    for bits, flags in (fused_marks.marks_of(corrupt.program, plan, resolved, size, tiled), again):
        pixels = ((bits[..., column // 32] >> (column % 32).int()) & 1).bool()
        tile = torch.arange(tiled.tiles, device=bits.device).repeat_interleave(fused_marks.ROWS)[: size[0]]
        flagged = ((flags[:, :, tile][..., column // 32 // 32] >> (column // 32 % 32).int()) & 1).bool()
        for number, step in enumerate(corrupt.program.steps):
            wanted, works = step_mask(corrupt.program, plan, number, {}, Maps())[:, 0], plan.active[:, number, None, None]
            assert torch.equal(pixels[:, step.place] & works, wanted)
            assert not (wanted & ~flagged[:, step.place]).any()


@pytest.mark.parametrize("size", [(40, 33), (1, 1), (3, 70)], ids=str)
@pytest.mark.parametrize("name", ["gmml", "gmml_reference", "sit", "ablation", "mc_ssl"])
def test_presets(where: torch.device, name: str, size: tuple[int, int]) -> None:
    check(getattr(ga.presets, name)(values=KNOWN), (3, 3, *size), where)


@slowly
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    ratio=st.sampled_from([0.0, 0.001, 0.999, 1.0]) | st.floats(0, 1) | st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)),
    side=st.tuples(st.floats(0.02, 0.5), st.floats(0.5, 1.0)) | st.floats(0.15, 1.0),
    placement=st.sampled_from(get_args(Placement)),
    align=st.integers(1, 9),
    overshoot=st.booleans(),
    seed=st.integers(0, 1 << 20),
)
def test_shares(
    where: torch.device, size: tuple[int, int], ratio: Any, side: Any, placement: Placement, align: int, overshoot: bool, seed: int
) -> None:
    boxes = ga.Boxes(ratio=ratio, side=side, placement=placement, align=min(align, *size), overshoot=overshoot)
    check(ga.InBoxes(boxes, ga.Zeros()), (2, 1, *size), where, seed)


@slowly
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    count=st.integers(1, 9) | st.tuples(st.integers(1, 4), st.integers(4, 40)),
    side=st.tuples(st.floats(0.0, 0.5), st.floats(0.5, 1.0)),
    placement=st.sampled_from(get_args(Placement)),
    align=st.integers(1, 9),
    seed=st.integers(0, 1 << 20),
)
def test_counts(
    where: torch.device, size: tuple[int, int], count: Any, side: Any, placement: Placement, align: int, seed: int
) -> None:
    boxes = ga.Boxes(count=count, side=side, placement=placement, align=min(align, *size), invert=seed % 2 == 1)
    check(ga.InBoxes(boxes, ga.Zeros(), p=0.5), (3, 1, *size), where, seed)


@slowly
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    budget=st.floats(0.0, 1.0),
    inner=st.none() | st.floats(0.0, 1.0),
    ratio=st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)),
    side=st.tuples(st.floats(0.1, 0.3), st.floats(0.4, 1.0)),
    overshoot=st.booleans(),
    seed=st.integers(0, 1 << 20),
)
def test_budgets(
    where: torch.device,
    size: tuple[int, int],
    budget: float,
    inner: float | None,
    ratio: Any,
    side: Any,
    overshoot: bool,
    seed: int,
) -> None:
    share, some = ga.Boxes(ratio=ratio, side=side, overshoot=overshoot), ga.Boxes(count=(1, 3), side=side)
    first = ga.Chain([ga.InBoxes(share, ga.Noise()), ga.InBoxes(some, ga.Zeros(), p=0.7)], budget=inner)
    either = ga.InBoxes(share, ga.OneOf([ga.Grey(), ga.Alien()]))
    check(ga.Chain([first, ga.InBoxes(some, ga.Grey()), either], budget=budget), (3, 3, *size), where, seed)


def test_a_plan_that_was_written_to_has_its_boxes_read_again(where: torch.device) -> None:
    corrupt, images, keys = (
        ga.InBoxes(ga.Boxes(count=2, side=0.5), ga.Zeros()),
        random_images((2, 1, 20, 40)).to(where),
        some_keys(2),
    )
    plan = corrupt.sample(images.shape, keys=keys.to(where), backend="fused")
    plan.boxes[0][:, 1] = 0
    one, other = (corrupt.apply(images, plan, backend=backend) for backend in ("fused", "torch"))
    assert torch.equal(one.mask, other.mask)
    assert torch.equal(one.images, other.images)


@slowly
@given(data=st.data(), dims=st.integers(1, 3), seed=st.integers(0, 1 << 20))
def test_any_tree_whether_the_kernels_know_it_or_not(where: torch.device, data: st.DataObject, dims: int, seed: int) -> None:
    size = data.draw(small_sizes(dims=dims, least=4))
    check(data.draw(every_tree(dims=dims)), (3, 3, *size), where, seed, taken=False)


def test_what_the_kernels_do_not_know() -> None:
    gmml, size = ga.presets.gmml(), (224, 224)
    assert fused_plan.knows(gmml.program, size)
    assert fused_plan.knows(gmml.program, (3000, 1024))
    assert not fused_plan.knows(gmml.program, (1024, 1025))
    bands = ga.InBoxes(ga.Boxes(count=1, shared=(0,)), ga.Noise())
    either: tuple[ga.Corruption, ...] = (ga.presets.gmml(budget=0.6), ga.Noise())
    for other in either:
        assert fused_plan.knows(other.program, size)
    either = masking.mae(), bands
    for other in either:
        assert not fused_plan.knows(other.program, size)
    assert not fused_plan.knows(ga.InBoxes(ga.Boxes(count=1, dims=3), ga.Noise()).program, (8, 8, 8))


def test_more_words_than_are_hashed_beforehand(where: torch.device) -> None:
    for channels in (AHEAD, AHEAD + 1, 13):
        check(ga.InBoxes(ga.Boxes(count=1), ga.Constant(value=(0.0, 1.0))), (3, channels, 9, 9), where)


def test_many_images_and_a_bank(where: torch.device) -> None:
    corrupt = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.3, side=(0.2, 0.4)), ga.OneOf([ga.Alien(), ga.Shuffle(), ga.Jitter()]))])
    check(corrupt, (66, 3, 4, 5), where)
    keys = some_keys(4).to(where)
    one, other = (corrupt.sample((4, 3, 9, 9), keys=keys, bank=7, backend=backend) for backend in ("fused", "torch"))
    assert plans_equal(one, other)
    assert one.bank


def test_a_call_takes_them_by_itself(where: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    before = fused_marks.keep
    monkeypatch.setattr(fused_plan, "keep", lambda *given: made.append(1) or before(*given))  # type: ignore[func-returns-value]
    images, keys, corrupt = random_images((2, 3, 20, 21)).to(where), some_keys(2).to(where), ga.presets.gmml(values=KNOWN)
    found, wanted = (corrupt(images, keys=keys, backend=backend) for backend in ("fused", "torch"))
    assert made == [1]
    assert torch.equal(found.mask, wanted.mask)
    stored = random_images((2, 3, 20, 21), torch.uint8).to(where)
    assert torch.equal(corrupt.from_bytes(stored, keys=keys, backend="fused").mask, wanted.mask)
    assert made == [1, 1]


def test_a_generator_gives_the_same_keys_to_both(where: torch.device) -> None:
    corrupt = ga.presets.gmml()
    one, other = (
        corrupt.sample((3, 3, 20, 20), generator=torch.Generator(where).manual_seed(4), device=where, backend=backend)
        for backend in ("fused", "torch")
    )
    assert plans_equal(one, other)


@pytest.mark.skipif(INTERPRETS, reason="needs no interpreter")
def test_no_interpreter_and_no_gpu_say_no() -> None:
    with pytest.raises(ValueError, match=r'backend="fused" cannot do this: the kernels run on CUDA.*not on cpu'):
        ga.presets.gmml().sample((2, 3, 8, 8), backend="fused")
    with pytest.raises(ValueError, match="backend='gpu' is unknown"):
        ga.presets.gmml().sample((2, 3, 8, 8), backend="gpu")  # type: ignore[arg-type]


@runs_once
@few_or_all
def test_all_of_it_by_the_interpreter(everything: bool) -> None:
    by_interpreter(__file__, everything=everything)
