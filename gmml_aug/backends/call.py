"""The arguments of every backend besides a program and a plan, and the results that it returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Ratios = Tensor | Sequence[float]
Lengths = Tensor | Sequence[int] | Sequence[Sequence[int]]
Given = tuple[Tensor | None, Tensor | None, Tensor | None]  # donors, allowed, forced


class Maps(NamedTuple):
    """The maps ``allowed`` and ``forced`` of a call: (B or 1, 1, *S) bool each, or None."""

    allowed: Tensor | None = None  # nothing happens outside
    forced: Tensor | None = None  # the first step that works on an image works there too, whatever its boxes say

    def of(self, part: slice) -> Maps:
        """The maps for a part of the batch."""
        return Maps(*(one if one is None or len(one) == 1 else one[part] for one in self))

    def at(self, images: Tensor) -> Maps:
        """The maps for some images, selected by their numbers."""
        return Maps(*(one if one is None or len(one) == 1 else one.index_select(0, images) for one in self))


class Request(NamedTuple):
    """The input for a plan: everything about a call except its pixels."""

    keys: Tensor  # (B,) int64
    shape: tuple[int, ...]  # (B, C, *S) of the images
    working: tuple[bool, ...]  # per step, False where it cannot change images of this shape
    donors: int  # number of images a donor is chosen from
    from_batch: bool  # True if they are the batch itself
    ratios: Tensor | None = None  # (B,) float64 shares in place of drawn ones
    lengths: tuple[tuple[int, ...], ...] | None = None  # per image its valid part, an axis each


class Batch(NamedTuple):
    """What is painted."""

    images: Tensor  # (B, C, *S) the clean images; uint8 with another ``dtype`` are normalised first
    donors: Tensor  # (N, C, *S) likewise; ``images`` itself where aliens come from the batch
    maps: Maps
    out: Tensor | None  # where the result is written, memory of its own; None for a new tensor
    dtype: torch.dtype  # of the result
    clean: bool = True  # from bytes: the clean images are asked for as well

    @property
    def from_bytes(self) -> bool:
        """True if the images are bytes that have to be normalised."""
        return self.dtype != self.images.dtype


class Painted(NamedTuple):
    """A batch, and the form in which its result is returned."""

    images: Tensor  # (B, C, *S)
    mask: Tensor  # (B, 1, *S) bool
    clean: Tensor | None = None  # (B, C, *S) normalised alone, from bytes and where asked for


class CorruptedPair(NamedTuple):
    """The result of `Corruption.from_bytes`: the fields of `Corrupted`, and the clean target."""

    images: Tensor  # (B, C, *S) float, normalised and corrupted
    mask: Tensor  # (B, 1, *S) bool, True where a step changed a pixel or was free to
    clean: Tensor  # (B, C, *S) float, normalised alone


class Corrupted(NamedTuple):
    """The result of a corruption.

    Attributes:
        images: (B, C, *S), dtype, device and memory format of the input.
        mask: (B, 1, *S) bool, True where a step changed a pixel or was allowed to change it.
    """

    images: Tensor
    mask: Tensor
