"""Processes that were seeded alike corrupt differently, by one rule for the plain call and every adapter."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

import gmml_aug as ga
from tests.helpers import some_keys

NOISE = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Noise())
IMAGES = torch.zeros(4, 3, 16, 16)


def masks(rank: int | None = None) -> dict[str, Tensor]:
    """What each way of calling makes of one seed."""
    ways: dict[str, Any] = {
        "call": lambda: NOISE(IMAGES, rank=rank).mask,
        "generator": lambda: NOISE(IMAGES, generator=torch.Generator().manual_seed(0), rank=rank).mask,
        "bytes": lambda: ga.presets.gmml(values="unit").from_bytes(IMAGES.to(torch.uint8), rank=rank, dtype=torch.float32).mask,
        "sample": lambda: NOISE.kinds(NOISE.sample(IMAGES.shape, rank=rank)),
        "module": lambda: ga.Module(NOISE, mask=True)(IMAGES, rank=rank).mask,
        "timm": lambda: ga.TimmCorrupt(NOISE)(IMAGES, None, rank=rank)[1]["mask"],
        "collate": lambda: ga.CollateCorrupt(NOISE, rank=rank)(list(IMAGES))["mask"],
    }
    if importlib.util.find_spec("torchvision"):
        ways["torchvision"] = lambda: ga.torchvision_adapter.Corrupt(NOISE, rank=rank)(IMAGES)[1].as_subclass(Tensor)
    if importlib.util.find_spec("kornia"):
        ways["kornia"] = lambda: _by_kornia(rank)
    found = {}
    for name, way in ways.items():
        torch.manual_seed(0)
        found[name] = way().clone()
    found["keys"] = NOISE(IMAGES, keys=some_keys(4)).mask
    return found


def _by_kornia(rank: int | None) -> Tensor:
    adapter: Any = ga.kornia_adapter.Corrupt(NOISE, rank=rank)
    adapter(IMAGES)
    return torch.as_tensor(adapter.mask())


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save({"own": masks(), "refused": masks(rank=0)}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_seeded_alike_corrupt_differently_unless_rank_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    spawn(one_of_two, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = masks()
    for name, mask in first["own"].items():
        assert torch.equal(mask, alone[name]), name  # rank 0 draws what one process draws
        assert torch.equal(mask, second["own"][name]) == (name == "keys"), name
        assert torch.equal(first["refused"][name], second["refused"][name]), name
        assert torch.equal(first["refused"][name], alone[name]), name


def test_the_rank_of_a_launcher_is_heard_without_a_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for told in ("0", "1", "rank 1"):
        monkeypatch.setenv("RANK", told)
        torch.manual_seed(0)
        found.append(NOISE(IMAGES).mask)
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert "RANK" in os.environ


def test_a_rank_that_is_none_is_refused_before_anything_is_drawn() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"rank=-1 is out of range"):
        NOISE(IMAGES, rank=-1)
    with pytest.raises(TypeError, match=r"rank='0' is not an integer"):
        NOISE(IMAGES, rank="0")  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)
