"""Pure functions on images: nothing random, no classes.

Images are (B, C, *S) in any value range that the argument `values` can name; see `gmml_aug.Chain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from gmml_aug.chance import draw_keys, stream, to_uniform, words
from gmml_aug.checks import check_choice, check_integer, check_number, plain
from gmml_aug.tensors import followed
from gmml_aug.values import Values, known_statistics

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_RATIOS = -2  # stream of `spread_ratios`; a corruption numbers its own from 0
_BITS = 31  # of a threshold
_FAINT = 1e-8  # weight of a tap: half of those of a wide kernel on a small sigma


@overload
def patch_mask(
    mask: Tensor, patch_size: int | Sequence[int], *, form: Literal["index"], threshold: float = 0.5
) -> tuple[Tensor, Tensor]: ...


@overload
def patch_mask(
    mask: Tensor, patch_size: int | Sequence[int], *, form: Literal["share", "bool", "flat"] = "share", threshold: float = 0.5
) -> Tensor: ...


def patch_mask(
    mask: Tensor,
    patch_size: int | Sequence[int],
    *,
    form: Literal["share", "bool", "flat", "index"] = "share",
    threshold: float = 0.5,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convert a mask of pixels to a mask of the patches of a vision transformer.

    Args:
        mask: (B, 1, *S) bool, True where corrupted, as in `Corrupted.mask`.
        patch_size: pixels along a patch's side, or one number per axis. If an image side is not a multiple of it, the last patch
            is smaller, and its share refers to its own pixels.
        form: ``"share"``: (B, *patches) float32, the share of corrupted pixels; ``"bool"``: (B, *patches) bool; ``"flat"``: (B, N)
            bool in reading order, as expected by transformers' ``bool_masked_pos``; ``"index"``: the pair (kept, masked) of (B,
            K) and (B, N - K) int64, numbers of patches in reading order, as expected by models that drop tokens; this form
            synchronises with the GPU.
        threshold: in all forms except ``"share"``, a patch counts as corrupted if at least this share of its pixels (above 0) is
            corrupted; 1.0 requires all of them.

    Raises:
        TypeError: ``mask`` is not a bool tensor.
        ValueError: the shape, patch size, form or threshold is wrong; for ``"index"``, images have different numbers of masked
            patches.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        came = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"patch_mask: the mask must be a bool tensor (B, 1, *S), not {came}. Give Corrupted.mask.")
    dims = mask.ndim - 2
    if not 1 <= dims <= 3 or mask.shape[1] != 1 or min(mask.shape) < 1:
        raise ValueError(f"patch_mask: the mask has shape {tuple(mask.shape)}. Give (B, 1, *S) with 1 to 3 spatial axes.")
    given = plain(patch_size)
    patch = list(given) if isinstance(given, Sequence) else [given] * dims
    if len(patch) != dims:
        raise ValueError(f"patch_mask: patch_size={patch_size} for {dims} spatial axes. Give one integer, or {dims} integers.")
    patch = [check_integer("patch_mask", "patch_size", side, 1) for side in patch]
    check_choice("patch_mask", "form", form, ("share", "bool", "flat", "index"))
    check_number("patch_mask", "threshold", threshold, 1e-9, 1.0)
    count = mask[:, 0].to(torch.int32)
    for axis, side in enumerate(patch, start=1):
        length = count.shape[axis]
        padded = F.pad(count, [0, 0] * (dims - axis) + [0, -length % side])
        count = padded.unflatten(axis, (-1, side)).sum(axis + 1)
    area = torch.ones((), dtype=torch.int64, device=mask.device)
    for axis, side in enumerate(patch, start=1):
        left = torch.arange(count.shape[axis], device=mask.device) * side
        area = area[..., None] * (mask.shape[axis + 1] - left).clamp(max=side)
    if form == "share":
        return count / area
    chosen = (count << _BITS) >= area * int(threshold * (1 << _BITS))  # integers: not one pixel more or less of any patch
    if form == "bool":
        return chosen
    flat = chosen.flatten(1)
    if form == "flat":
        return flat
    counts = flat.sum(1).tolist()
    if len(set(counts)) > 1:
        raise ValueError(
            f"patch_mask: images have {min(counts)} to {max(counts)} masked patches, and form='index' needs the same number in all "
            f"of them. "
            "Use a preset with a fixed count (mae, simmim, tubes; or Cells of the patch size with a single ratio), or give "
            "form='flat'."
        )
    order = flat.to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, : flat.shape[1] - counts[0]], order[:, flat.shape[1] - counts[0] :]


def spread_ratios(
    count: int, low: float, high: float, *, share: float = 1.0, keys: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Shares for a batch, spread evenly over a range, for ``ratios=`` at the call; images that are not corrupted get 0.

    A share ``share`` of the images is corrupted. The range (low, high) is divided into one equal part per corrupted image; one
    share is drawn uniformly from each part, and the shares are assigned at random.

    Args:
        count: the number of images, B.
        low: smallest share, 0 to 1.
        high: largest share, ``low`` to 1.
        share: the share of images that are corrupted, rounded down to a whole number of images.
        keys: (B,) int64; the keys of the whole batch together determine the result.
        generator: used if no keys are given; by default torch's global generator.

    Returns:
        (B,) float64, on the device of the keys or of the generator.

    Raises:
        TypeError: an argument is not a number.
        ValueError: the range is outside [0, 1], or both keys and a generator are given.

    Source:
        DINOv2 (Oquab et al. 2023), whose release masks half of each batch in this way, with shares from 0.1 to 0.5.
    """
    count = check_integer("spread_ratios", "count", count, 1)
    low = check_number("spread_ratios", "low", low, 0.0, 1.0)
    high = check_number("spread_ratios", "high", high, low, 1.0)
    some = int(check_number("spread_ratios", "share", share, 0.0, 1.0) * count + 1e-6)
    if keys is not None and generator is not None:
        raise ValueError("spread_ratios: got both keys and a generator. Give one of them.")
    if keys is None:
        device = torch.get_default_device() if generator is None else generator.device
        keys = draw_keys(count, device, generator)
    word = words(stream(keys, _RATIOS), 2)
    order = word[:, 0].argsort()  # who comes first gets the smallest share
    within = to_uniform(word[:, 1])[:some].double()
    part = torch.arange(some, device=keys.device)
    shares = torch.zeros(count, dtype=torch.float64, device=keys.device)
    shares[order[:some]] = low + (high - low) * (part + within) / max(some, 1)
    return shares


def to_grey(images: Tensor, values: Values = "normalised") -> Tensor:
    """Convert images to grey: luma by ITU-R BT.601 for three channels, otherwise the mean of the channels; the shape is kept.

    Images normalised by a known ``(mean, std)`` are denormalised, turned grey and normalised again; for unknown statistics (the
    default) the luma of the normalised channels is used, which leaves a slight tint. The computation is in float32 or wider.
    """
    grey, known = luma(images, values), known_statistics(images, values)
    if known is None:
        return like(grey, images).expand_as(images)
    planes = [(grey - mean) / std for mean, std in zip(*known, strict=True)]
    return like(torch.cat(planes, dim=1), images)


def luma(images: Tensor, values: Values) -> Tensor:
    """(B, 1, *S) the grey level that `to_grey` shows, as pixels between 0 and 1 if ``values`` are statistics; float32 or wider."""
    now, weights = widen(images), luma_weights(images.shape[1])
    mean, std = known_statistics(images, values) or ((0.0,) * len(weights), (1.0,) * len(weights))
    grey = now[:, :1] * (weights[0] * std[0])
    for c in range(1, len(weights)):
        grey = grey + now[:, c : c + 1] * (weights[c] * std[c])  # no alpha: both are rounded by themselves, as in the core
    shift = sum(weight * m for weight, m in zip(weights, mean, strict=True))
    return grey + shift if shift else grey


def luma_weights(channels: int) -> tuple[float, ...]:
    """ITU-R BT.601 for three channels, equal shares otherwise; they sum to one."""
    return _LUMA if channels == 3 else (1.0 / channels,) * channels


def gaussian_blur(images: Tensor, sigma: Tensor, kernel: Tensor, largest: int) -> Tensor:
    """Blur every image (B, C, *S) with its own Gaussian, with reflected borders, in float32 or wider.

    ``sigma`` (B,) is in pixels, ``kernel`` (B,) the odd number of taps along each axis, ``largest`` an odd number that none of
    them exceeds. The result for an image is the same, bit for bit, in any batch.
    """
    now = widen(images)
    taps = gaussian_taps(sigma, kernel, largest).to(now.dtype)
    if images.device.type != "cpu" or followed():
        return like(_convolve(now, [column(weight, now.ndim) for weight in taps.unbind(1)], guarded=True), images)
    blurred = torch.empty_like(now)
    heard = (taps > 0).sum(1)
    for count in set(heard.tolist()):  # taps that an image does not have cost nothing, and need no guard
        which = (heard == count).nonzero()[:, 0]
        weights = taps.index_select(0, which).narrow(1, (largest - count) // 2, count)
        some = now.index_select(0, which)
        blurred.index_copy_(0, which, _convolve(some, [column(weight, now.ndim) for weight in weights.unbind(1)]))
    return like(blurred, images)


def blur_window(image: Tensor, window: Sequence[slice], taps: Sequence[float]) -> Tensor:
    """Blur a window of one image (1, C, *S) with symmetric taps.

    The result, (1, C, *window), equals that part of `gaussian_blur`.
    """
    return like(_convolve(widen(image), taps, window), image)


def _convolve(
    images: Tensor, weights: Sequence[Tensor] | Sequence[float], window: Sequence[slice] | None = None, *, guarded: bool = False
) -> Tensor:
    """Sum the pixels that the taps read along every axis of float images, each multiplied by the weight of its tap.

    Returns (B, C, *window), or the whole image.

    The weights are symmetric and odd in number; each is one number for all images, or (B, 1, ...). If they are ``guarded``, a tap
    with weight 0 has no effect, even if it reads an infinity.
    """
    radius = len(weights) // 2
    sources: list[Tensor | None] = []
    for axis, length in enumerate(images.shape[2:]):
        here = slice(0, length) if window is None else window[axis]
        low, high = here.start - radius, here.stop + radius
        inside = low >= 0 and high <= length
        first = max(low, 0)
        sources.append(None if inside else reflect(torch.arange(low, high, device=images.device), length) - first)
        images = images.narrow(axis + 2, first, min(high, length) - first)
    for axis, source in enumerate(sources, start=2):
        padded = images if source is None else images.index_select(axis, source)
        # what each tap sees, the first one first: views
        seen = padded.unfold(axis, padded.shape[axis] - 2 * radius, 1).movedim(-1, axis + 1).unbind(axis)
        images = seen[radius] * weights[radius]
        for tap in range(radius):
            pair, weight = seen[tap] + seen[-1 - tap], weights[tap]
            if isinstance(weight, float):
                images.add_(pair, alpha=weight)
            else:  # no alpha: a product rounded by itself is the same in a batch of any size
                pair.mul_(weight)
                images.add_(pair.masked_fill_(weight == 0, 0.0) if guarded else pair)
    return images


def gaussian_taps(sigma: Tensor, kernel: Tensor, largest: int) -> Tensor:
    """(B, largest) float32 weights that sum to one.

    They are zero outside each image's own kernel, and where they are too small for float32.
    """
    offset = torch.arange(largest, device=sigma.device) - largest // 2
    weight = torch.exp(-0.5 * (offset / sigma.to(torch.float32)[:, None]) ** 2)
    weight = weight.masked_fill(2 * offset.abs() >= kernel[:, None], 0.0)
    weight = weight / weight.sum(1, keepdim=True)
    return weight.masked_fill(weight <= _FAINT, 0.0)


def reflect(position: Tensor, length: int) -> Tensor:
    """Reflect positions outside 0 to length - 1 at the borders, without repeating them; works for any distance and length."""
    if length == 1:
        return torch.zeros_like(position)
    period = 2 * (length - 1)
    position = position % period
    return torch.minimum(position, period - position)


def column(numbers: Tensor, ndim: int) -> Tensor:
    """Add trailing axes of size 1 to (B, ...) numbers, to broadcast them over images with ``ndim`` axes."""
    return numbers.reshape(*numbers.shape, *[1] * (ndim - numbers.ndim))


def wide_dtype(images: Tensor) -> torch.dtype:
    """The dtype for computations: float32, or float64 if the images are float64."""
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def widen(images: Tensor) -> Tensor:
    """The images in `wide_dtype`."""
    return images.to(wide_dtype(images))


def like(computed: Tensor, images: Tensor) -> Tensor:
    """Convert back to the dtype of the images; rounded and clamped if that is uint8."""
    if images.dtype == torch.uint8 and computed.is_floating_point():
        return computed.round().clamp(0, 255).to(torch.uint8)
    return computed.to(images.dtype)
