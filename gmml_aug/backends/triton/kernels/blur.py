# mypy: ignore-errors
# ruff: noqa: N803, RET505, RUF005
# Triton is optional and its language is no Python that mypy can follow.
"""The Triton kernel of `gmml_aug.Blur`; see the legend in `tiles`."""

from __future__ import annotations

import triton
import triton.language as tl

from gmml_aug.backends.triton.kernels.paint import in_dtype
from gmml_aug.backends.triton.kernels.tiles import IMAGES, bounded, boxes_meet, in_boxes, pixels_at, tile_place

FAR = tl.constexpr(6.07)  # of sigma: taps beyond it weigh less than 1e-8, `functional._FAINT`


@triton.jit
def fold(x, length, NEAR: tl.constexpr):
    """`functional.reflect`; with NEAR, no tap reaches past more than one border, so no division is needed."""
    if NEAR:
        x = tl.abs(x)
        return tl.minimum(x, 2 * (length - 1) - x)
    else:
        period = tl.maximum(2 * (length - 1), 1)
        x = (x + period * 256) % period
        return tl.minimum(x, period - x)


@triton.jit
def _moved(tap, plane, rows, columns, depth, height, width, axis: tl.constexpr, D: tl.constexpr, NEAR: tl.constexpr):
    """(R, W) int32: the positions of the pixels that a tap reads."""
    if axis == D - 1:
        columns = fold(columns + tap, width, NEAR)
    if axis == D - 2:
        rows = fold(rows + tap, height, NEAR)
    if axis == D - 3:
        plane = fold(plane + tap, depth, NEAR)
    return pixels_at(plane, rows, columns, height, width)


@triton.jit
def blur_axis(
    source, out, touched, active, words, sigmas, kernels, allowed, forced,
    first, end, across, down, depth, height, width, longest, span, slots, all_steps, number, allowed_step, forced_step,
    source_first, source_image, source_channel, source_pixel, out_first, out_image, out_channel, out_pixel,
    slot: tl.constexpr, wider: tl.constexpr, count: tl.constexpr, axis: tl.constexpr, everywhere: tl.constexpr,
    invert: tl.constexpr, NEAR: tl.constexpr, A: tl.constexpr, F: tl.constexpr, C: tl.constexpr, D: tl.constexpr, R: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """One axis of a blur: whole tiles, including those around the boxes that a later axis reads.

    In the last pass, only the pixels of the step are written.
    """
    image = first + tl.program_id(1) + tl.program_id(2) * IMAGES
    if image >= end:
        return
    plane, below, beside = tile_place(across, down, D)
    near = tl.load(active + image * all_steps + number) != 0
    if everywhere == 0:
        near = near & boxes_meet(words, image, slots, span, longest, plane, below, beside, slot, wider, axis, count, D)
    if near:
        rows, columns = below * R + tl.arange(0, R), beside * W + tl.arange(0, W)
        inside = (rows < height)[:, None] & (columns < width)[None, :]
        pixel = pixels_at(plane, rows, columns, height, width)
        wide = image.to(tl.int64)
        sigma = tl.load(sigmas + image)
        radius = tl.minimum(tl.load(kernels + image).to(tl.int32) // 2, (sigma * FAR).to(tl.int32))
        scale = -0.7213475204444817 / (sigma * sigma)  # exp(x) is 2 ** (x / ln(2))
        start = source + (wide - source_first) * source_image
        totals = ()
        for c in tl.static_range(C):
            at = start + c * source_channel + pixel * source_pixel
            totals = totals + (tl.load(at, mask=inside, other=0).to(tl.float32),)
        whole = sigma * 0.0 + 1.0
        for tap in range(1, radius + 1):
            weight = tl.exp2(tap * tap * scale)
            whole += 2.0 * weight
            one = start + _moved(-tap, plane, rows, columns, depth, height, width, axis, D, NEAR) * source_pixel
            other = start + _moved(tap, plane, rows, columns, depth, height, width, axis, D, NEAR) * source_pixel
            more = ()
            for c in tl.static_range(C):
                left = tl.load(one + c * source_channel, mask=inside, other=0).to(tl.float32)
                right = tl.load(other + c * source_channel, mask=inside, other=0).to(tl.float32)
                more = more + (tl.fma(left + right, weight, totals[c]),)
            totals = more
        share = 1.0 / whole
        target = out + (wide - out_first) * out_image + pixel * out_pixel
        if axis < D - 1:
            for c in tl.static_range(C):
                tl.store(target + c * out_channel, totals[c] * share, mask=inside)
        else:
            here = in_boxes(words, image, slots, span, plane, rows, columns, height, width, slot, count, invert, D, R, W)
            fresh = (image >= 0).to(tl.int32)
            for n in range(number):
                fresh = fresh * (tl.load(active + image * all_steps + n) == 0).to(tl.int32)
            here = bounded(here, fresh, allowed, forced, allowed_step, forced_step, image, pixel, inside, A, F)
            for c in tl.static_range(C):  # what is there is written again: a mask of single pixels would leave no wide stores
                now = tl.load(target + c * out_channel, mask=inside, other=0)
                tl.store(target + c * out_channel, tl.where(here, in_dtype(totals[c] * share, now.dtype), now), mask=inside)
            marks = touched + wide * (depth * height * width) + pixel
            mask = tl.load(marks, mask=inside, other=0)
            tl.store(marks, tl.where(here, tl.full((R, W), 1, tl.uint8), mask), mask=inside)
