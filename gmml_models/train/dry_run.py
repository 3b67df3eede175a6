"""``--dry-run``: what a run would need, measured on a few steps that are thrown away."""

from __future__ import annotations

import sys
import time
from itertools import islice

import torch

from gmml_models.train.job import Job, Outcome
from gmml_models.train.progress import clock
from gmml_models.train.trainer import Training


def rehearse(job: Job, steps: int = 3) -> Outcome:
    """Take a few steps, keep nothing, and print what the run would need: parameters, memory, steps, time."""
    training = Training(job)
    device, total = training.accelerator.device, training.total
    model_size, learnt = sum(p.numel() for p in job.model.parameters()), sum(p.numel() for p in training.trained)
    fixed = (4 * model_size + 12 * learnt) / 2**20  # float32: weights, gradients, two moments
    training.model.train()
    times: list[float] = []
    for batches in islice(job.feed.epoch(0), 1 + steps):
        began = time.monotonic()
        training.one(batches)
        times.append(time.monotonic() - began)
    step = min(times[1:] or times)
    gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if gpu else _resident_memory()
    if training.accelerator.is_main_process:
        print(
            f"parameters: {model_size:,}, of which {learnt:,} learn\n"
            f"memory: {fixed:,.0f} MiB for weights, gradients and optimiser; peak {peak:,.0f} MiB on {device} in these steps\n"
            f"steps: {total:,} = {job.config.epochs} epochs of {training.per_epoch} ({job.feed.images:,} images)\n"
            f"time: {clock(step * total)} at {step:.2f} s a step ({job.config.batch_size / step:.0f} img/s), data not counted"
        )
    return Outcome(
        finished=False,
        steps=0,
        skipped=0,
        history=(),
        seconds=sum(times),
        images_per_second=job.config.batch_size / step,
        waiting=0.0,
    )


def _resident_memory() -> float:
    """The largest memory of this process so far, in MiB."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
