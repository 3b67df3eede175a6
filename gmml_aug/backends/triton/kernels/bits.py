# mypy: ignore-errors
# ruff: noqa: N803, RET505
# Triton is optional and its language is no Python that mypy can follow.
"""Kernels that turn the boxes of a plan into bits, which say where steps work and are read by the painting kernel.

Legend: an image is a stack of *lines* along its last axis, and a line is a row of 32-bit *words*, bit i of word j for column 32 j +
i.
A *tile* is `R` words: one from each of R lines, or, for images with one axis, R from the only line. ``bits`` are (B, places,
lines, words) int32, ``flags`` (B, places, tiles, flag words) int32: one bit for each tile of a row of tiles, set where a place
has pixels.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

# inline assembly is for the compiler; the interpreter takes what says the same
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def popcount(x):
    """The number of bits set in each int32."""
    if INTERPRETED:
        x = (x & 0x55555555) + ((x >> 1) & 0x55555555)
        x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
        x = (x & 0x0F0F0F0F) + ((x >> 4) & 0x0F0F0F0F)
        x += x >> 8
        return (x + (x >> 16)) & 63
    else:
        return tl.inline_asm_elementwise("popc.b32 $0, $1;", "=r,r", [x], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def either(one, other):
    """For reductions."""
    return one | other


@triton.jit
def interval(first, end, word):
    """The words ``word`` of a line in which bits ``first`` to ``end - 1`` are set."""
    low = tl.minimum(tl.maximum(first - word * 32, 0), 32).to(tl.int64)
    high = tl.minimum(tl.maximum(end - word * 32, 0), 32).to(tl.int64)
    one = tl.zeros_like(low) + 1
    return ((one << high) - (one << low)).to(tl.int32)


@triton.jit
def span_bits(start, extent, length, word):
    """The words of a line of a box, which wraps around at the border."""
    return interval(start, tl.minimum(start + extent, length), word) | interval(0, start + extent - length, word)


@triton.jit
def in_span(at, start, extent, length):
    """True where a coordinate lies in a box."""
    offset = tl.where(at < start, at - start + length, at - start)
    return (offset < extent) & (at < length)


@triton.jit
def touched_cells(start, extent, cell, length):
    """A box enlarged to all cells of its grid that it touches: start and extent in pixels."""
    first, cells = start // cell, (length + cell - 1) // cell
    last = (start + extent + cell - 1) // cell
    end = tl.where(last > cells, length + tl.minimum((last - cells) * cell, first * cell), tl.minimum(last * cell, length))
    return first * cell, tl.where(extent > 0, end - first * cell, 0)


@triton.jit
def flag_words(bits, R: tl.constexpr, FLAT: tl.constexpr):
    """The flags of (L, W) words: (L / R, 1), or (1, W / R) if they form a single line."""
    word = tl.arange(0, bits.shape[1])
    if FLAT:
        some = tl.reshape(bits, (bits.shape[1] // R, R))
        return tl.reshape((tl.reduce(some, 1, either) != 0).to(tl.int32), (1, bits.shape[1] // R))
    else:
        some = tl.reduce(tl.reshape(bits, (bits.shape[0] // R, R, bits.shape[1])), 1, either)
        return tl.sum((some != 0).to(tl.int32) << (word % 32)[None, :], axis=1, keep_dims=True)


@triton.jit
def mark_boxes(
    boxes, bits, flags, rows, size0, size1, size2, lines, words, tiles, flag_row,
    JOBS: tl.constexpr, COUNT: tl.constexpr, D: tl.constexpr, FLAT: tl.constexpr, L: tl.constexpr, W: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Write boxes (B, rows, 2 D) int32 as bits: each program handles L lines and W words of a place in an image.

    A job is a place: its first row, the row after its last, 1 if its steps work outside, and the edge of its grid along each
    axis, from the last axis to the first.
    """
    image, place = (tl.program_id(0) // COUNT).to(tl.int64), tl.program_id(0) % COUNT
    line, word = tl.program_id(1) * L + tl.arange(0, L), tl.program_id(2) * W + tl.arange(0, W)
    first, end, invert = place * 0, place * 0, place * 0
    cell0, cell1, cell2 = place * 0 + 1, place * 0 + 1, place * 0 + 1
    for j in tl.static_range(COUNT):
        if place == j:
            first, end, invert = place * 0 + JOBS[j][0], place * 0 + JOBS[j][1], place * 0 + JOBS[j][2]
            cell2 = place * 0 + JOBS[j][3]
            if D > 1:
                cell1 = place * 0 + JOBS[j][4]
            if D > 2:
                cell0 = place * 0 + JOBS[j][5]
    found = tl.zeros((L, W), tl.int32)
    for n in range(first, end):
        box = boxes + (image * rows + n) * 2 * D
        extent = tl.load(box + 2 * D - 1)
        if extent > 0:
            start, extent = touched_cells(tl.load(box + D - 1), extent, cell2, size2)
            here = line < lines
            if D > 1:
                start1, extent1 = touched_cells(tl.load(box + D - 2), tl.load(box + 2 * D - 2), cell1, size1)
                here = here & in_span(line % size1 if D > 2 else line, start1, extent1, size1)
            if D > 2:
                start0, extent0 = touched_cells(tl.load(box), tl.load(box + D), cell0, size0)
                here = here & in_span(line // size1, start0, extent0, size0)
            found |= tl.where(here[:, None], span_bits(start, extent, size2, word)[None, :], 0)
    if invert != 0:
        found = tl.where((line < lines)[:, None], ~found & interval(0, size2, word)[None, :], 0)
    own = image * COUNT + place
    at = bits + (own * lines + line)[:, None] * words + word[None, :]
    tl.store(at, found, mask=(line < lines)[:, None] & (word < words)[None, :])
    marks = flag_words(found, R, FLAT)
    if FLAT:
        tile = tl.program_id(2) * (W // R) + tl.arange(0, W // R)
        tl.store(flags + (own * tiles + tile)[None, :], marks, mask=(tile < tiles)[None, :])
    else:
        tile = tl.program_id(1) * (L // R) + tl.arange(0, L // R)
        at = flags + (own * tiles + tile) * flag_row + tl.program_id(2) * W // 32
        tl.store(at[:, None], marks, mask=(tile < tiles)[:, None])
