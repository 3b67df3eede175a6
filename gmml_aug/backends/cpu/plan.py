"""A plan by the compiled core: the reference's, every number of it."""

from __future__ import annotations

import ctypes
import math
from array import array
from collections.abc import Sequence
from typing import Any, get_args

import torch

from gmml_aug.backends.call import Request
from gmml_aug.backends.cpu import layout
from gmml_aug.backends.cpu.kept import Kept
from gmml_aug.backends.cpu.library import library, run, threads_for
from gmml_aug.backends.cpu.picture import OPERATIONS, drawn
from gmml_aug.backends.reference import plan as reference
from gmml_aug.chance import FIRST_STEP, Chance
from gmml_aug.ops import Colour, Convolve, Draw, Take
from gmml_aug.places.base import TINY, Place, free_axes, free_size
from gmml_aug.places.boxes import Boxes, Placement
from gmml_aug.places.grid import Blocks, Cells
from gmml_aug.plan import Plan
from gmml_aug.program import Program, Step

_OURS = "gmml_aug.fills."  # fills that draw by the law of their operation
_LARGEST = 1 << 31  # cells, and pixels along a side
_IMAGE = 1e4  # nanoseconds of work for an image, more or less


def plan(program: Program, request: Request) -> Plan:
    """All that chance decides; places that the core does not know the reference draws."""
    keys, shape = request.keys.contiguous(), request.shape
    kept = None
    if request.ratios is None and request.lengths is None:
        kept = _prepare(program, shape[1:], request.working)
    if kept is None:
        return reference.plan(program, request)
    batch = shape[0]
    active = torch.empty((batch, len(program.steps)), dtype=torch.bool, device="cpu")
    boxes = tuple([torch.empty((batch, *tail), dtype=torch.int32, device="cpu") for tail in kept.boxes])
    made = [tuple([torch.empty((batch, *tail), dtype=dtype, device="cpu") for dtype, tail in step]) for step in kept.drawn]
    call = array("q", [batch, request.donors, request.from_batch, 0, keys.data_ptr(), active.data_ptr()])
    call.extend([one.data_ptr() for one in boxes])
    for step in made:
        call.extend([one.data_ptr() for one in step])
        call.extend([0] * (2 - len(step)))
    run(library().gmml_plan, kept.address, call, kept.memory, min(threads_for(batch * _IMAGE), batch))
    for number in kept.asked:
        chance = Chance(keys, FIRST_STEP + number, shape, request.donors, request.from_batch)
        made[number] = reference.drawn_by(program.steps[number].fill, chance)
    return Plan(
        keys=request.keys,
        boxes=boxes,
        active=active,
        drawn=tuple(made),
        steps=program.names,
        shape=tuple(shape[1:]),
        donors=request.donors,
        bank=not request.from_batch,
        fingerprint=program.fingerprint,
        resolved=kept.resolved,
    )


class _Prepared:
    """What the core plans a program from, for images of one shape.

    Attributes:
        address: of the struct.
        memory: bytes that a thread needs.
        boxes: per place the shape after the batch.
        drawn: per step the dtype, and the shape after the batch, of each tensor that it draws.
        asked: the steps whose fill is asked for its numbers.
        resolved: as in a plan.
    """

    def __init__(self, program: Program, shape: Sequence[int], working: Sequence[bool]) -> None:
        channels, *size = shape
        dims = len(size)
        numbers: list[int] = []
        gates: list[layout.Gate] = []
        constants: list[float] = []
        draws = []
        for step, works in zip(program.steps, working, strict=True):
            law, fields = _law(step, constants)
            one = layout.Draws(law=law, works=works, gate=len(gates), gates=len(step.gates), **fields)
            one.budget_list, one.budgets = len(numbers), len(step.budgets)
            draws.append(one)
            numbers += step.budgets
            gates += [layout.Gate(gate.draw, _float32(gate.low), _float32(gate.high)) for gate in step.gates]
        word, places = 0, []
        for number, where in enumerate(program.places):
            place = _place(where, size)
            place.word, place.step_list, place.steps = word, len(numbers), len(program.steps_at[number])
            numbers += program.steps_at[number]
            word += 0 if where is None else where.words(free_size(where, size))
            places.append(place)
        limits = [0] * len(program.budgets)
        for step in program.steps:
            for budget in step.budgets:
                pixels = math.prod(free_size(program.places[step.place], size))
                limits[budget] = math.floor(program.budgets[budget] * pixels + TINY)
        words = [place.size[0] * place.size[1] * -(-place.size[2] // 64) for place in places]
        self._tables = {
            "draws": layout.table(layout.Draws, draws),
            "place": layout.table(layout.Place, places),
            "gate": layout.table(layout.Gate, gates),
            "numbers": layout.table(ctypes.c_int64, numbers),
            "limits": layout.table(ctypes.c_int64, limits),
            "constants": layout.table(ctypes.c_double, constants),
        }
        self._struct = layout.Program(
            dims=dims, channels=channels, size=layout.three(size, 1), steps=len(draws), places=len(places), budgets=len(limits),
            words=max(words), **{name: ctypes.addressof(one) for name, one in self._tables.items()},
        )  # fmt: skip
        self.address = ctypes.addressof(self._struct)
        self.memory = library().gmml_plan_memory(self.address)
        self.boxes = [(place.rows, 2 * dims) for place in places]
        self.drawn = [drawn(step.operation, channels, dims) if _ours(step) else () for step in program.steps]
        self.asked = [number for number, step in enumerate(program.steps) if not _ours(step)]
        self.resolved = program.resolved


def _prepared(program: Program, shape: Sequence[int], working: Sequence[bool]) -> _Prepared | None:
    """None where a place is not one of ours, or too large."""
    size = shape[1:]
    known = all(where is None or type(where) in (Boxes, Cells, Blocks) for where in program.places)
    known = known and not any(getattr(where, "whole", False) for where in program.places)
    return _Prepared(program, shape, working) if known and math.prod(size) < _LARGEST else None


_prepare = Kept(_prepared)


def _ours(step: Step) -> bool:
    """True for a fill that draws by the law of its operation, or nothing."""
    return type(step.fill).__module__.startswith(_OURS) and type(step.operation) in OPERATIONS


def _law(step: Step, constants: list[float]) -> tuple[int, dict[str, Any]]:
    """By which law a step draws, and the numbers in it."""
    operation = step.operation
    if not _ours(step):
        return layout.NOTHING, {}
    if isinstance(operation, Draw):
        return layout.KEY, {}
    if isinstance(operation, Take):
        return layout.SHIFT if not operation.donor else layout.DONOR_SHIFT if operation.moved else layout.DONOR, {}
    if isinstance(operation, Convolve):
        (low, high), (least, most) = operation.sigma, operation.taps
        return layout.GAUSSIAN, {"low": low, "span": high - low, "least": least, "values": (most - least) // 2 + 1}
    if isinstance(operation, Colour) and operation.source == "drawn":
        if not operation.channels:
            return layout.COLOUR_DRAWN, {"low": operation.low, "span": operation.high - operation.low}
        constants += operation.channels
        return layout.COLOUR_FIXED, {"constants": len(constants) - len(operation.channels)}
    return layout.NOTHING, {}


def _place(where: Place | None, size: Sequence[int]) -> layout.Place:
    """The law of a place; its words and steps are still to be told."""
    inner = free_size(where, size)
    free = len(inner)
    place = layout.Place(kind=layout.WHOLE, free=free, size=layout.three(inner, 1), step=layout.three([1] * free, 1), boxes=1)
    place.axis = layout.three(range(free) if where is None else free_axes(where), 0)
    if isinstance(where, Boxes):
        place.kind, place.step = layout.BOXES, layout.three(where.steps, 1)
        sides = [where.sides(length, step) for length, step in zip(inner, where.steps, strict=True)]
        place.least, place.values, place.corners = (layout.three(each, 1) for each in zip(*sides, strict=True))
        place.placement, place.overshoot = get_args(Placement).index(where.placement), where.overshoot
        place.boxes, place.covers = where.most, where.ratio is not None
        place.least_amount, place.amounts = where.amount(inner)
    elif isinstance(where, Cells):
        place.kind, place.step = layout.CELLS, layout.three(where.steps, 1)
        place.least_amount, place.amounts = where.amount(inner)
        place.boxes = max(place.least_amount + place.amounts - 1, 1)
    elif isinstance(where, Blocks):
        place.kind, place.step = layout.BLOCKS, layout.three(where.steps, 1)
        low, high = where.ratio if isinstance(where.ratio, tuple) else (where.ratio, where.ratio)
        place.share, place.share_span = low, high - low
        place.stretch, place.stretch_span = math.log(where.aspect[0]), math.log(where.aspect[1] / where.aspect[0])
        place.boxes, place.least_amount = where.attempts, where.least
    place.rows = place.boxes + place.covers + free - 1
    return place


def _float32(number: float) -> float:
    """The nearest float32, by which torch compares."""
    return ctypes.c_float(number).value
