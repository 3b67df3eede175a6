"""What a step of pretraining costs beside the model itself, on the resident path; and what data in workers costs.

The model's own step is forward, loss, backward, clipping and AdamW on one fixed batch; a step of the recipe has also the crops,
flips, jitter and blur of new images, the corruption, the rates, the log and the shared numbers. Run with
``python -m benchmarks.training``; writes ``benchmarks/results/training.json``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gmml_models as gm
from benchmarks.timing import about_this_machine, alternate
from gmml_models.data.loaders import make_feed
from gmml_models.data.sources import open_source
from gmml_models.recipes.config import PretrainConfig
from gmml_models.recipes.pretraining import build_objective, view_plan
from gmml_models.train.config import batch_of, known
from gmml_models.train.optim import clip_gradients, parameter_groups
from gmml_models.train.parallel import start_processes
from gmml_models.train.run_folder import RunFolder
from gmml_models.train.trainer import train_steps

RESULTS = Path(__file__).parent / "results" / "training.json"
MODEL, BATCH, IMAGES, STEPS = "vit_micro_patch8_64", 64, 256, 20


@dataclass(frozen=True)
class Pictures:
    """Smooth random pictures, a little larger than the input."""

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> np.ndarray:  # uint8 (H, W, 3)
        coarse = np.random.default_rng(index).integers(0, 256, (10, 10, 3), dtype=np.uint8)
        return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


def bare_step(config: PretrainConfig, batch: int) -> Callable[[], object]:
    """The model of a config alone, on one fixed batch, with its device and precision."""
    torch.manual_seed(0)
    parallel = start_processes(config)
    device = parallel.device
    model = gm.GMMLAutoencoder(config.model, drop_path_rate=config.drop_path).to(device).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, {}), lr=1e-4, fused=device.type == "cuda")
    clean = torch.randn(batch, 3, *model.img_size, device=device)
    mask = torch.rand(batch, 1, *model.img_size, device=device) < 0.5
    if config.compile:
        model.compile()

    def step() -> None:
        with parallel.autocast():
            loss = gm.masked_l1(model(clean), clean, mask)
        loss.backward()
        clip_gradients([parameter.grad for parameter in model.parameters() if parameter.grad is not None], 3.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def recipe_step(config: PretrainConfig, dataset: Any) -> Callable[[], object]:
    """A step of ``gmml pretrain`` with everything in it.

    Args:
        config: of a run with enough epochs that it never ends.
        dataset: any map data set.
    """
    parallel = start_processes(config)
    objective = build_objective(config)
    feed = make_feed(
        open_source(config, dataset=dataset),
        view_plan(config, objective.autoencoder),
        batch_size=batch_of(config),
        device=parallel.device,
        workers=config.workers,
        resident=config.resident,
        resident_size=config.resident_size,
    )

    going = train_steps(config, objective, feed, RunFolder(config).start(), parallel)
    return lambda: next(going)


def speed(config: PretrainConfig, dataset: Any, *, rounds: int = 5, steps: int | None = None) -> dict[str, Any]:
    """How fast the recipe is, beside the same model's step on one fixed batch of made-up images.

    Both are run in turn, a block of steps each, and compared by their fastest blocks.

    Args:
        config: of a pretraining.
        dataset: its images.
        rounds: blocks of each.
        steps: in a block; 50 on a GPU, 10 on a CPU.

    Returns:
        ``step`` and ``recipe`` in images a second, ``share`` of the one in the other, and what was measured.
    """
    gpu = torch.cuda.is_available()
    steps, batch = steps or (50 if gpu else 10), batch_of(config)

    def block(step: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            for _ in range(steps):
                step()
            if gpu:
                torch.cuda.synchronize()

        return run

    with tempfile.TemporaryDirectory() as folder:
        endless = replace(config, out=Path(folder) / "run", epochs=1_000_000)
        contenders = {"step": bare_step(endless, batch * known(config.views or 1)), "recipe": recipe_step(endless, dataset)}
        times = alternate({name: block(step) for name, step in contenders.items()}, rounds=rounds)
    found = {name: batch * steps / one.minimum * 1e3 for name, one in times.items()}
    bf16 = config.precision == "bf16" or (config.precision == "auto" and gpu and not config.cpu)
    about = {"model": config.model, "batch_size": batch, "precision": "bf16" if bf16 else "fp32"}
    return {**found, "share": found["recipe"] / found["step"], "rounds": rounds, "steps": steps, **about}


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = PretrainConfig(model=MODEL, batch_size=BATCH, epochs=100_000, cpu=True, workers=0, data="pictures")
        resident, decoded = (replace(config, out=Path(folder) / str(kept), resident=kept) for kept in (True, False))
        times = alternate(
            {
                "the model alone, the same number of views": bare_step(config, 2 * BATCH),
                "the recipe, resident": recipe_step(resident, Pictures()),
                "the recipe, decoded in the process": recipe_step(decoded, Pictures()),
            },
            rounds=STEPS,
        )
    alone = times["the model alone, the same number of views"].minimum
    figures = {
        name: {
            "minimum_s": taken.minimum / 1e3,
            "median_s": taken.median / 1e3,
            "images_per_second": BATCH / taken.minimum * 1e3,
            "outside_the_model": taken.minimum / alone - 1,
        }
        for name, taken in times.items()
    }
    for name, one in figures.items():
        print(
            f"{name:45s} {one['minimum_s'] * 1e3:7.1f} ms  {one['images_per_second']:6.1f} img/s  {one['outside_the_model']:+.1%}"
        )
    about = {**about_this_machine(), "model": MODEL, "batch": BATCH, "views": 2, "steps": STEPS}
    RESULTS.write_text(json.dumps({"about": about, "figures": figures}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
