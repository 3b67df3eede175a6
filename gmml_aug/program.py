"""The flat program of a composition: it is written as a tree, and run as a list of steps.

A *step* is one fill at one *place* (boxes, or the whole image). Steps that share boxes share a place. A step works on an image if
all its *gates* are open there (``p``, the choice of `OneOf`), and under every *budget* around it that counts its fill.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from gmml_aug.fields import settings
from gmml_aug.ops import Operation
from gmml_aug.places.base import Place
from gmml_aug.plan import Resolved
from gmml_aug.values import Values

if TYPE_CHECKING:
    from gmml_aug.fills.base import Fill

_MOST_STEPS = 255  # `kinds` numbers them in a byte


class Gate(NamedTuple):
    """A gate that is open for an image if its uniform draw number ``draw`` lies in low <= u < high."""

    draw: int
    low: float
    high: float


class Budget(NamedTuple):
    """A budget around a node: its number, and the rule that decides whether a fill counts towards it."""

    number: int
    counts: Callable[[Fill], bool]


class Scope(NamedTuple):
    """The context of a node in the tree."""

    place: int | None = None
    gates: tuple[Gate, ...] = ()
    budgets: tuple[Budget, ...] = ()


@dataclass(frozen=True)
class Step:
    """One fill at one place."""

    fill: Fill
    operation: Operation
    place: int
    gates: tuple[Gate, ...]
    budgets: tuple[int, ...]  # those that count it


@dataclass(frozen=True)
class Program:
    """The flat program that `sample` and `apply` walk."""

    steps: tuple[Step, ...]
    places: tuple[Place | None, ...]  # None: the whole image
    steps_at: tuple[tuple[int, ...], ...]  # for each place the numbers of its steps
    first_equal: tuple[int, ...]  # for each place the first one that is equal to it
    budgets: tuple[float, ...]
    gates: int
    values: Values
    dims: int
    fingerprint: str  # of all that a plan is read by: steps, places, gates, budgets; not of ``values``
    working: dict[Any, tuple[bool, ...]] = field(default_factory=dict, compare=False, repr=False)  # by shapes that were checked

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the fill of every step."""
        return tuple(type(step.fill).__name__ for step in self.steps)

    @property
    def reads_donors(self) -> bool:
        """True if a step reads other images."""
        return any(step.fill.reads_donors for step in self.steps)

    def budgets_at(self, place: int) -> tuple[int, ...]:
        """The budgets that may cut the boxes of a place."""
        return tuple(sorted({budget for step in self.steps_at[place] for budget in self.steps[step].budgets}))

    def grid_at(self, place: int) -> tuple[int, ...]:
        """Edges of the grid that the boxes of a place keep to; 1 if there is no grid, or if a budget may have cut the last box."""
        where = self.places[place]
        return (1,) * self.dims if where is None or self.budgets_at(place) else where.grid

    @property
    def resolved(self) -> Resolved:
        """For every place, the edges of its grid and whether its steps work outside; a plan may override this."""
        return tuple((self.grid_at(n), where is not None and where.invert) for n, where in enumerate(self.places))


@dataclass
class Builder:
    """Collects the flat program while the tree is walked."""

    steps: list[Step] = field(default_factory=list)
    places: list[Place | None] = field(default_factory=list)
    budgets: list[float] = field(default_factory=list)
    gates: int = 0
    values: Values | None = None
    dims: int | None = None
    along: dict[int, tuple[int, ...]] = field(default_factory=dict)  # the shared axes of what each budget counts

    def place(self, where: Place | None) -> int:
        """Add a place, and return its number."""
        if where is not None:
            self.declare_dims(where.dims, type(where).__name__)
        self.places.append(where)
        return len(self.places) - 1

    def gate(self) -> int:
        """Add a uniform draw per image, and return its number."""
        self.gates += 1
        return self.gates - 1

    def budget(self, share: float) -> int:
        """Add a budget, and return its number."""
        self.budgets.append(share)
        return len(self.budgets) - 1

    def step(self, fill: Fill, at: Scope) -> None:
        """Append a step, under the budgets that count its fill."""
        place = self.place(None) if at.place is None else at.place
        budgets = tuple(budget.number for budget in at.budgets if budget.counts(fill))
        self.steps.append(Step(fill, fill.lower(), place, at.gates, budgets))
        if budgets:
            self._check_budgets(budgets, self.places[place])
        if len(self.steps) > _MOST_STEPS:
            raise ValueError(
                f"Chain: more than {_MOST_STEPS} steps. `kinds` stores their numbers in a byte; use several corruptions in a row."
            )

    def _check_budgets(self, budgets: tuple[int, ...], where: Place | None) -> None:
        """Check that a budget limits a union of boxes (not of what lies outside them), all with the same shared axes."""
        if where is not None and where.invert:
            raise ValueError(
                f"Chain: budget with {where!r}, which corrupts outside its boxes. Leave out the budget, or choose the ratio of "
                "the boxes so that the limit holds without one."
            )
        shared = () if where is None else where.shared
        for budget in budgets:
            if self.along.setdefault(budget, shared) != shared:
                raise ValueError(
                    f"Chain: budget over boxes with shared={shared} and with shared={self.along[budget]}. Give them the same axes, "
                    f"or separate budgets."
                )

    def declare_dims(self, dims: int, who: str) -> None:
        """Check that all boxes of a tree have the same number of spatial axes."""
        if self.dims not in (None, dims):
            raise ValueError(f"{who}: dims={dims} in the same composition as dims={self.dims}. Give the same dims everywhere.")
        self.dims = dims

    def declare_values(self, values: Values) -> None:
        """Check that the tree has one value range."""
        if self.values not in (None, values):
            raise ValueError(
                f"Chain: values={values!r} inside values={self.values!r}. A batch has one value range: give it once, on the "
                f"outermost composition."
            )
        self.values = values

    def finish(self) -> Program:
        """The program."""
        steps = [(settings(step.fill), step.place, step.gates, step.budgets) for step in self.steps]
        structure = (self.dims or 2, steps, [settings(place) for place in self.places], self.budgets)
        at = [tuple(n for n, step in enumerate(self.steps) if step.place == place) for place in range(len(self.places))]
        return Program(
            steps=tuple(self.steps),
            places=tuple(self.places),
            steps_at=tuple(at),
            first_equal=tuple(self.places.index(place) for place in self.places),
            budgets=tuple(self.budgets),
            gates=self.gates,
            values=self.values or "normalised",
            dims=self.dims or 2,
            fingerprint=hashlib.sha256(repr(structure).encode()).hexdigest()[:16],
        )


def counted(program: Program, active: Tensor, place: int) -> dict[int, Tensor]:
    """For every budget that counts steps at a place, (B,) bool: True if a step of the image at that place uses it."""
    found: dict[int, Tensor] = {}
    for number in program.steps_at[place]:
        for budget in program.steps[number].budgets:
            found[budget] = found[budget] | active[:, number] if budget in found else active[:, number]
    return found
