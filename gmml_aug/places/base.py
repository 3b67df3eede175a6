"""The base class of places, which say where a fill works, as boxes or as any other shape.

A place draws on its *free* axes; along the ``shared`` ones it spans the whole image. Boxes are (B, N, 2 D) integers, first the
D starts, then the D sizes; a box of size 0 is unused.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from gmml_aug.chance import below
from gmml_aug.fields import as_code

Range = float | tuple[float, float]

TINY = 1e-6  # of a pixel or a cell: what ceil and floor forgive a product of floats


class Place(ABC):
    """Where a fill works: the base class of `Boxes`, `Cells`, `Blocks`, and of your own places.

    A place of your own is a frozen dataclass with `words` and either `draw` or, for shapes other than boxes, `order`::

        @dataclass(frozen=True, kw_only=True)
        class Left(gmml_aug.Place):
            ratio: float                                     # met to the pixel

            def words(self, size):                           # random words: only the one for the ratio
                return 1

            def order(self, words, size):                    # from the left to the right
                return torch.arange(size[-1], device=words.device).expand(len(words), *size)

            def levels(self, size):
                return size[-1]

    It may have these fields or class attributes:

    Attributes:
        ratio: share of the image to cover, exact to the pixel: a number, or (low, high) from which each image draws; None covers
            everything that is drawn.
        dims: number of spatial axes of the images.
        shared: axes along which the place spans the whole image; ``size`` below is the size of the others.
        invert: True if the fill works outside the place.
        overshoot: True if the last box is painted whole.
    """

    ratio: Range | None  # only where there is one
    dims: int = 2
    shared: tuple[int, ...] = ()
    invert: bool = False
    overshoot: bool = False

    __repr__ = as_code

    @abstractmethod
    def words(self, size: Sequence[int]) -> int:
        """The number of random 64-bit words that one image needs; if there is a ratio, the first word draws it."""

    def draw(self, words: Tensor, size: Sequence[int], ratios: Tensor | None = None) -> Tensor:
        """Boxes in the order in which they are painted, before any stop: (B, N, 2 D) int64 starts and sizes.

        Args:
            words: (B, `words`) random int64.
            size: the D sizes of the free axes.
            ratios: (B,) float64 shares given by the caller, for places that apply the ratio themselves instead of in `target`.
        """
        raise TypeError(f"{type(self).__name__}: a place needs draw (boxes) or order (any other shape); see gmml_aug.Place.")

    def order(self, words: Tensor, size: Sequence[int]) -> Tensor:
        """For shapes other than boxes, say when each pixel is painted: (B, *size) int64, from 0 to `levels` - 1.

        Negative values are never painted.

        Pixels of one level are painted in reading order, so painting can stop at any pixel of the last level. Number the shapes,
        and give each pixel the number of the first one that covers it.
        """
        raise TypeError(f"{type(self).__name__}: this place consists of boxes; see `draw`.")

    def levels(self, size: Sequence[int]) -> int:
        """The number of levels of `order`."""
        return 1

    def check_size(self, size: Sequence[int]) -> None:
        """Raise ValueError if the place does not fit into images of this size."""
        return

    @property
    def grid(self) -> tuple[int, ...]:
        """Edges in pixels, one per axis, of the grid that all borders keep to; 1 if there is no grid."""
        return (1,) * self.dims

    @property
    def largest_share(self) -> float:
        """The largest share of an image that the drawn boxes can cover without bias."""
        return 1.0

    @property
    def is_boxes(self) -> bool:
        """False for a place whose shape is not a box."""
        return type(self).order is Place.order

    def target(self, words: Tensor, size: Sequence[int], ratios: Tensor | None = None) -> Tensor | None:
        """(B,) int64 pixels to cover, or None if everything drawn is painted."""
        ratio = getattr(self, "ratio", None)
        if ratio is None:
            return None
        if ratios is not None:
            return (ratios * math.prod(size)).round().long()
        least, values = whole_pixels(ratio, math.prod(size))
        return torch.full_like(words[:, 0], least) if values == 1 else least + below(words[:, 0], values)


def whole_pixels(ratio: Range, pixels: int) -> tuple[int, int]:
    """The smallest number of pixels that an image can draw, and the number of possible values starting there."""
    if not isinstance(ratio, tuple):
        return round(ratio * pixels), 1
    low, high = math.ceil(ratio[0] * pixels - TINY), math.floor(ratio[1] * pixels + TINY)
    if low > high:  # no whole number of pixels in so small an image: the nearest to the middle
        return round((ratio[0] + ratio[1]) / 2 * pixels), 1
    return low, high - low + 1


def edges_of(value: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    """Return one number per axis."""
    return value if isinstance(value, tuple) else (value,) * dims


def free_axes(where: Place) -> list[int]:
    """The axes on which a place draws."""
    return [axis for axis in range(where.dims) if axis not in where.shared]


def free_size(where: Place | None, size: Sequence[int]) -> list[int]:
    """Select the spatial sizes (or other numbers, one per axis) of the axes on which a place draws.

    For the whole image, all axes are selected.
    """
    return list(size) if where is None else [size[axis] for axis in free_axes(where)]


def cells_along(size: Sequence[int], steps: Sequence[int]) -> list[int]:
    """The number of cells with edges of ``steps`` pixels along each axis; the last one may be smaller."""
    return [-(-length // step) for length, step in zip(size, steps, strict=True)]


def cells_to_pixels(boxes: Tensor, size: Sequence[int], steps: Sequence[int]) -> Tensor:
    """Convert boxes (B, N, 2 D) of cells to boxes of pixels, which are cut at the border or continue at the opposite one."""
    starts, extents = [], []
    for d, (length, step, count) in enumerate(zip(size, steps, cells_along(size, steps), strict=True)):
        start, extent = boxes[..., d], boxes[..., len(size) + d]
        end, beyond = start + extent, (start + extent - count).clamp(min=0)
        starts.append(start * step)
        extents.append(((end * step).clamp(max=length) + beyond * step - starts[-1]) * (extent > 0))
    return torch.stack([*starts, *extents], dim=-1)


def along_shared(boxes: Tensor, where: Place, size: Sequence[int]) -> Tensor:
    """Convert boxes (B, N, 2 F) on the free axes to boxes (B, N, 2 D) of the image; unused ones stay unused."""
    if not where.shared:
        return boxes
    free = free_axes(where)
    starts, sizes = boxes[..., : len(free)], boxes[..., len(free) :]
    exists = (sizes > 0).all(-1)
    columns: list[Tensor] = [torch.zeros_like(boxes[..., 0])] * (2 * len(size))
    for axis, length in enumerate(size):
        if axis in where.shared:
            columns[len(size) + axis] = exists * length
        else:
            columns[axis], columns[len(size) + axis] = starts[..., free.index(axis)], sizes[..., free.index(axis)]
    return torch.stack(columns, dim=-1)
