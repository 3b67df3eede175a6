"""From keys to boxes: which steps work on which image, and where, after stops, trims and budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gmml_aug.backends.cpu.sequential import settle_serially
from gmml_aug.backends.reference.coverage import Room, settle
from gmml_aug.chance import stream, to_uniform, words
from gmml_aug.functional import column
from gmml_aug.places.base import Where, along_shared, free_axes
from gmml_aug.program import Program

# On the CPU few images at a time, so that the grids of box edges stay in its caches; and at first only the first boxes: most
# images need no more, and the grid grows with the square of their number.
_GROUP_CELLS = 1 << 17
_PARTS = (5, 2, 1)
_SERIAL, _AN_IMAGE = 250_000, 2_000  # of pixels: so few are painted one box after the other; an image counts as these more


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
    steps = [program.steps_at(number) for number in range(len(program.places))]
    here = [active[:, some].any(1) if len(some) > 1 else active[:, some[0]] for some in steps]
    takers = [_takers(program, active, some) for some in steps]
    placed: dict[int, Tensor] = {}
    alike: dict[int, list[int]] = {}
    for number, first in enumerate(program.twins):
        if not takers[number]:
            alike.setdefault(first, []).append(number)
    for first, numbers in alike.items():  # equal places that no budget ties to others are settled together, as one larger batch
        where, inner = program.places[first], sizes[first]
        drawn, target = _draw(where, _join([word[n] for n in numbers]), _join([keys] * len(numbers)), inner)
        settled = _settle(drawn, inner, target, [], _join([here[n] for n in numbers]), whole=where is not None and where.overshoot)
        each = settled.reshape(len(numbers), keys.shape[0], *settled.shape[1:]).unbind(0)  # chunk() would fix the batch size
        for number, one in zip(numbers, each, strict=True):
            placed[number] = one
    for number, (where, inner) in enumerate(zip(program.places, sizes, strict=True)):
        if number in placed:
            continue
        rooms = []
        for budget, bound in takers[number].items():
            before = [n for n in range(number) if budget in takers[n]]
            earlier = [placed[n].masked_fill(~column(takers[n][budget], 3), 0) for n in before]
            taken = torch.cat(earlier, dim=1) if earlier else keys.new_zeros(keys.shape[0], 0, 2 * len(inner))
            rooms.append(Room(taken, math.floor(program.budgets[budget] * math.prod(inner) + 1e-6), bound))
        drawn, target = _draw(where, word[number], keys, inner)
        placed[number] = _settle(drawn, inner, target, rooms, here[number], whole=where is not None and where.overshoot)
    return tuple(
        (placed[number] if where is None else along_shared(placed[number], where, size)).to(torch.int32)
        for number, where in enumerate(program.places)
    )


def _takers(program: Program, active: Tensor, steps: Sequence[int]) -> dict[int, Tensor]:
    """Per budget, (B,) bool: the fill that an image has at this place replaces content, and so takes room."""
    takes: dict[int, Tensor] = {}
    for s in steps:
        if program.steps[s].fill.replaces:
            for budget in program.steps[s].budgets:
                takes[budget] = takes[budget] | active[:, s] if budget in takes else active[:, s]
    return takes


def _draw(where: Where | None, word: Tensor, keys: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Boxes before any stop, and the pixels to cover."""
    if where is not None:
        return where.draw(word, size), where.target(word, size)
    ends = torch.stack([torch.full_like(keys, length) for length in size], dim=1)
    return torch.cat([torch.zeros_like(ends), ends], dim=1)[:, None], None


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _settle(
    boxes: Tensor, size: Sequence[int], target: Tensor | None, rooms: Sequence[Room], here: Tensor, *, whole: bool
) -> Tensor:
    """`settle` for the images that are ``here``; the others get boxes without size."""
    if boxes.device.type != "cpu" or torch.compiler.is_compiling() or (target is None and not rooms):
        return settle(boxes, size, target, rooms, whole=whole)[0].masked_fill(~column(here, 3), 0)
    if target is not None and not rooms and boxes.shape[0] * (math.prod(size) + _AN_IMAGE) < _SERIAL:
        return settle_serially(boxes, size, target, here, whole=whole)
    done = torch.zeros(boxes.shape[0], boxes.shape[1] + len(size) - 1, boxes.shape[2], dtype=boxes.dtype, device=boxes.device)
    left = here.nonzero()[:, 0]
    if not left.shape[0]:
        return done
    everything = math.prod(min(2 * boxes.shape[1] + 1, length) for length in size) * left.shape[0]
    parts = _PARTS if everything > _GROUP_CELLS else (1,)  # few cells: what counts are the calls
    for first in sorted({-(-boxes.shape[1] // part) for part in parts}):
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
