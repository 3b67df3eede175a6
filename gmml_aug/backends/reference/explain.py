"""Explains why a pixel of a plan looks as it does: the gates and boxes of every step, and the boxes that a ratio or budget cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gmml_aug.backends.call import Maps
from gmml_aug.backends.reference.paint import step_mask
from gmml_aug.backends.reference.plan import place_boxes, place_words
from gmml_aug.chance import GATES, stream, to_uniform, words
from gmml_aug.places.base import along_shared
from gmml_aug.plan import Plan
from gmml_aug.program import Program

Box = tuple[tuple[int, ...], tuple[int, ...]]  # starts, sizes


class Touch(NamedTuple):
    """The effect of one step on one pixel.

    Attributes:
        step: the number of the step, from 1, as in `Corruption.kinds`.
        fill: the name of its fill.
        touched: True if it changed the pixel, or was allowed to.
        box: (starts, sizes) of the box that covers the pixel, or that covered it before it was cut; None if no box does.
        gates: (drawn number, low, high) of each gate; the step works on the image if all numbers lie in low <= u < high.
        why: the reason, in words.
    """

    step: int
    fill: str
    touched: bool
    box: Box | None
    gates: tuple[tuple[float, float, float], ...]
    why: str

    def __str__(self) -> str:
        """A sentence."""
        return f"step {self.step}, {self.fill}: {self.why}"


def explain(program: Program, plan: Plan, pixel: Sequence[int]) -> list[Touch]:
    """Explain every step of a plan for one pixel of an image."""
    uniform = to_uniform(words(stream(plan.keys, GATES), program.gates))[0].tolist() if program.gates else []
    found, places = [], dict[int, Tensor]()
    for number, step in enumerate(program.steps):
        gates = tuple((uniform[gate.draw], gate.low, gate.high) for gate in step.gates)
        touched = bool(step_mask(program, plan, number, places, Maps())[(0, 0, *pixel)])
        box, why = _why(program, plan, number, pixel, touched, all(low <= u < high for u, low, high in gates))
        found.append(Touch(number + 1, program.names[number], touched, box, gates, why))
    return found


def _why(program: Program, plan: Plan, number: int, pixel: Sequence[int], touched: bool, opened: bool) -> tuple[Box | None, str]:
    place = program.steps[number].place
    where, boxes = program.places[place], plan.boxes[place]
    if not opened:
        return None, "not on this image: a gate (p, or the choice of OneOf) is closed"
    if not bool(plan.active[0, number]):
        return None, "not on this image: the fill cannot change images of this shape, or the step was left out"
    if where is None:
        return None, "on the whole image" if touched else "beyond the valid part of the image"
    if boxes.dtype == torch.bool:
        return None, f"{'in' if touched else 'not in'} the shape of {type(where).__name__}"
    box = _covering(boxes[0], pixel, plan.shape[1:])
    if where.invert:
        return box, "outside of all boxes" if touched else f"spared, in the box {_said(box)}"
    if touched:
        return box, f"in the box {_said(box)}"
    again = place_boxes(program, plan.keys, plan.active, plan.shape[1:])[place]
    same = torch.equal(again, boxes)  # no share or length was given
    cut = _covering(_drawn(program, plan, place), pixel, plan.shape[1:]) if same else None
    if cut is None:
        return None, "not in its boxes"
    budgets = program.budgets_at(place)
    limits = f" or a budget ({', '.join(str(program.budgets[budget]) for budget in budgets)})" if budgets else ""
    return cut, f"cut off: the box {_said(cut)} was drawn, but the ratio{limits} was reached before this pixel"


def _drawn(program: Program, plan: Plan, place: int) -> Tensor:
    """(N, 2 D) boxes as they were drawn, before any stop or trim."""
    sizes, word = place_words(program, plan.keys, plan.shape[1:])
    where = program.places[place]
    assert where is not None
    boxes = where.draw(word[place], sizes[place])
    if where.target(word[place], sizes[place]) is not None and boxes.shape[1] > 1:
        boxes = boxes[:, :-1]  # the last one, as large as the image, is there for what chance left over
    return along_shared(boxes, where, plan.shape[1:])[0]


def _covering(boxes: Tensor, pixel: Sequence[int], size: Sequence[int]) -> Box | None:
    """The first box over a pixel."""
    dims = len(size)
    for row in boxes.tolist():
        start, extent = row[:dims], row[dims:]
        if math.prod(extent) and all((at - s) % side < e for at, s, e, side in zip(pixel, start, extent, size, strict=True)):
            return tuple(start), tuple(extent)
    return None


def _said(box: Box | None) -> str:
    return "" if box is None else f"at {box[0]} of size {box[1]}"
