"""From a plan to pixels: the steps in their order, each seeing what the earlier ones left."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from gmml_aug.functional import column, in_format_of, like
from gmml_aug.plan import Plan
from gmml_aug.program import Program, Scene, Windows
from gmml_aug.where import place_mask

_GROUP_BYTES = 2 << 20  # of images at a time on the CPU: what stays in its caches
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


def step_mask(
    program: Program, plan: Plan, number: int, places: dict[int, Tensor], bounds: Bounds, *, compact: bool = False
) -> Tensor:
    """(B, 1, *S) bool where a step works; ``places`` keeps the masks of places for the steps that share them."""
    place = program.steps[number].place
    if place not in places:
        where, cell = program.places[place], program.cell_at(place)
        invert = where is not None and where.invert
        places[place] = place_mask(plan.boxes[place], plan.shape[1:], cell=cell, invert=invert, compact=compact)
    active = column(plan.active[:, number], places[place].ndim)
    mask = places[place] & active
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
        now = torch.where(here, like(step.fill.pixels(scene, plan.drawn[number]), now), now)
        mask = mask | here
    return (now.clone() if now is images else in_format_of(images, now)), mask


def paint_in_groups(program: Program, out: Tensor, clean: Tensor, donors: Tensor, plan: Plan, bounds: Bounds) -> Tensor:
    """A few images at a time, in place in ``out``: for the CPU.

    Steps that work on none of them, and boxes without size, cost nothing.
    """
    # a freed block of this size tells glibc to keep pages instead of asking for fresh ones at every buffer (a third of the time)
    torch.empty(_KEPT_BYTES, dtype=torch.uint8, device=clean.device)
    mask = torch.zeros(len(clean), 1, *clean.shape[2:], dtype=torch.bool, device=clean.device)
    in_place = out.data_ptr() == clean.data_ptr()
    group = max(1, _GROUP_BYTES // (clean[0].numel() * max(clean.element_size(), 4)))
    for low in range(0, len(clean), group):
        part = slice(low, low + group)
        some, now, touched = _without_empty_boxes(plan[part]), out[part], mask[part]
        before = clean[part].clone() if in_place else clean[part]
        now.copy_(before)
        places: dict[int, Tensor] = {}
        limits = bounds.of(part)
        for number, step in enumerate(program.steps):
            where = program.places[step.place]
            empty = some.boxes[step.place].shape[1] == 0 and bounds.forced is None and not (where is not None and where.invert)
            if empty or not some.active[:, number].any():
                continue
            here = step_mask(program, some, number, places, limits, compact=True)
            plain = bounds == Bounds() and not (where is not None and where.invert)
            windows = _windows(some, step.place, number) if plain else None
            step.fill.put(Scene(now, before, donors, here, program.values, True, windows), some.drawn[number])
            touched |= here
    return mask


def _windows(plan: Plan, place: int, number: int) -> Windows:
    """The one box of each image at a place, if there is one and none of them wraps."""
    boxes, dims = plan.boxes[place], len(plan.shape) - 1
    if boxes.shape[1] != 1:
        return None
    found: list[tuple[slice, ...] | None] = []
    for (box,), active in zip(boxes.tolist(), plan.active[:, number].tolist(), strict=True):
        sides = [slice(start, start + size) for start, size in zip(box[:dims], box[dims:], strict=True)]
        if any(side.stop > length for side, length in zip(sides, plan.shape[1:], strict=True)):
            return None
        found.append(tuple(sides) if active and min(box[dims:]) > 0 else None)
    return found


def _without_empty_boxes(plan: Plan) -> Plan:
    dims = len(plan.shape) - 1
    kept = []
    for boxes in plan.boxes:
        used = (boxes[:, :, dims] > 0).any(0).nonzero()
        kept.append(boxes[:, : int(used[-1]) + 1 if len(used) else 0])
    return dataclasses.replace(plan, boxes=tuple(kept))
