"""Bits that say where the steps of a plan work: from the kernel that made the plan, or else computed from its boxes."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gmml_aug.backends.reference.coverage import WORD
from gmml_aug.backends.triton.layout import Tiling, three
from gmml_aug.backends.triton.lower import bit_kernels
from gmml_aug.places.boxes import Boxes
from gmml_aug.plan import Plan, Resolved
from gmml_aug.program import Program

ROWS = 8  # words in a tile
_LINES, _WORDS = 32, 32  # of a program that makes bits


class Marks(NamedTuple):
    """Bits and flags; see `kernels.bits`."""

    bits: Tensor  # (B, places, lines, words) int32
    flags: Tensor  # (B, places, tiles, flag words) int32


# of plans that were made with their bits, and how often their boxes had been written to then
_KEPT: weakref.WeakKeyDictionary[Plan, tuple[Marks, list[int]]] = weakref.WeakKeyDictionary()


def empty_marks(batch: int, places: int, tiled: Tiling, device: torch.device) -> Marks:
    """Memory for them."""
    bits = torch.empty(batch, places, tiled.lines, tiled.words, dtype=torch.int32, device=device)
    return Marks(bits, torch.empty(batch, places, tiled.tiles, tiled.flag_row, dtype=torch.int32, device=device))


def keep(plan: Plan, marks: Marks) -> None:
    """Keep the bits of a plan as long as the plan exists; for a changed or sliced plan they are made again from its boxes."""
    if not any(boxes.is_inference() for boxes in plan.boxes):  # nobody counts what is written to those
        _KEPT[plan] = marks, [boxes._version for boxes in plan.boxes]


def joined(program: Program, plan: Plan) -> tuple[Tensor, list[int]]:
    """The boxes of all places, concatenated, and the rows at which each place begins and the last one ends.

    Kernels are compiled for these rows. If their number depends on the size of the images, as for `Cells`, it is padded with unused
    rows, so that new sizes rarely compile anything.
    """
    parts = []
    for where, boxes in zip(program.places, plan.boxes, strict=True):
        more = 0 if where is None or isinstance(where, Boxes) else _step(boxes.shape[1]) - boxes.shape[1]
        parts.append(functional.pad(boxes, (0, 0, 0, more)) if more else boxes)
    return torch.cat(parts, 1), list(accumulate((one.shape[1] for one in parts), initial=0))


def _step(rows: int) -> int:
    """Round up to a power of two, or to a multiple of the number of boxes in a word."""
    return 1 << (rows - 1).bit_length() if rows <= WORD // 2 else WORD << (-(-rows // WORD) - 1).bit_length()


def marks_of(program: Program, plan: Plan, resolved: Resolved, size: Sequence[int], tiled: Tiling) -> Marks:
    """The bits of every place of a plan of boxes."""
    kept = _KEPT.get(plan)
    if kept is not None and kept[1] == [boxes._version for boxes in plan.boxes]:
        return kept[0]
    places, (boxes, ends) = len(plan.boxes), joined(program, plan)
    marks = empty_marks(len(plan), places, tiled, boxes.device)
    jobs = [(ends[n], ends[n + 1], int(invert), *reversed(grid)) for n, (grid, invert) in enumerate(resolved)]
    lines, words = 1 if tiled.flat else _LINES, _WORDS
    if not tiled.flat and tiled.words < _WORDS:
        words = 1 << (tiled.words - 1).bit_length()
    grid = (len(plan) * places, -(-tiled.lines // lines), -(-tiled.words // words))
    bit_kernels().mark_boxes[grid](
        boxes, *marks, boxes.shape[1], *three(size), tiled.lines, tiled.words, tiled.tiles, tiled.flag_row, JOBS=tuple(jobs),
        COUNT=places, D=len(size), FLAT=tiled.flat, L=lines, W=words, R=ROWS, num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
    return marks
