"""Nearest neighbours, which show how good features are without learning anything on top of them.

N training images, M test images, d the width of the features, c classes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

_AT_ONCE = 1 << 24  # similarities, 64 MB


def knn(
    train: Tensor, labels: Tensor, test: Tensor, *, k: int = 20, classes: int | None = None, temperature: float | None = 0.07
) -> Tensor:
    """Score test images by the labels of their nearest training images, measured by cosine.

    If weighted, neighbour i votes with exp(cosine / temperature) for its class, or for each of its labels. If plain
    (``temperature=None``), each neighbour votes with 1, and a tie goes to the class with the nearest image.

    Args:
        train: features of the training images.
        labels: the classes of these images, or, for several labels per image, 0 or 1 for each label.
        test: features of the test images.
        k: the number of neighbours; if there are fewer training images, all of them are used.
        classes: c; by default the largest class that occurs, plus one.
        temperature: the temperature of the weights.

    Shapes:
        (N, d) float, (N,) int64 or (N, c) of 0 and 1, (M, d) float -> (M, c) float32: shares of the votes, which sum to 1 for
        classes and lie in [0, 1] for each label. In the plain vote for classes, the rank that breaks ties contributes less than 1
        / k to a score.

    Raises:
        ValueError: there is no training image, ``k`` is below 1, ``temperature`` is not above 0, or the shapes do not fit.

    Source:
        The weighted vote and 0.07: Wu et al., "Unsupervised feature learning via non-parametric instance discrimination" (2018)
        3.4, with k = 200; k = 20 is DINO's (Caron et al., 2021). Neither GMML nor MC-SSL reports it. For several labels, the
        weighted share of the neighbours that have the label is our addition; ML-kNN (Zhang and Zhou, 2007) adds a prior.
    """
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1] or len(labels) != len(train) or not len(train):
        raise ValueError(
            f"knn: features {tuple(train.shape)} with labels {tuple(labels.shape)} and {tuple(test.shape)} do not fit. Give "
            "(N, d), (N,) or (N, c), and (M, d), with at least one training image."
        )
    if k < 1 or (temperature is not None and not 0 < temperature < math.inf):
        raise ValueError(
            f"knn: k={k} and temperature={temperature}: both must be above 0. Give, for example, k=20, temperature=0.07."
        )
    several = labels.ndim == 2
    count = labels.shape[1] if several else classes or int(labels.max()) + 1
    k = min(k, len(train))
    wanted = labels.float() if several else F.one_hot(labels, count).float()
    known = F.normalize(train.float(), dim=1)
    found = []
    for part in F.normalize(test.float(), dim=1).split(max(1, _AT_ONCE // len(train))):
        near, which = (part @ known.T).topk(k, dim=1)  # (m, k), nearest first
        weights = torch.ones_like(near) if temperature is None else (near / temperature).softmax(dim=1)
        votes = torch.einsum("mk,mkc->mc", weights, wanted[which])
        if temperature is None:
            votes = votes / k
            if not several:  # less than one vote, so that it decides between equals only
                votes = votes - _first(wanted[which]) / (k * (k + 1))
        found.append(votes)
    return torch.cat(found) if found else test.new_zeros(0, count)


def _first(votes: Tensor) -> Tensor:
    """(m, k, c) of 0 and 1 -> (m, c), the rank of the first neighbour of each class, or k if there is none."""
    k = votes.shape[1]
    ranks = torch.arange(k, device=votes.device, dtype=votes.dtype)[None, :, None]
    return torch.where(votes > 0, ranks, float(k)).amin(dim=1)
