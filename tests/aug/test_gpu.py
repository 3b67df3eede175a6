"""What only a GPU can show: nothing waits, a CUDA graph captures a call, and the results are those of the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import gmml_aug as ga
from tests.helpers import DTYPES, plans_equal, random_images, some_keys

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CORRUPT = ga.presets.gmml(values=((0.5, 0.4, 0.3), (0.2, 0.3, 0.25)), zeros=0.3, budget=0.6)


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_waits_for_the_device(dtype: torch.dtype) -> None:
    images = torch.zeros(16, 3, 96, 96, dtype=dtype, device="cuda")
    keys = torch.arange(16, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    plan = CORRUPT.sample(images.shape, keys=keys)
    CORRUPT.apply(images, plan)
    CORRUPT.kinds(plan)
    CORRUPT(images)
    CORRUPT(images, generator=generator)
    CORRUPT(images, keys=keys, out=images)
    ga.patch_mask(CORRUPT(images, keys=keys, donors=images[:4].clone()).mask, 16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(64, 60), (224, 224)], ids=str)
def test_the_gpu_gives_what_the_cpu_gives(dtype: torch.dtype, size: tuple[int, ...]) -> None:
    images, keys = random_images((16, 3, *size), dtype), some_keys(16)
    plan, wanted = CORRUPT.sample(images.shape, keys=keys), CORRUPT(images, keys=keys)
    there = CORRUPT.sample(images.shape, keys=keys.cuda())
    assert plans_equal(there.to("cpu"), plan)
    found = CORRUPT(images.cuda(), keys=keys.cuda())
    assert torch.equal(found.mask.cpu(), wanted.mask)
    if dtype == torch.uint8:
        assert int((found.images.cpu().int() - wanted.images.int()).abs().max()) <= 1
    else:
        step = max(torch.finfo(dtype).eps, 1e-5)
        torch.testing.assert_close(found.images.cpu(), wanted.images, rtol=step, atol=step)


def test_a_cuda_graph_captures_a_call_and_replays_it_for_other_keys() -> None:
    images, keys = torch.randn(8, 3, 64, 64, device="cuda"), torch.arange(8, device="cuda")
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            CORRUPT(images, keys=keys)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = CORRUPT(images, keys=keys)
    for seed in range(3):
        keys.copy_(some_keys(8, seed).cuda())
        graph.replay()
        wanted = CORRUPT(images, keys=keys)
        assert torch.equal(captured.mask, wanted.mask)
        torch.testing.assert_close(captured.images, wanted.images)
