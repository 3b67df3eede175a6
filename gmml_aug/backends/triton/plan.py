"""A plan by Triton kernels: one for the streams of all steps, one for each kind of boxes, instead of some hundred small ones.

The integers are those of the reference, every one. It takes compositions of `Boxes` on the two axes of images of up to
1024 x 1024 pixels, without budgets; any other one is sampled by torch, and is the same plan too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, get_args

import torch
from torch import Tensor

from gmml_aug.backends.call import Request
from gmml_aug.backends.reference import plan as reference
from gmml_aug.backends.reference.plan import finish
from gmml_aug.backends.triton.lower import plan_kernels
from gmml_aug.chance import AHEAD, FIRST_STEP, mix_int
from gmml_aug.places.boxes import Boxes, Placement
from gmml_aug.plan import Plan
from gmml_aug.program import Program

_IMAGES = 64  # in a program that hashes
_MOST_WORDS = 32 << 10  # 32 columns each, that a program holds of its image
_MOST_STEPS = 32


def plan(program: Program, request: Request) -> Plan:
    """All that chance decides: by kernels where they know all places of the program, else by the reference."""
    size, keys = request.shape[2:], request.keys.contiguous()
    if request.ratios is not None or request.lengths is not None or not knows(program, size):
        return reference.plan(program, request)
    with torch.cuda.device(keys.device) if keys.is_cuda else nullcontext():
        active, streams = _open(program, keys, request.working)
        places = _place(program, keys, active, size)
    return finish(program, request._replace(keys=keys), active, places, program.resolved, streams)


def knows(program: Program, size: Sequence[int]) -> bool:
    """True if the kernels know all places of the program."""
    budgeted = any(step.budgets for step in program.steps)
    plain = all(isinstance(place, Boxes) and not place.shared and not place.whole for place in program.places)
    if len(size) != 2 or budgeted or not plain or len(program.steps) > _MOST_STEPS:
        return False
    return math.prod(_tile(size)) <= _MOST_WORDS


def _open(program: Program, keys: Tensor, works: Sequence[bool]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    batch, count = len(keys), len(program.steps)
    active = torch.empty(batch, count, dtype=torch.bool, device=keys.device)
    streams = torch.empty(count, batch, dtype=torch.int64, device=keys.device)
    ahead = torch.empty(count, batch, AHEAD, dtype=torch.int64, device=keys.device)
    gates: list[tuple[int, float, float]] = []
    steps = []
    for number, (step, working) in enumerate(zip(program.steps, works, strict=True)):
        steps.append((int(working), len(gates), len(step.gates), mix_int(FIRST_STEP + number + 1)))
        gates.extend(step.gates)
    plan_kernels().draw_streams[(-(-batch // _IMAGES),)](
        keys, active.view(torch.uint8), streams, ahead, batch, STEPS=tuple(steps), GATES=tuple(map(tuple, gates)) or (0,),
        COUNT=count, AHEAD=AHEAD, N=_IMAGES, enable_fp_fusion=False,
    )  # fmt: skip
    return active, list(zip(streams.unbind(0), ahead.unbind(0), strict=True))


def _place(program: Program, keys: Tensor, active: Tensor, size: Sequence[int]) -> tuple[Tensor, ...]:
    """Equal places are settled together, as in the reference."""
    alike: dict[int, list[int]] = {}
    places = [place for place in program.places if isinstance(place, Boxes)]  # all of them, says `knows`
    offsets, offset = [], 0
    for number, place in enumerate(places):
        alike.setdefault(program.first_equal[number], []).append(number)
        offsets.append(offset)
        offset += place.words(size)
    placed: dict[int, Tensor] = {}
    for first, numbers in alike.items():
        place = places[first]
        rows = place.most + (place.ratio is not None) + 1
        out = torch.empty(len(numbers), len(keys), rows, 4, dtype=torch.int32, device=keys.device)
        masks = [sum(1 << step for step in program.steps_at[number]) for number in numbers]
        options: dict[str, Any] = {
            "OFFSETS": tuple(offsets[number] for number in numbers), "HERE": tuple(masks), "COUNT": len(numbers),
            "STEPS": len(program.steps), "PLACEMENT": get_args(Placement).index(place.placement), "ALIGN": place.steps,
        }  # fmt: skip
        kernel = plan_kernels().count_boxes
        if place.ratio is not None:
            kernel = plan_kernels().settle_boxes
            lines, words = _tile(size)
            options |= {"WHOLE": place.overshoot, "R": lines, "W": words, "num_warps": min(max(lines * words // 512, 1), 16)}
        kernel[(len(numbers) * len(keys),)](
            keys, active.view(torch.uint8), out, len(keys), len(program.steps), rows, *place.amount(size), *size,
            *place.sides(size[0], place.steps[0]), *place.sides(size[1], place.steps[1]), **options,
            N=_power(rows * (4 if place.ratio is not None else 1)), enable_fp_fusion=False,
        )  # fmt: skip
        placed |= dict(zip(numbers, out.unbind(0), strict=True))
    return tuple(placed[number] for number in range(len(program.places)))


def _tile(size: Sequence[int]) -> tuple[int, int]:
    """Rows and words of 32 columns, both padded to a power of two."""
    return _power(size[0]), _power(-(-size[1] // 32))


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()
