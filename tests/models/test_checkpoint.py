"""Checkpoints: whole or absent, without pickles, bit for bit."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from gmml_models.errors import UsageError
from gmml_models.train import checkpoint


def trained(seed: int, steps: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 2))
    model[2].bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.01)
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    inputs = torch.arange(20.0).view(4, 5).sin()
    model(inputs).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def test_a_restored_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained(1)
    path = checkpoint.write(tmp_path, 3, checkpoint.gather(model, optimizer), {"sums": {"loss": 0.1 + 0.2}})
    other, its = trained(2, steps=0)
    checkpoint.restore(other, its, checkpoint.read(path))
    assert checkpoint.read_facts(path)["sums"]["loss"] == 0.1 + 0.2
    for _ in range(3):
        step(model, optimizer)
        step(other, its)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_an_optimiser_without_a_step_stays_without_one(tmp_path: Path) -> None:
    model, optimizer = trained(1, steps=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = checkpoint.write(tmp_path, 0, checkpoint.gather(model, optimizer), {})
    assert not optimizer.state
    other, its = trained(2, steps=0)
    checkpoint.restore(other, its, checkpoint.read(path))
    assert not its.state
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in before.items())


def test_there_is_no_pickle_in_it(tmp_path: Path) -> None:
    path = checkpoint.write(tmp_path, 1, checkpoint.gather(*trained(1)), {})
    assert sorted(file.name for file in path.iterdir()) == ["state.json", "state.safetensors"]
    with safe_open(path / "state.safetensors", "pt") as file:
        names = set(file.keys())
    assert {"model/0.weight", "model/1.running_mean", "optimizer/exp_avg/0.weight", "optimizer/step/2.weight"} <= names


def test_the_newest_stay_and_the_others_go_after_it(tmp_path: Path) -> None:
    tensors = {"model/a": torch.zeros(2)}
    for number in (1, 2, 30, 4):
        checkpoint.write(tmp_path, number, tensors, {}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000030"]
    assert checkpoint.newest(tmp_path) == tmp_path / "step-00000030"
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_what_a_kill_left_is_no_checkpoint_and_is_cleared(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 1, {"model/a": torch.zeros(2)}, {})
    half = tmp_path / "step-00000002.77.part"
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    assert checkpoint.newest(tmp_path) == tmp_path / "step-00000001"
    checkpoint.clear_remains(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@contextmanager
def disk_that_ends_after(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_the_last_good_one_stays(tmp_path: Path) -> None:
    good = checkpoint.write(tmp_path, 1, {"model/a": torch.zeros(2)}, {})
    with disk_that_ends_after(100_000), pytest.raises(OSError, match="too large"):
        checkpoint.write(tmp_path, 2, {"model/a": torch.zeros(100_000)}, {})
    assert [path.name for path in tmp_path.iterdir()] == [good.name]
    assert torch.equal(checkpoint.read(good)["model/a"], torch.zeros(2))


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "json", "lie"])
def test_damage_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    path = checkpoint.write(tmp_path, 1, {"model/a": torch.zeros(1000)}, {})
    file = path / "state.safetensors"
    data = bytearray(file.read_bytes())
    match damage:
        case "flip":
            data[-1] ^= 1
            file.write_bytes(data)
        case "cut":
            os.truncate(file, len(data) // 2)
        case "gone":
            file.unlink()
        case "json":
            (path / "state.json").write_text("{")
        case "lie":
            (path / "state.json").write_text('{"step": 1}')
    with pytest.raises(UsageError, match=r"damaged.*Remove this folder"):
        checkpoint.read(path)


def test_another_model_does_not_fit() -> None:
    tensors = checkpoint.gather(*trained(1))
    other = nn.Linear(5, 7)
    with pytest.raises(RuntimeError, match=r"0\.weight"):
        checkpoint.restore(other, torch.optim.AdamW(other.parameters()), tensors)
