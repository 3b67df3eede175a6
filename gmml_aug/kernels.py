# mypy: ignore-errors
# ruff: noqa: N803, SIM102, SIM108, RET505
# Triton is optional and its language is no Python that mypy can follow.
"""The Triton kernels of `gmml_aug.fused`, but for blur's; imported only when they are first used.

Legend: a tile is (P, N): P the channels, padded to a power of two, and N pixels of one image in reading order. Every value of a
tuple that says what the steps are is known when a kernel is compiled, so a program pays for its own fills alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gmml_aug import chance

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
def _normal(bits):
    """`chance.to_normal` within 2e-6: x times a polynomial in -log(1 - x^2), fitted to the 65,536 values there are."""
    x = bits.to(tl.float32) * 0.000030517578125 - 0.9999847412109375
    t = tl.log((1.0 - x) * (1.0 + x)) * -0.19230769230769232 - 1.0
    p = t * -0.00215781136 + 0.00037858528
    p = p * t + 0.00902612368
    p = p * t - 0.00991155876
    p = p * t - 0.00485591778
    p = p * t + 0.0279002083
    p = p * t - 0.049701527
    p = p * t + 0.0440941483
    p = p * t + 0.0335241207
    p = p * t - 0.274339995
    p = p * t + 1.55030784
    p = p * t + 3.00133409
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
def _per_channel(numbers: tl.constexpr, first: tl.constexpr, channel, C: tl.constexpr, P: tl.constexpr):
    """(P, 1) float32 from C numbers of a tuple, 1 beyond them."""
    found = tl.full((P,), 1.0, tl.float32)
    for c in tl.static_range(C):
        found = tl.where(channel == c, numbers[first + c], found)
    return found[:, None]


@triton.jit
def _column(colours, row: tl.constexpr, batch, image, channel, C: tl.constexpr):
    """(P, 1) float32 of an image, from a (rows, B, C) table."""
    at = (row * batch + image) * C + channel
    return tl.load(colours + at, mask=channel < C, other=0.0)[:, None]


@triton.jit
def _read(at, real, channel, dtype: tl.constexpr, SCALES: tl.constexpr, SHIFTS: tl.constexpr, C: tl.constexpr, P: tl.constexpr):
    """(P, N) numbers of images; bytes where floats are made are normalised: `raw.normalise`."""
    x = tl.load(at, mask=real, other=0)
    if x.dtype == tl.uint8:
        if dtype != tl.uint8:
            scale, shift = _per_channel(SCALES, 0, channel, C, P), _per_channel(SHIFTS, 0, channel, C, P)
            x = (x.to(tl.float32) * scale + shift).to(dtype)
    return x


@triton.jit
def in_boxes(
    words, image, slots, longest, x0, x1, x2, inside,
    slot: tl.constexpr, slot1: tl.constexpr, slot2: tl.constexpr, count: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """(N,) bool: a pixel's boxes are the AND of the words of its coordinates, see `cover`; a later axis may have its own words."""
    found = tl.zeros((N,), tl.int32) != 0
    for w in tl.static_range(count):
        line = words + (image.to(tl.int64) * slots + w) * D * longest
        boxes = tl.load(line + slot * D * longest + x0, mask=inside, other=0)
        if D > 1:
            boxes &= tl.load(line + (slot1 * D + 1) * longest + x1, mask=inside, other=0)
        if D > 2:
            boxes &= tl.load(line + (slot2 * D + 2) * longest + x2, mask=inside, other=0)
        found |= boxes != 0
    return found


@triton.jit
def _in_step(
    words, image, slots, longest, x0, x1, x2, inside, STEPS: tl.constexpr, n: tl.constexpr, D: tl.constexpr, N: tl.constexpr
):
    """(N,) bool: where a step works on an image."""
    slot: tl.constexpr = STEPS[n][1]
    count: tl.constexpr = STEPS[n][2]
    invert: tl.constexpr = STEPS[n][3]
    here = in_boxes(words, image, slots, longest, x0, x1, x2, inside, slot, slot, slot, count, D, N)
    if invert:
        here = here == 0
    return here


@triton.jit
def bounded(here, fresh, allowed, forced, allowed_step, forced_step, image, pixel, inside, A: tl.constexpr, F: tl.constexpr):
    """What the caller says about where; ``fresh``: 1 where no earlier step works on this image."""
    if F:
        here |= tl.load(forced + image.to(tl.int64) * forced_step + pixel, mask=inside, other=0) * fresh != 0
    if A:
        here &= tl.load(allowed + image.to(tl.int64) * allowed_step + pixel, mask=inside, other=0) != 0
    return here & inside


@triton.jit
def coordinates(pixel, size1, size2, D: tl.constexpr):
    """A pixel's place along each axis; the same for the axes that are not there."""
    x0, x1, x2 = pixel, pixel, pixel
    if D == 2:
        x0, x1 = pixel // size1, pixel % size1
    if D == 3:
        rest = pixel // size2
        x0, x1, x2 = rest // size1, rest % size1, pixel % size2
    return x0, x1, x2


@triton.jit
def axis_words(
    boxes, words, kernels, size0, size1, size2, longest, slots, slot, count, groups, cell, chunks,
    WIDER: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Bit i of a word: box i crosses this coordinate of an axis; one program: N coordinates of an image, word and axis.

    WIDER: the box and as much around it as a blur's kernel reads; what it reads beyond a border is folded back into that.
    """
    which = tl.program_id(0)
    x = which % chunks * N + tl.arange(0, N)
    which = which // chunks
    d = which % D
    which = which // D
    group = which % groups
    image = (which // groups).to(tl.int64)
    length = tl.where(d == 0, size0, tl.where(d == 1, size1, size2))
    at = x // cell
    cells = (length + cell - 1) // cell
    n = tl.arange(0, 64)  # all boxes of a word at once, and a place that stays empty
    real = (n < 63) & (group * 63 + n < count)
    box = boxes + (image * count + group * 63 + n) * 2 * D + d
    start, extent = tl.load(box, mask=real, other=0), tl.load(box + D, mask=real, other=0)
    real = real & (extent > 0)
    extent = (start + extent + cell - 1) // cell - start // cell
    start = start // cell
    if WIDER:
        more = (tl.load(kernels + image).to(tl.int32) // 2 + cell - 1) // cell
        start, extent = start - more, extent + 2 * more
    offset = at[None, :] - start[:, None]
    offset = tl.where(offset < 0, offset + cells, tl.where(offset < cells, offset, offset - cells))
    crosses = (offset < extent[:, None]) & real[:, None]
    word = tl.sum(crosses.to(tl.int64) << n[:, None].to(tl.int64), axis=0)
    tl.store(words + ((image * slots + slot + group) * D + d) * longest + x, word, mask=x < length)


@triton.jit
def _fill(
    now, here, clean, donors, numbers, colours, batch, pixels, image, channel, pixel, real, x0, x1, x2, size0, size1, size2,
    clean_image, clean_channel, clean_pixel, donor_image, donor_channel, donor_pixel,
    STEPS: tl.constexpr, n: tl.constexpr, CONSTANTS: tl.constexpr, SCALES: tl.constexpr, SHIFTS: tl.constexpr, C: tl.constexpr,
    P: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The tile after a step."""
    kind: tl.constexpr = STEPS[n][0]
    how: tl.constexpr = STEPS[n][4]
    row: tl.constexpr = STEPS[n][5]
    dtype: tl.constexpr = now.dtype
    wide = image.to(tl.int64)
    if kind == COLOUR:
        if row < 0:
            now = tl.where(here[None, :], tl.zeros((P, N), dtype), now)
        else:
            new = in_dtype(_column(colours, row, batch, image, channel, C), dtype)
            now = tl.where(here[None, :], tl.broadcast_to(new, (P, N)), now)
    if kind == TAKE:
        donor, pointer, per_channel, per_pixel = wide * clean_image, clean, clean_channel, clean_pixel
        if how & 1:
            number = tl.load(numbers + row * batch + image)
            donor, pointer, per_channel, per_pixel = number * donor_image, donors, donor_channel, donor_pixel
        moves: tl.constexpr = row + how % 2  # the donor's number comes first
        place = pixel
        if how & 2:
            place = (x0 + tl.load(numbers + moves * batch + image).to(tl.int32)) % size0
            if D > 1:
                place = place * size1 + (x1 + tl.load(numbers + (moves + 1) * batch + image).to(tl.int32)) % size1
            if D > 2:
                place = place * size2 + (x2 + tl.load(numbers + (moves + 2) * batch + image).to(tl.int32)) % size2
        at = pointer + donor + channel[:, None] * per_channel + place[None, :] * per_pixel
        now = tl.where(here[None, :], _read(at, real & here[None, :], channel, dtype, SCALES, SHIFTS, C, P), now)
    if kind == NOISE:
        if tl.max(here.to(tl.int32), axis=0) > 0:
            start = tl.load(numbers + row * batch + image) + pixel
            each = channel
            if how & 1:  # one draw for all channels
                each = channel * 0
            if (C <= 4) | ((how & 1) == 1):
                word = mix(start)[None, :]
            else:
                word = mix(start[None, :] + (each // 4)[:, None].to(tl.int64) * pixels)
            bits = (word >> ((each % 4) * 16)[:, None].to(tl.int64)) & 0xFFFF
            distribution: tl.constexpr = STEPS[n][6]
            matched: tl.constexpr = STEPS[n][7]
            if distribution == UNIFORM:
                draw = (bits.to(tl.float32) + 0.5) * 0.0000152587890625
            else:
                draw = _normal(bits)
            if matched >= 0:
                noise = draw * _column(colours, matched + 1, batch, image, channel, C) + _column(
                    colours, matched, batch, image, channel, C
                )
            else:
                spread: tl.constexpr = STEPS[n][8]
                shifts: tl.constexpr = STEPS[n][9]
                stds: tl.constexpr = STEPS[n][10]
                shift = _per_channel(CONSTANTS, shifts, channel, C, P)
                noise = (draw * spread + shift) / _per_channel(CONSTANTS, stds, channel, C, P)
            if how & 2:  # stays in 0 to 1
                noise = tl.minimum(tl.maximum(noise, 0.0), 1.0)
            new = in_dtype(noise, dtype)
            if (distribution == UNIFORM) & (dtype == tl.uint8):
                new = (bits >> 8).to(tl.uint8)
            now = tl.where(here[None, :], new, now)
    if kind == GREY:
        weights: tl.constexpr = STEPS[n][8]
        means: tl.constexpr = STEPS[n][9]
        stds: tl.constexpr = STEPS[n][10]
        mean = _per_channel(CONSTANTS, means, channel, C, P)
        std = _per_channel(CONSTANTS, stds, channel, C, P)
        weight = tl.where((channel < C)[:, None], _per_channel(CONSTANTS, weights, channel, C, P), 0.0)
        grey = tl.sum((now.to(tl.float32) * std + mean) * weight, axis=0)
        new = tl.broadcast_to((grey[None, :] - mean) / std, (P, N))
        now = tl.where(here[None, :], in_dtype(new, dtype), now)
    return now


@triton.jit
def paint_steps(
    source, clean, donors, out, kept, touched, active, words, numbers, colours, allowed, forced,
    batch, pixels, blocks, size0, size1, size2, longest, slots, all_steps, allowed_step, forced_step,
    source_image, source_channel, source_pixel, clean_image, clean_channel, clean_pixel,
    donor_image, donor_channel, donor_pixel, out_image, out_channel, out_pixel,
    STEPS: tl.constexpr, COUNT: tl.constexpr, BEFORE: tl.constexpr, A: tl.constexpr, F: tl.constexpr, KEEP: tl.constexpr,
    CONSTANTS: tl.constexpr, SCALES: tl.constexpr, SHIFTS: tl.constexpr, C: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    N: tl.constexpr,
):  # fmt: skip
    """Some steps in a row, one read and one write of the images: what `paint.paint` does; KEEP writes what was read, too."""
    image = tl.program_id(0) // blocks
    wide = image.to(tl.int64)
    pixel = tl.program_id(0) % blocks * N + tl.arange(0, N)
    inside = pixel < pixels
    channel = tl.arange(0, P)
    real = (channel < C)[:, None] & inside[None, :]
    x0, x1, x2 = coordinates(pixel, size1, size2, D)
    start = source + wide * source_image + channel[:, None] * source_channel + pixel[None, :] * source_pixel
    now = _read(start, real, channel, out.dtype.element_ty, SCALES, SHIFTS, C, P)
    where_to = wide * out_image + channel[:, None] * out_channel + pixel[None, :] * out_pixel
    if KEEP:
        tl.store(kept + where_to, now, mask=real)
    fresh = (image >= 0).to(tl.int32)
    mask = tl.zeros((N,), tl.int32) != 0
    for n in tl.static_range(BEFORE):  # steps before these, in kernels of their own
        fresh = fresh * (tl.load(active + image * all_steps + n) == 0).to(tl.int32)
    if BEFORE > 0:
        mask = tl.load(touched + wide * pixels + pixel, mask=inside, other=0) != 0
    for n in tl.static_range(COUNT):
        if tl.load(active + image * all_steps + BEFORE + n) != 0:
            here = _in_step(words, image, slots, longest, x0, x1, x2, inside, STEPS, n, D, N)
            here = bounded(here, fresh, allowed, forced, allowed_step, forced_step, image, pixel, inside, A, F)
            fresh = fresh * 0
            mask |= here
            now = _fill(
                now, here, clean, donors, numbers, colours, batch, pixels, image, channel, pixel, real, x0, x1, x2, size0, size1,
                size2, clean_image, clean_channel, clean_pixel, donor_image, donor_channel, donor_pixel, STEPS, n,
                CONSTANTS, SCALES, SHIFTS, C, P, D, N,
            )  # fmt: skip
    tl.store(out + where_to, now, mask=real)
    tl.store(touched + wide * pixels + pixel, mask.to(tl.uint8), mask=inside)
