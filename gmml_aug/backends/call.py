"""What every backend takes and gives, beside a program and a plan; and what a caller gets of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Ratios = Tensor | Sequence[float]
Lengths = Tensor | Sequence[int] | Sequence[Sequence[int]]
Given = tuple[Tensor | None, Tensor | None, Tensor | None]  # donors, allowed, forced


class Maps(NamedTuple):
    """What a caller says about where: (B or 1, 1, *S) bool each, or None.

    Attributes:
        allowed: nothing happens outside.
        forced: what the first step that works on an image does there too, whatever its boxes say.
    """

    allowed: Tensor | None = None
    forced: Tensor | None = None

    def of(self, part: slice) -> Maps:
        """Those of a part of the batch."""
        return Maps(*(one if one is None or len(one) == 1 else one[part] for one in self))

    def at(self, images: Tensor) -> Maps:
        """Those of some images, by their numbers."""
        return Maps(*(one if one is None or len(one) == 1 else one.index_select(0, images) for one in self))


class Request(NamedTuple):
    """What a plan is asked for.

    Attributes:
        keys: (B,) int64.
        shape: (B, C, *S) of the images.
        working: per step, False where it cannot change images of this shape.
        donors: number of images a donor is chosen from.
        from_batch: True if they are the batch itself.
        ratios: (B,) float64 shares in place of drawn ones, or None.
        lengths: per image its valid part, an axis each, or None.
    """

    keys: Tensor
    shape: tuple[int, ...]
    working: tuple[bool, ...]
    donors: int
    from_batch: bool
    ratios: Tensor | None = None
    lengths: tuple[tuple[int, ...], ...] | None = None


class Batch(NamedTuple):
    """What is painted.

    Attributes:
        images: (B, C, *S) the clean images; uint8 with another ``dtype`` are normalised first.
        donors: (N, C, *S) likewise; ``images`` itself where aliens come from the batch.
        maps: of the caller.
        out: where the result is written, memory of its own; None for a new tensor.
        dtype: of the result.
    """

    images: Tensor
    donors: Tensor
    maps: Maps
    out: Tensor | None
    dtype: torch.dtype

    @property
    def from_bytes(self) -> bool:
        """True if bytes are to be normalised."""
        return self.dtype != self.images.dtype


class Painted(NamedTuple):
    """What is made of a batch."""

    images: Tensor  # (B, C, *S)
    mask: Tensor  # (B, 1, *S) bool
    clean: Tensor | None = None  # (B, C, *S) normalised alone, from bytes


class CorruptedPair(NamedTuple):
    """What `Corruption.from_bytes` returns: what `Corrupted` holds, and the target beside it."""

    images: Tensor  # (B, C, *S) float, normalised and corrupted
    mask: Tensor  # (B, 1, *S) bool, True where a step changed a pixel or was free to
    clean: Tensor  # (B, C, *S) float, normalised alone


class Corrupted(NamedTuple):
    """What a corruption returns.

    Attributes:
        images: (B, C, *S), dtype, device and memory format of the input.
        mask: (B, 1, *S) bool, True where a step changed a pixel or was free to.
    """

    images: Tensor
    mask: Tensor
