"""What the painting kernels are compiled for, step by step, and the tables of what differs between images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from gmml_aug.colours import average, deviation
from gmml_aug.functional import luma_weights
from gmml_aug.ops import Colour, Draw, Mix, Operation, Take
from gmml_aug.values import UNIFORM, Values, known_statistics, noise_statistics, pixel_statistics

IN_A_RUN = (Draw, Colour, Take, Mix)  # operations that see no pixel but their own


class Tables:
    """What differs between images, a row for each thing that a step has to look up.

    Attributes:
        numbers: (B,) int64 each: streams of noise, donors, shifts.
        colours: (B, C) float32 each.
        constants: Python's, for a kernel to be compiled with; in a list of their own, since Triton 3.6 knows no tuples in tuples in
            tuples.
    """

    def __init__(self) -> None:
        self.numbers: list[Tensor] = []
        self.colours: list[Tensor] = []
        self.constants: list[float] = []

    def add(self, more: Sequence[Tensor]) -> int:
        """Append rows of numbers; that of the first."""
        self.numbers.extend(more)
        return len(self.numbers) - len(more)

    def keep(self, more: Sequence[float]) -> int:
        """Append constants; the number of the first."""
        self.constants.extend(more)
        return len(self.constants) - len(more)

    def stacked(self, otherwise: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, B) and (rows, B, C); ``otherwise`` for a table that nobody reads."""
        numbers = torch.stack(self.numbers) if self.numbers else otherwise
        return numbers, torch.stack(self.colours) if self.colours else otherwise


def describe(
    operation: Operation,
    drawn: tuple[Tensor, ...],
    place: tuple[int, int, bool],
    values: Values,
    made: Tensor,
    clean: Callable[[], Tensor],
    tables: Tables,
) -> tuple[Any, ...]:
    """What `paint_steps` is compiled for: kind, place, switches, rows of the tables, constants.

    Args:
        operation: one of `IN_A_RUN`.
        drawn: what the plan has for it.
        place: first word of its boxes, number of words, and whether it works outside of them.
        values: the value range.
        made: any tensor (B, C, *S) of the dtype that is made.
        clean: gives the clean images, normalised; only called where their statistics are asked for.
        tables: where rows are added.
    """
    kinds, channels = kernels(), made.shape[1]
    if isinstance(operation, Draw):
        own = -1
        if operation.distribution == "matched":
            mean = average(clean())
            own = len(tables.colours)
            tables.colours += [mean, deviation(clean(), mean)]
        kind, spread, *lines = _noise(operation, made, values)
        clamps = values == "unit" and made.is_floating_point()
        how = (operation.per == "pixel") + 2 * clamps
        return (kinds.NOISE.value, *place, how, tables.add(drawn), kind, own, spread, *map(tables.keep, lines))
    if isinstance(operation, Mix):
        mean_std = known_statistics(made, values) or ((0.0,) * channels, (1.0,) * channels)
        return (kinds.GREY.value, *place, 0, -1, 0, -1, *map(tables.keep, (luma_weights(channels), *mean_std)))
    if isinstance(operation, Take):
        shift = drawn[1:] if operation.donor else drawn
        moved = tuple(one for s in shift for one in s.unbind(1))
        donor = int(operation.donor)
        return (kinds.TAKE.value, *place, donor + 2 * bool(shift), tables.add((*drawn[:donor], *moved)))
    assert isinstance(operation, Colour)
    if operation.source == "zeros":
        return (kinds.COLOUR.value, *place, 0, -1)
    tables.colours.append(average(clean()) if operation.source == "mean" else drawn[0])
    return (kinds.COLOUR.value, *place, 0, len(tables.colours) - 1)


def _noise(operation: Draw, images: Tensor, values: Values) -> tuple[int, float, tuple[float, ...], tuple[float, ...]]:
    """Which draw, and the numbers of ``(draw * spread + shift) / std``, the last two per channel, as the reference has them."""
    mean, std = pixel_statistics(images, values)
    plain = images.dtype != torch.uint8 and values != "unit"
    kind = operation.distribution or ("normal" if plain else "uniform")
    if kind == "uniform":
        return kernels().UNIFORM.value, 1.0, tuple(-m for m in mean), noise_statistics(images, values)[1]
    middle, spread = UNIFORM
    if plain and (operation.per == "channel" or values == "normalised"):
        return kernels().NORMAL.value, 1.0, (0.0,) * len(mean), (1.0,) * len(std)
    if plain:
        middle, spread = sum(mean) / len(mean), sum(std) / len(std)
    return kernels().NORMAL.value, spread, tuple(middle - m for m in mean), std


@cache
def has_triton() -> bool:
    """True if Triton is installed, 3.4 at least: earlier ones cannot compile for tuples of tuples."""
    if find_spec("triton") is None:
        return False
    import triton  # type: ignore[import-untyped, unused-ignore]  # no types, and not everywhere

    return tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 4)


def runs_on(device: torch.device) -> bool:
    """True if Triton's kernels run there: CUDA, or the CPU by its interpreter."""
    if torch.compiler.is_compiling():  # asked first: Dynamo warns of the cache behind has_triton
        return False
    runs = device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")
    return runs and has_triton()


def kernels() -> Any:
    """The kernels: Triton looks at TRITON_INTERPRET when they are imported, so not before the first use."""
    from gmml_aug.backends.triton.kernels import paint as kernels

    return kernels


def blur_kernels() -> Any:
    """The kernel of `Blur`, likewise."""
    from gmml_aug.backends.triton.kernels import blur as blur_kernels

    return blur_kernels


def plan_kernels() -> Any:
    """Those that make plans."""
    from gmml_aug.backends.triton.kernels import plan as plan_kernels

    return plan_kernels
