"""Pooling to one vector per image, for probes, k-NN and classifier heads.

B images, d the width of the encoder, N patch tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from gmml_models.models.encoders import all_tokens
from gmml_models.models.geometry import final_norm, source_of

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor

Pool = Literal["token", "mean", "both"]
POOLS: tuple[Pool, ...] = ("token", "mean", "both")
_MEASURED: dict[str, Pool] = {"gmml": "mean", "autoencoder": "mean", "mc_ssl": "mean", "sit": "both"}
_TRAINED: dict[str, Pool] = {"mc_ssl": "mean", "sit": "both"}


def pooled(encoder: VisionTransformer, images: Tensor, pool: Pool = "token", *, last_blocks: int = 1) -> Tensor:
    """Pool the tokens of the last block or blocks, after the final norm, to one vector per image.

    Args:
        encoder: the encoder; the ``global_pool`` that it was built with has no influence.
        images: (B, C, H, W), normalised.
        pool: "token", the class token; "mean", the mean of the patch tokens (without registers and class token); "both", the
            class token and that mean, concatenated.
        last_blocks: the number of blocks whose vectors are concatenated, the last block's at the end.

    Shapes:
        (B, C, H, W) -> (B, last_blocks d), with "both" (B, 2 last_blocks d).

    Raises:
        ValueError: ``pool`` is unknown, or needs a class token that the encoder does not have; or there are fewer blocks.

    Source:
        "token" is used by ViT and GMML 3.1 (as in DeiT), "mean" by MC-SSL 4.3, "both" by the code that the authors of SiT
        published. DINO concatenates the class tokens of the last four blocks (Caron et al., 2021, appendix).
    """
    check_pool("pooled", encoder, pool, last_blocks=last_blocks)
    parts: list[Tensor] = []
    for tokens in _last_tokens(encoder, images, last_blocks):  # (B, prefix + N, d)
        if pool != "mean":
            parts.append(tokens[:, 0])
        if pool != "token":
            parts.append(tokens[:, encoder.num_prefix_tokens :].mean(1))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _last_tokens(encoder: VisionTransformer, images: Tensor, blocks: int) -> list[Tensor]:
    """The tokens of the last blocks, each after the final norm and in the form of `all_tokens`; the earliest first."""
    if blocks == 1:
        return [all_tokens(encoder, images)]
    found: Any = encoder.forward_intermediates(
        images, indices=blocks, norm=False, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
    )
    norm = final_norm(encoder)
    return [norm(torch.cat([prefix, patches], dim=1)) for patches, prefix in found]


def measured_pool(about: Mapping[str, Any]) -> Pool:
    """The pooling that weights are evaluated with, and whose features loaders return.

    Args:
        about: the ``gmml`` part of a folder's config.json. Its ``classifier`` or ``pool`` may state the pooling; otherwise it
            depends on the objective: the mean of the patch tokens for GMML (which does not train the class token) and MC-SSL,
                "both" for SiT, otherwise the class token.
    """
    return _told(about) or _MEASURED.get(str(about.get("objective")), "token")


def tuned_pool(about: Mapping[str, Any]) -> Pool:
    """The pooling for fine-tuning: as in `measured_pool`, except for GMML, where it is the class token (3.1, as in DeiT).

    Args:
        about: as `measured_pool`.
    """
    classifier = about.get("classifier")
    told = _told({"classifier": classifier}) if isinstance(classifier, Mapping) else None
    return told or _TRAINED.get(str(about.get("objective")), "token")


def own_pool(encoder: VisionTransformer) -> Pool:
    """The pooling that an encoder was built with, if we support it."""
    return "mean" if encoder.global_pool == "avg" or not encoder.has_class_token else "token"


def assumed(encoder: VisionTransformer, about: Mapping[str, Any]) -> dict[str, str]:
    """What decides the pooling of an autoencoder's features if ``about`` does not: the objective that its weights began with.

    Nothing is assumed of weights of others, who may have trained the class token. Weights of unknown origin are taken for those of
    an autoencoder, which does not train it: their features are the mean of the patch tokens.
    """
    if {"objective", "pool", "classifier"} & set(about):
        return {}
    kind = (source_of(encoder) or {}).get("kind")
    return {"pool": "mean"} if kind is None else {"objective": kind} if kind in _MEASURED else {}


def _told(about: Mapping[str, Any]) -> Pool | None:
    classifier = about.get("classifier")
    told = (classifier.get("pool") if isinstance(classifier, Mapping) else None) or about.get("pool")
    return next((pool for pool in POOLS if pool == told), None)


def check_pool(who: str, encoder: VisionTransformer, pool: str, *, last_blocks: int = 1) -> None:
    """Refuse a pooling that does not exist or that this encoder does not support.

    Raises:
        ValueError: the pooling is not supported; the message says what is allowed.
    """
    if pool not in POOLS:
        raise ValueError(f"{who}: pool={pool!r} is unknown. Allowed: 'token', 'mean' and 'both'.")
    if pool != "mean" and not encoder.has_class_token:
        raise ValueError(f"{who}: pool={pool!r} needs a class token, but this encoder has none. Give pool='mean'.")
    if type(last_blocks) is not int or not 1 <= last_blocks <= len(encoder.blocks):
        raise ValueError(
            f"{who}: last_blocks={last_blocks!r}, but this encoder has {len(encoder.blocks)} blocks. Give a number from 1 to that."
        )
