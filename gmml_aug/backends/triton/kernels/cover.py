# mypy: ignore-errors
# ruff: noqa: N803, SIM108
# Triton is optional and its language is no Python that mypy can follow.
"""One place of an image in the kernel of `plan`: boxes one after the other, until enough is covered or a budget is used up.

Legend: the covered pixels are kept in memory as the bits described in `bits`, L lines of W words at a time; only this program
reads and writes them. How a place draws is described by a row of a table, so that one compiled kernel serves all places.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gmml_aug.backends.triton.kernels.bits import either, popcount, span_bits, touched_cells
from gmml_aug.backends.triton.kernels.paint import mix

_LOW = tl.constexpr(0xFFFFFFFF)

# the columns of the table of places, int64
FIELDS = (
    "offset", "low", "span", "most", "covers", "rows", "first_row", "placement", "overshoot", "invert",
    "least0", "values0", "corners0", "step0", "cell0", "least1", "values1", "corners1", "step1", "cell1",
    "steps", "budgets", "budget_count",
)  # fmt: skip
AT_WIDTH = tl.constexpr(len(FIELDS))
(
    AT_OFFSET, _AMOUNT, _SPAN, _MOST, _COVERS, AT_ROWS, AT_FIRST_ROW, _PLACEMENT, _OVERSHOOT, AT_INVERT,
    _AXIS0, _, _, _, _CELL0, _AXIS1, _, _, _, _CELL1, AT_STEPS, _BUDGETS, _BUDGET_COUNT,
) = (tl.constexpr(number) for number in range(len(FIELDS)))  # fmt: skip


@triton.jit
def high(word):
    """The upper 32 bits of a word."""
    return (word >> 32) & _LOW


@triton.jit
def _side(word, axis, length, placement):
    """`Boxes._axis`: start and extent along one axis, from a word; ``axis`` holds the columns of the table for this axis."""
    least, values, corners, step = tl.load(axis), tl.load(axis + 1), tl.load(axis + 2), tl.load(axis + 3)
    extent = least + ((high(word) * values) >> 32)
    start = word & _LOW
    if placement == 2:  # origin
        corner = (start * corners) >> 32
        if step > 1:
            extent = tl.maximum((extent + step // 2) // step * step, step)
            corner = corner // step * step
        extent = tl.minimum(extent, length - corner)
    else:
        if placement == 1:  # inside
            corner = (start * (corners - extent + 1)) >> 32
        else:
            corner = (start * corners) >> 32
        end = corner + extent
        end = tl.where(end > corners, (end - corners) * step + length, tl.minimum(end * step, length))
        corner = corner * step
        extent = end - corner
    return corner.to(tl.int32), extent.to(tl.int32)


@triton.jit
def _lines(start0, extent0, height, words, begin, L: tl.constexpr, W: tl.constexpr):
    """L lines of a box, from its line ``begin`` on: their numbers, their words (L, W) in the image, and which of them exist."""
    i, word = begin + tl.arange(0, L), tl.arange(0, W)
    line = start0 + i
    line = tl.where(line >= height, line - height, line)
    return line, line[:, None] * words + word[None, :], (i < extent0)[:, None] & (word < words)[None, :]


@triton.jit
def _until(
    own, other, start0, start1, extent0, extent1, height, width, words, wanted,
    OTHER: tl.constexpr, L: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """How many pixels a box newly covers, and how many it paints, in reading order, until ``wanted`` new ones are covered."""
    full = span_bits(start1, extent1, width, tl.arange(0, W))
    added, whole, rest = extent0 * 0, extent0, extent0 * 0
    for begin in range(0, extent0, L):
        line, at, real = _lines(start0, extent0, height, words, begin, L, W)
        before = tl.load(own + at, mask=real, other=-1)
        if OTHER:
            before |= tl.load(other + at, mask=real, other=-1)
        counts = tl.sum(popcount(full[None, :] & ~before), axis=1)
        total = added + tl.sum(counts, axis=0)
        if (added < wanted) & (total >= wanted):
            passed = tl.sum((added + tl.cumsum(counts, axis=0) < wanted).to(tl.int32), axis=0)
            whole = begin + passed
            rest = wanted - added - tl.sum(tl.where(tl.arange(0, L) < passed, counts, 0), axis=0)
        added = total
    kept = extent0 * extent1
    if added >= wanted:  # the column of the line where the last wanted pixel lies, counted from the box's first one
        line = tl.where(start0 + whole >= height, start0 + whole - height, start0 + whole)
        word = tl.arange(0, W)
        before = tl.load(own + line * words + word, mask=word < words, other=-1)
        if OTHER:
            before |= tl.load(other + line * words + word, mask=word < words, other=-1)
        flat = tl.reshape(((full & ~before)[:, None] >> tl.arange(0, 32)[None, :]) & 1, (W * 32,))
        column = tl.arange(0, W * 32)
        ahead = tl.cumsum(flat, axis=0)
        over = tl.sum(tl.where(column < start1, flat, 0), axis=0)
        ahead = tl.where(column < start1, ahead + (tl.sum(flat, axis=0) - over), ahead - over)
        found = tl.sum(tl.where((flat != 0) & (ahead == rest), column, 0), axis=0)
        kept = whole * extent1 + tl.where(found < start1, found - start1 + width, found - start1) + 1
    return added, kept


@triton.jit
def _put(own, tiles, start0, start1, extent0, extent1, height, width, words, L: tl.constexpr, W: tl.constexpr, R: tl.constexpr):
    """Set the bits of a box, and the flags of the tiles that it overlaps."""
    full = span_bits(start1, extent1, width, tl.arange(0, W))
    hit = tl.reduce(tl.where(full != 0, (full * 0 + 1) << (tl.arange(0, W) % 32), 0), 0, either)
    for begin in range(0, extent0, L):
        line, at, real = _lines(start0, extent0, height, words, begin, L, W)
        real = real & (full != 0)[None, :]
        tl.store(own + at, tl.load(own + at, mask=real, other=0) | full[None, :], mask=real)
        tl.atomic_or(tiles + line // R, line * 0 + hit, mask=begin + tl.arange(0, L) < extent0, sem="relaxed")
    tl.debug_barrier()  # what comes next reads these


@triton.jit
def _row(row, start0, start1, extent0, extent1):
    """Write a box to the plan, as zeros if it has no size."""
    real = ((extent0 > 0) & (extent1 > 0)).to(tl.int32)
    tl.store(row, start0 * real)
    tl.store(row + 1, start1 * real)
    tl.store(row + 2, extent0 * real)
    tl.store(row + 3, extent1 * real)


@triton.jit
def _piece(
    own, tiles, row, about, start0, start1, extent0, extent1, height, width, words,
    L: tl.constexpr, W: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Write a part of a cut box to the plan, and paint all cells of the grid that it touches."""
    _row(row, start0, start1, extent0, extent1)
    if (extent0 > 0) & (extent1 > 0):
        start0, extent0 = touched_cells(start0, extent0, tl.load(about + _CELL0).to(tl.int32), height)
        start1, extent1 = touched_cells(start1, extent1, tl.load(about + _CELL1).to(tl.int32), width)
        _put(own, tiles, start0, start1, extent0, extent1, height, width, words, L, W, R)


@triton.jit
def _budget(about, b):
    """A budget that counts steps of a place: its number, the bits of these steps, and the number of pixels that it allows."""
    number, steps, limit = tl.load(about + 3 * b), tl.load(about + 3 * b + 1), tl.load(about + 3 * b + 2)
    return number.to(tl.int32), steps, limit.to(tl.int32)


@triton.jit
def settle(
    first, here, opened, about, out, own, tiles, taken, used, budgets, height, width, words,
    BUDGETS: tl.constexpr, L: tl.constexpr, W: tl.constexpr, R: tl.constexpr, Z: tl.constexpr,
):  # fmt: skip
    """Draw the boxes of one place in one image, and their bits; ``first`` is the hashed key plus the offset of the place."""
    most, covers, placement = tl.load(about + _MOST), tl.load(about + _COVERS), tl.load(about + _PLACEMENT)
    amount = tl.load(about + _AMOUNT)
    word = mix(first)
    half = tl.where(covers != 0, high(word), word & _LOW)
    amount += (half * tl.load(about + _SPAN)) >> 32
    left = amount.to(tl.int32)  # still to be covered
    boxes = tl.where(covers != 0, most + 1, tl.minimum(most, amount)).to(tl.int32)
    going = here & ((covers == 0) | (left > 0))
    count, about_budgets = (most * 0).to(tl.int32), budgets
    if BUDGETS > 0:
        count, about_budgets = tl.load(about + _BUDGET_COUNT).to(tl.int32), budgets + 3 * tl.load(about + _BUDGETS)
        for b in range(count):
            number, steps, limit = _budget(about_budgets, b)
            if opened & steps != 0:
                tl.store(used + BUDGETS + number, 0)  # what this place has taken of it so far
                going = going & (tl.load(used + number) < limit)
        tl.debug_barrier()
    k = boxes * 0  # the next box, and the next row of the plan: a box that is cut is the last one
    row = boxes * 0
    while going & (k < boxes):
        word0, word1 = mix(first + 1 + 2 * k), mix(first + 2 + 2 * k)
        if (covers != 0) & (k == most):  # what chance left over
            start0, extent0 = (((word0 & _LOW) * height) >> 32).to(tl.int32), k * 0 + height
            start1, extent1 = (((word1 & _LOW) * width) >> 32).to(tl.int32), k * 0 + width
        else:
            start0, extent0 = _side(word0, about + _AXIS0, height, placement)
            start1, extent1 = _side(word1, about + _AXIS1, width, placement)
        kept, ended = extent0 * extent1, k < 0
        if covers != 0:
            added, until = _until(own, own, start0, start1, extent0, extent1, height, width, words, left, False, L, W)
            if added >= left:
                ended = k >= 0
                if (tl.load(about + _OVERSHOOT) == 0) | (k == most):
                    kept = until
            left -= added
        if BUDGETS > 0:
            for b in range(count):
                number, steps, limit = _budget(about_budgets, b)
                if opened & steps != 0:
                    spent = tl.load(used + BUDGETS + number)
                    room = limit - tl.load(used + number) - spent
                    added, until = _until(
                        own, taken + number * height * words, start0, start1, extent0, extent1, height, width, words, room, True,
                        L, W,
                    )  # fmt: skip
                    if added >= room:
                        ended, kept = k >= 0, tl.minimum(kept, until)
                    tl.store(used + BUDGETS + number, spent + added)
        if ended:
            lines = kept // extent1
            below = tl.where(start0 + lines >= height, start0 + lines - height, start0 + lines)
            tl.debug_barrier()
            _piece(own, tiles, out + 4 * row, about, start0, start1, lines, extent1, height, width, words, L, W, R)
            _piece(
                own, tiles, out + 4 * row + 4, about, below, start1, lines * 0 + 1, kept - lines * extent1, height, width, words,
                L, W, R,
            )  # fmt: skip
            going = k < 0
            row += 2
        else:
            _row(out + 4 * row, start0, start1, extent0, extent1)
            tl.debug_barrier()
            _put(own, tiles, start0, start1, extent0, extent1, height, width, words, L, W, R)
            row += 1
        k += 1
    z = tl.arange(0, Z)
    rows = tl.load(about + AT_ROWS).to(tl.int32)
    for unused in range(4 * row, 4 * rows, Z):
        tl.store(out + unused + z, tl.zeros((Z,), tl.int32), mask=unused + z < 4 * rows)
    if BUDGETS > 0:  # what the place covers counts for the places that follow
        for b in range(count):
            number, steps, limit = _budget(about_budgets, b)
            if opened & steps != 0:
                new = (limit * 0).to(tl.int32)
                for at in range(0, height * words, Z):
                    real = at + z < height * words
                    other = taken + number * height * words + at + z
                    mine, theirs = tl.load(own + at + z, mask=real, other=0), tl.load(other, mask=real, other=0)
                    new += tl.sum(popcount(mine & ~theirs), axis=0)
                    tl.store(other, mine | theirs, mask=real)
                new += tl.load(used + number)
                tl.debug_barrier()
                tl.store(used + number, new)
        tl.debug_barrier()
