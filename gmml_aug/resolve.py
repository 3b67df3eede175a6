"""From keys to boxes: which steps work on which image, and where, after stops, trims and budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gmml_aug.chance import stream, to_uniform, words
from gmml_aug.cover import Room, settle
from gmml_aug.functional import column
from gmml_aug.program import Program
from gmml_aug.where import along_shared, free_axes

# On the CPU few images at a time, so that the grids of box edges stay in its caches; and at first only the first boxes: most
# images need no more, and the grid grows with the square of their number.
_GROUP_CELLS = 1 << 17
_PARTS = (5, 2, 1)


def open_steps(program: Program, keys: Tensor, works: Sequence[bool]) -> Tensor:
    """(B, steps) bool: which step works on which image.

    Args:
        program: the flat program.
        keys: (B,) int64.
        works: per step, False where it cannot change images of this shape.
    """
    uniform = to_uniform(words(stream(keys, 0), program.gates)) if program.gates else None
    columns = []
    for step, working in zip(program.steps, works, strict=True):
        opened = torch.full_like(keys, working, dtype=torch.bool)
        for gate in step.gates:
            assert uniform is not None
            opened = opened & (uniform[:, gate.draw] >= gate.low) & (uniform[:, gate.draw] < gate.high)
        columns.append(opened)
    return torch.stack(columns, dim=1)


def place_boxes(program: Program, keys: Tensor, active: Tensor, size: Sequence[int]) -> tuple[Tensor, ...]:
    """(B, N, 2 dims) int32 boxes of every place; without size where no step of the place works.

    Args:
        program: the flat program.
        keys: (B,) int64.
        active: (B, steps) from `open_steps`.
        size: the spatial sizes.
    """
    sizes = [list(size) if where is None else [size[d] for d in free_axes(where)] for where in program.places]
    counts = [0 if where is None else where.words(inner) for where, inner in zip(program.places, sizes, strict=True)]
    word = words(stream(keys, 1), sum(counts)).split(counts, dim=1)
    placed: list[Tensor] = []
    takers: list[dict[int, Tensor]] = []  # per place and budget, (B,) bool: its image's fill there replaces content
    for number, (boxes, inner) in enumerate(zip(program.places, sizes, strict=True)):
        steps = program.steps_at(number)
        takes: dict[int, Tensor] = {}
        for s in steps:
            if program.steps[s].fill.replaces:
                for budget in program.steps[s].budgets:
                    takes[budget] = takes[budget] | active[:, s] if budget in takes else active[:, s]
        rooms = []
        for budget, bound in takes.items():
            earlier = [b.masked_fill(~column(t[budget], 3), 0) for b, t in zip(placed, takers, strict=True) if budget in t]
            limit = math.floor(program.budgets[budget] * math.prod(inner) + 1e-6)
            rooms.append(
                Room(torch.cat(earlier, dim=1) if earlier else keys.new_zeros(keys.shape[0], 0, 2 * len(inner)), limit, bound)
            )
        if boxes is None:
            ends = torch.stack([torch.full_like(keys, length) for length in size], dim=1)
            drawn, target = torch.cat([torch.zeros_like(ends), ends], dim=1)[:, None], None
        else:
            drawn, target = boxes.draw(word[number], inner), boxes.target(word[number], inner)
        here = active[:, steps].any(1) if len(steps) > 1 else active[:, steps[0]]
        placed.append(_settle(drawn, inner, target, rooms, here, whole=boxes is not None and boxes.overshoot))
        takers.append(takes)
    whole = [b if w is None else along_shared(b, w, size) for b, w in zip(placed, program.places, strict=True)]
    return tuple(boxes.to(torch.int32) for boxes in whole)


def _settle(
    boxes: Tensor, size: Sequence[int], target: Tensor | None, rooms: Sequence[Room], here: Tensor, *, whole: bool
) -> Tensor:
    """`settle` for the images that are ``here``; the others get boxes without size."""
    if boxes.device.type != "cpu" or torch.compiler.is_compiling() or (target is None and not rooms):
        return settle(boxes, size, target, rooms, whole=whole)[0].masked_fill(~column(here, 3), 0)
    done = torch.zeros(boxes.shape[0], boxes.shape[1] + len(size) - 1, boxes.shape[2], dtype=boxes.dtype, device=boxes.device)
    left = here.nonzero()[:, 0]
    if not left.shape[0]:
        return done
    for first in sorted({-(-boxes.shape[1] // part) for part in _PARTS}):
        unfinished = []
        cells = math.prod(min(2 * first + 1, length) for length in size)
        for group in left.split(_GROUP_CELLS // cells + 1):
            some = [Room(room.taken[group], room.limit, room.bound[group]) for room in rooms]
            goal = None if target is None else target[group]
            settled, ended = settle(boxes[group, :first], size, goal, some, whole=whole, more=first < boxes.shape[1])
            done[group, : settled.shape[1]] = settled
            unfinished.append(group[~ended])
        left = torch.cat(unfinished)
        if not left.shape[0]:
            break
    return done
