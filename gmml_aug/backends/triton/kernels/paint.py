# mypy: ignore-errors
# ruff: noqa: N803, N806, SIM102, SIM108, RET505, RUF005
# Triton is optional and its language is no Python that mypy can follow.
"""The Triton kernel that paints; imported only when it is first used.

See the legend in `bits`. A program handles a tile of R words as (R, 32 / E, E) pixels; a thread has E adjacent ones, 16 bytes of
a channel, which are either all read or all skipped. The steps are known when the kernel is compiled, so a program pays only for
its own fills.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gmml_aug import chance
from gmml_aug.backends.triton.kernels.bits import INTERPRETED
from gmml_aug.backends.triton.kernels.tiles import bounded

_ONE, _TWO, _THREE = (tl.constexpr(shift) for shift in chance._SHIFTS)
_KEEP_ONE, _KEEP_TWO, _KEEP_THREE = (tl.constexpr(keep) for keep in chance._KEEP)
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
    """A logarithm in one instruction, accurate to 2^-22; `tl.log2` takes 22 instructions."""
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
    log = _log2(rest)
    if dtype == tl.float32:
        t = tl.fma(log, 0.13333333333, 1.0)  # from -1 to 1: powers of the logarithm itself would cancel
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
        p = tl.fma(log, 5.3569529256947135e-08, 4.297779469197849e-06)
        p = tl.fma(p, log, 0.00013348129868973047)
        p = tl.fma(p, log, 0.0019683409482240677)
        p = tl.fma(p, log, 0.009909897111356258)
        p = tl.fma(p, log, -0.22535723447799683)
        p = tl.fma(p, log, 1.2538928985595703)
    return p * x


@triton.jit
def in_dtype(x, dtype: tl.constexpr):
    """`functional.like`: adding and then subtracting 1.5 * 2**23 rounds halves to even."""
    if dtype == tl.uint8:
        x = tl.minimum(tl.maximum(x, 0.0), 255.0)
        return ((x + 12582912.0) - 12582912.0).to(tl.int32).to(tl.uint8)
    else:
        return x.to(dtype)


@triton.jit
def _read(at, inside, c: tl.constexpr, dtype: tl.constexpr, SCALES: tl.constexpr, SHIFTS: tl.constexpr):
    """Load values of a channel; if the input is bytes and the output is floats, they are normalised as by `values.normalise`."""
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
    """Noise where ``here`` is True; ``start`` (int64) is where the noise of each pixel begins."""
    how: tl.constexpr = STEPS[n][2]
    distribution: tl.constexpr = STEPS[n][4]
    matched: tl.constexpr = STEPS[n][5]
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
            draw = _scaled(draw, STEPS[n][6], CONSTANTS[STEPS[n][7] + c], CONSTANTS[STEPS[n][8] + c])
        if how & 2:  # stays in 0 to 1
            draw = tl.minimum(tl.maximum(draw, 0.0), 1.0)
        made = in_dtype(draw, dtype)
        if (distribution == UNIFORM) & (dtype == tl.uint8):
            made = (bits >> 8).to(tl.uint8)
        new = new + (tl.where(here, made, now[c]),)
    return new


@triton.jit
def _moved(pixel, numbers, moves: tl.constexpr, batch, image, depth, height, width, D: tl.constexpr):
    """The position that the content of each pixel comes from: a shift along every axis, modulo the image."""
    column = pixel % width + tl.load(numbers + (moves + D - 1) * batch + image).to(tl.int32)
    found = tl.where(column >= width, column - width, column)
    if D > 1:
        row = pixel // width
        plane = row * 0
        if D > 2:
            plane = (row // height + tl.load(numbers + moves * batch + image).to(tl.int32)) % depth
            row = row % height
        row += tl.load(numbers + (moves + D - 2) * batch + image).to(tl.int32)
        found += (plane * height + tl.where(row >= height, row - height, row)) * width
    return found


@triton.jit
def _fill(
    now, here, some, clean, donors, numbers, colours, batch, image, pixel, depth, height, width,
    clean_image, clean_channel, clean_pixel, donor_image, donor_channel, donor_pixel,
    STEPS: tl.constexpr, n: tl.constexpr, CONSTANTS: tl.constexpr, SCALES: tl.constexpr, SHIFTS: tl.constexpr, C: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    """The channels of the tile after a step that works where ``here`` is True; ``some`` marks the groups in which it does."""
    kind: tl.constexpr = STEPS[n][0]
    how: tl.constexpr = STEPS[n][2]
    row: tl.constexpr = STEPS[n][3]
    dtype: tl.constexpr = now[0].dtype
    new = ()
    if kind == COLOUR:
        for c in tl.static_range(C):
            colour = tl.zeros((1, 1, 1), dtype)
            if row >= 0:
                colour = in_dtype(tl.load(colours + (row * batch + image) * C + c + tl.zeros((1, 1, 1), tl.int32)), dtype)
            new = new + (tl.where(here, colour, now[c]),)
    if kind == TAKE:
        start, per_channel, per_pixel = clean + image.to(tl.int64) * clean_image, clean_channel, clean_pixel
        if how & 1:
            start = donors + tl.load(numbers + row * batch + image) * donor_image
            per_channel, per_pixel = donor_channel, donor_pixel
        place = pixel
        if how & 2:  # the donor's number comes first
            place = _moved(pixel, numbers, row + how % 2, batch, image, depth, height, width, D)
        for c in tl.static_range(C):
            taken = _read(start + c * per_channel + place * per_pixel, some, c, dtype, SCALES, SHIFTS)
            new = new + (tl.where(here, taken, now[c]),)
    if kind == NOISE:
        start = tl.load(numbers + row * batch + image) + pixel
        new = _noise(now, here, start, colours, batch, depth * height * width, image, STEPS, n, CONSTANTS, C)
    if kind == GREY:  # luma = sum of weight * (x * std + mean), and back, (luma - mean) / std: two chains of fma
        grey = tl.zeros_like(now[0]).to(tl.float32) + STEPS[n][4]
        for c in tl.static_range(C):
            grey = tl.fma(now[c].to(tl.float32), CONSTANTS[STEPS[n][5] + c], grey)
        for c in tl.static_range(C):
            made = in_dtype(tl.fma(grey, CONSTANTS[STEPS[n][6] + c], CONSTANTS[STEPS[n][7] + c]), dtype)
            new = new + (tl.where(here, made, now[c]),)
    return new


@triton.jit
def paint_steps(
    source, clean, donors, out, kept, touched, active, bits, flags, numbers, colours, allowed, forced,
    first_image, first_tile, batch, lines, depth, height, width, words, tiles, flag_row, all_steps, allowed_step, forced_step,
    source_image, source_channel, source_pixel, clean_image, clean_channel, clean_pixel,
    donor_image, donor_channel, donor_pixel, out_image, out_channel, out_pixel,
    STEPS: tl.constexpr, COUNT: tl.constexpr, MARKED: tl.constexpr, MORE: tl.constexpr, BEFORE: tl.constexpr, PLACES: tl.constexpr,
    A: tl.constexpr, F: tl.constexpr, KEEP: tl.constexpr, CONSTANTS: tl.constexpr, SCALES: tl.constexpr, SHIFTS: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, FLAT: tl.constexpr, EVEN: tl.constexpr, R: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Run several consecutive steps with one read and one write of the images, painting as the reference does.

    With KEEP, also write the images as they were read.

    MARKED lists MORE steps, as (step, place), that follow in a separate kernel: their pixels are already marked as touched here.
    """
    across, tile, image = tl.program_id(0), first_tile + tl.program_id(1), first_image + tl.program_id(2)
    wide = image.to(tl.int64)
    if FLAT:
        line, word, there = tl.arange(0, R) * 0, tile * R + tl.arange(0, R), tile * R + tl.arange(0, R) < words
    else:
        line, word = tile * R + tl.arange(0, R), tl.arange(0, R) * 0 + across
        there = line < lines
    shift = (tl.arange(0, 32 // E) * E)[None, :, None]
    lane = shift + tl.arange(0, E)[None, None, :]
    column = word[:, None, None] * 32 + (shift if EVEN else lane)  # where E divides the width, one bound for a group
    inside = there[:, None, None] & (column < width)
    pixel = (line * width + word * 32)[:, None, None] + lane
    at = bits + (wide * PLACES * lines + line) * words + word
    flag = flags + (image * PLACES * tiles + tile) * flag_row + across // 32
    GROUP: tl.constexpr = (1 << E) - 1
    # which steps have anything to do here, and which of them are an image's first: bit n is step n; nothing waits for another
    fresh = (image >= 0).to(tl.int32)
    todo, firsts = image * 0, image * 0
    works, taken, marked = (), tl.zeros((R,), tl.int32), tl.zeros((R,), tl.int32)
    for n in tl.static_range(BEFORE):  # steps before these, in kernels of their own
        fresh = fresh * (tl.load(active + image * all_steps + n) == 0).to(tl.int32)
    for n in tl.static_range(COUNT):
        opened = (tl.load(active + image * all_steps + BEFORE + n) != 0).to(tl.int32)
        meets = (tl.load(flag + STEPS[n][1] * tiles * flag_row) >> (across % 32)) & 1
        if F:
            meets = meets | fresh
        todo |= (opened & meets) << n
        firsts |= fresh << n
        fresh = fresh * (1 - opened)
        own = tl.load(at + STEPS[n][1] * lines * words, mask=there & (opened != 0), other=0)
        works = works + (own,)
        marked |= own
        if STEPS[n][0] != GREY:
            taken |= own  # nothing of what was there is kept
    for n in tl.static_range(MORE):
        opened = tl.load(active + image * all_steps + MARKED[n][0]) != 0
        marked |= tl.load(at + MARKED[n][1] * lines * words, mask=there & opened, other=0)
    wanted = inside
    if (KEEP | A | F) == 0:
        wanted = inside & (((taken[:, None, None] >> shift) & GROUP) != GROUP)
    now = ()
    for c in tl.static_range(C):
        start = source + wide * source_image + c * source_channel + pixel * source_pixel
        now = now + (_read(start, wanted, c, out.dtype.element_ty, SCALES, SHIFTS),)
    marks = touched + wide * (depth * height * width) + pixel
    ends = wide * out_image + pixel * out_pixel
    if KEEP:
        for c in tl.static_range(C):
            tl.store(kept + ends + c * out_channel, now[c], mask=inside)
    mask = (marked[:, None, None] >> lane) & 1
    if A | F:
        mask = mask * 0
    if BEFORE > 0:
        mask |= tl.load(marks, mask=inside, other=0).to(tl.int32)
    for n in tl.static_range(COUNT):
        if (todo >> n) & 1 != 0:
            here = ((works[n][:, None, None] >> lane) & 1) != 0
            some = inside & (((works[n][:, None, None] >> shift) & GROUP) != 0)
            if A | F:
                here = bounded(here, (firsts >> n) & 1, allowed, forced, allowed_step, forced_step, image, pixel, inside, A, F)
                mask |= here.to(tl.int32)
                some = inside
            now = _fill(
                now, here, some, clean, donors, numbers, colours, batch, image, pixel, depth, height, width, clean_image,
                clean_channel, clean_pixel, donor_image, donor_channel, donor_pixel, STEPS, n, CONSTANTS, SCALES, SHIFTS, C, D,
            )  # fmt: skip
    for c in tl.static_range(C):
        tl.store(out + ends + c * out_channel, now[c], mask=inside)
    tl.store(marks, mask.to(tl.uint8), mask=inside)
