"""`paint.paint` by Triton kernels: a run of steps costs one read and one write of the images, and draws noise only where it lands.

The same plan gives the same mask, bit for bit, and the same images within float tolerance: the boxes are the words of `cover`, the
noise the 16 bits of the same hash. `Blur` takes one pass per axis over its lines; a fill that has no kernel is asked for its
`pixels` between two runs. Nothing waits for the device, and nothing is copied to it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gmml_aug.blurring import Blur
from gmml_aug.colour import Grey
from gmml_aug.cover import WORD
from gmml_aug.fills import Alien, Constant, Mean, Shuffle, Zeros
from gmml_aug.functional import Values, like, luma_weights
from gmml_aug.noise import Noise
from gmml_aug.paint import Bounds, step_mask
from gmml_aug.pixels import UNIFORM, average, deviation, pixel_statistics
from gmml_aug.plan import Plan
from gmml_aug.program import Program, Scene

_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
_IN_A_RUN = (Noise, Zeros, Constant, Alien, Shuffle, Mean, Grey)
_MOST_CHANNELS = 16  # a program holds all channels of its pixels
_MOST_STEPS = 32  # each is code of its own
_NUMBERS = 2048  # in a tile
_PLAIN = {"enable_fp_fusion": False}  # rounds where torch rounds; and Triton 3.9 warns of an unset one
_LARGEST = 1 << 31  # numbers in an image: offsets inside it are 32 bits wide


def supports(program: Program, images: Tensor, donors: Tensor) -> bool:
    """True if `paint` can do this program here: Triton, a CUDA device (or its interpreter), no gradient, no float64.

    Args:
        program: the steps.
        images: (B, C, *S).
        donors: (N, C, *S).
    """
    runs = images.device.type == "cuda" or (images.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")
    if not runs or torch.compiler.is_compiling() or not _has_triton():
        return False
    if torch.is_grad_enabled() and (images.requires_grad or donors.requires_grad):
        return False
    fills = [type(step.fill) for step in program.steps]
    return (
        images.dtype in _DTYPES
        and images.shape[1] <= _MOST_CHANNELS
        and images[0].numel() < _LARGEST
        and len(fills) <= _MOST_STEPS
        and any(fill in (*_IN_A_RUN, Blur) for fill in fills)
    )


def paint(
    program: Program, images: Tensor, donors: Tensor, plan: Plan, bounds: Bounds, *, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`paint.paint`, fused; call it where `supports` says so.

    Args:
        program: the steps.
        images: (B, C, *S).
        donors: (N, C, *S).
        plan: from `sample`.
        bounds: what the caller says about where.
        out: where the images are written; never memory of the images or donors.

    Returns:
        The corrupted images in the memory format of ``images``, or ``out``, and the mask.
    """
    with torch.no_grad(), torch.cuda.device(images.device) if images.is_cuda else nullcontext():
        call = _Call(program, images, donors, plan, bounds, out)
        number = 0
        while number < len(program.steps):
            fill = program.steps[number].fill
            end = number
            while end < len(program.steps) and type(program.steps[end].fill) in _IN_A_RUN:
                end += 1
            if end > number:
                call.run(number, end)
            elif isinstance(fill, Blur):
                call.blur(number, fill)
            else:
                call.ask(number)
            number = max(end, number + 1)
        return call.result()


class _Layout(NamedTuple):
    """Where in memory the numbers of images lie: from one image, channel and pixel in reading order to the next."""

    image: int
    channel: int
    pixel: int


class _Call:
    """One call: the tensors that its kernels share."""

    def __init__(self, program: Program, images: Tensor, donors: Tensor, plan: Plan, bounds: Bounds, out: Tensor | None) -> None:
        self.program, self.plan, self.bounds = program, plan, bounds
        self.clean = _plain(images)
        self.donors = self.clean if donors is images else _plain(donors)
        self.wanted = torch.empty_like(images) if out is None else out
        self.out = self.wanted if _layout(self.wanted) is not None else torch.empty_like(self.clean)
        self.now = self.clean  # what the next step sees; `out` from the first one on
        self.batch, self.channels, *self.size = images.shape
        self.pixels = math.prod(self.size)
        self.padded = 1 << (self.channels - 1).bit_length()
        first = type(program.steps[0].fill) in _IN_A_RUN  # then its kernel writes every pixel
        self.mask = (images.new_empty if first else images.new_zeros)((self.batch, 1, *self.size), dtype=torch.bool)
        self.active = plan.active.contiguous().view(torch.uint8)
        self.longest = max(self.size)
        self.groups = [-(-boxes.shape[1] // WORD) for boxes in plan.boxes]
        self.words = self._mark()
        self.places: dict[int, Tensor] = {}

    def _mark(self) -> Tensor:
        """The words of all places along each axis: (B, words, D, longest side)."""
        kernels, dims = _kernels(), len(self.size)
        slots = max(sum(self.groups), 1)
        words = torch.empty(self.batch, slots, dims, self.longest, dtype=torch.int64, device=self.clean.device)
        width = 64
        chunks = -(-self.longest // width)
        for place, boxes in enumerate(self.plan.boxes):
            groups = self.groups[place]
            if groups:
                kernels.axis_words[(self.batch * groups * dims * chunks,)](
                    boxes.contiguous(), words, *_three(self.size), self.longest, slots, self._slot(place), boxes.shape[1],
                    groups, self.program.cell_at(place), chunks, D=dims, N=width, **_PLAIN,
                )  # fmt: skip
        return words

    def _slot(self, place: int) -> int:
        return sum(self.groups[:place])

    def _bounds(self) -> tuple[list[Tensor], list[int], dict[str, bool]]:
        """Maps, strides between their images, and which of them there are."""
        maps = [self.bounds.allowed, self.bounds.forced]
        tensors = [self.active if one is None else one.contiguous().view(torch.uint8) for one in maps]
        strides = [0 if one is None or len(one) == 1 else self.pixels for one in maps]
        return tensors, strides, {"A": maps[0] is not None, "F": maps[1] is not None}

    def run(self, first: int, end: int) -> None:
        """Steps ``first`` to ``end - 1``, which see no pixel but their own."""
        steps: list[tuple[Any, ...]] = []
        numbers: list[Tensor] = []  # (B,) int64 each
        colours: list[Tensor] = []  # (B, C) float32 each
        for number in range(first, end):
            steps.append(self._step(number, numbers, colours))
        integers = torch.stack(numbers) if numbers else self.plan.keys
        table = torch.stack(colours) if colours else integers  # not read then
        width = max(_NUMBERS // self.padded, 256)
        blocks = -(-self.pixels // width)
        maps, strides, given = self._bounds()
        _kernels().paint_steps[(self.batch * blocks,)](
            self.now, self.clean, self.donors, self.out, self.mask.view(torch.uint8), self.active, self.words, integers, table,
            *maps, self.batch, self.pixels, blocks, *_three(self.size), self.longest, self.words.shape[1],
            len(self.program.steps), *strides, *_strides(self.now), *_strides(self.clean), *_strides(self.donors),
            *_strides(self.out), STEPS=tuple(steps), COUNT=len(steps), BEFORE=first, **given, C=self.channels, P=self.padded,
            D=len(self.size), N=width, **_PLAIN,
        )  # fmt: skip
        self.now = self.out

    def _step(self, number: int, numbers: list[Tensor], colours: list[Tensor]) -> tuple[Any, ...]:
        """What the kernel is compiled for; what differs between images is added to the two tables."""
        kernels, step, drawn = _kernels(), self.program.steps[number], self.plan.drawn[number]
        fill, values, channels = step.fill, self.program.values, self.channels
        where = self.program.places[step.place]
        place = (self._slot(step.place), self.groups[step.place], where is not None and where.invert)
        if isinstance(fill, Noise):
            own = -1
            if fill.distribution == "matched":
                mean = average(self.clean)
                own = len(colours)
                colours += [mean, deviation(self.clean, mean)]
            kind, *scale = _noise(fill, self.clean, values)
            clamps = values == "unit" and self.clean.is_floating_point()
            how = (fill.per == "pixel") + 2 * clamps
            return (kernels.NOISE.value, *place, how, _add(numbers, drawn), kind, own, *scale)
        if isinstance(fill, Grey):
            known = None if isinstance(values, str) or self.clean.dtype == torch.uint8 else values
            mean_std = pixel_statistics(self.clean, known) if known else ((0.0,) * channels, (1.0,) * channels)
            return (kernels.GREY.value, *place, 0, -1, 0, -1, luma_weights(channels), *mean_std)
        if isinstance(fill, Alien | Shuffle):
            foreign = isinstance(fill, Alien)
            shift = drawn[1:] if foreign else drawn
            moved = tuple(one for s in shift for one in s.unbind(1))
            return (kernels.TAKE.value, *place, foreign + 2 * bool(shift), _add(numbers, (*drawn[:foreign], *moved)))
        if isinstance(fill, Zeros):
            return (kernels.COLOUR.value, *place, 0, -1)
        colours.append(average(self.clean) if isinstance(fill, Mean) else drawn[0])
        return (kernels.COLOUR.value, *place, 0, len(colours) - 1)

    def blur(self, number: int, fill: Blur) -> None:
        """One pass per axis, each into a buffer of its own, for a line is read by its neighbours."""
        self._begin()
        step, (sigma, kernel) = self.program.steps[number], self.plan.drawn[number]
        where, dims = self.program.places[step.place], len(self.size)
        invert = where is not None and where.invert
        width = max(_NUMBERS // 2 // self.padded, 128)
        blocks = -(-self.pixels // width)
        maps, strides, given = self._bounds()
        source = self.out.clone() if dims == 1 else self.out
        for axis in range(dims):
            last = axis == dims - 1
            target = self.out if last else torch.empty_like(self.out, dtype=torch.float32)
            _kernels().blur_axis[(self.batch * blocks,)](
                source, target, self.mask.view(torch.uint8), self.active, self.words, sigma.contiguous(), kernel.contiguous(),
                *maps, self.pixels, blocks, self.size[axis], math.prod(self.size[axis + 1 :]), *_three(self.size)[1:],
                self.longest, self.words.shape[1], len(self.program.steps), number, *strides, *_strides(source),
                *_strides(target), slot=self._slot(step.place), count=self.groups[step.place], axis=axis,
                everywhere=invert or self.bounds.forced is not None, invert=invert, last=last, **given, C=self.channels,
                P=self.padded, D=dims, N=width, **_PLAIN,
            )  # fmt: skip
            source = target

    def ask(self, number: int) -> None:
        """A fill without a kernel."""
        self._begin()
        here = step_mask(self.program, self.plan, number, self.places, self.bounds)
        scene = Scene(self.out, self.clean, self.donors, here, self.program.values, compact=False)
        new = like(self.program.steps[number].fill.pixels(scene, self.plan.drawn[number]), self.out)
        self.out.copy_(torch.where(here, new, self.out))
        self.mask |= here

    def _begin(self) -> None:
        if self.now is not self.out:
            self.now = self.out.copy_(self.clean)

    def result(self) -> tuple[Tensor, Tensor]:
        """Images and mask."""
        self._begin()
        return (self.wanted if self.wanted is self.out else self.wanted.copy_(self.out)), self.mask


def _noise(fill: Noise, images: Tensor, values: Values) -> tuple[Any, ...]:
    """Which draw, and the numbers of ``(draw * spread + shift) / std``, the last two per channel, as `noise.Noise` has them."""
    mean, std = pixel_statistics(images, values)
    plain = images.dtype != torch.uint8 and values != "unit"
    kind = fill.distribution or ("normal" if plain else "uniform")
    if kind == "uniform":
        return _kernels().UNIFORM.value, 1.0, tuple(-m for m in mean), std
    middle, spread = UNIFORM
    if plain and (fill.per == "channel" or values == "normalised"):
        return _kernels().NORMAL.value, 1.0, (0.0,) * len(mean), (1.0,) * len(std)
    if plain:
        middle, spread = sum(mean) / len(mean), sum(std) / len(std)
    return _kernels().NORMAL.value, spread, tuple(middle - m for m in mean), std


def _add(rows: list[Tensor], more: Sequence[Tensor]) -> int:
    """Append rows to a table; the number of the first."""
    rows.extend(more)
    return len(rows) - len(more)


def _three(size: Sequence[int]) -> list[int]:
    return [*size, *[1] * (3 - len(size))]


def _layout(images: Tensor) -> _Layout | None:
    """None unless contiguous or channels last."""
    _, channels, *size = images.shape
    pixels = math.prod(size)
    if images.is_contiguous():
        return _Layout(channels * pixels, pixels, 1)
    return _Layout(channels * pixels, 1, channels) if images.movedim(1, -1).is_contiguous() else None


def _strides(images: Tensor) -> _Layout:
    layout = _layout(images)
    assert layout is not None  # `_Call` works on no others
    return layout


def _plain(images: Tensor) -> Tensor:
    return images if _layout(images) is not None else images.contiguous()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _kernels() -> Any:
    from gmml_aug import kernels  # Triton looks at TRITON_INTERPRET here, so not before the first use

    return kernels
