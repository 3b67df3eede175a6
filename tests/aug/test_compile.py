"""Promise 2: whole batches at once; what compiled code and the GPU run gives what the CPU's own path gives."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from gmml_aug.values import Values
from tests.helpers import DTYPES, FLOATS, plans_equal, random_images, some_keys
from tests.strategies import small_sizes, trees

KNOWN = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


@contextmanager
def dense() -> Iterator[None]:
    """Take the path of compiled code and of the GPU, without a compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        yield


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch.compiler.reset()


def compiled(function: Callable[..., Any], backend: Any) -> Callable[..., Any]:
    """`torch.compile` in one graph, or an error."""
    return torch.compile(function, fullgraph=True, backend=backend)


def mixed(dims: int) -> ga.Chain:
    """All kinds of fills, boxes and budgets, for images of any channels."""
    some = ga.Boxes(ratio=(0.1, 0.35), dims=dims)
    return ga.Chain(
        [
            ga.InBoxes(some, ga.OneOf([ga.Noise(), ga.Zeros(), ga.Constant(value=(-1.0, 1.0))])),
            ga.InBoxes(ga.Boxes(ratio=0.3, overshoot=True, placement="origin", dims=dims), ga.Alien(), p=0.7),
            ga.InBoxes(ga.Boxes(count=(1, 2), side=(0.2, 1.0), placement="inside", dims=dims), ga.Chain([ga.Grey(), ga.Blur()])),
        ],
        budget=0.5,
    )


def assert_alike(found: ga.Corrupted, wanted: ga.Corrupted) -> None:
    """Equal masks; images within 1e-5, or a rounding of a coarser dtype."""
    assert torch.equal(found.mask, wanted.mask)
    assert found.images.dtype == wanted.images.dtype
    if wanted.images.dtype == torch.uint8:
        apart = (found.images.int() - wanted.images.int()).abs()
        assert int(apart.max()) <= 1
        assert float((apart > 0).float().mean()) < 1e-3
    else:
        step = max(torch.finfo(wanted.images.dtype).eps, 1e-5)
        torch.testing.assert_close(found.images, wanted.images, rtol=step, atol=step)


def test_calls_and_replays_compile_once_for_all_batch_sizes() -> None:
    from torch._dynamo.testing import CompileCounter

    corrupt = ga.presets.gmml(values=KNOWN, budget=0.6)
    for replay in (False, True):
        counter = CompileCounter()
        run = compiled(corrupt.apply if replay else lambda images, keys: corrupt(images, keys=keys), counter)
        for number in range(20):
            images = random_images((2 + number * 5 % 13, 3, 32, 32), seed=number)
            keys = some_keys(len(images), number)
            found = run(images, corrupt.sample(images.shape, keys=keys) if replay else keys)
            assert_alike(found, corrupt(images, keys=keys))
        assert counter.frame_count <= 2  # a first batch size, then any


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("channels", "size"), [(5, (90,)), (3, (36, 41)), (9, (20, 17)), (1, (20, 17)), (6, (10, 12, 11))], ids=str
)
def test_the_dense_path_gives_what_the_compact_path_gives(dtype: torch.dtype, channels: int, size: tuple[int, ...]) -> None:
    images, keys = random_images((8, channels, *size), dtype), some_keys(8)
    bank = random_images((3, channels, *size), dtype, seed=1)
    ranges: list[Values] = ["normalised", "unit", ((0.5,) * channels, (0.2,) * channels)]
    for values in ranges:
        corrupt = ga.Chain([mixed(len(size))], values=values)
        wanted, banked = corrupt(images, keys=keys), corrupt(images, keys=keys, donors=bank)
        plan = corrupt.sample(images.shape, keys=keys)
        with dense():
            assert plans_equal(corrupt.sample(images.shape, keys=keys), plan)
            assert_alike(corrupt(images, keys=keys), wanted)
            assert_alike(corrupt(images, keys=keys, donors=bank), banked)
            assert torch.equal(corrupt.kinds(plan) > 0, wanted.mask)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), dims=st.integers(1, 3), seed=st.integers(0, 1 << 20))
def test_any_tree_gives_the_same_on_both_paths(data: st.DataObject, dims: int, seed: int) -> None:
    size = data.draw(small_sizes(dims=dims))
    tree = data.draw(trees(dims, min(*size, 4) if dims > 1 else min(size[0], 4)))
    images, keys = random_images((4, 3, *size)), some_keys(4, seed)
    plan, wanted = tree.sample(images.shape, keys=keys), tree(images, keys=keys)
    with dense():
        assert plans_equal(tree.sample(images.shape, keys=keys), plan)
        assert_alike(tree(images, keys=keys), wanted)


@pytest.mark.parametrize("size", [(300, 280), (600,), (140, 130, 3)], ids=str)
@pytest.mark.parametrize("budget", [None, 0.6])
def test_large_images_give_the_same_on_both_paths(size: tuple[int, ...], budget: float | None) -> None:
    some = ga.Boxes(ratio=(0.0, 0.5), dims=len(size))
    corrupt = ga.Chain([ga.InBoxes(some, ga.Zeros()), ga.InBoxes(some, ga.Constant())], budget=budget)
    plan = corrupt.sample((12, 1, *size), keys=some_keys(12))
    with dense():
        assert plans_equal(corrupt.sample((12, 1, *size), keys=some_keys(12)), plan)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e38])
def test_infinite_content_spreads_alike_on_both_paths(value: float) -> None:
    images = torch.zeros(1, 1, 40, 40)
    images[..., 20, 20] = value
    corrupt = ga.Blur(sigma=1.0, kernel=(3, 15))
    plan = next(p for p in (corrupt.sample(images.shape, keys=torch.tensor([k])) for k in range(99)) if int(p.drawn[0][1]) == 3)
    wanted = corrupt.apply(images, plan).images
    with dense():
        found = corrupt.apply(images, plan).images
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert torch.equal(found.isfinite(), wanted.isfinite())


@pytest.mark.parametrize("dims", [1, 3])
def test_signals_and_volumes_compile_too(dims: int) -> None:
    corrupt, shape = mixed(dims), (5, 2, *((60,) if dims == 1 else (8, 9, 10)))
    images, keys = random_images(shape), some_keys(5)
    found = compiled(lambda images, keys: corrupt(images, keys=keys), "eager")(images, keys)
    assert_alike(found, corrupt(images, keys=keys))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_differentiable_images_take_the_dense_path_and_give_the_same(dtype: torch.dtype) -> None:
    images, keys = random_images((6, 3, 30, 30), dtype), some_keys(6)
    corrupt = mixed(2)
    found = corrupt(images.clone().requires_grad_(), keys=keys)
    assert found.images.requires_grad
    assert_alike(ga.Corrupted(found.images.detach(), found.mask), corrupt(images, keys=keys))
    with torch.no_grad():
        assert not corrupt(images.clone().requires_grad_(), keys=keys).images.requires_grad


def test_gradients_flow_through_what_is_kept_and_stop_where_it_is_replaced(device: torch.device) -> None:
    images = random_images((6, 3, 30, 30)).to(device).requires_grad_()
    corrupt = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.4), ga.Noise()), ga.InBoxes(ga.Boxes(ratio=0.2), ga.Zeros())])
    found, mask = corrupt(images)
    found.sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad, (~mask).expand_as(images).float())


def test_gradients_reach_the_donors_and_pass_through_grey_and_blur(device: torch.device) -> None:
    images, bank = random_images((4, 3, 20, 20)).to(device), random_images((5, 3, 20, 20)).to(device).requires_grad_()
    found, mask = ga.InBoxes(ga.Boxes(ratio=0.4), ga.Alien())(images, donors=bank)
    found.sum().backward()
    assert bank.grad is not None
    assert float(bank.grad.sum()) == 3 * float(mask.sum())
    images.requires_grad_()
    found = ga.Chain([ga.Grey(), ga.Blur(sigma=1.0)])(images).images
    (gradient,) = torch.autograd.grad(found.sum(), images)
    assert abs(float(gradient.sum()) - images.numel()) < 0.1
    assert (gradient != 0).all()


@pytest.mark.parametrize("compact", [True, False], ids=["in groups", "dense"])
def test_autocast_does_not_change_the_result(compact: bool, device: torch.device) -> None:
    images, keys = random_images((6, 3, 30, 30)).to(device).requires_grad_(not compact), some_keys(6).to(device)
    corrupt = ga.Chain([mixed(2)], values=KNOWN)
    wanted = corrupt(images, keys=keys)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = corrupt(images, keys=keys)
    assert found.images.dtype == torch.float32
    assert torch.equal(found.images, wanted.images)
    assert torch.equal(found.mask, wanted.mask)


class Step(torch.nn.Module):
    """What a training step does first."""

    def __init__(self, corrupt: ga.Corruption) -> None:
        super().__init__()
        self.corrupt = corrupt

    def forward(self, images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        found = self.corrupt(images, keys=keys)
        return found.images, found.mask


def test_export_takes_a_call_with_any_batch_size() -> None:
    corrupt = ga.presets.gmml(values=KNOWN)
    batch = torch.export.Dim("batch", min=2, max=512)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        program = torch.export.export(
            Step(corrupt), (random_images((4, 3, 32, 32)), some_keys(4)), dynamic_shapes={"images": {0: batch}, "keys": {0: batch}}
        )
    for count in (2, 4, 11):
        images, keys = random_images((count, 3, 32, 32)), some_keys(count, 9)
        assert_alike(ga.Corrupted(*program.module()(images, keys)), corrupt(images, keys=keys))


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="Inductor needs a C++ compiler")
def test_inductor_compiles_the_preset() -> None:
    corrupt = ga.presets.gmml(values=KNOWN)
    images, keys = random_images((4, 3, 32, 32)), some_keys(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        found = compiled(lambda images, keys: corrupt(images, keys=keys), "inductor")(images, keys)
    assert_alike(found, corrupt(images, keys=keys))
