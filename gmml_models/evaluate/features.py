"""The features of a whole data set, for probes and k-NN."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch

from gmml_models.models.pooling import Pool, pooled

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor

    from gmml_models.data.sampling import Batch


class Features(NamedTuple):
    """The feature vectors of a data set, in its order.

    Attributes:
        vectors: (images, d) float32, on the CPU, where d is the width of what `pooled` returns.
        labels: (images,) int64 classes or (images, c) float32 of 0 and 1, on the CPU; None without labels.
        numbers: (images,) int64, the indices of the images in the data set.
    """

    vectors: Tensor
    labels: Tensor | None
    numbers: Tensor


def features(
    encoder: VisionTransformer,
    batches: Iterable[Batch],
    pool: Pool = "token",
    *,
    last_blocks: int = 1,
    device: torch.device | str | None = None,
) -> Features:
    """Compute the feature vectors of all images, in evaluation mode and without gradients.

    The encoder's mode is restored afterwards.

    Args:
        encoder: as in `pooled`.
        batches: batches with ``views``, of which the first is used, ``labels`` and ``index``; see
            `gmml_models.data.sampling.Batch`.
        pool: as in `pooled`.
        last_blocks: as in `pooled`.
        device: the device of the encoder; by default that of its parameters.

    Raises:
        ValueError: there is no batch; also as in `pooled`.
    """
    where = torch.device(device) if device is not None else next(encoder.parameters()).device
    was_training, vectors, labels, numbers = encoder.training, [], [], []
    encoder.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                vectors.append(pooled(encoder, batch.views[0].to(where), pool, last_blocks=last_blocks).float().cpu())
                numbers.append(batch.index)
                if batch.labels is not None:
                    labels.append(batch.labels.cpu())
    finally:
        encoder.train(was_training)
    if not vectors:
        raise ValueError("features: no images were given. Give at least one batch.")
    # clones outside the inference mode: its tensors could not be used where gradients are
    return Features(torch.cat(vectors).clone(), torch.cat(labels).clone() if labels else None, torch.cat(numbers))
