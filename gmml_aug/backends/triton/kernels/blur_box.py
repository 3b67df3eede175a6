# mypy: ignore-errors
# ruff: noqa: N803
# Triton is optional and its language is no Python that mypy can follow.
"""The Triton kernel that blurs one box of an image in place, in one pass over the images.

Legend: a program blurs the channels of the images assigned to it one after the other. It moves down the box R rows at a time: the
rows that come into reach are filtered along the row and kept in a ring buffer of rows, small enough for the first-level cache;
then R rows are filtered across rows, reading only the ring, and written in place. Rows beyond a border are also rows of the ring,
because reflected rows lie no further away than the taps reach.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gmml_aug.backends.triton.kernels.blur import FAR, fold
from gmml_aug.backends.triton.kernels.paint import in_dtype


@triton.jit
def _along(
    base, ring, first, end_row, left, end, width, step, scale, share, radius, RING: tl.constexpr, R: tl.constexpr, W: tl.constexpr
):
    """Filter up to R rows of the box, starting with ``first``, in the direction along the row, and put them into the ring."""
    row, lane = first + tl.arange(0, R), tl.arange(0, W)
    here = row < end_row
    line, kept = base + (row * width * step)[:, None], ring + (row % RING * ((width + W) // W * W))[:, None]
    for begin in range(left, end, W):
        column = tl.multiple_of(begin, 4) + lane
        used = here[:, None] & (column < end)[None, :]
        total = tl.load(line + (tl.minimum(column, width - 1) * step)[None, :], mask=used, other=0).to(tl.float32)
        for t in range(1, radius + 1):
            before, after = fold(column - t, width, True), fold(column + t, width, True)
            used = here[:, None] & ((column < end) & (after >= 0))[None, :]
            one = tl.load(line + (before * step)[None, :], mask=used, other=0).to(tl.float32)
            other = tl.load(line + (after * step)[None, :], mask=used, other=0).to(tl.float32)
            total = tl.fma(one + other, tl.exp2(t * t * scale), total)
        inside = here[:, None] & (column // 4 * 4 < end)[None, :]
        tl.store(kept + (tl.multiple_of(begin - left, 4) + lane)[None, :], total * share, mask=inside)


@triton.jit
def _across(
    base, ring, first, end_row, x0, left, end, height, width, step, scale, share, radius,
    RING: tl.constexpr, VECTORS: tl.constexpr, R: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Filter up to R rows of the box, starting with ``first``, in the direction across rows, from the ring into the image."""
    row, lane = first + tl.arange(0, R), tl.arange(0, W)
    apart = (width + W) // W * W
    middle = ring + (tl.minimum(row, height - 1) % RING * apart)[:, None]
    for begin in range(left, end, W):
        at = (tl.multiple_of(begin - left, 4) + lane)[None, :]
        column = (tl.multiple_of(begin, 4) + lane)[None, :]
        group = column // 4 * 4
        some = (row < end_row)[:, None] & (group < end)
        total = tl.load(middle + at, mask=some, other=0)
        for t in range(1, radius + 1):
            above, below = fold(row - t, height, True) % RING, fold(row + t, height, True) % RING
            one = tl.load(ring + (above * apart)[:, None] + at, mask=some, other=0)
            other = tl.load(ring + (below * apart)[:, None] + at, mask=some, other=0)
            total = tl.fma(one + other, tl.exp2(t * t * scale), total)
        if not VECTORS:
            some = some & (column < width)
        # what is beside the box is written again: a mask of single pixels would leave no wide stores
        place = base + (row[:, None] * width + column) * step
        old = tl.load(place, mask=some & ((group < x0) | (group + 4 > end)), other=0)
        new = tl.where((column >= x0) & (column < end), in_dtype(total * share, old.dtype), old)
        tl.store(place, new, mask=some)


@triton.jit
def blur_box(
    out, boxes, sigmas, kernels, active, rings, count, channels, rows, height, width, all_steps, number,
    image_step, channel_step, step,
    RING: tl.constexpr, VECTORS: tl.constexpr, R: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """The first row of an image's boxes is its box; radii are at most (RING - R) / 2 and less than the sides of the image."""
    ring = rings + tl.program_id(0).to(tl.int64) * (RING * ((width + W) // W * W))
    for work in range(tl.program_id(0), count, tl.num_programs(0)):
        image, channel = work // channels, work % channels
        box = boxes + image.to(tl.int64) * rows * 4
        y0, x0 = tl.load(box), tl.load(box + 1)
        y1, x1 = tl.minimum(y0 + tl.load(box + 2), height), tl.minimum(x0 + tl.load(box + 3), width)
        sigma = tl.load(sigmas + image)
        radius = tl.minimum(tl.load(kernels + image).to(tl.int32) // 2, (sigma * FAR).to(tl.int32))
        radius = tl.minimum(radius, (RING - R) // 2)
        works = tl.load(active + image * all_steps + number) != 0
        if works & (radius > 0) & (y1 > y0) & (x1 > x0) & (y0 >= 0) & (x0 >= 0):
            scale = -0.7213475204444817 / (sigma * sigma)  # exp(x) is 2 ** (x / ln(2))
            whole = scale * 0.0 + 1.0
            for t in range(1, radius + 1):
                whole += 2.0 * tl.exp2(t * t * scale)
            base = out + image.to(tl.int64) * image_step + channel * channel_step
            left, begun = x0 // 4 * 4, tl.maximum(y0 - radius, 0)
            for y in range(y0, y1, R):
                needed = tl.minimum(tl.minimum(y + R, y1) + radius, height)
                for first in range(begun, needed, R):
                    _along(base, ring, first, needed, left, x1, width, step, scale, 1.0 / whole, radius, RING, R, W)
                begun = tl.maximum(begun, needed)
                tl.debug_barrier()  # the rows of the ring are there
                _across(base, ring, y, y1, x0, left, x1, height, width, step, scale, 1.0 / whole, radius, RING, VECTORS, R, W)
                tl.debug_barrier()  # and nobody reads them any more
