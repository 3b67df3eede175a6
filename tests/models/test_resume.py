"""A run that is killed again and again ends at the weights of the run that never was, bit for bit."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gmml_models.recipes.config import PretrainConfig
from tests.models.runs import Pictures, finish, kill_somewhere, newest, result, rows, small, start

PICTURES = Pictures()
FULL = {
    "checkpoint_every": 2,
    "method": "mc_ssl",
    "classes": 64,
    "head_width": 64,
    "local_views": 1,
    "local_size": 8,
    "drop_path": 0.2,
}  # teacher, centre, local views


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    config = small(folder / "run", **FULL)
    finish(start(config, PICTURES, folder / "log"), folder / "log")
    return config.out  # type: ignore[no-any-return]


def killed(folder: Path, kills: int, seed: int, world: int = 1) -> PretrainConfig:
    config: PretrainConfig = small(folder / "run", **FULL)
    chance, done = random.Random(seed), 0
    for _ in range(4 * kills):
        done += kill_somewhere(config, PICTURES, folder / "log", chance, world)
        if done == kills or newest(config.out / "checkpoints") == "step-00000020":
            break
    assert done >= min(kills, 3), f"only {done} kills hit a run that was at work"
    finish(start(config, PICTURES, folder / "log", world), folder / "log")
    return config


def test_three_kills_change_no_bit(straight: Path, tmp_path: Path) -> None:
    config = killed(tmp_path, 3, seed=5)
    assert result(config.out) == result(straight)
    assert not list(config.out.rglob("*.part"))


def test_two_ctrl_c_in_a_row_change_no_bit(straight: Path, tmp_path: Path) -> None:
    config: PretrainConfig = small(tmp_path / "run", **FULL)
    assert kill_somewhere(config, PICTURES, tmp_path / "log", random.Random(3), gently=True)
    finish(start(config, PICTURES, tmp_path / "log"), tmp_path / "log")
    assert result(config.out) == result(straight)
    assert not list(config.out.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("gently", [False, True], ids=["killed", "Ctrl-C twice"])
def test_twenty_kills_change_no_bit(tmp_path: Path, gently: bool) -> None:
    longer = {**FULL, "epochs": 12}
    one = small(tmp_path / "straight", **longer)
    finish(start(one, PICTURES, tmp_path / "log"), tmp_path / "log", seconds=3600)  # on a machine with other work
    other = small(tmp_path / "killed", **longer)
    chance, done = random.Random(7), 0
    for _ in range(60):
        done += kill_somewhere(other, PICTURES, tmp_path / "log", chance, gently=gently)
        if done == 20:
            break
    assert done == 20
    finish(start(other, PICTURES, tmp_path / "log"), tmp_path / "log", seconds=3600)
    assert result(other.out) == result(one.out)


def test_two_processes_that_are_killed_change_no_bit(tmp_path: Path) -> None:
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    one = small(tmp_path / "straight" / "run", **FULL)
    log = tmp_path / "straight" / "log"
    finish(start(one, PICTURES, log, world=2), log)
    other = killed(tmp_path / "killed", 3, seed=6, world=2)
    assert result(other.out) == result(one.out)


NOISE = {"corruption": "InBoxes(Boxes(ratio=0.4), Noise())", "drop_path": 0.0}  # what does not ask who else is in the batch


@pytest.mark.parametrize("method", ["gmml", "mc_ssl"])
def test_processes_and_parts_only_change_who_computes(tmp_path: Path, method: str) -> None:
    found = {}
    for name, world, parts in (("whole", 1, 1), ("parts", 1, 2), ("processes", 2, 1)):
        config = small(tmp_path / name, method=method, classes=32, head_width=64, accumulate=parts, checkpoint_every=0, **NOISE)
        finish(start(config, PICTURES, tmp_path / "log", world), tmp_path / "log")
        found[name] = rows(config.out / "epochs.jsonl")
    losses = {name: torch.tensor([float(row["loss"]) for row in some]) for name, some in found.items()}
    assert losses["whole"].std() > 0  # it does learn: equal curves of a model that stands still would say nothing
    for name in ("parts", "processes"):
        torch.testing.assert_close(losses[name], losses["whole"], rtol=2e-4, atol=2e-5)
        norms = [torch.tensor([float(row["grad_norm"]) for row in found[one]]) for one in (name, "whole")]
        torch.testing.assert_close(*norms, rtol=5e-3, atol=1e-4)


def test_a_finished_run_says_so_and_stays(straight: Path, tmp_path: Path) -> None:
    before = result(straight)
    config = small(straight, **FULL)
    finish(start(config, PICTURES, tmp_path / "log"), tmp_path / "log")
    assert result(straight) == before
    assert "Next" in (tmp_path / "log").read_text()


def test_a_resume_with_another_config_or_other_data_is_refused(straight: Path, tmp_path: Path) -> None:
    before = result(straight)
    config = small(straight, **FULL)
    for changed, data, words in (
        (replace(config, lr=0.1), PICTURES, "lr: 0.0005 -> 0.1"),
        (config, Pictures(count=48), "images: 40 -> 48"),
    ):
        log = tmp_path / f"{len(data)}.log"
        (process,) = start(changed, data, log)
        process.join(120)
        assert process.exitcode == 1
        assert words in log.read_text()
    assert result(straight) == before
