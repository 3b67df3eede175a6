# mypy: ignore-errors
# ruff: noqa: N803, SIM108
# Triton is optional and its language is no Python that mypy can follow.
"""The Triton kernels of `gmml_aug.backends.triton.plan`; imported only when they are first used.

Legend: a program paints the boxes of one image, as the rule says it: one after the other, until enough is covered. The image is a
tile of bits in its registers, (R, W): R rows, padded to a power of two, and W words of 32 columns.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gmml_aug import chance
from gmml_aug.backends.triton.kernels.paint import mix

_GATES, _BOXES = (tl.constexpr(chance.mix_int(number + 1)) for number in (chance.GATES, chance.BOXES))
_LOW = tl.constexpr(0xFFFFFFFF)


@triton.jit
def _opened(gates, image, STEPS: tl.constexpr, GATES: tl.constexpr, n: tl.constexpr):
    """(N,) bool: all gates of a step are open."""
    works: tl.constexpr = STEPS[n][0]
    first: tl.constexpr = STEPS[n][1]
    count: tl.constexpr = STEPS[n][2]
    opened = image >= 0
    if works == 0:  # cannot work on images of this shape
        opened = image < 0
    for g in tl.static_range(count):
        uniform = ((mix(gates + GATES[first + g][0]) >> 40) & 0xFFFFFF).to(tl.float32) * 0.000000059604644775390625
        opened = opened & (uniform >= GATES[first + g][1]) & (uniform < GATES[first + g][2])
    return opened


@triton.jit
def draw_streams(
    keys, active, streams, ahead, batch,
    STEPS: tl.constexpr, GATES: tl.constexpr, COUNT: tl.constexpr, AHEAD: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """`open_steps` of the reference, and for every step the key of its stream with its first AHEAD words: of N images."""
    image = tl.program_id(0) * N + tl.arange(0, N)
    real = image < batch
    key = tl.load(keys + image, mask=real, other=0)
    gates = mix(key + _GATES)
    for n in tl.static_range(COUNT):
        opened = _opened(gates, image, STEPS, GATES, n)
        tl.store(active + image * COUNT + n, opened.to(tl.uint8), mask=real)
        stream = mix(key + STEPS[n][3])
        tl.store(streams + n * batch + image, stream, mask=real)
        for w in tl.static_range(AHEAD):
            tl.store(ahead + (n * batch + image) * AHEAD + w, mix(stream + w), mask=real)


@triton.jit
def _side(word, least, span, cells, length, PLACEMENT: tl.constexpr, ALIGN: tl.constexpr):
    """`Boxes._axis`: start and extent along one axis, from a word."""
    extent = least + ((((word >> 32) & _LOW) * span) >> 32)
    start = word & _LOW
    if PLACEMENT == 2:  # origin; there ``cells`` are the places of a corner
        corner = (start * cells) >> 32
        if ALIGN > 1:
            extent = tl.maximum((extent + ALIGN // 2) // ALIGN * ALIGN, ALIGN)
            corner = corner // ALIGN * ALIGN
        extent = tl.minimum(extent, length - corner)
    else:
        if PLACEMENT == 1:  # inside
            corner = (start * (cells - extent + 1)) >> 32
        else:
            corner = (start * cells) >> 32
        if ALIGN > 1:
            end = corner + extent
            end = tl.where(end > cells, (end - cells) * ALIGN + length, tl.minimum(end * ALIGN, length))
            corner = corner * ALIGN
            extent = end - corner
    return corner.to(tl.int32), extent.to(tl.int32)


@triton.jit
def _begin(keys, active, batch, steps, OFFSETS: tl.constexpr, HERE: tl.constexpr, COUNT: tl.constexpr, STEPS: tl.constexpr):
    """The image of this program, where its words begin, and whether a step works there."""
    which = tl.program_id(0) // batch
    image = tl.program_id(0) % batch
    first = mix(tl.load(keys + image) + _BOXES)
    here = image < 0
    for n in tl.static_range(COUNT):
        if which == n:
            first += OFFSETS[n]
            for s in tl.static_range(STEPS):
                if (HERE[n] >> s) & 1:
                    here |= tl.load(active + image * steps + s) != 0
    return first, here


@triton.jit
def count_boxes(
    keys, active, out, batch, steps, rows, low, span, height, width, least0, span0, cells0, least1, span1, cells1,
    OFFSETS: tl.constexpr, HERE: tl.constexpr, COUNT: tl.constexpr, STEPS: tl.constexpr, PLACEMENT: tl.constexpr,
    ALIGN: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Boxes given by their number: all there are."""
    first, here = _begin(keys, active, batch, steps, OFFSETS, HERE, COUNT, STEPS)
    n = tl.arange(0, N)
    start0, extent0 = _side(mix(first + 1 + 2 * n), least0, span0, cells0, height, PLACEMENT, ALIGN[0])
    start1, extent1 = _side(mix(first + 2 + 2 * n), least1, span1, cells1, width, PLACEMENT, ALIGN[1])
    real = here & (n < low + (((mix(first) & _LOW) * span) >> 32))
    row = out + (tl.program_id(0).to(tl.int64) * rows + n) * 4
    tl.store(row, tl.where(real, start0, 0), mask=n < rows)
    tl.store(row + 1, tl.where(real, start1, 0), mask=n < rows)
    tl.store(row + 2, tl.where(real, extent0, 0), mask=n < rows)
    tl.store(row + 3, tl.where(real, extent1, 0), mask=n < rows)


@triton.jit
def _popcount(x):
    """Bits of each int32."""
    x = (x & 0x55555555) + ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x & 0x0F0F0F0F) + ((x >> 4) & 0x0F0F0F0F)
    x += x >> 8
    return (x + (x >> 16)) & 63


@triton.jit
def _interval(first, end, W: tl.constexpr):
    """(W,) words whose bits ``first`` to ``end - 1`` are set."""
    left = tl.arange(0, W) * 32
    one = tl.full((W,), 1, tl.int64)
    low = tl.minimum(tl.maximum(first - left, 0), 32).to(tl.int64)
    high = tl.minimum(tl.maximum(end - left, 0), 32).to(tl.int64)
    return ((one << high) - (one << low)).to(tl.int32)


@triton.jit
def _locate(counts, at, start, wanted):
    """Where, from ``start`` on and round the border, the counts reach ``wanted``, and how much of it is left there."""
    behind = at < start
    before = tl.cumsum(counts, axis=0) - counts
    over = tl.sum(tl.where(behind, counts, 0), axis=0)
    before = tl.where(behind, before + (tl.sum(counts, axis=0) - over), before - over)
    found = (before < wanted) & (wanted <= before + counts)
    return tl.sum(tl.where(found, at, 0), axis=0), wanted - tl.sum(tl.where(found, before, 0), axis=0)


@triton.jit
def _store(row, start0, start1, extent0, extent1):
    """A box; zeros if it has no size."""
    real = ((extent0 > 0) & (extent1 > 0)).to(tl.int32)
    tl.store(row, start0 * real)
    tl.store(row + 1, start1 * real)
    tl.store(row + 2, extent0 * real)
    tl.store(row + 3, extent1 * real)


@triton.jit
def settle_boxes(
    keys, active, out, batch, steps, rows, low, span, height, width, least0, span0, cells0, least1, span1, cells1,
    OFFSETS: tl.constexpr, HERE: tl.constexpr, COUNT: tl.constexpr, STEPS: tl.constexpr, PLACEMENT: tl.constexpr,
    ALIGN: tl.constexpr, WHOLE: tl.constexpr, R: tl.constexpr, W: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Boxes until a share is covered: what `Boxes.draw`, `Boxes.target` and `cover_until` amount to."""
    first, here = _begin(keys, active, batch, steps, OFFSETS, HERE, COUNT, STEPS)
    target = low + ((((mix(first) >> 32) & _LOW) * span) >> 32)
    left = tl.where(here, target, 0).to(tl.int32)
    out += tl.program_id(0).to(tl.int64) * rows * 4
    row, bit = tl.arange(0, R), tl.arange(0, 32)
    column = tl.arange(0, W * 32)
    covered = tl.zeros((R, W), tl.int32)
    last = rows - 2  # the box that covers what is left
    k = rows * 0
    while (k <= last) & (left > 0):
        word0, word1 = mix(first + 1 + 2 * k), mix(first + 2 + 2 * k)
        start0, extent0 = _side(word0, least0, span0, cells0, height, PLACEMENT, ALIGN[0])
        start1, extent1 = _side(word1, least1, span1, cells1, width, PLACEMENT, ALIGN[1])
        if k == last:
            start0, extent0 = (((word0 & _LOW) * height) >> 32).to(tl.int32), extent0 * 0 + height
            start1, extent1 = (((word1 & _LOW) * width) >> 32).to(tl.int32), extent1 * 0 + width
        offset = tl.where(row < start0, row - start0 + height, row - start0)
        inside = (offset < extent0) & (row < height)
        over = start1 + extent1 - width
        columns = _interval(start1, tl.minimum(start1 + extent1, width), W) | _interval(0, over, W)
        new = tl.where(inside[:, None], columns[None, :], 0) & ~covered
        counts = tl.sum(_popcount(new), axis=1)
        added = tl.sum(counts, axis=0)
        cuts = added >= left
        if WHOLE:
            cuts = cuts & (k == last)
        if cuts:
            line, rest = _locate(counts, row, start0, left)
            words = tl.sum(tl.where((row == line)[:, None], new, 0), axis=0)
            bits = tl.reshape((words[:, None] >> bit[None, :]) & 1, (W * 32,))
            place, rest = _locate(bits, column, start1, rest)
            line = tl.where(line < start0, line - start0 + height, line - start0)
            kept = line * extent1 + tl.where(place < start1, place - start1 + width, place - start1) + 1
            line = kept // extent1
            _store(out + 4 * k, start0, start1, line, extent1)
            below = tl.where(start0 + line >= height, start0 + line - height, start0 + line)
            _store(out + 4 * k + 4, below, start1, line * 0 + 1, kept - line * extent1)
            left = left * 0
            k += 2
        else:
            _store(out + 4 * k, start0, start1, extent0, extent1)
            covered |= new
            left -= added
            k += 1
    number = tl.arange(0, N)
    tl.store(out + number, tl.zeros((N,), tl.int32), mask=(number >= 4 * k) & (number < 4 * rows))
