"""MC-SSL's figure 1, patch tokens in a few clusters, and figures 5 to 9, the learnt concepts of the patches in one cluster.

B images, (h, w) the grid of patches, N = h*w, d the width of the encoder, K the concepts of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from gmml_models.models.encoders import all_tokens, evaluating
from gmml_models.models.geometry import check_images
from gmml_models.models.heads import ConceptHead

Array = np.ndarray[Any, Any]
_STARTS = 10  # of k-means, the best of which is taken


def concepts(vit: VisionTransformer, images: Tensor, clusters: Sequence[int] = (2, 3, 4), *, seed: int = 0) -> Tensor:
    """Assign every patch to a cluster, by k-means on the l2-normalised patch tokens of all images together.

    A cluster number means the same in every image. In the smallest clustering, the first cluster is the most central one in the
    images. In larger ones, each cluster keeps the number of the cluster in the previous clustering with which it shares most
    patches, and new ones follow. Equal seeds give equal labels, whatever the order of the images.

    Args:
        vit: the encoder; it runs in evaluation mode and without gradients, and its mode is restored afterwards.
        images: (B, C, H, W), normalised, float, on the device of the encoder.
        clusters: the numbers of clusters, in ascending order.
        seed: the seed of k-means.

    Returns:
        (len(clusters), B, h, w) int64 from 0, on the CPU.

    Raises:
        ImportError: scikit-learn is not installed.
        TypeError: the images are not float.
        ValueError: the images do not fit the encoder, or ``clusters`` are not ascending whole numbers from 2 to the number of
            patches.

    Source:
        MC-SSL 3.3 and figure 1: "the output features corresponding to the data-tokens", "clustered, employing simple k-means, into
        2, 3, and 4 clusters". The normalisation, clustering all images together (the paper does not say; otherwise a colour would
        mean something else in every image) and the order are our choice.
    """
    grid = check_images("concepts", vit, images)
    wanted = tuple(clusters)
    patches = len(images) * grid[0] * grid[1]
    whole = all(isinstance(count, int) and not isinstance(count, bool) for count in wanted)
    if not wanted or not whole or wanted != tuple(sorted(set(wanted))) or not 2 <= wanted[0] <= wanted[-1] <= patches:
        raise ValueError(
            f"concepts: clusters={clusters!r} are not distinct, ascending whole numbers from 2 to {patches}, the patches of these "
            "images. Give, for example, (2, 3, 4)."
        )
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ImportError(
            "concepts: k-means needs scikit-learn, which is not installed. Run pip install '.[train]' in a clone of the repository."
        ) from error
    tokens = F.normalize(_patch_tokens(vit, images).float(), dim=-1).flatten(0, 1).cpu().numpy()  # (B*N, d)
    order = np.lexsort(tokens[:, :8].T)  # an order that follows from the tokens, not from the images'
    away = np.tile(_from_the_middle(grid), len(images))
    found: list[Array] = []
    for count in wanted:
        labels = np.empty(len(tokens), dtype=np.int64)
        labels[order] = KMeans(count, n_init=_STARTS, random_state=seed).fit(tokens[order]).labels_
        found.append(_numbered(labels, count, away, found[-1] if found else None))
    return torch.from_numpy(np.stack(found)).reshape(len(wanted), len(images), *grid)


def concept_probabilities(
    vit: VisionTransformer,
    head: ConceptHead,
    images: Tensor,
    where: Tensor,
    *,
    center: Tensor | None = None,
    temperature: float = 0.04,
) -> Tensor:
    """Compute the probability of each of the head's concepts in an image, as the mean over chosen patches.

    Args:
        vit: the encoder; it runs in evaluation mode and without gradients, and its mode is restored afterwards.
        head: the concept head that was trained with the encoder; the teacher's, if there is one.
        images: (B, C, H, W), normalised, float, on the device of encoder and head.
        where: (B, h, w) bool, the chosen patches, for example ``concepts(vit, images)[0] == 0``.
        center: (K,) numbers to subtract from the logits, for example the teacher's centre; none by default.
        temperature: the number by which the logits are divided after that.

    Returns:
        (B, K) float32 on the device of the images. Rows sum to one, or are all 0 for an image without a chosen patch.

    Raises:
        TypeError: the images are not float.
        ValueError: the images do not fit the encoder, ``where`` does not fit the images, the head has another width, or the
            temperature is not above 0.

    Source:
        MC-SSL figures 5 to 9, "Average of the probabilities corresponding to the dominant concept". Probabilities are the teacher's
        (3.2.2), with its centre and the temperature of 4.1, as in the loss.
    """
    grid = check_images("concept_probabilities", vit, images)
    if where.dtype != torch.bool or tuple(where.shape) != (len(images), *grid):
        raise ValueError(
            f"concept_probabilities: where is {where.dtype} {tuple(where.shape)}. Allowed: torch.bool "
            f"{(len(images), *grid)}, one value per patch."
        )
    if not temperature > 0.0:
        raise ValueError(f"concept_probabilities: temperature={temperature} is not above 0. Give, for example, 0.04.")
    with torch.no_grad(), evaluating(head):
        logits: Tensor = head(_patch_tokens(vit, images)).float()  # (B, N, K)
        centred = logits if center is None else logits - center
        probabilities = (centred / temperature).softmax(-1)
    chosen = where.flatten(1).to(probabilities.device)[..., None]  # (B, N, 1)
    return (probabilities * chosen).sum(1) / chosen.sum(1).clamp(min=1)


def _patch_tokens(vit: VisionTransformer, images: Tensor) -> Tensor:
    """(B, N, d) patch tokens after the final norm."""
    with torch.no_grad(), evaluating(vit):
        return all_tokens(vit, images)[:, vit.num_prefix_tokens :]


def _from_the_middle(grid: tuple[int, int]) -> Array:
    """(N,) the distance of each patch from the middle of the image, whose sides have length 1."""
    rows, columns = ((np.arange(side) + 0.5) / side - 0.5 for side in grid)
    return np.hypot(rows[:, None], columns[None, :]).reshape(-1)


def _numbered(labels: Array, count: int, away: Array, before: Array | None) -> Array:
    """Renumber clusters: the most central comes first, or each gets the number of the cluster in ``before`` that it overlaps."""
    distance = [away[labels == number].mean() if (labels == number).any() else np.inf for number in range(count)]
    kept: dict[int, int] = {}
    if before is not None:
        shared = np.zeros((before.max() + 1, count))
        np.add.at(shared, (before, labels), 1)
        for _ in range(len(shared)):  # the largest overlap first
            number, cluster = map(int, np.unravel_index(shared.argmax(), shared.shape))
            kept[cluster] = number
            shared[number, :] = shared[:, cluster] = -1
    free = iter(sorted(set(range(count)) - set(kept.values())))
    others = sorted(set(range(count)) - set(kept), key=lambda cluster: distance[cluster])
    kept.update({cluster: next(free) for cluster in others})
    return np.array([kept[cluster] for cluster in range(count)])[labels]
