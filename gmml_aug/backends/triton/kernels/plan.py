# mypy: ignore-errors
# ruff: noqa: N803
# Triton is optional and its language is no Python that mypy can follow.
"""The Triton kernel of `gmml_aug.backends.triton.plan`; imported only when it is first used.

Legend: a program is one warp and handles one place of an image, or all places of an image that share a budget. It follows the
rule of `cover`: boxes one after the other, until enough is covered.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gmml_aug import chance
from gmml_aug.backends.triton.kernels.bits import interval
from gmml_aug.backends.triton.kernels.cover import AT_FIRST_ROW, AT_INVERT, AT_OFFSET, AT_ROWS, AT_STEPS, AT_WIDTH, high, settle
from gmml_aug.backends.triton.kernels.cover import FIELDS as FIELDS  # what the table of places is made of
from gmml_aug.backends.triton.kernels.paint import mix

_GATES, _BOXES = (tl.constexpr(chance.mix_int(number + 1)) for number in (chance.GATES, chance.BOXES))

# what a step draws
NOTHING, KEY, DONOR, SHIFT, DONOR_SHIFT, COLOUR_DRAWN, GAUSSIAN = (tl.constexpr(law) for law in range(7))


@triton.jit
def _uniform(word):
    return ((word >> 40) & 0xFFFFFF).to(tl.float32) * 0.000000059604644775390625


@triton.jit
def _passes(gates, STEPS: tl.constexpr, GATES: tl.constexpr, n: tl.constexpr):
    """1 if all gates of step n are open, else 0."""
    first: tl.constexpr = STEPS[n][1]
    count: tl.constexpr = STEPS[n][2]  # Triton 3.4 loops over what has this annotation alone
    own = (gates == gates).to(tl.int32) * STEPS[n][0]  # 0: cannot work on images of this shape
    for g in tl.static_range(count):
        uniform = _uniform(mix(gates + GATES[first + g][0]))
        own = own * ((uniform >= GATES[first + g][1]) & (uniform < GATES[first + g][2])).to(tl.int32)
    return own


@triton.jit
def _open(key, STEPS: tl.constexpr, GATES: tl.constexpr, COUNT: tl.constexpr):
    """Bits; bit n is set if all gates of step n are open."""
    gates = mix(key + _GATES)
    opened = (key * 0).to(tl.int32)
    for n in tl.static_range(COUNT):
        opened |= _passes(gates, STEPS, GATES, n) << n
    return opened


@triton.jit
def _shift(word, out, image, height, width):
    """Write the shift that moves the content of an image, drawn as one number, as two values at ``out``."""
    pixels = (word * 0 + height) * width  # a side of 1 is a constant when this is compiled, and no tensor
    rest = 1 + ((high(word) * tl.maximum(pixels - 1, 1)) >> 32)
    tl.store(out + image * 2, rest // width % height)
    tl.store(out + image * 2 + 1, rest % width)


@triton.jit
def _draw(
    key, numbers, floats, image, batch, donors, height, width, STEPS: tl.constexpr, n: tl.constexpr, C: tl.constexpr,
    FROM_BATCH: tl.constexpr,
):  # fmt: skip
    """Write what a step draws to the start of its section of the numbers or floats."""
    law: tl.constexpr = STEPS[n][4]
    own = mix(key + STEPS[n][3])
    here = numbers + STEPS[n][5] * batch
    if law == KEY:
        tl.store(here + image, own)
    if (law == DONOR) | (law == DONOR_SHIFT):
        half = high(mix(own))
        if FROM_BATCH:
            other = image + 1 + ((half * tl.maximum(donors - 1, 1)) >> 32)
            chosen = tl.where(other >= donors, other - donors, other)
        else:
            chosen = (half * donors) >> 32
        tl.store(here + image, chosen)
    if law == SHIFT:
        _shift(mix(own), here, image, height, width)
    if law == DONOR_SHIFT:
        _shift(mix(own + 1), here + batch, image, height, width)
    if law == COLOUR_DRAWN:
        for c in tl.static_range(C):
            tl.store(floats + STEPS[n][6] * batch + image * C + c, _uniform(mix(own + c)) * STEPS[n][8] + STEPS[n][7])
    if law == GAUSSIAN:
        tl.store(floats + STEPS[n][6] * batch + image, _uniform(mix(own)) * STEPS[n][8] + STEPS[n][7])
        tl.store(here + image, STEPS[n][9] + 2 * ((high(mix(own + 1)) * STEPS[n][10]) >> 32))


@triton.jit
def make_plan(
    keys, active, boxes, bits, flags, numbers, floats, taken, used, table, groups, budgets,
    batch, donors, height, width, words, tiles, places,
    STEPS: tl.constexpr, GATES: tl.constexpr, COUNT: tl.constexpr, C: tl.constexpr, FROM_BATCH: tl.constexpr,
    BUDGETS: tl.constexpr, GROUPS: tl.constexpr, L: tl.constexpr, W: tl.constexpr, R: tl.constexpr, Z: tl.constexpr,
):  # fmt: skip
    """Make all random decisions (gates, draws, boxes, and the bits of the boxes) for an image and a group of places."""
    image, group = tl.program_id(0), tl.program_id(1)
    key = tl.load(keys + image)
    opened = _open(key, STEPS, GATES, COUNT)
    if group == 0:
        for n in tl.static_range(COUNT):
            tl.store(active + image * COUNT + n, ((opened >> n) & 1).to(tl.uint8))
            _draw(key, numbers, floats, image, batch, donors, height, width, STEPS, n, C, FROM_BATCH)
    first, wide, z = mix(key + _BOXES), image.to(tl.int64), tl.arange(0, Z)
    for entry in range(tl.load(groups + group), tl.load(groups + group + 1)):
        place = tl.load(groups + GROUPS + 1 + entry)
        about, own = table + place * AT_WIDTH, bits + (wide * places + place) * height * words
        marks = flags + (wide * places + place) * tiles
        for at in range(0, height * words, Z):
            tl.store(own + at + z, tl.zeros((Z,), tl.int32), mask=at + z < height * words)
        for at in range(0, tiles, Z):
            tl.store(marks + at + z, tl.zeros((Z,), tl.int32), mask=at + z < tiles)
        tl.debug_barrier()
        here = (opened & tl.load(about + AT_STEPS)) != 0
        out = boxes + (tl.load(about + AT_FIRST_ROW) * batch + wide * tl.load(about + AT_ROWS)) * 4
        settle(
            first + tl.load(about + AT_OFFSET), here, opened, about, out, own, marks, taken + wide * BUDGETS * height * words,
            used + wide * 2 * BUDGETS, budgets, height, width, words, BUDGETS, L, W, R, Z,
        )  # fmt: skip
        if tl.load(about + AT_INVERT) != 0:  # everything but the boxes: every tile may have some of it
            tl.debug_barrier()
            for at in range(0, height * words, Z):
                word = at + z
                every = interval(0, width, word % words)
                outside = tl.where(here, ~tl.load(own + word, mask=word < height * words, other=-1) & every, 0)
                tl.store(own + word, outside, mask=word < height * words)
            for at in range(0, tiles, Z):
                tl.store(marks + at + z, tl.zeros((Z,), tl.int32) - 1, mask=at + z < tiles)
