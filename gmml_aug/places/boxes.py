"""Boxes at any pixel, until a share of the image is covered or in a given number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from gmml_aug.chance import high_half, low_half, scale
from gmml_aug.checks import check_choice, check_edges, check_integer, check_integer_pair, check_pair, check_shared, check_switch
from gmml_aug.fields import keep, keep_range, pair_of
from gmml_aug.places.base import Place, Range, cells_along, cells_to_pixels, edges_of, free_size, whole_pixels

Placement = Literal["wrap", "inside", "origin"]

_MOST = 4096  # boxes an image; beyond it the words of `coverage` cost more than a mask of cells would


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Boxes(Place):
    """Groups of connected pixels: axis-parallel boxes with edges at any pixel, drawn separately for every image.

    Give ``ratio`` (boxes are painted until that share of the image is covered, exact to the pixel) or ``count``.

    Args:
        ratio: share of the image's pixels to cover, 0 to 1. A single number covers exactly ``round(ratio * pixels)`` pixels; for
            a pair (low, high) each image draws an integer number of pixels, uniform from ceil(low n) to floor(high n).
        count: number of boxes, or a pair (low, high) of integers to draw it from.
        side: (low, high) share of each side of the image that a box spans. A side is an integer number of pixels (of cells,
            with ``align``), uniform from round(low S) to round(high S), both included, at least 1.
        align: edge in pixels of a grid that box borders keep to, one number or one per axis; with 1, boxes may begin at any
            pixel. Every cell is then equally likely (placement "wrap") and is covered completely, unless a ratio is met exactly:
            then the last box ends in reading order, so the first pixels of a cell are slightly more likely than its last ones.
        whole: True to keep every cell whole, and meet the ratio to the nearest cell: ``round(ratio * cells)``; for a pair, an
            integer number of cells is drawn. Only a budget may still cut one.
        overshoot: True to end with the whole box that passes the target, as the authors' release does, instead of trimming it.
        placement: ``"wrap"``: a box that crosses a border continues at the opposite one, so every pixel is equally likely;
            ``"inside"``: boxes lie completely inside the image, which favours its centre; ``"origin"``: the release's rule, biased
            to the
            lower right: corner uniform over 0 to S - align - 1 snapped down, side uniform from low to *below* high snapped to the
            nearest multiple of align, then clipped.
        shared: axes along which a box spans the whole image: (0,) gives vertical bands in images and spectrograms, and tubes
            through the first axis of a clip. ``ratio``, ``side`` and ``align`` then refer to the other axes.
        invert: True to corrupt outside the boxes.
        dims: number of spatial axes: 1 (signals), 2 (images), 3 (volumes, clips).

    Raises:
        TypeError: a value has the wrong type.
        ValueError: neither or both of ``ratio`` and ``count`` are given; a share is outside [0, 1]; low is above high; ``align``
            or ``count`` is below 1; boxes are so small that thousands would be needed; or ``shared`` axes are unknown.

    Source:
        GMML 3.1 for sides 5 to 25 % and ratios up to 35 %; 2.2 for free edges ("not aligned to patch boundaries"). The paper does
        not say what happens to boxes at the borders or how the ratio is met: wrapping and the exact trim are our choice.
    """

    ratio: Range | None = None
    count: int | tuple[int, int] | None = None
    side: Range = (0.05, 0.25)
    align: int | tuple[int, ...] = 1
    whole: bool = False
    overshoot: bool = False
    placement: Placement = "wrap"
    shared: tuple[int, ...] = ()
    invert: bool = False
    dims: int = 2

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.count is None):
            raise ValueError(
                f"Boxes: got ratio={self.ratio} and count={self.count}. Give exactly one of them: ratio=(0.0, 0.35) covers a "
                "share of the image, count=1 draws a number of boxes."
            )
        if self.ratio is not None:
            keep_range(self, "ratio", check_pair("Boxes", "ratio", self.ratio, 0.0, 1.0))
        if self.count is not None:
            keep_range(self, "count", check_integer_pair("Boxes", "count", self.count, 1, _MOST))
        keep(self, "side", check_pair("Boxes", "side", self.side, 0.0, 1.0))
        keep(self, "dims", check_integer("Boxes", "dims", self.dims, 1, 3))
        keep(self, "align", check_edges("Boxes", "align", self.align, self.dims))
        keep(self, "shared", check_shared("Boxes", self.shared, self.dims))
        for name in ("whole", "overshoot", "invert"):
            check_switch("Boxes", name, getattr(self, name))
        check_choice("Boxes", "placement", self.placement, get_args(Placement))
        if self.overshoot and self.ratio is None:
            raise ValueError("Boxes: overshoot=True needs a ratio to pass; boxes given by count are always whole. Leave it out.")
        if self.whole and self.ratio is None:
            raise ValueError("Boxes: whole=True needs a ratio to meet; boxes given by count always keep cells whole. Leave it out.")
        if self.most > _MOST:
            raise ValueError(
                f"Boxes: side={self.side} with ratio={self.ratio} would need {self.most} boxes per image; at most {_MOST} are "
                "drawn. Raise side (shares of a side, 0 to 1) or lower ratio."
            )

    @property
    def most(self) -> int:
        """The number of boxes that are drawn per image: with a ratio, enough that almost no image runs out of them.

        The covered share after N boxes has mean 1 - exp(-m N), with m the mean share of a box; the result is the N whose mean
        lies three standard deviations above the target. If the boxes still cover too little, one last box as large as the image
        covers the rest.
        """
        if self.count is not None:
            return pair_of(self.count)[1]
        low, high = pair_of(self.side)
        mean = ((low + high) / 2) ** self._free
        square = ((low * low + low * high + high * high) / 3) ** self._free
        if mean <= 0.0:
            return _MOST + 1
        share = min(self.largest_share, 0.95)
        # more is due where boxes crowd in the middle or are clipped, and for the coarse statistics of few long boxes in 1-D
        crowding = 1.0 + 0.5 * self._free if self.placement != "wrap" else 1.3 if self._free == 1 else 1.0
        need = -math.log(1.0 - share) * crowding
        if need == 0.0:
            return 1
        spread = 9.0 * square * share / ((1.0 - share) * need)
        return math.ceil(((math.sqrt(spread) + math.sqrt(spread + 4.0 * mean * need)) / (2.0 * mean)) ** 2)

    def words(self, size: Sequence[int]) -> int:
        """The number of random 64-bit words that the boxes of one image use, whatever its size."""
        return 1 + self._free * (self.most + (self.ratio is not None))

    @property
    def _free(self) -> int:
        return self.dims - len(self.shared)

    @property
    def largest_share(self) -> float:
        """The target of the ratio, from which the number of boxes follows."""
        return float(pair_of(self.ratio or 0.0)[1])

    def check_size(self, size: Sequence[int]) -> None:
        """Raise ValueError if the grid of ``align`` is coarser than an image of this size."""
        if any(step > length for step, length in zip(self.steps, size, strict=True)):
            raise ValueError(
                f"Boxes: align={self.align} is larger than the image, whose sides are {tuple(size)}. Allowed: 1 to {min(size)}."
            )

    def amount(self, size: Sequence[int]) -> tuple[int, int]:
        """The smallest number, of pixels or boxes, that an image can draw, and the number of possible values starting there."""
        if self.ratio is None:
            low, high = pair_of(self.count or 0)
            return low, high - low + 1
        return whole_pixels(self.ratio, math.prod(size))

    @property
    def steps(self) -> tuple[int, ...]:
        """The edge of the grid cells along each free axis."""
        return tuple(free_size(self, edges_of(self.align, self.dims)))

    def sides(self, length: int, step: int) -> tuple[int, int, int]:
        """For one axis, in cells of ``step``: the smallest side, and the numbers of possible sides and of possible corners.

        With ``placement="origin"`` all three are pixels, before they are snapped.
        """
        low, high = pair_of(self.side)
        if self.placement == "origin":
            least = max(round(low * length), step)
            return least, max(round(high * length) - least, 1), max(length - step, 1)
        cells = -(-length // step)
        least = min(max(round(low * length / step), 1), cells)
        return least, min(max(round(high * length / step), least), cells) - least + 1, cells

    def target(self, words: Tensor, size: Sequence[int], ratios: Tensor | None = None) -> Tensor | None:
        """(B,) int64 number of pixels to cover, or of cells if ``whole``; None without a ratio."""
        return super().target(words, self.cells(size) if self.whole else size, ratios)

    def cells(self, size: Sequence[int]) -> list[int]:
        """The number of cells of the grid along each free axis."""
        return cells_along(size, self.steps)

    def in_cells(self, boxes: Tensor, size: Sequence[int]) -> Tensor:
        """Convert boxes (B, N, 2 F) of pixels to the boxes of cells that they touch."""
        starts, extents = [], []
        for d, (length, step, count) in enumerate(zip(size, self.steps, self.cells(size), strict=True)):
            end = boxes[..., d] + boxes[..., self._free + d]
            beyond = (end - length).clamp(min=0)
            last = (end.clamp(max=length) + step - 1) // step + (beyond + step - 1) // step
            starts.append(boxes[..., d] // step)
            extents.append((last - starts[-1]).clamp(max=count) * (boxes[..., self._free + d] > 0))
        return torch.stack([*starts, *extents], dim=-1)

    def draw(self, words: Tensor, size: Sequence[int], ratios: Tensor | None = None) -> Tensor:
        """(B, `most` (+ 1 with a ratio), 2 F) int64 boxes on the F free axes, before any stop."""
        self.check_size(size)
        word = words[:, 1:].reshape(words.shape[0], -1, self._free)  # (B, N, free axes)
        sides, starts = high_half(word[:, : self.most]), low_half(word[:, : self.most])
        parts = [self._axis(sides[..., d], starts[..., d], size[d], self.steps[d]) for d in range(self._free)]
        boxes = torch.stack([start for start, _ in parts] + [extent for _, extent in parts], dim=2)
        if self.placement != "origin" and self.align != 1:
            boxes = cells_to_pixels(boxes, size, self.steps)
        if self.ratio is not None:  # the last one covers whatever is left, from any pixel
            last = [scale(low_half(word[:, -1:, d]), size[d]) for d in range(self._free)]
            last += [torch.full_like(last[0], length) for length in size]
            return torch.cat([boxes, torch.stack(last, dim=2)], dim=1)
        if isinstance(self.count, tuple):
            least, values = self.amount(size)
            drawn = least + scale(low_half(words[:, :1]), values)
            number = torch.arange(self.most, device=words.device)
            boxes = boxes.masked_fill((number >= drawn)[..., None], 0)
        return boxes

    def _axis(self, side: Tensor, start: Tensor, length: int, step: int) -> tuple[Tensor, Tensor]:
        """Start and extent along one axis, from 32 random bits each; in cells, except with ``placement="origin"``."""
        least, values, places = self.sides(length, step)
        extent = least + scale(side, values)
        if self.placement != "origin":
            return scale(start, places - extent + 1 if self.placement == "inside" else places), extent
        corner = scale(start, places)
        if step > 1:
            extent = ((extent + step // 2) // step * step).clamp(min=step)
            corner = corner // step * step
        return corner, torch.minimum(extent, length - corner)
