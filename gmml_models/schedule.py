"""Schedules of learning rate, weight decay and a teacher's momentum, as pure functions of the step: there is no state to save."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final


def cosine(start: float, end: float, progress: float) -> float:
    """Interpolate from ``start`` to ``end`` along half a cosine; ``progress`` is clamped to [0, 1]."""
    done = min(max(progress, 0.0), 1.0)
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * done))


@final
@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate and weight decay of every step of a run.

    The learning rate rises linearly from 0 to ``lr`` over ``warmup`` steps, then falls to ``min_lr`` along a cosine; the weight
    decay follows one cosine over the whole run.

    Args:
        steps: the number of steps of the run, above 0.
        warmup: the number of steps over which the rate rises; limited to half of the run, so that short trials learn too.
        lr: the peak.
        min_lr: the learning rate at the end, at most ``lr``.
        weight_decay: the weight decay at the start.
        weight_decay_end: the weight decay at the end.

    Source:
        GMML 3.1 for the cosine of the weight decay, 0.04 to 0.4; warm-up and cosine of the learning rate come from the authors'
        release. Limiting the warm-up is our addition.
    """

    steps: int
    warmup: int
    lr: float
    min_lr: float
    weight_decay: float
    weight_decay_end: float

    def progress(self, step: int) -> float:
        """The share of the run before this step, in [0, 1]."""
        return step / max(self.steps - 1, 1)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counting from 0; it is above 0 even in the first step."""
        warmup = min(self.warmup, self.steps // 2)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        return cosine(self.lr, min(self.min_lr, self.lr), (step - warmup) / max(self.steps - 1 - warmup, 1))

    def weight_decay_at(self, step: int) -> float:
        """The weight decay of a step, counting from 0."""
        return cosine(self.weight_decay, self.weight_decay_end, self.progress(step))
