"""From keys to a plan: which steps work on which image, where, and what their fills draw."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gmml_aug.backends.reference.plan import open_steps, place_boxes
from gmml_aug.chance import Chance, first_words
from gmml_aug.plan import Plan
from gmml_aug.program import Program, drawn_by


def decide(
    program: Program, keys: Tensor, shape: Sequence[int], works: Sequence[bool], *, donors: int, own: bool, fuse: bool
) -> Plan:
    """The plan that follows from the keys.

    Args:
        program: the flat program.
        keys: (B,) int64.
        shape: (B, C, *S).
        works: per step, False where it cannot change images of this shape.
        donors: number of images a donor is chosen from.
        own: True if they are the batch itself.
        fuse: by the kernels of `fused_plan`, where they know the program; the plan is the same.
    """
    size = shape[2:]
    if fuse:
        from gmml_aug.backends.triton import plan as fused_plan

        fuse = fused_plan.supports(program, size)
    if fuse:
        active, boxes, streams = fused_plan.sample(program, keys, works, size)
    else:
        active = open_steps(program, keys, works)
        boxes = place_boxes(program, keys, active, size)
        streams = first_words(keys, range(2, len(program.steps) + 2))
    chances = [Chance(keys, n + 2, shape, donors, own, hashed=stream) for n, stream in enumerate(streams)]
    return Plan(
        keys=keys,
        boxes=boxes,
        active=active,
        drawn=tuple(drawn_by(step.fill, chance) for step, chance in zip(program.steps, chances, strict=True)),
        steps=program.names,
        shape=tuple(shape[1:]),
        donors=donors,
        bank=not own,
        fingerprint=program.fingerprint,
    )
