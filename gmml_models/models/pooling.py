"""What an encoder says about images as one vector each: what probes, neighbours and classifier heads see.

B images, d the width of the encoder, N patch tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from gmml_models.models.encoders import all_tokens

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor

    from gmml_models.data.sampling import Batch

Pool = Literal["token", "mean", "both"]
POOLS: tuple[Pool, ...] = ("token", "mean", "both")


class Features(NamedTuple):
    """Vectors of a data set, in its order.

    Attributes:
        vectors: (images, d) or (images, 2 d) float32, on the CPU.
        labels: (images,) int64 classes or (images, c) float32 of 0 and 1, on the CPU; None without labels.
        numbers: (images,) int64, their numbers in the data set.
    """

    vectors: Tensor
    labels: Tensor | None
    numbers: Tensor


def pooled(encoder: VisionTransformer, images: Tensor, pool: Pool = "token") -> Tensor:
    """One vector an image, from the tokens of the last block after the final norm.

    Args:
        encoder: with its own pooling left out: whatever ``global_pool`` it was built with has no influence.
        images: (B, C, H, W), normalised.
        pool: "token", the class token; "mean", the mean of the patch tokens (registers and class token left out); "both", the
            class token and that mean one behind the other.

    Shapes:
        (B, C, H, W) -> (B, d), with "both" (B, 2 d).

    Raises:
        ValueError: an unknown ``pool``, or one that needs a class token where the encoder has none.

    Source:
        "token" is ViT's and GMML 3.1's (as DeiT), "mean" MC-SSL 4.3's, "both" the one that the authors of SiT published.
    """
    check_pool("pooled", encoder, pool)
    tokens = all_tokens(encoder, images)  # (B, prefix + N, d)
    if pool == "token":
        return tokens[:, 0]
    mean = tokens[:, encoder.num_prefix_tokens :].mean(1)
    return mean if pool == "mean" else torch.cat([tokens[:, 0], mean], dim=1)


def check_pool(who: str, encoder: VisionTransformer, pool: str) -> None:
    """Refuse a pooling that does not exist, or that this encoder cannot give.

    Raises:
        ValueError: naming what is allowed.
    """
    if pool not in POOLS:
        raise ValueError(f"{who}: pool={pool!r} is unknown. Allowed are 'token', 'mean' and 'both'.")
    if pool != "mean" and not encoder.has_class_token:
        raise ValueError(f"{who}: pool={pool!r} needs a class token, and this encoder has none. Give pool='mean'.")


def features(
    encoder: VisionTransformer, batches: Iterable[Batch], pool: Pool = "token", *, device: torch.device | str | None = None
) -> Features:
    """The vectors of all images, in evaluation mode and without gradients; the encoder's mode is as it was afterwards.

    Args:
        encoder: as `pooled`.
        batches: with ``views``, of which the first is used, ``labels`` and ``index``: `gmml_models.data.sampling.Batch`.
        pool: as `pooled`.
        device: where the encoder is; that of its parameters by default.

    Raises:
        ValueError: no batch, or as `pooled`.
    """
    where = torch.device(device) if device is not None else next(encoder.parameters()).device
    was_training, vectors, labels, numbers = encoder.training, [], [], []
    encoder.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                vectors.append(pooled(encoder, batch.views[0].to(where), pool).float().cpu())
                numbers.append(batch.index)
                if batch.labels is not None:
                    labels.append(batch.labels.cpu())
    finally:
        encoder.train(was_training)
    if not vectors:
        raise ValueError("features: no images came. Give one batch or more.")
    # clones outside the inference mode: its tensors could not be used where gradients are
    return Features(torch.cat(vectors).clone(), torch.cat(labels).clone() if labels else None, torch.cat(numbers))
