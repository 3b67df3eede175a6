"""What an encoder says about images as one vector each: what probes, neighbours and classifier heads see.

B images, d the width of the encoder, N patch tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from gmml_models.models.encoders import all_tokens

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor

Pool = Literal["token", "mean", "both"]
POOLS: tuple[Pool, ...] = ("token", "mean", "both")


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
