"""Published mixtures by name, each with its source."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from gmml_aug.boxes import Boxes
from gmml_aug.checks import check_number
from gmml_aug.combine import Chain, InBoxes, OneOf
from gmml_aug.fills import Alien, Blur, Grey, Noise, Zeros
from gmml_aug.functional import Values


def gmml(
    *, values: Values | None = None, zeros: float = 0.0, budget: float | None = None, alone: Literal["error", "skip"] = "error"
) -> Chain:
    """GMML's recipe: noise, then alien content, then one grey and one blurred box, one after the other.

    Noise covers 0 to 35 % of an image and alien content another 0 to 35 %, in boxes with sides of 5 to 25 % of the image's; one
    box with sides of 5 to 100 % is turned grey, and one is blurred with sigma 0.1 to 1.1 and a kernel of 3 to 15 taps. Boxes
    may overlap.

    Args:
        values: the value range of float images, see `Chain`; give ``(mean, std)`` for normalised images.
        zeros: share of the images that draw zeros instead of noise.
        budget: largest share that noise and alien content may cover together; 0.7 is where it ends by itself.
        alone: what `Alien` does with a batch of one.

    Source:
        GMML 3.1 for every number and the order; 2.2 iii for the one donor. "Noise or zeros" in 3.1 is read as a choice per image;
        noise alone is the default because the combination of noise and alien did best in 3.3.1 (figure 5). That the grey and
        the blurred box lie whole in the image, and happen to every image, is our reading.
    """
    share = check_number("presets.gmml", "zeros", zeros, 0.0, 1.0)
    noise = Noise() if share == 0.0 else Zeros() if share == 1.0 else OneOf([Zeros(), Noise()], weights=[share, 1.0 - share])
    some = Boxes(ratio=(0.0, 0.35), side=(0.05, 0.25))
    one = Boxes(count=1, side=(0.05, 1.0), placement="inside")
    return Chain(
        [
            InBoxes(some, noise),
            InBoxes(some, Alien(alone=alone)),
            InBoxes(one, Grey()),
            InBoxes(one, Blur(sigma=(0.1, 1.1), kernel=(3, 15))),
        ],
        budget=budget,
        values=values,
    )


def gmml_reference(*, values: Values | None = None, alone: Literal["error", "skip"] = "error") -> Chain:
    """The behaviour of the authors' release: per image either noise or alien content, with equal chance.

    Noise covers a share drawn from 50 to 75 %, alien content 30 %; sides reach from 1 pixel to 30 % of the image; painting stops
    with the whole box that passes the share; corners never reach the last row and column, and boxes are clipped at the borders,
    so that the upper left is covered less. A donor is never the image itself here, which the release allows.

    Args:
        values: the value range of float images, see `Chain`.
        alone: what `Alien` does with a batch of one.

    Source:
        The observed behaviour of the release, not the paper; held against recorded statistics of it.
    """
    noise = Boxes(ratio=(0.5, 0.75), side=(0.0, 0.3), overshoot=True, placement="origin")
    alien = replace(noise, ratio=0.3)
    return Chain([OneOf([InBoxes(noise, Noise()), InBoxes(alien, Alien(alone=alone))])], values=values)


def sit(*, values: Values | None = None, alone: Literal["error", "skip"] = "error") -> Chain:
    """The behaviour of SiT's release: per image either zeros or alien content, with equal chance.

    Zeros cover 50 %, alien content 30 %, in the boxes of `gmml_reference`: whole boxes until the share is passed, clipped at the
    borders. A donor is never the image itself here, which the release allows.

    Args:
        values: the value range of float images, see `Chain`.
        alone: what `Alien` does with a batch of one.

    Source:
        The observed behaviour of the release, whose share is drawn between min(0.5, largest) and the largest: 0.5 and 0.3 are
        met exactly, but for the overshoot. No text of the paper was at hand.
    """
    zeros = Boxes(ratio=0.5, side=(0.0, 0.3), overshoot=True, placement="origin")
    alien = replace(zeros, ratio=0.3)
    return Chain([OneOf([InBoxes(zeros, Zeros()), InBoxes(alien, Alien(alone=alone))])], values=values)


_PRESETS = {"gmml": gmml, "gmml_reference": gmml_reference, "sit": sit}


def names() -> list[str]:
    """The names of all presets; each is a function of this module."""
    return sorted(_PRESETS)
