"""The kernels compile for a GPU, though none is here: Triton's compiler and its assembler need only the name of the device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
from gmml_aug.backends import base
from gmml_aug.backends.base import backend_of
from gmml_aug.backends.call import Batch, Maps, Request
from gmml_aug.backends.triton import lower as fused_steps
from gmml_aug.backends.triton import paint as fused
from gmml_aug.backends.triton import plan as fused_plan
from tests.helpers import random_images, some_keys

pytestmark = pytest.mark.skipif(
    not fused_steps.has_triton() or os.environ.get("TRITON_INTERPRET") == "1", reason="needs triton 3.4, and no interpreter"
)
HOPPER = 90
KINDS = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.uint8: "*u8", torch.int64: "*i64",
    torch.int32: "*i32", torch.bool: "*i1",
}  # fmt: skip
NOWHERE = Maps()
KNOWN = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


class Compiled:
    """Stands for a module of kernels; what is launched is compiled instead, as the launcher would have it."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.sizes: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(self.module, name)
        return Launch(self, kernel) if hasattr(kernel, "arg_names") else kernel


class Launch:
    """A kernel that is given its grid and then its arguments."""

    def __init__(self, owner: Compiled, kernel: Any) -> None:
        self.owner, self.kernel = owner, kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self._compile

    def _compile(self, *given: Any, enable_fp_fusion: bool, num_warps: int = 4, **constants: Any) -> None:
        import triton  # type: ignore[import-untyped, unused-ignore]
        from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped, unused-ignore]

        signature, fixed = {}, {}
        for parameter in self.kernel.params:
            name = parameter.name
            value = constants[name] if name in constants else given[parameter.num]
            if parameter.is_constexpr:
                signature[name], fixed[(parameter.num,)] = "constexpr", value
            elif isinstance(value, Tensor):
                signature[name] = KINDS[value.dtype]
            else:
                signature[name] = "i64" if abs(value) >= 1 << 31 else "i32"
        source = triton.compiler.ASTSource(self.kernel, signature, fixed, {})
        options = {"enable_fp_fusion": enable_fp_fusion, "num_warps": num_warps}
        made = triton.compile(source, target=GPUTarget("cuda", HOPPER, 32), options=options)
        self.owner.sizes.append((self.kernel.__name__, len(made.asm["cubin"])))


def paint(corrupt: ga.Corruption, images: Tensor, maps: Maps = NOWHERE, dtype: torch.dtype | None = None) -> None:
    """Launch everything that a batch needs."""
    plan = corrupt.sample(images.shape, keys=some_keys(2), backend="reference")
    fused.paint(corrupt.program, Batch(images, images, maps, None, dtype or images.dtype), plan)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """What was compiled: names and sizes of the code."""
    sizes: list[tuple[str, int]] = []
    for name in ("kernels", "blur_kernels", "plan_kernels"):
        compiled = Compiled(getattr(fused_steps, name)())
        compiled.sizes = sizes
        for module in (fused, fused_steps, fused_plan):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda compiled=compiled: compiled)
    yield sizes
    assert all(size > 0 for _, size in sizes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8], ids=str)
def test_gmml(launches: list[tuple[str, int]], dtype: torch.dtype) -> None:
    images = random_images((2, 3, 40, 33), dtype)
    corrupt = ga.presets.gmml(values=None if dtype == torch.uint8 else KNOWN, zeros=0.3)
    paint(corrupt, images)
    assert {name for name, _ in launches} == {"axis_words", "paint_steps", "blur_axis"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_from_bytes(launches: list[tuple[str, int]], dtype: torch.dtype) -> None:
    images = random_images((2, 3, 40, 33), torch.uint8)
    for corrupt in (ga.presets.gmml(values=KNOWN), ga.Chain([ga.Blur()], values="unit")):
        paint(corrupt, images, dtype=dtype)
    assert sum(name == "paint_steps" for name, _ in launches) == 2


def test_all_other_fills_and_maps(launches: list[tuple[str, int]]) -> None:
    fills = [ga.Noise(distribution="matched"), ga.Noise(distribution="uniform", per="pixel"), ga.Shuffle(), ga.Mean()]
    fills += [ga.Constant(value=(0.0, 1.0)), ga.Alien(same_place=False)]
    images = random_images((2, 3, 9, 8, 7))
    corrupt = ga.Chain([ga.InBoxes(ga.Boxes(count=2, dims=3, invert=True), fill) for fill in fills], values="unit")
    maps = Maps(torch.ones(1, 1, 9, 8, 7, dtype=torch.bool), torch.ones(2, 1, 9, 8, 7, dtype=torch.bool))
    paint(corrupt, images, maps)
    assert launches


@pytest.mark.parametrize("side", [224, 1024])
def test_plans(launches: list[tuple[str, int]], side: int) -> None:
    for corrupt in (ga.presets.gmml(), ga.presets.gmml_reference()):
        working = (True,) * len(corrupt.program.steps)
        fused_plan.plan(corrupt.program, Request(some_keys(2), (2, 3, side, side), working, 2, True))
    assert {name for name, _ in launches} == {"draw_streams", "settle_boxes", "count_boxes"}


def test_kernels_are_chosen_by_themselves_on_cuda_alone() -> None:
    program, shape = ga.presets.gmml().program, (2, 3, 8, 8)
    gpu, here = torch.device("cuda"), torch.device("cpu")
    for dtype in (None, torch.float32):
        assert base.choose("auto", program, shape, dtype, gpu) == backend_of("triton")
        assert base.choose("auto", program, shape, dtype, here) in (backend_of("cpu"), backend_of("reference"))
        assert base.choose("torch", program, shape, dtype, gpu) == backend_of("reference")
        with pytest.raises(ValueError, match=r'backend="fused" cannot do this: the kernels run on CUDA.*not on cpu'):
            base.choose("fused", program, shape, dtype, here)
    assert base.choose("auto", program, shape, torch.float64, gpu) == backend_of("reference")
