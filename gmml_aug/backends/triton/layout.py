"""The memory layout of images, and the number of tiles that cover them, for the kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Layout(NamedTuple):
    """The strides of images in memory: from one image, channel and pixel (in reading order) to the next."""

    image: int
    channel: int
    pixel: int


class Tiling(NamedTuple):
    """An image as lines along its last axis, each divided into words of 32 columns; a tile is one word from each of several lines.

    If there is one axis, a tile is several words of the only line (``flat``).
    """

    lines: int
    width: int
    words: int  # of a line
    tiles: int  # one above the other
    flag_row: int  # words of flags for the tiles beside each other
    flat: bool


def tiling(size: Sequence[int], rows: int) -> Tiling:
    """The tiles of ``rows`` words that cover an image."""
    lines, width, flat = math.prod(size[:-1]), size[-1], len(size) == 1
    words = -(-width // 32)
    return Tiling(lines, width, words, -(-(words if flat else lines) // rows), 1 if flat else -(-words // 32), flat)


def three(size: Sequence[int]) -> list[int]:
    """Depth, height and width."""
    return [*[1] * (3 - len(size)), *size]


def tile_of(tile: tuple[int, int], size: Sequence[int]) -> tuple[int, int]:
    """The numbers of rows and columns; images with one axis have a single row."""
    return tile if len(size) > 1 else (1, tile[0] * tile[1])


def across(size: Sequence[int], tile: tuple[int, int]) -> tuple[int, int]:
    """The number of tiles in a row and in a column of the grid of tiles."""
    _, height, width = three(size)
    return -(-width // tile[1]), -(-height // tile[0])


def layout(images: Tensor) -> Layout | None:
    """The layout, or None if the images are neither contiguous nor channels last."""
    _, channels, *size = images.shape
    pixels = math.prod(size)
    if images.is_contiguous():
        return Layout(channels * pixels, pixels, 1)
    return Layout(channels * pixels, 1, channels) if images.movedim(1, -1).is_contiguous() else None


def strides(images: Tensor) -> Layout:
    """The layout of images that have one."""
    found = layout(images)
    assert found is not None  # the images of a call are `plain`
    return found


def plain(images: Tensor) -> Tensor:
    """The images, or a contiguous copy if they have no layout."""
    return images if layout(images) is not None else images.contiguous()
