"""Every preset in every mode: compiled, exported, saved, deterministic, under autocast, differentiable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
from tests.helpers import plans_equal, random_images, some_keys

NAMES = ga.presets.names()
SMALL = {
    "mae": {"patch": 4},
    "simmim": {"cell": 8},
    "beit": {"patch": 4, "least": 4},
    "ibot": {"patch": 4},
    "dinov2": {"patch": 4},
    "tubes": {"patch": 4},
}
# compiled every time: all fills, blocks, three axes; the others before a release
COMPILED = [pytest.param(name, marks=[] if name in ("gmml", "beit", "tubes") else pytest.mark.slow) for name in NAMES]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def built(name: str) -> ga.Chain:
    corrupt: ga.Chain = getattr(ga.presets, name)(values=((0.5, 0.4, 0.3), (0.2, 0.3, 0.25)), **SMALL.get(name, {}))
    return corrupt


def images_for(corrupt: ga.Chain, batch: int, seed: int = 0) -> Tensor:
    return random_images((batch, 3, *((3,) if corrupt.program.dims == 3 else ()), 24, 32), seed=seed)


@pytest.mark.parametrize("name", COMPILED)
def test_a_hundred_calls_with_changing_batches_compile_twice_at_most(name: str) -> None:
    from torch._dynamo.testing import CompileCounter

    corrupt, counter = built(name), CompileCounter()
    run = torch.compile(lambda images, keys: corrupt(images, keys=keys), fullgraph=True, backend=counter)
    for number in range(100):
        images = images_for(corrupt, 2 + number * 5 % 7, seed=number % 3)
        keys = some_keys(len(images), number)
        found = run(images, keys)
        if number % 10 == 0:
            wanted = corrupt(images, keys=keys)
            assert torch.equal(found.mask, wanted.mask)
            torch.testing.assert_close(found.images, wanted.images, rtol=1e-5, atol=1e-5)
    assert counter.frame_count <= 2  # a first batch size, then any


@pytest.mark.parametrize("name", COMPILED)
def test_it_exports_with_any_batch_size(name: str) -> None:
    class Call(torch.nn.Module):
        def forward(self, images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
            out = corrupt(images, keys=keys)
            return out.images, out.mask

    corrupt = built(name)
    batch = torch.export.Dim("batch", min=2, max=512)
    images = images_for(corrupt, 4)
    exported = torch.export.export(
        Call(), (images, some_keys(4)), dynamic_shapes={"images": {0: batch}, "keys": {0: batch}}
    ).module()
    for size in (2, 7):
        images, keys = images_for(corrupt, size), some_keys(size, 3)
        found, mask = exported(images, keys)
        wanted = corrupt(images, keys=keys)
        assert torch.equal(mask, wanted.mask)
        torch.testing.assert_close(found, wanted.images, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_from_disk_repeats_itself(name: str, tmp_path: Path) -> None:
    corrupt = built(name)
    images = images_for(corrupt, 5)
    plan = corrupt.sample(images.shape, keys=some_keys(5))
    plan.save(tmp_path / "plan.safetensors")
    again = ga.Plan.load(tmp_path / "plan.safetensors")
    assert plans_equal(again, plan)
    assert torch.equal(corrupt.apply(images, again).images, corrupt.apply(images, plan).images)


@pytest.mark.parametrize("name", NAMES)
def test_it_works_where_torch_insists_on_determinism(name: str) -> None:
    corrupt = built(name)
    images = images_for(corrupt, 5)
    plain = corrupt(images, keys=some_keys(5))
    torch.use_deterministic_algorithms(True)
    try:
        strict = corrupt(images, keys=some_keys(5))
        dense = corrupt(images.clone().requires_grad_(), keys=some_keys(5))
        dense.images.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(strict.images, plain.images)
    assert torch.equal(dense.mask, plain.mask)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_through_what_is_untouched(name: str) -> None:
    corrupt = built(name)
    images = images_for(corrupt, 5).requires_grad_()
    out = corrupt(images, keys=some_keys(5))
    kept = ~out.mask.expand_as(images)
    (out.images * kept).sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert torch.equal(images.grad[kept], torch.ones_like(images.grad)[kept])


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name: str) -> None:
    corrupt = built(name)
    images = images_for(corrupt, 5)
    plain = corrupt(images, keys=some_keys(5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = corrupt(images, keys=some_keys(5))
    assert cast.images.dtype == torch.float32
    assert torch.equal(cast.images, plain.images)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_every_dtype_is_kept(name: str, dtype: torch.dtype) -> None:
    corrupt = built(name)
    images = images_for(corrupt, 5)
    images = (images.clamp(-2, 2) * 60 + 128).to(dtype) if dtype == torch.uint8 else images.to(dtype)
    out = corrupt(images, keys=some_keys(5))
    assert out.images.dtype == dtype
    kept = ~out.mask.expand_as(images)
    assert torch.equal(out.images[kept], images[kept])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_runs_and_is_the_same(name: str) -> None:
    corrupt = built(name)
    assert eval(repr(corrupt), vars(ga)) == corrupt


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_says_where_it_comes_from(name: str) -> None:
    text = getattr(ga.presets, name).__doc__
    assert "Source:" in text
    assert "Args:" in text
