"""``--dry-run``: estimates the needs of a run, first by calculation, then by measuring a few steps whose result is discarded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from gmml_models.data.free_memory import free_memory
from gmml_models.data.sampling import Share
from gmml_models.train.config import TrainConfig, batch_of, epochs_of, parts_of
from gmml_models.train.progress import clock

if TYPE_CHECKING:
    from gmml_models.train.memory import Needs
    from gmml_models.train.parallel import Parallel
    from gmml_models.train.trainer import Outcome

STEPS = 3
_IMAGES = 8  # a step, on a CPU
_LONG = 24 * 3600.0  # seconds

Config = TypeVar("Config", bound=TrainConfig)


def told(
    run: Callable[[], Outcome],
    *,
    whole: TrainConfig,
    part: TrainConfig,
    images: int,
    model: nn.Module,
    memory: Needs,
    parallel: Parallel,
) -> Outcome:
    """Return the result of ``run``.

    For a dry run, one process also prints the needs of the whole run before, and its duration after.

    Args:
        run: a function that trains by the config ``part``.
        whole: the config of the run.
        part: which part of the run to do: all of it, or for ``--dry-run`` the `small_part`.
        images: the number of images to learn from.
        model: the complete model of the run.
        memory: the calculated memory of the run.
        parallel: the processes of the run.
    """
    if not (whole.dry_run and parallel.first):
        return run()
    share = Share(images=images, batch_size=batch_of(whole), accumulate=parts_of(whole), world=parallel.world)
    print(needs(whole, share, model, memory, free_memory(parallel.device)), flush=True)
    outcome = run()
    print(took(whole, share, part, outcome.quickest, parallel.device))
    return outcome


def small_part(config: Config, device: torch.device, world: int) -> Config:
    """The config of the measured steps: one part of a step (on a CPU only a few images of it), decoded without caching."""
    part = batch_of(config) // (parts_of(config) * world)
    part = part if device.type == "cuda" else min(part, _IMAGES)
    return replace(config, batch_size=part * world, accumulate=1, resident=False, workers=0)


def needs(config: TrainConfig, share: Share, model: nn.Module, memory: Needs, free: int | None) -> str:
    """Calculate what a run would need: parameters, memory, steps.

    Args:
        config: the config of the run.
        share: this process's share of the images.
        model: the complete model.
        memory: the calculated memory of the run.
        free: bytes that are free now, if known.
    """
    held = sum(one.numel() for one in model.parameters())
    learnt = sum(one.numel() for one in model.parameters() if one.requires_grad)
    resident = f"{memory.resident / 2**20:,.0f} MiB for resident images, " if memory.resident else ""
    there = "" if free is None else f"; {free / 2**20:,.0f} MiB are free"
    parts = f"{share.accumulate} part{'s' * (share.accumulate != 1)} a step"
    steps = share.steps_per_epoch * epochs_of(config)
    return (
        f"parameters: {held:,}, of which {learnt:,} are trained\n"
        f"memory: {memory.model / 2**20:,.0f} MiB for weights, gradients and optimiser, {resident}about "
        f"{share.part_size * memory.image / 2**20:,.0f} MiB for {share.part_size} images at once ({parts}){there}\n"
        f"steps: {steps:,} = {config.epochs} epochs of {share.steps_per_epoch} ({share.images:,} images)"
    )


def took(config: TrainConfig, share: Share, measured: TrainConfig, seconds: float, device: torch.device) -> str:
    """Estimate the time from the measured steps.

    Args:
        config: the config of the run.
        share: this process's share of the images.
        measured: the config of the measured steps.
        seconds: seconds per measured step, without waiting for data.
        device: the device on which they ran.
    """
    speed = batch_of(measured) / seconds
    total = share.steps_per_epoch * epochs_of(config) * batch_of(config) / speed
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else _resident_memory()
    advice = "\nThat is long for a CPU: --recipe small has settings for a CPU." if device.type == "cpu" and total > _LONG else ""
    return (
        f"time: {clock(total)} at {speed:.0f} img/s, measured with {measured.batch_size} images per step and without "
        "loading data; peak "
        f"{peak:,.0f} MiB on {device} in these steps{advice}"
    )


def _resident_memory() -> float:
    """The largest memory of this process so far, in MiB."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
