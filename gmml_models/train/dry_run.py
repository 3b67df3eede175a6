"""``--dry-run``: what a run would need, measured on a few steps that are thrown away."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gmml_models.data.sampling import Feed
from gmml_models.train.config import TrainConfig
from gmml_models.train.progress import clock

STEPS = 4


def needs(
    config: TrainConfig, feed: Feed, model: nn.Module, trained: Sequence[Tensor], device: torch.device, seconds: float
) -> str:
    """What a run would need: parameters, memory, steps, time.

    Args:
        config: of the run.
        feed: its images.
        model: all that it holds.
        trained: what learns of it.
        device: where it is.
        seconds: a step, without waiting for data.
    """
    total = feed.steps_per_epoch * config.epochs
    held, learnt = sum(one.numel() for one in model.parameters()), sum(one.numel() for one in trained)
    fixed = (4 * held + 12 * learnt) / 2**20  # float32: weights, gradients, two moments
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else _resident_memory()
    return (
        f"parameters: {held:,}, of which {learnt:,} learn\n"
        f"memory: {fixed:,.0f} MiB for weights, gradients and optimiser; peak {peak:,.0f} MiB on {device} in these steps\n"
        f"steps: {total:,} = {config.epochs} epochs of {feed.steps_per_epoch} ({feed.images:,} images)\n"
        f"time: {clock(seconds * total)} at {seconds:.2f} s a step ({config.batch_size / seconds:.0f} img/s), data not counted"
    )


def _resident_memory() -> float:
    """The largest memory of this process so far, in MiB."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
