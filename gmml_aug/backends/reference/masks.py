"""Turns boxes, or the painting order of a shape, into a mask of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gmml_aug.backends.reference.coverage import Limit, meet, pixel_words
from gmml_aug.tensors import followed


def boxes_to_mask(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(B, 1, *size) bool, True inside at least one of the boxes (B, N, 2 D).

    A box that crosses a border continues at the opposite one.
    """
    if boxes.device.type == "cpu" and not followed():
        return _by_words(boxes.long(), size)[:, None]
    lines = [_crosses(boxes, axis, size) for axis in range(len(size))]
    if len(size) == 1:
        return lines[0].any(1, keepdim=True)
    rows = lines[0]
    for line in lines[1:-1]:
        rows = (rows[..., None] & line[:, :, None]).flatten(2)
    # how many boxes lie over each pixel, as one product of matrices: whole numbers, or rounded ones that are not 0
    counts = rows.transpose(1, 2).to(torch.float32) @ lines[-1].to(torch.float32)
    return (counts > 0).reshape(boxes.shape[0], 1, *size)


def place_mask(place: Tensor, size: Sequence[int], *, grid: Sequence[int], invert: bool) -> Tensor:
    """(B, 1, *S) bool mask of a place of a plan, given as boxes whose borders all keep to ``grid`` or as the mask itself.

    It is the outside if the place is inverted.
    """
    if place.dtype == torch.bool:
        return ~place if invert else place
    cells = [-(-length // edge) for length, edge in zip(size, grid, strict=True)]
    snapped = cells != list(size)
    if snapped:  # on the grid there are fewer pixels to ask
        starts, ends = place[..., : len(size)], place[..., : len(size)] + place[..., len(size) :]
        first = [torch.div(starts[..., axis], edge, rounding_mode="floor") for axis, edge in enumerate(grid)]
        last = [torch.div(ends[..., axis] + (edge - 1), edge, rounding_mode="floor") for axis, edge in enumerate(grid)]
        place = torch.stack([*first, *(end - start for start, end in zip(first, last, strict=True))], dim=-1)
    mask = boxes_to_mask(place, cells)
    if snapped:
        for axis, (length, edge) in enumerate(zip(size, grid, strict=True)):
            if edge > 1:
                mask = mask.repeat_interleave(edge, dim=axis + 2).narrow(axis + 2, 0, length)
    return ~mask if invert else mask


def cover_in_order(order: Tensor, levels: int, target: Tensor | None, limits: Sequence[Limit] = ()) -> Tensor:
    """`cover_until` for any shape: (B, *S) bool, True for the pixels painted before a target is reached or a budget used up.

    ``order`` (B, *S) int64 says when each pixel is painted, 0 to ``levels`` - 1, in reading order within a level; negative values
    are never painted. ``target`` is the (B,) int64 number of pixels to cover; without it, all are painted.
    """
    size, level = order.shape[1:], order.flatten(1)
    painted = level >= 0
    level = level.masked_fill(~painted, levels)
    kept = painted
    goals = [] if target is None else [(painted, target, torch.ones_like(target, dtype=torch.bool))]
    for limit in limits:
        taken = boxes_to_mask(limit.taken, size).flatten(1)
        taken = taken if limit.mask is None else taken | limit.mask.flatten(1)
        goals.append((painted & ~taken, limit.limit - taken.sum(1), limit.binds))
    for counts, wanted, binds in goals:
        new = order.new_zeros(order.shape[0], levels + 1).scatter_add_(1, level, counts.long())[:, :levels]
        covered = new.cumsum(1)
        stop = (covered < wanted[:, None]).sum(1, keepdim=True)
        before = torch.nn.functional.pad(covered, (1, 0)).gather(1, stop)
        last = (level == stop) & counts
        earlier = last.cumsum(1) - last.long()  # pixels of the last level before this one
        reached = (level < stop) | ((level == stop) & (earlier < wanted[:, None] - before))
        kept = kept & (reached | ~binds[:, None])
    return kept.reshape(order.shape)


def _by_words(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(B, *size) bool mask of int64 boxes. Bit i of a word says that box i crosses a coordinate; on a CPU, ten times as fast."""
    dims = len(size)
    axes = [pixel_words(boxes[..., d], boxes[..., dims + d], length) for d, length in enumerate(size)]
    mask = meet([axis[:, 0] for axis in axes]).bool()
    for w in range(1, axes[0].shape[1]):
        mask |= meet([axis[:, w] for axis in axes]).bool()
    return mask


def _crosses(boxes: Tensor, axis: int, size: Sequence[int]) -> Tensor:
    """(B, N, S) bool: True where a box crosses a coordinate of an axis."""
    start, extent = boxes[..., axis, None], boxes[..., len(size) + axis, None]
    offset = torch.arange(size[axis], dtype=boxes.dtype, device=boxes.device) - start
    return torch.where(offset < 0, offset + size[axis], offset) < extent
