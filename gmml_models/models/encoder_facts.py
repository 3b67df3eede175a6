"""The facts about an encoder on a card: its shape, and the cost of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gmml_models.models.encoders import SHORT_NAMES, build_encoder, describe_encoder
from gmml_models.models.geometry import img_size, in_chans, patch_size

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


def shape_of(vit: VisionTransformer) -> dict[str, Any]:
    """Return the name of an encoder, if it has one, and its sizes.

    Returns:
        "name": one of `SHORT_NAMES`, or timm's if all arguments are those of the name, or None; "depth", "width", "heads",
        "patch_size"
        and "img_size": whole numbers, or [height, width].

    Raises:
        ValueError: as in `describe_encoder`.
    """
    architecture, told = describe_encoder(vit)
    arguments = {name: value for name, value in told.items() if name not in ("global_pool", "fc_norm")}  # of what comes after it
    short = [name for name, words in SHORT_NAMES.items() if arguments == words]
    patch, side = (list(pair) if pair[0] != pair[1] else pair[0] for pair in (patch_size(vit), img_size(vit)))
    return {
        "name": short[0] if short else None if arguments else architecture,
        "depth": len(vit.blocks),
        "width": vit.embed_dim,
        "heads": attention_of(vit.blocks[0]).num_heads,
        "patch_size": patch,
        "img_size": side,
    }


def gmacs(vit: VisionTransformer) -> float:
    """The multiply-adds of one image of the encoder's size, in units of 10^9: matrix products, convolutions and attention.

    They are counted on the meta device by torch's `FlopCounterMode`, which counts two operations each; norms, activations and
    softmax are not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    architecture, arguments = describe_encoder(vit)
    with torch.device("meta"):
        blank = build_encoder(architecture, **arguments).eval()
        images = torch.empty(1, in_chans(vit), *img_size(vit))
        for block in blank.blocks:
            attention_of(block).fused_attn = False  # the fused one is not counted on every device
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            blank(images)
    return float(counter.get_total_flops()) / 2e9


def attention_of(block: Any) -> Any:
    """The attention of a timm block, which timm's types do not declare."""
    return block.attn
