"""What goes into a group of pixels in place of what was there; for content that stays see `colour` and `blurring`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from gmml_aug.chance import Chance
from gmml_aug.checks import check_pair
from gmml_aug.colours import average, take_shifted
from gmml_aug.corruption import Fill
from gmml_aug.fields import written
from gmml_aug.functional import column, like, take_donors
from gmml_aug.places.boxes import keep
from gmml_aug.plan import Tensors
from gmml_aug.program import Scene


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Zeros(Fill):
    """Zeros: the mean colour of normalised images, black for ``values="unit"`` and uint8.

    Source:
        GMML 2.2 i, "masking with zeros".
    """

    replaces: ClassVar[bool] = True
    __repr__ = written

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """One zero, broadcast where it lands."""
        return scene.now.new_zeros(())


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Constant(Fill):
    """One value per image and channel.

    Args:
        value: the value, or (low, high) to draw it from uniformly, in the value range of the images; rounded and clamped to
            0 to 255 for uint8.

    Raises:
        TypeError: ``value`` is not made of numbers.
        ValueError: ``value`` is not finite, or low is above high.

    Source:
        GMML 2.2 i, "masking with zeros", made general; the range is our addition.
    """

    value: float | tuple[float, float] = 0.0
    replaces: ClassVar[bool] = True
    __repr__ = written

    def __post_init__(self) -> None:
        keep(self, "value", check_pair("Constant", "value", self.value))
        super().__post_init__()

    def draw(self, chance: Chance) -> Tensors:
        """(B, C) float32."""
        low, high = self.value if isinstance(self.value, tuple) else (self.value, self.value)
        return (low + (high - low) * chance.uniform(chance.shape[1]),)

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """(B, C, 1, ...), broadcast where it lands."""
        return like(column(drawn[0], scene.now.ndim), scene.now)


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Alien(Fill):
    """Content of another image; all of an image's boxes at this step come from one donor.

    Donors are the clean images of the batch, or those given as ``donors=`` at the call. A donor is never the image itself.

    Args:
        alone: what to do with a batch of one and no donors given: ``"error"``, or ``"skip"`` to leave it as it is and mark nothing.
        same_place: take the content from the same place in the donor; False: from another one, drawn once per image and step as
            in `Shuffle`.

    Raises:
        TypeError: ``same_place`` is neither True nor False.
        ValueError: ``alone`` is neither; at the call, a batch of one with ``alone="error"``.

    Source:
        GMML 2.2 iii: one random image of the batch gives all the alien content. Excluding the image itself, and the content from
        another place, are ours.
    """

    alone: Literal["error", "skip"] = "error"
    same_place: bool = True
    replaces: ClassVar[bool] = True
    foreign: ClassVar[bool] = True
    __repr__ = written

    def __post_init__(self) -> None:
        if self.alone not in ("error", "skip"):
            raise ValueError(f"Alien: alone={self.alone!r} is unknown. Allowed are 'error' and 'skip'.")
        if not isinstance(self.same_place, bool):
            raise TypeError(f"Alien: same_place={self.same_place!r} is no switch. Give True or False.")
        super().__post_init__()

    def works(self, shape: Sequence[int], *, donors: int, own: bool) -> bool:
        """False for a batch of one that is to be skipped."""
        if own and donors < 2:
            if self.alone == "skip":
                return False
            raise ValueError(
                "Alien: a donor must be another image, but the batch holds 1. Give two images or more (drop_last=True in the "
                'DataLoader), give donors=, leave it out with Alien(alone="skip"), or use Noise or Grey instead.'
            )
        return True

    def draw(self, chance: Chance) -> Tensors:
        """The (B,) number of each image's donor; unless at the same place, the (B, dims) shift too."""
        donor = chance.donor()
        return (donor,) if self.same_place else (donor, _other_place(chance))

    def put(self, scene: Scene, drawn: Tensors) -> None:
        """Box by box where these are few."""
        if scene.pieces is None or len(drawn) > 1:
            super().put(scene, drawn)
            return
        scene.pieces.copy(scene.now, scene.donors, drawn[0].tolist())

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """The donors."""
        if len(drawn) == 1:  # the plan decides, whichever `Alien` applies it
            return take_donors(scene.donors, drawn[0])
        return take_shifted(scene.donors, drawn[0], drawn[1], used=_used(scene))


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Shuffle(Fill):
    """Content of the same clean image from another place.

    One shift is drawn for each image and step, uniform over all but the one that moves nothing; what leaves the image at one
    border enters at the opposite one. Images of one pixel have no other place: nothing is marked.

    Source:
        The release can copy blocks from elsewhere in the image, already corrupted as it then is, each from a place of its own;
        the papers do not say so. The clean content, the common shift and the borders that wrap are ours.
    """

    replaces: ClassVar[bool] = True
    __repr__ = written

    def works(self, shape: Sequence[int], *, donors: int, own: bool) -> bool:
        """False for images of one pixel."""
        return any(side != 1 for side in shape[2:])

    def draw(self, chance: Chance) -> Tensors:
        """The (B, dims) shift."""
        return (_other_place(chance),)

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """The clean images, shifted."""
        return take_shifted(scene.clean, None, drawn[0], used=_used(scene))


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Mean(Fill):
    """The mean colour of each clean image.

    Source:
        Ours: the easiest content to tell from the image that keeps its average. The papers have zeros (GMML 2.2 i), the mean of
        the data set where images are normalised.
    """

    replaces: ClassVar[bool] = True
    __repr__ = written

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """(B, C, 1, ...), broadcast where it lands."""
        return like(column(average(scene.clean), scene.now.ndim), scene.now)


def _other_place(chance: Chance) -> Tensor:
    """(B, dims) int64, uniform over the shifts that move something; all zero where nothing can be moved."""
    size = chance.shape[2:]
    pixels = math.prod(size)
    rest = chance.integers(1, pixels - 1 if pixels > 1 else 1, 1)[:, 0]
    shift = []
    for side in reversed(size):
        shift.append(rest % side)
        rest = rest // side
    return torch.stack(shift[::-1], dim=1)


def _used(scene: Scene) -> Tensor | None:
    return scene.mask.flatten(1).any(1) if scene.compact else None
