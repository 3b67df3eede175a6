"""Checkers and slow, plain oracles that several test files share; torch and the standard library alone."""

from __future__ import annotations

import itertools
import math
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import gmml_aug as ga
from gmml_aug.backends.reference import plan as planner
from gmml_aug.backends.reference.masks import boxes_to_mask
from gmml_aug.chance import stream, words

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DTYPES = (*FLOATS, torch.uint8)
LAYOUTS = ("contiguous", "channels_last", "transposed", "strided", "expanded")
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Pixel = tuple[int, ...]


def bits(images: Tensor) -> Tensor:
    """The bits of every number, so that NaN equals NaN and 0.0 is not -0.0."""
    return images.detach().contiguous().view(_INTEGERS[images.element_size()])


def same_bits(one: Tensor, other: Tensor) -> bool:
    """True where dtype, shape, device and every bit agree."""
    return one.dtype == other.dtype and one.device == other.device and torch.equal(bits(one), bits(other))


def random_bits(shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    """Any bit pattern at all: for floats also NaN, infinities, subnormals and -0.0."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 256, (*shape, size), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).squeeze(-1) if size > 1 else raw[..., 0]


def random_images(shape: Sequence[int], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Ordinary images: N(0, 1), or 0 to 255 for uint8."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.uint8:
        return torch.randint(0, 256, tuple(shape), dtype=dtype, generator=generator)
    return torch.randn(*shape, generator=generator).to(dtype)


def channels_last_format(images: Tensor) -> torch.memory_format:
    """The channels-last format for the rank of the images; contiguous where torch has none."""
    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(images.ndim, torch.contiguous_format)


def lay_out(images: Tensor, layout: str) -> Tensor:
    """The same values (but for "expanded": the first image repeated) in another place in memory."""
    if layout == "channels_last":
        return images.contiguous(memory_format=channels_last_format(images))
    if layout == "transposed":
        return images.transpose(-1, 1).contiguous().transpose(-1, 1)
    if layout == "strided":
        return torch.stack([images, torch.zeros_like(images)], dim=-1).flatten(-2)[..., ::2]
    if layout == "expanded":
        return images[:1].expand_as(images)
    return images.contiguous()


def plans_equal(one: ga.Plan, other: ga.Plan, *, but: Sequence[int] = ()) -> bool:
    """True where two plans agree: integers to the bit, floats within 1e-6; ``but``: steps whose draws are not looked at."""
    same = torch.equal(one.keys, other.keys) and torch.equal(one.active, other.active) and one.shape == other.shape
    same = same and len(one.boxes) == len(other.boxes) and len(one.drawn) == len(other.drawn)
    same = same and all(torch.equal(a, b) for a, b in zip(one.boxes, other.boxes, strict=True))
    for number, (mine, theirs) in enumerate(zip(one.drawn, other.drawn, strict=True)):
        if number not in but:
            same = same and len(mine) == len(theirs)
            same = same and all(_agree(a, b) for a, b in zip(mine, theirs, strict=True))
    return bool(same)


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.is_floating_point():
        return one.shape == other.shape and bool((one - other).abs().max() <= 1e-6)
    return torch.equal(one, other)


def leaves(plan: ga.Plan) -> list[Tensor]:
    """All tensors of a plan."""
    return [leaf for leaf in pytree.tree_leaves(plan) if isinstance(leaf, Tensor)]


def some_keys(count: int, seed: int = 0) -> Tensor:
    """Keys for a batch, from a seed."""
    return ga.keys(seed, 0, range(count))


def sampled_both_ways(corrupt: ga.Corruption, shape: Sequence[int], keys: Tensor) -> ga.Plan:
    """The plan on the CPU, which is the same whether boxes are settled one after the other or all at once."""
    plans = []
    for pixels in (0, 1 << 60):
        with mock.patch.object(planner, "_SEQUENTIAL", pixels):
            plans.append(corrupt.sample(shape, keys=keys, backend="reference"))
    assert plans_equal(*plans)
    return plans[0]


def masks_of(corrupt: ga.Corruption, shape: Sequence[int], count: int, *, seed: int = 0, chunk: int = 500) -> Iterator[Tensor]:
    """(chunk, *S) bool masks of the first place of ``corrupt``, ``count`` in all, straight from its plans."""
    for first in range(0, count, chunk):
        number = min(chunk, count - first)
        plan = corrupt.sample((number, *shape), keys=ga.keys(seed, 0, range(first, first + number)))
        yield boxes_to_mask(plan.boxes[0], tuple(shape[1:]))[:, 0]


def raw_boxes(boxes: ga.Boxes, size: Sequence[int], count: int, seed: int = 0) -> Tensor:
    """(count, N, 2 dims) boxes as chance draws them, before any stop or trim."""
    return boxes.draw(words(some_keys(count, seed), boxes.words(size)), size)


def chi_square_z(counts: Tensor, expected: Tensor | None = None) -> float:
    """How many standard deviations the chi-square statistic lies above what chance gives (Wilson and Hilferty)."""
    seen = counts.double()
    wanted = torch.full_like(seen, float(seen.mean())) if expected is None else expected.double()
    freedom = len(seen) - 1
    statistic = float(((seen - wanted) ** 2 / wanted).sum())
    third: float = (statistic / freedom) ** (1 / 3)
    return (third - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))


def z_of_mean(samples: Tensor, expected: float | Tensor) -> Tensor:
    """How many standard errors the mean over the first axis lies from what is expected; independent along that axis."""
    wide = samples.double()
    error = wide.std(0) / math.sqrt(len(wide))
    return (wide.mean(0) - expected) / error.clamp(min=1e-12)


class Room:
    """A budget of the slow painter: pixels taken by steps under it, and how many there may be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken: set[Pixel] = set()


def paint_slowly(
    boxes: Sequence[Sequence[int]], size: Sequence[int], target: int | None, *, whole: bool = False, rooms: Sequence[Room] = ()
) -> set[Pixel]:
    """The contract, one pixel after the other: what `coverage.cover_until` must amount to.

    Boxes are painted in their order, each from its own first corner, the last axis fastest, modulo the image. Painting ends with
    the pixel that makes the covered area equal to the target (``whole``: with the box; the last box is cut to the pixel all the
    same), or that uses up a room; a pixel that a room has already costs it nothing.
    """
    dims = len(size)
    covered: set[Pixel] = set()
    for number, box in enumerate(boxes):
        trims = target is not None and (not whole or number == len(boxes) - 1)
        if target is not None and len(covered) >= target:
            return covered
        for offset in itertools.product(*(range(extent) for extent in box[dims:])):
            if trims and target is not None and len(covered) >= target:
                return covered
            if any(len(room.taken) >= room.limit for room in rooms):
                return covered
            pixel = tuple((start + step) % length for start, step, length in zip(box[:dims], offset, size, strict=True))
            covered.add(pixel)
            for room in rooms:
                room.taken.add(pixel)
    return covered


def kinds_slowly(tree: ga.Corruption, plan: ga.Plan, size: Sequence[int]) -> Tensor:
    """`Corruption.kinds` by walking the tree that was written, pixel by pixel.

    It takes from the plan which step works on which image, and from the library the raw boxes and targets; stops, trims,
    overlaps and budgets are its own.
    """
    places: list[tuple[Any, list[tuple[int, ga.Fill, tuple[int, ...]]]]] = []
    limits: list[int] = []
    pixels = math.prod(size)
    steps = itertools.count()

    def walk(node: Any, place: int | None, budgets: tuple[int, ...]) -> None:
        if isinstance(node, ga.Fill):
            if place is None:
                places.append((None, []))
            places[-1 if place is None else place][1].append((next(steps), node, budgets))
        elif isinstance(node, ga.InBoxes):
            places.append((node.boxes, []))
            walk(node.fill, len(places) - 1, budgets)
        else:
            if isinstance(node, ga.Chain) and node.budget is not None:
                limits.append(math.floor(node.budget * pixels + 1e-6))
                budgets = (*budgets, len(limits) - 1)
            for part in node.parts:
                walk(part, place, budgets)

    walk(tree, None, ())
    counts = [0 if boxes is None else boxes.words(size) for boxes, _ in places]
    chance = words(stream(plan.keys, 1), sum(counts)).split(counts, dim=1)
    found = torch.zeros(len(plan), 1, *size, dtype=torch.uint8)
    drawn = [None if boxes is None else boxes.draw(chance[p], size).tolist() for p, (boxes, _) in enumerate(places)]
    targets = [None if boxes is None else boxes.target(chance[p], size) for p, (boxes, _) in enumerate(places)]
    for image in range(len(plan)):
        rooms = [Room(limit) for limit in limits]
        for number, (boxes, fills) in enumerate(places):
            working = [(step, fill, budgets) for step, fill, budgets in fills if plan.active[image, step]]
            if not working:
                continue
            bound = sorted({b for _, fill, budgets in working if fill.replaces for b in budgets})
            mine, goal = drawn[number], targets[number]
            raw = [[0] * len(size) + list(size)] if mine is None else mine[image]
            covered = paint_slowly(
                raw,
                size,
                None if goal is None else int(goal[image]),
                whole=boxes is not None and boxes.overshoot,
                rooms=[rooms[b] for b in bound],
            )
            for pixel in covered:
                found[(image, 0, *pixel)] = working[-1][0] + 1
    return found


def disassembled(cubin: bytes, folder: Path) -> tuple[str, str]:
    """A kernel for a GPU as SASS, and what it uses of registers and stack, by the tools that come with Triton."""
    import triton  # type: ignore[import-untyped, unused-ignore]  # no types, and not everywhere

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    if not (tools / "nvdisasm").is_file():
        pytest.skip("this Triton comes without nvdisasm")
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    commands = [[str(tools / "nvdisasm"), "-c", str(file)], [str(tools / "cuobjdump"), "-res-usage", str(file)]]
    sass, usage = (subprocess.run(words, capture_output=True, text=True, check=True) for words in commands)
    return sass.stdout, usage.stdout + usage.stderr
