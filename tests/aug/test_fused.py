"""The fused path says what `paint` says: by Triton's interpreter on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from gmml_aug.backends.base import backend_of
from gmml_aug.backends.call import Batch, Maps, Painted
from gmml_aug.backends.triton import blur as fused_blur
from gmml_aug.chance import to_normal
from gmml_aug.presets import masked as masking
from tests.aug.interpreter import BRIEF, by_interpreter, examples, few_or_all, runs_once, volumes_are_meant
from tests.helpers import lay_out, random_bits, random_images, same_bits, some_keys
from tests.strategies import RANGES, any_boxes, every_tree, small_sizes

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy, in the interpreter, of what is silent on a GPU
    volumes_are_meant,
]

STATISTICS = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)
NOWHERE = Maps()
REFERENCE, TRITON = backend_of("reference"), backend_of("triton")
BOXES = ga.Boxes(ratio=0.4, side=(0.1, 0.4))


@dataclass(frozen=True)
class Negative(ga.Fill):
    """A fill of somebody's own."""

    def pixels(self, scene: Any, drawn: Any) -> Tensor:
        now: Tensor = scene.now
        return 255 - now if now.dtype == torch.uint8 else -now


def differ(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, in units of what is allowed for the dtype."""
    if found.dtype == torch.uint8:
        return float((found.int() - wanted.int()).abs().max())
    # one rounding: torch and Triton may lie on two sides of a tie, and a later step reads what the earlier one left
    step = {torch.float32: 1e-5, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}[found.dtype]
    one, other = found.float(), wanted.float()
    return float(((one - other).abs() / (step * other.abs().clamp(min=1.0))).max())


def made(
    backend: Any,
    corrupt: ga.Corruption,
    images: Tensor,
    pool: Tensor,
    plan: ga.Plan,
    maps: Maps = NOWHERE,
    out: Tensor | None = None,
) -> Painted:
    """What a backend makes of a batch."""
    painted: Painted = backend.paint(corrupt.program, Batch(images, pool, maps, out, images.dtype), plan)
    return painted


def supports(corrupt: ga.Corruption, images: Tensor, *, gradient: bool = False) -> bool:
    """True where the kernels paint it."""
    return TRITON.can(corrupt.program, images.shape, images.dtype, images.device, gradient=gradient) is None


def check(
    corrupt: ga.Corruption,
    images: Tensor,
    bounds: Maps = NOWHERE,
    *,
    seed: int = 0,
    donors: Tensor | None = None,
) -> None:
    """Same plan, both paths."""
    pool = images if donors is None else donors
    bank = None if donors is None else len(donors)
    plan = corrupt.sample(images.shape, keys=some_keys(len(images), seed).to(images.device), bank=bank)
    assert supports(corrupt, images)
    before = images.clone()
    wanted, touched, _ = made(REFERENCE, corrupt, images, pool, plan, bounds)
    found, mask, _ = made(TRITON, corrupt, images, pool, plan, bounds)
    assert torch.equal(mask, touched)
    assert found.dtype == images.dtype
    assert found.shape == images.shape
    assert found.stride() == torch.empty_like(images).stride()
    outside = ~mask.expand_as(images)
    assert same_bits(found[outside], images[outside])
    assert differ(found, wanted) <= 1.0
    assert same_bits(images, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gmml_in_any_dtype(where: torch.device, dtype: torch.dtype) -> None:
    values = None if dtype == torch.uint8 else STATISTICS
    check(ga.presets.gmml(values=values, zeros=0.3, budget=0.6), random_images((2, 3, 31, 29), dtype).to(where))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (70, 33), (8, 32), (17, 65)], ids=str)
def test_gmml_in_any_size(where: torch.device, size: tuple[int, ...]) -> None:
    check(ga.presets.gmml(values=STATISTICS), random_images((2, 3, *size)).to(where))


@pytest.mark.parametrize("size", [(130,), (3, 40), (34, 5), (2, 9, 33)], ids=str)
def test_blurs_that_reach_over_several_borders_and_tiles(where: torch.device, size: tuple[int, ...]) -> None:
    place = ga.Boxes(count=1, side=(0.3, 0.6), dims=len(size))
    for fill in (ga.Blur(sigma=4.0, kernel=41), ga.Blur(sigma=4.0, kernel=5)):
        steps = [ga.InBoxes(place, fill), ga.InBoxes(place, ga.Shuffle()), ga.InBoxes(place, fill, p=0.5)]
        check(ga.Chain(steps), random_images((2, 2, *size)).to(where))


def test_a_batch_that_no_axis_of_a_grid_can_count(where: torch.device) -> None:
    corrupt = ga.Chain([ga.InBoxes(ga.Boxes(count=1, dims=1), fill) for fill in (ga.Noise(), ga.Blur())])
    check(corrupt, random_images((7, 1, 9)).to(where))
    if where.type == "cuda":
        check(corrupt, random_images(((1 << 16) + 3, 1, 3)).to(where))


PRESETS: dict[str, ga.Corruption] = {
    "gmml_reference": ga.presets.gmml_reference(),
    "sit": ga.presets.sit(),
    "mc_ssl": ga.presets.mc_ssl(),
    "mae": masking.mae(patch=5),
    "beit": masking.beit(patch=5, least=2),
    "simmim": masking.simmim(cell=9),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets(where: torch.device, name: str) -> None:
    check(PRESETS[name], random_images((2, 3, 30, 27)).to(where))


FILLS: list[ga.Fill] = [
    *(ga.Noise(distribution=d, per=p) for d in (None, "normal", "uniform", "matched") for p in ("channel", "pixel")),
    ga.Zeros(),
    ga.Constant(value=(-1.0, 1.0)),
    ga.Constant(value=2.5),
    ga.Mean(),
    ga.Shuffle(),
    ga.Alien(),
    ga.Alien(same_place=False),
    ga.Grey(),
    ga.Blur(),
    ga.Jitter(),
    Negative(),
]


@pytest.mark.parametrize("fill", FILLS, ids=repr)
def test_every_fill(where: torch.device, fill: ga.Fill) -> None:
    ranges: list[Any] = [((0.4,), (0.3,)), None, "unit", None]
    few = 4 if isinstance(fill, ga.Noise) else 2
    for channels, values, dtype in list(zip((3, 1, 4, 13), ranges, (torch.float32, torch.uint8) * 2, strict=True))[:few]:
        dtype = torch.float32 if values == "unit" else dtype
        corrupt = ga.Chain([ga.InBoxes(BOXES, fill), ga.InBoxes(BOXES, ga.Grey(), p=0.5)], values=values)
        images = random_images((2, channels, 17, 11), dtype)
        check(corrupt, (images.sigmoid() if values == "unit" else images).to(where))


@examples(15)
@given(data=st.data())
def test_any_tree(where: torch.device, data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    tree = data.draw(every_tree(dims=dims))
    shape = (data.draw(st.integers(1, 3)), len(tree.values[0]) if isinstance(tree.values, tuple) else 3)
    images = random_images((*shape, *data.draw(small_sizes(dims=dims, least=4))), seed=data.draw(st.integers(0, 99)))
    images = images.sigmoid() if tree.values == "unit" else images
    if supports(tree, images):
        check(tree, images.to(where), seed=data.draw(st.integers(0, 99)))


@examples(15)
@given(data=st.data())
def test_any_boxes_and_bounds(where: torch.device, data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    size = data.draw(small_sizes(dims=dims))
    parts = [
        ga.InBoxes(data.draw(any_boxes(dims=dims, align=min(*size, 4))), fill, p=data.draw(st.sampled_from([0.5, 1.0])))
        for fill in (ga.Noise(), ga.Blur(), ga.Alien(), ga.Grey())
    ]
    maps = [
        torch.rand(data.draw(st.sampled_from([1, 3])), 1, *size, generator=torch.Generator().manual_seed(n)).lt(0.5).to(where)
        if data.draw(st.booleans())
        else None
        for n in range(2)
    ]
    values = data.draw(st.sampled_from(RANGES))
    check(ga.Chain(parts, values=values), random_images((3, 2, *size)).to(where), Maps(*maps))


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided", "expanded"])
def test_layouts(where: torch.device, layout: str) -> None:
    images = lay_out(random_images((3, 3, 16, 19)).to(where), layout)
    check(ga.presets.gmml(values=STATISTICS), images)
    check(ga.presets.gmml(values=STATISTICS), images, donors=lay_out(random_images((5, 3, 16, 19), seed=1).to(where), layout))


def test_more_boxes_than_bits_and_outside_of_boxes(where: torch.device) -> None:
    many = ga.Boxes(count=(130, 150), side=(0.02, 0.07))
    for place in (many, ga.Boxes(count=2, side=0.5, invert=True), ga.Boxes(ratio=0.3, side=0.2, align=4, shared=(0,))):
        corrupt = ga.Chain([ga.InBoxes(place, ga.Noise()), ga.InBoxes(place, ga.Blur())])
        check(corrupt, random_images((2, 3, *((21, 23) if BRIEF else (43, 45)))).to(where))


def test_nothing_of_what_is_kept_changes(where: torch.device) -> None:
    for dtype in DTYPES:
        images = random_bits((2, 3, 20, 21), dtype, seed=0).to(where)
        corrupt = ga.presets.gmml()
        plan = corrupt.sample(images.shape, keys=some_keys(2).to(where))
        found, mask, _ = made(TRITON, corrupt, images, images, plan)
        kept = ~mask.expand_as(images)
        assert same_bits(found[kept], images[kept])


def test_it_repeats_itself(where: torch.device) -> None:
    images = random_images((2, 3, 20, 21)).to(where)
    corrupt = ga.presets.gmml()
    plan = corrupt.sample(images.shape, keys=some_keys(2).to(where))
    one, other = (made(TRITON, corrupt, images, images, plan) for _ in range(2))
    assert same_bits(one[0], other[0])
    assert torch.equal(one[1], other[1])


@examples(8)
@given(
    size=st.tuples(st.integers(2, 30), st.integers(2, 70)) | st.tuples(st.integers(8, 40), st.integers(2, 20).map(lambda n: 4 * n)),
    taps=st.integers(1, 9).map(lambda radius: 2 * radius + 1),
    side=st.tuples(st.floats(0.05, 0.6), st.just(1.0)),
    placement=st.sampled_from(["inside", "origin"]),
    seed=st.integers(0, 1 << 20),
)
def test_one_box_is_blurred_in_place(
    where: torch.device, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], taps: int, side: Any, placement: Any, seed: int
) -> None:
    made, before = [], fused_blur.in_place
    monkeypatch.setattr(fused_blur, "in_place", lambda *given: made.append(1) or before(*given))  # type: ignore[func-returns-value]
    taps = min(taps, 2 * min(size) - 1)
    place = ga.Boxes(count=1, side=side, placement=placement)
    blurred = ga.InBoxes(place, ga.Blur(sigma=(0.1, 3.0), kernel=(min(3, taps), taps)), p=0.8)
    check(ga.Chain([ga.InBoxes(BOXES, ga.Zeros()), blurred]), random_images((2, 2, *size)).to(where), seed=seed)
    assert made
    monkeypatch.undo()


def test_nothing_is_read_that_was_not_written(where: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    some = ga.Boxes(count=2, side=(0.2, 0.4))
    for place, size in ((some, (40, 31)), (replace(some, align=5), (33, 48)), (replace(some, dims=3), (9, 12, 11))):
        corrupt = ga.InBoxes(place, ga.Blur(sigma=3.0, kernel=(3, 31)))
        images = random_images((3, 1, *size)).to(where)
        monkeypatch.setattr(fused_blur, "_SCRATCH", 2 * 4 * math.prod(size))  # two images at a time, and a rest of one
        torch.use_deterministic_algorithms(True)  # fresh memory is then full of NaN
        try:
            check(corrupt, images)
        finally:
            torch.use_deterministic_algorithms(False)


def test_out_is_written(where: torch.device) -> None:
    images = random_images((3, 3, 16, 17)).to(where)
    corrupt = ga.presets.gmml()
    plan = corrupt.sample(images.shape, keys=some_keys(3).to(where))
    wanted, *_ = made(TRITON, corrupt, images, images, plan)
    for layout in ("contiguous", "channels_last", "strided"):
        out = lay_out(torch.zeros_like(images), layout)
        found, *_ = made(TRITON, corrupt, images, images, plan, out=out)
        assert found is out
        assert torch.equal(out, wanted)


def test_the_inverse_normal_of_all_the_bits(where: torch.device) -> None:
    # one pixel for each word of noise: what was drawn is read back
    corrupt, shape = ga.Chain([ga.Noise()], dims=1), (1, 4, 1 << (15 if BRIEF else 17))
    images = torch.zeros(shape, device=where)
    plan = corrupt.sample(shape, keys=some_keys(1).to(where))
    found, *_ = made(TRITON, corrupt, images, images, plan)
    wanted, *_ = made(REFERENCE, corrupt, images, images, plan)
    assert float((found - wanted).abs().max()) < 3e-6
    every = to_normal(torch.arange(1 << 16))
    come = 1 - math.exp(-found.numel() / every.numel())  # the expected share of the words; nearly all in the long test
    assert found.unique().numel() > 0.95 * come * every.numel()
    assert math.isclose(float(found.abs().max()), float(every.max()), abs_tol=1e-5)


def test_unsupported_cases_say_no(where: torch.device) -> None:
    images, corrupt = random_images((2, 3, 8, 8)).to(where), ga.presets.gmml()
    assert supports(corrupt, images)
    assert not supports(corrupt, images.double())
    assert not supports(corrupt, random_images((2, 17, 8, 8)).to(where))
    assert not supports(ga.Chain([Negative()]), images)
    assert not supports(ga.Chain([ga.Noise()] * 33), images)
    assert not supports(corrupt, images, gradient=True)
    differentiable = images.clone().requires_grad_()
    with pytest.raises(ValueError, match=r'backend="fused" cannot do this: the kernels give no gradients'):
        corrupt(differentiable, backend="fused")
    with torch.no_grad():
        corrupt(differentiable, backend="fused")


def test_no_interpreter_and_no_gpu_say_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    images = random_images((2, 3, 8, 8))
    assert not supports(ga.presets.gmml(), images)


@pytest.mark.gpu
def test_nothing_waits_and_a_graph_captures(where: torch.device) -> None:
    if where.type != "cuda":
        pytest.skip("needs a CUDA device")
    corrupt = ga.presets.gmml(values=STATISTICS, zeros=0.3)
    images, keys = torch.randn(8, 3, 64, 61, device=where), some_keys(8).to(where)

    def call() -> tuple[Tensor, Tensor]:
        return made(TRITON, corrupt, images, images, corrupt.sample(images.shape, keys=keys, backend="fused"))[:2]

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        call()  # compiles
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    for seed in range(3):
        keys.copy_(some_keys(8, seed).to(where))
        graph.replay()
        wanted = call()
        assert torch.equal(captured[1], wanted[1])
        assert same_bits(captured[0], wanted[0])


@runs_once
@few_or_all
def test_all_of_it_by_the_interpreter(everything: bool) -> None:
    by_interpreter(__file__, everything=everything)
