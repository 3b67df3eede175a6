"""Pure functions on what pixels mean: the step from stored numbers to pixels in 0 to 1 and back, averages, colours, shifts.

No chance and no classes, as in `functional`, whose words for shapes and value ranges hold here too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gmml_aug.functional import Statistics, Values, column, like, luma_weights, per_channel, widen

UNIFORM = (0.5, 12.0**-0.5)  # mean and standard deviation of what is uniform in 0 to 1


def pixel_statistics(images: Tensor, values: Values) -> Statistics:
    """The (mean, std) of each channel for which ``images * std + mean`` are pixels in 0 to 1.

    An unknown normalisation is taken to be that of uniform pixels: mean 1/2, standard deviation 1 / sqrt(12).
    """
    channels = images.shape[1]
    if images.dtype == torch.uint8:
        return (0.0,) * channels, (1.0 / 255.0,) * channels
    if isinstance(values, str):
        mean, std = (0.0, 1.0) if values == "unit" else UNIFORM
        return (mean,) * channels, (std,) * channels
    return per_channel(values, channels)


def average(images: Tensor) -> Tensor:
    """(B, C) the mean over the spatial axes, summed in float32 at least."""
    # contiguous: sums in another order differ in the last bit, and the layout in memory should have no say
    return images.contiguous().flatten(2).mean(2, dtype=_wide(images))


def deviation(images: Tensor, mean: Tensor) -> Tensor:
    """(B, C) the standard deviation over the spatial axes around ``mean`` (B, C), summed in float32 at least."""
    return (images.contiguous().flatten(2).to(_wide(images)) - mean[:, :, None]).square().mean(2).sqrt()


def _wide(images: Tensor) -> torch.dtype:
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def recolour(
    images: Tensor,
    *,
    brightness: Tensor | None = None,
    contrast: Tensor | None = None,
    saturation: Tensor | None = None,
    hue: Tensor | None = None,
    values: Values = "normalised",
    window: Sequence[slice] | None = None,
) -> Tensor:
    """Change the colours of each image by factors of its own, as pixels in 0 to 1, in this order.

    Results of every stage are clamped to 0 to 1 where the range of the pixels is known: not for ``"normalised"``.

    Args:
        images: (B, C, *S), any float dtype or uint8; computed in float32 at least.
        brightness: (B,) pixels are multiplied by it; 0 is black.
        contrast: (B,) distances to the image's mean luma are multiplied by it; 0 is flat grey.
        saturation: (B,) distances to each pixel's luma are multiplied by it; 0 is grey. Three channels only.
        hue: (B,) turns around the circle of colours, at equal value and chroma (HSV); 0.5 is opposite. Three channels only.
        values: the value range of the images.
        window: slices of the spatial axes to return; the mean luma is still that of the whole image.

    Returns:
        (B, C, *window) in the dtype of the images.
    """
    mean, std = pixel_statistics(images, values)
    bounded = images.dtype == torch.uint8 or values != "normalised"
    weights = luma_weights(images.shape[1])
    wide = widen(images)
    part = () if window is None else (slice(None), slice(None), *window)
    # one plane per channel: statistics stay Python numbers, for a tensor of them would have to be copied to the device
    planes = [wide[:, c : c + 1] * std[c] + mean[c] for c in range(images.shape[1])]
    if contrast is None:
        planes = [plane[part] for plane in planes]
    if brightness is not None:
        factor = column(brightness.to(wide.dtype), wide.ndim)
        planes = [_bound(plane * factor, bounded) for plane in planes]
    if contrast is not None:
        factor = column(contrast.to(wide.dtype), wide.ndim)
        centre = column(average(_luma(planes, weights)), wide.ndim)
        planes = [_bound(centre + (plane[part] - centre) * factor, bounded) for plane in planes]
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


def take_shifted(images: Tensor, number: Tensor | None, shift: Tensor, *, used: Tensor | None = None) -> Tensor:
    """Content moved against the image's border, where it comes in again at the opposite one.

    Args:
        images: (N, C, *S).
        number: (B,) which image to take; by default each its own (then N = B).
        shift: (B, dims) int64, 0 to side - 1: what stands at p comes from p + shift.
        used: (B,) bool on the CPU, where single images are copied faster: the others are left undefined.

    Returns:
        (B, C, *S) in the dtype of the images.
    """
    size = images.shape[2:]
    count = torch.arange(shift.shape[0], device=shift.device) if number is None else number
    if used is not None:
        moved = images.new_empty(shift.shape[0], *images.shape[1:])
        axes = tuple(range(1, images.ndim - 1))
        for image in used.nonzero()[:, 0].tolist():
            moved[image] = torch.roll(images[int(count[image])], [-step for step in shift[image].tolist()], axes)
        return moved
    # broadcast indices: the kernel reads B x side numbers per axis, no index of the size of the images exists
    index = [column(count, images.ndim), torch.arange(images.shape[1], device=images.device).reshape(1, -1, *[1] * len(size))]
    for axis, side in enumerate(size):
        place = (torch.arange(side, device=shift.device) + shift[:, axis, None]) % side
        index.append(place.reshape(-1, 1, *[1] * axis, side, *[1] * (len(size) - axis - 1)))
    return images[tuple(index)]


def bounding_box(inside: Tensor) -> list[slice] | None:
    """The smallest box around the True pixels of ``inside`` (*S) bool, on the CPU; None if there are none."""
    box = []
    for axis in range(inside.ndim):
        line = inside.movedim(axis, 0).reshape(inside.shape[axis], -1).any(1).nonzero()
        if not len(line):
            return None
        box.append(slice(int(line[0]), int(line[-1]) + 1))
    return box
