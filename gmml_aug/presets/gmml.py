"""GMML's recipe, its ablations, and the recipes of the related methods SiT and MC-SSL."""

from __future__ import annotations

from typing import Literal

from gmml_aug.checks import check_choice, check_number
from gmml_aug.compose import Chain, InBoxes, OneOf
from gmml_aug.corruption import Corruption
from gmml_aug.fills.blur import Blur
from gmml_aug.fills.colour import Grey, Jitter
from gmml_aug.fills.noise import Noise
from gmml_aug.fills.replace import Alien, Zeros
from gmml_aug.places.base import Range
from gmml_aug.places.boxes import Boxes
from gmml_aug.values import Values


def gmml(
    *, values: Values | None = None, zeros: float = 0.0, budget: float | None = None, alone: Literal["error", "skip"] = "error"
) -> Chain:
    """GMML's recipe: noise, then alien content, then one grey and one blurred box, one after the other.

    Noise covers 0 to 35 % of an image and alien content another 0 to 35 %, in boxes with sides of 5 to 25 % of the image's; one
    box with sides of 5 to 100 % is turned grey, and one is blurred with sigma 0.1 to 1.1 and a kernel of 3 to 15 taps. Boxes
    may overlap.

    Args:
        values: the value range of float images; see `Chain`; give ``(mean, std)`` for normalised images.
        zeros: share of the images that get zeros instead of noise.
        budget: largest share that noise and alien content may cover together; without it, they cover at most 0.7.
        alone: how `Alien` handles a batch of one.

    Source:
        GMML 3.1 for every number and the order; 2.2 iii for the single donor. "Noise or zeros" in 3.1 is read as a choice per
        image;
        noise alone is the default because the combination of noise and alien content did best in 3.3.1 (figure 5). That the grey
        and the blurred box lie completely inside the image and occur in every image is our interpretation.
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
    """The behaviour of the authors' release: per image either noise or alien content, with equal probability.

    Noise covers a share drawn from 50 to 75 %, alien content 30 %; sides reach from 1 pixel to 30 % of the image; painting stops
    with the whole box that passes the share; corners never reach the last row and column, and boxes are clipped at the borders,
    so that the upper left is covered less often. Unlike in the release, a donor is never the image itself.

    Args:
        values: the value range of float images; see `Chain`.
        alone: how `Alien` handles a batch of one.

    Source:
        The observed behaviour of the release, not the paper; it was compared with recorded statistics of the release.
    """
    parts = [InBoxes(_of_the_release((0.5, 0.75)), Noise()), InBoxes(_of_the_release(0.3), Alien(alone=alone))]
    return Chain([OneOf(parts)], values=values)


def _of_the_release(ratio: Range) -> Boxes:
    return Boxes(ratio=ratio, side=(0.0, 0.3), overshoot=True, placement="origin")


def sit(*, values: Values | None = None, alone: Literal["error", "skip"] = "error") -> Chain:
    """The behaviour of SiT's release: per image either zeros or alien content, with equal probability.

    Zeros cover 50 %, alien content 30 %, in the boxes of `gmml_reference`: whole boxes until the share is passed, clipped at the
    borders. Unlike in the release, a donor is never the image itself.

    Args:
        values: the value range of float images; see `Chain`.
        alone: how `Alien` handles a batch of one.

    Source:
        The observed behaviour of the release, whose share is drawn between min(0.5, largest) and the largest: so the shares are
        exactly 0.5 and 0.3, apart from the overshoot. The text of the paper was not available to us.
    """
    parts = [InBoxes(_of_the_release(0.5), Zeros()), InBoxes(_of_the_release(0.3), Alien(alone=alone))]
    return Chain([OneOf(parts)], values=values)


def mc_ssl(*, values: Values | None = None, alone: Literal["error", "skip"] = "error") -> Chain:
    """MC-SSL's policy after cropping and flipping: colour jitter, grey, blur, then either noise or alien content.

    Jitter is applied to 80 % of the images, grey to 20 %, blur to 50 %, each over the whole image. The mask includes these changes,
    because the student has to undo them (its teacher sees clean images); `kinds` separates the boxes from them. Then noise covers
    50 %, or alien content 30 %, with equal probability, in the boxes of `sit`.

    Args:
        values: the value range of float images; see `Chain`; give ``(mean, std)`` for normalised images, which jitter needs.
        alone: how `Alien` handles a batch of one.

    Source:
        MC-SSL 4.1 for the order: "colour jittering, converting to grey-scale, blurring, random drop, and random replace", each at
        random, after SiT's policy; 3.2 for dropping, which replaces "random connected patches with noise". Neither gives numbers.
        Shares and boxes are the observed behaviour of SiT's release, as in `sit`, whose zeros become the noise of 3.2. The
        strengths, sigma 0.1 to 2 and the probabilities of jitter and grey are those of DINO, which the recipe of 4.1 follows
        elsewhere; blurring half of the images (DINO: 1, 0.1 and 0.5, depending on the view) with 13 taps (three sigmas) is our
        choice.
    """
    whole = Boxes(count=1, side=1.0, placement="inside")
    return Chain(
        [
            InBoxes(whole, Jitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1), p=0.8),
            InBoxes(whole, Grey(), p=0.2),
            InBoxes(whole, Blur(sigma=(0.1, 2.0), kernel=13), p=0.5),
            OneOf([InBoxes(_of_the_release(0.5), Noise()), InBoxes(_of_the_release(0.3), Alien(alone=alone))]),
        ],
        values=values,
    )


def ablation(
    *,
    kind: Literal["none", "zeros", "noise", "replace", "comb1", "comb2"] = "comb1",
    ratio: float = 0.7,
    values: Values | None = None,
    alone: Literal["error", "skip"] = "error",
) -> Chain:
    """The corruptions that GMML's ablations compare: one kind of content, or several one after the other, up to a ratio.

    The share is drawn per image between 0 and ``ratio``. If several kinds are combined, each gets an equal part of the share, one
    after the other, so that together they cover at most ``ratio``; boxes may overlap.

    Args:
        kind: ``"none"`` (no corruption: the plain autoencoder), ``"zeros"``, ``"noise"``, ``"replace"`` (alien content),
            ``"comb1"`` (noise, then alien content), ``"comb2"`` (zeros, noise, alien content).
        ratio: largest share of an image, 0 to 1; the paper uses 0.7 to compare kinds, and 0.1 to 1.0 to compare ratios.
        values: the value range of float images; see `Chain`.
        alone: how `Alien` handles a batch of one.

    Raises:
        TypeError: ``ratio`` is not a number.
        ValueError: the kind is unknown, or the ratio is not between 0 and 1.

    Source:
        GMML 3.3.1 and figure 5 for the kinds and "upto 70%", 3.3.2 and figure 6 for the ratios. The default is the best kind at
        that ratio. Sides of 5 to 25 % are those of 3.1, which also applies the steps one after the other and gives noise and
        alien content half of 0.7 each; that each of three kinds gets a third, and that the share is uniform, is our
        interpretation.
    """
    contents: dict[str, list[Corruption]] = {
        "none": [],
        "zeros": [Zeros()],
        "noise": [Noise()],
        "replace": [Alien(alone=alone)],
        "comb1": [Noise(), Alien(alone=alone)],
        "comb2": [Zeros(), Noise(), Alien(alone=alone)],
    }
    check_choice("presets.ablation", "kind", kind, list(contents))
    most = check_number("presets.ablation", "ratio", ratio, 0.0, 1.0)
    if kind == "none":  # boxes that cover nothing: a chain needs a part
        return Chain([InBoxes(Boxes(ratio=0.0), Zeros())], values=values)
    boxes = Boxes(ratio=(0.0, most / len(contents[kind])), side=(0.05, 0.25))
    return Chain([InBoxes(boxes, content) for content in contents[kind]], values=values)
