"""GMML's figure 3: which tokens of an image attend to which others, block by block; this works with fused attention too.

B images, L blocks, P prefix tokens (class token and registers), (h, w) the grid of patches, N = h*w, T = P + N tokens. Blocks count
from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from timm.models import vision_transformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gmml_models.models.encoders import evaluating
from gmml_models.models.geometry import check_blocks, check_images

_LAYER: Any = vision_transformer.Attention  # type: ignore[attr-defined]  # where all versions of timm have it
Query = Literal["cls", "mean"] | tuple[int, int]


class Attention(NamedTuple):
    """Attention weights.

    Attributes:
        weights: (B, L, T, T) float32, the mean over heads, or (B, L, heads, T, T): row t is the attention of token t to every
            token. Rows sum to one.
        grid: (h, w), the numbers of rows and columns of patches.
        has_class_token: True if the first token is the class token.
        blocks: (L,) the blocks.
    """

    weights: Tensor
    grid: tuple[int, int]
    has_class_token: bool
    blocks: tuple[int, ...]

    @property
    def prefix(self) -> int:
        """P, the number of tokens before the patches."""
        return self.weights.shape[-1] - self.grid[0] * self.grid[1]

    def between_patches(self) -> Tensor:
        """Return the mean over the images, for patches only: (L, N, N), or (L, heads, N, N).

        Rows sum to one minus the attention to the prefix tokens.
        """
        return self.weights[..., self.prefix :, self.prefix :].mean(0)

    def seen_from(self, query: Query) -> Tensor:
        """Return the attention to every patch: (B, L, h, w), or (B, L, heads, h, w).

        Args:
            query: the token whose attention is returned: ``"cls"`` for the class token, ``"mean"`` for the mean over all patches,
                or (row, column) for one patch.

        Raises:
            ValueError: the query is unknown, the encoder has no class token, or the patch is outside the grid.
        """
        rows = self.weights[..., self.prefix :]  # (..., T, N)
        height, width = self.grid
        if query == "cls":
            if not self.has_class_token:
                raise ValueError("attention: query='cls', but the encoder has no class token. Give 'mean', or (row, column).")
            seen: Tensor = rows[..., 0, :]
        elif query == "mean":
            seen = rows[..., self.prefix :, :].mean(-2)
        elif isinstance(query, tuple) and len(query) == 2 and 0 <= query[0] < height and 0 <= query[1] < width:
            seen = rows[..., self.prefix + query[0] * width + query[1], :]
        else:
            raise ValueError(
                f"attention: query={query!r} is unknown. Allowed: 'cls', 'mean' and (row, column) of a patch, from (0, 0) to "
                f"({height - 1}, {width - 1})."
            )
        return seen.reshape(*seen.shape[:-1], *self.grid)


def attention(vit: VisionTransformer, images: Tensor, blocks: Sequence[int] | None = None, *, heads: bool = False) -> Attention:
    """Compute the attention weights of an encoder on images.

    They are computed from the queries and keys of each layer, separately from the encoder's own attention, which may stay fused.
    The encoder runs in evaluation mode and without gradients; its mode is restored afterwards. The result takes 4 B L T T bytes,
    times the number of heads with ``heads``.

    Args:
        vit: the encoder.
        images: (B, C, H, W), normalised, float, on the device of the encoder.
        blocks: the blocks to use, in ascending order; all by default.
        heads: True to return each head separately.

    Raises:
        TypeError: the images are not float.
        ValueError: the images do not fit the encoder, the encoder does not have the blocks, or their attention layers are not
            timm's `Attention`.

    Source:
        GMML figure 3, "Visualization of average attention from block 2, 4, 6, 8, and 10": `Attention.between_patches` is our
        interpretation of it ("block diagonal dominant lines", 3.2). The paper does not say whether the average is over heads,
        images or
        both; here it is over both.
    """
    grid = check_images("attention", vit, images)
    depth = len(vit.blocks)
    every = tuple(range(1, depth + 1))
    chosen = every if blocks is None else check_blocks("attention: blocks", blocks, depth, example=every)
    layers: list[Any] = [getattr(vit.blocks[block - 1], "attn", None) for block in chosen]
    for block, layer in zip(chosen, layers, strict=True):
        if not isinstance(layer, _LAYER):
            raise ValueError(  # noqa: TRY004  # of the encoder's value, whose type is right
                f"attention: block {block} of this encoder has {type(layer).__name__} where timm's Attention is expected, so its "
                "queries and keys cannot be computed. Give an encoder with plain blocks."
            )
    found: dict[int, Tensor] = {}

    def keep(number: int, layer: Any) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            query, key, _value = output.unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, T, d) each
            query, key = layer.q_norm(query).float(), layer.k_norm(key).float()
            weights = ((query * layer.scale) @ key.transpose(-2, -1)).softmax(-1)  # (B, heads, T, T)
            found[number] = weights if heads else weights.mean(1)

        return hook

    handles = [layer.qkv.register_forward_hook(keep(number, layer)) for number, layer in enumerate(layers)]
    try:
        with torch.no_grad(), evaluating(vit):
            vit.forward_intermediates(images, indices=[chosen[-1] - 1], stop_early=True, intermediates_only=True, output_fmt="NLC")
    finally:
        for handle in handles:
            handle.remove()
    return Attention(torch.stack([found[number] for number in range(len(chosen))], 1), grid, vit.has_class_token, chosen)
