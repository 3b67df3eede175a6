"""Places on a grid: the token masks of masked image modelling, as pixels.

`Cells` are single cells, `Blocks` are rectangles of cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from gmml_aug.chance import below, high_half, low_half, scale, to_uniform
from gmml_aug.checks import check_edges, check_integer, check_pair, check_shared, check_switch
from gmml_aug.fields import keep, keep_range, pair_of
from gmml_aug.places.base import TINY, Place, Range, cells_along, cells_to_pixels, edges_of, free_size, whole_pixels

_MISSES = 10  # attempts in a row without a block after which an image gets no more


class Grid(Place):
    """The base class of `Cells` and `Blocks`: a grid whose cells have edges of ``size`` pixels.

    The last cell along an axis may be smaller.
    """

    size: int | tuple[int, ...]
    ratio: Range
    _fewest: ClassVar[int] = 1  # cells along every axis

    def __post_init__(self) -> None:
        who = type(self).__name__
        keep_range(self, "ratio", check_pair(who, "ratio", self.ratio, 0.0, 1.0))
        keep(self, "dims", check_integer(who, "dims", self.dims, 1, 3))
        keep(self, "size", check_edges(who, "size", self.size, self.dims))
        keep(self, "shared", check_shared(who, self.shared, self.dims))
        check_switch(who, "invert", self.invert)

    @property
    def grid(self) -> tuple[int, ...]:
        """The edges of a cell."""
        return edges_of(self.size, self.dims)

    @property
    def steps(self) -> tuple[int, ...]:
        """The edge of a cell along each free axis."""
        return tuple(free_size(self, self.grid))

    def check_size(self, size: Sequence[int]) -> None:
        """Raise ValueError if too few cells fit along an axis."""
        if any(length - edge < self._fewest - 1 for length, edge in zip(size, self.steps, strict=True)):
            raise ValueError(
                f"{type(self).__name__}: size={self.size} is too large for images whose sides are {tuple(size)}: {self._fewest} of "
                f"them must fit along every axis. Allowed: up to {max(min(size) + 1 - self._fewest, 1)}."
            )

    def target(self, words: Tensor, size: Sequence[int], ratios: Tensor | None = None) -> Tensor | None:
        """None, because the drawn cells already keep to the ratio."""
        return None


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Cells(Grid):
    """Random cells of a grid: an exact number of them, without replacement.

    Args:
        size: edge of a cell in pixels (for token masks, the patch size): one number, or one per axis; (2, 16, 16) gives the
            tubelets of a clip. If it does not divide an axis, the last cell there is smaller.
        ratio: share of the cells: a number r gives ceil(r n) of n cells; for a pair, each image draws an integer number, uniform
            from ceil(low n) to floor(high n).
        shared: axes along which the cells span the whole image, like tubes through time.
        invert: True to corrupt all other cells instead.
        dims: number of spatial axes.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a share is outside [0, 1], low is above high, ``size`` is below 1, or ``shared`` axes are unknown; at the
            call, images are smaller than one cell.

    Source:
        MAE (He et al. 2021) masks 75 % of the patches, SimMIM (Xie et al. 2021) 60 % of cells of 32 pixels; both round up.
    """

    size: int | tuple[int, ...]
    ratio: Range
    shared: tuple[int, ...] = ()
    invert: bool = False
    dims: int = 2

    def words(self, size: Sequence[int]) -> int:
        """One word for the number of cells, and one per cell."""
        return 1 + math.prod(cells_along(size, self.steps))

    def amount(self, size: Sequence[int]) -> tuple[int, int]:
        """The smallest number of cells that an image can draw, and the number of possible values starting there."""
        total = math.prod(cells_along(size, self.steps))
        return whole_pixels(self.ratio, total) if isinstance(self.ratio, tuple) else (math.ceil(self.ratio * total - TINY), 1)

    def draw(self, words: Tensor, size: Sequence[int], ratios: Tensor | None = None) -> Tensor:
        """(B, most, 2 D) int64 cells: those with the smallest random words."""
        grid = cells_along(size, self.steps)
        total = math.prod(grid)
        least, values = self.amount(size)
        count, most = least + below(words[:, 0], values), least + values - 1
        if ratios is not None:
            count, most = (ratios * total - TINY).ceil().long(), total
        most = max(most, 1)  # a list of boxes is never empty
        chosen = words[:, 1 : 1 + total].argsort(dim=1)[:, :most]  # (B, most) numbers of cells, none twice
        corners: list[Tensor] = []
        for length in reversed(grid):
            corners.insert(0, chosen % length)
            chosen = torch.div(chosen, length, rounding_mode="floor")
        boxes = torch.stack([*corners, *(torch.ones_like(corner) for corner in corners)], dim=2)
        number = torch.arange(most, device=words.device)
        return cells_to_pixels(boxes, size, self.steps).masked_fill((number >= count[:, None])[..., None], 0)


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Blocks(Grid):
    """Rectangular blocks of cells of a grid, drawn until a share of the cells is covered, which is never exceeded.

    Blocks are drawn one after the other: the area is uniform between ``least`` cells and the number still to be covered, the
    aspect ratio log-uniform, both sides are rounded, and the corner is uniform. A block is skipped if it is as long as the grid
    along an axis, covers nothing new, or covers too much. After ten skipped blocks in a row, an image gets no more blocks.

    Args:
        size: edge of a cell in pixels (for token masks, the patch size): one number, or one per axis.
        ratio: share of the cells at which drawing ends: a number, or (low, high) from which each image draws uniformly; of n
            cells, at most floor(ratio n) are covered.
        least: number of cells of the smallest block.
        aspect: the range (low, high) of height / width.
        attempts: largest number of blocks drawn per image.
        shared: axes along which the blocks span the whole image, like tubes through time; two axes must remain.
        invert: True to corrupt all other cells instead.
        dims: number of spatial axes.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a share is outside [0, 1], low is above high, ``aspect`` is not above 0, a number is below 1, or there are not
            two free axes; at the call, images have fewer than two cells along an axis.

    Source:
        BEiT (Bao et al. 2021): blocks of at least 16 patches, aspect 0.3 to 1 / 0.3, until 40 %; iBOT (Zhou et al. 2021) draws the
        share. Both draw in a loop; ``attempts``, which ends the loop, is our addition.
    """

    size: int | tuple[int, ...]
    ratio: Range
    least: int = 16
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    attempts: int = 32
    shared: tuple[int, ...] = ()
    invert: bool = False
    dims: int = 2
    _fewest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        keep(self, "least", check_integer("Blocks", "least", self.least, 1))
        keep(self, "attempts", check_integer("Blocks", "attempts", self.attempts, 1, 512))
        keep(self, "aspect", check_pair("Blocks", "aspect", self.aspect, 1e-3, 1e3))
        super().__post_init__()
        if self.dims - len(self.shared) != 2:
            raise ValueError(
                f"Blocks: dims={self.dims} with shared={self.shared} leaves {self.dims - len(self.shared)} axes, but a block has "
                "two. Give dims=2, or dims=3 with one shared axis."
            )

    def words(self, size: Sequence[int]) -> int:
        """One word for the share, and two per block."""
        return 1 + 2 * self.attempts

    def draw(self, words: Tensor, size: Sequence[int], ratios: Tensor | None = None) -> Tensor:
        """(B, attempts, 4) int64 blocks; skipped ones have size 0."""
        rows, columns = cells_along(size, self.steps)
        low, high = pair_of(self.ratio)
        share = low + (high - low) * to_uniform(words[:, 0]).double() if ratios is None else ratios
        left = (share * (rows * columns) + TINY).floor().long()  # (B,) cells
        # float64: rounding must come out alike on every device, and exp and sqrt differ in their last bit only
        area, stretch = to_uniform(words[:, 1::2]).double(), _lower_uniform(words[:, 1::2]).double()
        stretch = (math.log(self.aspect[0]) + stretch * math.log(self.aspect[1] / self.aspect[0])).exp()
        down, across = high_half(words[:, 2::2]), low_half(words[:, 2::2])
        row, column = torch.arange(rows, device=words.device)[:, None], torch.arange(columns, device=words.device)
        covered = torch.zeros(words.shape[0], rows, columns, dtype=torch.bool, device=words.device)
        misses = torch.zeros_like(left)
        found: list[Tensor] = []
        for number in range(self.attempts):
            cells = self.least + area[:, number] * (left - self.least)
            height = (cells * stretch[:, number]).clamp(min=0.25).sqrt().round().long()
            width = (cells / stretch[:, number]).clamp(min=0.25).sqrt().round().long()
            top = scale(down[:, number], (rows - height + 1).clamp(min=1))
            start = scale(across[:, number], (columns - width + 1).clamp(min=1))
            inside = _between(row, top, height) & _between(column, start, width)
            new = (inside & ~covered).flatten(1).sum(1)
            fits = (height >= 1) & (width >= 1) & (height < rows) & (width < columns)
            taken = fits & (new > 0) & (new <= left) & (misses < _MISSES)
            covered = covered | (inside & taken[:, None, None])
            left = left - new * taken
            misses = (misses + 1) * ~taken
            found.append(torch.stack([top, start, height, width], dim=1) * taken[:, None])
        return cells_to_pixels(torch.stack(found, dim=1), size, self.steps)


def _between(at: Tensor, start: Tensor, extent: Tensor) -> Tensor:
    start, extent = start[:, None, None], extent[:, None, None]
    return (at >= start) & (at < start + extent)


def _lower_uniform(word: Tensor) -> Tensor:
    """Float32 in [0, 1) from the 24 bits below those of `to_uniform`."""
    return ((word >> 16) & 0xFFFFFF).to(torch.float32) * 2.0**-24
