"""What hypothesis draws: shapes of batches, boxes, whole compositions."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from hypothesis import assume
from hypothesis import strategies as st

import gmml_aug as ga
from gmml_aug.checks import like_clips
from gmml_aug.places.boxes import Placement
from gmml_aug.values import Values
from tests.own_places import Balls, Left

FILLS = [
    ga.Noise(),
    ga.Noise(distribution="matched", per="pixel"),
    ga.Zeros(),
    ga.Mean(),
    ga.Constant(value=1.0),
    ga.Shuffle(),
    ga.Alien(alone="skip"),
    ga.Alien(alone="skip", same_place=False),
    ga.Grey(),
    ga.Jitter(),
    ga.Blur(sigma=1.0, kernel=3),
]


@st.composite
def shapes(draw: st.DrawFn, *, most: int = 24_000, dims: int | None = None) -> tuple[int, ...]:
    """(B, C, *S) with 1 to 3 spatial axes, sides 1 to 300, B 1 to 64 and C 1 to 13, of at most ``most`` numbers."""
    axes = draw(st.integers(1, 3)) if dims is None else dims
    left = most
    size = []
    for _ in range(axes):
        side = draw(st.integers(1, min(300, left)))
        size.append(side)
        left //= side
    channels = draw(st.integers(1, max(1, min(13, left))))
    batch = draw(st.integers(1, max(1, min(64, left // channels))))
    shape = (batch, channels, *draw(st.permutations(size)))
    assume(not like_clips(shape))  # warned of, rightly: test_advice.py
    return shape


@st.composite
def any_boxes(draw: st.DrawFn, *, dims: int, align: int = 4) -> ga.Boxes:
    """Boxes of every kind, large enough that a slow painter can follow."""
    low = draw(st.floats(0.2 if dims == 3 else 0.08, 0.6))
    side = (low, draw(st.floats(low, 1.0)))
    placement: Placement = draw(st.sampled_from(get_args(Placement)))
    grid = draw(st.integers(1, align))
    if draw(st.booleans()):
        least = draw(st.integers(1, 4))
        count = (least, draw(st.integers(least, 6)))
        return ga.Boxes(count=count, side=side, align=grid, placement=placement, dims=dims)
    ratio = draw(st.sampled_from([0.0, 0.3, 0.8, 1.0]) | st.tuples(st.floats(0.0, 0.4), st.floats(0.4, 1.0)))
    return ga.Boxes(ratio=ratio, side=side, align=grid, overshoot=draw(st.booleans()), placement=placement, dims=dims)


@st.composite
def small_sizes(draw: st.DrawFn, *, dims: int, least: int = 1) -> tuple[int, ...]:
    """Spatial sizes of a few hundred pixels."""
    most = {1: 90, 2: 22, 3: 9}[dims]
    return tuple(draw(st.lists(st.integers(least, most), min_size=dims, max_size=dims)))


@st.composite
def trees(draw: st.DrawFn, dims: int, align: int, depth: int = 0, *, boxed: bool = False) -> ga.Corruption:
    """Any composition: chains with and without budgets, choices, boxes, fills with and without boxes."""
    budget = st.none() | st.floats(0.0, 1.0)
    kinds = ["fill"] if depth > 2 else ["fill", "chain", "chain", "one of"]
    if not boxed:
        kinds = ["boxes", "boxes", *kinds] if depth else ["chain"]
    kind = draw(st.sampled_from(kinds))
    if kind == "fill":
        return draw(st.sampled_from(FILLS))
    if kind == "boxes":
        fill = draw(trees(dims, align, depth + 1, boxed=True))
        return ga.InBoxes(draw(any_boxes(dims=dims, align=align)), fill, p=draw(st.sampled_from([1.0, 1.0, 0.5])))
    parts = draw(st.lists(trees(dims, align, depth + 1, boxed=boxed), min_size=1, max_size=3))
    if kind == "one of":
        return ga.OneOf(parts)
    return ga.Chain(parts, budget=draw(budget), dims=None if depth else dims)


EVERY_FILL: list[ga.Fill] = [
    *FILLS,
    ga.Noise(distribution="normal", per="pixel"),
    ga.Noise(distribution="uniform"),
    ga.Noise(distribution="matched"),
    ga.Constant(value=(-1.0, 1.0)),
    ga.Alien(alone="skip", same_place=False),
    ga.Mean(),
    ga.Shuffle(),
    ga.Jitter(),
]
RANGES: list[Values | None] = [None, "unit", ((0.4,), (0.3,))]


@st.composite
def every_place(draw: st.DrawFn, *, dims: int) -> ga.Place:
    """Any place there is, for images with sides of 4 pixels or more."""
    free = draw(st.integers(1, dims))
    shared = tuple(sorted(draw(st.permutations(range(dims)))[free:]))
    invert = draw(st.booleans())
    ratio = draw(st.sampled_from([0.0, 0.5, 1.0]) | st.tuples(st.floats(0.0, 0.4), st.floats(0.4, 1.0)))
    kinds = ["boxes", "boxes", "cells", "shape", *(["blocks"] if free == 2 else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "boxes":
        plain = draw(any_boxes(dims=dims))
        align = draw(edges(dims, 4)) if draw(st.booleans()) else plain.align
        whole = plain.ratio is not None and draw(st.booleans())
        return replace(plain, shared=shared, invert=invert, align=align, whole=whole)
    if kind == "cells":
        return ga.Cells(size=draw(edges(dims, 4)), ratio=ratio, shared=shared, invert=invert, dims=dims)
    if kind == "shape":
        left = Left(ratio=ratio, shared=shared, invert=invert, dims=dims)
        return draw(st.sampled_from([left, Balls(ratio=ratio, most=5, shared=shared, invert=invert, dims=dims)]))
    least = draw(st.integers(1, 6))
    return ga.Blocks(size=draw(edges(dims, 3)), ratio=ratio, least=least, attempts=8, shared=shared, invert=invert, dims=dims)


def edges(dims: int, most: int) -> st.SearchStrategy[int | tuple[int, ...]]:
    """The edge of a cell, one number or one per axis."""
    return st.integers(1, most) | st.tuples(*[st.integers(1, most)] * dims)


@st.composite
def every_tree(draw: st.DrawFn, *, dims: int) -> ga.Chain:
    """Any composition of everything there is, under a budget where one can be."""

    def branch(depth: int, boxed: bool) -> ga.Corruption:
        kinds = ["fill"] if depth > 2 else ["fill", "chain", "one of"]
        kind = draw(st.sampled_from(kinds if boxed or depth > 2 else ["boxes", "boxes", *kinds]))
        if kind == "fill":
            return draw(st.sampled_from(EVERY_FILL))
        if kind == "boxes":
            place, inside, p = draw(every_place(dims=dims)), branch(depth + 1, True), draw(st.sampled_from([1.0, 1.0, 0.5]))
            try:
                return ga.InBoxes(place, inside, p=p)
            except ValueError:  # a budget that this place cannot be under
                return ga.InBoxes(place, draw(st.sampled_from(EVERY_FILL)), p=p)
        parts = [branch(depth + 1, boxed) for _ in range(draw(st.integers(1, 3)))]
        if kind == "one of":
            return ga.OneOf(parts, weights=draw(st.none() | st.just(list(range(1, len(parts) + 1)))))
        return bounded(parts, draw(st.none() | st.floats(0.0, 1.0)))

    def bounded(parts: list[ga.Corruption], budget: float | None) -> ga.Chain:
        try:
            return ga.Chain(parts, budget=budget)
        except ValueError:  # a budget over what lies outside boxes, or over several kinds of bands
            return ga.Chain(parts)

    parts = [branch(1, False) for _ in range(draw(st.integers(1, 3)))]
    inner = bounded(parts, draw(st.none() | st.floats(0.0, 1.0)))
    return replace(inner, values=draw(st.sampled_from(RANGES)), dims=dims)
