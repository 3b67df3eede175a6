"""Builds the autoencoder that an objective trains, from a name or around an encoder; or takes a given one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.models.encoders import build_encoder
from gmml_models.models.patches import Target


def build_autoencoder(
    who: str,
    encoder: str | VisionTransformer | GMMLAutoencoder,
    *,
    blocks: Sequence[int] | None,
    decoder: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    target: Target | None,
    default: str,
    last: bool,
    options: dict[str, Any],
) -> GMMLAutoencoder:
    """Build or return the autoencoder of an objective.

    Args:
        who: the name of the caller, for errors.
        encoder: a name, a timm `VisionTransformer`, or an autoencoder, which is returned unchanged.
        blocks: as in `GMMLAutoencoder`.
        decoder: as in `GMMLAutoencoder`.
        mean: as in `GMMLAutoencoder`.
        std: as in `GMMLAutoencoder`.
        target: as in `GMMLAutoencoder`.
        default: the default decoder of the objective.
        last: True if the objective decodes only the last block unless ``blocks`` are given.
        options: other options of `GMMLAutoencoder`.
    """
    if isinstance(encoder, GMMLAutoencoder):
        given = {"blocks": blocks, "decoder": decoder, "mean": mean, "std": std, "target": target, **options}
        surplus = sorted(name for name, value in given.items() if value is not None)
        if surplus:
            raise ValueError(
                f"{who}: {', '.join(surplus)} cannot be combined with an autoencoder that is already built. Give them "
                "to GMMLAutoencoder, or "
                "give the name of the encoder instead."
            )
        return encoder
    vit = build_encoder(encoder, **options)
    if blocks is None and last:
        blocks = (len(vit.blocks),)
    return GMMLAutoencoder(vit, blocks=blocks, decoder=decoder or default, mean=mean, std=std, target=target or "pixels")
