"""Boxes as plain rectangles, written one after the other: on the CPU, where a few of them cost less than a mask of every pixel."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from itertools import accumulate, compress, pairwise, product, repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gmml_aug.functional import SAME_SIZE

_PIXELS_A_PIECE = 200  # what the words of `cover` settle in the time of one piece
_FEW = 48  # so many cost less than the words of one pixel


class Pieces(NamedTuple):
    """The parts of the boxes of some images, in the order of the images; none runs over a border."""

    image: list[int]  # number of the image
    window: list[tuple[slice, ...]]  # which part of (C, *S): all channels, and never empty

    def between(self, low: int, high: int) -> Pieces:
        """Those of the images ``low`` to ``high - 1``, numbered from 0."""
        first, end = bisect_left(self.image, low), bisect_left(self.image, high)
        return Pieces([image - low for image in self.image[first:end]], self.window[first:end])

    def where(self, works: Sequence[bool]) -> Pieces:
        """Those of the images for which it is True."""
        kept = [works[image] for image in self.image]
        return Pieces(list(compress(self.image, kept)), list(compress(self.window, kept)))

    def mask(self, batch: int, size: Sequence[int]) -> Tensor:
        """(B, 1, *size) bool, True where a piece lies."""
        mask = torch.zeros(batch, 1, *size, dtype=torch.bool, device="cpu")
        into = _slots(mask)
        for image, window in zip(*self, strict=True):
            into[(image, *window)] = 1
        return mask

    def copy(self, images: Tensor, source: Tensor, number: Sequence[int]) -> None:
        """Write what stands there in others.

        Args:
            images: (N, C, *S), changed in place.
            source: (M, C, *S) of the same dtype.
            number: which of them, for each of ours.
        """
        into, taken = _slots(images), _slots(source)
        for image, window in zip(*self, strict=True):
            into[(image, *window)] = taken[(number[image], *window)]

    @property
    def one_an_image(self) -> bool:
        """True if no image has several."""
        return not any(image == following for image, following in pairwise(self.image))


def _slots(images: Tensor) -> Any:
    """The same memory as a NumPy array of integers, since its slices cost a third; without NumPy, the tensor."""
    try:
        return images.detach().view(SAME_SIZE[images.element_size()]).numpy()
    except RuntimeError:
        return images.detach()


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
    start, end = box[:, :dims], box[:, :dims] + box[:, dims:]
    length = torch.tensor(size, device=box.device)
    if bool((end > length).any()):
        far = torch.tensor(list(product((False, True), repeat=dims)), device=box.device)  # which of its two parts on each axis
        inside = torch.minimum(end, length)
        end = torch.where(far, (end - inside)[:, None], inside[:, None]).flatten(0, 1)
        start = start[:, None].masked_fill(far, 0).flatten(0, 1)
        exists = (end > start).all(1).nonzero()[:, 0]
        slot, start, end = slot[exists // len(far)], start.index_select(0, exists), end.index_select(0, exists)
    slots, starts, stops = slot.tolist(), start.t().tolist(), end.t().tolist()
    windows = list(zip(repeat(slice(None)), *map(partial(map, slice), starts, stops), strict=False))
    found: list[Pieces | None] = []
    for place, first, after, here in zip(places, edges[:-1], edges[1:], few, strict=True):
        low, high = bisect_left(slots, first), bisect_left(slots, after)
        image = [(number - first) // place.shape[1] for number in slots[low:high]]
        found.append(Pieces(image, windows[low:high]) if here else None)
    return found
