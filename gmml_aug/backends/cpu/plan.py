"""Plans made by the compiled core; every number equals the reference's."""

from __future__ import annotations

import ctypes
import math
from array import array
from collections.abc import Sequence
from typing import Any, get_args

import torch

from gmml_aug.backends.call import Request
from gmml_aug.backends.cpu import layout
from gmml_aug.backends.cpu.library import library, run, threads_for
from gmml_aug.backends.cpu.picture import Form, drawn, empty
from gmml_aug.backends.kept import Kept
from gmml_aug.backends.laws import DrawLaw, draw_law
from gmml_aug.backends.reference import plan as reference
from gmml_aug.chance import FIRST_STEP, Chance
from gmml_aug.ops import Colour
from gmml_aug.places.base import TINY, Place, free_axes, free_size
from gmml_aug.places.boxes import Boxes, Placement
from gmml_aug.places.grid import Blocks, Cells
from gmml_aug.plan import Plan
from gmml_aug.program import Program, Step

_LARGEST = 1 << 31  # cells, and pixels along a side
_IMAGE = 1e4  # nanoseconds of work for an image, more or less


def plan(program: Program, request: Request) -> Plan:
    """Make all random decisions; places that the core does not support are drawn by the reference."""
    keys, shape, kept = request.keys.contiguous(), request.shape, prepared(program, request)
    if kept is None:
        return reference.plan(program, request)
    batch = shape[0]
    active = empty(batch, kept.active)
    boxes = tuple([empty(batch, form) for form in kept.boxes])
    made = [tuple([empty(batch, form) for form in step]) for step in kept.drawn]
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


def prepared(program: Program, request: Request) -> Prepared | None:
    """The structs that the core plans from; None if it cannot plan this program."""
    if request.ratios is None and request.lengths is None:
        return _prepare(program, request.shape[1:], request.working)
    return None


class _Laws:
    """The structs that the core plans a program from, for images of any size.

    Attributes:
        struct: the struct that the core reads, without a size.
        places: one struct per place, without a size.
        drawn: for each step, the `Form` of every tensor that it draws.
        asked: the steps whose fill draws its own numbers.
        budgets: each budget with the places of the steps that it limits.
        resolved: as in a plan.
    """

    def __init__(self, program: Program, channels: int, dims: int, working: Sequence[bool]) -> None:
        numbers: list[int] = []
        gates: list[layout.Gate] = []
        constants: list[float] = []
        draws = []
        laws = [draw_law(step) for step in program.steps]
        for step, law, works in zip(program.steps, laws, working, strict=True):
            one = layout.Draws(works=works, gate=len(gates), gates=len(step.gates), **_fields(step, law, constants))
            one.budget_list, one.budgets = len(numbers), len(step.budgets)
            draws.append(one)
            numbers += step.budgets
            gates += [layout.Gate(gate.draw, _float32(gate.low), _float32(gate.high)) for gate in step.gates]
        places = []
        for number, where in enumerate(program.places):
            place = _place(where, dims)
            place.step_list, place.steps = len(numbers), len(program.steps_at[number])
            numbers += program.steps_at[number]
            places.append(place)
        self.places = layout.table(layout.Place, places)
        self._tables = {
            "draws": layout.table(layout.Draws, draws),
            "gate": layout.table(layout.Gate, gates),
            "numbers": layout.table(ctypes.c_int64, numbers),
            "constants": layout.table(ctypes.c_double, constants),
        }
        self.struct = layout.Program(
            dims=dims, channels=channels, steps=len(draws), places=len(places), budgets=len(program.budgets),
            **{name: ctypes.addressof(one) for name, one in self._tables.items()},
        )  # fmt: skip
        self.drawn = [
            () if law is None else drawn(step.operation, channels, dims) for step, law in zip(program.steps, laws, strict=True)
        ]
        self.asked = [number for number, law in enumerate(laws) if law is None]
        self.budgets = [(budget, step.place) for step in program.steps for budget in step.budgets]
        self.resolved = program.resolved


def _known_laws(program: Program, channels: int, dims: int, working: Sequence[bool]) -> _Laws | None:
    """None if a place is of a class that the core does not support."""
    known = all(where is None or type(where) in (Boxes, Cells, Blocks) for where in program.places)
    known = known and not any(getattr(where, "whole", False) for where in program.places)
    return _Laws(program, channels, dims, working) if known else None


_laws = Kept(_known_laws)


class Prepared:
    """The structs that the core plans a program from, for images of one shape.

    Attributes:
        address: the address of the struct.
        memory: the number of bytes that a thread needs.
        own_memory: the same if it plans each image just before painting it, in addition to the memory for painting.
        active: the `Form` of the tensor of active steps.
        boxes: the `Form` of the boxes of each place.
        drawn: as in `Laws`; ``asked`` and ``resolved`` too.
    """

    def __init__(self, program: Program, size: Sequence[int], laws: _Laws) -> None:
        self._laws, whole = laws, layout.three(size, 1)
        self._places = type(laws.places).from_buffer_copy(laws.places)
        word = words = 0
        for where, place in zip(program.places, self._places, strict=False):
            word += _fit(place, where, size, whole, word)
            height, width, depth = place.size
            words = max(words, height * width * -(-depth // 64))
        limits = [0] * len(program.budgets)
        for budget, place in laws.budgets:
            limits[budget] = math.floor(program.budgets[budget] * math.prod(self._places[place].size) + TINY)
        self._limits = layout.table(ctypes.c_int64, limits)
        self._struct = one = layout.Program.from_buffer_copy(laws.struct)
        one.size, one.words = whole, words
        one.place, one.limits = ctypes.addressof(self._places), ctypes.addressof(self._limits)
        self.address = ctypes.addressof(one)
        self.memory = library().gmml_plan_memory(self.address)
        self.own_memory = library().gmml_image_memory(self.address)
        self.active = Form(torch.bool, (len(program.steps),))
        self.boxes = [Form(torch.int32, (place.rows, 2 * len(size))) for place in self._places[: len(program.places)]]
        self.drawn, self.asked, self.resolved = laws.drawn, laws.asked, laws.resolved


def _prepared_for(program: Program, shape: Sequence[int], working: Sequence[bool]) -> Prepared | None:
    """None if a place is of a class that the core does not support, or too large."""
    channels, *size = shape
    laws = _laws(program, channels, len(size), working)
    return None if laws is None or math.prod(size) >= _LARGEST else Prepared(program, size, laws)


_prepare = Kept(_prepared_for)


def _fields(step: Step, law: DrawLaw | None, constants: list[float]) -> dict[str, Any]:
    """The rule by which a step draws, and its parameters, as the core reads them."""
    if law is None:
        return {"law": layout.NOTHING}
    if law.name == "COLOUR_FIXED" and isinstance(step.operation, Colour):
        constants += step.operation.channels
        return {"law": layout.COLOUR_FIXED, "constants": len(constants) - len(step.operation.channels)}
    return {"law": getattr(layout, law.name), "low": law.low, "span": law.span, "least": law.least, "values": law.values}


def _place(where: Place | None, dims: int) -> layout.Place:
    """The drawing rule of a place, for images of any size; `_fit` adds its words and sizes."""
    free = list(range(dims)) if where is None else free_axes(where)
    place = layout.Place(kind=layout.WHOLE, free=len(free), step=layout.three([1] * len(free), 1), boxes=1)
    place.axis = layout.three(free, 0)
    if isinstance(where, Boxes):
        place.kind, place.step = layout.BOXES, layout.three(where.steps, 1)
        place.placement, place.overshoot = get_args(Placement).index(where.placement), where.overshoot
        place.boxes, place.covers = where.most, where.ratio is not None
    elif isinstance(where, Cells):
        place.kind, place.step = layout.CELLS, layout.three(where.steps, 1)
    elif isinstance(where, Blocks):
        place.kind, place.step = layout.BLOCKS, layout.three(where.steps, 1)
        low, high = where.ratio if isinstance(where.ratio, tuple) else (where.ratio, where.ratio)
        place.share, place.share_span = low, high - low
        place.stretch, place.stretch_span = math.log(where.aspect[0]), math.log(where.aspect[1] / where.aspect[0])
        place.boxes, place.least_amount = where.attempts, where.least
    return place


def _fit(place: layout.Place, where: Place | None, size: Sequence[int], whole: Any, word: int) -> int:
    """Complete the drawing rule of a place for a size (also given as the core reads it), and set its first random word.

    Returns:
        The number of random words that the place uses.
    """
    inner = size if place.free == len(size) else free_size(where, size)
    place.size, place.word, words = whole if inner is size else layout.three(inner, 1), word, 0
    if isinstance(where, Boxes):
        sides = [where.sides(length, step) for length, step in zip(inner, place.step[3 - place.free :], strict=True)]
        place.least, place.values, place.corners = (layout.three(each, 1) for each in zip(*sides, strict=True))
        place.least_amount, place.amounts = where.amount(inner)
        words = 1 + place.free * (place.boxes + place.covers)
    elif isinstance(where, Cells):
        place.least_amount, place.amounts = where.amount(inner)
        place.boxes = max(place.least_amount + place.amounts - 1, 1)
    if where is not None and not words:
        words = where.words(inner)
    place.rows = place.boxes + place.covers + place.free - 1
    return words


def _float32(number: float) -> float:
    """The nearest float32, which is what torch compares with."""
    return ctypes.c_float(number).value
