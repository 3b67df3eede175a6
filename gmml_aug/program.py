"""The flat program of a composition: a tree is written, a list of steps is run.

A *step* is one fill at one *place* (boxes, or the whole image). Steps that share boxes share a place. A step works on an image if
all its *gates* are open there (``p``, the choice of `OneOf`), and counts for every *budget* around it if it replaces content.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from gmml_aug.backends.cpu.rectangles import Pieces
from gmml_aug.chance import Chance
from gmml_aug.functional import Values
from gmml_aug.places.base import Where

_SMALL = 48 * 48  # pixels
_MOST_STEPS = 255  # `kinds` numbers them in a byte


class Scene(NamedTuple):
    """What a fill sees when it makes its pixels.

    Attributes:
        now: (B, C, *S) as the earlier steps left them; read it, never write to it.
        clean: (B, C, *S) as they came.
        donors: (N, C, *S) where aliens come from: the whole clean batch, or the bank.
        mask: (B, 1, *S) bool: pixels are used only here.
        values: the value range, see `gmml_aug.functional`.
        compact: True on the CPU outside compiled code: there shapes may follow from data.
        pieces: on the CPU, where rectangles are the mask and few: these rectangles, since writing them one by one is cheapest.
    """

    now: Tensor
    clean: Tensor
    donors: Tensor
    mask: Tensor
    values: Values
    compact: bool
    pieces: Pieces | None = None

    @property
    def small(self) -> bool:
        """True for images whose boxes cost more calls than work: all of them at once are then cheaper."""
        return self.mask[0].numel() <= _SMALL

    @property
    def windows(self) -> Pieces | None:
        """The pieces where every image has one, and to look at nothing else is cheaper."""
        return None if self.small or self.pieces is None or not self.pieces.one_an_image else self.pieces


class Filling(Protocol):
    """What a step needs of its fill; `gmml_aug.Fill` documents it."""

    @property
    def replaces(self) -> bool:
        """True if nothing of the content is kept."""

    @property
    def foreign(self) -> bool:
        """True if it reads the donors."""

    def works(self, shape: Sequence[int], *, donors: int, own: bool) -> bool:
        """False if it cannot change images of this shape."""

    def draw(self, chance: Chance) -> tuple[Tensor, ...]:
        """Its share of the plan."""

    def pixels(self, scene: Scene, drawn: tuple[Tensor, ...]) -> Tensor:
        """The new pixels."""

    def put(self, scene: Scene, drawn: tuple[Tensor, ...]) -> None:
        """Write them."""


class Gate(NamedTuple):
    """Open where uniform draw number ``draw`` of an image lies in low <= u < high."""

    draw: int
    low: float
    high: float


class Context(NamedTuple):
    """What surrounds a node of the tree."""

    place: int | None = None
    gates: tuple[Gate, ...] = ()
    budgets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """One fill at one place."""

    fill: Filling
    place: int
    gates: tuple[Gate, ...]
    budgets: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """What `sample` and `apply` walk."""

    steps: tuple[Step, ...]
    places: tuple[Where | None, ...]  # None: the whole image
    twins: tuple[int, ...]  # for each place the first one that is equal to it
    budgets: tuple[float, ...]
    gates: int
    values: Values
    dims: int
    fingerprint: str  # of everything that a plan is read by: steps, places, gates, budgets; not of `values`

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fills, step by step."""
        return tuple(type(step.fill).__name__ for step in self.steps)

    @property
    def foreign(self) -> bool:
        """True if a step reads other images."""
        return any(step.fill.foreign for step in self.steps)

    def steps_at(self, place: int) -> list[int]:
        """Numbers of the steps at a place."""
        return [number for number, step in enumerate(self.steps) if step.place == place]

    def cell_at(self, place: int) -> int:
        """Edge of the grid that the boxes of a place keep to, 1 if there is none: a budget may have cut the last one."""
        where = self.places[place]
        cut = any(step.budgets and step.fill.replaces for step in self.steps if step.place == place)
        return 1 if where is None or cut else where.cell

    def check_channels(self, channels: int) -> None:
        """Raise ValueError if the statistics given as ``values`` are for another number of channels."""
        if not isinstance(self.values, str) and len(self.values[0]) not in (1, channels):
            raise ValueError(
                f"gmml_aug: values=(mean, std) has {len(self.values[0])} channels, the images have {channels}. Give one "
                "number, or one per channel."
            )


@dataclass
class Writer:
    """Collects the flat program while the tree is walked."""

    steps: list[Step] = field(default_factory=list)
    places: list[Where | None] = field(default_factory=list)
    budgets: list[float] = field(default_factory=list)
    gates: int = 0
    values: Values | None = None
    dims: int | None = None
    along: dict[int, tuple[int, ...]] = field(default_factory=dict)  # the shared axes of what each budget counts

    def place(self, boxes: Where | None) -> int:
        """A new place; its number."""
        if boxes is not None:
            self.declare_dims(boxes.dims, type(boxes).__name__)
        self.places.append(boxes)
        return len(self.places) - 1

    def gate(self) -> int:
        """A new uniform draw per image; its number."""
        self.gates += 1
        return self.gates - 1

    def budget(self, share: float) -> int:
        """A new budget; its number."""
        self.budgets.append(share)
        return len(self.budgets) - 1

    def step(self, fill: Filling, at: Context) -> None:
        """Append a step."""
        place = self.place(None) if at.place is None else at.place
        self.steps.append(Step(fill, place, at.gates, at.budgets))
        if fill.replaces and at.budgets:
            self._check_budgets(at.budgets, self.places[place])
        if len(self.steps) > _MOST_STEPS:
            raise ValueError(
                f"Chain: more than {_MOST_STEPS} steps. `kinds` numbers them in a byte; use several corruptions in a row."
            )

    def _check_budgets(self, budgets: tuple[int, ...], where: Where | None) -> None:
        """A budget is a union of boxes: of boxes, not of what lies outside them, and all along the same axes."""
        if where is not None and where.invert:
            raise ValueError(
                f"Chain: budget with {where!r}, which corrupts outside its boxes. Leave out the budget, or state the ratio of the "
                "boxes that are kept so that it holds by itself."
            )
        shared = () if where is None else where.shared
        for budget in budgets:
            if self.along.setdefault(budget, shared) != shared:
                raise ValueError(
                    f"Chain: budget over boxes with shared={shared} and with shared={self.along[budget]}. Give them the same, or "
                    "budgets of their own."
                )

    def declare_dims(self, dims: int, who: str) -> None:
        """All boxes of a tree have the same number of spatial axes."""
        if self.dims not in (None, dims):
            raise ValueError(f"{who}: dims={dims} in one composition with dims={self.dims}. Give the same dims everywhere.")
        self.dims = dims

    def declare_values(self, values: Values) -> None:
        """A batch has one value range."""
        if self.values not in (None, values):
            raise ValueError(
                f"Chain: values={values!r} inside values={self.values!r}. A batch has one value range: give it once, outside."
            )
        self.values = values

    def finish(self) -> Program:
        """The program."""
        steps = [(_settings(step.fill), step.place, step.gates, step.budgets) for step in self.steps]
        structure = (self.dims or 2, steps, [_settings(place) for place in self.places], self.budgets)
        return Program(
            steps=tuple(self.steps),
            places=tuple(self.places),
            twins=tuple(self.places.index(place) for place in self.places),
            budgets=tuple(self.budgets),
            gates=self.gates,
            values=self.values or "normalised",
            dims=self.dims or 2,
            fingerprint=hashlib.sha256(repr(structure).encode()).hexdigest()[:16],
        )


def _settings(part: object) -> tuple[Any, ...]:
    """A fill or place by its class and the settings that differ from the defaults, so that a later default changes nothing."""
    if dataclasses.is_dataclass(part):
        fields = [(one.name, getattr(part, one.name), one.default) for one in dataclasses.fields(part)]
        told = [(name, value) for name, value, default in fields if value != default]
    else:
        told = (
            sorted((name, value) for name, value in vars(part).items() if name != "_program") if hasattr(part, "__dict__") else []
        )
    return (type(part).__qualname__, *told)


def drawn_by(fill: Filling, chance: Chance) -> tuple[Tensor, ...]:
    """What a fill draws, or an error if it is not a tuple of tensors whose first axis is the batch.

    Raises:
        TypeError: anything else came.
    """
    drawn = cast(object, fill.draw(chance))
    batch = chance.keys.shape[0]
    if isinstance(drawn, tuple) and all(isinstance(one, Tensor) and one.ndim and one.shape[0] == batch for one in drawn):
        return drawn
    parts = drawn if isinstance(drawn, tuple) else (drawn,)
    came = ", ".join(f"a tensor of shape {tuple(one.shape)}" if isinstance(one, Tensor) else type(one).__name__ for one in parts)
    raise TypeError(
        f"{type(fill).__name__}: draw returned {came}{'' if isinstance(drawn, tuple) else ', not in a tuple'}. Return a tuple of "
        f"tensors with one entry per image along their first axis ({batch} here), for example (chance.uniform(1),)."
    )


def pixels_by(fill: Filling, scene: Scene, drawn: tuple[Tensor, ...]) -> Tensor:
    """The pixels that a fill makes, or an error if it writes to what it should only read, or makes what does not fit.

    Raises:
        TypeError: no tensor came.
        ValueError: it wrote to the scene, or its pixels do not broadcast to the images.
    """
    watched = () if torch.compiler.is_compiling() else (scene.now, scene.clean, scene.donors)
    before = [_version(one) for one in watched]
    made = cast(object, fill.pixels(scene, drawn))
    who, shape = type(fill).__name__, tuple(scene.now.shape)
    if before != [_version(one) for one in watched]:
        raise ValueError(
            f"{who}: pixels wrote to scene.now, scene.clean or scene.donors, which are only to be read: pixels outside the mask, "
            "or the caller's own images, would change. Return new pixels: scene.now * 2, not scene.now.mul_(2)."
        )
    if not isinstance(made, Tensor):
        raise TypeError(f"{who}: pixels returned {type(made).__name__}. Return a tensor that broadcasts to {shape}.")
    lengths = list(zip(reversed(made.shape), reversed(shape), strict=False))
    if made.ndim > len(shape) or any(length not in (1, wanted) for length, wanted in lengths):
        raise ValueError(f"{who}: pixels returned shape {tuple(made.shape)}, which does not broadcast to the images, {shape}.")
    return made


def _version(images: Tensor) -> int:
    """How often torch has written to this memory; inference tensors do not count it."""
    return -1 if images.is_inference() else images._version
