"""Losses on label scores.

B images, c labels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from gmml_models.losses.pixels import same


def multi_label_loss(logits: Tensor, targets: Tensor, *, reduction: Literal["batchmean", "mean", "sum"] = "batchmean") -> Tensor:
    """The asymmetric loss of timm, with the values of MC-SSL: gamma- 4, gamma+ 0, no clip.

    Args:
        logits: the scores before the sigmoid.
        targets: 1 if the label applies, otherwise 0; soft targets work too.
        reduction: "batchmean" sums over the labels and averages over the images, "mean" averages over both, "sum" sums over both.

    Shapes:
        (B, c) float, (B, c) of any type -> () float32.

    Raises:
        TypeError: the logits are not float.
        ValueError: the shapes differ or are not (B, c), the batch is empty, or the ``reduction`` is unknown.

    Source:
        MC-SSL 4.2; its equation 5 averages over the labels, which is "mean". "batchmean" is timm's default today.
    """
    from timm.loss.asymmetric_loss import AsymmetricLossMultiLabel  # the other losses do without timm

    if reduction not in ("batchmean", "mean", "sum"):
        raise ValueError(f"multi_label_loss: reduction={reduction!r} is unknown. Allowed: 'batchmean', 'mean' and 'sum'.")
    scores, wanted = same("multi_label_loss", logits=logits, targets=targets.to(logits.dtype))
    if scores.ndim != 2:
        raise ValueError(
            f"multi_label_loss: logits have shape {tuple(scores.shape)}, not (B, c). Give one score per image and label."
        )
    loss = AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=0, clip=0)
    # as one image: timm's default reduction was the sum once and is the mean over images now, and the two agree here
    total: Tensor = loss(scores.reshape(1, -1), wanted.reshape(1, -1))
    return total / {"batchmean": len(scores), "mean": scores.numel(), "sum": 1}[reduction]
