# mypy: ignore-errors
# ruff: noqa: N803
# Triton is optional and its language is no Python that mypy can follow.
"""The Triton kernel of `gmml_aug.blurring.Blur`; the legend is that of `kernels`."""

from __future__ import annotations

import triton
import triton.language as tl

from gmml_aug.kernels import bounded, coordinates, in_boxes, in_dtype

_FAR = tl.constexpr(6.07)  # of sigma: taps beyond it weigh less than 1e-8, `blurring._FAINT`


@triton.jit
def _rows_in_boxes(
    words, image, slots, longest, first, end, plane, slot: tl.constexpr, count: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr
):
    """True if a box crosses one of the rows that the pixels ``first`` to ``end - 1`` lie in."""
    row = first // plane + tl.arange(0, ROWS)
    found = tl.zeros((ROWS,), tl.int64)
    for w in tl.static_range(count):
        line = words + (image.to(tl.int64) * slots + slot + w) * D * longest
        found |= tl.load(line + row, mask=row * plane < end, other=0)
    return tl.max((found != 0).to(tl.int32), axis=0) > 0


@triton.jit
def blur_axis(
    source, out, touched, active, words, sigmas, kernels, allowed, forced,
    first, pixels, blocks, length, stride, plane, size1, size2, longest, slots, all_steps, number, allowed_step, forced_step,
    source_first, source_image, source_channel, source_pixel, out_first, out_image, out_channel, out_pixel,
    slot: tl.constexpr, wider: tl.constexpr, count: tl.constexpr, axis: tl.constexpr, everywhere: tl.constexpr,
    invert: tl.constexpr, last: tl.constexpr, A: tl.constexpr, F: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
    D: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """One axis of a blur: the pixels that a later one reads, and in the last pass those of the step, which are written."""
    image = first + tl.program_id(0) // blocks
    begin = tl.program_id(0) % blocks * N
    near = tl.load(active + image * all_steps + number) != 0
    if ROWS > 0:  # rows far from all boxes are left at once
        end = tl.minimum(begin + N, pixels)
        near = near & _rows_in_boxes(words, image, slots, longest, begin, end, plane, slot, count, D, ROWS)
    if near:
        wide = image.to(tl.int64)
        pixel = begin + tl.arange(0, N)
        inside = pixel < pixels
        channel = tl.arange(0, P)
        x0, x1, x2 = coordinates(pixel, size1, size2, D)
        if last:
            here = in_boxes(words, image, slots, longest, x0, x1, x2, inside, slot, slot, slot, count, D, N)
            if invert:
                here = here == 0
            fresh = (image >= 0).to(tl.int32)
            for n in range(number):
                fresh = fresh * (tl.load(active + image * all_steps + n) == 0).to(tl.int32)
            here = bounded(here, fresh, allowed, forced, allowed_step, forced_step, image, pixel, inside, A, F)
        elif everywhere:
            here = inside
        elif axis == 0:  # the later axes reach beyond the box
            here = in_boxes(words, image, slots, longest, x0, x1, x2, inside, slot, wider, wider, count, D, N)
        else:
            here = in_boxes(words, image, slots, longest, x0, x1, x2, inside, slot, slot, wider, count, D, N)
        if tl.max(here.to(tl.int32), axis=0) > 0:
            sigma = tl.load(sigmas + image)
            radius = tl.minimum(tl.load(kernels + image).to(tl.int32) // 2, (sigma * _FAR).to(tl.int32))
            whole = sigma * 0.0
            for tap in range(-radius, radius + 1):
                whole += tl.exp(-0.5 * (tap / sigma) * (tap / sigma))
            x = x0
            if axis == 1:
                x = x1
            if axis == 2:
                x = x2
            real = (channel < C)[:, None] & here[None, :]
            line = source + (wide - source_first) * source_image + channel[:, None] * source_channel
            total = tl.zeros((P, N), tl.float32)
            period = tl.maximum(2 * (length - 1), 1)
            for tap in range(-radius, radius + 1):
                weight = tl.exp(-0.5 * (tap / sigma) * (tap / sigma)) / whole
                at = (x + tap + period * 256) % period
                at = tl.where(length == 1, 0, tl.minimum(at, period - at))
                place = pixel + (at - x) * stride
                value = tl.load(line + place[None, :] * source_pixel, mask=real, other=0).to(tl.float32)
                total += tl.where(weight > 0.0, value * weight, 0.0)
            target = out + (wide - out_first) * out_image + channel[:, None] * out_channel + pixel[None, :] * out_pixel
            tl.store(target, in_dtype(total, out.dtype.element_ty), mask=real)
            if last:
                tl.store(touched + wide * pixels + pixel, tl.full((N,), 1, tl.uint8), mask=here)
