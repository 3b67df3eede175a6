"""Patches normalised by their own mean and standard deviation, and the conversion back to pixels.

B images, C channels, S their one to three spatial axes, G the grid of patches: S divided by the patch, axis by axis. All channels
of a patch share one mean and one standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Target = Literal["pixels", "normalised"]
TARGETS: tuple[Target, ...] = ("pixels", "normalised")
EPS = 1e-6
"""The number added to the variance of a patch, so that a uniform patch becomes zeros."""
_NEAR, _WHOLE = 0.1, 1e-3  # weight of the neighbouring patches, and of the whole image, in the contrast of a hidden patch
_ROUNDS = 4  # of smoothing on every scale, when hidden pixels are filled in: more gains little


class PatchStatistics(NamedTuple):
    """The statistics that patches are normalised by.

    Attributes:
        mean: (B, 1, *G) float32 or wider, over all channels and pixels of a patch.
        std: (B, 1, *G), the standard deviation in the same form, above 0.
    """

    mean: Tensor
    std: Tensor


def check_target(who: str, target: str) -> None:
    """Raise an error if a target is unknown.

    Raises:
        ValueError: the target is unknown; the message says what is allowed.
    """
    if target not in TARGETS:
        raise ValueError(f"{who}: target={target!r} is unknown. Allowed: {' and '.join(map(repr, TARGETS))}.")


def patch_statistics(images: Tensor, patch: int | Sequence[int], *, seen: Tensor | None = None) -> PatchStatistics:
    """Compute the mean and standard deviation of every patch, over its pixels and channels.

    The variance is unbiased (divided by n - 1), and `EPS` is added to it before the root. With ``seen``, only visible pixels
    count: the mean is that of the patch after its hidden pixels have been filled in smoothly from their surroundings
    (`fill_hidden`). For the standard deviation of a partly hidden patch, its neighbours and the whole image are added with a
    small weight, which grows with the hidden share; for a completely hidden patch they alone determine it. An image without a
    known pixel has mean 0 and standard deviation 1.

    Args:
        images: float images; half precision is computed in float32.
        patch: side of a patch, or one side per axis.
        seen: True where the pixel is known; all of them by default.

    Shapes:
        (B, C, *S) float, (B, 1, *S) bool -> two tensors (B, 1, *G).

    Raises:
        TypeError: the images are not float, or ``seen`` is not bool.
        ValueError: the patch does not divide the images or has only one value, or ``seen`` has another shape.

    Source:
        The mean and standard deviation "of all pixels in a patch": He et al., "Masked autoencoders are scalable vision learners"
        (2021), 3. The unbiased variance and 1e-6 come from its release; the paper does not mention them. The estimate for
        partly hidden patches is our own.
    """
    sides = _sides("patch_statistics", images, patch)
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    folded, axes = _fold(images, sides), tuple(range(1, 2 * len(sides) + 2, 2))
    if seen is None:
        var, mean = torch.var_mean(folded, axes, keepdim=True)
        return PatchStatistics(_grid(mean, sides), _grid((var + EPS).sqrt(), sides))
    wanted = (len(images), 1, *images.shape[2:])
    if seen.dtype != torch.bool:
        raise TypeError(f"patch_statistics: seen is {seen.dtype}, not bool. Give True where the pixel is known, for example ~mask.")
    if seen.shape != wanted:
        raise ValueError(f"patch_statistics: seen has shape {tuple(seen.shape)}; allowed: {wanted}. Give one value per pixel.")
    hidden = ~seen
    known = images.masked_fill(hidden, 0.0)
    count = seen.flatten(1).sum(1) * images.shape[1]
    centre = (known.flatten(1).sum(1) / count.clamp(min=1)).reshape(-1, *(1,) * (images.ndim - 1))  # moments about it lose less
    known = (images - centre).masked_fill(hidden, 0.0)
    number = _fold(seen.to(images.dtype).expand_as(images), sides)
    moments = torch.cat(
        [_grid(one.sum(axes, keepdim=True), sides) for one in (number, _fold(known, sides), _fold(known.square(), sides))], dim=1
    )  # (B, 3, *G): how many values, their sum, the sum of their squares
    values = images.shape[1] * math.prod(sides)
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(sides)]
    others = _NEAR * pool(moments, 3, stride=1, padding=1) + _WHOLE * moments.mean(tuple(range(2, moments.ndim)), keepdim=True)
    moments = moments + (1.0 - moments[:, :1] / values) * others
    total = moments[:, :1]
    around, square = (one / total.clamp(min=1e-12) for one in (moments[:, 1:2], moments[:, 2:]))
    std = ((square - around.square()).clamp(min=0) * (values / (values - 1)) + EPS).sqrt()
    mean = _grid(_fold(fill_hidden(known, seen), sides).mean(axes, keepdim=True), sides)
    nothing = total == 0
    return PatchStatistics((mean + centre).masked_fill(nothing, 0.0), std.masked_fill(nothing, 1.0))


def fill_hidden(images: Tensor, seen: Tensor) -> Tensor:
    """Fill in hidden pixels smoothly from the known ones around them; the known pixels stay as they are.

    Known pixels are averaged two by two until one is left; on the way back, each scale takes its hidden pixels from the coarser
    one and smooths them a few times. This approximates the harmonic function with the known pixels as its boundary.

    Args:
        images: float32 or wider; the content of hidden pixels is not read.
        seen: True where the pixel is known.

    Shapes:
        (B, C, *S) float, (B, 1, *S) bool -> (B, C, *S) float; zeros for an image without known pixels.

    Source:
        Our own choice; the scheme is known as pull-push: Gortler et al., "The lumigraph" (1996), 4.
    """
    axes = images.ndim - 2
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[axes]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[axes]
    scales = [(images.masked_fill(~seen, 0.0), seen)]
    while max(scales[-1][0].shape[2:]) > 1:
        finer, known = scales[-1]
        halves = [min(2, size) for size in finer.shape[2:]]
        total, share = (pool(one, halves, halves, ceil_mode=True) for one in (finer, known.to(finer.dtype)))
        scales.append((total / share.clamp(min=1e-9), share > 0))
    filled = scales[-1][0]
    for finer, known in reversed(scales[:-1]):
        filled = torch.where(known, finer, F.interpolate(filled, size=finer.shape[2:], mode=mode, align_corners=False))
        for _ in range(_ROUNDS):
            smooth = pool(F.pad(filled, (1, 1) * axes, mode="replicate"), 3, stride=1)
            filled = torch.where(known, finer, smooth)
    return filled


def normalise_patches(images: Tensor, patch: int | Sequence[int]) -> Tensor:
    """Normalise every patch to mean 0 and standard deviation 1; uniform patches become zeros.

    Args:
        images: float.
        patch: as in `patch_statistics`.

    Shapes:
        (B, C, *S) float -> the same shape, in float32 or wider.

    Raises:
        TypeError: as in `patch_statistics`.
        ValueError: as in `patch_statistics`.

    Source:
        As `patch_statistics`.
    """
    mean, std = patch_statistics(images, patch)
    sides = _sides("normalise_patches", images, patch)
    folded = _fold(images.to(mean.dtype), sides)
    return ((folded - _spread(mean)) / _spread(std)).reshape(images.shape)


def denormalise_patches(images: Tensor, statistics: PatchStatistics, patch: int | Sequence[int]) -> Tensor:
    """Undo `normalise_patches`, for its result or for a model's prediction of it.

    Args:
        images: normalised patches.
        statistics: the statistics of the patches, from `patch_statistics`.
        patch: as in `patch_statistics`.

    Shapes:
        (B, C, *S) float -> the same shape, in float32 or wider.

    Raises:
        TypeError: the images are not float.
        ValueError: the patch does not divide the images, or the statistics belong to another grid.
    """
    sides = _sides("denormalise_patches", images, patch)
    wanted = (len(images), 1, *(size // side for size, side in zip(images.shape[2:], sides, strict=True)))
    if statistics.mean.shape != wanted or statistics.std.shape != wanted:
        raise ValueError(
            f"denormalise_patches: statistics have shapes {tuple(statistics.mean.shape)} and {tuple(statistics.std.shape)}; "
            f"allowed: {wanted}. Give the statistics of the same images and patches."
        )
    folded = _fold(images.to(statistics.mean.dtype), sides)
    return (folded * _spread(statistics.std) + _spread(statistics.mean)).reshape(images.shape)


def _sides(who: str, images: Tensor, patch: int | Sequence[int]) -> tuple[int, ...]:
    """Check the patch, and return one side per axis."""
    if not images.is_floating_point():
        raise TypeError(f"{who}: images are {images.dtype}, not a float type. Give the normalised values, or images.float().")
    axes = images.ndim - 2
    if not 1 <= axes <= 3:
        raise ValueError(f"{who}: images have shape {tuple(images.shape)}, not (B, C, *S) with one to three spatial axes.")
    sides = (patch,) * axes if isinstance(patch, int) else tuple(patch)
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides)
    if not whole or len(sides) != axes or any(size % side for size, side in zip(images.shape[2:], sides, strict=True)):
        raise ValueError(
            f"{who}: patch={patch!r} does not divide images of {' x '.join(map(str, images.shape[2:]))}. Give a whole number above "
            "0 that divides every axis, or one number per axis, such as the model's patch_size."
        )
    if images.shape[1] * math.prod(sides) < 2:
        raise ValueError(f"{who}: a patch with only one value has no standard deviation. Give a larger patch.")
    return sides


def _fold(images: Tensor, sides: tuple[int, ...]) -> Tensor:
    """(B, C, g1, p1, g2, p2, ...)."""
    pairs = [part for size, side in zip(images.shape[2:], sides, strict=True) for part in (size // side, side)]
    return images.reshape(*images.shape[:2], *pairs)


def _grid(found: Tensor, sides: tuple[int, ...]) -> Tensor:
    """(B, 1, g1, 1, g2, 1, ...) -> (B, 1, g1, g2, ...)."""
    return found.reshape(len(found), 1, *found.shape[2 : 2 + 2 * len(sides) : 2])


def _spread(found: Tensor) -> Tensor:
    """(B, 1, g1, g2, ...) -> (B, 1, g1, 1, g2, 1, ...)."""
    return found.reshape(*found.shape[:2], *(part for size in found.shape[2:] for part in (size, 1)))
