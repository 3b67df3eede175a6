"""Noise in place of what was there, drawn when it is painted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from gmml_aug.backends.cpu.rows import Lines, blend_lines_, touched_lines
from gmml_aug.chance import Chance, mix, to_normal
from gmml_aug.colours import UNIFORM, average, deviation, pixel_statistics
from gmml_aug.corruption import Fill
from gmml_aug.fields import written
from gmml_aug.functional import like
from gmml_aug.plan import Tensors
from gmml_aug.program import Scene

_CHANNELS_A_WORD = 4  # 16 random bits each


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Noise(Fill):
    """Noise, independent in every pixel and channel.

    By default it is N(0, 1) for normalised images (16 random bits a value: |z| <= 4.33), uniform in (0, 1) for
    ``values="unit"``, and uniform over 0 to 255 for uint8. Nothing of it is stored: it follows from the keys of the plan.

    Args:
        distribution: None for the above, or the same one whatever the value range: ``"normal"``: the mean and the variance of the
            normalisation, N(0, 1) after it, or those of uniform noise for ``values="unit"`` and uint8; ``"uniform"``: over the
            range of the pixels, which for images normalised by unknown statistics means mean 0 and variance 1; ``"matched"``:
            normal with the mean and the standard deviation of each channel of each clean image.
        per: ``"channel"``, or ``"pixel"`` for one draw that all channels of a pixel share: grey noise. Normal grey noise has the
            mean (std) of the channels' means (stds) where ``values=(mean, std)`` is known; matched noise keeps each channel's own.

    What leaves the range of ``values="unit"`` and uint8 is clamped.

    Raises:
        ValueError: ``distribution`` or ``per`` is none of these.

    Source:
        GMML 2.2 ii, "masking with noise", and 3.1. The paper does not name the distribution; all of these choices are ours.
    """

    distribution: Literal["normal", "uniform", "matched"] | None = None
    per: Literal["channel", "pixel"] = "channel"
    replaces: ClassVar[bool] = True
    __repr__ = written

    def __post_init__(self) -> None:
        if self.distribution is not None and self.distribution not in ("normal", "uniform", "matched"):
            raise ValueError(
                f"Noise: distribution={self.distribution!r} is unknown. Allowed are 'normal', 'uniform', 'matched', or None for "
                "what suits the value range."
            )
        if self.per not in ("channel", "pixel"):
            raise ValueError(f"Noise: per={self.per!r} is unknown. Allowed are 'channel' and 'pixel'.")
        super().__post_init__()

    def draw(self, chance: Chance) -> Tensors:
        """The (B,) stream that the noise of each image follows from."""
        return (chance.keys,)

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """Noise for every pixel; on the CPU only where the mask is."""
        (key,) = drawn
        now, channels, pixels = scene.now, scene.now.shape[1], scene.mask[0].numel()
        own = None
        if self.distribution == "matched":
            mean = average(scene.clean.detach())
            own = mean, deviation(scene.clean.detach(), mean)  # (B, C) each
        if not scene.compact:
            position = torch.arange(pixels, device=now.device)
            start = key[:, None] + position
            planes = list(self._planes(start, pixels, channels, scene, own, None))
            return torch.stack(planes, dim=1).reshape(now.shape)
        lines = touched_lines(scene.mask)
        noise = torch.empty(now.shape, dtype=now.dtype, device=now.device)
        rows = noise.view(-1, lines.width)
        for c, plane in enumerate(self._planes(_starts(key, lines), pixels, channels, scene, own, lines.image)):
            rows.index_copy_(0, lines.of_channel(c, channels), plane)
        return noise

    def put(self, scene: Scene, drawn: Tensors) -> None:
        """Line by line, where lines lie whole in memory."""
        channels, pixels = scene.now.shape[1], scene.mask[0].numel()
        if not scene.now.is_contiguous() or self.distribution == "matched":
            super().put(scene, drawn)
            return
        lines = touched_lines(scene.mask)
        planes = self._planes(_starts(drawn[0], lines), pixels, channels, scene, None, lines.image)
        blend_lines_(scene.now, planes, lines)

    def _planes(
        self, start: Tensor, pixels: int, channels: int, scene: Scene, own: tuple[Tensor, Tensor] | None, image: Tensor | None
    ) -> Iterator[Tensor]:
        """One channel after the other, in the shape of ``start``; its lines belong to the images ``image``, by default in order."""
        kind = self.distribution or ("uniform" if scene.now.dtype == torch.uint8 or scene.values == "unit" else "normal")
        draws = 1 if self.per == "pixel" else channels
        word = draw = start
        for c in range(channels):
            if c < draws:
                if c % _CHANNELS_A_WORD == 0:
                    word = mix(start + c // _CHANNELS_A_WORD * pixels)
                bits = (word >> (16 * (c % _CHANNELS_A_WORD))).bitwise_and_(0xFFFF)
                draw = to_normal(bits, table=scene.compact) if kind != "uniform" else bits
            if own is None:
                yield self._uniform(draw, c, scene) if kind == "uniform" else self._normal(draw, c, scene)
            else:
                mean, std = [one[:, c, None] if image is None else one[image, c, None] for one in own]
                yield _in_range(draw * std + mean, scene)

    def _uniform(self, bits: Tensor, channel: int, scene: Scene) -> Tensor:
        if scene.now.dtype == torch.uint8:
            return (bits >> 8).to(torch.uint8)
        mean, std = pixel_statistics(scene.now, scene.values)
        pixel = (bits.to(torch.float32) + 0.5) * 2.0**-16
        return ((pixel - mean[channel]) / std[channel]).to(scene.now.dtype)

    def _normal(self, draw: Tensor, channel: int, scene: Scene) -> Tensor:
        mean, std = pixel_statistics(scene.now, scene.values)
        middle, spread = UNIFORM
        if scene.now.dtype != torch.uint8 and scene.values != "unit":
            if self.per == "channel" or scene.values == "normalised":
                return draw.to(scene.now.dtype)
            middle, spread = sum(mean) / len(mean), sum(std) / len(std)
        return _in_range((draw * spread + (middle - mean[channel])) / std[channel], scene)


def _starts(key: Tensor, lines: Lines) -> Tensor:
    """(L, W) int64 where the noise of each pixel begins."""
    return (key[lines.image] + lines.row * lines.width)[:, None] + torch.arange(lines.width, device=key.device)


def _in_range(noise: Tensor, scene: Scene) -> Tensor:
    if scene.values == "unit" and scene.now.is_floating_point():
        noise = noise.clamp(0.0, 1.0)
    return like(noise, scene.now)
