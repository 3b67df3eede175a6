# mypy: ignore-errors
# ruff: noqa: N803, SIM102, SIM108, RET505, RUF005
# Triton is optional and its language is no Python that mypy can follow.
"""The Triton kernels of `gmml_aug.backends.triton`, but for blur's; imported only when they are first used.

The legend is that of `tiles`. Every value of a tuple that says what the steps are is known when a kernel is compiled, so a
program pays for its own fills alone.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

from gmml_aug import chance
from gmml_aug.backends.triton.kernels.tiles import IMAGES, bounded, boxes_meet, in_boxes, pixels_at, tile_place
from gmml_aug.backends.triton.kernels.tiles import axis_words as axis_words  # launched from here, like the others

_ONE, _TWO, _THREE = (tl.constexpr(shift) for shift in chance._SHIFTS)
_KEEP_ONE, _KEEP_TWO, _KEEP_THREE = (tl.constexpr(keep) for keep in chance._KEEP)
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")  # inline assembly is for the compiler
_FIRST, _SECOND = tl.constexpr(chance._FIRST), tl.constexpr(chance._SECOND)

# kinds of steps
COLOUR, TAKE, NOISE, GREY = (tl.constexpr(kind) for kind in range(4))
NORMAL, UNIFORM = (tl.constexpr(kind) for kind in range(2))


@triton.jit
def mix(z):
    """`chance.mix`."""
    z = (((z >> _ONE) & _KEEP_ONE) ^ z) * _FIRST
    z = (((z >> _TWO) & _KEEP_TWO) ^ z) * _SECOND
    return ((z >> _THREE) & _KEEP_THREE) ^ z


@triton.jit
def _log2(x):
    """One instruction within 2^-22, where `tl.log2` is a function of 22."""
    if INTERPRETED:
        return tl.log2(x)
    else:
        return tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def _normal(bits, dtype: tl.constexpr):
    """`chance.to_normal` within 3e-6, or 1e-4 for halves: x times a polynomial in log2(1 - x^2), fitted to the 65,536 values."""
    x = tl.fma(bits.to(tl.float32), 0.000030517578125, -0.9999847412109375)
    if INTERPRETED:  # there an fma rounds twice
        rest = (1.0 - x) * (1.0 + x)
    else:
        rest = tl.fma(-x, x, 1.0)
    t = tl.fma(_log2(rest), 0.13333333333, 1.0)
    if dtype == tl.float32:
        p = tl.fma(t, -0.0032656737603247166, -0.009102078154683113)
        p = tl.fma(p, t, -0.0007269830093719065)
        p = tl.fma(p, t, 0.027281666174530983)
        p = tl.fma(p, t, 0.05202644318342209)
        p = tl.fma(p, t, 0.04427891597151756)
        p = tl.fma(p, t, -0.03385481983423233)
        p = tl.fma(p, t, -0.2742350995540619)
        p = tl.fma(p, t, -1.5500192642211914)
        p = tl.fma(p, t, 3.000917911529541)
    else:
        p = tl.fma(t, 0.009534222073853016, 0.044782962650060654)
        p = tl.fma(p, t, 0.055414941161870956)
        p = tl.fma(p, t, -0.029780136421322823)
        p = tl.fma(p, t, -0.27656054496765137)
        p = tl.fma(p, t, -1.5504975318908691)
        p = tl.fma(p, t, 3.0009989738464355)
    return p * x


@triton.jit
def in_dtype(x, dtype: tl.constexpr):
    """`functional.like`: adding and taking away 1.5 * 2**23 rounds halves to even."""
    if dtype == tl.uint8:
        x = tl.minimum(tl.maximum(x, 0.0), 255.0)
        return ((x + 12582912.0) - 12582912.0).to(tl.int32).to(tl.uint8)
    else:
        return x.to(dtype)


@triton.jit
def _read(at, inside, c: tl.constexpr, dtype: tl.constexpr, SCALES: tl.constexpr, SHIFTS: tl.constexpr):
    """(R, W) numbers of a channel; bytes where floats are made are normalised: `values.normalise`."""
    x = tl.load(at, mask=inside, other=0)
    if x.dtype == tl.uint8:
        if dtype != tl.uint8:
            x = (x.to(tl.float32) * SCALES[c] + SHIFTS[c]).to(dtype)
    return x


@triton.jit
def _scaled(draw, spread: tl.constexpr, shift: tl.constexpr, std: tl.constexpr):
    """``(draw * spread + shift) / std``."""
    if (spread / std != 1.0) | (shift != 0.0):
        draw = tl.fma(draw, spread / std, shift / std)
    return draw


@triton.jit
def _noise(
    now, here, start, colours, batch, pixels, image,
    STEPS: tl.constexpr, n: tl.constexpr, CONSTANTS: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Noise where ``here`` says so; ``start``: (R, W) int64, where the noise of each pixel begins."""
    how: tl.constexpr = STEPS[n][4]
    distribution: tl.constexpr = STEPS[n][6]
    matched: tl.constexpr = STEPS[n][7]
    dtype: tl.constexpr = now[0].dtype
    word = mix(start)
    bits = word.to(tl.int32) & 0xFFFF
    new = ()
    for c in tl.static_range(C):
        if (how & 1) == 0:  # otherwise one draw for all channels
            if (c > 0) & (c % 4 == 0):
                word = mix(start + c // 4 * pixels)
            half = (word >> (c % 4 // 2 * 32)).to(tl.int32)
            bits = (half >> (c % 2 * 16)) & 0xFFFF
        if distribution == UNIFORM:
            draw = tl.fma(bits.to(tl.float32), 0.0000152587890625, 0.00000762939453125)
        else:
            draw = _normal(bits, dtype)
        if matched >= 0:
            at = colours + (matched * batch + image) * C + c
            draw = tl.fma(draw, tl.load(at + batch * C), tl.load(at))
        else:
            draw = _scaled(draw, STEPS[n][8], CONSTANTS[STEPS[n][9] + c], CONSTANTS[STEPS[n][10] + c])
        if how & 2:  # stays in 0 to 1
            draw = tl.minimum(tl.maximum(draw, 0.0), 1.0)
        made = in_dtype(draw, dtype)
        if (distribution == UNIFORM) & (dtype == tl.uint8):
            made = (bits >> 8).to(tl.uint8)
        new = new + (tl.where(here, made, now[c]),)
    return new


@triton.jit
def _fill(
    now, here, clean, donors, numbers, colours, batch, image, plane, rows, columns, pixel, inside, depth, height, width,
    clean_image, clean_channel, clean_pixel, donor_image, donor_channel, donor_pixel,
    STEPS: tl.constexpr, n: tl.constexpr, CONSTANTS: tl.constexpr, SCALES: tl.constexpr, SHIFTS: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    """The channels of the tile after a step."""
    kind: tl.constexpr = STEPS[n][0]
    how: tl.constexpr = STEPS[n][4]
    row: tl.constexpr = STEPS[n][5]
    dtype: tl.constexpr = now[0].dtype
    new = ()
    if kind == COLOUR:
        for c in tl.static_range(C):
            colour = tl.zeros((1, 1), dtype)
            if row >= 0:
                colour = in_dtype(tl.load(colours + (row * batch + image) * C + c + tl.zeros((1, 1), tl.int32)), dtype)
            new = new + (tl.where(here, colour, now[c]),)
    if kind == TAKE:
        start, per_channel, per_pixel = clean + image.to(tl.int64) * clean_image, clean_channel, clean_pixel
        if how & 1:
            start = donors + tl.load(numbers + row * batch + image) * donor_image
            per_channel, per_pixel = donor_channel, donor_pixel
        moves: tl.constexpr = row + how % 2  # the donor's number comes first
        place = pixel
        if how & 2:
            columns += tl.load(numbers + (moves + D - 1) * batch + image).to(tl.int32)
            columns = tl.where(columns >= width, columns - width, columns)
            if D > 1:
                rows += tl.load(numbers + (moves + D - 2) * batch + image).to(tl.int32)
                rows = tl.where(rows >= height, rows - height, rows)
            if D > 2:
                plane = (plane + tl.load(numbers + moves * batch + image).to(tl.int32)) % depth
            place = pixels_at(plane, rows, columns, height, width)
        for c in tl.static_range(C):  # all that is inside: a mask of single pixels would leave no wide loads
            taken = _read(start + c * per_channel + place * per_pixel, inside, c, dtype, SCALES, SHIFTS)
            new = new + (tl.where(here, taken, now[c]),)
    if kind == NOISE:
        start = tl.load(numbers + row * batch + image) + pixel
        new = _noise(now, here, start, colours, batch, depth * height * width, image, STEPS, n, CONSTANTS, C)
    if kind == GREY:
        grey = tl.zeros_like(now[0]).to(tl.float32)
        for c in tl.static_range(C):
            grey += (now[c].to(tl.float32) * CONSTANTS[STEPS[n][10] + c] + CONSTANTS[STEPS[n][9] + c]) * CONSTANTS[STEPS[n][8] + c]
        for c in tl.static_range(C):
            made = in_dtype((grey - CONSTANTS[STEPS[n][9] + c]) * (1.0 / CONSTANTS[STEPS[n][10] + c]), dtype)
            new = new + (tl.where(here, made, now[c]),)
    return new


@triton.jit
def paint_steps(
    source, clean, donors, out, kept, touched, active, words, numbers, colours, allowed, forced,
    batch, across, down, depth, height, width, longest, span, slots, all_steps, allowed_step, forced_step,
    source_image, source_channel, source_pixel, clean_image, clean_channel, clean_pixel,
    donor_image, donor_channel, donor_pixel, out_image, out_channel, out_pixel,
    STEPS: tl.constexpr, COUNT: tl.constexpr, BEFORE: tl.constexpr, A: tl.constexpr, F: tl.constexpr, KEEP: tl.constexpr,
    CONSTANTS: tl.constexpr, SCALES: tl.constexpr, SHIFTS: tl.constexpr, C: tl.constexpr, D: tl.constexpr, R: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """Some steps in a row, one read and one write of the images: as the reference paints; KEEP writes what was read, too."""
    image = tl.program_id(1) + tl.program_id(2) * IMAGES
    if image >= batch:
        return
    plane, below, beside = tile_place(across, down, D)
    rows, columns = below * R + tl.arange(0, R), beside * W + tl.arange(0, W)
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    pixel = pixels_at(plane, rows, columns, height, width)
    wide = image.to(tl.int64)
    now = ()
    for c in tl.static_range(C):
        at = source + wide * source_image + c * source_channel + pixel * source_pixel
        now = now + (_read(at, inside, c, out.dtype.element_ty, SCALES, SHIFTS),)
    # which steps have anything to do here, and which of them are an image's first: bit n is step n; nothing waits for another
    fresh = (image >= 0).to(tl.int32)
    todo, firsts = image * 0, image * 0
    for n in tl.static_range(BEFORE):  # steps before these, in kernels of their own
        fresh = fresh * (tl.load(active + image * all_steps + n) == 0).to(tl.int32)
    for n in tl.static_range(COUNT):
        meets = image >= 0
        if STEPS[n][3] == 0:
            meets = boxes_meet(
                words, image, slots, span, longest, plane, below, beside, STEPS[n][1], STEPS[n][1], D, STEPS[n][2], D
            )
        if F:
            meets |= fresh != 0
        works = tl.load(active + image * all_steps + BEFORE + n) != 0
        todo |= (works & meets).to(tl.int32) << n
        firsts |= fresh << n
        fresh = fresh * (works == 0).to(tl.int32)
    mask = tl.zeros((R, W), tl.int32) != 0
    marks = touched + wide * (depth * height * width) + pixel
    if BEFORE > 0:
        mask = tl.load(marks, mask=inside, other=0) != 0
    ends = wide * out_image + pixel * out_pixel
    if KEEP:
        for c in tl.static_range(C):
            tl.store(kept + ends + c * out_channel, now[c], mask=inside)
    for n in tl.static_range(COUNT):
        if (todo >> n) & 1 != 0:
            here = in_boxes(
                words, image, slots, span, plane, rows, columns, height, width, STEPS[n][1], STEPS[n][2], STEPS[n][3], D, R, W
            )
            here = bounded(here, (firsts >> n) & 1, allowed, forced, allowed_step, forced_step, image, pixel, inside, A, F)
            mask |= here
            now = _fill(
                now, here, clean, donors, numbers, colours, batch, image, plane, rows, columns, pixel, inside, depth, height,
                width, clean_image, clean_channel, clean_pixel, donor_image, donor_channel, donor_pixel, STEPS, n,
                CONSTANTS, SCALES, SHIFTS, C, D,
            )  # fmt: skip
    for c in tl.static_range(C):
        tl.store(out + ends + c * out_channel, now[c], mask=inside)
    tl.store(marks, mask.to(tl.uint8), mask=inside)
