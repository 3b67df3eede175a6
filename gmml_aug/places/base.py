"""What a place is: the contract of `Boxes`, `Cells` and `Blocks`, and how their boxes become a mask.

A place draws its boxes on its *free* axes; along the ``shared`` ones they run over the whole image. Boxes are (B, N, 2 D) integers,
first the D starts, then the D sizes; one without size is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gmml_aug.backends.reference.coverage import boxes_to_mask
from gmml_aug.checks import check_integer


class Where(Protocol):
    """What `sample` and `apply` need of a place; `Boxes` documents the common arguments."""

    @property
    def dims(self) -> int:
        """Number of spatial axes of the images."""

    @property
    def shared(self) -> tuple[int, ...]:
        """Axes along which boxes run over the whole image."""

    @property
    def invert(self) -> bool:
        """True if the fill lands outside the boxes."""

    @property
    def overshoot(self) -> bool:
        """True if the last box is painted whole."""

    @property
    def cell(self) -> int:
        """Edge of the grid that all borders keep to; 1 if there is none."""

    def words(self, size: Sequence[int]) -> int:
        """64-bit words of chance that one image's boxes take; ``size`` is that of the free axes, as below."""

    def check_size(self, size: Sequence[int]) -> None:
        """Raise ValueError if images of this size have no room for it."""

    def target(self, words: Tensor, size: Sequence[int]) -> Tensor | None:
        """(B,) int64 pixels to cover, or None if the boxes say it all."""

    def draw(self, words: Tensor, size: Sequence[int]) -> Tensor:
        """(B, N, 2 D) int64 boxes before any stop."""


def check_shared(who: str, shared: object, dims: int) -> tuple[int, ...]:
    """Distinct axes of the images, not all of them, ascending."""
    axes = (shared,) if isinstance(shared, int) else shared
    if not isinstance(axes, tuple | list):
        raise TypeError(f"{who}: shared={shared!r} is no tuple of axes. Give for example shared=(0,).")
    found = sorted(check_integer(who, "shared", axis, 0, dims - 1) for axis in axes)
    if len(set(found)) < len(found) or len(found) == dims:
        raise ValueError(
            f"{who}: shared={shared!r} must be distinct axes, and leave one of the {dims} free. Axes count from 0, batch and "
            "channels not included: shared=(0,) of dims=2 gives vertical bands, of dims=3 tubes through the first axis."
        )
    return tuple(found)


def free_axes(where: Where) -> list[int]:
    """The axes on which a place draws its boxes."""
    return [axis for axis in range(where.dims) if axis not in where.shared]


def along_shared(boxes: Tensor, where: Where, size: Sequence[int]) -> Tensor:
    """Boxes (B, N, 2 F) on the free axes as boxes (B, N, 2 D) of the image; those without size stay so."""
    if not where.shared:
        return boxes
    free = free_axes(where)
    starts, sizes = boxes[..., : len(free)], boxes[..., len(free) :]
    exists = (sizes > 0).all(-1)
    columns: list[Tensor] = [torch.zeros_like(boxes[..., 0])] * (2 * len(size))
    for axis, length in enumerate(size):
        if axis in where.shared:
            columns[len(size) + axis] = exists * length
        else:
            columns[axis], columns[len(size) + axis] = starts[..., free.index(axis)], sizes[..., free.index(axis)]
    return torch.stack(columns, dim=-1)


def place_mask(boxes: Tensor, size: Sequence[int], *, cell: int, invert: bool) -> Tensor:
    """(B, 1, *S) bool of a place.

    Args:
        boxes: (B, N, 2 D) integers of the plan.
        size: the D spatial sizes.
        cell: edge of the grid that all borders keep to.
        invert: True for what lies outside.
    """
    grid = [-(-length // cell) for length in size]
    if cell > 1:  # on the grid there are fewer pixels to ask
        starts, ends = boxes[..., : len(size)], boxes[..., : len(size)] + boxes[..., len(size) :]
        first = torch.div(starts, cell, rounding_mode="floor")
        last = torch.div(ends + (cell - 1), cell, rounding_mode="floor")
        boxes = torch.cat([first, last - first], dim=-1)
    mask = boxes_to_mask(boxes, grid)
    if cell > 1:
        for axis, length in enumerate(size):
            mask = mask.repeat_interleave(cell, dim=axis + 2).narrow(axis + 2, 0, length)
    return ~mask if invert else mask
