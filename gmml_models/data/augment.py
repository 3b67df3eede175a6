"""Crops, colours and blur: computes the pixels of a view from the random numbers of `gmml_models.data.transforms`.

Both ways of cropping antialias with Pillow's kernels when they shrink an image, so that the two data paths give the same picture.
On the device, the crop is a product with two small matrices; it takes as long as ``grid_sample``, which has no antialiasing and
another cubic kernel. Colours and blur use kornia's functions, on the device; only the images selected for a change are processed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gmml_models.data.sampling import send
from gmml_models.data.transforms import Crops, Looks, ViewPlan, draw_looks

Interpolation = Literal["bilinear", "bicubic"]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_AT_ONCE = 8  # images on the CPU: their buffers stay in its cache, and in memory that is already there
_REACH = {"bilinear": 1.0, "bicubic": 2.0}
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


def cut_one(image: Tensor, crops: Sequence[Crops], sizes: Sequence[tuple[int, int]], interpolation: Interpolation) -> list[Tensor]:
    """Make several crops of one image.

    Args:
        image: (C, H, W) uint8, any number of channels.
        crops: the crops of this image (a batch of one), one per view.
        sizes: height and width of each view.
        interpolation: the interpolation of the resize.

    Returns:
        For each view, (C, height, width) uint8.
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
    """Resize the whole image, ignoring its aspect: (C, H, W) uint8 -> (C, *size) uint8."""
    whole = Crops(np.array([[0.0, 0.0, 1.0, 1.0]]), np.zeros(1, dtype=np.bool_))
    return cut_one(image, [whole], [size], interpolation)[0]


def cut_batch(images: Tensor, boxes: Tensor, flip: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Make one crop of each image.

    Args:
        images: (B, C, H, W) uint8.
        boxes: (B, 4), the left, top, width and height as shares of the image's width and height; on the device of the images.
        flip: (B,) bool, on the device of the images.
        size: height and width of the crops.
        interpolation: the interpolation of the resize.

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
    """(B, wanted, pixels): the weight of each pixel of an axis in each pixel of the crop."""
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


class Finish:
    """The last stage of every view: colours, blur, normalisation.

    Args:
        plan: the plan of the views.
        device: the device of the views.
    """

    def __init__(self, plan: ViewPlan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        shape = (1, len(plan.mean), 1, 1)
        self._mean = torch.tensor(plan.mean, dtype=torch.float32).view(shape).to(device)
        self._scale = (1.0 / torch.tensor(plan.std, dtype=torch.float64)).float().view(shape).to(device)

    def __call__(self, images: Tensor, view: int | None, keys: Tensor) -> Tensor:
        """Make one view of a batch.

        Args:
            images: (B, C, H, W), uint8, or float32 in [0, 1], which is overwritten.
            view: the number of the view; None leaves colours and sharpness unchanged.
            keys: (B,) int64, on the CPU.

        Returns:
            (B, C, H, W) float32, normalised, on the device.
        """
        if images.dtype == torch.uint8:
            images = send(images, self.device).to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)
        with torch.no_grad():
            if view is not None:
                looks = draw_looks(keys, view, self.plan)
                change_colours(images, looks)
                blur(images, looks, self.plan.blur_sigma[1])
            return images.sub_(self._mean).mul_(self._scale)


def change_colours(images: Tensor, looks: Looks) -> None:
    """Change brightness, contrast, saturation and hue, in a separate order for each image.

    The last two only in images of three channels.

    Args:
        images: (B, C, H, W) float32 in [0, 1], changed in place, and clamped after each change.
        looks: the colours and blur drawn for the batch.
    """
    rows = looks.jitter.nonzero().flatten()
    if not len(rows):
        return
    where = send(rows, images.device)
    chosen = images.index_select(0, where)
    factors, order = looks.factors[rows], looks.order[rows]
    coloured = images.shape[1] == 3
    turn = (order == _HUE).int().argmax(1)  # hue, a hundred small operations, comes once: between what is before and after it
    for late in (False, True):
        for place in range(4):
            now = turn < place if late else turn > place
            for op in (_BRIGHTNESS, _CONTRAST, _SATURATION)[: 3 if coloured else 2]:
                _change(chosen, op, factors[:, op], (now & (order[:, place] == op)).nonzero().flatten())
        if coloured and not late:
            chosen = _changed(chosen, _HUE, factors[:, _HUE])
    images.index_copy_(0, where, chosen)


def _change(images: Tensor, op: int, factors: Tensor, rows: Tensor) -> None:
    """Apply one change to some images, in place."""
    if not len(rows):
        return
    part = send(rows, images.device)
    images.index_copy_(0, part, _changed(images.index_select(0, part), op, factors[rows]))


def _changed(images: Tensor, op: int, factors: Tensor) -> Tensor:
    """Apply one change to images (B, C, H, W), each by its own factor; the factors (B,) are on the CPU."""
    from kornia import enhance

    factor = send(factors, images.device)
    if op == _BRIGHTNESS:
        return enhance.adjust_brightness_accumulative(images, factor)
    if op == _CONTRAST:
        return enhance.adjust_contrast_with_mean_subtraction(images, factor)
    if op == _SATURATION:
        return enhance.adjust_saturation_with_gray_subtraction(images, factor)
    return enhance.adjust_hue(images, factor * (2 * math.pi))


def blur(images: Tensor, looks: Looks, largest: float) -> None:
    """Apply a Gaussian blur to whole images, with reflected borders.

    Args:
        images: (B, C, H, W) float32, changed in place.
        looks: the colours and blur drawn for the batch.
        largest: the upper end of sigma; the kernel reaches three times as far, but no further than the image.
    """
    rows = looks.blur.nonzero().flatten()
    if not len(rows):
        return
    from kornia.filters import gaussian_blur2d

    radius = math.ceil(3 * largest)
    height, width = (2 * min(radius, side - 1) + 1 for side in images.shape[2:])
    where = send(rows, images.device)
    sigma = looks.sigma[rows][:, None].expand(-1, 2)  # kornia looks at it on the CPU before it sends it
    images.index_copy_(0, where, gaussian_blur2d(images.index_select(0, where), (height, width), sigma))
