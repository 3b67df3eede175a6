"""Detects features that collapse during training, by k-NN accuracy on a few hundred images, effective rank, and spread.

N images, d the width of the features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 10
_FLAT, _NARROW = 0.05, 2.0  # of the spread that it was; images that differ along one direction have rank 1


class Health(NamedTuple):
    """The health of features.

    Attributes:
        knn: the percentage of images whose class is predicted correctly by their 10 nearest neighbours among the others, weighted
            by cosine; None without classes.
        rank: the effective rank of the features around their mean, from 1 to d, which is the number of directions in which images
            differ.
        spread: the share of the features' squared length that differs between images, 0 to 1; it is near 0 if all features are
            the same.
    """

    knn: float | None
    rank: float
    spread: float


def health(features: Tensor, labels: Tensor | None = None) -> Health:
    """Measure the health of features.

    Args:
        features: one vector per image.
        labels: the classes, if they are known.

    Shapes:
        (N, d) float with N >= 2, (N,) int64.

    Raises:
        ValueError: there are fewer than two images, or features are not finite.

    Source:
        Roy and Vetterli, "The effective rank" (2007): the exponential of the entropy of the singular values' shares. RankMe
        (Garrido et al., 2023) uses it on features without subtracting the mean; subtracting it, and the spread, are our
        additions.
    """
    if features.ndim != 2 or len(features) < 2 or not torch.isfinite(features).all():
        raise ValueError(f"health: features {tuple(features.shape)} must be (N, d), finite, with at least two images.")
    vectors = features.double()
    around = vectors - vectors.mean(0)
    whole, differ = float(vectors.square().sum()), float(around.square().sum())
    values = torch.linalg.svdvals(around)
    shares = values / values.sum().clamp(min=1e-300)
    rank = float(torch.exp(-(shares * shares.clamp(min=1e-300).log()).sum()))
    told = None if labels is None or len(labels.unique()) < 2 else _one_out(features, labels)
    return Health(told, rank if differ > 0 else 1.0, differ / whole if whole else 0.0)


def collapsed(now: Health, before: Health) -> str:
    """Say why features have collapsed; empty if they have not.

    Features have collapsed if the spread is below a twentieth of the untrained encoder's, so that all images have nearly the same
    features, or if they differ along little more than one direction. Both limits are our choice. A falling rank alone is no sign
    of collapse: in our healthy runs it fell to a fifth.
    """
    if now.spread < _FLAT * before.spread:
        return f"all images have nearly the same features (spread {now.spread:.2g}, untrained {before.spread:.2g})"
    if now.rank < _NARROW and now.rank < before.rank:
        return f"features differ in little more than one direction (effective rank {now.rank:.1f}, untrained {before.rank:.1f})"
    return ""


def _one_out(features: Tensor, labels: Tensor) -> float:
    """The accuracy in percent, where the class of each image is predicted from all the others."""
    known = F.normalize(features.float(), dim=1)
    near = known @ known.T
    near.fill_diagonal_(-2.0)  # below every cosine
    values, which = near.topk(min(NEIGHBOURS, len(known) - 1), dim=1)
    weights = (values / 0.07).softmax(dim=1)
    votes = torch.zeros(len(known), int(labels.max()) + 1).scatter_add_(1, labels[which], weights)
    return 100 * float((votes.argmax(1) == labels).float().mean())
