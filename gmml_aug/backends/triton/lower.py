"""The compile-time options of the painting kernels for each step, and the tables of values that differ between images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor

from gmml_aug.backends.kept import Kept
from gmml_aug.backends.laws import grey_law, noise_law
from gmml_aug.colours import average, deviation
from gmml_aug.ops import Colour, Draw, Mix, Take
from gmml_aug.plan import Plan
from gmml_aug.program import Program, Step
from gmml_aug.values import Values, byte_scales

IN_A_RUN = (Draw, Colour, Take, Mix)  # operations that see no pixel but their own


class Lowered:
    """Several consecutive steps for images of one kind: compile-time options of `paint_steps`, and values looked up in each call.

    Attributes:
        options: kinds, places, switches, rows of the tables and constants of the steps; the constants are in a separate list,
            because Triton 3.6 does not support tuples in tuples in tuples.
    """

    def __init__(self, program: Program, first: int, end: int, channels: int, dtype: torch.dtype, from_bytes: bool) -> None:
        self._like = torch.empty(1, channels, 1, dtype=dtype, device="cpu")  # stands for images whose kind is asked for
        self._dims = program.dims
        self._numbers: list[tuple[int, int, int]] = []  # (B,) int64 each: a step, which of its tensors, and the column or -1
        self._colours: list[tuple[int, str]] = []  # (B, C) float32 each: a step, and what of it
        self._constants: list[float] = []
        steps = [self._lower(number, program.steps[number], program.values) for number in range(first, end)]
        scales, shifts = byte_scales(program.values, channels) if from_bytes else ((1.0,) * channels, (0.0,) * channels)
        self.options: dict[str, Any] = {
            "STEPS": tuple(steps) or (0,), "COUNT": len(steps), "CONSTANTS": tuple(self._constants) or (0.0,), "BEFORE": first,
            "SCALES": scales, "SHIFTS": shifts,
        }  # fmt: skip

    def tables(self, plan: Plan, clean: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """The tables: (rows, B) int64 and (rows, B, C) float32; the keys are passed in place of a table that is not read.

        Args:
            plan: the plan, with the numbers that were drawn.
            clean: a function that returns the clean images, normalised; it is only called if their statistics are needed.
        """
        numbers: list[Tensor] = []
        colours: list[Tensor] = []
        for step, which, column in self._numbers:
            drawn = plan.drawn[step][which]
            numbers.append(drawn if column < 0 else drawn[:, column])
        for step, what in self._colours:
            if what == "deviation":  # around the mean, the row before
                colours.append(deviation(clean(), colours[-1]))
            else:
                colours.append(plan.drawn[step][0] if what == "drawn" else average(clean()))
        return torch.stack(numbers) if numbers else plan.keys, torch.stack(colours) if colours else plan.keys

    def _lower(self, number: int, step: Step, values: Values) -> tuple[Any, ...]:
        kinds, operation, place = kernels(), step.operation, step.place
        row = len(self._numbers)
        if isinstance(operation, Draw):
            own = -1
            if operation.distribution == "matched":
                own = len(self._colours)
                self._colours += [(number, "mean"), (number, "deviation")]
            self._numbers.append((number, 0, -1))
            law, spread, *lines = noise_law(operation, self._like, values)
            kind = (kinds.UNIFORM if law == "uniform" else kinds.NORMAL).value
            clamps = values == "unit" and self._like.is_floating_point()
            how = (operation.per == "pixel") + 2 * clamps
            return (kinds.NOISE.value, place, how, row, kind, own, spread, *map(self._keep, lines))
        if isinstance(operation, Mix):
            weights, shift, mean, std = grey_law(self._like, values)
            back = [1.0 / spread for spread in std], [-middle / spread for middle, spread in zip(mean, std, strict=True)]
            return (kinds.GREY.value, place, 0, -1, shift, *map(self._keep, (weights, *back)))
        if isinstance(operation, Take):
            self._numbers += [(number, 0, -1)] * operation.donor
            self._numbers += [(number, int(operation.donor), axis) for axis in range(self._dims)] * operation.moved
            return (kinds.TAKE.value, place, operation.donor + 2 * operation.moved, row)
        assert isinstance(operation, Colour)
        if operation.source == "zeros":
            return (kinds.COLOUR.value, place, 0, -1)
        self._colours.append((number, operation.source))
        return (kinds.COLOUR.value, place, 0, len(self._colours) - 1)

    def _keep(self, more: Sequence[float]) -> int:
        """Append constants, and return the number of the first one."""
        self._constants.extend(more)
        return len(self._constants) - len(more)


lower: Final = Kept(Lowered)


@cache
def has_triton() -> bool:
    """True if Triton 3.4 or newer is installed: earlier versions cannot compile for tuples of tuples."""
    if find_spec("triton") is None:
        return False
    import triton  # type: ignore[import-untyped, unused-ignore]  # no types, and not everywhere

    return tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 4)


def runs_on(device: torch.device) -> bool:
    """True if Triton's kernels run on the device: CUDA, or the CPU in its interpreter."""
    if torch.compiler.is_compiling():  # asked first: Dynamo warns of the cache behind has_triton
        return False
    runs = device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")
    return runs and has_triton()


def kernels() -> Any:
    """The kernels, imported on first use, because Triton reads TRITON_INTERPRET when they are imported."""
    from gmml_aug.backends.triton.kernels import paint as kernels

    return kernels


def bit_kernels() -> Any:
    """The kernel that turns boxes into bits, imported on first use."""
    from gmml_aug.backends.triton.kernels import bits as bit_kernels

    return bit_kernels


def tile_kernels() -> Any:
    """The kernel that makes words for `Blur`, imported on first use."""
    from gmml_aug.backends.triton.kernels import tiles as tile_kernels

    return tile_kernels


def blur_kernels() -> Any:
    """The kernel of `Blur`, imported on first use."""
    from gmml_aug.backends.triton.kernels import blur as blur_kernels

    return blur_kernels


def box_kernels() -> Any:
    """The kernel that blurs a box in place, imported on first use."""
    from gmml_aug.backends.triton.kernels import blur_box as box_kernels

    return box_kernels


def plan_kernels() -> Any:
    """The kernel that makes plans, imported on first use."""
    from gmml_aug.backends.triton.kernels import plan as plan_kernels

    return plan_kernels
