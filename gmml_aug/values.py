"""Value ranges: the meaning of the stored numbers as pixels between 0 and 1, and the conversion of bytes to normalised images.

A value range is ``(mean, std)`` if images were normalised by these (one number for all channels, or one per channel),
``"normalised"`` if by unknown statistics, and ``"unit"`` for 0 to 1; uint8 always means 0 to 255. A byte b becomes ``(b / 255 -
mean) / std``, computed in float32 as ``b * scale + shift`` and rounded once: a multiplication and an addition round in the same
way on every device.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
Values = Statistics | Literal["normalised", "unit"]

UNIFORM = (0.5, 12.0**-0.5)  # mean and standard deviation of what is uniform in 0 to 1
NORMALISED = (torch.float16, torch.bfloat16, torch.float32)  # dtypes that bytes are normalised to

_PART_BYTES = 2 << 20  # of float32 at a time on the CPU: what stays in its caches, a third of the time of a whole batch


def known_statistics(images: Tensor, values: Values) -> Statistics | None:
    """(mean, std), one number per channel, that float images were normalised by, if they are known."""
    if isinstance(values, str) or not images.is_floating_point():
        return None
    return per_channel(values, images.shape[1])


def per_channel(values: Statistics, channels: int) -> Statistics:
    """(mean, std) with one number per channel, even if one for all channels was given."""
    mean, std = (tuple(numbers[c % len(numbers)] for c in range(channels)) for numbers in values)
    return mean, std


def pixel_statistics(images: Tensor, values: Values) -> Statistics:
    """The (mean, std) of each channel for which ``images * std + mean`` are pixels between 0 and 1.

    An unknown normalisation is assumed to be that of uniform pixels: mean 1/2, standard deviation 1 / sqrt(12).
    """
    channels = images.shape[1]
    if images.dtype == torch.uint8:
        return (0.0,) * channels, (1.0 / 255.0,) * channels
    if isinstance(values, str):
        mean, std = (0.0, 1.0) if values == "unit" else UNIFORM
        return (mean,) * channels, (std,) * channels
    return per_channel(values, channels)


def noise_statistics(images: Tensor, values: Values) -> Statistics:
    """`pixel_statistics` for uniform noise: in half precision, pixels of ``"unit"`` are scaled so that none is rounded up to 1."""
    mean, std = pixel_statistics(images, values)
    if values != "unit" or images.dtype not in (torch.float16, torch.bfloat16):
        return mean, std
    step = torch.finfo(images.dtype).eps  # of the numbers from 1 on; below 1 they are half as far apart
    return mean, (1.0 / (1.0 - step / 4),) * len(std)


def byte_scales(values: Values, channels: int) -> Statistics:
    """Per channel, the scale and the shift of ``b * scale + shift``."""
    means, stds = per_channel(((0.0,), (1.0,)) if isinstance(values, str) else values, channels)
    return tuple(1.0 / (255.0 * std) for std in stds), tuple(-mean / std for mean, std in zip(means, stds, strict=True))


def normalise(images: Tensor, values: Values, dtype: torch.dtype) -> Tensor:
    """Normalise bytes (B, C, *S) by ``(mean, std)``, or scale them to 0 to 1 for ``"unit"``.

    The result has the dtype ``dtype`` and the same memory format.
    """
    scales, shifts = byte_scales(values, images.shape[1])
    out = torch.empty_like(images, dtype=dtype)
    parts = [slice(None)]
    if images.device.type == "cpu" and not torch.compiler.is_compiling():
        few = max(1, _PART_BYTES // (4 * images[0].numel()))
        parts = [slice(low, low + few) for low in range(0, len(images), few)]
    for part in parts:
        for channel, (scale, shift) in enumerate(zip(scales, shifts, strict=True)):
            out[part, channel] = images[part, channel].to(torch.float32).mul_(scale).add_(shift)
    return out
