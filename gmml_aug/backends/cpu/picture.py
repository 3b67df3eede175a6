"""The structs that the compiled core paints from: the operations of a program, for images of one kind."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

from gmml_aug.backends.cpu import layout
from gmml_aug.backends.kept import Kept
from gmml_aug.backends.laws import grey_law, noise_law
from gmml_aug.chance import normal_table
from gmml_aug.ops import Colour, Convolve, Draw, Mix, Operation, Take
from gmml_aug.plan import Resolved
from gmml_aug.program import Program
from gmml_aug.values import Values, byte_scales

OPERATIONS: Final = (Colour, Take, Draw, Mix, Convolve)
TYPES: Final = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8)

_CPU: Final = torch.device("cpu")
_NOISES: Final = {"uniform": layout.UNIFORM, "matched": layout.MATCHED, "standard": layout.TABLE, "normal": layout.NORMAL}
_SOURCES: Final = {"zeros": layout.ZEROS, "drawn": layout.DRAWN, "mean": layout.MEAN}


class Look:
    """A program for images of one kind and any size.

    Attributes:
        struct: the struct that the core reads, without a size.
        drawn: for each step, the `Form` of every tensor that it drew.
        asked: the steps whose fill computes its own pixels.
        blurs: the steps that read neighbouring pixels.
    """

    def __init__(
        self,
        program: Program,
        channels: int,
        dims: int,
        dtype: torch.dtype,
        from_bytes: int,
        channels_last: bool,
        resolved: Resolved,
    ) -> None:
        # stands for the images where only their kind is asked for
        like = torch.empty(1, channels, *[1] * dims, dtype=dtype, device="cpu")
        constants: list[float] = []
        if from_bytes:
            for numbers in byte_scales(program.values, channels):
                constants += numbers
        steps = []
        for step in program.steps:
            fields = _fields(step.operation, like, program.values, constants)
            steps.append(layout.Step(place=step.place, **fields))
        reading: list[int] = []
        for grid, invert in resolved or program.resolved:
            reading += [*layout.three(grid, 1), invert]
        self._tables = {
            "step": layout.table(layout.Step, steps),
            "reading": layout.table(ctypes.c_int64, reading),
            "constants": layout.table(ctypes.c_double, constants),
        }
        self._normal = normal_table(), _typed_table(dtype)
        self.struct = layout.Picture(
            dims=dims, channels=channels, interleaved=channels_last, type=TYPES.index(dtype),
            from_bytes=from_bytes, steps=len(steps), places=len(program.places), normal=self._normal[0].data_ptr(),
            normal_typed=self._normal[1].data_ptr(), **{name: ctypes.addressof(one) for name, one in self._tables.items()},
        )  # fmt: skip
        self.drawn = tuple(drawn(step.operation, channels, dims) for step in program.steps)
        self.asked = asks(program)
        self.blurs = tuple(n for n, step in enumerate(program.steps) if isinstance(step.operation, Convolve))


_look = Kept(Look)


def _asks(program: Program) -> tuple[int, ...]:
    return tuple(n for n, step in enumerate(program.steps) if type(step.operation) not in OPERATIONS)


asks = Kept(_asks)
"""The steps whose fill makes its own pixels."""


class Picture:
    """A program for images of one kind and size.

    Attributes:
        address: the address of the struct.
        active: the `Form` of the tensor of active steps.
        mask: the `Form` of the mask.
        drawn: as in `Look`; ``asked`` and ``blurs`` too.
        memory: the number of bytes that a thread needs, for each number of bands.
    """

    def __init__(
        self,
        program: Program,
        shape: Sequence[int],
        dtype: torch.dtype,
        from_bytes: int,
        channels_last: bool,
        resolved: Resolved,
    ) -> None:
        channels, *size = shape
        self._look = look = _look(program, channels, len(size), dtype, from_bytes, channels_last, resolved)
        self._struct = layout.Picture.from_buffer_copy(look.struct)
        self._struct.size = layout.three(size, 1)
        self.address = ctypes.addressof(self._struct)
        self.active, self.mask = Form(torch.bool, (len(program.steps),)), Form(torch.bool, (1, *size))
        self.drawn, self.asked, self.blurs = look.drawn, look.asked, look.blurs
        self.memory: dict[int, int] = {}


picture = Kept(Picture)


@cache
def _typed_table(dtype: torch.dtype) -> Tensor:
    return normal_table().to(dtype if dtype.is_floating_point else torch.float32)


class Form:
    """The dtype, the shape after the batch axis and the strides of contiguous tensors."""

    __slots__ = ("dtype", "strides", "tail")

    def __init__(self, dtype: torch.dtype, tail: tuple[int, ...]) -> None:
        self.dtype, self.tail = dtype, tail
        self.strides = tuple([math.prod(tail[axis:]) for axis in range(len(tail) + 1)])


def empty(batch: int, form: Form) -> Tensor:
    """Create a tensor (batch, *tail) on the CPU; passing its strides saves a third of the time."""
    return torch.empty_strided((batch, *form.tail), form.strides, dtype=form.dtype, device=_CPU)


def drawn(operation: Operation, channels: int, dims: int) -> tuple[Form, ...]:
    """The tensors that an operation draws, as one `Form` each."""
    number = Form(torch.int64, ())
    if isinstance(operation, Colour):
        return (Form(torch.float32, (channels,)),) if operation.source == "drawn" else ()
    if isinstance(operation, Take):
        return (number,) * operation.donor + (Form(torch.int64, (dims,)),) * operation.moved
    if isinstance(operation, Draw):
        return (number,)
    return (Form(torch.float32, ()), number) if isinstance(operation, Convolve) else ()


def _fields(operation: Operation, like: Tensor, values: Values, constants: list[float]) -> dict[str, Any]:
    """The fields of a step; its constants are appended to the list of all constants."""
    first = len(constants)
    if isinstance(operation, Colour):
        return {"operation": _SOURCES[operation.source]}
    if isinstance(operation, Take):
        return {"operation": layout.TAKE, "kind": layout.OTHER * operation.donor + layout.MOVED * operation.moved}
    if isinstance(operation, Convolve):
        return {"operation": layout.BLUR, "taps": operation.taps[1]}
    if isinstance(operation, Mix):
        weights, shift, mean, std = grey_law(like, values)
        constants += [*weights, shift, *mean, *(1.0 / spread for spread in std)]
        return {"operation": layout.GREY, "constants": first}
    if isinstance(operation, Draw):
        law, spread, shifts, divisors = noise_law(operation, like, values)
        kind = layout.BYTES if law == "uniform" and like.dtype == torch.uint8 else _NOISES[law]
        constants += [spread, *shifts, *divisors]
        clamps = values == "unit" and like.is_floating_point() and kind in (layout.NORMAL, layout.MATCHED)
        flags = layout.PIXEL * (operation.per == "pixel") + layout.CLAMP * clamps
        return {"operation": layout.NOISE, "kind": kind, "flags": flags, "constants": first}
    return {"operation": -1}
