"""The teacher: a slow average of the student, in float32 whatever the student's dtype."""

from __future__ import annotations

import copy
from typing import Generic, Self, TypeVar, final

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.models.slow_state import SlowState, widen

Head = TypeVar("Head", bound=nn.Module)


@final
class Teacher(SlowState, Generic[Head]):
    """A copy of a student's autoencoder and head that takes no gradients and follows the student's weights.

    Its weights are float32 or wider: ``objective.bfloat16()`` leaves them as they are, and its passes over half-precision images go
    through `gmml_models.models.slow_state.computing_as`. The autoencoder is always in evaluation mode: no dropout, no drop path.
    The head follows the mode of the objective, so that batch norms see the batch while training.

    Args:
        autoencoder: the student's.
        head: the student's.
        momentum: how much of the teacher stays at a step, at the start of a run.

    Raises:
        ValueError: ``momentum`` outside [0, 1].

    Source:
        MC-SSL 3, "phi = lambda phi + (1 - lambda) theta", and 4.1, lambda from 0.996 to 1 along a cosine; SiT's release alike.
    """

    def __init__(self, autoencoder: GMMLAutoencoder, head: Head, momentum: float = 0.996) -> None:
        super().__init__()
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"Teacher: momentum={momentum} is outside [0, 1]. Give for example momentum=0.996.")
        self.momentum = momentum
        self.autoencoder = copy.deepcopy(autoencoder)
        self.autoencoder.set_grad_checkpointing(False)
        self.head: Head = copy.deepcopy(head)
        widen(self)
        self.requires_grad_(False)
        self.train(autoencoder.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the head; the autoencoder stays in evaluation mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    @torch.no_grad()
    def follow(self, autoencoder: GMMLAutoencoder, head: Head, momentum: float) -> None:
        """Move towards the student, all parameters in one call.

        Buffers of the autoencoder are copied; those of the head, statistics of what it has seen, are its own.

        Args:
            autoencoder: the student's.
            head: the student's.
            momentum: how much of the teacher stays.
        """
        mine = [*self.autoencoder.parameters(), *self.head.parameters()]
        theirs = [*autoencoder.parameters(), *head.parameters()]
        wide = [other if other.dtype == own.dtype else other.to(own.dtype) for own, other in zip(mine, theirs, strict=True)]
        get_ema_multi_avg_fn(momentum)(mine, wide, None)
        for own, other in zip(self.autoencoder.buffers(), autoencoder.buffers(), strict=True):
            own.copy_(other)
