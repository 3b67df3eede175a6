"""The module that a fine-tuning run trains and saves: the classifier and, optionally, a moving average of its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Self, final

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from gmml_models.models.classifier import Classifier
from gmml_models.models.slow_state import keeping_width, widen

_WARM = 10  # steps, of the rise of the decay


@final
class Tuning(nn.Module):
    """A classifier with an exponential moving average of its weights; all of it is in the state_dict, so a run can be resumed.

    The average is float32 or wider, whatever the dtype of the classifier.

    Args:
        classifier: the classifier that is trained.
        decay: the decay of the average, in [0, 1); 0 for no average.

    Raises:
        ValueError: ``decay`` is outside [0, 1).

    Source:
        The rule is that of timm's ModelEma; the decay rises from 0.1 as (1 + n) / (10 + n) with the steps n, so that short runs are
        not averaged with their random start (TensorFlow's rule). This is our own option: DeiT's recipe in the papers has no
        average.
    """

    steps: Tensor

    def __init__(self, classifier: Classifier, decay: float = 0.0) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"Tuning: decay={decay} is outside [0, 1). Give, for example, 0.9998, or 0 for none.")
        self.classifier = classifier
        self.decay = decay
        self.average = copy.deepcopy(classifier).requires_grad_(False) if decay else None
        if self.average is not None:
            widen(self.average)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor, *, average: bool = False) -> Tensor:
        """Compute logits (B, c); with ``average``, those of the average, if there is one."""
        model = self.best if average else self.classifier
        logits: Tensor = model(images)
        return logits

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        average, self.average = self.average, None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch gives it no types
        kept = keeping_width(fn)
        self.average = None if average is None else average._apply(kept, recurse)  # type: ignore[no-untyped-call]  # likewise
        return self

    @property
    def best(self) -> Classifier:
        """The model that is measured and saved: the average, if there is one."""
        return self.classifier if self.average is None else self.average

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the average towards the classifier, after each step that is not skipped."""
        if self.average is None:
            return
        done = self.steps.float()
        self.steps += 1
        rate = 1.0 - ((1.0 + done) / (_WARM + done)).clamp(max=self.decay)  # a tensor: asking for its value would wait
        for average, weight in zip(self.average.parameters(), self.classifier.parameters(), strict=True):
            average.lerp_(weight.to(average.dtype), rate.to(average.dtype))
        for held, buffer in zip(self.average.buffers(), self.classifier.buffers(), strict=True):
            held.copy_(buffer)

    def discard(self) -> None:
        """Do nothing, because a skipped step changes nothing in this module."""


def layer_scales(classifier: Classifier, decay: float) -> dict[str, float]:
    """Learning rate factors by parameter name: ``decay`` for the last block and its norm, its square for the one before, and so on.

    Args:
        classifier: the classifier, whose encoder is divided into layers by timm's ``group_matcher``.
        decay: the decay, above 0 and at most 1.

    Source:
        BEiT's rule, as in timm; it is our own option, which neither GMML nor MC-SSL uses.
    """
    layers: dict[str, int] = group_parameters(classifier.encoder, classifier.encoder.group_matcher(coarse=False), reverse=True)
    last = max(layer for name, layer in layers.items() if name.startswith("blocks."))
    return {f"encoder.{name}": decay ** (last + 1 - min(layer, last)) for name, layer in layers.items()}
