"""From a plan to pixels: the steps in their order, each seeing what the earlier ones left."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gmml_aug.backends.cpu.rectangles import Pieces, cut_at_borders
from gmml_aug.functional import column, in_format_of, like
from gmml_aug.places.base import place_mask
from gmml_aug.plan import Plan
from gmml_aug.program import Program, Scene, pixels_by

_GROUP_BYTES = 4 << 20  # of images at a time on the CPU: what stays in its caches
_KEPT_BYTES = 16 << 20  # of pages that the allocator keeps between the buffers of a call


class Bounds(NamedTuple):
    """What a caller says about where: (B or 1, 1, *S) bool each, or None.

    Attributes:
        allowed: nothing happens outside.
        forced: what the first step that works on an image does there too, whatever its boxes say.
    """

    allowed: Tensor | None = None
    forced: Tensor | None = None

    def of(self, part: slice) -> Bounds:
        """Those of a part of the batch."""
        return Bounds(*(one if one is None or len(one) == 1 else one[part] for one in self))


def step_mask(program: Program, plan: Plan, number: int, places: dict[int, Tensor], bounds: Bounds) -> Tensor:
    """(B, 1, *S) bool where a step works; ``places`` keeps the masks of places for the steps that share them."""
    place = program.steps[number].place
    where, cell = program.places[place], program.cell_at(place)
    invert = where is not None and where.invert
    boxes, alone = plan.boxes[place], not invert and len(program.steps_at(place)) == 1
    if alone:  # a mask of boxes without size is cheaper than the and of two masks
        boxes = boxes.masked_fill(~column(plan.active[:, number], 3), 0)
    if place not in places:
        places[place] = place_mask(boxes, plan.shape[1:], cell=cell, invert=invert)
    mask = places[place]
    active = column(plan.active[:, number], mask.ndim)
    if not alone:
        mask = mask & active
    if bounds.forced is not None:
        earlier = plan.active[:, :number].any(1) if number else torch.zeros_like(plan.active[:, 0])
        mask = mask | (bounds.forced & active & ~column(earlier, mask.ndim))
    return mask if bounds.allowed is None else mask & bounds.allowed


def paint(program: Program, images: Tensor, donors: Tensor, plan: Plan, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """All images at once, out of place: differentiable, one graph, nothing that waits for the device."""
    now = images
    mask = torch.zeros(images.shape[0], 1, *images.shape[2:], dtype=torch.bool, device=images.device)
    places: dict[int, Tensor] = {}
    for number, step in enumerate(program.steps):
        here = step_mask(program, plan, number, places, bounds)
        scene = Scene(now, images, donors, here, program.values, compact=False)
        now = torch.where(here, like(pixels_by(step.fill, scene, plan.drawn[number]), now), now)
        mask = mask | here
    return (now.clone() if now is images else in_format_of(images, now)), mask


def paint_in_groups(program: Program, out: Tensor, clean: Tensor, donors: Tensor, plan: Plan, bounds: Bounds) -> Tensor:
    """A few images at a time, in place in ``out``: for the CPU.

    Steps that work on none of them, and boxes without size, cost nothing.
    """
    # a freed block of this size tells glibc to keep pages instead of asking for fresh ones at every buffer (a third of the time)
    torch.empty(_KEPT_BYTES, dtype=torch.uint8, device=clean.device)
    batch, size = len(clean), clean.shape[2:]
    mask = torch.zeros(batch, 1, *size, dtype=torch.bool, device=clean.device)
    in_place = out.data_ptr() == clean.data_ptr()
    group = min(batch, max(1, _GROUP_BYTES // (clean[0].numel() * max(clean.element_size(), 4))))
    works = plan.active.t().tolist()
    pieces = _pieces(program, plan, works, bounds)
    for low in range(0, batch, group):
        part = slice(low, low + group)
        now, touched, limits = out[part], mask[part], bounds.of(part)
        before = clean[part].clone() if in_place else clean[part]
        now.copy_(before)
        some: Plan | None = None
        places: dict[int, Tensor] = {}
        for number, step in enumerate(program.steps):
            everywhere = pieces[number]
            few = None if everywhere is None else everywhere.between(low, low + group)
            if not any(works[number][part]) or (few is not None and not few.image):
                continue
            if few is not None:
                here = few.mask(len(now), size)
            else:
                some = some or _without_empty_boxes(plan[part])
                here = step_mask(program, some, number, places, limits)
            scene = Scene(now, before, donors, here, program.values, compact=True, pieces=few)
            step.fill.put(scene, tuple(one[part] for one in plan.drawn[number]))
            touched |= here
    return mask


def _pieces(program: Program, plan: Plan, works: Sequence[Sequence[bool]], bounds: Bounds) -> list[Pieces | None]:
    """Those of every step; None where a mask of every pixel is cheaper, or needed."""
    places = program.places
    whole = [where is not None and (where.invert or program.cell_at(place) > 1) for place, where in enumerate(places)]
    if bounds != Bounds() or all(whole):
        return [None] * len(program.steps)
    found = cut_at_borders([boxes[:, :0] if no else boxes for boxes, no in zip(plan.boxes, whole, strict=True)], plan.shape[1:])
    pieces: list[Pieces | None] = []
    for number, step in enumerate(program.steps):
        some = None if whole[step.place] else found[step.place]
        pieces.append(some if some is None or all(works[number]) else some.where(works[number]))
    return pieces


def _without_empty_boxes(plan: Plan) -> Plan:
    dims = len(plan.shape) - 1
    kept = []
    for boxes in plan.boxes:
        used = (boxes[:, :, dims] > 0).any(0).nonzero()
        kept.append(boxes[:, : int(used[-1]) + 1 if len(used) else 0])
    return dataclasses.replace(plan, boxes=tuple(kept))
