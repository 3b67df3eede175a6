"""Content that stays but loses its detail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gmml_aug.boxes import keep
from gmml_aug.chance import Chance
from gmml_aug.checks import check_integer_pair, check_pair
from gmml_aug.contract import Fill
from gmml_aug.functional import column, gaussian_blur, gaussian_taps, like, reflect, widen
from gmml_aug.pixels import bounding_box
from gmml_aug.plan import Tensors
from gmml_aug.program import Scene
from gmml_aug.written import written

_FAINT = 1e-8  # weight of a tap


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
        if not scene.compact:
            return gaussian_blur(scene.now, sigma, kernel, largest)
        if scene.small:
            return self._together(scene, drawn)
        blurred = torch.empty_like(scene.now)
        around = enumerate(bounding_box(inside) for inside in scene.mask[:, 0])
        self._each(scene.now, [(image, window) for image, window in around if window is not None], drawn, blurred)
        return blurred

    def put(self, scene: Scene, drawn: Tensors) -> None:
        """Where the mask is one box in a large image, the result goes there at once."""
        windows = scene.windows
        if windows is None:
            super().put(scene, drawn)
        else:
            self._each(scene.now, [(image, window[1:]) for image, window in zip(*windows, strict=True)], drawn, scene.now)

    def _together(self, scene: Scene, drawn: Tensors) -> Tensor:
        """Whole images, those of equally many taps at once."""
        taps = gaussian_taps(drawn[0], drawn[1], self._kernels[1])
        heard = (taps > _FAINT).sum(1).masked_fill(~scene.mask.flatten(1).any(1), 0)
        blurred = torch.empty_like(scene.now)
        for count in set(heard.tolist()) - {0}:
            which = (heard == count).nonzero()[:, 0]
            weights = taps.index_select(0, which).narrow(1, (taps.shape[1] - count) // 2, count)
            blurred.index_copy_(0, which, like(blur_whole(scene.now.index_select(0, which), weights), scene.now))
        return blurred

    def _each(self, now: Tensor, windows: Iterable[tuple[int, Sequence[slice]]], drawn: Tensors, out: Tensor) -> None:
        sigma, kernel = drawn
        largest = self._kernels[1]
        taps = gaussian_taps(sigma, kernel, largest).tolist()
        sources = [
            reflect(torch.arange(length + largest - 1, device=now.device) - largest // 2, length) for length in now.shape[2:]
        ]
        for image, window in windows:
            # what adds less than a float32 can tell is left out: half of the taps of a wide kernel on a small sigma
            blur_inside(now[image], window, [weight for weight in taps[image] if weight > _FAINT], out[image], sources)

    def works(self, shape: Sequence[int], *, donors: int, own: bool) -> bool:
        """False for a single tap."""
        return self._kernels[1] > 1

    @property
    def _kernels(self) -> tuple[int, int]:
        return self.kernel if isinstance(self.kernel, tuple) else (self.kernel, self.kernel)


def _shifted(padded: Tensor, axis: int, radius: int) -> tuple[Tensor, ...]:
    """What each tap sees, the first one first: views of images that are ``radius`` longer at either end of the axis."""
    return padded.unfold(axis, padded.shape[axis] - 2 * radius, 1).movedim(-1, axis + 1).unbind(axis)


def blur_whole(images: Tensor, taps: Tensor) -> Tensor:
    """Blur images (B, C, *S) with symmetric taps (B, odd) of their own, in float32 at least."""
    now = widen(images)
    radius = taps.shape[1] // 2
    weights = [column(weight, now.ndim) for weight in taps.to(now.dtype).unbind(1)]
    for axis, length in enumerate(images.shape[2:], start=2):
        source = reflect(torch.arange(-radius, length + radius, device=images.device), length)
        shifted = _shifted(now.index_select(axis, source), axis, radius)
        now = shifted[radius] * weights[radius]
        for tap in range(radius):  # no alpha=: a product rounded by itself is the same in a batch of any size
            now.add_((shifted[tap] + shifted[-1 - tap]).mul_(weights[tap]))
    return now


def blur_inside(image: Tensor, window: Sequence[slice], taps: Sequence[float], out: Tensor, sources: Sequence[Tensor]) -> None:
    """Blur one image within a window.

    Args:
        image: (C, *S).
        window: slices of the spatial axes.
        taps: symmetric weights.
        out: written in the window; may be the image.
        sources: for each axis, what stands at each position, as far beyond the borders on either side as any taps reach.
    """
    radius = len(taps) // 2
    block = image
    for axis, (box, source) in enumerate(zip(window, sources, strict=True), start=1):
        low, high, length = box.start - radius, box.stop + radius, image.shape[axis]
        if low >= 0 and high <= length:
            block = block.narrow(axis, low, high - low)
        else:
            block = block.index_select(axis, source.narrow(0, low + (len(source) - length) // 2, high - low))
    block = widen(block)
    for axis in range(1, image.ndim):
        shifted = _shifted(block, axis, radius)
        block = shifted[radius] * taps[radius]
        for tap in range(radius):
            block.add_(shifted[tap] + shifted[-1 - tap], alpha=taps[tap])
    out[(slice(None), *window)] = like(block, image)
