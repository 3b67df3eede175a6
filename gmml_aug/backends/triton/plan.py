"""Makes a plan, with the bits of its boxes, by one Triton kernel instead of about a hundred small ones.

Every integer equals that of the reference. It handles compositions of `Boxes` on the two axes of images of up to 1024 columns; all
others are sampled by torch, with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Final, NamedTuple, get_args

import torch
from torch import Tensor

from gmml_aug.backends.call import Request
from gmml_aug.backends.kept import Kept
from gmml_aug.backends.laws import DrawLaw, draw_law
from gmml_aug.backends.reference import plan as reference
from gmml_aug.backends.reference.plan import drawn_by
from gmml_aug.backends.triton.layout import tiling
from gmml_aug.backends.triton.lower import plan_kernels
from gmml_aug.backends.triton.marks import ROWS, empty_marks, keep
from gmml_aug.chance import FIRST_STEP, Chance, mix_int
from gmml_aug.ops import Convolve, Draw, Take, Tensors
from gmml_aug.places.base import TINY, Place
from gmml_aug.places.boxes import Boxes, Placement
from gmml_aug.plan import Plan
from gmml_aug.program import Program, Step

_WIDEST = 1024  # columns that a program counts at a time
_WORDS = 256  # of the lines of a box that it holds
_MOST_STEPS = 32


def plan(program: Program, request: Request) -> Plan:
    """Make all random decisions, with one kernel if it supports all places of the program, else with the reference."""
    size, keys = request.shape[2:], request.keys.contiguous()
    if request.ratios is not None or request.lengths is not None or not knows(program, size):
        return reference.plan(program, request)
    with torch.cuda.device(keys.device) if keys.is_cuda else nullcontext():
        return _prepare(program, request.shape[1:], request.working, request.from_batch, keys.device).plan(request, keys)


def knows(program: Program, size: Sequence[int]) -> bool:
    """True if the kernel supports all places of the program."""
    known = all(place is None or (isinstance(place, Boxes) and not place.shared and not place.whole) for place in program.places)
    return known and len(size) == 2 and size[1] <= _WIDEST and len(program.steps) <= _MOST_STEPS


class Section(NamedTuple):
    """The position of a tensor that a step draws in the table of numbers, or in that of floats if it is ``real``."""

    first: int
    tail: tuple[int, ...]  # its shape after the batch
    real: bool

    def of(self, rows: Tensor) -> Tensor:
        """The (B, *tail) tensor in a table of (rows, B)."""
        if not self.tail:
            return rows[self.first]
        return rows[self.first : self.first + math.prod(self.tail)].view(rows.shape[1], *self.tail)


class _Prepared:
    """The tables that the kernel plans a program from, for images of one shape on one device."""

    def __init__(
        self, program: Program, shape: Sequence[int], working: Sequence[bool], from_batch: bool, device: torch.device
    ) -> None:
        self.program = program
        size = shape[1:]
        self.tiling = tiling(size, ROWS)
        gates: list[tuple[int, float, float]] = []
        steps: list[tuple[Any, ...]] = []
        self.sections: list[tuple[Section, ...]] = []  # per step, of each tensor that it draws
        self.numbers = self.floats = 0
        for number, (step, works) in enumerate(zip(program.steps, working, strict=True)):
            stream = mix_int(FIRST_STEP + number + 1)
            steps.append((int(works), len(gates), len(step.gates), stream, *self._law(step, shape[0])))
            gates.extend(step.gates)
        self.asked = [number for number, step in enumerate(steps) if step[4] is None]
        rows, table, first_row, offset = [], [], 0, 0
        budgets: list[int] = []
        limits = [math.floor(share * math.prod(size) + TINY) for share in program.budgets]
        for number, where in enumerate(program.places):
            at = program.steps_at[number]
            counting = program.budgets_at(number)
            about = _about(where, size) | {
                "offset": offset, "first_row": first_row, "steps": sum(1 << step for step in at), "budgets": len(budgets) // 3,
                "budget_count": len(counting),
            }  # fmt: skip
            for name, cell in zip(("cell0", "cell1"), program.grid_at(number), strict=True):
                about[name] = cell
            table += [about[name] for name in plan_kernels().FIELDS]
            for budget in counting:
                budgets += [budget, sum(1 << step for step in at if budget in program.steps[step].budgets), limits[budget]]
            rows.append(about["rows"])
            first_row += about["rows"]
            offset += 0 if where is None else where.words(size)
        self.rows = rows
        groups = _groups(program)
        ends = [sum(map(len, groups[:n])) for n in range(len(groups) + 1)]
        lists = (table, [*ends, *(place for group in groups for place in group)], budgets or [0])
        sent = torch.tensor([number for one in lists for number in one], dtype=torch.int64, device="cpu")
        # waits, once: a call on another stream may be the next to read them
        self.tables = sent.to(device).split_with_sizes([len(one) for one in lists])
        width = 1 << (self.tiling.words - 1).bit_length()
        self.constants: dict[str, Any] = {
            "STEPS": tuple((*step[:4], step[4] or 0, *step[5:]) for step in steps), "GATES": tuple(map(tuple, gates)) or (0,),
            "COUNT": len(steps), "C": shape[0], "FROM_BATCH": from_batch, "BUDGETS": len(program.budgets), "GROUPS": len(groups),
            "L": _WORDS // width, "W": width, "R": ROWS, "Z": _WORDS, "num_warps": 1, "enable_fp_fusion": False,
        }  # fmt: skip

    def _law(self, step: Step, channels: int) -> tuple[Any, ...]:
        """The rule by which a step draws (None if its fill draws), its first rows among numbers and floats, and its parameters."""
        operation, law = step.operation, draw_law(step)
        number, real = self.numbers, self.floats
        sections: tuple[Section, ...] = ()
        one = Section(number, (), real=False)
        if law is None or law.name == "COLOUR_FIXED":
            law = None
        elif isinstance(operation, Draw):
            sections = (one,)
        elif isinstance(operation, Take):
            sections = (one,) * operation.donor + (Section(number + operation.donor, (2,), real=False),) * operation.moved
        elif isinstance(operation, Convolve):
            sections = (Section(real, (), real=True), one)
        elif law.name == "COLOUR_DRAWN":
            sections = (Section(real, (channels,), real=True),)
        self.sections.append(sections)
        self.numbers += sum(math.prod(one.tail) for one in sections if not one.real)
        self.floats += sum(math.prod(one.tail) for one in sections if one.real)
        name, *numbers = law or DrawLaw("NOTHING")
        return (None if law is None else getattr(plan_kernels(), name).value, number, real, *numbers)

    def plan(self, request: Request, keys: Tensor) -> Plan:
        """One launch."""
        program, batch, device, tiled = self.program, len(keys), keys.device, self.tiling
        active = torch.empty(batch, len(program.steps), dtype=torch.bool, device=device)
        boxes = torch.empty(sum(self.rows) * batch * 4, dtype=torch.int32, device=device)
        numbers = torch.empty(max(self.numbers, 1), batch, dtype=torch.int64, device=device)
        floats = torch.empty(max(self.floats, 1), batch, dtype=torch.float32, device=device) if self.floats else numbers
        marks = empty_marks(batch, len(program.places), tiled, device)
        taken = used = keys
        if program.budgets:
            shape = batch, len(program.budgets), tiled.lines, tiled.words
            taken = torch.zeros(shape, dtype=torch.int32, device=device)
            used = torch.zeros(batch, 2, len(program.budgets), dtype=torch.int32, device=device)
        plan_kernels().make_plan[(batch, self.constants["GROUPS"])](
            keys, active.view(torch.uint8), boxes, *marks, numbers, floats, taken, used, *self.tables, batch, request.donors,
            tiled.lines, tiled.width, tiled.words, tiled.tiles, len(program.places), **self.constants,
        )  # fmt: skip
        each = boxes.split_with_sizes([rows * batch * 4 for rows in self.rows])
        drawn: list[Tensors] = []
        for sections in self.sections:
            drawn.append(tuple([one.of(floats if one.real else numbers) for one in sections]))
        for number in self.asked:
            chance = Chance(keys, FIRST_STEP + number, request.shape, request.donors, request.from_batch)
            drawn[number] = drawn_by(program.steps[number].fill, chance)
        made = Plan(
            keys=keys,
            boxes=tuple([one.view(batch, rows, 4) for one, rows in zip(each, self.rows, strict=True)]),
            active=active,
            drawn=tuple(drawn),
            steps=program.names,
            shape=request.shape[1:],
            donors=request.donors,
            bank=not request.from_batch,
            fingerprint=program.fingerprint,
            resolved=program.resolved,
        )
        keep(made, marks)
        return made


def _prepared(program: Program, shape: Sequence[int], working: Sequence[bool], from_batch: bool, device: torch.device) -> _Prepared:
    return _Prepared(program, shape, working, from_batch, device)


_prepare: Final = Kept[_Prepared](_prepared)


def _about(where: Place | None, size: Sequence[int]) -> dict[str, int]:
    """How a place draws, as columns of the table; its position among the other places is filled in later."""
    if not isinstance(where, Boxes):  # one box, the image
        about = {"low": 1, "span": 1, "most": 1, "covers": 0, "rows": 2, "placement": 1, "overshoot": 0, "invert": 0}
        sides = [(length, 1, length, 1) for length in size]
    else:
        low, span = where.amount(size)
        about = {
            "low": low, "span": span, "most": where.most, "covers": int(where.ratio is not None),
            "rows": where.most + (where.ratio is not None) + 1, "placement": get_args(Placement).index(where.placement),
            "overshoot": int(where.overshoot), "invert": int(where.invert),
        }  # fmt: skip
        sides = [(*where.sides(length, step), step) for length, step in zip(size, where.steps, strict=True)]
    for axis, numbers in enumerate(sides):
        about |= {f"{name}{axis}": number for name, number in zip(("least", "values", "corners", "step"), numbers, strict=True)}
    return about


def _groups(program: Program) -> list[list[int]]:
    """Groups of places that share budgets, each in painting order."""
    groups: list[tuple[set[int], list[int]]] = []
    for place in range(len(program.places)):
        budgets, places = set(program.budgets_at(place)), [place]
        for group in [one for one in groups if one[0] & budgets]:
            groups.remove(group)
            budgets, places = budgets | group[0], sorted(places + group[1])
        groups.append((budgets, places))
    return [places for _, places in groups]
