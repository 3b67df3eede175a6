"""From the bytes that a decoder leaves to normalised images, clean and corrupted, in one call.

A byte b becomes ``(b / 255 - mean) / std``, computed in float32 as ``b * scale + shift`` and rounded once to the dtype wanted. One
multiplication and one addition are rounded alike on every device and in the kernels of `fused`, where divisions would cost more
than the memory does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gmml_aug import call_checks as fit
from gmml_aug.functional import Values, per_channel
from gmml_aug.plan import Plan

if TYPE_CHECKING:
    from gmml_aug.corruption import Corruption

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_PART_BYTES = 2 << 20  # of float32 at a time on the CPU: what stays in its caches, a third of the time of a whole batch


class CorruptedPair(NamedTuple):
    """What `Corruption.from_bytes` returns: what `Corrupted` holds, and the target beside it."""

    images: Tensor  # (B, C, *S) float, normalised and corrupted
    mask: Tensor  # (B, 1, *S) bool, True where a step changed a pixel or was free to
    clean: Tensor  # (B, C, *S) float, normalised alone


def normalise(images: Tensor, values: Values, dtype: torch.dtype) -> Tensor:
    """Bytes as normalised images.

    Args:
        images: (B, C, *S) uint8, 0 to 255.
        values: the value range that is wanted: ``(mean, std)``, or ``"unit"`` for 0 to 1.
        dtype: float16, bfloat16 or float32; the arithmetic is float32.

    Returns:
        (B, C, *S) of ``dtype``, in the memory format of the images.
    """
    scales, shifts = lines(values, images.shape[1])
    out = torch.empty_like(images, dtype=dtype)
    parts = [slice(None)]
    if images.device.type == "cpu" and not torch.compiler.is_compiling():
        few = max(1, _PART_BYTES // (4 * images[0].numel()))
        parts = [slice(low, low + few) for low in range(0, len(images), few)]
    for part in parts:
        for channel, (scale, shift) in enumerate(zip(scales, shifts, strict=True)):
            out[part, channel] = images[part, channel].to(torch.float32).mul_(scale).add_(shift)
    return out


def lines(values: Values, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel, the scale and the shift of ``b * scale + shift``."""
    means, stds = per_channel(((0.0,), (1.0,)) if isinstance(values, str) else values, channels)
    return tuple(1.0 / (255.0 * std) for std in stds), tuple(-mean / std for mean, std in zip(means, stds, strict=True))


def check(images: Tensor, values: Values, dtype: torch.dtype) -> None:
    """Bytes, and a way to normalise them.

    Raises:
        TypeError: images that are not uint8, or a dtype that is not one of `DTYPES`.
        ValueError: an unknown normalisation.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        came = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(
            f"from_bytes: images must be a uint8 tensor (B, C, *S), 0 to 255, but {came} came. Images that are floats already go "
            "to the corruption itself: corrupt(images)."
        )
    if dtype not in DTYPES:
        raise TypeError(f"from_bytes: dtype={dtype} came. Allowed are {', '.join(map(str, DTYPES))}.")
    if values == "normalised":
        raise ValueError(
            'from_bytes: this corruption has values="normalised", so it does not say by what to normalise. Give the statistics '
            'where it is made, values=(mean, std), or values="unit" for 0 to 1.'
        )


def paint(
    corrupt: Corruption,
    images: Tensor,
    plan: Plan,
    dtype: torch.dtype,
    *,
    donors: Tensor | None,
    allowed: Tensor | None,
    forced: Tensor | None,
    fuse: bool,
) -> CorruptedPair:
    """Normalise, then do what the plan says; arguments are those of `Corruption.from_bytes`, checked."""
    program = corrupt.program
    if fuse:
        from gmml_aug.backends.triton import paint as fused

        pool = images if donors is None else donors
        done = fused.paint(program, images, pool, plan, fit.bounds(images, allowed, forced), dtype=dtype)
        assert done.clean is not None
        return CorruptedPair(done.images, done.mask, done.clean)
    clean = normalise(images, program.values, dtype)
    bank = clean if donors is images else None if donors is None else normalise(donors, program.values, dtype)
    found, mask = corrupt.apply(clean, plan, donors=bank, allowed=allowed, forced=forced, backend="torch")
    return CorruptedPair(found, mask, clean)
