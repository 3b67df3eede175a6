# mypy: ignore-errors
# ruff: noqa: N803
# Triton is optional and its language is no Python that mypy can follow.
"""Which tile a program of the painting kernels handles, and where the boxes are in it.

Legend: a program handles a tile of one image, (R, W): R rows of one plane and W columns, one tensor per channel; images with one
axis are a single row. Tiles are small, so that few of them overlap a box; the others are only copied.

Words are (B, slots, D, span): along each axis first the word of each coordinate, then the word of each tile, which is the OR over
its coordinates.
"""

from __future__ import annotations

import triton
import triton.language as tl

IMAGES = tl.constexpr(1 << 15)  # of the batch along the second axis of a grid, which ends at 65,535; the rest is on the third
BOXES = tl.constexpr(8)  # that `axis_words` looks at together


@triton.jit
def tile_place(across, down, D: tl.constexpr):
    """The tile of this program: its plane, and its row and column in the grid of tiles."""
    line = tl.program_id(0) // across
    plane, below = line * 0, line
    if D == 3:
        plane, below = line // down, line % down
    return plane, below, tl.program_id(0) - line * across


@triton.jit
def pixels_at(plane, rows, columns, height, width):
    """(R, W) int32: the position of each pixel in reading order."""
    return ((plane * height + rows) * width)[:, None] + columns[None, :]


@triton.jit
def boxes_meet(
    words, image, slots, span, longest, plane, below, beside,
    slot: tl.constexpr, wider: tl.constexpr, axis: tl.constexpr, count: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """True if a box overlaps the tile; along the axes after ``axis`` the boxes are enlarged by ``wider``."""
    last: tl.constexpr = (wider if axis < D - 1 else slot) * D + D - 1
    middle: tl.constexpr = (wider if axis < D - 2 else slot) * D + D - 2
    found = image < 0
    for w in tl.static_range(count):
        line = words + (image.to(tl.int64) * slots + w) * D * span
        boxes = tl.load(line + last * span + longest + beside)
        if D > 1:
            boxes &= tl.load(line + middle * span + longest + below)
        if D > 2:
            boxes &= tl.load(line + slot * D * span + plane)
        found |= boxes != 0
    return found


@triton.jit
def in_boxes(
    words, image, slots, span, plane, rows, columns, height, width,
    slot: tl.constexpr, count: tl.constexpr, invert: tl.constexpr, D: tl.constexpr, R: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """(R, W) bool: a pixel's boxes are the AND of the words of its coordinates, see `coverage`."""
    found = tl.zeros((R, W), tl.int32) != 0
    for w in tl.static_range(count):
        line = words + (image.to(tl.int64) * slots + slot + w) * D * span
        boxes = tl.load(line + (D - 1) * span + columns, mask=columns < width, other=0)[None, :]
        if D > 1:
            boxes = boxes & tl.load(line + (D - 2) * span + rows, mask=rows < height, other=0)[:, None]
        if D > 2:
            boxes = boxes & tl.load(line + plane)
        found |= boxes != 0
    if invert:
        found = found == 0
    return found


@triton.jit
def bounded(here, fresh, allowed, forced, allowed_step, forced_step, image, pixel, inside, A: tl.constexpr, F: tl.constexpr):
    """Apply the caller's ``allowed`` and ``forced`` maps; ``fresh`` is 1 if no earlier step works on this image."""
    if F:
        here |= tl.load(forced + image.to(tl.int64) * forced_step + pixel, mask=inside, other=0) * fresh != 0
    if A:
        here &= tl.load(allowed + image.to(tl.int64) * allowed_step + pixel, mask=inside, other=0) != 0
    return here & inside


@triton.jit
def axis_words(
    boxes, words, kernels, batch, size0, size1, size2, longest, span, slots, rows, chunks,
    JOBS: tl.constexpr, COUNT: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Set bit i of a word if box i crosses this coordinate of an axis, or this tile.

    A program makes N words of an image, slot and axis.

    A job is a slot: its first box and the one after its last, the edge of its cells along each axis, the rows and columns of its
    tiles, and the row of ``kernels`` that says how far a blur reads around the boxes, or -1; positions beyond a border are
    reflected.
    """
    which = tl.program_id(0)
    x = which % chunks * N + tl.arange(0, N)
    which = which // chunks
    d = which % D
    which = which // D
    image = (which // COUNT).to(tl.int64)
    slot, first, end, cell, tall, wide, more = d, d, d, d, d, d, d * 0
    for j in tl.static_range(COUNT):
        if which % COUNT == j:
            slot, first, end, cell = d * 0 + JOBS[j][0], d * 0 + JOBS[j][1], d * 0 + JOBS[j][2], d * 0 + JOBS[j][3]
            for axis in tl.static_range(1, D):
                cell = tl.where(d == axis, JOBS[j][3 + axis], cell)
            tall, wide = d * 0 + JOBS[j][3 + D], d * 0 + JOBS[j][4 + D]
            if JOBS[j][5 + D] >= 0:
                more = tl.load(kernels + JOBS[j][5 + D] * batch + image).to(tl.int32) // 2
    length = tl.where(d == 0, size0, tl.where(d == 1, size1, size2))
    tile = tl.where(d == D - 1, wide, tl.where(d == D - 2, tall, 1))
    begin = tl.where(x < longest, x, (x - longest) * tile)
    at = begin // cell
    beyond = (tl.minimum(begin + tl.where(x < longest, 1, tile), length) - 1) // cell - at  # cells of a tile after its first
    cells = (length + cell - 1) // cell
    more = (more + cell - 1) // cell
    word = tl.zeros((N,), tl.int64)
    for part in range(first, end, BOXES):
        n = tl.arange(0, BOXES)
        box = boxes + (image * rows + part + n) * 2 * D + d
        start = tl.load(box, mask=part + n < end, other=0).to(tl.int32)
        extent = tl.load(box + D, mask=part + n < end, other=0).to(tl.int32)
        if tl.max(extent, axis=0) > 0:
            real = extent > 0
            extent = (start + extent + cell - 1) // cell - start // cell + 2 * more
            start = start // cell - more
            offset = at[None, :] - start[:, None]
            offset = tl.where(offset < 0, offset + cells, tl.where(offset < cells, offset, offset - cells))
            crosses = ((offset < extent[:, None]) | (cells - offset <= beyond[None, :])) & real[:, None]
            bits = tl.sum(crosses.to(tl.int32) << n[:, None], axis=0)
            word |= bits.to(tl.int64) << (part - first).to(tl.int64)
    tl.store(words + ((image * slots + slot) * D + d) * span + x, word, mask=(begin < length) & (x < span))
