"""What an encoder says about images: its class token, its patch tokens, and the features of chosen blocks.

B images, d the width of the encoder, (h, w) the grid of patches, N = h*w. Blocks count from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gmml_models.models.geometry import final_norm

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor


class Encoded(NamedTuple):
    """What an encoder says about images.

    Attributes:
        cls: (B, d) the class token of the last block after the final norm; None where the encoder has none.
        patches: (B, N, d) the patch tokens of the last block after the final norm.
        features: one (B, N, d) a chosen block: its patch tokens as they leave the block, without the final norm.
        grid: (h, w), rows and columns of patches.
    """

    cls: Tensor | None
    patches: Tensor
    features: tuple[Tensor, ...]
    grid: tuple[int, int]


def encode_tokens(encoder: VisionTransformer, images: Tensor, blocks: Sequence[int], grid: tuple[int, int]) -> Encoded:
    """Class token, patch tokens and the features of chosen blocks, in one pass.

    Args:
        encoder: timm's.
        images: (B, C, H, W), normalised, of a size that the patches divide.
        blocks: which blocks' features to return, counting from 1, ascending; () for none.
        grid: (h, w) of these images.
    """
    depth = len(encoder.blocks)
    asked = [block - 1 for block in blocks if block < depth]
    found: Any = encoder.forward_intermediates(
        images, indices=[*asked, depth - 1], output_fmt="NLC", intermediates_only=True, return_prefix_tokens=True
    )  # (B, N, d) a block, or pairs of it and the (B, P, d) prefix tokens
    prefixed = encoder.num_prefix_tokens > 0
    features = tuple(pair[0] for pair in found) if prefixed else tuple(found)
    norm = final_norm(encoder)
    cls = norm(found[-1][1][:, 0]) if encoder.has_class_token else None
    kept = features if depth in blocks else features[:-1]
    return Encoded(cls, norm(features[-1]), kept, grid)
