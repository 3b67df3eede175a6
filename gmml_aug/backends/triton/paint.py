"""Pixels by Triton kernels: a run of steps costs one read and one write of the images, and draws noise only where it lands.

The same plan gives the same mask, bit for bit, and the same images within float tolerance: the boxes are the words of `coverage`,
the noise the 16 bits of the same hash. A blur takes one pass per axis over its lines; a fill that has no kernel is asked for its
`pixels` between two runs. Nothing waits for the device, and nothing is copied to it.

From bytes, the first run normalises what it reads as `values.normalise` does, and writes the clean batch too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import accumulate

import torch
from torch import Tensor

from gmml_aug.backends.call import Batch, Painted
from gmml_aug.backends.reference import paint as reference
from gmml_aug.backends.reference.coverage import WORD
from gmml_aug.backends.reference.paint import step_mask
from gmml_aug.backends.reference.pixels import ask
from gmml_aug.backends.triton.layout import across, layout, plain, strides, three, tile_of
from gmml_aug.backends.triton.lower import IN_A_RUN, Tables, blur_kernels, describe, kernels, runs_on
from gmml_aug.functional import like
from gmml_aug.ops import Convolve, Scene, function_of
from gmml_aug.plan import Plan
from gmml_aug.program import Program
from gmml_aug.values import NORMALISED, byte_scales, normalise

_DTYPES = (torch.uint8, *NORMALISED)
_MOST_CHANNELS = 16  # a program holds all channels of its pixels
_MOST_STEPS = 32  # each is code of its own
# rows, columns and warps of a tile, and bytes of float32 between the axes of a blur: the best of those tried on an H200
_TILE, _WARPS = (8, 32), 2
_BLUR_TILE, _BLUR_WARPS = (8, 32), 1  # four up from 5 channels, or registers spill
_SCRATCH = 128 << 20
_WORDS = 64  # in a program that makes words
_PLAIN = {"enable_fp_fusion": False}  # bytes are normalised as torch rounds; and Triton 3.9 warns of an unset one
_LARGEST = 1 << 31  # numbers in an image: offsets inside it are 32 bits wide


def can(program: Program, shape: Sequence[int], dtype: torch.dtype | None, device: torch.device, *, gradient: bool) -> str | None:
    """None, or the reason why not; programs whose places the planner does not know are planned by the reference."""
    if not runs_on(device):
        return f"the kernels run on CUDA with Triton 3.4 at least, outside compiled code, not on {device} here"
    if gradient:
        return "the kernels give no gradients to the images"
    if dtype is None:
        return reference.can(program, shape, dtype, device, gradient=gradient)
    kinds = [type(step.operation) for step in program.steps]
    if dtype not in _DTYPES:
        return f"the kernels paint uint8, float16, bfloat16 and float32, not {dtype}"
    if shape[1] > _MOST_CHANNELS:
        return f"the kernels hold up to {_MOST_CHANNELS} channels, not {shape[1]}"
    if math.prod(shape[1:]) >= _LARGEST:
        return f"an image of {math.prod(shape[1:])} numbers has offsets beyond 32 bits"
    if len(kinds) > _MOST_STEPS:
        return f"the kernels do up to {_MOST_STEPS} steps, not {len(kinds)}"
    if any(where is not None and not where.is_boxes for where in program.places):
        return "a place here has a shape that is no box"
    if not any(kind in (*IN_A_RUN, Convolve) for kind in kinds):
        return "no step here is an operation of the kernels"
    return reference.can(program, shape, dtype, device, gradient=gradient)


def paint(program: Program, batch: Batch, plan: Plan) -> Painted:
    """The reference's `paint`, fused; call it where `can` says so.

    Returns:
        The corrupted images in the memory format of ``images``, or ``out``, the mask, and from bytes the clean batch.
    """
    if any(boxes.dtype == torch.bool for boxes in plan.boxes):  # what lies outside of boxes in padded images
        return reference.paint(program, batch, plan)
    with torch.no_grad(), torch.cuda.device(batch.images.device) if batch.images.is_cuda else nullcontext():
        call = _Call(program, batch, plan)
        number = 0
        while number < len(program.steps):
            operation = program.steps[number].operation
            end = number
            while end < len(program.steps) and type(program.steps[end].operation) in IN_A_RUN:
                end += 1
            if end > number:
                call.run(number, end)
            elif isinstance(operation, Convolve):
                call.blur(number, operation)
            else:
                call.ask(number)
            number = max(end, number + 1)
        return call.result()


class _Call:
    """One call: the tensors that its kernels share."""

    def __init__(self, program: Program, batch: Batch, plan: Plan) -> None:
        images, donors, self.maps, out, dtype = batch
        self.program, self.plan = program, plan
        self.clean = plain(images)  # as they came: bytes, where they are to be normalised
        self.donors = self.clean if donors is images else plain(donors)
        self.wanted = torch.empty_like(images, dtype=dtype) if out is None else out
        self.out = self.wanted if layout(self.wanted) is not None else torch.empty_like(self.clean, dtype=dtype)
        self.kept = torch.empty_like(self.out) if dtype != images.dtype else None  # the clean batch, normalised
        self.now = self.clean  # what the next step sees; `out` from the first one on
        self.batch, self.channels, *self.size = images.shape
        self.pixels = math.prod(self.size)
        first = type(program.steps[0].operation) in IN_A_RUN  # then its kernel writes every pixel
        self.mask = (images.new_empty if first else images.new_zeros)((self.batch, 1, *self.size), dtype=torch.bool)
        self.active = plan.active.contiguous().view(torch.uint8)
        self.tile = tile_of(_TILE, self.size)
        self.blur_tile = tile_of(_BLUR_TILE, self.size)
        self.groups = [-(-boxes.shape[1] // WORD) for boxes in plan.boxes]
        self.longest = max(self.size)
        tiles = [across(self.size, tile) for tile in (self.tile, self.blur_tile)]
        self.span = self.longest + max(max(one) for one in tiles)
        self.slots, self.words = self._mark()
        self.places: dict[int, Tensor] = {}

    def _mark(self) -> tuple[dict[tuple[int, int], int], Tensor]:
        """The first slot of what a place is to the steps in a run, (place, -1), and of what it is to a blur, and the words.

        A blur has tiles of its own, and words of what it reads around the boxes follow those of its boxes.
        """
        steps, dims = self.program.steps, len(self.size)
        slots: dict[tuple[int, int], int] = {}
        jobs: list[tuple[int, ...]] = []
        reaches: list[Tensor] = []  # (B,) taps of each blur
        ends = list(accumulate((boxes.shape[1] for boxes in self.plan.boxes), initial=0))
        for number, step in enumerate(steps):
            blurs = isinstance(step.operation, Convolve)
            key = (step.place, number if blurs else -1)
            if key in slots:
                continue
            slots[key] = len(jobs)
            tile = self.blur_tile if blurs else self.tile
            for reach in [-1, len(reaches)][: 1 + (blurs and dims > 1)]:
                for low in range(ends[step.place], ends[step.place + 1], WORD):
                    high = min(low + WORD, ends[step.place + 1])
                    jobs.append((len(jobs), low, high, *self._read_by(step.place)[0], *tile, reach))
            if blurs:
                reaches.append(self.plan.drawn[number][1])
        words = torch.empty(self.batch, max(len(jobs), 1), dims, self.span, dtype=torch.int64, device=self.clean.device)
        if jobs:
            boxes, chunks = torch.cat(self.plan.boxes, 1), -(-self.span // _WORDS)
            kernels().axis_words[(self.batch * len(jobs) * dims * chunks,)](
                boxes,
                words,
                torch.stack(reaches) if reaches else boxes,
                self.batch,
                *self.size,
                *[1] * (3 - dims),
                self.longest,
                self.span,
                len(jobs),
                boxes.shape[1],
                chunks,
                JOBS=tuple(jobs),
                COUNT=len(jobs),
                D=dims,
                N=_WORDS,
                num_warps=1,
                **_PLAIN,
            )
        return slots, words

    def _read_by(self, place: int) -> tuple[tuple[int, ...], bool]:
        """The grid of a place, and whether its steps work outside of it."""
        return (self.plan.resolved or self.program.resolved)[place]

    def _maps(self) -> tuple[list[Tensor], list[int], dict[str, bool]]:
        """Maps, strides between their images, and which of them there are."""
        maps = [self.maps.allowed, self.maps.forced]
        tensors = [self.active if one is None else one.contiguous().view(torch.uint8) for one in maps]
        apart = [0 if one is None or len(one) == 1 else self.pixels for one in maps]
        return tensors, apart, {"A": maps[0] is not None, "F": maps[1] is not None}

    def run(self, first: int, end: int) -> None:
        """Steps ``first`` to ``end - 1``, which see no pixel but their own; without any, the images are normalised."""
        tables = Tables()
        steps = tuple(
            describe(
                step.operation,
                self.plan.drawn[first + n],
                self._place(step.place),
                self.program.values,
                self.out,
                self._cleaned,
                tables,
            )
            for n, step in enumerate(self.program.steps[first:end])
        )
        values = ((1.0,) * self.channels, (0.0,) * self.channels)  # not read then
        if self.kept is not None:
            values = byte_scales(self.program.values, self.channels)
        maps, apart, given = self._maps()
        kernels().paint_steps[self._grid(self.tile, self.batch)](
            self.now, self.clean, self.donors, self.out, self.out if self.kept is None else self.kept,
            self.mask.view(torch.uint8), self.active, self.words, *tables.stacked(self.plan.keys), *maps, self.batch,
            *across(self.size, self.tile), *three(self.size), self.longest, self.span, self.words.shape[1],
            len(self.program.steps), *apart, *strides(self.now), *strides(self.clean), *strides(self.donors),
            *strides(self.out), STEPS=steps or (0,), COUNT=len(steps), CONSTANTS=tuple(tables.constants) or (0.0,), BEFORE=first,
            **given, KEEP=self.kept is not None and self.now is self.clean, SCALES=values[0], SHIFTS=values[1], C=self.channels,
            D=len(self.size), R=self.tile[0], W=self.tile[1], num_warps=_WARPS, **_PLAIN,
        )  # fmt: skip
        self.now = self.out

    def _place(self, place: int, number: int = -1) -> tuple[int, int, bool]:
        return self.slots[place, number], self.groups[place], self._read_by(place)[1]

    def _grid(self, tile: tuple[int, int], images: int) -> tuple[int, int, int]:
        """Programs: tiles of an image, and images, along the axis that may have few and the one for the rest."""
        beside, below = across(self.size, tile)
        few = min(images, kernels().IMAGES.value)
        return math.prod(self.size[:-2]) * below * beside, few, -(-images // few)

    def _cleaned(self) -> Tensor:
        """The clean images, normalised if they came as bytes."""
        if self.kept is None:
            return self.clean
        self._begin()
        return self.kept

    def blur(self, number: int, operation: Convolve) -> None:
        """One pass per axis, each into a buffer of its own, for a line is read by its neighbours: some images at a time."""
        self._begin()
        step, (sigma, kernel) = self.program.steps[number], self.plan.drawn[number]
        slot, count, invert = self._place(step.place, number)
        everywhere, dims = invert or self.maps.forced is not None, len(self.size)
        radius = operation.taps[1] // 2
        maps, apart, given = self._maps()
        some = min(max(_SCRATCH // (4 * self.channels * self.pixels), 1), self.batch)
        between = [torch.empty_like(self.out[:some], dtype=torch.float32) for _ in range(min(dims - 1, 2))]
        before = self.out.clone() if dims == 1 else self.out
        for first in range(0, self.batch, some):
            source, source_first = before, 0
            end = min(first + some, self.batch)
            for axis, length in enumerate(self.size):
                target, target_first = (self.out, 0) if axis == dims - 1 else (between[axis], first)
                blur_kernels().blur_axis[self._grid(self.blur_tile, end - first)](
                    source, target, self.mask.view(torch.uint8), self.active, self.words, sigma.contiguous(), kernel.contiguous(),
                    *maps, first, end, *across(self.size, self.blur_tile), *three(self.size), self.longest, self.span,
                    self.words.shape[1], len(self.program.steps), number, *apart, source_first, *strides(source), target_first,
                    *strides(target), slot=slot, wider=slot + count, count=count, axis=axis, everywhere=everywhere, invert=invert,
                    NEAR=radius < length, **given, C=self.channels, D=dims, R=self.blur_tile[0], W=self.blur_tile[1],
                    num_warps=_BLUR_WARPS if self.channels <= 4 else 4, **_PLAIN,
                )  # fmt: skip
                source, source_first = target, target_first

    def ask(self, number: int) -> None:
        """A fill without a kernel."""
        self._begin()
        here = step_mask(self.program, self.plan, number, self.places, self.maps)
        clean = self._cleaned()
        donors = clean if self.donors is self.clean else self.donors
        if self.kept is not None and donors is not clean:
            donors = normalise(donors, self.program.values, self.out.dtype)
        scene, operation = Scene(self.out, clean, donors, here, self.program.values), self.program.steps[number].operation
        function = function_of(operation, "triton") or function_of(operation, "reference")
        assert function is not None  # `can` has asked
        new = like(ask(operation, function, scene, self.plan.drawn[number]), self.out)
        self.out.copy_(torch.where(here, new, self.out))
        self.mask |= here

    def _begin(self) -> None:
        if self.now is self.out:
            return
        if self.kept is None:
            self.now = self.out.copy_(self.clean)
        else:
            self.run(0, 0)

    def result(self) -> Painted:
        """Images and mask, and the clean batch if it was made."""
        self._begin()
        if self.wanted is self.out:
            return Painted(self.out, self.mask, self.kept)
        kept = None if self.kept is None else torch.empty_like(self.wanted).copy_(self.kept)
        return Painted(self.wanted.copy_(self.out), self.mask, kept)
