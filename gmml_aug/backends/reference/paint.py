"""Paint a plan: the steps in order, each working on the result of the earlier ones.

The other backends must match it. It runs on any device as one graph, is differentiable, and does not synchronise. On a CPU,
outside compiled code, a few images are painted at a time so that they stay in the caches, and pixels that a step does not touch
cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gmml_aug.backends.call import Batch, Maps, Painted
from gmml_aug.backends.reference.masks import place_mask
from gmml_aug.backends.reference.pixels import FUNCTIONS, pixels
from gmml_aug.functional import column, like
from gmml_aug.ops import Scene, function_of
from gmml_aug.plan import Plan
from gmml_aug.program import Program
from gmml_aug.tensors import followed, vmapped
from gmml_aug.values import normalise

_GROUP_BYTES = 4 << 20  # of images at a time on the CPU: what stays in its caches
_FRESH_BYTES = 128 << 10  # above it glibc takes fresh pages for a buffer: a third of the time
_KEPT_BYTES = 16 << 20  # of pages that the allocator keeps between the buffers of a call
_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def paint(program: Program, batch: Batch, plan: Plan) -> Painted:
    """Carry out a plan."""
    if batch.from_bytes:
        clean = normalise(batch.images, program.values, batch.dtype)
        donors = clean if batch.donors is batch.images else normalise(batch.donors, program.values, batch.dtype)
        painted = paint(program, batch._replace(images=clean, donors=donors), plan)
        return painted._replace(clean=clean if batch.clean else None)
    images, out = batch.images, batch.out
    mask = torch.zeros(images.shape[0], 1, *images.shape[2:], dtype=torch.bool, device=images.device)
    graph = torch.is_grad_enabled() and (images.requires_grad or batch.donors.requires_grad)
    if images.device.type != "cpu" or followed() or graph:
        done, mask = _steps(program, batch, plan, images, mask)
        done = images.clone() if done is images else _in_format_of(images, done)
        return Painted(done if out is None else out.copy_(done), mask)
    done = torch.empty_like(images) if out is None else out
    _in_groups(program, batch, plan, done, mask)
    return Painted(done, mask)


def step_mask(program: Program, plan: Plan, number: int, places: dict[int, Tensor], maps: Maps) -> Tensor:
    """(B, 1, *S) bool, True where a step works; ``places`` keeps the masks of places for the steps that share them."""
    place = program.steps[number].place
    grid, invert = (plan.resolved or program.resolved)[place]
    boxes, active = plan.boxes[place], plan.active[:, number]
    alone = not invert and len(program.steps_at[place]) == 1 and boxes.dtype != torch.bool
    if alone:  # a mask of boxes without size is cheaper than the and of two masks
        boxes = boxes.masked_fill(~column(active, 3), 0)
    if place not in places:
        places[place] = place_mask(boxes, plan.shape[1:], grid=grid, invert=invert)
    mask = places[place]
    if not alone:
        mask = mask & column(active, mask.ndim)
    if maps.forced is not None:
        earlier = plan.active[:, :number].any(1) if number else torch.zeros_like(active)
        mask = mask | (maps.forced & column(active & ~earlier, mask.ndim))
    return mask if maps.allowed is None else mask & maps.allowed


def _steps(
    program: Program, batch: Batch, plan: Plan, now: Tensor, mask: Tensor, works: list[list[bool]] | None = None
) -> tuple[Tensor, Tensor]:
    """Paint all images at once, out of place; or into ``now`` and ``mask``, if ``works`` says which step works on which image."""
    places: dict[int, Tensor] = {}
    for number, step in enumerate(program.steps):
        if works is not None and not any(works[number]):
            continue
        here = step_mask(program, plan, number, places, batch.maps)
        scene = Scene(now, batch.images, batch.donors, here, program.values)
        new = like(pixels(step.operation, scene, plan.drawn[number]), now)
        if works is None:
            now, mask = torch.where(here, new, now), mask | here
        else:
            blend_(now, new, here)
            mask |= here
    return now, mask


def _in_groups(program: Program, batch: Batch, plan: Plan, out: Tensor, mask: Tensor) -> None:
    """Paint a few images at a time into ``out``; steps that work on none of them cost nothing."""
    clean = batch.images
    held = clean.numel() * clean.element_size()
    large = held > _GROUP_BYTES
    if held > _FRESH_BYTES:  # a freed block of this size tells glibc to keep pages instead of asking for fresh ones at every buffer
        torch.empty(_KEPT_BYTES, dtype=torch.uint8, device=clean.device)
    group = max(1, _GROUP_BYTES // (clean[0].numel() * max(clean.element_size(), 4)))
    works = plan.active.t().tolist()
    for low in range(0, len(clean), group):
        part = slice(low, low + group)
        now, some = out[part].copy_(clean[part]), plan[part].without_empty_rows() if large else plan
        those = batch._replace(images=clean[part], maps=batch.maps.of(part))
        _steps(program, those, some, now, mask[part], [step[part] for step in works])


def can(program: Program, shape: Sequence[int], dtype: torch.dtype | None, device: torch.device, *, gradient: bool) -> str | None:
    """None, or the reason why this backend cannot be used: an operation for which no function is registered."""
    for step in program.steps:
        if type(step.operation) not in FUNCTIONS and function_of(step.operation, "reference") is None:
            return (
                f"there is no function that carries out {type(step.operation).__name__}, the operation of "
                f"{type(step.fill).__name__}. Give "
                'it pixels(scene, drawn), or a function: gmml_aug.register_operation(kind, "reference", function)'
            )
    return None


def blend_(now: Tensor, new: Tensor, mask: Tensor) -> None:
    """Write ``new``, of the same dtype, into ``now`` (B, C, *S) where the mask (B, 1, *S) is True; every other bit stays.

    A select over the bits of the numbers is eight times faster on a CPU than ``torch.where`` with a bool condition.
    """
    kind = _SAME_SIZE[now.element_size()]
    target = now.view(kind)
    change = target ^ new.view(kind)
    target.bitwise_xor_(change.bitwise_and_(mask.to(kind).neg_()))


def _in_format_of(images: Tensor, made: Tensor) -> Tensor:
    """Convert ``made`` to the memory format of the images, contiguous or channels last."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(images.ndim)
    if last is None or vmapped() or images.is_contiguous() or not images.is_contiguous(memory_format=last):
        return made
    return made.contiguous(memory_format=last)
