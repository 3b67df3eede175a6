"""Fills that keep the content but remove detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from gmml_aug.chance import Chance
from gmml_aug.checks import check_integer_pair, check_pair
from gmml_aug.fields import keep_range, pair_of
from gmml_aug.fills.base import Fill
from gmml_aug.ops import Convolve, Operation, Tensors


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Blur(Fill):
    """Gaussian blur with reflected borders; it also reads the current image outside its boxes.

    A NaN pixel turns the pixels within reach of the kernel into NaN, and no others.

    Args:
        sigma: standard deviation in pixels, above 0, or (low, high) to draw it uniformly.
        kernel: odd number of taps along each axis, or (low, high) to draw an odd number from, 1 to 255.

    Raises:
        TypeError: values have the wrong type.
        ValueError: ``sigma`` is not above 0, ``kernel`` is even, or low is above high.

    Source:
        GMML 3.1: sigma in [0.1, 1.1], kernel 3 x 3 to 15 x 15. The paper does not mention borders; reflecting them is our choice.
    """

    sigma: float | tuple[float, float] = (0.1, 1.1)
    kernel: int | tuple[int, int] = (3, 15)

    def __post_init__(self) -> None:
        keep_range(self, "sigma", check_pair("Blur", "sigma", self.sigma, 1e-3, 1e3))
        taps = check_integer_pair("Blur", "kernel", self.kernel, 1, 255)
        if taps[0] % 2 == 0 or taps[1] % 2 == 0:
            raise ValueError(f"Blur: kernel={taps} must be odd, so that it has a middle. Give, for example, kernel=(3, 15).")
        keep_range(self, "kernel", taps)
        super().__post_init__()

    def draw(self, chance: Chance) -> Tensors:
        """(B,) float32 sigma and (B,) int64 kernel."""
        (low, high), (least, most) = pair_of(self.sigma), pair_of(self.kernel)
        sigma = low + (high - low) * chance.uniform(1)[:, 0]
        return sigma, least + 2 * chance.integers(0, (most - least) // 2, 1)[:, 0]

    def lower(self) -> Operation:
        """A Gaussian along every axis."""
        return Convolve(pair_of(self.sigma), pair_of(self.kernel))

    def applies_to(self, shape: Sequence[int], *, donors: int, from_batch: bool) -> bool:
        """False if the kernel has a single tap."""
        return self.kernel != 1
