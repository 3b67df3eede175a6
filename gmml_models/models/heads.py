"""What is put on tokens while pretraining, and thrown away after it: concepts of MC-SSL, contrast of SiT."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@final
class ConceptHead(nn.Module):
    """Similarity of every token to ``classes`` learnt concepts: cosines, before any softmax.

    Three ``layers``, l2-normalised, then a linear layer without bias whose rows (``concepts``) are l2-normalised too.

    Args:
        width: d, of the tokens.
        classes: K, how many concepts.
        hidden: width of the two hidden layers.
        bottleneck: width of the third.
        gain: learn a factor for each concept (a full weight norm); otherwise it is fixed at 1.

    Shapes:
        tokens (..., d), float -> logits (..., K).

    Raises:
        ValueError: a size below 1; at the call, tokens of another width.

    Source:
        MC-SSL 3.2.2: two layers of 2048 with GELU, 256, l2-normalised, weight-normalised to K. K = 8192 and the gain fixed at 1
        are the release's; the start (normal, 0.02, cut at 2, as DINO) is ours.
    """

    def __init__(self, width: int, classes: int = 8192, hidden: int = 2048, bottleneck: int = 256, *, gain: bool = False) -> None:
        super().__init__()
        _check_sizes("ConceptHead", width=width, classes=classes, hidden=hidden, bottleneck=bottleneck)
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
        """Logits (..., K) of tokens (..., d)."""
        _check_width("ConceptHead", tokens, self.width, dims=None)
        direction = F.normalize(self.layers(tokens), dim=-1)  # (..., bottleneck)
        logits = F.linear(direction, F.normalize(self.concepts, dim=-1))
        return logits if self.gain is None else logits * self.gain


@final
class ContrastiveHead(nn.Module):
    """The embedding of an image, from its class token, that is compared with others.

    Linear, batch norm, ReLU; linear, batch norm, GELU; linear, batch norm without affine.

    Args:
        width: d, of the class token.
        hidden: width of the two hidden layers.
        out: width of the embedding.

    Shapes:
        class tokens (B, d), float -> (B, out).

    Raises:
        ValueError: a size below 1; at the call, another shape, or a single image while training.

    Source:
        The code that the authors of SiT published.
    """

    def __init__(self, width: int, hidden: int = 4096, out: int = 256) -> None:
        super().__init__()
        _check_sizes("ContrastiveHead", width=width, hidden=hidden, out=out)
        self.width = width
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.GELU(),
            nn.Linear(hidden, out),
            nn.BatchNorm1d(out, affine=False),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, out) of class tokens (B, d)."""
        _check_width("ContrastiveHead", tokens, self.width, dims=2)
        if self.training and len(tokens) < 2:
            raise ValueError(
                f"ContrastiveHead: batch norm needs two images or more to train on, but the batch holds {len(tokens)}. Give more "
                "images (drop_last=True in the DataLoader), or call eval()."
            )
        embedding: Tensor = self.layers(tokens)
        return embedding


def _check_sizes(who: str, **sizes: int) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{who}: {name}={size!r} is not a whole number above 0. Give for example {name}=256.")


def _check_width(who: str, tokens: Tensor, width: int, dims: int | None) -> None:
    if tokens.ndim < 1 or tokens.shape[-1] != width or dims not in (None, tokens.ndim):
        wanted = f"(..., {width})" if dims is None else f"(B, {width})"
        raise ValueError(
            f"{who}: tokens have shape {tuple(tokens.shape)}, not {wanted}. Give {'tokens' if dims is None else 'class tokens'} of "
            f"the encoder, or build the head with width={tokens.shape[-1] if tokens.ndim else 0}."
        )
