"""A Gaussian blur by Triton kernels: in place if an image has one box, else one pass per axis over the tiles that need it."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from gmml_aug.backends.reference.coverage import WORD
from gmml_aug.backends.triton.layout import across, strides, three, tile_of
from gmml_aug.backends.triton.lower import blur_kernels, box_kernels, tile_kernels
from gmml_aug.backends.triton.marks import joined
from gmml_aug.backends.triton.painting import PLAIN, Painting
from gmml_aug.ops import Convolve
from gmml_aug.places.boxes import Boxes

# in place: rows and columns of a tile and its warps, programs for each multiprocessor, and the largest radius
_BOX_TILE, _BOX_WARPS, _PROGRAMS, _FARTHEST = (8, 128), 4, 4, 28
# by axes: rows, columns and warps of a tile, and bytes of float32 between the axes: the best of those tried on an H200
_TILE, _WARPS = (8, 32), 1  # four up from 5 channels, or registers spill
_SCRATCH = 128 << 20
_WORDS = 64  # in a program that makes words of boxes


def boxed(call: Painting, first: int) -> list[int]:
    """The blurs from step ``first`` on with one box per image, inside it, and a kernel that crosses at most one border."""
    found: list[int] = []
    plain = call.maps.allowed is None and call.maps.forced is None and len(call.size) == 2
    for step in call.program.steps[first:] if plain else ():
        where, operation = call.program.places[step.place], step.operation
        if not isinstance(operation, Convolve) or _radius(operation) >= min(_FARTHEST + 1, *call.size):
            break
        alone = isinstance(where, Boxes) and where.count == 1 and where.placement != "wrap" and not where.shared
        if not alone or call.resolved[step.place][1] or call.program.budgets_at(step.place):
            break
        found.append(first + len(found))
    return found


def in_place(call: Painting, number: int) -> None:
    """Run a blur that `boxed` listed, in one launch; its pixels are already marked as touched."""
    step, (sigma, kernel) = call.program.steps[number], call.plan.drawn[number]
    assert isinstance(step.operation, Convolve)
    boxes, (rows, columns) = call.plan.boxes[step.place].contiguous(), _BOX_TILE
    ring, width, count = 2 * _radius(step.operation) + rows, call.size[1], call.batch * call.channels
    programs = min(count, _PROGRAMS * _multiprocessors(call.out.device))
    rings = torch.empty(programs, ring, (width + columns) // columns * columns, dtype=torch.float32, device=call.out.device)
    box_kernels().blur_box[(programs,)](
        call.out, boxes, sigma.contiguous(), kernel.contiguous(), call.active, rings, count, call.channels, boxes.shape[1],
        *call.size, len(call.program.steps), number, *strides(call.out), RING=ring, VECTORS=width % 4 == 0, R=rows, W=columns,
        num_warps=_BOX_WARPS, **PLAIN,
    )  # fmt: skip


def _radius(operation: Convolve) -> int:
    """The largest radius of its taps; taps far from the middle have no weight."""
    return min(operation.taps[1] // 2, int(box_kernels().FAR.value * operation.sigma[1]))


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def by_axes(call: Painting, number: int, operation: Convolve) -> None:
    """Blur in one pass per axis, each into a separate buffer, because a line is read by its neighbours; some images at a time."""
    call.begin()
    tile = tile_of(_TILE, call.size)
    longest, span = _spans(call, tile)
    step, (sigma, kernel) = call.program.steps[number], call.plan.drawn[number]
    if call.words is None:
        call.words = _words(call, tile)
    slots, words = call.words
    (slot, count), invert = slots[number], call.resolved[step.place][1]
    everywhere, dims = invert or call.maps.forced is not None, len(call.size)
    radius = operation.taps[1] // 2
    maps, apart, given = call.given()
    some = min(max(_SCRATCH // (4 * call.channels * call.pixels), 1), call.batch)
    between = [torch.empty_like(call.out[:some], dtype=torch.float32) for _ in range(min(dims - 1, 2))]
    before = call.out.clone() if dims == 1 else call.out
    for first in range(0, call.batch, some):
        source, source_first = before, 0
        end = min(first + some, call.batch)
        for axis, length in enumerate(call.size):
            target, target_first = (call.out, 0) if axis == dims - 1 else (between[axis], first)
            blur_kernels().blur_axis[_grid(call, tile, end - first)](
                source, target, call.mask.view(torch.uint8), call.active, words, sigma.contiguous(), kernel.contiguous(),
                *maps, first, end, *across(call.size, tile), *three(call.size), longest, span,
                words.shape[1], len(call.program.steps), number, *apart, source_first, *strides(source), target_first,
                *strides(target), slot=slot, wider=slot + count, count=count, axis=axis, everywhere=everywhere, invert=invert,
                NEAR=radius < length, **given, C=call.channels, D=dims, R=tile[0], W=tile[1],
                num_warps=_WARPS if call.channels <= 4 else 4, **PLAIN,
            )  # fmt: skip
            source, source_first = target, target_first


def _words(call: Painting, tile: tuple[int, int]) -> tuple[dict[int, tuple[int, int]], Tensor]:
    """The first slot and the number of slots of each blur, and the words of its boxes.

    These include the area around the boxes that an earlier axis reads.
    """
    dims, (longest, span) = len(call.size), _spans(call, tile)
    slots: dict[int, tuple[int, int]] = {}
    jobs: list[tuple[int, ...]] = []
    reaches: list[Tensor] = []  # (B,) taps of each blur
    boxes, ends = joined(call.program, call.plan)
    for number, step in enumerate(call.program.steps):
        if not isinstance(step.operation, Convolve):
            continue
        slots[number] = len(jobs), -(-(ends[step.place + 1] - ends[step.place]) // WORD)
        for reach in [-1, len(reaches)][: 1 + (dims > 1)]:
            for low in range(ends[step.place], ends[step.place + 1], WORD):
                high = min(low + WORD, ends[step.place + 1])
                jobs.append((len(jobs), low, high, *call.resolved[step.place][0], *tile, reach))
        reaches.append(call.plan.drawn[number][1])
    words = torch.empty(call.batch, len(jobs), dims, span, dtype=torch.int64, device=call.clean.device)
    chunks = -(-span // _WORDS)
    tile_kernels().axis_words[(call.batch * len(jobs) * dims * chunks,)](
        boxes, words, torch.stack(reaches), call.batch, *call.size, *[1] * (3 - dims), longest, span, len(jobs),
        boxes.shape[1], chunks, JOBS=tuple(jobs), COUNT=len(jobs), D=dims, N=_WORDS, num_warps=1, **PLAIN,
    )  # fmt: skip
    return slots, words


def _spans(call: Painting, tile: tuple[int, int]) -> tuple[int, int]:
    """The longest side, and the number of words along an axis (first those of coordinates, then those of tiles)."""
    longest = max(call.size)
    return longest, longest + max(across(call.size, tile))


def _grid(call: Painting, tile: tuple[int, int], images: int) -> tuple[int, int, int]:
    """The launch grid of a blur: tiles of an image, then the images, split over an axis that may be short and one for the rest."""
    beside, below = across(call.size, tile)
    few = min(images, tile_kernels().IMAGES.value)
    return math.prod(call.size[:-2]) * below * beside, few, -(-images // few)
