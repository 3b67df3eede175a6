"""How much, and in which order: fills in boxes, one of several fills, or several in succession under a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import accumulate
from typing import final

from gmml_aug.checks import check_integer, check_number, check_values, plain
from gmml_aug.corruption import Corruption
from gmml_aug.fields import keep
from gmml_aug.places.base import Place
from gmml_aug.program import Budget, Builder, Gate, Scope
from gmml_aug.values import Values


@final
@dataclass(frozen=True, repr=False)
class InBoxes(Corruption):
    """A fill in boxes.

    Args:
        boxes: where the fill works: `Boxes`, `Cells`, `Blocks`, or a `Place` of your own.
        fill: the content: a fill, or `OneOf` or `Chain` of fills, which then share the boxes.
        p: probability that an image is corrupted.

    Raises:
        TypeError: ``boxes`` is not a place, or ``fill`` is not a corruption.
        ValueError: ``p`` is outside [0, 1], or boxes are nested inside boxes.
    """

    boxes: Place
    fill: Corruption
    _: KW_ONLY
    p: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.boxes, Place):
            raise TypeError(
                f"InBoxes: boxes={self.boxes!r} is not a place. Give Boxes, Cells or Blocks, for example "
                "Boxes(ratio=0.5), or a place of your own (see gmml_aug.Place)."
            )
        _check_part("InBoxes", self.fill)
        keep(self, "p", check_number("InBoxes", "p", self.p, 0.0, 1.0))
        super().__post_init__()

    def build(self, program: Builder, at: Scope) -> None:
        """Add a place, and a gate if ``p`` is below 1."""
        if at.place is not None:
            raise ValueError(
                "InBoxes: boxes cannot be nested in boxes. Fills share the boxes around them: put only fills, OneOf or "
                "Chain inside."
            )
        gates = at.gates if self.p == 1.0 else (*at.gates, Gate(program.gate(), 0.0, self.p))
        self.fill.build(program, at._replace(place=program.place(self.boxes), gates=gates))


@final
@dataclass(frozen=True, repr=False)
class OneOf(Corruption):
    """Apply one of the parts to each image, chosen at random.

    Args:
        parts: the corruptions to choose from.
        weights: the relative probabilities of the parts; equal by default.

    Raises:
        TypeError: a part is not a corruption, or a weight is not a number.
        ValueError: there are no parts; there are not as many weights as parts; or weights are negative or all zero.
    """

    parts: Sequence[Corruption]
    _: KW_ONLY
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _keep_parts(self, self.parts)
        if self.weights is not None:
            keep(self, "weights", plain(self.weights))
            if not isinstance(self.weights, Sequence):
                raise TypeError(
                    f"OneOf: weights={self.weights!r} is not a list. Give one number per part, for example weights=[3, 1]."
                )
            weights = tuple(check_number("OneOf", "weights", weight, 0.0) for weight in self.weights)
            if len(weights) != len(self.parts) or max(weights, default=0.0) <= 0.0:
                raise ValueError(
                    f"OneOf: weights={weights} for {len(self.parts)} parts. Give one number per part, 0 or more, not all 0."
                )
            keep(self, "weights", weights)
        super().__post_init__()

    def build(self, program: Builder, at: Scope) -> None:
        """Add the parts, each with a gate on one common draw."""
        weights: Sequence[float] = self.weights or (1.0,) * len(self.parts)
        if math.isinf(sum(weights)):
            weights = [weight / max(weights) for weight in weights]
        ends = [end / sum(weights) for end in accumulate(weights)]
        ends[-1] = 1.0
        draw = program.gate()
        for part, low, high in zip(self.parts, [0.0, *ends], ends, strict=False):
            part.build(program, at._replace(gates=(*at.gates, Gate(draw, low, high))))


@final
@dataclass(frozen=True, repr=False)
class Chain(Corruption):
    """Apply the parts one after the other, each to the result of the earlier ones; they may overlap.

    Args:
        parts: the corruptions, in order.
        budget: the largest share of an image that the replacing steps inside (noise, zeros, constant, mean, alien, shuffle) may
            touch together: never more than floor(budget * pixels). A step stops at the pixel that reaches the limit. Grey, blur
            and jitter keep content and do not count.
        values: the value range of float images: ``(mean, std)`` that they were normalised by, ``"normalised"`` if these are
            unknown (the default of a whole composition), or ``"unit"`` for 0 to 1. uint8 images are always 0 to 255. Set it once,
            on the outermost composition.
        dims: number of spatial axes, if there are no boxes that determine it; 2 by default.

    Raises:
        TypeError: a part is not a corruption, or the budget is not a number.
        ValueError: there are no parts, the budget is outside [0, 1], the values are unknown, or dims differ from those of the
            boxes inside.

    Source:
        GMML 3.1, "the corruption is applied successively, which may result in an overlap"; the budget is our addition.
    """

    parts: Sequence[Corruption]
    _: KW_ONLY
    budget: float | None = None
    values: Values | None = None
    dims: int | None = None

    def __post_init__(self) -> None:
        _keep_parts(self, self.parts)
        if self.budget is not None:
            keep(self, "budget", check_number("Chain", "budget", self.budget, 0.0, 1.0))
        if self.values is not None:
            keep(self, "values", check_values("Chain", self.values))
        if self.dims is not None:
            keep(self, "dims", check_integer("Chain", "dims", self.dims, 1, 3))
        super().__post_init__()

    def build(self, program: Builder, at: Scope) -> None:
        """Add the parts in their order, under the budget of this chain if it has one."""
        if self.dims is not None:
            program.declare_dims(self.dims, "Chain")
        if self.values is not None:
            program.declare_values(self.values)
        budgets = at.budgets
        if self.budget is not None:
            budgets = (*budgets, Budget(program.budget(self.budget), lambda fill: fill.replaces))
        for part in self.parts:
            part.build(program, at._replace(budgets=budgets))


def _check_part(who: str, part: object) -> None:
    if not isinstance(part, Corruption):
        hint = f" Did you mean {part.__name__}()?" if isinstance(part, type) and issubclass(part, Corruption) else ""
        raise TypeError(f"{who}: {part!r} is not a corruption. Give a fill such as Noise(), or InBoxes, OneOf or Chain.{hint}")


def _keep_parts(owner: OneOf | Chain, parts: object) -> None:
    who = type(owner).__name__
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        raise TypeError(f"{who}: parts={parts!r} is not a list. Give a list of corruptions, for example {who}([Noise()]).")
    if not parts:
        raise ValueError(f"{who}: the list of parts is empty. Give at least one corruption.")
    for part in parts:
        _check_part(who, part)
    keep(owner, "parts", tuple(parts))
