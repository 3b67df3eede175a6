"""Short lines of pixels: on the CPU, new content for those that a mask touches costs less than for all, or for single pixels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from gmml_aug.functional import blend_

_AN_IMAGE = 14  # lines along a row: about as long as a box of GMML is wide, where that is no less than eight pixels


class Lines(NamedTuple):
    """The lines that a mask touches."""

    image: Tensor  # (L,) int64 whose
    row: Tensor  # (L,) int64 which of its lines
    mask: Tensor  # (L, W) bool
    of_an_image: int  # lines in one channel of an image

    @property
    def width(self) -> int:
        """Pixels in a line."""
        return self.mask.shape[1]

    def of_channel(self, channel: int, channels: int) -> Tensor:
        """(L,) their numbers among the lines of contiguous images (B, channels, *S)."""
        return (self.image * channels + channel) * self.of_an_image + self.row


def touched_lines(mask: Tensor) -> Lines:
    """The lines of a mask (B, 1, *S) in which a pixel is True."""
    width = _width(mask.shape[-1])
    rows, lines = mask[0].numel() // width, mask.contiguous().view(-1, width)
    # eight bytes at once: any() over so few of them is slow
    used = (lines.view(torch.int64) != 0).any(1) if width % 8 == 0 else lines.any(1)
    touched = used.nonzero()[:, 0]
    return Lines(touched // rows, touched % rows, lines.index_select(0, touched), rows)


def blend_lines_(now: Tensor, planes: Iterable[Tensor], lines: Lines) -> None:
    """Write new lines into contiguous images where the mask is True.

    Args:
        now: (B, C, *S), changed in place.
        planes: for each channel (L, W) in the dtype of the images.
        lines: from `touched_lines`.
    """
    rows = now.view(-1, lines.width)
    for channel, plane in enumerate(planes):
        where = lines.of_channel(channel, now.shape[1])
        line = rows.index_select(0, where)
        blend_(line, plane, lines.mask)
        rows.index_copy_(0, where, line)


def _width(row: int) -> int:
    """A length that divides a row."""
    wanted = max(row // _AN_IMAGE, 8)
    parts = [length for length in range(8, 65) if row % length == 0]
    return min(parts, key=lambda length: (abs(length - wanted), length % 8), default=row)
