"""Crops, by the same boxes and the same filter, of one image on the CPU and of a batch on the device.

Both are antialiased where they shrink, with Pillow's kernels, so that the two data paths show the same picture. As a product with
two small matrices the crop on the device takes as long as ``grid_sample``, which has no antialiasing and another cubic kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gmml_models.data.transforms import Crops

Interpolation = Literal["bilinear", "bicubic"]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_AT_ONCE = 8  # images on the CPU: their buffers stay in its cache, and in memory that is already there
_REACH = {"bilinear": 1.0, "bicubic": 2.0}


def cut_one(image: Tensor, crops: Sequence[Crops], sizes: Sequence[tuple[int, int]], interpolation: Interpolation) -> list[Tensor]:
    """Several crops of one image.

    Args:
        image: (C, H, W) uint8, any number of channels.
        crops: of this image alone (a batch of one), one a view.
        sizes: height and width of each view.
        interpolation: of the resize.

    Returns:
        for each view (C, height, width) uint8.
    """
    array = image.permute(1, 2, 0).contiguous().numpy()
    whole = array.shape[2] == 3
    planes = [Image.fromarray(array if whole else array[:, :, c]) for c in range(1 if whole else array.shape[2])]
    width, height = planes[0].size
    views = []
    for crop, (rows, columns) in zip(crops, sizes, strict=True):
        left, top, across, down = crop.boxes[0].tolist()
        box = (left * width, top * height, min((left + across) * width, width), min((top + down) * height, height))
        cut = np.stack([np.asarray(plane.resize((columns, rows), _FILTERS[interpolation], box)) for plane in planes], axis=-1)
        cut = cut[:, :, :, 0] if whole else cut
        views.append(torch.from_numpy(np.ascontiguousarray(cut[:, ::-1] if crop.flip[0] else cut)).permute(2, 0, 1))
    return views


def squash(image: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """The whole image at a size, whatever its aspect: (C, H, W) uint8 -> (C, *size) uint8."""
    whole = Crops(np.array([[0.0, 0.0, 1.0, 1.0]]), np.zeros(1, dtype=np.bool_))
    return cut_one(image, [whole], [size], interpolation)[0]


def cut_batch(images: Tensor, boxes: Tensor, flip: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """One crop of each image.

    Args:
        images: (B, C, H, W) uint8.
        boxes: (B, 4) left, top, width, height, as shares of the image's width and height; on the device of the images.
        flip: (B,) bool, on the device of the images.
        size: height and width of the crops.
        interpolation: of the resize.

    Returns:
        (B, C, *size) float32 in [0, 1].
    """
    left, top, width, height = boxes.to(torch.float32).unbind(1)
    across = _weights(left, width, images.shape[3], size[1], flip, interpolation)
    down = _weights(top, height, images.shape[2], size[0], torch.zeros_like(flip), interpolation)
    count, channels, rows, _ = images.shape
    cut = torch.empty((count, channels, *size), device=images.device)
    on_cpu = images.device.type == "cpu"
    at_once = _AT_ONCE if on_cpu else max(count, 1)
    # float16 is a third of a level off at most, and many times as fast; bfloat16 would show
    kind = torch.float32 if on_cpu else torch.float16
    across, down = across.to(kind), down.to(kind)
    with torch.autocast(images.device.type, enabled=False):
        for start in range(0, count, at_once):
            part = slice(start, start + at_once)
            pixels = images[part].to(kind).flatten(1, 2)  # one large product is faster than one a channel
            narrow = torch.bmm(pixels, across[part].transpose(1, 2)).view(-1, channels, rows, size[1])
            cut[part] = down[part, None] @ narrow
    return cut.mul_(1 / 255).clamp_(0.0, 1.0)  # a cubic overshoots


def _weights(start: Tensor, span: Tensor, pixels: int, wanted: int, flip: Tensor, interpolation: Interpolation) -> Tensor:
    """(B, wanted, pixels): how much each pixel of an axis gives to each pixel of the crop."""
    device, reach = start.device, _REACH[interpolation]
    number = torch.arange(wanted, device=device)
    number = torch.where(flip[:, None], wanted - 1 - number, number)  # (B, wanted)
    step = span * (pixels / wanted)  # pixels of the image per pixel of the crop
    wide = step.clamp(min=1.0)[:, None]
    centre = (start * pixels)[:, None] + (number + 0.5) * step[:, None]
    taps = min(pixels, math.ceil(2 * reach * max(pixels / wanted, 1.0)) + 1)  # as many as the widest kernel meets
    first = (centre - reach * wide - 0.5).floor().long().clamp(0, pixels - taps)
    near = first[:, :, None] + torch.arange(taps, device=device)  # (B, wanted, taps)
    distance = (near + 0.5 - centre[:, :, None]).div_(wide[:, :, None]).abs_().clamp_(max=reach)
    if interpolation == "bilinear":
        weight = 1.0 - distance
    else:  # Keys' cubic with a = -1/2, as Pillow's
        inner = distance.mul(1.5).sub_(2.5).mul_(distance).mul_(distance).add_(1.0)
        outer = distance.mul(-0.5).add_(2.5).mul_(distance).sub_(4.0).mul_(distance).add_(2.0)
        weight = torch.where(distance < 1.0, inner, outer)
    weight.div_(weight.sum(2, keepdim=True))
    return torch.zeros((*number.shape, pixels), device=device).scatter_(2, near, weight)
