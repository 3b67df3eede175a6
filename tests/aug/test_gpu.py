"""What only a GPU can show: nothing waits, a CUDA graph captures a call, and the results are those of the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import gmml_aug as ga
from gmml_aug.backends import base
from gmml_aug.backends.base import Choice, backend_of
from gmml_aug.backends.call import Batch, Painted
from gmml_aug.program import Program
from tests.helpers import DTYPES, plans_equal, random_images, some_keys

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

VALUES = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
CORRUPTIONS = {"budget": ga.presets.gmml(values=VALUES, zeros=0.3, budget=0.6), "plain": ga.presets.gmml(values=VALUES)}
BACKENDS: tuple[Choice, ...] = ("torch", "fused")


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(params=[(backend, name) for backend in BACKENDS for name in CORRUPTIONS], ids=" ".join)
def way(request: pytest.FixtureRequest) -> tuple[Choice, ga.Corruption]:
    """A backend, and a corruption whose plans it makes by torch ("budget") or by kernels."""
    backend, name = request.param
    return backend, CORRUPTIONS[name]


def test_kernels_are_chosen_where_they_can_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[torch.dtype] = []
    backend, corrupt = backend_of("triton"), CORRUPTIONS["plain"]

    def noted(program: Program, batch: Batch, plan: ga.Plan) -> Painted:
        called.append(batch.dtype)
        return backend.paint(program, batch, plan)

    monkeypatch.setitem(base._LOADED, "triton", backend._replace(paint=noted))  # it was loaded by another file, perhaps
    for dtype in DTYPES:
        corrupt(random_images((4, 3, 32, 32), dtype).cuda())
    corrupt(torch.randn(4, 3, 32, 32, device="cuda"), backend="torch")
    corrupt(torch.randn(4, 3, 32, 32))
    assert called == [dtype for dtype in DTYPES if dtype != torch.float64]


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_waits_for_the_device(dtype: torch.dtype, way: tuple[Choice, ga.Corruption]) -> None:
    backend, corrupt = _for(dtype, way)
    images = torch.zeros(16, 3, 96, 96, dtype=dtype, device="cuda")
    keys = torch.arange(16, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    plan = corrupt.sample(images.shape, keys=keys, backend=backend)
    corrupt.apply(images, plan, backend=backend)
    corrupt.kinds(plan)
    corrupt(images, backend=backend)
    corrupt(images, generator=generator, backend=backend)
    corrupt(images, keys=keys, out=images, backend=backend)
    ga.patch_mask(corrupt(images, keys=keys, donors=images[:4].clone(), backend=backend).mask, 16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(64, 60), (224, 224)], ids=str)
def test_the_gpu_gives_what_the_cpu_gives(dtype: torch.dtype, size: tuple[int, ...], way: tuple[Choice, ga.Corruption]) -> None:
    backend, corrupt = _for(dtype, way)
    images, keys = random_images((16, 3, *size), dtype), some_keys(16)
    plan, wanted = corrupt.sample(images.shape, keys=keys), corrupt(images, keys=keys)
    there = corrupt.sample(images.shape, keys=keys.cuda(), backend=backend)
    assert plans_equal(there.to("cpu"), plan)
    found = corrupt(images.cuda(), keys=keys.cuda(), backend=backend)
    assert torch.equal(found.mask.cpu(), wanted.mask)
    if dtype == torch.uint8:
        assert int((found.images.cpu().int() - wanted.images.int()).abs().max()) <= 1
    else:
        step = max(torch.finfo(dtype).eps, 1e-5)
        torch.testing.assert_close(found.images.cpu(), wanted.images, rtol=step, atol=step)


def test_a_cuda_graph_captures_a_call_and_replays_it_for_other_keys(way: tuple[Choice, ga.Corruption]) -> None:
    backend, corrupt = way
    images, keys = torch.randn(8, 3, 64, 64, device="cuda"), torch.arange(8, device="cuda")
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            corrupt(images, keys=keys, backend=backend)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = corrupt(images, keys=keys, backend=backend)
    for seed in range(3):
        keys.copy_(some_keys(8, seed).cuda())
        graph.replay()
        wanted = corrupt(images, keys=keys, backend=backend)
        assert torch.equal(captured.mask, wanted.mask)
        torch.testing.assert_close(captured.images, wanted.images)


def _for(dtype: torch.dtype, way: tuple[Choice, ga.Corruption]) -> tuple[Choice, ga.Corruption]:
    backend, corrupt = way
    if backend == "fused" and dtype == torch.float64:
        pytest.skip("no kernels for float64")
    return backend, corrupt
