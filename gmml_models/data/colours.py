"""Colours and blur of views, on the device, by kornia's functions; only the rows that chance has chosen are touched."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gmml_models.data.sampling import send
from gmml_models.data.transforms import ViewPlan, draw_looks

if TYPE_CHECKING:
    from gmml_models.data.transforms import Looks

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


class Finish:
    """The last stretch of every view: colours, blur, normalisation.

    Args:
        plan: of the views.
        device: where the views end.
    """

    def __init__(self, plan: ViewPlan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        shape = (1, len(plan.mean), 1, 1)
        self._mean = torch.tensor(plan.mean, dtype=torch.float32).view(shape).to(device)
        self._scale = (1.0 / torch.tensor(plan.std, dtype=torch.float64)).float().view(shape).to(device)

    def __call__(self, images: Tensor, view: int | None, keys: Tensor) -> Tensor:
        """One view of a batch.

        Args:
            images: (B, C, H, W), uint8, or float32 in [0, 1], which is overwritten.
            view: its number; None: colours and sharpness stay.
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
    """Brightness, contrast, saturation and hue, in each image's own order; the last two in images of three channels only.

    Args:
        images: (B, C, H, W) float32 in [0, 1], changed in place, and clamped after each change.
        looks: of the batch.
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
    """One change of some images, in place."""
    if not len(rows):
        return
    part = send(rows, images.device)
    images.index_copy_(0, part, _changed(images.index_select(0, part), op, factors[rows]))


def _changed(images: Tensor, op: int, factors: Tensor) -> Tensor:
    """One change of images (B, C, H, W), each by its factor; the factors (B,) are on the CPU."""
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
    """A Gaussian blur of whole images, with reflected borders.

    Args:
        images: (B, C, H, W) float32, changed in place.
        looks: of the batch.
        largest: upper end of sigma; the kernel reaches three times as far, or as far as the image.
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
