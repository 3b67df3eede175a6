"""Places that somebody might write: shapes that are no boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import gmml_aug as ga
from gmml_aug.chance import high_half, low_half, scale
from gmml_aug.places.base import Range


@dataclass(frozen=True, kw_only=True)
class Balls(ga.Place):
    """Discs, or balls, of any size at any pixel, until a share of the image is covered."""

    ratio: Range
    radius: tuple[float, float] = (0.05, 0.15)  # shares of the first free side
    most: int = 60
    dims: int = 2
    shared: tuple[int, ...] = ()
    invert: bool = False

    def words(self, size: Sequence[int]) -> int:
        return 1 + len(size) * self.most

    def levels(self, size: Sequence[int]) -> int:
        return self.most + 1

    def order(self, words: Tensor, size: Sequence[int]) -> Tensor:
        word = words[:, 1:].reshape(len(words), self.most, len(size))
        low, high = (max(round(share * size[0]), 1) for share in self.radius)
        radius = low + scale(high_half(word[..., 0]), high - low + 1)
        order = torch.full((len(words), *size), self.most, device=words.device)  # last of all what no ball covers
        for ball in reversed(range(self.most)):
            far = torch.zeros((), dtype=torch.int64, device=words.device)
            for axis, length in enumerate(size):
                centre = scale(low_half(word[:, ball, axis]), length)
                away = (torch.arange(length, device=words.device) - centre[:, None]).square()
                far = far[..., None] + away.reshape(len(words), *[1] * axis, length)
            order = order.masked_fill(far <= radius[:, ball].square().reshape(-1, *[1] * len(size)), ball)
        return order


@dataclass(frozen=True, kw_only=True)
class Left(ga.Place):
    """The example in the documentation of `Place`, along the last axis."""

    ratio: Range
    dims: int = 2
    shared: tuple[int, ...] = ()
    invert: bool = False

    def words(self, size: Sequence[int]) -> int:
        return 1

    def order(self, words: Tensor, size: Sequence[int]) -> Tensor:
        return torch.arange(size[-1], device=words.device).expand(len(words), *size).contiguous()

    def levels(self, size: Sequence[int]) -> int:
        return size[-1]


OWN = {"Balls": Balls, "Left": Left}
EVERYTHING = {**vars(ga), **OWN}  # to read printed code with
