"""The concept head on tokens, which is used for pretraining only (SiT's head is in the module of its objective)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@final
class ConceptHead(nn.Module):
    """Similarity of every token to ``classes`` learnt concepts, as cosines before any softmax.

    The output of three ``layers`` is l2-normalised and passed to a linear layer without bias, whose rows (``concepts``) are
    l2-normalised too.

    Args:
        width: d, the width of the tokens.
        classes: K, the number of concepts.
        hidden: width of the two hidden layers.
        bottleneck: width of the third layer.
        gain: True to learn a factor for each concept (a full weight norm); otherwise it is fixed at 1.

    Shapes:
        tokens (..., d), float -> logits (..., K).

    Raises:
        ValueError: a size is below 1; at the call, the tokens have another width.

    Source:
        MC-SSL 3.2.2: two layers of 2048 with GELU, 256, l2-normalised, weight-normalised to K. K = 8192 and the gain fixed at 1
        come from the release; the initialisation (normal, 0.02, cut at 2, as in DINO) is our choice.
    """

    def __init__(self, width: int, classes: int = 8192, hidden: int = 2048, bottleneck: int = 256, *, gain: bool = False) -> None:
        super().__init__()
        check_sizes("ConceptHead", width=width, classes=classes, hidden=hidden, bottleneck=bottleneck)
        self.width, self.classes = width, classes
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.concepts = nn.Parameter(torch.empty(classes, bottleneck))
        self.gain = nn.Parameter(torch.ones(classes)) if gain else None
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.concepts)  # only the directions count, and these are uniform

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute the logits (..., K) of tokens (..., d)."""
        if tokens.ndim < 1 or tokens.shape[-1] != self.width:
            raise ValueError(
                f"ConceptHead: tokens have shape {tuple(tokens.shape)}, not (..., {self.width}). Give tokens of the encoder, or "
                f"build the head with width={tokens.shape[-1] if tokens.ndim else 0}."
            )
        direction = F.normalize(self.layers(tokens), dim=-1)  # (..., bottleneck)
        logits = F.linear(direction, F.normalize(self.concepts, dim=-1))
        return logits if self.gain is None else logits * self.gain


def check_sizes(who: str, **sizes: int) -> None:
    """Refuse impossible layer widths."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{who}: {name}={size!r} is not a whole number above 0. Give, for example, {name}=256.")
