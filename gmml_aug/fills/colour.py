"""Fills that keep the content but change its colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from gmml_aug.chance import Chance
from gmml_aug.checks import check_number, check_pair, plain
from gmml_aug.colours import recolour
from gmml_aug.fields import keep
from gmml_aug.fills.base import Fill
from gmml_aug.ops import Mix, Operation, Scene, Tensors

Strength = float | tuple[float, float]

_LARGEST = 100.0  # factor: far beyond what anybody wants, and finite in any dtype


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Grey(Fill):
    """Greyscale: ITU-R BT.601 luma for three channels, the mean of the channels otherwise.

    Give ``Chain(values=(mean, std))`` or the preset's ``values=`` for normalised images: luma is then taken after undoing the
    normalisation. Without it, grey is slightly tinted. Images with one channel are grey already: nothing is marked.

    Source:
        GMML 3.1, "converted to grey scale"; the luma weights are our choice.
    """

    def applies_to(self, shape: Sequence[int], *, donors: int, from_batch: bool) -> bool:
        """False for images with one channel."""
        return shape[1] > 1

    def lower(self) -> Operation:
        """Luma in every channel."""
        return Mix()


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Jitter(Fill):
    """Colour distortion: brightness, contrast, saturation and hue, in this order, each by a factor drawn per image.

    The changes are made to the current image as pixels between 0 and 1, which are clamped after every stage. Contrast is changed
    around the mean luma of the whole image, outside the boxes too; NaN is ignored. Saturation and hue need three channels: in
    other images only brightness and contrast change, and nothing is marked if neither is varied.

    Give ``Chain(values=(mean, std))`` or the preset's ``values=`` for normalised images. By default the images are assumed to be
    normalised pixels that were uniform between 0 and 1 (mean 1/2, standard deviation 1 / sqrt(12)), and nothing is clamped: black
    is then only approximate.

    Args:
        brightness: b for a factor from max(0, 1 - b) to 1 + b, or (low, high), 0 or more: 0 is black, 1 changes nothing.
        contrast: in the same form: 0 is flat, 1 changes nothing.
        saturation: in the same form: 0 is grey, 1 changes nothing.
        hue: h for a rotation drawn from -h to h around the colour circle, or (low, high), between -0.5 and 0.5; 0 changes
            nothing.

    Raises:
        TypeError: values are not numbers.
        ValueError: values are outside their range, or low is above high.

    Source:
        MC-SSL 3.2 names "colour distortions, recolouring" among the transformations of connected patches, and 4.1 names colour
        jittering among the augmentations; neither gives numbers. Numbers and pairs have the same meaning as in torchvision's
        ColorJitter; the defaults are those of BYOL and DINO; the fixed order and the name are our choice.
    """

    brightness: Strength = 0.4
    contrast: Strength = 0.4
    saturation: Strength = 0.2
    hue: Strength = 0.1

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            keep(self, name, _strength(name, getattr(self, name), 0.0, _LARGEST))
        keep(self, "hue", _strength("hue", self.hue, -0.5, 0.5))
        super().__post_init__()

    def applies_to(self, shape: Sequence[int], *, donors: int, from_batch: bool) -> bool:
        """False if none of the changes applies to images with this number of channels."""
        return any(low != still or high != still for low, high, still in self._ranges(shape[1]))

    def draw(self, chance: Chance) -> Tensors:
        """Four (B,) float32: the factors of brightness, contrast and saturation, and the rotation of the hue."""
        spread = chance.uniform(4).unbind(1)
        return tuple(low + (high - low) * u for (low, high, _), u in zip(self._ranges(3), spread, strict=True))

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """The current images, recoloured."""
        ranges = self._ranges(scene.now.shape[1])
        used = [low != still or high != still for low, high, still in ranges]
        factors = [factor if here else None for factor, here in zip(drawn, used, strict=False)]
        return recolour(scene.now, *factors, values=scene.values)

    def _ranges(self, channels: int) -> list[tuple[float, float, float]]:
        """(low, high, the value that changes nothing) for each stage that applies to images with this number of channels."""
        stages = [(self.brightness, 1.0), (self.contrast, 1.0)]
        if channels == 3:
            stages += [(self.saturation, 1.0), (self.hue, 0.0)]
        ranges = []
        for value, still in stages:
            low, high = value if isinstance(value, tuple) else (still - value, still + value)
            ranges.append((0.0 if still == 1.0 and low < 0.0 else low, high, still))
        return ranges


def _strength(name: str, value: object, low: float, high: float) -> Strength:
    """One number of at least 0, or a pair between low and high."""
    value = plain(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return check_pair("Jitter", name, value, low, high)
    return check_number("Jitter", name, value, 0.0, high)
