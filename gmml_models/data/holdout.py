"""Holds out some of the training images, to measure on."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from typing import Any

from gmml_models.data.config import DataConfig
from gmml_models.data.dataset import Source, Subset
from gmml_models.errors import UsageError


def without_holdout(config: DataConfig) -> DataConfig:
    """The config without its ``holdout``."""
    anew: Any = replace
    return anew(config, holdout=None)  # type: ignore[no-any-return]  # a field of some of its kinds


def held_out(source: Source, share: float, *, test: bool) -> Source:
    """Return a share of the images of each class to measure on, or the rest to train on; the two have no image in common.

    The images are ordered by a hash of their names, and the first ones of each class are held out, at least one if the class has
    two. So the choice is the same for every seed, and adding images moves few of the old ones to the other side. With several
    labels per image, or none, all images form one class.

    Args:
        source: the data set of all images.
        share: the share to hold out, above 0 and below 1.
        test: True for the part to measure on, False for the rest.

    Raises:
        UsageError: the share is out of range, or leaves nothing.
    """
    if not 0 < share < 1:
        raise UsageError(f"gmml: holdout={share} is not a share of the images. Give a number above 0 and below 1, for example 0.2.")
    classes: dict[int, list[int]] = defaultdict(list)
    labels = source.labels()
    names = [hashlib.sha256(source.name(number).encode(errors="surrogateescape")).digest() for number in range(len(source))]
    for number in sorted(range(len(source)), key=lambda one: names[one]):
        label = labels[number]
        classes[label if isinstance(label, int) else -1].append(number)
    held = {number for one in classes.values() for number in one[: min(max(1, round(share * len(one))), len(one) - 1)]}
    chosen = [number for number in range(len(source)) if (number in held) == test]
    if not held or not chosen:
        raise UsageError(f"gmml: holdout={share} of {len(source)} images leaves nothing. Give more images, or another share.")
    part = Subset(source, chosen)
    part.left = () if test else source.left
    part.notes = (
        () if test else (*source.notes, f"{len(held)} of {len(source)} images are held out for testing (--holdout {share:g})")
    )
    return part
