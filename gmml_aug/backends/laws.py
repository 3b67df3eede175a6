"""The properties of a step that the compiled backends need: how it draws, and the numbers of its noise and grey."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gmml_aug.functional import luma_weights
from gmml_aug.ops import Colour, Convolve, Draw, Mix, Take
from gmml_aug.program import Step
from gmml_aug.values import UNIFORM, Values, known_statistics, noise_statistics, pixel_statistics

_OURS = "gmml_aug.fills."  # fills that draw by the law of their operation


class DrawLaw(NamedTuple):
    """How a step draws its numbers for an image."""

    name: Literal["NOTHING", "KEY", "DONOR", "SHIFT", "DONOR_SHIFT", "COLOUR_DRAWN", "COLOUR_FIXED", "GAUSSIAN"]
    low: float = 0.0  # of a uniform number: low + span * u
    span: float = 0.0
    least: int = 0  # of an odd number of taps, and how many of them there are
    values: int = 0


def draw_law(step: Step) -> DrawLaw | None:
    """It is None for a step whose fill draws its own numbers."""
    operation = step.operation
    if not type(step.fill).__module__.startswith(_OURS):
        return None
    if isinstance(operation, Draw):
        return DrawLaw("KEY")
    if isinstance(operation, Take):
        return DrawLaw("SHIFT" if not operation.donor else "DONOR_SHIFT" if operation.moved else "DONOR")
    if isinstance(operation, Convolve):
        (low, high), (least, most) = operation.sigma, operation.taps
        return DrawLaw("GAUSSIAN", low, high - low, least, (most - least) // 2 + 1)
    if isinstance(operation, Colour) and operation.source == "drawn":
        if operation.channels:
            return DrawLaw("COLOUR_FIXED")
        return DrawLaw("COLOUR_DRAWN", operation.low, operation.high - operation.low)
    return DrawLaw("NOTHING") if isinstance(operation, Colour | Mix) else None


class NoiseLaw(NamedTuple):
    """The kind of draw, and the numbers in ``(draw * spread + shift) / divisor``; shifts and divisors have one entry per channel.

    ``"standard"`` noise needs none of these numbers; ``"matched"`` noise uses statistics of each image instead.
    """

    kind: Literal["uniform", "matched", "standard", "normal"]
    spread: float
    shifts: tuple[float, ...]
    divisors: tuple[float, ...]


def noise_law(operation: Draw, like: Tensor, values: Values) -> NoiseLaw:
    """The noise law for images with the dtype and channels of ``like``, as in the reference."""
    mean, std = pixel_statistics(like, values)
    plain = like.dtype != torch.uint8 and values != "unit"
    kind = operation.distribution or ("normal" if plain else "uniform")
    if kind == "uniform":
        return NoiseLaw("uniform", 1.0, tuple(-middle for middle in mean), noise_statistics(like, values)[1])
    if kind == "matched" or (plain and (operation.per == "channel" or values == "normalised")):
        return NoiseLaw("matched" if kind == "matched" else "standard", 1.0, (0.0,) * len(mean), (1.0,) * len(std))
    middle, spread = UNIFORM
    if plain:
        middle, spread = sum(mean) / len(mean), sum(std) / len(std)
    return NoiseLaw("normal", spread, tuple(middle - one for one in mean), std)


class GreyLaw(NamedTuple):
    """Luma is ``sum(weight * x) + shift``, and every channel of the result is ``(luma - mean) / std``."""

    weights: tuple[float, ...]
    shift: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


def grey_law(like: Tensor, values: Values) -> GreyLaw:
    """The grey law for images with the dtype and channels of ``like``."""
    channels = like.shape[1]
    mean, std = known_statistics(like, values) or ((0.0,) * channels, (1.0,) * channels)
    weights = luma_weights(channels)
    shift = float(sum(weight * middle for weight, middle in zip(weights, mean, strict=True)))
    return GreyLaw(tuple(weight * spread for weight, spread in zip(weights, std, strict=True)), shift, mean, std)
