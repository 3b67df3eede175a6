"""Pure functions on colours: averages, and brightness, contrast, saturation and hue.

As in `functional`, there is nothing random and there are no classes; shapes and value ranges are as described there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gmml_aug.functional import column, like, luma_weights, wide_dtype, widen
from gmml_aug.tensors import readable
from gmml_aug.values import Values, pixel_statistics


def average(images: Tensor) -> Tensor:
    """(B, C) mean over the spatial axes, summed in float32 or wider; NaN is ignored."""
    # contiguous: sums in another order differ in the last bit, and the layout in memory should have no say
    return _mean(images.contiguous().flatten(2), wide_dtype(images))


def deviation(images: Tensor, mean: Tensor) -> Tensor:
    """(B, C) standard deviation over the spatial axes around ``mean`` (B, C), summed in float32 or wider; NaN is ignored."""
    return _mean((images.contiguous().flatten(2).to(wide_dtype(images)) - mean[:, :, None]).square(), wide_dtype(images)).sqrt()


def _mean(lines: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, C) mean of (B, C, N) numbers, ignoring NaN; NaN if there are no other numbers."""
    mean = lines.mean(2, dtype=dtype)
    if not lines.is_floating_point() or (readable(lines) and not bool(mean.isnan().any())):
        return mean
    seen = ~lines.isnan()
    some = lines.masked_fill(~seen, 0.0).sum(2, dtype=dtype) / seen.sum(2)
    return torch.where(mean.isnan(), some, mean)


def recolour(
    images: Tensor,
    brightness: Tensor | None = None,
    contrast: Tensor | None = None,
    saturation: Tensor | None = None,
    hue: Tensor | None = None,
    *,
    values: Values = "normalised",
) -> Tensor:
    """Change the colours of each image (B, C, *S), as pixels in [0, 1], by its own factors (B,), in the order of the arguments.

    Pixels are multiplied by ``brightness``, their distances to the image's mean luma by ``contrast``, and their distances to the
    pixel's own luma by ``saturation``; ``hue`` rotates the colour around the colour circle at equal value and chroma (HSV). The
    last two need three channels. The computation is in float32 or wider; every stage is clamped between 0 and 1 if the range of
    the pixels is known (not for ``"normalised"``).
    """
    mean, std = pixel_statistics(images, values)
    bounded = images.dtype == torch.uint8 or values != "normalised"
    weights = luma_weights(images.shape[1])
    wide = widen(images)
    # one plane per channel: statistics stay Python numbers, for a tensor of them would have to be copied to the device
    planes = [wide[:, c : c + 1] * std[c] + mean[c] for c in range(images.shape[1])]
    if brightness is not None:
        factor = column(brightness.to(wide.dtype), wide.ndim)
        planes = [_bound(plane * factor, bounded) for plane in planes]
    if contrast is not None:
        factor = column(contrast.to(wide.dtype), wide.ndim)
        centre = column(average(_luma(planes, weights)), wide.ndim)
        planes = [_bound(centre + (plane - centre) * factor, bounded) for plane in planes]
    if saturation is not None:
        factor = column(saturation.to(wide.dtype), wide.ndim)
        grey = _luma(planes, weights)
        planes = [_bound(grey + (plane - grey) * factor, bounded) for plane in planes]
    if hue is not None:
        turned = _turn_hue(planes, column(hue.to(wide.dtype), wide.ndim))
        planes = [_bound(plane, bounded) for plane in turned]
    return like(torch.cat([(plane - mean[c]) / std[c] for c, plane in enumerate(planes)], dim=1), images)


def _bound(plane: Tensor, bounded: bool) -> Tensor:
    return plane.clamp(0.0, 1.0) if bounded else plane


def _luma(planes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = planes[0] * weights[0]
    for plane, weight in zip(planes[1:], weights[1:], strict=True):
        total = total + plane * weight
    return total


def _turn_hue(planes: Sequence[Tensor], turns: Tensor) -> list[Tensor]:
    red, green, blue = planes
    most = torch.maximum(torch.maximum(red, green), blue)
    chroma = most - torch.minimum(torch.minimum(red, green), blue)
    divisor = chroma.masked_fill(chroma == 0.0, 1.0)  # grey has no hue, and keeps its colour whatever comes out here
    sixths = torch.where(
        most == red,
        (green - blue) / divisor,
        torch.where(most == green, 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor),
    )
    sixths = sixths + 6.0 * turns
    turned = []
    for start in (5.0, 3.0, 1.0):  # where on the circle red, green and blue fade
        at = torch.remainder(sixths + start, 6.0)
        turned.append(most - chroma * torch.minimum(at, 4.0 - at).clamp(0.0, 1.0))
    return turned
