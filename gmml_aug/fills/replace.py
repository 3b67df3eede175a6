"""Fills that replace the content of a group of pixels. Noise is in `noise`; the fills in `colour` and `blur` keep the content."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from gmml_aug.chance import Chance
from gmml_aug.checks import check_choice, check_number, check_pair, check_switch, plain
from gmml_aug.fields import keep, keep_range, pair_of
from gmml_aug.fills.base import Fill
from gmml_aug.ops import Colour, Operation, Take, Tensors


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Zeros(Fill):
    """Zeros: the mean colour of normalised images, black for ``values="unit"`` and uint8.

    Source:
        GMML 2.2 i, "masking with zeros".
    """

    replaces: ClassVar[bool] = True

    def lower(self) -> Operation:
        """One colour."""
        return Colour("zeros")


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Constant(Fill):
    """One value per image and channel.

    Args:
        value: the value, or (low, high) to draw it uniformly, in the value range of the images; rounded and clamped to
            0 to 255 for uint8.
        colour: instead of ``value``, one value for each channel, the same in all images.

    Raises:
        TypeError: ``value`` or ``colour`` is not made of numbers.
        ValueError: a number is not finite, low is above high, or both a value and a colour are given; at the call, the images
            do not have as many channels as the colour.

    Source:
        GMML 2.2 i, "masking with zeros", generalised; the range is our addition.
    """

    value: float | tuple[float, float] = 0.0
    colour: Sequence[float] | None = None
    replaces: ClassVar[bool] = True

    def __post_init__(self) -> None:
        value = plain(self.value)
        if isinstance(value, list | tuple) and len(value) > 2:
            raise ValueError(
                f"Constant: value={value} has {len(value)} entries. Give one number or a pair (low, high); one value per channel "
                "is colour=, for example Constant(colour=(0.485, 0.456, 0.406))."
            )
        keep_range(self, "value", check_pair("Constant", "value", value))
        if self.colour is not None:
            keep(self, "colour", plain(self.colour))
            if not isinstance(self.colour, Sequence) or isinstance(self.colour, str) or not self.colour:
                raise TypeError(f"Constant: colour={self.colour!r} is not a list of numbers. Give one number for each channel.")
            if self.value != 0.0:
                raise ValueError(f"Constant: got both value={self.value} and colour={self.colour}. Give one of them.")
            keep(self, "colour", tuple(check_number("Constant", "colour", value) for value in self.colour))
        super().__post_init__()

    def applies_to(self, shape: Sequence[int], *, donors: int, from_batch: bool) -> bool:
        """Raises ValueError for images whose number of channels differs from the colour's."""
        if self.colour is not None and len(self.colour) != shape[1]:
            raise ValueError(
                f"Constant: colour has {len(self.colour)} numbers, but the images have {shape[1]} channels. Give one number "
                "for each."
            )
        return True

    def draw(self, chance: Chance) -> Tensors:
        """(B, C) float32."""
        if self.colour is not None:
            ones = torch.ones_like(chance.keys, dtype=torch.float32)
            return (torch.stack([ones * value for value in self.colour], dim=1),)
        low, high = pair_of(self.value)
        return (low + (high - low) * chance.uniform(chance.shape[1]),)

    def lower(self) -> Operation:
        """One colour."""
        return Colour("drawn", *pair_of(self.value), channels=tuple(self.colour or ()))


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Alien(Fill):
    """The content of another image; within a step, all boxes of an image take it from the same donor.

    Donors are the clean images of the batch, or those given as ``donors=`` at the call. A donor is never the image itself.

    Args:
        alone: how to handle a batch of one when no donors are given: ``"error"``, or ``"skip"`` to leave it unchanged and mark
            nothing.
        same_place: True to take the content from the same place in the donor; False to take it from another place, drawn once per
            image and step as in `Shuffle`.

    Raises:
        TypeError: ``same_place`` is neither True nor False.
        ValueError: ``alone`` is unknown; at the call, the batch holds one image and ``alone`` is ``"error"``.

    Source:
        GMML 2.2 iii: one random image of the batch gives all the alien content. Excluding the image itself, and taking content
            from another place, are our additions.
    """

    alone: Literal["error", "skip"] = "error"
    same_place: bool = True
    replaces: ClassVar[bool] = True
    reads_donors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("Alien", "alone", self.alone, ("error", "skip"))
        check_switch("Alien", "same_place", self.same_place)
        super().__post_init__()

    def applies_to(self, shape: Sequence[int], *, donors: int, from_batch: bool) -> bool:
        """False for a batch of one that is to be skipped."""
        if from_batch and donors < 2:
            if self.alone == "skip":
                return False
            raise ValueError(
                "Alien: a donor must be another image, but the batch holds 1. Give two images or more (drop_last=True in the "
                "DataLoader; where a transform sees single images, corrupt the batch instead), give donors=, leave it out with "
                'Alien(alone="skip") or presets.gmml(alone="skip"), or use Noise or Grey instead.'
            )
        return True

    def draw(self, chance: Chance) -> Tensors:
        """The (B,) number of each image's donor and, unless ``same_place``, the (B, dims) shift."""
        donor = chance.donor()
        return (donor,) if self.same_place else (donor, _other_place(chance))

    def lower(self) -> Operation:
        """Pixels of the donor."""
        return Take(donor=True, moved=not self.same_place)


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Shuffle(Fill):
    """The content of the same clean image, from another place in it.

    One shift is drawn for each image and step, uniform over all non-zero shifts; content shifted out at one border comes in at
    the opposite one. In images of one pixel nothing is marked.

    Source:
        The release can copy blocks from elsewhere in the image in its current, already corrupted state, each block from a different
        place; the papers do not mention this. Clean content, one common shift and wrapping borders are our choice.
    """

    replaces: ClassVar[bool] = True

    def applies_to(self, shape: Sequence[int], *, donors: int, from_batch: bool) -> bool:
        """False for images of one pixel."""
        return any(side != 1 for side in shape[2:])

    def draw(self, chance: Chance) -> Tensors:
        """The (B, dims) shift."""
        return (_other_place(chance),)

    def lower(self) -> Operation:
        """Pixels of the same image."""
        return Take(donor=False, moved=True)


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Mean(Fill):
    """The mean colour of each clean image, ignoring NaN pixels.

    Source:
        Our addition: the simplest content that keeps the average of the image. The papers use zeros (GMML 2.2 i), which are the
            mean of the data set if images are normalised.
    """

    replaces: ClassVar[bool] = True

    def lower(self) -> Operation:
        """One colour."""
        return Colour("mean")


def _other_place(chance: Chance) -> Tensor:
    """(B, dims) int64, uniform over the non-zero shifts; zero if the image is a single pixel."""
    size = chance.shape[2:]
    pixels = math.prod(size)
    rest = chance.integers(1, pixels - 1 if pixels > 1 else 1, 1)[:, 0]
    shift = []
    for side in reversed(size):
        shift.append(rest % side)
        rest = rest // side
    return torch.stack(shift[::-1], dim=1)
