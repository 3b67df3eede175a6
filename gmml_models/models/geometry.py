"""Properties of an encoder that all models check before any work: the form of its images, and its blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

_FRACTIONS = ((1, 2), (2, 3), (5, 6), (1, 1))
_INTERPOLATIONS = ["nearest", "bilinear", "bicubic", "lanczos", "hamming", "box", "random"]  # timm's words
_SOURCE = "gmml_source"  # the attribute of an encoder that says where its weights are from
_CROPS = ["center", "squash", "border"]


def img_size(vit: VisionTransformer) -> tuple[int, int]:
    """(height, width) of the images that an encoder was built for."""
    height, width = vit.patch_embed.img_size
    return height, width


def patch_size(vit: VisionTransformer) -> tuple[int, int]:
    """(height, width) of a patch."""
    height, width = vit.patch_embed.patch_size
    return height, width


def in_chans(vit: VisionTransformer) -> int:
    """The number of channels of the images."""
    channels: int = vit.patch_embed.proj.in_channels
    return channels


def check_images(who: str, vit: VisionTransformer, images: Tensor) -> tuple[int, int]:
    """Return the grid (h, w) of the images' patches.

    Args:
        who: the name of the caller, for errors.
        vit: the encoder.
        images: (B, C, H, W), float.

    Raises:
        TypeError: the images are not float.
        ValueError: the images have another rank, other channels, or a size that is not a multiple of the patch size.
    """
    channels = in_chans(vit)
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(
            f"{who}: images have shape {tuple(images.shape)}, not (B, {channels}, H, W). Give a batch of images, or build the "
            "model with another in_chans."
        )
    if not images.is_floating_point():
        raise TypeError(
            f"{who}: images are {images.dtype}, not a float type. Normalise them first: (images / 255 - mean) / std, per channel."
        )
    (height, width), (down, across) = images.shape[2:], patch_size(vit)
    if height % down or width % across or not height or not width:
        raise ValueError(
            f"{who}: images of {height} x {width} are not a whole number of patches of {down} x {across}. Resize or crop them, for "
            f"example to {max(down, height - height % down)} x {max(across, width - width % across)}."
        )
    return height // down, width // across


def check_blocks(who: str, blocks: Sequence[int], depth: int, *, example: Sequence[int], least: int = 1) -> tuple[int, ...]:
    """Check chosen blocks of an encoder, counting from 1.

    Args:
        who: the name of the caller, for errors.
        blocks: the blocks to check.
        depth: number of blocks of the encoder.
        example: blocks that the error suggests.
        least: smallest number of blocks to choose.

    Raises:
        ValueError: there are too few blocks, or they are not distinct, ascending whole numbers from 1 to the depth.
    """
    chosen = tuple(blocks)
    whole = all(isinstance(block, int) and not isinstance(block, bool) for block in chosen)
    if not whole or len(chosen) < least or chosen != tuple(sorted(set(chosen) & set(range(1, depth + 1)))):
        raise ValueError(
            f"{who}={blocks!r} are not distinct, ascending whole numbers from 1 to {depth}, the depth of this encoder. Give for "
            f"example {tuple(example)}."
        )
    return chosen


def statistics(
    who: str, vit: VisionTransformer, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation per channel: the given ones, or else those of `preprocessing`.

    Args:
        who: the name of the caller, for errors.
        vit: the encoder.
        mean: the mean per channel, or None.
        std: the standard deviation per channel, or None.

    Raises:
        ValueError: there is not one finite number per channel, or ``std`` is not above 0.
    """
    own = preprocessing(vit)
    means = _per_channel(who, "mean", mean, own["mean"])
    stds = _per_channel(who, "std", std, own["std"])
    if min(stds) <= 0:
        raise ValueError(f"{who}: std={stds} must be above 0. Give the standard deviation of each channel.")
    return means, stds


def preprocessing(vit: VisionTransformer) -> dict[str, Any]:
    """How images are prepared for an encoder: mean, std, interpolation, crop_pct and, if it is not the centre, crop_mode.

    They are taken from the encoder's ``pretrained_cfg`` if it is for this number of channels; otherwise they are ImageNet's
    statistics for three channels (0 and 1 otherwise), bicubic, and a crop of 0.9 (1.0 for images below 160 pixels).
    """
    channels = in_chans(vit)
    said = getattr(vit, "pretrained_cfg", None)
    said = said if isinstance(said, Mapping) else {}
    rgb = channels == 3
    found: dict[str, Any] = {
        "mean": IMAGENET_DEFAULT_MEAN if rgb else (0.0,) * channels,
        "std": IMAGENET_DEFAULT_STD if rgb else (1.0,) * channels,
        "interpolation": "bicubic",
        "crop_pct": 0.9 if min(img_size(vit)) >= 160 else 1.0,
    }
    for name in ("mean", "std"):
        numbers = said.get(name)
        if isinstance(numbers, (tuple, list)) and len(numbers) == channels and all(map(_is_number, numbers)):
            found[name] = tuple(map(float, numbers))
    if _is_number(said.get("crop_pct")) and said["crop_pct"] > 0:
        found["crop_pct"] = float(said["crop_pct"])
    for name, known in (("interpolation", _INTERPOLATIONS), ("crop_mode", _CROPS)):
        if said.get(name) in known:
            found[name] = said[name]
    return found


def tell(vit: VisionTransformer, facts: Mapping[str, Any]) -> None:
    """Write the preprocessing into an encoder's ``pretrained_cfg``, which timm reads, with missing entries from `preprocessing`.

    Args:
        vit: the encoder.
        facts: the preprocessing under timm's names; it replaces the previous content of ``pretrained_cfg``.
    """
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    told: Any = vit
    told.pretrained_cfg = {
        "input_size": (in_chans(vit), *img_size(vit)),
        "fixed_input_size": True,
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        **plain,
    }
    told.pretrained_cfg |= preprocessing(vit)
    told.default_cfg = told.pretrained_cfg  # timm's older name for it


def remember(encoder: VisionTransformer, source: Mapping[str, Any]) -> None:
    """Record the origin of an encoder's weights, for the config and card of models that are saved with it.

    Args:
        encoder: the encoder.
        source: the file, sha256, kind and network, as far as they are known.
    """
    setattr(encoder, _SOURCE, dict(source))


def source_of(encoder: VisionTransformer) -> dict[str, Any] | None:
    """The origin recorded by `remember`; empty if there is none."""
    noted = getattr(encoder, _SOURCE, None)
    return dict(noted) if noted else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _per_channel(who: str, name: str, values: Sequence[float] | None, default: Sequence[float]) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in (default if values is None else values))
    if len(numbers) != len(default) or not all(math.isfinite(number) for number in numbers):
        raise ValueError(
            f"{who}: {name}={values!r} is not {len(default)} finite numbers, one per channel. Give, for example, "
            f"{name}={tuple(float(value) for value in default)}."
        )
    return numbers


def default_blocks(depth: int) -> tuple[int, ...]:
    """The blocks nearest to a half, two thirds, five sixths and all of the depth, counting from 1; ties round up.

    Source:
        GMML 2.3: 6, 8, 10 and 12 of 12. The blocks for other depths are our choice.
    """
    return tuple(sorted({max(1, (2 * depth * part + whole) // (2 * whole)) for part, whole in _FRACTIONS}))


def final_norm(vit: VisionTransformer) -> nn.Module:
    """The norm after the last block; with average pooling, timm has another name for it."""
    norm: nn.Module = vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm
    return norm
