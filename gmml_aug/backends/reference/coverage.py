"""Which box covers which pixel: coverage, stop and trim of many boxes in many images at once, without a loop over boxes.

The rule "paint boxes one after the other until enough is covered" needs, for every pixel, only the *first* box that covers it:
box k newly covers exactly the pixels whose first box is k. A set of up to 63 boxes is one int64 per coordinate: bit i of a row's
word says that box i crosses the row, and a pixel's boxes are ``row word & column word``. Coordinates at which no box begins or
ends need no separate cell, so everything is counted on the grid of box edges, with each cell weighted by its area.

Legend: B images, N boxes, D spatial axes, X cells along an axis, W words of 63 boxes. Boxes are (B, N, 2 D) integers, first the
D starts, then the D sizes; a box that crosses a border continues at the opposite one. All areas are exact integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

WORD = 63  # boxes an int64 holds without its sign bit


class Axis(NamedTuple):
    """The cells of one axis."""

    left: Tensor  # (B, X) first pixel of a cell
    width: Tensor  # (B, X) pixels in it, 0 where two edges coincide
    bits: Tensor  # (B, W, X) bit i of word w: box 63 w + i crosses this cell


class Limit(NamedTuple):
    """A budget over several steps: pixels that earlier steps took cost nothing; others count until the union reaches the limit."""

    taken: Tensor  # (B, M, 2 D) int64 boxes of the earlier steps under this budget
    mask: Tensor | None  # (B, *S) bool: what earlier steps took whose shape is no box
    limit: int  # pixels that the union may have
    binds: Tensor  # (B,) bool: this budget binds this image's step

    def of(self, images: Tensor) -> Limit:
        """The same budget for some of the images."""
        return Limit(self.taken[images], None if self.mask is None else self.mask[images], self.limit, self.binds[images])


def axis_cells(start: Tensor, size: Tensor, length: int, *, pixels: bool = False) -> Axis:
    """Cut one axis at the borders of the boxes (or at every pixel) and note which boxes cross each cell.

    ``start``, 0 to length - 1, and ``size``, 0 to length, are (B, N) int64. With ``pixels`` there is one cell per pixel, in order;
    otherwise only if that gives fewer cells.
    """
    count = start.shape[1]
    if pixels or length <= 2 * count + 1:
        left = torch.zeros_like(start[:, :1]) + torch.arange(length, device=start.device)  # in memory, also under vmap
        return Axis(left, torch.ones_like(left), pixel_words(start, size, length))
    end = start + size
    wraps = end >= length
    edges = torch.cat([torch.zeros_like(start[:, :1]), start, torch.where(wraps, end - length, end)], dim=1)
    # stable: where edges coincide boxes open before they close, so that no word ever turns negative
    edges, order = torch.sort(edges, dim=1, stable=True)
    box = (order - 1) % count
    opens = (order > 0).long() - 2 * (order > count).long()  # +1 a start, -1 an end, 0 the first pixel
    opens = opens * ((size > 0) & (size < length)).gather(1, box)  # others begin and end nowhere; whole ones are in `across`
    bit = _bits(count, start.device)
    change = opens * bit[box]
    across = wraps.long() * bit  # boxes that already cover the first pixel
    groups = range(math.ceil(count / WORD))
    words = [change] if len(groups) == 1 else [change.masked_fill(box // WORD != w, 0) for w in groups]
    first = [across[:, w * WORD : (w + 1) * WORD].sum(1, keepdim=True) for w in groups]
    bits = torch.stack([word.cumsum(1) + start for word, start in zip(words, first, strict=True)], dim=1)
    return Axis(edges, torch.diff(edges, dim=1, append=torch.full_like(edges[:, :1], length)), bits)


def pixel_words(start: Tensor, size: Tensor, length: int) -> Tensor:
    """(B, W, length) int64: which of the boxes (B, N) cross each pixel of an axis. Takes what `axis_cells` takes."""
    count, line = start.shape[1], 2 * length + 1
    words = max(1, math.ceil(count / WORD))
    row = torch.arange(count, device=start.device) // WORD * line  # where the word of a box begins
    bit = _bits(count, start.device).expand_as(start)
    change = start.new_zeros(start.shape[0], words * line)
    change = change.scatter_add_(1, row + start, bit).scatter_add_(1, row + start + size, -bit)
    word: Tensor = change.unflatten(1, (words, line)).cumsum(2)
    return word[..., :length] | word[..., length:-1]  # beyond the border the axis begins again


def cover_until(
    boxes: Tensor,
    size: Sequence[int],
    target: Tensor | None,
    limits: Sequence[Limit] = (),
    *,
    whole: bool = False,
    more: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cut a list of boxes where it reaches its target or uses up a budget.

    Boxes are painted in their order. The painting ends with the pixel that makes the covered area equal to the target, or that
    uses up a budget; the pixels of a box count from its own first corner, the last axis fastest, modulo the image.

    Args:
        boxes: (B, N, 2 D) int64.
        size: the D spatial sizes.
        target: (B,) int64 pixels to cover, or None to paint all boxes.
        limits: budgets over this and earlier steps.
        whole: True to end with the whole box that passes the target instead of with the pixel; the last box of the list, which
            covers the remaining pixels, is still cut to the pixel.
        more: True if these are only the first boxes of a longer list.

    Returns:
        (B, N + D - 1, 2 D) int64 boxes that need no further cutting: the whole ones in their order, then the part of the last one
        that is kept (a box cut in reading order is D boxes), then boxes of size 0; and (B,) bool, True if the painting ended
        within these boxes.
    """
    dims, count, pixels = len(size), boxes.shape[1], math.prod(size)
    if target is None and not limits:
        padded = torch.cat([boxes, torch.zeros_like(boxes[:, :1]).expand(-1, dims - 1, -1)], dim=1)
        return padded, torch.ones_like(boxes[:, 0, 0], dtype=torch.bool)
    everything = _pad_to_words(boxes, [limit.taken for limit in limits])
    pixelwise = any(limit.mask is not None for limit in limits)
    axes = [axis_cells(everything[..., d], everything[..., dims + d], size[d], pixels=pixelwise) for d in range(dims)]
    own = math.ceil(count / WORD)
    first = _first_box(axes, own, count)
    area = meet([axis.width for axis in axes], torch.mul)
    end = torch.full_like(boxes[:, 0, 0], count * pixels)  # position in the order of painting: box number * pixels + pixels of it
    if target is not None:
        stop, position = _position(boxes, size, axes, first, area, target)
        if whole:
            volume = boxes[..., dims:].prod(-1)
            full = stop * pixels + volume.gather(1, stop.clamp(max=count - 1)[:, None])[:, 0]
            last = count if more else count - 1
            position = torch.where((stop < last) & (target > 0), full, position)
        end = position
    word = own
    for limit in limits:
        words = range(word, word + math.ceil(limit.taken.shape[1] / WORD))
        free, left = area, torch.full_like(end, limit.limit)
        parts = [meet([axis.bits[:, w] for axis in axes]) != 0 for w in words]
        parts += [] if limit.mask is None else [limit.mask]
        if parts:
            taken = torch.stack(parts).any(0)
            left = left - area.masked_fill(~taken, 0).flatten(1).sum(1)
            free = area.masked_fill(taken, 0)
        _, position = _position(boxes, size, axes, first, free, left)
        end = torch.where(limit.binds, torch.minimum(end, position), end)
        word = words.stop
    return _cut(boxes, size, end), end < count * pixels


def meet(parts: Sequence[Tensor], join: Callable[[Tensor, Tensor], Tensor] = torch.bitwise_and) -> Tensor:
    """Combine one (B, X_d) tensor per axis into (B, X_1, ..., X_D)."""
    out = parts[0]
    for part in parts[1:]:
        out = join(out[..., None], part.reshape(part.shape[0], *[1] * (out.ndim - 1), -1))
    return out


def _bits(count: int, device: torch.device) -> Tensor:
    """(N,) int64: the bit of each of ``count`` boxes in its word."""
    number = torch.arange(count, device=device)
    return torch.ones_like(number) << (number % WORD)


def _pad_to_words(boxes: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Concatenate all boxes so that each set begins at a new word."""
    sets = [boxes, *(other for other in others if other.shape[1])]
    padded = [torch.nn.functional.pad(s, (0, 0, 0, -s.shape[1] % WORD)) for s in sets[:-1]]
    return torch.cat([*padded, sets[-1]], dim=1)


def _first_box(axes: Sequence[Axis], words: int, count: int) -> Tensor:
    """(B, X_1, ..., X_D): the number of the first box over each cell, ``count`` where no box lies."""
    first: Tensor | None = None
    for w in reversed(range(words)):
        found = meet([axis.bits[:, w] for axis in axes])
        lowest = (found & -found).to(torch.float32).view(torch.int32)  # a power of two is exact: read its exponent
        number = (lowest >> 23) + (w * WORD - 127)
        first = number.masked_fill(found == 0, count) if first is None else torch.where(found == 0, first, number)
    assert first is not None
    return first.long()


def _position(
    boxes: Tensor, size: Sequence[int], axes: Sequence[Axis], first: Tensor, area: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """Find where, in painting order, the newly covered area reaches ``wanted``: return the box and the position."""
    dims, count, pixels = len(size), boxes.shape[1], math.prod(size)
    new = area.new_zeros(boxes.shape[0], count + 1).scatter_add_(1, first.flatten(1), area.flatten(1))
    covered = new[:, :count].cumsum(1)
    stop = (covered < wanted[:, None]).sum(1)  # count: all boxes together do not reach it
    inside = stop.clamp(max=count - 1)[:, None]
    rest = wanted - (covered - new[:, :count]).gather(1, inside)[:, 0]
    box = boxes.gather(1, inside[..., None].expand(-1, -1, 2 * dims))[:, 0]
    # what the box newly covers: per pixel of the last axis, per row, per slice, ...
    counts = [((first == stop.reshape(-1, *[1] * dims)) & (area > 0)).long()]
    for axis in reversed(axes[1:]):
        width = axis.width.reshape(boxes.shape[0], *[1] * (counts[0].ndim - 2), -1)
        counts.insert(0, (counts[0] * width).sum(-1))
    at = torch.zeros_like(stop)  # pixels of the box before the one that is looked for
    chosen: list[Tensor] = []
    for d, axis in enumerate(axes):
        each = counts[d]
        for cell in chosen:
            each = each.gather(1, cell.reshape(-1, *[1] * (each.ndim - 1)).expand(-1, 1, *each.shape[2:])).squeeze(1)
        start = box[:, d, None]
        row = each * axis.width
        behind = axis.left < start  # cells that the box reaches only over the border
        before = row.cumsum(1) - row - row.masked_fill(~behind, 0).sum(1, keepdim=True)
        before = torch.where(behind, before + row.sum(1, keepdim=True), before)
        cell = ((before < rest[:, None]) & (rest[:, None] <= before + row)).to(torch.uint8).argmax(1, keepdim=True)
        chosen.append(cell)
        here, done = each.gather(1, cell)[:, 0], before.gather(1, cell)[:, 0]
        lines = (rest - done - 1) // here.clamp(min=1)
        rest = rest - done - lines * here
        offset = axis.left.gather(1, cell)[:, 0] - box[:, d]
        at = at * box[:, dims + d] + torch.where(offset < 0, offset + size[d], offset) + lines
    position = stop * pixels + (at + 1).masked_fill(wanted <= 0, 0)
    return stop, position.masked_fill(stop >= count, count * pixels)


def _cut(boxes: Tensor, size: Sequence[int], end: Tensor) -> Tensor:
    """Keep the part that is painted before the position ``end``, as plain boxes."""
    dims, count, pixels = len(size), boxes.shape[1], math.prod(size)
    stop, kept = end // pixels, end % pixels
    box = boxes.gather(1, stop.clamp(max=count - 1)[:, None, None].expand(-1, 1, 2 * dims))[:, 0]
    start, extent = list(box[:, :dims].unbind(1)), list(box[:, dims:].unbind(1))
    pieces: list[Tensor] = []
    for d in range(dims):
        line = torch.stack(extent[d + 1 :]).prod(0) if d + 1 < dims else torch.ones_like(kept)
        whole = kept // line.clamp(min=1)
        kept = kept - whole * line
        pieces.append(torch.stack([*start, *extent[:d], whole, *extent[d + 1 :]], dim=1))
        place = start[d] + whole
        start[d] = torch.where(place >= size[d], place - size[d], place)
        extent[d] = torch.ones_like(whole)
    slot = torch.arange(count + dims - 1, device=boxes.device)[None, :, None]
    padded = torch.cat([boxes, torch.zeros_like(boxes[:, :1]).expand(-1, dims - 1, -1)], dim=1)
    piece = slot - stop[:, None, None]
    out = padded.masked_fill(piece >= 0, 0)
    for d, cut in enumerate(pieces):
        out = torch.where(piece == d, cut[:, None], out)
    return out.masked_fill(out[..., dims:].prod(-1, keepdim=True) == 0, 0)
