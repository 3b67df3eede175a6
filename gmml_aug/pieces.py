"""Boxes as plain rectangles, written one after the other: on the CPU, where a few of them cost less than a mask of every pixel."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, compress, pairwise, product
from operator import mul
from typing import NamedTuple

import torch
from torch import Tensor

_PIXELS_A_PIECE = 1400  # what the words of `cover` settle in the time of one piece
_FEW = 48  # so many cost less than the words of one pixel


class Pieces(NamedTuple):
    """The parts of the boxes of some images, in the order of the images; none runs over a border."""

    image: list[int]  # number of the image
    start: list[list[int]]  # first pixel, D numbers
    size: list[list[int]]  # pixels, D numbers above 0

    def between(self, low: int, high: int) -> Pieces:
        """Those of the images ``low`` to ``high - 1``, numbered from 0."""
        first, end = bisect_left(self.image, low), bisect_left(self.image, high)
        return Pieces([image - low for image in self.image[first:end]], self.start[first:end], self.size[first:end])

    def where(self, works: Sequence[bool]) -> Pieces:
        """Those of the images for which it is True."""
        kept = [works[image] for image in self.image]
        return Pieces(list(compress(self.image, kept)), list(compress(self.start, kept)), list(compress(self.size, kept)))

    def views(self, images: Tensor, number: Sequence[int] | None = None) -> list[Tensor]:
        """The part of its image (C, ...) that each covers, made by one call instead of one an axis.

        Args:
            images: (N, C, *S).
            number: which image to take for each of ours; by default the one of the same number.
        """
        apart, *strides = images.stride()
        origin, channels, axes = images.storage_offset(), images.shape[1], strides[1:]
        which = self.image if number is None else [number[image] for image in self.image]
        return [
            images.as_strided((channels, *size), strides, origin + image * apart + sum(map(mul, start, axes)))
            for image, start, size in zip(which, self.start, self.size, strict=True)
        ]

    def mask(self, batch: int, size: Sequence[int]) -> Tensor:
        """(B, 1, *size) bool, True where a piece lies."""
        mask = torch.zeros(batch, 1, *size, dtype=torch.bool, device="cpu")
        for part in self.views(mask):
            part.fill_(True)
        return mask

    @property
    def one_an_image(self) -> bool:
        """True if no image has several."""
        return not any(image == following for image, following in pairwise(self.image))

    def windows(self) -> list[tuple[int, tuple[slice, ...]]] | None:
        """The image and the slices of each, or None if an image has several."""
        if not self.one_an_image:
            return None
        return [
            (image, tuple(slice(low, low + along) for low, along in zip(start, size, strict=True)))
            for image, start, size in zip(*self, strict=True)
        ]


def cut_at_borders(places: Sequence[Tensor], size: Sequence[int]) -> list[Pieces | None]:
    """The pieces of the boxes of each place; None where they are so many that a mask of every pixel is cheaper.

    Args:
        places: (B, N, 2 D) integers each, with a number N of its own: starts, then sizes; a box that runs over a border continues
            at the opposite one.
        size: the D spatial sizes.
    """
    dims = len(size)
    limit = _FEW + len(places[0]) * math.prod(size) // _PIXELS_A_PIECE
    edges = list(accumulate((place.shape[0] * place.shape[1] for place in places), initial=0))
    boxes = torch.cat([place.reshape(-1, 2 * dims) for place in places])
    slot = (boxes[:, dims] > 0).nonzero()[:, 0]
    ends = torch.searchsorted(slot, torch.tensor(edges, device=slot.device)).tolist()
    few = [high - low <= limit for low, high in pairwise(ends)]
    if not all(few):
        slot = torch.cat([slot[:0], *(slot[low:high] for (low, high), here in zip(pairwise(ends), few, strict=True) if here)])
    box = boxes.index_select(0, slot)
    start, extent = box[:, :dims], box[:, dims:]
    over = (start + extent - torch.tensor(size, device=boxes.device)).clamp(min=0)
    if bool(over.any()):
        two = product((False, True), repeat=dims)
        far = torch.tensor(list(two), device=boxes.device)  # which of its two parts on each axis a piece is
        sizes = torch.where(far, over[:, None], (extent - over)[:, None]).flatten(0, 1)
        exists = (sizes > 0).all(1).nonzero()[:, 0]
        slot, extent = slot[exists // len(far)], sizes[exists]
        start = start[:, None].masked_fill(far, 0).flatten(0, 1)[exists]
    slots, starts, extents = slot.tolist(), start.tolist(), extent.tolist()
    found: list[Pieces | None] = []
    for place, first, end, here in zip(places, edges[:-1], edges[1:], few, strict=True):
        low, high = bisect_left(slots, first), bisect_left(slots, end)
        image = [(number - first) // place.shape[1] for number in slots[low:high]]
        found.append(Pieces(image, starts[low:high], extents[low:high]) if here else None)
    return found
