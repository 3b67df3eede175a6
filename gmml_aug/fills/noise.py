"""Noise that replaces the content; it is drawn when a plan is painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from gmml_aug.chance import Chance
from gmml_aug.checks import check_choice
from gmml_aug.fills.base import Fill
from gmml_aug.ops import Draw, Operation, Tensors


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Noise(Fill):
    """Noise, independent in every pixel and channel.

    By default it is N(0, 1) for normalised images (16 random bits per value: |z| <= 4.33), uniform in (0, 1) for
    ``values="unit"``, and uniform over 0 to 255 for uint8. It is not stored; it is computed from the keys of the plan.

    Args:
        distribution: None for the defaults above, or one distribution for every value range: ``"normal"``: with the mean and
            variance of the normalisation (so N(0, 1) in normalised images), or those of uniform noise for ``values="unit"`` and
            uint8; ``"uniform"``: over the range of the pixels, which for images normalised by unknown statistics means mean 0 and
            variance 1; ``"matched"``: normal, with the mean and standard deviation of each channel of each clean image, ignoring
            NaN pixels.
        per: ``"channel"``, or ``"pixel"`` for one draw that all channels of a pixel share: grey noise. If ``values=(mean, std)`` is
            known, normal grey noise has the average of the channels' means and stds; matched noise keeps those of each channel.

    Values outside the range of ``values="unit"`` and uint8 are clamped.

    Raises:
        ValueError: ``distribution`` or ``per`` is unknown.

    Source:
        GMML 2.2 ii, "masking with noise", and 3.1. The paper does not name the distribution; all of these are our choices.
    """

    distribution: Literal["normal", "uniform", "matched"] | None = None
    per: Literal["channel", "pixel"] = "channel"
    replaces: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.distribution is not None:
            note = ", or None for the default of the value range"
            check_choice("Noise", "distribution", self.distribution, ("normal", "uniform", "matched"), note)
        check_choice("Noise", "per", self.per, ("channel", "pixel"))
        super().__post_init__()

    def draw(self, chance: Chance) -> Tensors:
        """The (B,) key of the stream that determines the noise of each image."""
        return (chance.keys,)

    def lower(self) -> Operation:
        """Return noise with a new value for every pixel."""
        return Draw(self.distribution, self.per)
