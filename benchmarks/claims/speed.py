"""How fast resident pretraining is, beside the same model's step on one fixed batch of made-up images."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims.images import open_images
from benchmarks.claims.rows import ROWS
from benchmarks.claims.run import machine
from benchmarks.training import bare_step, recipe_step
from gmml_models.recipes.config import PretrainConfig

_FOR_EVER = 1_000_000


def speed(data: Path, *, rounds: int = 5, steps: int | None = None) -> dict[str, Any]:
    """Measure the pretraining of ``gpu/gmml`` where there is a GPU, else that of ``main/caltech-gmml``.

    Both are run in turn, a block of steps each, and compared by their fastest blocks. The step on made-up images is forward, loss,
    backward, clipping and update; that of the recipe has crops, flips, jitter, blur, corruption, rates and log too.

    Args:
        data: the folder of the packs.
        rounds: blocks of each.
        steps: in a block; 50 on a GPU, 10 on a CPU.

    Returns:
        ``step`` and ``recipe`` in images a second, ``share`` of the one in the other, and what was measured where.
    """
    gpu = torch.cuda.is_available()
    row = next(one for one in ROWS if one.name == ("gpu/gmml" if gpu else "main/caltech-gmml"))
    assert row.pretrain is not None
    taken = 50 if gpu and steps is None else steps or 10
    with tempfile.TemporaryDirectory() as folder:
        config = replace(row.pretrain, out=Path(folder) / "run", epochs=_FOR_EVER)
        contenders = {
            "step": bare_step(config, config.batch_size * (config.views or 1)),
            "recipe": recipe_step(config, open_images(config.data, data).train),
        }
        fastest = in_turn(contenders, rounds=rounds, steps=taken)
    found = {name: config.batch_size / seconds for name, seconds in fastest.items()}
    about = {"row": row.name, "model": config.model, "batch_size": config.batch_size, "precision": precision(config)}
    return {**found, "share": found["recipe"] / found["step"], "rounds": rounds, "steps": taken, **about, "machine": machine()}


def in_turn(contenders: dict[str, Callable[[], object]], *, rounds: int, steps: int) -> dict[str, float]:
    """Seconds a step in the fastest block of each, after one block without a clock."""
    fastest = dict.fromkeys(contenders, float("inf"))
    for number in range(rounds + 1):
        for name, step in contenders.items():
            _wait()
            began = time.perf_counter()
            for _ in range(steps):
                step()
            _wait()
            if number:
                fastest[name] = min(fastest[name], (time.perf_counter() - began) / steps)
    return fastest


def precision(config: PretrainConfig) -> str:
    """That of the forward pass, as `gmml_models.recipes.config.TrainConfig` chooses it."""
    bf16 = config.precision == "bf16" or (config.precision == "auto" and torch.cuda.is_available() and not config.cpu)
    return "bf16" if bf16 else "fp32"


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
