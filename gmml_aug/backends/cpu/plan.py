"""A plan by the compiled core: the reference's, every number of it."""

from __future__ import annotations

import ctypes
import math
from array import array
from collections.abc import Sequence
from typing import Any, Final, get_args

import torch

from gmml_aug.backends.call import Request
from gmml_aug.backends.cpu import layout
from gmml_aug.backends.cpu.kept import Kept
from gmml_aug.backends.cpu.library import library, run, threads_for
from gmml_aug.backends.cpu.picture import OPERATIONS
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

# the tensors that a law draws: dtype, and what follows the batch in their shape: nothing, the channels, the axes
_DRAWN: Final = {
    layout.NOTHING: (),
    layout.KEY: (("int", ""),),
    layout.COLOUR_DRAWN: (("float", "channels"),),
    layout.COLOUR_FIXED: (("float", "channels"),),
    layout.DONOR: (("int", ""),),
    layout.SHIFT: (("int", "axes"),),
    layout.DONOR_SHIFT: (("int", ""), ("int", "axes")),
    layout.GAUSSIAN: (("float", ""), ("int", "")),
}


def plan(program: Program, request: Request) -> Plan:
    """All that chance decides; places that the core does not know the reference draws."""
    keys, shape = request.keys.contiguous(), request.shape
    kept = None
    if request.ratios is None and request.lengths is None:
        kept = _prepare(program, shape[1:], request.working)
    if kept is None:
        return reference.plan(program, request)
    batch = shape[0]
    active = torch.empty(batch, len(program.steps), dtype=torch.bool)
    boxes = [torch.empty(batch, rows, 2 * program.dims, dtype=torch.int32) for rows in kept.rows]
    drawn = [
        tuple(torch.empty(batch, *tail, dtype=torch.int64 if kind == "int" else torch.float32) for kind, tail in step)
        for step in kept.drawn
    ]
    call = [batch, request.donors, request.from_batch, 0, keys.data_ptr(), active.data_ptr()]
    call += [one.data_ptr() for one in boxes]
    for step in drawn:
        call += [one.data_ptr() for one in step] + [0] * (2 - len(step))
    run(library().gmml_plan, kept.address, array("q", call), kept.memory, min(threads_for(batch * _IMAGE), batch))
    for number in kept.asked:
        chance = Chance(keys, FIRST_STEP + number, shape, request.donors, request.from_batch)
        drawn[number] = reference.drawn_by(program.steps[number].fill, chance)
    return Plan(
        keys=request.keys,
        boxes=tuple(boxes),
        active=active,
        drawn=tuple(drawn),
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
        rows: of the boxes of each place.
        drawn: per step the kind and the shape after the batch of each of its tensors.
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
        self.rows = [place.rows for place in places]
        shapes = {"": (), "channels": (channels,), "axes": (dims,)}
        self.drawn = [tuple((kind, shapes[tail]) for kind, tail in _DRAWN[one.law]) for one in draws]
        self.asked = [number for number, step in enumerate(program.steps) if not _ours(step)]
        self.resolved = tuple((program.grid_at(n), where is not None and where.invert) for n, where in enumerate(program.places))


def _prepared(program: Program, shape: Sequence[int], working: Sequence[bool]) -> _Prepared | None:
    """None where a place is not one of ours, or too large."""
    size = shape[1:]
    known = all(where is None or type(where) in (Boxes, Cells, Blocks) for where in program.places)
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
