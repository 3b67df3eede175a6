"""Make a plan from keys: which steps work on which image, where (after stops, trims and budgets), and the fills' numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from gmml_aug.backends.call import Request
from gmml_aug.backends.reference.coverage import Limit, cover_until
from gmml_aug.backends.reference.masks import cover_in_order, place_mask
from gmml_aug.backends.reference.sequential import cover_sequentially
from gmml_aug.chance import BOXES, FIRST_STEP, GATES, Chance, first_words, stream, to_uniform, words
from gmml_aug.functional import column
from gmml_aug.ops import Tensors
from gmml_aug.places.base import TINY, Place, along_shared, cells_to_pixels, free_size
from gmml_aug.places.boxes import Boxes
from gmml_aug.plan import Plan, Resolved
from gmml_aug.program import Program, counted
from gmml_aug.tensors import followed

if TYPE_CHECKING:
    from gmml_aug.fills.base import Fill

# On the CPU few images at a time, so that the grids of box edges stay in its caches; and at first only the first boxes: most
# images need no more, and the grid grows with the square of their number.
_GROUP_CELLS = 1 << 17
_PARTS = (5, 2, 1)
_SEQUENTIAL, _AN_IMAGE = 250_000, 2_000  # of pixels: so few are painted one box after the other; an image counts as these more


def plan(program: Program, request: Request) -> Plan:
    """Make all random decisions."""
    active = open_steps(program, request.keys, request.working)
    if request.lengths is None:
        places, resolved = place_boxes(program, request.keys, active, request.shape[2:], request.ratios), program.resolved
    else:
        places, resolved = _in_valid_parts(program, request, active)
    streams = first_words(request.keys, range(FIRST_STEP, FIRST_STEP + len(program.steps)))
    return finish(program, request, active, places, resolved, streams)


def finish(
    program: Program,
    request: Request,
    active: Tensor,
    places: Tensors,
    resolved: Resolved,
    streams: Sequence[tuple[Tensor, Tensor]],
) -> Plan:
    """The plan, including the numbers that the fills draw from their streams."""
    keys, shape, donors, from_batch = request.keys, request.shape, request.donors, request.from_batch
    each = [Chance(keys, FIRST_STEP + n, shape, donors, from_batch, hashed=hashed) for n, hashed in enumerate(streams)]
    return Plan(
        keys=keys,
        boxes=places,
        active=active,
        drawn=tuple(drawn_by(step.fill, chance) for step, chance in zip(program.steps, each, strict=True)),
        steps=program.names,
        shape=tuple(shape[1:]),
        donors=donors,
        bank=not from_batch,
        fingerprint=program.fingerprint,
        resolved=resolved,
    )


def open_steps(program: Program, keys: Tensor, working: Sequence[bool]) -> Tensor:
    """(B, steps) bool, True where a step works on an image."""
    uniform = to_uniform(words(stream(keys, GATES), program.gates)) if program.gates else None
    columns = []
    for step, works in zip(program.steps, working, strict=True):
        opened = torch.full_like(keys, works, dtype=torch.bool)
        for gate in step.gates:
            assert uniform is not None
            opened = opened & (uniform[:, gate.draw] >= gate.low) & (uniform[:, gate.draw] < gate.high)
        columns.append(opened)
    return torch.stack(columns, dim=1)


def place_words(program: Program, keys: Tensor, size: Sequence[int]) -> tuple[list[list[int]], tuple[Tensor, ...]]:
    """For each place, the sizes of its free axes and its random words (B, words) int64."""
    sizes = [free_size(where, size) for where in program.places]
    counts = [0 if where is None else where.words(inner) for where, inner in zip(program.places, sizes, strict=True)]
    return sizes, words(stream(keys, BOXES), sum(counts)).split(counts, dim=1)


def place_boxes(
    program: Program, keys: Tensor, active: Tensor, size: Sequence[int], ratios: Tensor | None = None
) -> tuple[Tensor, ...]:
    """For every place, (B, N, 2 dims) int32 boxes or a (B, 1, *S) bool mask.

    They are empty for images on which no step of the place works.
    """
    sizes, word = place_words(program, keys, size)
    here = [active[:, some].any(1) if len(some) > 1 else active[:, some[0]] for some in map(list, program.steps_at)]
    counting = [counted(program, active, number) for number in range(len(program.places))]
    placed: dict[int, Tensor] = {}
    alike: dict[int, list[int]] = {}
    for number, first in enumerate(program.first_equal):
        where = program.places[first]
        if not counting[number] and (where is None or where.is_boxes):
            alike.setdefault(first, []).append(number)
    for first, numbers in alike.items():  # equal places that no budget ties to others are settled together, as one larger batch
        where, inner = program.places[first], sizes[first]
        many = None if ratios is None else _join([ratios] * len(numbers))
        drawn, target = _draw(where, _join([word[n] for n in numbers]), _join([keys] * len(numbers)), inner, many)
        settled = _settle_at(where, drawn, inner, target, [], _join([here[n] for n in numbers]))
        each = settled.reshape(len(numbers), keys.shape[0], *settled.shape[1:]).unbind(0)  # chunk() would fix the batch size
        for number, one in zip(numbers, each, strict=True):
            placed[number] = one
    for number, (where, inner) in enumerate(zip(program.places, sizes, strict=True)):
        if number in placed:
            continue
        limits = []
        for budget, binds in counting[number].items():
            before = [(placed[n], counting[n][budget]) for n in range(number) if budget in counting[n]]
            boxes = [one.masked_fill(~column(counts, 3), 0) for one, counts in before if one.dtype != torch.bool]
            masks = [one & column(counts, one.ndim) for one, counts in before if one.dtype == torch.bool]
            taken = torch.cat(boxes, dim=1) if boxes else keys.new_zeros(keys.shape[0], 0, 2 * len(inner))
            most = math.floor(program.budgets[budget] * math.prod(inner) + TINY)
            limits.append(Limit(taken, torch.stack(masks).any(0) if masks else None, most, binds))
        if where is not None and not where.is_boxes:
            order = _checked(where, where.order(word[number], inner), (keys.shape[0], *inner), boxes=False)
            mask = cover_in_order(order, where.levels(inner), where.target(word[number], inner, ratios), limits)
            placed[number] = mask & column(here[number], mask.ndim)
            continue
        drawn, target = _draw(where, word[number], keys, inner, ratios)
        placed[number] = _settle_at(where, drawn, inner, target, limits, here[number])
    return tuple(_whole(placed[number], where, size) for number, where in enumerate(program.places))


def _whole(placed: Tensor, where: Place | None, size: Sequence[int]) -> Tensor:
    """Extend a place from its free axes to all axes of the image."""
    if placed.dtype != torch.bool:
        return (placed if where is None else along_shared(placed, where, size)).to(torch.int32)
    assert where is not None
    for axis in where.shared:
        placed = placed.unsqueeze(axis + 1)
    return placed.expand(-1, *size)[:, None].contiguous()


def _draw(
    where: Place | None, word: Tensor, keys: Tensor, size: Sequence[int], ratios: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The boxes before any stop, and the number of pixels to cover."""
    if where is not None:
        shape = (keys.shape[0], -1, 2 * len(size))
        return _checked(where, where.draw(word, size, ratios), shape, boxes=True), where.target(word, size, ratios)
    ends = torch.stack([torch.full_like(keys, length) for length in size], dim=1)
    return torch.cat([torch.zeros_like(ends), ends], dim=1)[:, None], None


def _checked(where: Place, drawn: object, shape: tuple[int, ...], *, boxes: bool) -> Tensor:
    """Return what a place drew, or raise an error that says what it should be; -1 in the shape stands for any number above 0."""
    fits = isinstance(drawn, Tensor) and drawn.dtype == torch.int64 and drawn.ndim == len(shape)
    if not fits or any(
        got != wanted if wanted >= 0 else got == 0 for got, wanted in zip(cast(Tensor, drawn).shape, shape, strict=True)
    ):
        came = f"{drawn.dtype} {tuple(drawn.shape)}" if isinstance(drawn, Tensor) else type(drawn).__name__
        form = f"(B, N, 2 D) = ({shape[0]}, N, {shape[2]}), starts and then sizes" if boxes else f"(B, *size) = {shape}"
        raise ValueError(f"{type(where).__name__}: {'draw' if boxes else 'order'} returned {came}. Return int64 of shape {form}.")
    return cast(Tensor, drawn)


def drawn_by(fill: Fill, chance: Chance) -> Tensors:
    """Return what a fill draws, or raise an error if it is not a tuple of tensors whose first axis is the batch."""
    drawn = cast(object, fill.draw(chance))
    batch = chance.keys.shape[0]
    if isinstance(drawn, tuple) and all(isinstance(one, Tensor) and one.ndim and one.shape[0] == batch for one in drawn):
        return drawn
    parts = drawn if isinstance(drawn, tuple) else (drawn,)
    came = ", ".join(f"a tensor of shape {tuple(one.shape)}" if isinstance(one, Tensor) else type(one).__name__ for one in parts)
    raise TypeError(
        f"{type(fill).__name__}: draw returned {came}{'' if isinstance(drawn, tuple) else ', not in a tuple'}. Return a tuple of "
        f"tensors with one entry per image along their first axis ({batch} here), for example (chance.uniform(1),)."
    )


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _settle_at(
    where: Place | None, boxes: Tensor, size: Sequence[int], target: Tensor | None, limits: Sequence[Limit], here: Tensor
) -> Tensor:
    """`_settle` under the rules of a place: on the cells of its grid, if cells are to stay whole."""
    whole = where is not None and where.overshoot
    if not isinstance(where, Boxes) or not where.whole:
        return _settle(boxes, size, target, limits, here, whole=whole)
    settled = cells_to_pixels(
        _settle(where.in_cells(boxes, size), where.cells(size), target, [], here, whole=whole), size, where.steps
    )
    return _settle(settled, size, None, limits, here, whole=False) if limits else settled


def _settle(
    boxes: Tensor, size: Sequence[int], target: Tensor | None, limits: Sequence[Limit], here: Tensor, *, whole: bool
) -> Tensor:
    """`cover_until` for the images where ``here`` is True; the others get boxes of size 0."""
    if boxes.device.type != "cpu" or followed() or (target is None and not limits):
        return cover_until(boxes, size, target, limits, whole=whole)[0].masked_fill(~column(here, 3), 0)
    if target is not None and not limits and boxes.shape[0] * (math.prod(size) + _AN_IMAGE) < _SEQUENTIAL:
        return cover_sequentially(boxes, size, target, here, whole=whole)
    done = torch.zeros(boxes.shape[0], boxes.shape[1] + len(size) - 1, boxes.shape[2], dtype=boxes.dtype, device=boxes.device)
    left = here.nonzero()[:, 0]
    if not left.shape[0]:
        return done
    everything = math.prod(min(2 * boxes.shape[1] + 1, length) for length in size) * left.shape[0]
    parts = _PARTS if everything > _GROUP_CELLS else (1,)  # few cells: what counts are the calls
    for first in sorted({-(-boxes.shape[1] // part) for part in parts}):
        unfinished = []
        cells = math.prod(min(2 * first + 1, length) for length in size)
        for group in left.split(_GROUP_CELLS // cells + 1):
            some = [limit.of(group) for limit in limits]
            goal = None if target is None else target[group]
            settled, ended = cover_until(boxes[group, :first], size, goal, some, whole=whole, more=first < boxes.shape[1])
            done[group, : settled.shape[1]] = settled
            unfinished.append(group[~ended])
        left = torch.cat(unfinished)
        if not left.shape[0]:
            break
    return done


def _in_valid_parts(program: Program, request: Request, active: Tensor) -> tuple[Tensors, Resolved]:
    """The places of padded images: each image gets those of the image without its padding, whatever else is in the batch."""
    size, lengths = request.shape[2:], request.lengths
    assert lengths is not None
    alike: dict[tuple[int, ...], list[int]] = {}
    for image, valid in enumerate(lengths):
        alike.setdefault(valid, []).append(image)
    found: list[list[Tensor]] = [[] for _ in program.places]
    for valid, images in alike.items():
        some = torch.tensor(images, device=active.device)
        ratios = None if request.ratios is None else request.ratios[some]
        placed = place_boxes(program, request.keys[some], active[some], valid, ratios)
        for number, (where, place) in enumerate(zip(program.places, placed, strict=True)):
            if where is None or (where.is_boxes and not where.invert):
                found[number].append(_cut_at(place, valid, size))
            else:
                mask = place_mask(place, valid, grid=program.grid_at(number), invert=where.invert)
                beyond = [length - end for length, end in zip(size, valid, strict=True)]
                found[number].append(pad(mask, [more for after in reversed(beyond) for more in (0, after)]))
    order = torch.tensor([image for images in alike.values() for image in images], device=active.device).argsort()
    places = []
    for parts in found:
        rows = max(part.shape[1] for part in parts)
        parts = [pad(part, [0, 0] * (part.ndim - 2) + [0, rows - part.shape[1]]) for part in parts]
        places.append(torch.cat(parts)[order])
    return tuple(places), (((1,) * len(size), False),) * len(places)


def _cut_at(boxes: Tensor, valid: Sequence[int], size: Sequence[int]) -> Tensor:
    """Convert boxes that wrap around within a part of an image to boxes of the whole image.

    A box that wraps becomes two along that axis.
    """
    dims = len(size)
    for axis, (end, length) in enumerate(zip(valid, size, strict=True)):
        if end == length:
            continue
        inside, beyond = boxes.clone(), boxes.clone()
        over = (boxes[..., axis] + boxes[..., dims + axis] - end).clamp(min=0)
        inside[..., dims + axis] -= over
        beyond[..., axis], beyond[..., dims + axis] = 0, over
        boxes = torch.cat([inside, beyond.masked_fill((over == 0)[..., None], 0)], dim=1)
    return boxes
