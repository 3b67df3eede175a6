"""Draws how an image becomes a view (crop, flip, colours and blur), all from the image's key.

Both data paths use this module, so an image is treated in the same way whether a worker decodes it or it is kept on the device.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gmml_aug.chance import mix_int, stream, to_uniform, words
from gmml_models.errors import UsageError

Numbers = NDArray[np.float64]
_VIEWS = 0x76696577 << 8  # the streams of an image's key that belong to its views; those of the corruptions count from 0
_ASPECTS = (3 / 4, 4 / 3)
_ORDERS = 24  # of four colour changes
_SEEDED = 0x736565646564


@dataclass(frozen=True, kw_only=True)
class ViewPlan:
    """The views to make of an image: first the large ones, then the small ones.

    Args:
        size: height and width of the large views in pixels.
        views: number of large views.
        local_size: height and width of the small views.
        local_views: number of small views.
        scale: the range of the share of the image's area that a large crop covers.
        local_scale: the range of the share that a small crop covers.
        flip: probability of a horizontal flip.
        jitter: the largest changes of brightness, contrast and saturation (factors from 1 - j to 1 + j), and of hue (a share of
            the colour circle).
        jitter_p: the probability that colours are changed. Saturation and hue are changed only in images with three channels.
        blur_p: probability of a Gaussian blur of the whole view.
        blur_sigma: the range of the blur's standard deviation, drawn uniformly, in pixels of the view.
        interpolation: the interpolation of the crops; both kinds are antialiased when they shrink an image.
        centre: side of the crop of `Feed.sample` and `in_order`, as a share of the image's shorter side.
        mean: the mean of each channel, for pixels in [0, 1].
        std: per channel.

    Raises:
        UsageError: a number is out of range, or mean and std differ in length.

    Source:
        GMML 3.1 uses crop, flip and colour jitter; the numbers are those of the release, and the range of sigma is the one common
        in related methods.
    """

    size: tuple[int, int]
    views: int = 2
    local_size: tuple[int, int] = (96, 96)
    local_views: int = 0
    scale: tuple[float, float] = (0.05, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.25)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.1, 0.1, 0.1, 0.01)
    jitter_p: float = 0.3
    blur_p: float = 0.1
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    centre: float = 1.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.views < 1 or self.local_views < 0:
            raise UsageError(
                f"ViewPlan: views={self.views} and local_views={self.local_views}. Give at least one large view, and 0 or more "
                f"small ones."
            )
        for name, size in (("size", self.size), ("local_size", self.local_size)):
            if len(size) != 2 or min(size) < 1:
                raise UsageError(f"ViewPlan: {name}={size} is not a height and a width. Give two whole numbers of at least 1.")
        for name, share in (("flip", self.flip), ("jitter_p", self.jitter_p), ("blur_p", self.blur_p)):
            if not 0 <= share <= 1:
                raise UsageError(f"ViewPlan: {name}={share} is not a probability. Give a number from 0 to 1.")
        if not 0 < self.centre <= 1:
            raise UsageError(f"ViewPlan: centre={self.centre} is not a share of a side. Give a number above 0 and at most 1.")
        for name, (low, high) in (("scale", self.scale), ("local_scale", self.local_scale)):
            if not 0 < low <= high <= 1:
                raise UsageError(
                    f"ViewPlan: {name}={(low, high)} is not a range of shares. Give 0 < low <= high <= 1, as in (0.05, 1.0)."
                )
        low, high = self.blur_sigma
        if not 0 < low <= high < float("inf"):
            raise UsageError(
                f"ViewPlan: blur_sigma={self.blur_sigma} is not a range above 0. Give 0 < low <= high, as in (0.1, 2.0)."
            )
        if len(self.jitter) != 4 or not all(0 <= one <= 1 for one in self.jitter[:3]) or not 0 <= self.jitter[3] <= 0.5:
            raise UsageError(
                f"ViewPlan: jitter={self.jitter} is not a valid set of four changes. Give brightness, contrast and saturation "
                "from 0 to 1 and hue "
                "from 0 to 0.5, as in (0.1, 0.1, 0.1, 0.01)."
            )
        if len(self.mean) != len(self.std) or not self.mean or not all(0 < one < float("inf") for one in self.std):
            raise UsageError(
                f"ViewPlan: mean={self.mean} and std={self.std} do not fit together. Give one number per channel for each, with "
                "std above 0; gmml stats computes them."
            )

    @property
    def crops(self) -> tuple[tuple[tuple[int, int], tuple[float, float]], ...]:
        """Size and scale of every view, by its number."""
        return ((self.size, self.scale),) * self.views + ((self.local_size, self.local_scale),) * self.local_views


class Crops(NamedTuple):
    """The part of each image that a view shows."""

    boxes: Numbers  # (B, 4): left, top, width, height, as shares of the image's width and height
    flip: NDArray[np.bool_]  # (B,) True where the crop is mirrored


class Looks(NamedTuple):
    """How the colours of each view are changed, and how much it is blurred.

    The numbers are on the CPU, because the host must know which images are changed.
    """

    jitter: Tensor  # (B,) bool
    factors: Tensor  # (B, 4) float32: of brightness, contrast, saturation; hue as a share of its circle
    order: Tensor  # (B, 4) int64: which of the four comes first, second, ...
    blur: Tensor  # (B,) bool
    sigma: Tensor  # (B,) float32, pixels


def draw_crops(keys: Tensor, view: int, aspect: Numbers, plan: ViewPlan) -> Crops:
    """Draw the crop of one view of each image.

    The rule of RandomResizedCrop in closed form, without its ten attempts: the share of the area is uniform over ``scale`` (in an
    image longer than 4:3, over the part of it that fits), the aspect is log-uniform over the part of 3/4 to 4/3 (times the view's
    own aspect) that fits, and the position is uniform. Those attempts favour small crops, because large ones are rejected more
    often; here the share has the requested distribution.

    Args:
        keys: (B,) int64, on the CPU.
        view: the number of the view.
        aspect: (B,) float64, width / height of the images.
        plan: the plan, with scales, sizes and the probability of a flip.

    Source:
        The rule is GoogLeNet's, as in torchvision; the closed form is ours.
    """
    u = _uniform(keys, view, 0, 5)
    (height, width), (low, high) = plan.crops[view]
    aspect = aspect * (height / width)  # what follows then is as for a square view
    # widths and heights up to 1 leave the aspects between share * aspect and aspect / share
    most = np.minimum(high, np.minimum(1.0, np.minimum(aspect / _ASPECTS[0], _ASPECTS[1] / aspect)))
    least = np.minimum(low, most)
    share = least + (most - least) * u[:, 0]
    narrow = np.log(np.maximum(_ASPECTS[0], share * aspect))
    wide = np.log(np.minimum(_ASPECTS[1], aspect / share))
    chosen = np.exp(narrow + np.maximum(wide - narrow, 0.0) * u[:, 1])
    sides = np.stack([np.sqrt(share * chosen / aspect), np.sqrt(share * aspect / chosen)], axis=1)
    sides = np.minimum(sides, 1.0)  # a last bit above
    return Crops(np.concatenate([(1.0 - sides) * u[:, 2:4], sides], axis=1), u[:, 4] < plan.flip)


def centre_crops(aspect: Numbers, plan: ViewPlan) -> Crops:
    """Return the centre of each image, of the size given by `ViewPlan.centre`, in the shape of the large views, without flips.

    Args:
        aspect: (B,) float64, width / height of the images.
        plan: the plan, with size and centre.
    """
    height, width = plan.size
    aspect = aspect * (height / width)
    sides = plan.centre * np.stack([np.minimum(1.0, 1.0 / aspect), np.minimum(1.0, aspect)], axis=1)
    return Crops(np.concatenate([(1.0 - sides) / 2, sides], axis=1), np.zeros(len(aspect), dtype=np.bool_))


def draw_looks(keys: Tensor, view: int, plan: ViewPlan) -> Looks:
    """Draw the colours and the blur of one view of each image.

    Args:
        keys: (B,) int64, on the CPU.
        view: the number of the view.
        plan: the plan, with probabilities and ranges.
    """
    u = torch.from_numpy(_uniform(keys, view, 5, 8))
    change = torch.tensor(plan.jitter, dtype=torch.float64)
    factors = (2.0 * u[:, 1:5] - 1.0) * change
    factors[:, :3] += 1.0
    low, high = plan.blur_sigma
    return Looks(
        jitter=u[:, 0] < plan.jitter_p,
        factors=factors.float(),
        order=_orders()[(u[:, 5] * _ORDERS).long()],
        blur=u[:, 6] < plan.blur_p,
        sigma=(low + (high - low) * u[:, 7]).float(),
    )


def _uniform(keys: Tensor, view: int, start: int, count: int) -> Numbers:
    """(B, count) float64 in [0, 1): the random numbers of this view of each image, from number ``start`` on."""
    found: Numbers = to_uniform(words(stream(keys, _VIEWS + view), count, start)).double().numpy()
    return found


@cache
def _orders() -> Tensor:
    return torch.tensor(list(permutations(range(4))))


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Seed torch (on the CPU), `random` and NumPy's global generator from a key, and restore their states afterwards.

    So any transform that draws from them, such as those of torchvision and timm, is repeatable.

    Args:
        key: any integer, for example one made by `gmml_aug.keys`.
    """
    seed = mix_int(key + _SEEDED) % (1 << 64)
    # not torch.manual_seed, which also touches the GPU's generators
    before = torch.default_generator.get_state(), random.getstate(), np.random.get_state()
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    try:
        yield
    finally:
        torch.default_generator.set_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])
