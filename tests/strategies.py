"""What hypothesis draws: shapes of batches, boxes, whole compositions."""

from __future__ import annotations

from typing import get_args

from hypothesis import strategies as st

import gmml_aug as ga
from gmml_aug.boxes import Placement

FILLS = [ga.Noise(), ga.Zeros(), ga.Constant(value=1.0), ga.Alien(alone="skip"), ga.Grey(), ga.Blur(sigma=1.0, kernel=3)]


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
    return (batch, channels, *draw(st.permutations(size)))


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
