"""What goes into a group of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from gmml_aug.boxes import keep
from gmml_aug.chance import Chance, mix, to_normal
from gmml_aug.checks import check_integer_pair, check_pair
from gmml_aug.contract import Fill
from gmml_aug.functional import column, gaussian_blur, gaussian_taps, like, reflect, take_donors, to_grey, widen
from gmml_aug.plan import Tensors
from gmml_aug.program import Scene
from gmml_aug.written import written

_CHANNELS_A_WORD = 4  # 16 random bits each


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Noise(Fill):
    """Noise, independent in every pixel and channel.

    It is N(0, 1) for normalised images (16 random bits a value: |z| <= 4.33), uniform in (0, 1) for ``values="unit"``, and uniform
    over 0 to 255 for uint8. Nothing of it is stored: it follows from the keys of the plan.

    Source:
        GMML 2.2 ii, "masking with noise", and 3.1. The paper does not name the distribution; this choice is ours.
    """

    replaces: ClassVar[bool] = True
    __repr__ = written

    def draw(self, chance: Chance) -> Tensors:
        """The (B,) stream that the noise of each image follows from."""
        return (chance.keys,)

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """Noise for every pixel; on the CPU only where the mask is."""
        (key,) = drawn
        now, channels, pixels = scene.now, scene.now.shape[1], scene.mask[0].numel()
        if not scene.compact:
            position = torch.arange(pixels, device=now.device)
            planes: list[Tensor] = []
            for low in range(0, channels, _CHANNELS_A_WORD):
                word = mix(key[:, None] + (position + low // _CHANNELS_A_WORD * pixels))
                planes += [self._value(word, c, scene) for c in range(min(_CHANNELS_A_WORD, channels - low))]
            return torch.stack(planes, dim=1).reshape(now.shape)
        # drawing whole rows costs less than finding the single pixels: a row is copied, a pixel is scattered
        width = now.shape[-1]
        rows = pixels // width
        touched = scene.mask.reshape(-1, width).any(1).nonzero()[:, 0]
        image, row = touched // rows, touched % rows
        counter = (key[image] + row * width)[:, None] + torch.arange(width, device=key.device)
        noise = torch.empty(now.shape, dtype=now.dtype, device=now.device)
        lines = noise.view(-1, width)
        for low in range(0, channels, _CHANNELS_A_WORD):
            word = mix(counter + low // _CHANNELS_A_WORD * pixels)
            for c in range(min(_CHANNELS_A_WORD, channels - low)):
                lines.index_copy_(0, (image * channels + low + c) * rows + row, self._value(word, c, scene))
        return noise

    def _value(self, word: Tensor, channel: int, scene: Scene) -> Tensor:
        bits = (word >> (16 * channel)).bitwise_and_(0xFFFF)
        if scene.now.dtype == torch.uint8:
            return (bits >> 8).to(torch.uint8)
        if scene.values == "unit":
            return ((bits.to(torch.float32) + 0.5) * 2.0**-16).to(scene.now.dtype)
        return to_normal(bits, table=scene.compact).to(scene.now.dtype)


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
    """Content of another image, at the same place; all of an image's boxes at this step come from one donor.

    Donors are the clean images of the batch, or those given as ``donors=`` at the call. A donor is never the image itself.

    Args:
        alone: what to do with a batch of one and no donors given: ``"error"``, or ``"skip"`` to leave it as it is and mark nothing.

    Raises:
        ValueError: ``alone`` is neither; at the call, a batch of one with ``alone="error"``.

    Source:
        GMML 2.2 iii: one random image of the batch gives all the alien content. Excluding the image itself is ours.
    """

    alone: Literal["error", "skip"] = "error"
    replaces: ClassVar[bool] = True
    foreign: ClassVar[bool] = True
    __repr__ = written

    def __post_init__(self) -> None:
        if self.alone not in ("error", "skip"):
            raise ValueError(f"Alien: alone={self.alone!r} is unknown. Allowed are 'error' and 'skip'.")
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
        """The (B,) number of each image's donor."""
        return (chance.donor(),)

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """The donors."""
        return take_donors(scene.donors, drawn[0])


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Grey(Fill):
    """Greyscale: ITU-R BT.601 luma for three channels, the mean of the channels otherwise.

    Give ``Chain(values=(mean, std))`` or the preset's ``values=`` for normalised images: luma is then taken after undoing the
    normalisation. Without it grey is slightly tinted. One channel is grey already: nothing is marked.

    Source:
        GMML 3.1, "converted to grey scale"; the luma weights are ours.
    """

    __repr__ = written

    def works(self, shape: Sequence[int], *, donors: int, own: bool) -> bool:
        """False for one channel."""
        return shape[1] > 1

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """The current images, grey."""
        return to_grey(scene.now, scene.values)


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
        blurred = torch.empty_like(scene.now)
        taps = gaussian_taps(sigma, kernel, largest).tolist()
        for image, inside in enumerate(scene.mask[:, 0]):
            blur_inside(scene.now[image], inside, [w for w in taps[image] if w > 0.0], blurred[image])
        return blurred

    def works(self, shape: Sequence[int], *, donors: int, own: bool) -> bool:
        """False for a single tap."""
        return self._kernels[1] > 1

    @property
    def _kernels(self) -> tuple[int, int]:
        return self.kernel if isinstance(self.kernel, tuple) else (self.kernel, self.kernel)


def blur_inside(image: Tensor, inside: Tensor, taps: Sequence[float], out: Tensor) -> None:
    """Blur one image (C, *S) with symmetric taps within the bounding box of ``inside`` (*S) bool, into ``out``."""
    radius = len(taps) // 2
    block = image
    window: list[slice] = [slice(None)]
    for d in range(inside.ndim):
        line = inside.movedim(d, 0).reshape(inside.shape[d], -1).any(1).nonzero()
        if not len(line):
            return
        low, high = int(line[0]), int(line[-1]) + 1
        window.append(slice(low, high))
        around = reflect(torch.arange(low - radius, high + radius, device=image.device), image.shape[d + 1])
        block = block.index_select(d + 1, around)
    block = widen(block)
    for axis in range(1, image.ndim):
        length = block.shape[axis] - 2 * radius
        total = block.narrow(axis, radius, length) * taps[radius]
        for tap in range(radius):
            pair = block.narrow(axis, tap, length) + block.narrow(axis, 2 * radius - tap, length)
            total.add_(pair, alpha=taps[tap])
        block = total
    out[tuple(window)] = like(block, image)
