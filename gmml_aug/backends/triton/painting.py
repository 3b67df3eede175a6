"""One call of the painting kernels: its tensors, and the runs of steps that read only their own pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from gmml_aug.backends.call import Batch, Painted
from gmml_aug.backends.reference.paint import step_mask
from gmml_aug.backends.reference.pixels import ask
from gmml_aug.backends.triton.layout import layout, plain, strides, three, tiling
from gmml_aug.backends.triton.lower import IN_A_RUN, kernels, lower
from gmml_aug.backends.triton.marks import ROWS, Marks, marks_of
from gmml_aug.functional import like
from gmml_aug.ops import Scene, function_of
from gmml_aug.plan import Plan
from gmml_aug.program import Program
from gmml_aug.values import normalise

LARGEST_GRID = 65_535  # along its second and third axis
PLAIN: Final = {"enable_fp_fusion": False}  # bytes are normalised as torch rounds; and Triton 3.9 warns of an unset one
_GROUP, _WARPS = 16, {4: 2}  # bytes of a channel that are read together; warps of a tile, one otherwise, by the bytes of a number


class Painting:
    """One call: the tensors that its kernels share, and the kernel that most steps run in."""

    def __init__(self, program: Program, batch: Batch, plan: Plan) -> None:
        images, donors, self.maps, out, dtype, self.clean_wanted = batch
        self.program, self.plan = program, plan
        self.clean = plain(images)  # as they came: bytes, where they are to be normalised
        self.donors = self.clean if donors is images else plain(donors)
        self.wanted = torch.empty_like(images, dtype=dtype) if out is None else out
        self.out = self.wanted if layout(self.wanted) is not None else torch.empty_like(self.clean, dtype=dtype)
        self.from_bytes = batch.from_bytes
        # the clean batch, normalised: made where it is asked for, or where a step needs all of it
        self.kept = torch.empty_like(self.out) if self.from_bytes and self.clean_wanted else None
        self.now = self.clean  # what the next step sees; `out` from the first one on
        self.batch, self.channels, *self.size = images.shape
        self.pixels = math.prod(self.size)
        first = type(program.steps[0].operation) in IN_A_RUN  # then its kernel writes every pixel
        self.mask = (images.new_empty if first else images.new_zeros)((self.batch, 1, *self.size), dtype=torch.bool)
        self.active = plan.active.contiguous().view(torch.uint8)
        self.resolved = plan.resolved or program.resolved
        self.tiling = tiling(self.size, ROWS)
        self._marks: Marks | None = None
        self.words: tuple[dict[int, tuple[int, int]], Tensor] | None = None  # of the blurs, see `blur`
        self.places: dict[int, Tensor] = {}

    def marks(self) -> Marks:
        """Bits that say where every place works."""
        if self._marks is None:
            self._marks = marks_of(self.program, self.plan, self.resolved, self.size, self.tiling)
        return self._marks

    def given(self) -> tuple[list[Tensor], list[int], dict[str, bool]]:
        """The maps, the strides between their images, and which maps were given."""
        maps = [self.maps.allowed, self.maps.forced]
        tensors = [self.active if one is None else one.contiguous().view(torch.uint8) for one in maps]
        apart = [0 if one is None or len(one) == 1 else self.pixels for one in maps]
        return tensors, apart, {"A": maps[0] is not None, "F": maps[1] is not None}

    def run(self, first: int, end: int, boxed: Sequence[int] = ()) -> None:
        """Run steps ``first`` to ``end - 1``, which read only their own pixels; without any steps, only normalise the images.

        Pixels that a blur in ``boxed`` will change later are already marked as touched.
        """
        run = lower(self.program, first, end, self.channels, self.out.dtype, self.from_bytes)
        numbers, colours = run.tables(self.plan, self._cleaned)
        maps, apart, given = self.given()
        item = self.out.element_size()
        group = _GROUP // item
        tiled, marks = self.tiling, self.marks()
        beside = 1 if tiled.flat else tiled.words
        clean_at, out_at = strides(self.clean), strides(self.out)
        donors_at = clean_at if self.donors is self.clean else strides(self.donors)
        marked = tuple((number, self.program.steps[number].place) for number in boxed)
        for image in range(0, self.batch, LARGEST_GRID):
            for tile in range(0, tiled.tiles, LARGEST_GRID):
                grid = beside, min(tiled.tiles - tile, LARGEST_GRID), min(self.batch - image, LARGEST_GRID)
                kernels().paint_steps[grid](
                    self.now, self.clean, self.donors, self.out, self.out if self.kept is None else self.kept,
                    self.mask.view(torch.uint8), self.active, *marks, numbers, colours, *maps, image, tile,
                    self.batch, tiled.lines, *three(self.size), tiled.words, tiled.tiles, tiled.flag_row, len(self.program.steps),
                    *apart, *(out_at if self.now is self.out else clean_at), *clean_at, *donors_at, *out_at,
                    MARKED=marked or (0,), MORE=len(marked), PLACES=len(self.plan.boxes), **given,
                    KEEP=self.kept is not None and self.now is self.clean, C=self.channels, D=len(self.size), FLAT=tiled.flat,
                    EVEN=tiled.width % group == 0, R=ROWS, E=group, num_warps=_WARPS.get(item, 1), **run.options, **PLAIN,
                )  # fmt: skip
        self.now = self.out

    def _cleaned(self) -> Tensor:
        """The clean images, normalised if they came as bytes."""
        if not self.from_bytes:
            return self.clean
        if self.kept is None:
            self.kept = torch.empty_like(self.out).copy_(normalise(self.clean, self.program.values, self.out.dtype))
        self.begin()
        return self.kept

    def ask(self, number: int) -> None:
        """Paint a fill without a kernel."""
        self.begin()
        here = step_mask(self.program, self.plan, number, self.places, self.maps)
        clean = self._cleaned()
        donors = clean if self.donors is self.clean else self.donors
        if self.from_bytes and donors is not clean:
            donors = normalise(donors, self.program.values, self.out.dtype)
        scene, operation = Scene(self.out, clean, donors, here, self.program.values), self.program.steps[number].operation
        function = function_of(operation, "triton") or function_of(operation, "reference")
        assert function is not None  # `can` has asked
        new = like(ask(operation, function, scene, self.plan.drawn[number]), self.out)
        self.out.copy_(torch.where(here, new, self.out))
        self.mask |= here

    def begin(self) -> None:
        """Copy or normalise the images, unless a step has already written them."""
        if self.now is self.out:
            return
        if self.from_bytes:
            self.run(0, 0)
        else:
            self.now = self.out.copy_(self.clean)

    def result(self) -> Painted:
        """The images, the mask, and the clean batch if it was made."""
        self.begin()
        kept = self.kept if self.clean_wanted else None
        if self.wanted is self.out:
            return Painted(self.out, self.mask, kept)
        kept = None if kept is None else torch.empty_like(self.wanted).copy_(kept)
        return Painted(self.wanted.copy_(self.out), self.mask, kept)
