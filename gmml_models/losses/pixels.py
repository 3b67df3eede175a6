"""Losses between reconstructed and clean images, and the checks of tensors shared by all losses.

B images, C channels, S their spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gmml_aug.checks import check_channels, check_values
from gmml_aug.values import Values, normalise
from gmml_models.models.patches import Target, check_target, normalise_patches

Reduction = Literal["mean", "none", "sum"]


def masked_l1(
    reconstruction: Tensor,
    clean: Tensor,
    mask: Tensor,
    *,
    reduction: Reduction = "mean",
    target: Target = "pixels",
    patch: int | Sequence[int] | None = None,
    values: Values | None = None,
) -> Tensor:
    """Absolute difference where the image was manipulated.

    It is averaged over manipulated pixels and channels of each image, and then over all images. An image with an empty mask
    contributes 0 and still counts, so the losses of two half batches average to that of the whole batch. Pixels outside the mask
    have no influence, even if they are NaN.

    Args:
        reconstruction: the output of the model.
        clean: the clean images. Bytes are normalised here by ``values``, so that a batch from
            ``corrupt.from_bytes(images, clean=False)`` needs no normalised target:
            ``masked_l1(model(out.images), images, out.mask, values=corrupt.program.values)``.
        mask: True where the pixel was manipulated.
        reduction: the reduction over the images: "mean", "sum", or "none" for one number per image.
        target: the prediction of the model: "pixels" (the clean image itself), or "normalised" (the clean image with every patch
            normalised by its own mean and standard deviation; see `gmml_models.models.patches.normalise_patches`). These
            statistics include all pixels of the clean patch, also those outside the mask.
        patch: side of a patch, or one side per axis, for the normalised target; not used otherwise.
        values: only for bytes: ``(mean, std)`` of the channels, for pixels between 0 and 1, or "unit" for no normalisation.

    Shapes:
        (B, C, *S) float, (B, C, *S) float or uint8, (B, 1, *S) bool -> () or (B,).

    Raises:
        TypeError: images are not float (or bytes, if ``values`` are given), or the mask is not bool.
        ValueError: the shapes do not fit, the batch is empty, the ``reduction`` or ``target`` is unknown, or a normalised target
            has no ``patch`` or one that does not divide the images.

    Source:
        GMML 2.3, equation 1, which sums; the release averages over the manipulated elements of the whole batch. Averaging within
        each image first is our choice. The normalised target is MAE's (He et al., 2021, 3), which uses squared errors.
    """
    wanted = _wanted("masked_l1", clean, target, patch, values)
    return _reduce("masked_l1", _masked("masked_l1", reconstruction, wanted, mask, squared=False), reduction)


def masked_l2(
    reconstruction: Tensor,
    clean: Tensor,
    mask: Tensor,
    *,
    reduction: Reduction = "mean",
    target: Target = "pixels",
    patch: int | Sequence[int] | None = None,
    values: Values | None = None,
) -> Tensor:
    """Squared difference where the image was manipulated; otherwise as in `masked_l1`.

    Source:
        The code published by the authors of MC-SSL; the paper uses `l1`.
    """
    wanted = _wanted("masked_l2", clean, target, patch, values)
    return _reduce("masked_l2", _masked("masked_l2", reconstruction, wanted, mask, squared=True), reduction)


def l1(
    reconstruction: Tensor,
    clean: Tensor,
    *,
    reduction: Reduction = "mean",
    target: Target = "pixels",
    patch: int | Sequence[int] | None = None,
    values: Values | None = None,
) -> Tensor:
    """Absolute difference over the whole image, averaged over each image and then over the images.

    Args:
        reconstruction: the output of the model.
        clean: the clean images.
        reduction: as in `masked_l1`.
        target: as in `masked_l1`.
        patch: as in `masked_l1`.
        values: as in `masked_l1`.

    Shapes:
        (B, C, *S) float, (B, C, *S) float or uint8 -> () or (B,).

    Raises:
        TypeError: images are not float (or bytes, if ``values`` are given).
        ValueError: the shapes differ, the batch is empty, the ``reduction`` or ``target`` is unknown, or ``patch`` does not fit,
            as in `masked_l1`.

    Source:
        MC-SSL 3.2.1, equation 1, which sums; the mean is our choice.
    """
    one, other = same("l1", reconstruction=reconstruction, clean=_wanted("l1", clean, target, patch, values))
    return _reduce("l1", (one - other).abs().flatten(1).mean(1), reduction)


def l2(
    reconstruction: Tensor,
    clean: Tensor,
    *,
    reduction: Reduction = "mean",
    target: Target = "pixels",
    patch: int | Sequence[int] | None = None,
    values: Values | None = None,
) -> Tensor:
    """Squared difference over the whole image; otherwise as in `l1`.

    Source:
        Ours, for comparison.
    """
    one, other = same("l2", reconstruction=reconstruction, clean=_wanted("l2", clean, target, patch, values))
    return _reduce("l2", (one - other).square().flatten(1).mean(1), reduction)


def _wanted(who: str, clean: Tensor, target: Target, patch: int | Sequence[int] | None, values: Values | None) -> Tensor:
    """The target that the model should predict."""
    if clean.dtype == torch.uint8 and values in (None, "normalised"):
        raise TypeError(
            f"{who}: clean is torch.uint8 and values={values!r} does not state how to normalise it. Give values=(mean, std), "
            "for example corrupt.program.values, or float images."
        )
    if clean.dtype != torch.uint8 and values is not None:
        raise TypeError(f"{who}: values={values!r} is for bytes, but clean is {clean.dtype}. Leave values out, or give the bytes.")
    if values is not None:
        check_channels(who, check_values(who, values), clean.shape[1])
        clean = normalise(clean, values, torch.float32)
    if target == "pixels":
        return clean
    check_target(who, target)
    if patch is None:
        raise ValueError(f"{who}: target='normalised' needs patch=. Give the side of a patch, for example the model's patch_size.")
    return normalise_patches(clean, patch)


def _masked(who: str, reconstruction: Tensor, clean: Tensor, mask: Tensor, *, squared: bool) -> Tensor:
    """(B,) the mean over manipulated pixels and channels; 0 for images without any."""
    one, other = same(who, reconstruction=reconstruction, clean=clean)
    if mask.dtype != torch.bool:
        raise TypeError(f"{who}: mask is {mask.dtype}, not bool. Give True where the pixel was manipulated, for example mask > 0.")
    wanted = (one.shape[0], 1, *one.shape[2:])
    if one.ndim < 3 or mask.shape != wanted:
        raise ValueError(
            f"{who}: mask has shape {tuple(mask.shape)} for images {tuple(one.shape)}; allowed: (B, 1, *S) = {tuple(wanted)}. "
            "Give the mask of the corruption, one value per pixel."
        )
    # both are cut before the difference: a NaN outside the mask would come through 0 * NaN in the gradient
    difference = one.masked_fill(~mask, 0.0) - other.masked_fill(~mask, 0.0)
    total = (difference.square() if squared else difference.abs()).flatten(1).sum(1)
    count = mask.flatten(1).sum(1) * one.shape[1]
    return total / count.clamp(min=1)


def _reduce(who: str, losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f"{who}: reduction={reduction!r} is unknown. Allowed: 'mean', 'sum' and 'none'.")


def same(who: str, **tensors: Tensor) -> list[Tensor]:
    """Check that the tensors are float and have the same shape, and convert them to float32 or the widest of their dtypes."""
    names, shape = list(tensors), next(iter(tensors.values())).shape
    dtype = torch.float32
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{who}: {name} is {tensor.dtype}, not a float type. Give the normalised values, or {name}.float().")
        if tensor.shape != shape:
            raise ValueError(
                f"{who}: {name} has shape {tuple(tensor.shape)}, but {names[0]} has {tuple(shape)}; they must be equal. Give "
                "both for "
                "the same images, in the same order."
            )
        dtype = torch.promote_types(dtype, tensor.dtype)
    if math.prod(shape) == 0 or not shape:
        raise ValueError(f"{who}: {names[0]} has shape {tuple(shape)}: there is nothing to average. Give at least one image.")
    return [tensor.to(dtype) for tensor in tensors.values()]


def check_temperature(who: str, name: str, value: float) -> None:
    """Refuse a temperature by which logits cannot be divided."""
    if not 0.0 < value < math.inf:
        raise ValueError(f"{who}: {name}={value} is not a finite number above 0. Give, for example, {name}=0.1.")
