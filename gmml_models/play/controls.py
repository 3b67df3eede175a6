"""The settings of the page as values, and functions that turn them into a composition.

This module depends neither on pictures nor on the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import gmml_aug
from gmml_aug import (
    Alien,
    Blocks,
    Blur,
    Boxes,
    Cells,
    Chain,
    Corruption,
    Fill,
    Grey,
    InBoxes,
    Jitter,
    Mean,
    Noise,
    OneOf,
    Shuffle,
    Zeros,
)
from gmml_aug.places.boxes import Placement
from gmml_models.figures.corruption_steps import MEAN, STD
from gmml_models.recipes import parse_corruption

OWN = "your own"
PRESETS = tuple(parse_corruption.PRESETS)  # all but those for clips
FILLS: Mapping[str, Callable[[], Fill]] = {
    kind.__name__.lower(): kind for kind in (Noise, Zeros, Mean, Alien, Shuffle, Grey, Blur, Jitter)
}
VALUES = (MEAN, STD)
_OF_BOXES = ("side", "placement", "align")  # what only boxes have

Pair = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """The settings of the page.

    A preset's own setting is `Knobs.of` its name. A knob that differs from it changes the preset's tree: removing a fill removes
    its steps, and an added fill comes last, in its own boxes; ratio, side, placement and align apply to all boxes that are
    painted up to a ratio, and the ratio to cells and blocks as well. Boxes with a count, such as those of grey and blur in
    ``gmml``, do not change.

    Args:
        preset: a name in `PRESETS`, or `OWN` for every fill in its own boxes, one after the other.
        fills: names in `FILLS`; their order matters only with `OWN`.
        choice: with `OWN`, True to apply one of the fills per image instead of all of them.
        ratio: (low, high), the share of the image that a step paints.
        side: (low, high), the share of the image's sides that a box spans.
        placement: as in `gmml_aug.Boxes`.
        align: as in `gmml_aug.Boxes`, in pixels.
        budget: the largest share that the replacing steps touch together; 1.0 means no limit.
    """

    preset: str = OWN
    fills: tuple[str, ...] = ("noise", "alien")
    choice: bool = False
    ratio: Pair = (0.0, 0.35)
    side: Pair = (0.05, 0.25)
    placement: Placement = "wrap"
    align: int = 1
    budget: float = 1.0

    @classmethod
    def of(cls, preset: str) -> Knobs:
        """The knobs of a preset: if its boxes differ, those of the first, and defaults for settings that it does not have.

        Raises:
            ValueError: ``preset`` is neither a name in `PRESETS` nor `OWN`.
        """
        if preset == OWN:
            return cls(preset=OWN)
        tree = _built(preset)
        painted = _painted(tree)
        boxes = next((place for place in painted if isinstance(place, Boxes)), Boxes(ratio=(0.0, 0.35)))
        return cls(
            preset=preset,
            fills=_fills_of(tree),
            ratio=_pair((painted or [boxes])[0].ratio),
            side=_pair(boxes.side),
            placement=boxes.placement,
            align=cast(int, boxes.align),  # the presets have one for all axes
            budget=1.0 if tree.budget is None else tree.budget,
        )

    def composition(self) -> Chain:
        """Build the corruption, for images normalised by ImageNet's statistics.

        Raises:
            ValueError: the composition is impossible (with the library's error), or a name is unknown.
        """
        budget = None if self.budget == 1.0 else self.budget
        if self.preset == OWN:
            parts = [self._in_boxes(name) for name in self.fills]
            return Chain([OneOf(parts)] if self.choice and parts else parts, budget=budget, values=VALUES)
        start = Knobs.of(self.preset)
        tree = _built(self.preset)
        if self == start:
            return tree
        kept = self._changed(tree, start)
        more = [self._in_boxes(name) for name in self.fills if name not in start.fills]
        return Chain([*(kept.parts if isinstance(kept, Chain) else ()), *more], budget=budget, values=VALUES)

    def idle(self) -> tuple[str, ...]:
        """The names of the knobs that were changed without effect, because the composition has no boxes for them."""
        start, painted = Knobs.of(self.preset), _painted(self.composition())
        boxes = any(isinstance(place, Boxes) for place in painted)
        of_none = ("ratio",) * (not painted) + _OF_BOXES * (not boxes)
        return tuple(name for name in of_none if getattr(self, name) != getattr(start, name))

    def _in_boxes(self, fill: str) -> InBoxes:
        if fill not in FILLS:
            raise ValueError(f"gmml play: the fill {fill!r} is unknown. Allowed: {', '.join(FILLS)}.")
        boxes = Boxes(ratio=self.ratio, side=self.side, placement=self.placement, align=self.align)
        return InBoxes(boxes, FILLS[fill]())

    def _changed(self, part: Corruption, start: Knobs) -> Corruption | None:
        """Apply the changed knobs to a part of a preset's tree; None if none of its fills is left."""
        if isinstance(part, InBoxes):
            fill = self._changed(part.fill, start)
            boxes = part.boxes
            if isinstance(boxes, Boxes | Cells | Blocks) and boxes.ratio is not None:
                about = ("ratio", *_OF_BOXES) if isinstance(boxes, Boxes) else ("ratio",)
                turned = {name: getattr(self, name) for name in about if getattr(self, name) != getattr(start, name)}
                boxes = replace(boxes, **turned)
            return None if fill is None else replace(part, boxes=boxes, fill=fill)
        if not isinstance(part, Chain | OneOf):
            return part if type(part).__name__.lower() in self.fills else None
        kept = [child for child in (self._changed(child, start) for child in part.parts) if child is not None]
        return replace(part, parts=kept) if kept else None


def code(corrupt: Corruption, key: int) -> str:
    """Write lines of Python that build an equal corruption and apply it as the page does."""
    lines = f"corrupt = {corrupt!r}\nimages, mask = corrupt(batch, keys=keys({key}, 0, range(len(batch))))"
    names = sorted(name for name in gmml_aug.__all__ if re.search(rf"\b{name}\(", lines))
    return f"from gmml_aug import {', '.join(names)}\n\n{lines}\n"


def _built(preset: str) -> Chain:
    if preset not in PRESETS:
        raise ValueError(f"gmml play: the preset {preset!r} is unknown. Allowed: {', '.join((*PRESETS, OWN))}.")
    tree = getattr(gmml_aug.presets, preset)(values=VALUES)
    assert isinstance(tree, Chain)
    return tree


def _fills_of(tree: Corruption) -> tuple[str, ...]:
    """The names of the fills in the order of `FILLS`, so that lists compare equal whatever the order in which boxes were ticked."""
    used = {name.lower() for name in tree.program.names}
    return tuple(name for name in FILLS if name in used)


def _painted(tree: Corruption) -> list[Boxes | Cells | Blocks]:
    """The places that are painted up to a ratio."""
    places = [place for place in tree.program.places if isinstance(place, Boxes | Cells | Blocks)]
    return [place for place in places if place.ratio is not None]


def _pair(value: float | Pair | None) -> Pair:
    assert value is not None
    low, high = value if isinstance(value, tuple) else (value, value)
    return round(low, 4), round(high, 4)  # what a slider can show
