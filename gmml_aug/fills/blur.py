"""Content that stays but loses its detail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gmml_aug.chance import Chance
from gmml_aug.checks import check_integer_pair, check_pair
from gmml_aug.colours import bounding_box
from gmml_aug.corruption import Fill
from gmml_aug.fields import written
from gmml_aug.functional import blur_window, gaussian_blur, gaussian_taps
from gmml_aug.places.boxes import keep
from gmml_aug.plan import Tensors
from gmml_aug.program import Scene


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Blur(Fill):
    """Gaussian blur with reflected borders; it also reads the current image outside its boxes.

    Args:
        sigma: standard deviation in pixels, or (low, high) to draw it from uniformly, above 0.
        kernel: odd number of taps along each axis, or (low, high) to draw an odd number from, 1 to 255.

    Raises:
        TypeError: values of a wrong type.
        ValueError: ``sigma`` not above 0, an even ``kernel``, low above high.

    Source:
        GMML 3.1: sigma in [0.1, 1.1], kernel 3 x 3 to 15 x 15. Borders are not named there; reflecting them is ours.
    """

    sigma: float | tuple[float, float] = (0.1, 1.1)
    kernel: int | tuple[int, int] = (3, 15)
    __repr__ = written

    def __post_init__(self) -> None:
        keep(self, "sigma", check_pair("Blur", "sigma", self.sigma, 1e-3, 1e3))
        taps = check_integer_pair("Blur", "kernel", self.kernel, 1, 255)
        if taps[0] % 2 == 0 or taps[1] % 2 == 0:
            raise ValueError(f"Blur: kernel={taps} must be odd, so that it has a middle. Give for example kernel=(3, 15).")
        keep(self, "kernel", taps)
        super().__post_init__()

    def draw(self, chance: Chance) -> Tensors:
        """(B,) float32 sigma and (B,) int64 kernel."""
        low, high = self.sigma if isinstance(self.sigma, tuple) else (self.sigma, self.sigma)
        least, most = self._kernels
        sigma = low + (high - low) * chance.uniform(1)[:, 0]
        return sigma, least + 2 * chance.integers(0, (most - least) // 2, 1)[:, 0]

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """The current images, blurred; on the CPU only around the mask."""
        sigma, kernel = drawn
        largest = self._kernels[1]
        if scene.compact and not scene.small:
            blurred = torch.empty_like(scene.now)
            around = enumerate(bounding_box(inside) for inside in scene.mask[:, 0])
            self._each(scene.now, [(image, window) for image, window in around if window is not None], drawn, blurred)
            return blurred
        if scene.compact:
            kernel = kernel.masked_fill(~scene.mask.flatten(1).any(1), 1)
        return gaussian_blur(scene.now, sigma, kernel, largest)

    def put(self, scene: Scene, drawn: Tensors) -> None:
        """Where the mask is one box in a large image, the result goes there at once."""
        windows = scene.windows
        if windows is None:
            super().put(scene, drawn)
        else:
            self._each(scene.now, [(image, window[1:]) for image, window in zip(*windows, strict=True)], drawn, scene.now)

    def _each(self, now: Tensor, windows: Iterable[tuple[int, Sequence[slice]]], drawn: Tensors, out: Tensor) -> None:
        taps = gaussian_taps(*drawn, self._kernels[1]).tolist()
        for image, window in windows:
            heard = [weight for weight in taps[image] if weight > 0.0]
            out[(image, slice(None), *window)] = blur_window(now[image : image + 1], window, heard)[0]

    def works(self, shape: Sequence[int], *, donors: int, own: bool) -> bool:
        """False for a single tap."""
        return self._kernels[1] > 1

    @property
    def _kernels(self) -> tuple[int, int]:
        return self.kernel if isinstance(self.kernel, tuple) else (self.kernel, self.kernel)
